//! What the verifier refuses: the errno of `BPF_PROG_LOAD`, and the rule in words.
//!
//! A program in Rust is not verified before it runs. The rules that depend on the map, the helper and the type of the
//! program are here, for those who want to ask before a call; the calls themselves panic.
//!
//! Kernel: `kernel/bpf/verifier.c:check_map_prog_compatibility`, `check_helper_call`, `check_map_func_compatibility`
//! (v6.18).

use std::sync::atomic::Ordering;

use crate::abi::{Errno, Helper, MapFlags, MapType, ProgType};
use crate::btf::{Field, FieldKind};
use crate::env::Release;
use crate::map::Map;
use crate::map::prog_use::is_tracing;
pub use crate::map::prog_use::{Refused, map_allowed};

const fn refuse(errno: Errno, rule: &'static str) -> Result<(), Refused> {
    Err(Refused { errno, rule })
}

/// A type of programs, as far as the rules of the helpers in [`number`] tell one from the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Tracing,
    SocketFilter,
    Other,
}

impl Kind {
    pub(super) const fn of(prog_type: ProgType) -> Self {
        match prog_type {
            ProgType::SOCKET_FILTER => Self::SocketFilter,
            _ if is_tracing(prog_type) => Self::Tracing,
            _ => Self::Other,
        }
    }
}

/// The number of a helper whose verdicts are remembered: those that a program calls for each packet.
const fn number(helper: Helper) -> Option<u32> {
    Some(match helper {
        Helper::MAP_LOOKUP_ELEM => 0,
        Helper::MAP_UPDATE_ELEM => 1,
        Helper::MAP_DELETE_ELEM => 2,
        Helper::MAP_LOOKUP_PERCPU_ELEM => 3,
        Helper::MAP_PUSH_ELEM => 4,
        Helper::MAP_POP_ELEM => 5,
        Helper::MAP_PEEK_ELEM => 6,
        Helper::RINGBUF_OUTPUT => 7,
        Helper::RINGBUF_RESERVE => 8,
        _ => return None,
    })
}

/// As [`helper_allowed`], for a program that calls it again and again: the map remembers what was allowed, as neither it nor
/// the rules change.
#[inline]
pub(super) fn judge(
    map: &Map,
    helper: Helper,
    prog_type: ProgType,
    kind: Kind,
) -> Result<(), Refused> {
    let bit = number(helper).map_or(0, |number| 1 << (16 * kind as u32 + number));
    if map.judged.load(Ordering::Relaxed) & bit != 0 {
        return Ok(());
    }
    helper_allowed(map, helper, prog_type)?;
    map.judged.fetch_or(bit, Ordering::Relaxed);
    Ok(())
}

/// Whether a program of that type may call that helper on that map.
///
/// # Errors
///
/// In the verifier's order: `EINVAL` if the program may not use the map at all, or not call the helper; `EACCES` for a key
/// or a value of no bytes; `EACCES` if it would change a map that is `BPF_F_RDONLY_PROG`; `EINVAL` if the type of map does
/// not go with the helper (`ENOTSUPP` for a walk); `EACCES` if the value is a socket, which is no bytes.
pub fn helper_allowed(map: &Map, helper: Helper, prog_type: ProgType) -> Result<(), Refused> {
    if map.def.map_type == MapType::INSN_ARRAY {
        return refuse(Errno::EINVAL, "helpers do not take an INSN_ARRAY");
    }
    map_allowed(map, prog_type)?;
    let release = map.env.release;
    if helper.0 >= release.helpers || !is_available(helper, prog_type) {
        return refuse(
            Errno::EINVAL,
            "programs of this type cannot call this helper",
        );
    }
    sizes_allowed(map, helper)?;
    let changes = matches!(
        helper,
        Helper::MAP_UPDATE_ELEM
            | Helper::MAP_DELETE_ELEM
            | Helper::MAP_PUSH_ELEM
            | Helper::MAP_POP_ELEM
    );
    if changes && map.def.map_flags.contains(MapFlags::RDONLY_PROG) {
        return refuse(Errno::EACCES, "programs only read a BPF_F_RDONLY_PROG map");
    }
    match helper {
        Helper::SPIN_LOCK | Helper::SPIN_UNLOCK => {
            if map.fields.spin_lock().is_none() {
                return refuse(
                    release.no_lock_there,
                    "the map's value has no struct bpf_spin_lock",
                );
            }
        }
        Helper::TIMER_INIT
        | Helper::TIMER_SET_CALLBACK
        | Helper::TIMER_START
        | Helper::TIMER_CANCEL => {
            let is_timer = |field: &Field| field.kind == FieldKind::Timer;
            if !map.fields.0.iter().any(is_timer) {
                return refuse(Errno::EINVAL, "the map's value has no struct bpf_timer");
            }
        }
        Helper::FOR_EACH_MAP_ELEM => {
            if !helpers_of(map.def.map_type).contains(&helper) {
                return refuse(Errno::ENOTSUPP, "this type of map has no walk for programs");
            }
        }
        _ => {
            if !helpers_of(map.def.map_type).contains(&helper) {
                return refuse(
                    Errno::EINVAL,
                    "this helper does not go with this type of map",
                );
            }
        }
    }
    let is_sockmap = matches!(map.def.map_type, MapType::SOCKMAP | MapType::SOCKHASH);
    if helper == Helper::MAP_DELETE_ELEM && is_sockmap && !deletes_sockets(prog_type, release) {
        return refuse(Errno::EINVAL, "programs of this type do not delete sockets");
    }
    if helper == Helper::MAP_LOOKUP_ELEM && holds_sockets(map.def.map_type) {
        return refuse(
            Errno::EACCES,
            "what is found is a socket: it has no bytes to read",
        );
    }
    Ok(())
}

