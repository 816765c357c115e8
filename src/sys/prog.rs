//! Programs, as far as maps know them: declared, never run.
//!
//! Kernel: `kernel/bpf/syscall.c:bpf_prog_load`, `kernel/bpf/verifier.c` (v6.18), for what is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Kernel;
use super::call::Call;
use super::files::Held;
use super::kernel::ProgDef;
use super::prog_load::{self, MapUse};
use crate::abi::{AttachType, Caps, Errno, Fd, MapType, ProgType, Result};
use crate::map::Map;
use crate::map::object::{Code, Object, Prog};

/// Programs of these types have cgroup storage.
pub(super) const CGROUP_TYPES: [ProgType; 7] = [
    ProgType::CGROUP_SKB,
    ProgType::CGROUP_SOCK,
    ProgType::CGROUP_SOCK_ADDR,
    ProgType::SOCK_OPS,
    ProgType::CGROUP_DEVICE,
    ProgType::CGROUP_SYSCTL,
    ProgType::CGROUP_SOCKOPT,
];

/// A map of elements that are made where a program is attached.
pub(super) fn is_cgroup_storage(map: &Map) -> bool {
    matches!(
        map.def.map_type,
        MapType::CGROUP_STORAGE | MapType::PERCPU_CGROUP_STORAGE
    )
}

/// The place that a program is for, or the one that its type had before programs said.
///
/// # Errors
///
/// `EINVAL` if programs of that type have no such place.
///
/// Kernel: `kernel/bpf/syscall.c:bpf_prog_load_fixup_attach_type`, `bpf_prog_load_check_attach`.
pub(super) fn expected_attach_type(
    prog_type: ProgType,
    attach_type: AttachType,
) -> Result<AttachType> {
    let attach_type = fixed_up(prog_type, attach_type);
    let fits = match prog_type {
        ProgType::CGROUP_SKB => attach_type.0 <= 1,
        ProgType::CGROUP_SOCK => matches!(attach_type.0, 2 | 12 | 13 | 34),
        ProgType::CGROUP_SOCK_ADDR => {
            matches!(attach_type.0, 8..=11 | 14 | 15 | 19 | 20 | 29..=32 | 49..=53)
        }
        ProgType::CGROUP_SOCKOPT => matches!(attach_type.0, 21 | 22),
        ProgType::SK_REUSEPORT => matches!(attach_type.0, 39 | 40),
        ProgType::SK_LOOKUP => attach_type.0 == 36,
        ProgType::NETFILTER => attach_type.0 == 45,
        ProgType::SYSCALL | ProgType::EXT => attach_type.0 == 0,
        _ => true,
    };
    if fits {
        Ok(attach_type)
    } else {
        Err(Errno::EINVAL)
    }
}

fn fixed_up(prog_type: ProgType, attach_type: AttachType) -> AttachType {
    /// `BPF_SK_REUSEPORT_SELECT`
    const SELECT: AttachType = AttachType(39);
    match prog_type {
        ProgType::CGROUP_SOCK if attach_type.0 == 0 => AttachType::CGROUP_INET_SOCK_CREATE,
        ProgType::SK_REUSEPORT if attach_type.0 == 0 => SELECT,
        _ => attach_type,
    }
}

impl Kernel {
    /// Loads a program that is declared by what it uses; its fd.
    ///
    /// # Errors
    ///
    /// `EPERM`; `EBADF` or `EINVAL` for fds that are no maps; `EINVAL` for storages that are none, or that the program's
    /// type has no helper for; `EBUSY` for two storages of one kind, or two arenas; `EINVAL` for a map
    /// that belongs to programs of another kind, or that programs of that type cannot use.
    pub fn prog_load(&self, def: ProgDef<'_>) -> Result<Fd> {
        let caps = self.inner.caps();
        let unprivileged = matches!(
            def.prog_type,
            ProgType::SOCKET_FILTER | ProgType::CGROUP_SKB
        ) && self.inner.unprivileged_bpf_disabled.load(Ordering::Relaxed) == 0;
        if !unprivileged && !caps.capable(Caps::BPF) {
            return Err(Errno::EPERM);
        }
        let call = self.own();
        let mut maps: Vec<Arc<Map>> = Vec::new();
        for &fd in def.storages.iter().chain(def.maps) {
            let user = MapUse {
                prog_type: def.prog_type,
                sleepable: false,
                digest: None,
            };
            prog_load::add_map(call.map(fd)?, user, &mut maps).map_err(|refused| refused.errno)?;
        }
        for &fd in def.storages {
            if !is_cgroup_storage(&*call.map(fd)?) || !CGROUP_TYPES.contains(&def.prog_type) {
                return Err(Errno::EINVAL);
            }
        }
        call.add_prog(Prog {
            id: 0,
            name: def.name.to_owned(),
            prog_type: def.prog_type,
            expected_attach_type: fixed_up(def.prog_type, def.expected_attach_type),
            xdp_has_frags: false,
            maps,
            bound: Mutex::new(Vec::new()),
            run_cnt: AtomicU64::new(0),
            code: Code::default(),
        })
    }
}

impl Call<'_> {
    /// The fd of a new program, which is given its id; maps that belong to one kind of programs now belong to its kind.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a map that belongs to another kind.
    pub(super) fn add_prog(&self, mut prog: Prog) -> Result<Fd> {
        for map in &prog.maps {
            map.ops.used_by(&prog)?;
        }
        prog.id = self.inner.progs.reserve();
        let prog = Arc::new(prog);
        self.inner.progs.add(prog.id, &prog);
        self.open(Held::Object(Object::Prog(prog)))
    }
}
