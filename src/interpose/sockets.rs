//! Sockets of the system that maps of emulated kernels hold: what the kernel would see of them, and when they end.

#![expect(unsafe_code, reason = "questions to the system about fds")]

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{FileType, Stat, fstat};

use super::Installed;
use super::numbers::Numbers;
use crate::map::object::{Object, OtherKind};
use crate::sys::{OpenFile, socket};

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
    let socket = socket::describe(fd).unwrap_or_default();
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