/// Programs of that type may delete from a map of sockets.
///
/// Kernel: `kernel/bpf/verifier.c:may_update_sockmap`.
const fn deletes_sockets(prog_type: ProgType, release: &Release) -> bool {
    use ProgType as P;
    match prog_type {
        P::SOCK_OPS | P::SK_REUSEPORT => true,
        P::SOCKET_FILTER
        | P::SCHED_CLS
        | P::SCHED_ACT
        | P::XDP
        | P::FLOW_DISSECTOR
        | P::SK_LOOKUP => release.packets_delete_sockets,
        _ => false,
    }
}

/// Whether a program of that type may allocate objects, and have lists and trees of them.
///
/// # Errors
///
/// `EACCES` if it may not call these functions of the kernel.
///
/// Kernel: `kernel/bpf/helpers.c:kfunc_init`.
pub fn objects_allowed(prog_type: ProgType) -> Result<(), Refused> {
    let may = matches!(
        prog_type,
        ProgType::SCHED_CLS
            | ProgType::XDP
            | ProgType::TRACEPOINT
            | ProgType::PERF_EVENT
            | ProgType::TRACING
            | ProgType::LSM
            | ProgType::STRUCT_OPS
            | ProgType::SYSCALL
            | ProgType::CGROUP_SKB
            | ProgType::CGROUP_SOCK
            | ProgType::CGROUP_SOCK_ADDR
            | ProgType::CGROUP_DEVICE
            | ProgType::CGROUP_SYSCTL
            | ProgType::CGROUP_SOCKOPT
            | ProgType::SOCK_OPS
    );
    if may {
        return Ok(());
    }
    refuse(
        Errno::EACCES,
        "programs of this type cannot call this function of the kernel",
    )
}

/// Whether a program may load `len` bytes at `offset` of a value.
///
/// # Errors
///
/// `EACCES`: outside of the value, bytes of a special field, or a map that is `BPF_F_WRONLY_PROG`. `ENOTSUPP` for an array of
/// several elements that nobody can change any more: the verifier takes what is loaded for a constant, and looks for it in an
/// array of one.
///
/// Kernel: `kernel/bpf/verifier.c:check_mem_access`, `bpf_map_direct_read`; `kernel/bpf/arraymap.c:array_map_direct_value_addr`.
pub fn load_allowed(map: &Map, offset: usize, len: usize) -> Result<(), Refused> {
    access_allowed(map, offset, len)?;
    if map.def.map_flags.contains(MapFlags::WRONLY_PROG) {
        return refuse(
            Errno::EACCES,
            "programs do not read a BPF_F_WRONLY_PROG map",
        );
    }
    let def = &map.def;
    if len > 0 && def.map_type == MapType::ARRAY && def.max_entries != 1 && is_constant(map) {
        return refuse(
            Errno::ENOTSUPP,
            "what is in a frozen BPF_F_RDONLY_PROG array of several elements is not read",
        );
    }
    Ok(())
}

/// Whether a program may store `len` bytes at `offset` of a value.
///
/// # Errors
///
/// `EACCES`: outside of the value, bytes of a special field, or a map that is `BPF_F_RDONLY_PROG`.
pub fn store_allowed(map: &Map, offset: usize, len: usize) -> Result<(), Refused> {
    access_allowed(map, offset, len)?;
    if map.def.map_flags.contains(MapFlags::RDONLY_PROG) {
        return refuse(
            Errno::EACCES,
            "programs do not write a BPF_F_RDONLY_PROG map",
        );
    }
    Ok(())
}

/// Nobody can change the map any more.
///
/// Kernel: `kernel/bpf/verifier.c:bpf_map_is_rdonly`.
fn is_constant(map: &Map) -> bool {
    map.def.map_flags.contains(MapFlags::RDONLY_PROG)
        && map.frozen.load(Ordering::Acquire)
        && !map.writers.any()
}

