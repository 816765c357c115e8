//! Hooks: what waits for fds. It is the C library that waits, so that the thread can be cancelled meanwhile; in a program that is
//! linked statically it is cancelled before.

#![expect(unsafe_code, reason = "functions of the C library")]

use std::ffi::{c_int, c_long};
use std::ptr;

use super::own::{Own, cancellation_point};
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
pub(super) unsafe extern "C-unwind" fn epoll_wait(
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
pub(super) unsafe extern "C-unwind" fn epoll_pwait(
    epoll: c_int,
    events: *mut libc::epoll_event,
    max: c_int,
    timeout: c_int,
    signals: *const libc::sigset_t,
) -> c_int {
    static OWN: Own = Own::new(c"epoll_pwait");
    before_epoll();
    let ours: unsafe extern "C-unwind" fn(_, _, _, _, _) -> _ = epoll_pwait;
    // SAFETY: it has the type of ours.
    if let Some(own) = unsafe { OWN.like(ours) } {
        // SAFETY: the caller's promise.
        return unsafe { own(epoll, events, max, timeout, signals) };
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
    unsafe { waited(libc::SYS_epoll_pwait, args) }
}

/// epoll_pwait2(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn epoll_pwait2(
    epoll: c_int,
    events: *mut libc::epoll_event,
    max: c_int,
    time: *const libc::timespec,
    signals: *const libc::sigset_t,
) -> c_int {
    static OWN: Own = Own::new(c"epoll_pwait2");
    before_epoll();
    let ours: unsafe extern "C-unwind" fn(_, _, _, _, _) -> _ = epoll_pwait2;
    // SAFETY: it has the type of ours.
    if let Some(own) = unsafe { OWN.like(ours) } {
        // SAFETY: the caller's promise.
        return unsafe { own(epoll, events, max, time, signals) };
    }
    let args = [
        epoll.into(),
        address(events),
        max.into(),
        address(time),
        address(signals),
        SIGSET_SIZE,
    ];
    // SAFETY: the caller's promise.
    unsafe { waited(libc::SYS_epoll_pwait2, args) }
}

/// poll(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn poll(
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
pub(super) unsafe extern "C-unwind" fn ppoll(
    fds: *mut libc::pollfd,
    n: libc::nfds_t,
    time: *const libc::timespec,
    signals: *const libc::sigset_t,
) -> c_int {
    static OWN: Own = Own::new(c"ppoll");
    if table::waited_for() && process::is_interposed() && !fds.is_null() {
        let n = usize::try_from(n).unwrap_or(0);
        for at in 0..n {
            // SAFETY: the caller says that there are `n`.
            let polled = unsafe { fds.add(at) };
            // SAFETY: as above.
            wait::before_poll(unsafe { (*polled).fd });
        }
    }
    let ours: unsafe extern "C-unwind" fn(_, _, _, _) -> _ = ppoll;
    // SAFETY: it has the type of ours.
    if let Some(own) = unsafe { OWN.like(ours) } {
        // SAFETY: the caller's promise.
        return unsafe { own(fds, n, time, signals) };
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
    unsafe { waited(libc::SYS_ppoll, args) }
}

/// select(2): the time is what is left afterwards.
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn select(
    n: c_int,
    read: *mut libc::fd_set,
    write: *mut libc::fd_set,
    except: *mut libc::fd_set,
    time: *mut libc::timeval,
) -> c_int {
    static OWN: Own = Own::new(c"select");
    // SAFETY: the caller's promise.
    unsafe { before_select(n, [read, write]) };
    let ours: unsafe extern "C-unwind" fn(_, _, _, _, _) -> _ = select;
    // SAFETY: it has the type of ours.
    if let Some(own) = unsafe { OWN.like(ours) } {
        // SAFETY: the caller's promise.
        return unsafe { own(n, read, write, except, time) };
    }
    // SAFETY: the caller's promise.
    let time = unsafe { time.as_mut() };
    let mut left = time.as_ref().map(|time| libc::timespec {
        tv_sec: time.tv_sec + time.tv_usec / 1_000_000,
        tv_nsec: time.tv_usec % 1_000_000 * 1000,
    });
    let at: *mut libc::timespec = left.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
    let args = [
        n.into(),
        address(read),
        address(write),
        address(except),
        address(at),
        0,
    ];
    // SAFETY: the caller's promise, and a time of ours.
    let ret = unsafe { waited(libc::SYS_pselect6, args) };
    if let Some((time, left)) = time.zip(left) {
        *time = libc::timeval {
            tv_sec: left.tv_sec,
            tv_usec: left.tv_nsec / 1000,
        };
    }
    ret
}

/// pselect(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn pselect(
    n: c_int,
    read: *mut libc::fd_set,
    write: *mut libc::fd_set,
    except: *mut libc::fd_set,
    time: *const libc::timespec,
    signals: *const libc::sigset_t,
) -> c_int {
    static OWN: Own = Own::new(c"pselect");
    // SAFETY: the caller's promise.
    unsafe { before_select(n, [read, write]) };
    let ours: unsafe extern "C-unwind" fn(_, _, _, _, _, _) -> _ = pselect;
    // SAFETY: it has the type of ours.
    if let Some(own) = unsafe { OWN.like(ours) } {
        // SAFETY: the caller's promise.
        return unsafe { own(n, read, write, except, time, signals) };
    }
    // SAFETY: the caller's promise.
    let left = unsafe { time.as_ref() }.copied();
    let left: *const libc::timespec = left.as_ref().map_or(ptr::null(), ptr::from_ref);
    let mask = [address(signals), SIGSET_SIZE];
    let args = [
        n.into(),
        address(read),
        address(write),
        address(except),
        address(left),
        address(&raw const mask),
    ];
    // SAFETY: the caller's promise, and a time and a mask of ours.
    unsafe { waited(libc::SYS_pselect6, args) }
}

/// The files of a child that was forked off are its parent's business.
fn before_epoll() {
    if process::is_interposed() {
        wait::before_epoll();
    }
}

/// # Safety
///
/// Each set is null or has `n` bits.
unsafe fn before_select(n: c_int, sets: [*const libc::fd_set; 2]) {
    if !table::waited_for() || !process::is_interposed() {
        return;
    }
    for set in sets.into_iter().filter(|set| !set.is_null()) {
        for fd in 0..n {
            let at = usize::try_from(fd).expect("it is not negative");
            // SAFETY: the caller's promise; it may be longer than the type says.
            let byte = unsafe { set.cast::<u8>().add(at / 8) };
            // SAFETY: as above.
            if unsafe { *byte } & 1 << (at % 8) != 0 {
                wait::before_poll(fd);
            }
        }
    }
}

/// A system call that waits.
///
/// # Safety
///
/// That of the system call.
unsafe fn waited(number: c_long, args: [c_long; 6]) -> c_int {
    cancellation_point();
    // SAFETY: the caller's promise.
    returned_int(unsafe { raw(number, args) })
}
