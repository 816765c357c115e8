//! Sockets of the system that maps of emulated kernels hold: what the kernel would see of them, and when they end.

#![expect(unsafe_code, reason = "questions to the system about fds")]

use std::ffi::c_int;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{FileType, Stat, fstat};
use rustix::net::sockopt;

use super::Installed;
use super::numbers::Numbers;
use crate::map::object::{Object, OtherKind, Socket};
use crate::sys::OpenFile;

/// An inode of the system.
pub(super) type Inode = (u64, u64);

/// The sockets that kernels know.
static KNOWN: Mutex<Vec<(Inode, Arc<Installed>, OpenFile)>> = Mutex::new(Vec::new());

/// Their numbers, as far as they were seen.
pub(super) static NUMBERS: Numbers = Numbers::new();

/// The socket, as that kernel knows it; `None` if it is none.
pub(super) fn get(installed: &Arc<Installed>, fd: BorrowedFd<'_>, stat: &Stat) -> Option<OpenFile> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return None;
    }
    let inode = (stat.st_dev, stat.st_ino);
    let mut known = KNOWN.lock();
    let found = known
        .iter()
        .find(|(of, by, _)| *of == inode && Arc::ptr_eq(by, installed));
    let socket = describe(fd);
    let file = match found {
        Some((_, _, file)) => {
            if let Object::Other(object) = file.object() {
                object.set_socket(socket);
            }
            file.clone()
        }
        None => {
            let file = installed.kernel.declare(OtherKind::Socket(socket));
            known.push((inode, Arc::clone(installed), file.clone()));
            file
        }
    };
    drop(known);
    NUMBERS.add(fd.as_raw_fd());
    Some(file)
}

/// What maps ask of a socket.
fn describe(fd: BorrowedFd<'_>) -> Socket {
    let (local, peer) = (
        address(fd, libc::getsockname),
        address(fd, libc::getpeername),
    );
    Socket {
        bound: local.is_some_and(|port| port != 0),
        listening: option(fd, libc::SO_ACCEPTCONN) != 0,
        connected: peer.is_some(),
        reuseport: option(fd, libc::SO_REUSEPORT) != 0,
        cookie: sockopt::socket_cookie(fd).unwrap_or(0),
        ..Socket::made(
            option(fd, libc::SO_DOMAIN),
            option(fd, libc::SO_TYPE),
            option(fd, libc::SO_PROTOCOL),
        )
    }
}

/// A number that SOL_SOCKET tells; 0 if it does not.
fn option(fd: BorrowedFd<'_>, name: c_int) -> c_int {
    let mut value: c_int = 0;
    let mut len = libc::socklen_t::try_from(size_of::<c_int>()).expect("a small number");
    let at = (&raw mut value).cast();
    // SAFETY: there is room for a number.
    unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, name, at, &raw mut len) };
    value
}

/// The port of an address that a socket has; a number that is not 0 for a name.
fn address(
    fd: BorrowedFd<'_>,
    ask: unsafe extern "C" fn(c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> c_int,
) -> Option<u16> {
    let mut room = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut len = libc::socklen_t::try_from(size_of::<libc::sockaddr_storage>()).ok()?;
    // SAFETY: there is room for any address.
    let ret = unsafe { ask(fd.as_raw_fd(), room.as_mut_ptr().cast(), &raw mut len) };
    // SAFETY: zeros are one, and so is what the system wrote.
    let address = unsafe { room.assume_init() };
    let family = c_int::from(address.ss_family);
    let at: *const libc::sockaddr_storage = &raw const address;
    let port = match family {
        // SAFETY: both have the port at the same place, and are smaller.
        libc::AF_INET | libc::AF_INET6 => unsafe { (*at.cast::<libc::sockaddr_in>()).sin_port },
        _ => 1,
    };
    (ret == 0).then_some(port)
}

/// A number of a socket, if it was not used again, is about to be closed: the inode.
pub(super) fn before_close(fd: RawFd) -> Option<Inode> {
    NUMBERS.remove(fd);
    // SAFETY: if it is not open, fstat(2) says so; it is not kept.
    let stat = fstat(unsafe { BorrowedFd::borrow_raw(fd) }).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

/// After it was closed: if that was its last number in this process, it ends for the kernels that know it.
#[cold]
pub(super) fn after_close(inode: Inode) {
    if mark_others(inode) {
        return;
    }
    let mut known = KNOWN.lock();
    let all = std::mem::take(&mut *known);
    let (ended, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|(of, ..)| *of == inode);
    *known = others;
    drop(known);
    for (_, installed, file) in ended {
        installed.kernel.end(&file);
    }
}

/// Whether there are other numbers of that inode; they are looked at when they are closed.
fn mark_others(inode: Inode) -> bool {
    let numbers = std::fs::read_dir("/proc/self/fd").into_iter().flatten();
    let mut any = false;
    for number in numbers.flatten() {
        let found = rustix::fs::stat(number.path());
        if found.is_ok_and(|stat| (stat.st_dev, stat.st_ino) == inode) {
            any = true;
            let fd = number.file_name().to_str().and_then(|fd| fd.parse().ok());
            fd.into_iter().for_each(|fd| NUMBERS.add(fd));
        }
    }
    any
}
