//! `BPF_PROG_QUERY`; and what asks or runs programs that the kernel has attached elsewhere: their errnos, as far as they
//! depend on the arguments.
//!
//! Kernel: `kernel/bpf/syscall.c`, `kernel/bpf/cgroup.c:__cgroup_bpf_query` (v6.18).

use std::sync::Arc;

use super::attach::Elsewhere;
use super::call::Call;
use super::files::Held;
use crate::abi::{AttachFlags, AttachType, Attr, Caps, Errno, MapType, ProgType, Result, UserMem};
use crate::map::object::{Object, OtherKind, Prog};

/// Names that programs give: `BPF_RAW_TRACEPOINT_OPEN`.
const NAME_LEN: usize = 127;

/// Offsets in the attr of `BPF_PROG_QUERY`, and its end.
mod at {
    pub(super) const TARGET_FD: usize = 0;
    pub(super) const ATTACH_TYPE: usize = 4;
    pub(super) const QUERY_FLAGS: usize = 8;
    pub(super) const ATTACH_FLAGS: usize = 12;
    pub(super) const PROG_IDS: usize = 16;
    pub(super) const PROG_CNT: usize = 24;
    pub(super) const PROG_ATTACH_FLAGS: usize = 32;
    pub(super) const REVISION: usize = 56;
    pub(super) const END: usize = 64;
}

