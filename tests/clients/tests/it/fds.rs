//! Numbers of fds that are closed, or are not, in ways that are not always seen.

use std::ffi::{CStr, c_int, c_long, c_void};
use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::{env, ptr};

use aya::maps::{MapData, RingBuf, SockMap};
use libbpf_rs::{MapCore, MapFlags};

use crate::aya_kinds::take;
use crate::aya_objects::{is_ready, load, packet};
use crate::kernel;
use crate::process::{get, map, set};

/// The C library's own function of that name, which mapemu does not see.
fn unseen(name: &CStr) -> *mut c_void {
    // SAFETY: a name that ends with NUL.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    assert!(!found.is_null());
    found
}

/// dup2(2): closes `new` where it is not seen.
fn unseen_dup2(old: &impl AsRawFd, new: &impl AsRawFd) {
    type Dup2 = unsafe extern "C" fn(c_int, c_int) -> c_int;
    // SAFETY: the function of that name has that type.
    let dup2 = unsafe { std::mem::transmute::<*mut c_void, Dup2>(unseen(c"dup2")) };
    // SAFETY: both are open, and stay so.
    let ret = unsafe { dup2(old.as_raw_fd(), new.as_raw_fd()) };
    assert_eq!(ret, new.as_raw_fd());
}

fn errno() -> Option<i32> {
    io::Error::last_os_error().raw_os_error()
}

#[test]
fn number_that_became_another_file_unseen_is_no_map() {
    let _kernel = kernel();
    let map = map();
    set(&map, 1);
    let number = map.as_fd().as_raw_fd();
    unseen_dup2(&File::open("/dev/null").unwrap(), &number);
    assert!(map.lookup(&[0; 4], MapFlags::ANY).is_err());
    // SAFETY: a new mapping, at no address that anybody has.
    let mapped = unsafe {
        libc::mmap(
            ptr::null_mut(),
            4096,
            libc::PROT_READ,
            libc::MAP_PRIVATE,
            number,
            0,
        )
    };
    assert_eq!((mapped, errno()), (libc::MAP_FAILED, Some(libc::ENODEV)));
    // It may be another map as well.
    let other = self::map();
    set(&other, 2);
    unseen_dup2(&other.as_fd(), &number);
    assert_eq!(get(&map), 2);
}

#[test]
fn nothing_is_read_from_a_file_that_has_a_rings_number_now() {
    let kernel = kernel();
    let mut object = load(1, &kernel.pin_dir().unwrap());
    let mut ring = RingBuf::try_from(object.take_map("events").unwrap()).unwrap();
    packet(&object, 1);
    assert!(is_ready(&ring));
    assert!(ring.next().is_some());
    let (read, write) = io::pipe().unwrap();
    io::Write::write_all(&mut &write, b"precious").unwrap();
    unseen_dup2(&read, &ring);
    assert!(is_ready(&ring), "the pipe has something");
    let mut bytes = [0; 8];
    io::Read::read_exact(&mut &read, &mut bytes).unwrap();
    assert_eq!(&bytes, b"precious");
}

#[test]
fn ring_is_known_by_a_number_that_was_not_closed() {
    let kernel = kernel();
    let mut object = load(1, &kernel.pin_dir().unwrap());
    let mut ring = RingBuf::try_from(object.take_map("events").unwrap()).unwrap();
    let fd = ring.as_raw_fd();
    let number = fd.cast_unsigned();
    let not_closed: [&dyn Fn(); 3] = [
        // SAFETY: nothing has that number, so nothing is closed.
        &|| assert_eq!(unsafe { libc::dup3(-1, fd, libc::O_CLOEXEC) }, -1),
        &|| {
            let flag = libc::CLOSE_RANGE_CLOEXEC.cast_signed();
            // SAFETY: it is open.
            assert_eq!(unsafe { libc::close_range(number, number, flag) }, 0);
        },
        &|| in_a_child_with_our_memory(fd),
    ];
    for (at, not_closed) in not_closed.iter().enumerate() {
        packet(&object, 1);
        assert!(is_ready(&ring));
        not_closed();
        assert!(ring.next().is_some());
        assert!(!is_ready(&ring), "{at}: all is read");
    }
}

