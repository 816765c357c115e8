//! Hooks: what closes fds, and ioctl(2).

#![expect(unsafe_code, reason = "functions of the C library")]

use std::ffi::{c_int, c_long, c_uint, c_ulong};
use std::sync::Arc;

use super::memory::ProcessMem;
use super::own::cancellation_point;
use super::raw::{answer, as_int, raw, returned_int};
use super::sockets::Inode;
use super::table::Entry;
use super::{perf, process, sockets, table};

/// A number that is about to be closed: what it was.
struct Closing {
    fd: c_int,
    entry: Option<Arc<Entry>>,
    socket: Option<Inode>,
}

/// `None` if nothing is known of the number; on that way nothing is allocated or locked. A child of vfork(2) has the memory of its
/// parent, and numbers of its own.
#[inline(always)]
fn before_close(fd: c_int) -> Option<Closing> {
    let known = table::OURS.has(fd) || sockets::NUMBERS.has(fd);
    (known && process::is_this()).then(|| closing(fd))
}

#[cold]
fn closing(fd: c_int) -> Closing {
    let is_socket = sockets::NUMBERS.has(fd);
    Closing {
        fd,
        entry: table::forget(fd),
        socket: is_socket.then(|| sockets::before_close(fd)).flatten(),
    }
}

/// It was closed, or it was not: then it is what it was.
#[cold]
fn after_close(closing: Closing, closed: bool) {
    if !closed {
        table::get(closing.fd);
        if closing.socket.is_some() {
            sockets::NUMBERS.add(closing.fd);
        }
        return;
    }
    closing.entry.into_iter().for_each(table::settle);
    closing.socket.into_iter().for_each(sockets::after_close);
}

/// close(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn close(fd: c_int) -> c_int {
    cancellation_point();
    // SAFETY: the caller's promise.
    unsafe { close_fd(fd) }
}

/// close(2), where no thread is cancelled.
///
/// # Safety
///
/// That of the system call.
pub(super) unsafe fn close_fd(fd: c_int) -> c_int {
    let closing = before_close(fd);
    // SAFETY: the caller's promise.
    let ret = unsafe { raw(libc::SYS_close, [fd.into(), 0, 0, 0, 0, 0]) };
    if let Some(closing) = closing {
        // Whatever else went wrong, it is closed.
        after_close(closing, ret != -c_long::from(libc::EBADF));
    }
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
        let args = [old.into(), libc::F_GETFD.into(), 0, 0, 0, 0];
        // SAFETY: the caller's promise.
        let ret = unsafe { raw(libc::SYS_fcntl, args) };
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
    let closing = before_close(new);
    let args = [old.into(), new.into(), flags.into(), 0, 0, 0];
    // SAFETY: the caller's promise.
    let ret = unsafe { raw(libc::SYS_dup3, args) };
    if let Some(closing) = closing {
        after_close(closing, ret >= 0);
    }
    returned_int(ret)
}

/// close_range(2): with a flag it closes nothing, or nothing that other threads have.
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    let mut closing = Vec::new();
    if flags == 0 && process::is_this() {
        let known = [&table::OURS, &sockets::NUMBERS].map(|known| known.within(first, last));
        closing.extend(known.into_iter().flatten().map(self::closing));
    }
    let args = [first.into(), last.into(), flags.into(), 0, 0, 0];
    // SAFETY: the caller's promise.
    let ret = unsafe { raw(libc::SYS_close_range, args) };
    for closing in closing {
        after_close(closing, ret == 0);
    }
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
    // It is no call that a placeholder knows; and an event of the running kernel knows no program of ours.
    let failed = ret == -c_long::from(libc::ENOTTY) || ret == -c_long::from(libc::EINVAL);
    if failed
        && let Some(request) = perf::request(request)
        && process::is_interposed()
    {
        // SAFETY: the caller's promise.
        let mut mem = unsafe { ProcessMem::new() };
        if let Some(result) = perf::ioctl(fd, request, argument, &mut mem) {
            return as_int(answer(result));
        }
    }
    returned_int(ret)
}