impl Call<'_> {
    /// Kernel: `bpf_prog_query`, `cgroup_bpf_prog_query`.
    pub(super) fn prog_query(
        &self,
        addr: u64,
        given: usize,
        attr: Attr<'_>,
        mem: &mut dyn UserMem,
    ) -> Result<u32> {
        const EFFECTIVE: u32 = 1;
        if !self.inner.caps().capable(Caps::NET_ADMIN) {
            return Err(Errno::EPERM);
        }
        let flags = attr.u32(at::QUERY_FLAGS);
        if !attr.zero_from(at::END) || flags & !EFFECTIVE != 0 {
            return Err(Errno::EINVAL);
        }
        let attach_type = AttachType(attr.u32(at::ATTACH_TYPE));
        if let Some(place) = Elsewhere::of(attach_type) {
            return self.query_elsewhere(place, addr, attr, mem);
        }
        self.prog_type_at(attach_type)?;
        let cgroup = self.live_cgroup(attr.u32(at::TARGET_FD))?;
        let effective = flags == EFFECTIVE;
        let attach_flags_at = attr.u64(at::PROG_ATTACH_FLAGS);
        if effective && attach_flags_at != 0 {
            return Err(Errno::EINVAL);
        }
        let mut cgroups = self.inner.cgroups.lock();
        let (ids, attach_flags, revision) = if effective {
            let progs = cgroups.effective(cgroup.id, attach_type);
            let ids = progs.map(|entry| entry.prog.id).collect();
            (ids, AttachFlags::empty(), 0)
        } else {
            let place = cgroups.place(cgroup.id, attach_type)?;
            let ids: Vec<u32> = place.entries.iter().map(|entry| entry.prog.id).collect();
            (ids, place.flags, place.revision)
        };
        drop(cgroups);
        let mut put = |at: usize, bytes: &[u8]| mem.write(addr.wrapping_add(at as u64), bytes);
        let all = u32::try_from(ids.len()).expect("64 at a place");
        put(at::ATTACH_FLAGS, &attach_flags.bits().to_ne_bytes())?;
        put(at::PROG_CNT, &all.to_ne_bytes())?;
        // The kernel writes there even if the attr is shorter.
        if given >= at::END {
            put(at::REVISION, &revision.to_ne_bytes())?;
        }
        let (room, ids_at) = (attr.u32(at::PROG_CNT), attr.u64(at::PROG_IDS));
        if room == 0 || ids_at == 0 || all == 0 {
            return Ok(0);
        }
        let shown = &ids[..ids.len().min(room as usize)];
        let bytes: Vec<u8> = shown.iter().flat_map(|id| id.to_ne_bytes()).collect();
        mem.write(ids_at, &bytes)?;
        if attach_flags_at != 0 {
            let each = attach_flags.bits().to_ne_bytes();
            mem.write(attach_flags_at, &each.repeat(shown.len()))?;
        }
        if shown.len() < ids.len() {
            return Err(Errno::ENOSPC);
        }
        Ok(0)
    }

    /// No program is attached elsewhere than at cgroups.
    ///
    /// Kernel: `net/core/sock_map.c:sock_map_bpf_prog_query`, `kernel/bpf/net_namespace.c:netns_bpf_prog_query`,
    /// `kernel/bpf/tcx.c:tcx_prog_query`.
    fn query_elsewhere(
        &self,
        place: Elsewhere,
        addr: u64,
        attr: Attr<'_>,
        mem: &mut dyn UserMem,
    ) -> Result<u32> {
        let (target, flags) = (attr.u32(at::TARGET_FD), attr.u32(at::QUERY_FLAGS));
        let mut is_one = true;
        match place {
            Elsewhere::Nowhere => return Err(Errno::EINVAL),
            Elsewhere::Interface => {
                if !self.inner.env.has_interface(target) {
                    return Err(Errno::ENODEV);
                }
                if flags | attr.u32(at::ATTACH_FLAGS) != 0 {
                    return Err(Errno::EINVAL);
                }
                mem.write(addr.wrapping_add(at::REVISION as u64), &1_u64.to_ne_bytes())?;
            }
            _ if flags != 0 => return Err(Errno::EINVAL),
            Elsewhere::SocketMap => {
                let map_type = self.map(target)?.def.map_type;
                is_one = matches!(map_type, MapType::SOCKMAP | MapType::SOCKHASH);
            }
            Elsewhere::Netns => {
                if !matches!(self.object(target)?, Object::Other(other) if other.kind == OtherKind::Netns)
                {
                    return Err(Errno::EINVAL);
                }
            }
        }
        for at in [at::ATTACH_FLAGS, at::PROG_CNT] {
            mem.write(addr.wrapping_add(at as u64), &[0; 4])?;
        }
        if is_one {
            Ok(0)
        } else {
            Err(Errno::EOPNOTSUPP)
        }
    }

    /// Kernel: `bpf_prog_test_run`.
    pub(super) fn prog_test_run(
        &self,
        addr: u64,
        attr: Attr<'_>,
        mem: &mut dyn UserMem,
    ) -> Result<u32> {
        let (size_in, size_out) = (attr.u32(40), attr.u32(44));
        let (ctx_in, ctx_out) = (attr.u64(48), attr.u64(56));
        if (size_in != 0) != (ctx_in != 0) || (size_out != 0) != (ctx_out != 0) {
            return Err(Errno::EINVAL);
        }
        let prog = self.prog(attr.u32(0))?;
        if !has_test_run(&prog) {
            return Err(Errno::ENOTSUPP);
        }
        self.test_run(&prog, addr, attr, mem)
    }

    /// Kernel: `bpf_raw_tracepoint_open`.
    pub(super) fn raw_tracepoint_open(&self, attr: Attr<'_>, mem: &dyn UserMem) -> Result<u32> {
        let name = attr.u64(0);
        let prog = self.prog(attr.u32(8))?;
        match prog.prog_type {
            ProgType::TRACING | ProgType::EXT | ProgType::LSM if name == 0 => {}
            ProgType::RAW_TRACEPOINT | ProgType::RAW_TRACEPOINT_WRITABLE => {
                super::user_string(mem, name, NAME_LEN)?;
            }
            _ => return Err(Errno::EINVAL),
        }
        let prog_type = prog.prog_type;
        let what = format_args!("BPF_RAW_TRACEPOINT_OPEN of programs of type {prog_type}");
        Err(self.inner.env.unsupported(what))
    }

    /// Runs are counted as long as the file is open.
    ///
    /// Kernel: `bpf_enable_stats`.
    pub(super) fn enable_stats(&self, attr: Attr<'_>) -> Result<u32> {
        self.sys_admin()?;
        if attr.u32(0) != 0 {
            return Err(Errno::EINVAL);
        }
        let file = self.inner.other(OtherKind::File);
        self.inner.counting.lock().push(Arc::downgrade(&file));
        self.open(Held::Object(Object::Other(file)))
    }

    /// No link here is one of an iterator.
    ///
    /// Kernel: `bpf_iter_create`.
    pub(super) fn iter_create(&self, attr: Attr<'_>) -> Result<u32> {
        if attr.u32(4) == 0 {
            self.file(attr.u32(0))?;
        }
        Err(Errno::EINVAL)
    }

    /// Which process is meant is not known here.
    ///
    /// Kernel: `bpf_task_fd_query`.
    pub(super) fn task_fd_query(&self, attr: Attr<'_>) -> Result<u32> {
        self.sys_admin()?;
        let (pid, flags) = (attr.u32(0), attr.u32(8));
        if flags != 0 {
            return Err(Errno::EINVAL);
        }
        if pid == 0 {
            return Err(Errno::ENOENT);
        }
        Err(self
            .inner
            .env
            .unsupported(format_args!("BPF_TASK_FD_QUERY")))
    }
}

/// Programs of that type can be run for a test.
///
/// Kernel: the `test_run` of each `bpf_prog_ops`.
fn has_test_run(prog: &Arc<Prog>) -> bool {
    matches!(
        prog.prog_type,
        ProgType::SOCKET_FILTER
            | ProgType::SCHED_CLS
            | ProgType::SCHED_ACT
            | ProgType::XDP
            | ProgType::CGROUP_SKB
            | ProgType::LWT_IN
            | ProgType::LWT_OUT
            | ProgType::LWT_XMIT
            | ProgType::RAW_TRACEPOINT
            | ProgType::FLOW_DISSECTOR
            | ProgType::SK_LOOKUP
            | ProgType::SYSCALL
            | ProgType::NETFILTER
            | ProgType::TRACING
            | ProgType::STRUCT_OPS
    )
}