/// Closes a number in a child as those of vfork(2) are.
fn in_a_child_with_our_memory(fd: c_int) {
    extern "C" fn child(fd: *mut c_void) -> c_int {
        // SAFETY: it is open, and stays so in the parent.
        unsafe { libc::close(fd.addr() as c_int) }
    }
    let mut stack = vec![0_u128; 1 << 14];
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let end = stack.as_mut_ptr_range().end;
    let argument = ptr::without_provenance_mut(fd as usize);
    // SAFETY: this thread goes on when the child has ended, which does nothing else.
    let pid = unsafe { libc::clone(child, end.cast(), flags, argument) };
    let mut status = 0;
    // SAFETY: it is a child of this process.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!(status, 0, "it was open there");
}

#[test]
fn socket_leaves_maps_when_its_number_is_used_otherwise() {
    let _kernel = kernel();
    let mut map: SockMap<MapData> = take("sockmap");
    let null = File::open("/dev/null").unwrap();
    let mut held = |close: &dyn Fn(c_int)| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect("127.0.0.1:9").unwrap();
        map.set(0, &socket, 0).unwrap();
        close(socket.as_raw_fd());
        let left = map.clear_index(&0).is_ok();
        drop(socket);
        left
    };
    assert!(held(&in_a_child_with_our_memory), "it is open here");
    // SAFETY: the number is open before and after, here and below.
    assert!(held(&|fd| assert_eq!(unsafe { libc::dup3(-1, fd, 0) }, -1)));
    assert!(!held(&|fd| assert_eq!(
        unsafe { libc::dup2(null.as_raw_fd(), fd) },
        fd
    )));
    assert!(!held(&|fd| {
        let number = fd.cast_unsigned();
        assert_eq!(unsafe { libc::close_range(number, number, 0) }, 0);
        assert_eq!(unsafe { libc::dup2(null.as_raw_fd(), fd) }, fd);
    }));
}

/// In a process of its own: others make fds at the same time.
#[test]
fn there_are_as_many_maps_as_the_limit_of_fds_allows() {
    const ALONE: &str = "MAPEMU_TEST_ALONE";
    if env::var_os(ALONE).is_none() {
        let name = "fds::there_are_as_many_maps_as_the_limit_of_fds_allows";
        let mut alone = Command::new(env::current_exe().unwrap());
        let status = alone.args(["--exact", name]).env(ALONE, "1").status();
        assert!(status.unwrap().success());
        return;
    }
    let _kernel = kernel();
    let limit = libc::rlimit {
        rlim_cur: 64,
        rlim_max: 128,
    };
    // SAFETY: it is a limit.
    assert_eq!(
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) },
        0
    );
    let free: Vec<_> = (0..64)
        // SAFETY: the system says whether it is open.
        .filter(|&fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0)
        .collect();
    let mut made = Vec::new();
    let errno = loop {
        let attr = [2_u32, 4, 4, 1];
        // SAFETY: the attr is one of BPF_MAP_CREATE.
        let fd: c_long = unsafe { libc::syscall(libc::SYS_bpf, 0, attr.as_ptr(), 16) };
        if fd < 0 {
            break errno();
        }
        // SAFETY: it was just made.
        made.push(unsafe { OwnedFd::from_raw_fd(fd as c_int) });
    };
    assert_eq!(errno, Some(libc::EMFILE));
    let numbers: Vec<_> = made.iter().map(AsRawFd::as_raw_fd).collect();
    assert_eq!(numbers, free);
    let mut seen = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: it has room for a limit.
    assert_eq!(
        unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut seen) },
        0
    );
    assert_eq!((seen.rlim_cur, seen.rlim_max), (64, 128));
}
