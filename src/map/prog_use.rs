//! Whether a program may have anything to do with a map: what `BPF_PROG_LOAD` asks of each map that it names.
//!
//! Kernel: `kernel/bpf/verifier.c:check_map_prog_compatibility` (v6.18).

use std::fmt;
use std::sync::atomic::Ordering;

use super::Map;
use super::arena::Arena;
use crate::abi::{Errno, MapType, ProgType};
use crate::btf::FieldKind;

/// A program that is not loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused {
    /// What `BPF_PROG_LOAD` answers.
    pub errno: Errno,
    /// Why.
    pub rule: &'static str,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { errno, rule } = self;
        write!(f, "the verifier refuses ({errno:?}): {rule}")
    }
}

impl std::error::Error for Refused {}

const fn refuse(errno: Errno, rule: &'static str) -> Result<(), Refused> {
    Err(Refused { errno, rule })
}

/// Programs of that type run wherever the kernel is.
pub const fn is_tracing(prog_type: ProgType) -> bool {
    matches!(
        prog_type,
        ProgType::KPROBE
            | ProgType::TRACEPOINT
            | ProgType::PERF_EVENT
            | ProgType::RAW_TRACEPOINT
            | ProgType::RAW_TRACEPOINT_WRITABLE
    )
}

/// Whether a program of that type may have anything to do with that map.
///
/// # Errors
///
/// `EINVAL` for special fields that the type of program cannot deal with, for an arena that has no address yet, and for an
/// `INSN_ARRAY` that is not frozen.
pub fn map_allowed(map: &Map, prog_type: ProgType) -> Result<(), Refused> {
    let arena = map.ops.as_any().downcast_ref::<Arena>();
    if arena.is_some_and(|arena| arena.user_vm_start().is_none()) {
        return refuse(
            Errno::EINVAL,
            "an arena has no address before user space mapped it",
        );
    }
    if map.def.map_type == MapType::INSN_ARRAY {
        if !map.frozen.load(Ordering::Acquire) {
            return refuse(Errno::EINVAL, "an INSN_ARRAY is frozen before it is used");
        }
        let what = format_args!("programs that jump by an INSN_ARRAY");
        return refuse(map.env.unsupported(what), "it is not emulated");
    }
    let is_tracing = is_tracing(prog_type);
    for field in &map.fields.0 {
        match field.kind {
            FieldKind::SpinLock | FieldKind::ResSpinLock => {
                if prog_type == ProgType::SOCKET_FILTER {
                    return refuse(Errno::EINVAL, "socket filters cannot use bpf_spin_lock");
                }
                if is_tracing {
                    return refuse(Errno::EINVAL, "tracing programs cannot use bpf_spin_lock");
                }
            }
            FieldKind::Timer | FieldKind::Workqueue | FieldKind::ListHead | FieldKind::RbRoot => {
                if is_tracing {
                    return refuse(
                        Errno::EINVAL,
                        "tracing programs cannot use timers, workqueues, lists and trees",
                    );
                }
            }
            FieldKind::TaskWork
            | FieldKind::Refcount
            | FieldKind::ListNode
            | FieldKind::RbNode
            | FieldKind::Kptr
            | FieldKind::KptrPercpu
            | FieldKind::KptrUntrusted
            | FieldKind::Uptr => {}
        }
    }
    if map.def.map_type == MapType::STRUCT_OPS {
        return refuse(Errno::EINVAL, "bpf_struct_ops map cannot be used in prog");
    }
    Ok(())
}

/// Whether a program that sleeps may have anything to do with that type of map.
///
/// # Errors
///
/// `EINVAL`
pub const fn sleeper_allowed(map_type: MapType) -> Result<(), Refused> {
    use MapType as T;
    match map_type {
        T::HASH
        | T::RHASH
        | T::ARRAY
        | T::PERCPU_HASH
        | T::PERCPU_ARRAY
        | T::LRU_HASH
        | T::LRU_PERCPU_HASH
        | T::ARRAY_OF_MAPS
        | T::HASH_OF_MAPS
        | T::QUEUE
        | T::STACK
        | T::RINGBUF
        | T::USER_RINGBUF
        | T::SK_STORAGE
        | T::INODE_STORAGE
        | T::TASK_STORAGE
        | T::CGRP_STORAGE
        | T::ARENA => Ok(()),
        _ => refuse(
            Errno::EINVAL,
            "Sleepable programs can only use array, hash, ringbuf and local storage maps",
        ),
    }
}
