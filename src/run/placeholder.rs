//! What the program holds for an emulated file: a file without a name (memfd), or one more open of it.
//!
//! By its inode every fd of it is known, wherever it came from (dup(2), fork(2), a socket). What the program holds was opened
//! by its link in `/proc/self/fd`, and of such files inotify(7) tells when the last fd was closed and the last mapping gone.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::inotify::{self, WatchFlags};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, fstat, memfd_create, open};

use crate::sys::{FileKind, OpenFile};

/// Device and inode.
pub(super) type Inode = (u64, u64);

/// What a link in `/proc/PID/fd` says of an emulated file.
pub(super) const fn link_name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Map(_) => "anon_inode:bpf-map",
        FileKind::Prog(_) => "anon_inode:bpf-prog",
        FileKind::Link(_) => "anon_inode:bpf-link",
        FileKind::Btf(_) => "anon_inode:btf",
        FileKind::Cgroup(_) | FileKind::Other(_) => "anon_inode:[perf_event]",
    }
}

/// A file for an emulated one. A map's memory is its own.
///
/// # Errors
///
/// Those of the system.
pub(super) fn file_for(file: &OpenFile) -> io::Result<OwnedFd> {
    if let Some(memory) = file.memory() {
        return memory.try_clone_to_owned();
    }
    let name = match file.kind() {
        FileKind::Map(_) => "bpf-map",
        FileKind::Prog(_) => "bpf-prog",
        FileKind::Link(_) => "bpf-link",
        FileKind::Btf(_) => "btf",
        FileKind::Cgroup(_) | FileKind::Other(_) => "perf_event",
    };
    let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    // A perf event's file grows to what is mapped of it.
    if !matches!(file.kind(), FileKind::Other(_)) {
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW)?;
    }
    Ok(fd)
}

/// Opens it again, for so much access.
///
/// # Errors
///
/// Those of the system.
pub(super) fn open_again(fd: impl AsFd, read: bool, write: bool) -> io::Result<OwnedFd> {
    let access = access(read, write) | OFlags::CLOEXEC;
    Ok(open(own_link(&fd), access, Mode::empty())?)
}

/// As open(2) has it.
pub(super) const fn access(read: bool, write: bool) -> OFlags {
    match (read, write) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        (_, false) => OFlags::RDONLY,
    }
}

/// The path of one of our fds.
pub(super) fn own_link(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Which file that is.
///
/// # Errors
///
/// Those of the system.
pub(super) fn inode_of(fd: impl AsFd) -> io::Result<Inode> {
    let stat = fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Tells of files that were closed.
#[derive(Debug)]
pub(super) struct Closings(OwnedFd);

impl Closings {
    pub(super) fn new() -> io::Result<Self> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        Ok(Self(inotify::init(flags)?))
    }

    /// To be told of that file; the number that it is told by.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub(super) fn watch(&self, fd: impl AsFd) -> io::Result<i32> {
        let closed = WatchFlags::CLOSE_WRITE | WatchFlags::CLOSE_NOWRITE;
        Ok(inotify::add_watch(&self.0, own_link(fd), closed)?)
    }

    pub(super) fn forget(&self, watch: i32) {
        // It may have gone by itself.
        let _ = inotify::remove_watch(&self.0, watch);
    }

    /// What was closed since the last time: their numbers.
    pub(super) fn take(&self) -> Vec<i32> {
        let mut closed = Vec::new();
        let mut room = [std::mem::MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.0, &mut room);
        while let Ok(event) = events.next() {
            closed.push(event.wd());
        }
        closed
    }
}

impl AsFd for Closings {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}
