//! Hooks: what waits for fds.

#![expect(unsafe_code, reason = "functions of the C library")]

use std::ffi::{c_int, c_long};
use std::ptr;

use super::raw::{address, raw, returned_int};
use super::{process, table, wait};

/// Bytes of the kernel's set of signals.
const SIGSET_SIZE: c_long = 8;

/// epoll_wait(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn epoll_wait(
    epoll: c_int,
    events: *mut libc::epoll_event,
    max: c_int,
    timeout: c_int,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { epoll_pwait(epoll, events, max, timeout, ptr::null()) }
}

/// epoll_pwait(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn epoll_pwait(
    epoll: c_int,
    events: *mut libc::epoll_event,
    max: c_int,
    timeout: c_int,
    signals: *const libc::sigset_t,
) -> c_int {
    // The files of a child that was forked off are its parent's business.
    if process::is_interposed() {
        wait::before_epoll();
    }
    let args = [
        epoll.into(),
        address(events),
        max.into(),
        timeout.into(),
        address(signals),
        SIGSET_SIZE,
    ];
    // SAFETY: the caller's promise.
    returned_int(unsafe { raw(libc::SYS_epoll_pwait, args) })
}

/// poll(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn poll(
    fds: *mut libc::pollfd,
    n: libc::nfds_t,
    timeout: c_int,
) -> c_int {
    let time = libc::timespec {
        tv_sec: (timeout / 1000).into(),
        tv_nsec: (timeout % 1000 * 1_000_000).into(),
    };
    let time: *const libc::timespec = if timeout < 0 {
        ptr::null()
    } else {
        &raw const time
    };
    // SAFETY: the caller's promise, and a time of ours.
    unsafe { ppoll(fds, n, time, ptr::null()) }
}

/// ppoll(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn ppoll(
    fds: *mut libc::pollfd,
    n: libc::nfds_t,
    time: *const libc::timespec,
    signals: *const libc::sigset_t,
) -> c_int {
    if table::waited_for() && process::is_interposed() && !fds.is_null() {
        let n = usize::try_from(n).unwrap_or(0);
        for at in 0..n {
            // SAFETY: the caller says that there are `n`.
            let polled = unsafe { fds.add(at) };
            // SAFETY: as above.
            wait::before_poll(unsafe { (*polled).fd });
        }
    }
    // The kernel writes to it what is left, and the C library does not show that.
    // SAFETY: the caller's promise.
    let left = unsafe { time.as_ref() }.copied();
    let left: *const libc::timespec = left.as_ref().map_or(ptr::null(), ptr::from_ref);
    let args = [
        address(fds),
        n.cast_signed(),
        address(left),
        address(signals),
        SIGSET_SIZE,
        0,
    ];
    // SAFETY: the caller's promise.
    returned_int(unsafe { raw(libc::SYS_ppoll, args) })
}