fn access_allowed(map: &Map, offset: usize, len: usize) -> Result<(), Refused> {
    let size = map.def.value_size as usize;
    if offset > size || len > size - offset {
        return refuse(Errno::EACCES, "the bytes are outside of the value");
    }
    if map.fields.touched_by(offset, len).is_some() {
        return refuse(Errno::EACCES, "a special field is not loaded or stored");
    }
    Ok(())
}

/// Whether `bpf_spin_lock` and `bpf_spin_unlock` take a pointer to that byte of a value.
///
/// # Errors
///
/// `EINVAL` if the lock is not there.
pub fn lock_allowed(map: &Map, offset: usize, prog_type: ProgType) -> Result<(), Refused> {
    helper_allowed(map, Helper::SPIN_LOCK, prog_type)?;
    if map.fields.spin_lock().map(|at| at as usize) != Some(offset) {
        return refuse(
            map.env.release.no_lock_there,
            "this is not where the value's struct bpf_spin_lock is",
        );
    }
    Ok(())
}

/// Whether a helper for timers takes a pointer to that byte of a value.
///
/// # Errors
///
/// `EINVAL` if no timer is there.
pub fn timer_allowed(
    map: &Map,
    offset: usize,
    prog_type: ProgType,
    helper: Helper,
) -> Result<(), Refused> {
    helper_allowed(map, helper, prog_type)?;
    let is_there =
        |field: &Field| field.kind == FieldKind::Timer && field.offset as usize == offset;
    if !map.fields.0.iter().any(is_there) {
        return refuse(
            Errno::EINVAL,
            "this is not where a struct bpf_timer of the value is",
        );
    }
    Ok(())
}

/// A lock that is held when another one is taken or a helper is called.
pub const LOCK_IS_HELD: Refused = Refused {
    errno: Errno::EINVAL,
    rule: "while a bpf_spin_lock is held, no helper is called and no other lock taken",
};

/// A lock that is released though it is not held.
pub const fn lock_is_not_held(release: &Release) -> Refused {
    Refused {
        errno: release.no_lock_there,
        rule: "bpf_spin_unlock without its bpf_spin_lock",
    }
}

/// A program that ends with a lock.
pub const LOCK_AT_EXIT: Refused = Refused {
    errno: Errno::EINVAL,
    rule: "the program ends while a bpf_spin_lock is held",
};

/// Keys and values of no bytes cannot be pointed to, and a socket is not a value.
fn sizes_allowed(map: &Map, helper: Helper) -> Result<(), Refused> {
    let takes_key = matches!(
        helper,
        Helper::MAP_LOOKUP_ELEM
            | Helper::MAP_UPDATE_ELEM
            | Helper::MAP_DELETE_ELEM
            | Helper::MAP_LOOKUP_PERCPU_ELEM
    );
    let gives_value = matches!(helper, Helper::MAP_UPDATE_ELEM | Helper::MAP_PUSH_ELEM);
    let takes_value = gives_value || matches!(helper, Helper::MAP_POP_ELEM | Helper::MAP_PEEK_ELEM);
    if takes_key && map.def.key_size == 0 {
        return refuse(Errno::EACCES, "this type of map has no keys");
    }
    if takes_value && map.def.value_size == 0 {
        return refuse(Errno::EACCES, "this type of map has no values");
    }
    let is_sockmap = matches!(map.def.map_type, MapType::SOCKMAP | MapType::SOCKHASH);
    if gives_value && is_sockmap {
        return refuse(Errno::EACCES, "the value of this type of map is a socket");
    }
    Ok(())
}

const fn holds_sockets(map_type: MapType) -> bool {
    matches!(
        map_type,
        MapType::SOCKMAP | MapType::SOCKHASH | MapType::XSKMAP
    )
}

/// Helpers that are only for some types of programs.
///
/// Kernel: the `get_func_proto` of each type's `struct bpf_verifier_ops`.
const fn is_available(helper: Helper, prog_type: ProgType) -> bool {
    use Helper as H;
    use ProgType as P;
    match helper {
        H::GET_LOCAL_STORAGE => matches!(
            prog_type,
            P::CGROUP_SKB
                | P::CGROUP_SOCK
                | P::CGROUP_SOCK_ADDR
                | P::SOCK_OPS
                | P::CGROUP_DEVICE
                | P::CGROUP_SYSCTL
                | P::CGROUP_SOCKOPT
        ),
        H::PERF_EVENT_OUTPUT => !matches!(
            prog_type,
            P::SK_REUSEPORT | P::FLOW_DISSECTOR | P::NETFILTER
        ),
        H::GET_STACKID => matches!(
            prog_type,
            P::KPROBE
                | P::TRACEPOINT
                | P::PERF_EVENT
                | P::RAW_TRACEPOINT
                | P::RAW_TRACEPOINT_WRITABLE
                | P::TRACING
                | P::LSM
        ),
        H::SKB_UNDER_CGROUP => matches!(
            prog_type,
            P::SCHED_CLS | P::SCHED_ACT | P::LWT_IN | P::LWT_OUT | P::LWT_XMIT | P::LWT_SEG6LOCAL
        ),
        H::REDIRECT_MAP => matches!(prog_type, P::XDP),
        H::SK_REDIRECT_MAP | H::SK_REDIRECT_HASH => matches!(prog_type, P::SK_SKB),
        H::MSG_REDIRECT_MAP | H::MSG_REDIRECT_HASH => matches!(prog_type, P::SK_MSG),
        H::SOCK_MAP_UPDATE | H::SOCK_HASH_UPDATE => matches!(prog_type, P::SOCK_OPS),
        H::SK_SELECT_REUSEPORT => matches!(prog_type, P::SK_REUSEPORT),
        _ => true,
    }
}

