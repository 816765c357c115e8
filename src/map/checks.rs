//! Checks that several types make in the same words: of indexes, flags, and fds in values.

use std::sync::Arc;

use super::Caller;
use super::object::{Object, OtherObject, Prog, Socket};
use super::owner::Owner;
use crate::abi::{AttachType, Errno, Fd, ProgType, Result, UpdateFlags};

/// The key of an array.
#[inline]
pub(super) fn index_of(key: &[u8]) -> u32 {
    u32::from_ne_bytes(key.try_into().expect("keys of arrays have 4 bytes"))
}

/// The key of an array, if it has that index.
#[inline]
pub(super) fn index_below(key: &[u8], max_entries: u32) -> Option<u32> {
    let index = index_of(key);
    (index < max_entries).then_some(index)
}

/// The key after `key` of an array: every index is one, whatever is stored.
///
/// # Errors
///
/// `ENOENT` after the last one.
///
/// Kernel: `kernel/bpf/arraymap.c:array_map_get_next_key`.
pub(super) fn next_index(key: Option<&[u8]>, max_entries: u32, next_key: &mut [u8]) -> Result<()> {
    let next = match key.map(index_of) {
        Some(index) if index < max_entries => index + 1,
        Some(_) | None => 0,
    };
    if next == max_entries {
        return Err(Errno::ENOENT);
    }
    next_key.copy_from_slice(&next.to_ne_bytes());
    Ok(())
}

/// The flags of an update are `ANY`, `NOEXIST` or `EXIST`.
///
/// # Errors
///
/// `EINVAL`.
#[inline]
pub(super) fn update_flags(flags: UpdateFlags) -> Result<()> {
    // A comparison, not a mask: both together are unknown too.
    if flags.bits() > UpdateFlags::EXIST.bits() {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// The parts of a per-CPU value that an update from user space writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Which {
    /// Each its own: the value has a part for each CPU.
    Each,
    /// All the same.
    All,
    /// That CPU's.
    One(u32),
}

/// What the flags of an update from user space say of a per-CPU value: `ANY`, `NOEXIST` or `EXIST`, and which parts. The call
/// has judged the CPU; `knows_cpus`: the release has flags for CPUs.
///
/// # Errors
///
/// `EINVAL`.
pub(super) fn percpu_flags(flags: UpdateFlags, knows_cpus: bool) -> Result<(UpdateFlags, Which)> {
    if !knows_cpus {
        update_flags(flags)?;
        return Ok((flags, Which::Each));
    }
    let low = flags.low();
    // A comparison, not a mask: with all CPUs there is no other flag, with one there may be any, and they say nothing.
    if low.bits() > UpdateFlags::ALL_CPUS.bits() {
        return Err(Errno::EINVAL);
    }
    let which = if low.contains(UpdateFlags::CPU) {
        Which::One(flags.cpu())
    } else if low == UpdateFlags::ALL_CPUS {
        Which::All
    } else {
        Which::Each
    };
    let existence = match low {
        UpdateFlags::NOEXIST | UpdateFlags::EXIST => low,
        _ => UpdateFlags::ANY,
    };
    Ok((existence, which))
}

/// What the flags of an update say of an element that is there or not.
///
/// # Errors
///
/// `EEXIST`, `ENOENT`.
///
/// Kernel: `kernel/bpf/hashtab.c:check_flags`.
#[inline]
pub(super) fn existence(is_there: bool, flags: UpdateFlags) -> Result<()> {
    if is_there && flags.contains(UpdateFlags::NOEXIST) {
        Err(Errno::EEXIST)
    } else if !is_there && flags.contains(UpdateFlags::EXIST) {
        Err(Errno::ENOENT)
    } else {
        Ok(())
    }
}

/// The fd that is a value of 4 bytes, or the number that is one of 8.
///
/// # Errors
///
/// `EINVAL` if a number of 8 bytes is no fd.
pub(super) fn fd_in_value(value: &[u8]) -> Result<Fd> {
    match <[u8; 8]>::try_from(value) {
        Ok(bytes) => u32::try_from(u64::from_ne_bytes(bytes))
            .ok()
            .filter(|&fd| i32::try_from(fd).is_ok())
            .ok_or(Errno::EINVAL),
        Err(_) => Ok(u32_at(value, 0)),
    }
}

/// The four bytes of a value from `at` on.
pub(super) fn u32_at(value: &[u8], at: usize) -> u32 {
    let bytes = value[at..at + 4].try_into();
    u32::from_ne_bytes(bytes.expect("four bytes"))
}

/// The socket behind an fd.
///
/// # Errors
///
/// `EBADF` if it is not open, `ENOTSOCK` if it is something else.
///
/// Kernel: `net/socket.c:sockfd_lookup`.
pub(super) fn socket(caller: &Caller<'_>, fd: Fd) -> Result<(Arc<OtherObject>, Socket)> {
    if let Object::Other(object) = caller.files.object(fd)?
        && let Some(socket) = object.socket()
    {
        return Ok((object, socket));
    }
    Err(Errno::ENOTSOCK)
}

/// The XDP program behind the second half of a value, if there is one; 0 and negative fds are none.
///
/// # Errors
///
/// Of any kind, if it is no XDP program for that attach type, or the map belongs to others; each type of map has its own
/// errno for it.
pub(super) fn xdp_prog(
    caller: &Caller<'_>,
    value: &[u8],
    attach_type: AttachType,
    owner: &Owner,
) -> Result<Option<Arc<Prog>>> {
    let Some(fd) = prog_fd(value) else {
        return Ok(None);
    };
    match caller.files.object(fd)? {
        Object::Prog(prog)
            if prog.prog_type == ProgType::XDP && prog.expected_attach_type == attach_type =>
        {
            owner.bind(&prog)?;
            Ok(Some(prog))
        }
        Object::Map(_)
        | Object::Btf(_)
        | Object::Prog(_)
        | Object::Cgroup(_)
        | Object::Other(_) => Err(Errno::EINVAL),
    }
}

/// The fd in the second half of a value, unless it is 0 or negative.
pub(super) fn prog_fd(value: &[u8]) -> Option<Fd> {
    let fd = (value.len() == 8).then(|| u32_at(value, 4))?;
    (fd != 0 && i32::try_from(fd).is_ok()).then_some(fd)
}
