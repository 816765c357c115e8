//! Programs, as far as maps know them: declared, never run.
//!
//! Kernel: `kernel/bpf/syscall.c:bpf_prog_load`, `kernel/bpf/verifier.c` (v6.18), for what is refused.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Kernel;
use super::files::Held;
use super::kernel::ProgDef;
use crate::abi::{AttachType, Caps, Errno, Fd, MapType, ProgType, Result};
use crate::map::Map;
use crate::map::object::{Object, Prog};

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

impl Kernel {
    /// Loads a program that is declared by what it uses; its fd.
    ///
    /// # Errors
    ///
    /// `EPERM`; `EBADF` or `EINVAL` for fds that are no maps; `EINVAL` for storages that are none, or that the program's
    /// type has no helper for; `EBUSY` for two storages of one kind; `EINVAL` for a map that belongs to
    /// programs of another kind.
    pub fn prog_load(&self, def: ProgDef<'_>) -> Result<Fd> {
        let caps = self.inner.caps();
        let unprivileged = matches!(
            def.prog_type,
            ProgType::SOCKET_FILTER | ProgType::CGROUP_SKB
        ) && self.inner.unprivileged_bpf_disabled.load(Ordering::Relaxed) == 0;
        if !unprivileged && !caps.capable(Caps::BPF) {
            return Err(Errno::EPERM);
        }
        let mut maps: Vec<Arc<Map>> = Vec::new();
        for &fd in def.storages.iter().chain(def.maps) {
            let map = self.map(fd)?;
            if !maps.iter().any(|held| Arc::ptr_eq(held, &map)) {
                maps.push(map);
            }
        }
        for kind in [MapType::CGROUP_STORAGE, MapType::PERCPU_CGROUP_STORAGE] {
            let of_kind = maps.iter().filter(|map| map.def.map_type == kind);
            if of_kind.count() > 1 {
                return Err(Errno::EBUSY);
            }
        }
        for &fd in def.storages {
            if !is_cgroup_storage(&*self.map(fd)?) || !CGROUP_TYPES.contains(&def.prog_type) {
                return Err(Errno::EINVAL);
            }
        }
        let mut expected_attach_type = def.expected_attach_type;
        if def.prog_type == ProgType::CGROUP_SOCK && expected_attach_type == AttachType(0) {
            // From the time before programs said what they are for.
            expected_attach_type = AttachType::CGROUP_INET_SOCK_CREATE;
        }
        let prog = Prog {
            id: self.inner.next_ids.prog.fetch_add(1, Ordering::Relaxed),
            name: def.name.to_owned(),
            prog_type: def.prog_type,
            expected_attach_type,
            maps,
        };
        for map in &prog.maps {
            map.ops.used_by(&prog)?;
        }
        self.inner.open(Held::Object(Object::Prog(Arc::new(prog))))
    }

    /// The program behind an fd.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open, `EINVAL` if it is something else.
    pub(super) fn prog(&self, fd: Fd) -> Result<Arc<Prog>> {
        match self.object(fd)? {
            Object::Prog(prog) => Ok(prog),
            Object::Map(_) | Object::Btf(_) | Object::Cgroup(_) | Object::Other(_) => {
                Err(Errno::EINVAL)
            }
        }
    }

    /// The program behind an fd, of that type.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open, `EINVAL` if it is something else.
    pub(super) fn prog_of_type(&self, fd: Fd, prog_type: ProgType) -> Result<Arc<Prog>> {
        let prog = self.prog(fd)?;
        if prog.prog_type == prog_type {
            Ok(prog)
        } else {
            Err(Errno::EINVAL)
        }
    }
}