/// The helpers that go with a type of map.
const fn helpers_of(map_type: MapType) -> &'static [Helper] {
    use Helper as H;
    use MapType as T;
    match map_type {
        T::HASH | T::RHASH | T::LRU_HASH | T::ARRAY => &[
            H::MAP_LOOKUP_ELEM,
            H::MAP_UPDATE_ELEM,
            H::MAP_DELETE_ELEM,
            H::FOR_EACH_MAP_ELEM,
        ],
        T::PERCPU_HASH | T::LRU_PERCPU_HASH | T::PERCPU_ARRAY => &[
            H::MAP_LOOKUP_ELEM,
            H::MAP_UPDATE_ELEM,
            H::MAP_DELETE_ELEM,
            H::FOR_EACH_MAP_ELEM,
            H::MAP_LOOKUP_PERCPU_ELEM,
        ],
        T::LPM_TRIE => &[H::MAP_LOOKUP_ELEM, H::MAP_UPDATE_ELEM, H::MAP_DELETE_ELEM],
        T::ARRAY_OF_MAPS | T::HASH_OF_MAPS => &[H::MAP_LOOKUP_ELEM],
        T::QUEUE | T::STACK => &[H::MAP_PUSH_ELEM, H::MAP_POP_ELEM, H::MAP_PEEK_ELEM],
        T::BLOOM_FILTER => &[H::MAP_PUSH_ELEM, H::MAP_PEEK_ELEM],
        T::RINGBUF => &[H::RINGBUF_OUTPUT, H::RINGBUF_RESERVE, H::RINGBUF_QUERY],
        T::USER_RINGBUF => &[H::USER_RINGBUF_DRAIN],
        T::CGROUP_STORAGE | T::PERCPU_CGROUP_STORAGE => &[H::GET_LOCAL_STORAGE],
        T::SK_STORAGE => &[H::SK_STORAGE_GET, H::SK_STORAGE_DELETE],
        T::INODE_STORAGE => &[H::INODE_STORAGE_GET, H::INODE_STORAGE_DELETE],
        T::TASK_STORAGE => &[H::TASK_STORAGE_GET, H::TASK_STORAGE_DELETE],
        T::CGRP_STORAGE => &[H::CGRP_STORAGE_GET, H::CGRP_STORAGE_DELETE],
        T::PROG_ARRAY => &[H::TAIL_CALL],
        T::PERF_EVENT_ARRAY => &[
            H::PERF_EVENT_READ,
            H::PERF_EVENT_READ_VALUE,
            H::PERF_EVENT_OUTPUT,
        ],
        T::CGROUP_ARRAY => &[H::SKB_UNDER_CGROUP, H::CURRENT_TASK_UNDER_CGROUP],
        T::STACK_TRACE => &[H::GET_STACKID],
        T::DEVMAP | T::DEVMAP_HASH | T::XSKMAP => &[H::MAP_LOOKUP_ELEM, H::REDIRECT_MAP],
        T::CPUMAP => &[H::REDIRECT_MAP],
        T::SOCKMAP => &[
            H::MAP_LOOKUP_ELEM,
            H::MAP_UPDATE_ELEM,
            H::MAP_DELETE_ELEM,
            H::SK_REDIRECT_MAP,
            H::SOCK_MAP_UPDATE,
            H::MSG_REDIRECT_MAP,
            H::SK_SELECT_REUSEPORT,
        ],
        T::SOCKHASH => &[
            H::MAP_LOOKUP_ELEM,
            H::MAP_UPDATE_ELEM,
            H::MAP_DELETE_ELEM,
            H::SK_REDIRECT_HASH,
            H::SOCK_HASH_UPDATE,
            H::MSG_REDIRECT_HASH,
            H::SK_SELECT_REUSEPORT,
        ],
        T::REUSEPORT_SOCKARRAY => &[H::SK_SELECT_REUSEPORT],
        _ => &[],
    }
}
