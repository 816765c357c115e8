//! Waiting for a ring buffer, by all calls that there are for that; threads that are cancelled meanwhile.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use aya::maps::RingBuf;

use crate::aya_objects::{load, packet};
use crate::kernel;

/// A call that waits: its name, and what it says of an fd.
type Waits = (&'static str, fn(RawFd) -> i32);

#[test]
fn all_calls_that_wait_see_the_same() {
    let kernel = kernel();
    let mut object = load(1, &kernel.pin_dir().unwrap());
    let mut ring = RingBuf::try_from(object.take_map("events").unwrap()).unwrap();
    let calls: [Waits; 6] = [
        ("poll", poll),
        ("select", select),
        ("pselect", pselect),
        ("epoll_wait", |fd| epoll(fd, 0)),
        ("epoll_pwait", |fd| epoll(fd, 1)),
        ("epoll_pwait2", |fd| epoll(fd, 2)),
    ];
    for (name, ready) in calls {
        assert_eq!(ready(ring.as_raw_fd()), 0, "{name}");
        packet(&object, 1);
        assert_eq!(ready(ring.as_raw_fd()), 1, "{name}");
        assert!(ring.next().is_some());
        assert_eq!(ready(ring.as_raw_fd()), 0, "{name}");
    }
}

fn poll(fd: RawFd) -> i32 {
    let mut polled = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: it is one.
    unsafe { libc::poll(&raw mut polled, 1, 0) }
}

fn set_of(fd: RawFd) -> libc::fd_set {
    let mut set = MaybeUninit::zeroed();
    // SAFETY: there is room for a set.
    unsafe { libc::FD_SET(fd, set.as_mut_ptr()) };
    // SAFETY: zeros are one, and so is what was written.
    unsafe { set.assume_init() }
}

fn select(fd: RawFd) -> i32 {
    let mut set = set_of(fd);
    let mut time = libc::timeval {
        tv_sec: 0,
        tv_usec: 0,
    };
    let none = ptr::null_mut();
    // SAFETY: it is a set of so many numbers.
    unsafe { libc::select(fd + 1, &raw mut set, none, none, &raw mut time) }
}

fn pselect(fd: RawFd) -> i32 {
    let mut set = set_of(fd);
    let time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let none = ptr::null_mut();
    // SAFETY: it is a set of so many numbers.
    unsafe {
        libc::pselect(
            fd + 1,
            &raw mut set,
            none,
            none,
            &raw const time,
            ptr::null(),
        )
    }
}

unsafe extern "C" {
    fn epoll_pwait2(
        epoll: i32,
        events: *mut libc::epoll_event,
        max: i32,
        time: *const libc::timespec,
        signals: *const libc::sigset_t,
    ) -> i32;
}

fn epoll(fd: RawFd, call: u32) -> i32 {
    // SAFETY: it was just made.
    let epoll = unsafe { OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC)) };
    let mut event = libc::epoll_event {
        events: libc::EPOLLIN as u32,
        u64: 0,
    };
    let (at, event) = (epoll.as_raw_fd(), &raw mut event);
    // SAFETY: it is an event.
    assert_eq!(
        unsafe { libc::epoll_ctl(at, libc::EPOLL_CTL_ADD, fd, event) },
        0
    );
    let time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match call {
        // SAFETY: there is room for an event, here and below.
        0 => unsafe { libc::epoll_wait(at, event, 1, 0) },
        1 => unsafe { libc::epoll_pwait(at, event, 1, 0, ptr::null()) },
        _ => unsafe { epoll_pwait2(at, event, 1, &raw const time, ptr::null()) },
    }
}

/// Nothing in a thread that is cancelled has a destructor.
#[test]
fn threads_that_wait_can_be_cancelled() {
    const CANCELED: *mut c_void = ptr::without_provenance_mut(usize::MAX);
    unsafe extern "C" {
        fn pthread_cancel(thread: libc::pthread_t) -> i32;
    }
    extern "C-unwind" fn in_poll(_: *mut c_void) -> *mut c_void {
        // SAFETY: there are none.
        unsafe { libc::poll(ptr::null_mut(), 0, -1) };
        ptr::null_mut()
    }
    extern "C-unwind" fn in_select(_: *mut c_void) -> *mut c_void {
        let none = ptr::null_mut();
        // SAFETY: there are none.
        unsafe { libc::select(0, none, none, none, ptr::null_mut()) };
        ptr::null_mut()
    }
    extern "C-unwind" fn in_epoll(_: *mut c_void) -> *mut c_void {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: there is room for an event.
        unsafe { libc::epoll_wait(libc::epoll_create1(0), &raw mut event, 1, -1) };
        ptr::null_mut()
    }
    extern "C-unwind" fn in_close(_: *mut c_void) -> *mut c_void {
        loop {
            // SAFETY: nothing has that number.
            unsafe { libc::close(-1) };
        }
    }
    let _kernel = kernel();
    for begin in [in_poll, in_select, in_epoll, in_close] {
        // SAFETY: the type differs in how it may end, which is what this is about.
        let begin = unsafe {
            std::mem::transmute::<
                extern "C-unwind" fn(*mut c_void) -> *mut c_void,
                extern "C" fn(*mut c_void) -> *mut c_void,
            >(begin)
        };
        let (mut thread, none) = (0, ptr::null_mut());
        // SAFETY: it takes no argument.
        let made = unsafe { libc::pthread_create(&raw mut thread, ptr::null(), begin, none) };
        assert_eq!(made, 0);
        std::thread::sleep(std::time::Duration::from_millis(20));
        // SAFETY: it is joined below.
        assert_eq!(unsafe { pthread_cancel(thread) }, 0);
        let mut returned = ptr::null_mut();
        // SAFETY: it was made above.
        assert_eq!(unsafe { libc::pthread_join(thread, &raw mut returned) }, 0);
        assert_eq!(returned, CANCELED);
    }
}
