//! Hooks: what closes fds, and ioctl(2).

#![expect(unsafe_code, reason = "functions of the C library")]

use std::ffi::{c_int, c_long, c_uint, c_ulong};

use super::memory::ProcessMem;
use super::raw::{answer, as_int, raw, returned_int};
use super::{caller, perf, process, sockets, table};

/// close(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn close(fd: c_int) -> c_int {
    let entry = if table::has(fd) && process::is_interposed() {
        table::forget(fd)
    } else {
        None
    };
    let socket = if sockets::may_be_known(fd) && process::is_interposed() {
        sockets::before_close(fd)
    } else {
        None
    };
    // SAFETY: the caller's promise.
    let ret = unsafe { raw(libc::SYS_close, [fd.into(), 0, 0, 0, 0, 0]) };
    entry.into_iter().for_each(table::settle);
    socket.into_iter().for_each(sockets::after_close);
    returned_int(ret)
}

/// dup2(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn dup2(old: c_int, new: c_int) -> c_int {
    if old == new {
        // SAFETY: the caller's promise.
        let ret = unsafe {
            raw(
                libc::SYS_fcntl,
                [old.into(), libc::F_GETFD.into(), 0, 0, 0, 0],
            )
        };
        return if ret < 0 { returned_int(ret) } else { new };
    }
    // SAFETY: the caller's promise.
    unsafe { dup3(old, new, 0) }
}

/// dup3(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
    let entry = if table::has(new) && process::is_interposed() {
        table::forget(new)
    } else {
        None
    };
    // SAFETY: the caller's promise.
    let ret = unsafe {
        raw(
            libc::SYS_dup3,
            [old.into(), new.into(), flags.into(), 0, 0, 0],
        )
    };
    entry.into_iter().for_each(table::settle);
    returned_int(ret)
}

/// close_range(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    let entries = if process::is_interposed() {
        table::forget_range(first, last)
    } else {
        Vec::new()
    };
    // SAFETY: the caller's promise.
    let ret = unsafe {
        raw(
            libc::SYS_close_range,
            [first.into(), last.into(), flags.into(), 0, 0, 0],
        )
    };
    entries.into_iter().for_each(table::settle);
    returned_int(ret)
}

/// ioctl(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: c_long) -> c_int {
    let args = [fd.into(), request.cast_signed(), argument, 0, 0, 0];
    // SAFETY: the caller's promise.
    let ret = unsafe { raw(libc::SYS_ioctl, args) };
    // It is no call that a placeholder knows.
    if ret == -c_long::from(libc::ENOTTY)
        && perf::is_ioctl(request)
        && process::is_interposed()
        && let Some(entry) = table::get(fd)
    {
        // SAFETY: the caller's promise.
        let mut mem = unsafe { ProcessMem::new() };
        let result = caller::answered(|| perf::ioctl(&entry, request, argument, &mut mem));
        return as_int(answer(result));
    }
    returned_int(ret)
}
