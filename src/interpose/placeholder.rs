//! What the caller holds for an emulated file: one end of a pipe.
//!
//! A pipe has an inode of its own, by which every fd of it is known, wherever it came from. It can be waited for: the end that
//! is read is ready when a byte is in it, the end that is written when it is not full. And who holds the other end sees when
//! the last fd of this one was closed, in whatever way.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, Timespec, fstat};
use rustix::pipe::fcntl_setpipe_size;

use super::limit;
use crate::abi::PAGE_SIZE;

/// The device of all pipes; 0 as long as there was none.
static PIPES: AtomicU64 = AtomicU64::new(0);

/// Which end the caller holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// Ready to be read when there is something.
    Read,
    /// Ready to be written when there is room.
    Write,
}

/// Our end.
#[derive(Debug)]
pub(super) struct Placeholder {
    pub(super) inode: u64,
    ours: OwnedFd,
    theirs: End,
    /// Theirs may be ready.
    ready: Mutex<bool>,
}

impl Placeholder {
    /// The caller's end, which is closed on exec, and ours. One that is read is not ready.
    pub(super) fn new(theirs: End) -> io::Result<(OwnedFd, Self)> {
        let (fd, ours) = limit::pipe(theirs)?;
        let stat = fstat(&fd)?;
        PIPES.store(stat.st_dev, Ordering::Relaxed);
        let placeholder = Self {
            inode: stat.st_ino,
            ours,
            theirs,
            ready: Mutex::new(theirs == End::Write),
        };
        if theirs == End::Write {
            // As small as can be: it is filled to be not ready.
            fcntl_setpipe_size(&fd, PAGE_SIZE)?;
        }
        Ok((fd, placeholder))
    }

    /// The last fd of the caller's end was closed.
    pub(super) fn is_closed(&self) -> bool {
        let mut fds = [PollFd::new(&self.ours, PollFlags::empty())];
        let found = poll(&mut fds, Some(&Timespec::default()));
        found.is_ok() && fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
    }

    /// The file wakes those who wait: they are woken, and find the caller's end ready, if `is_ready` is true. It may not be: who
    /// waits may have seen what there was before it was woken.
    pub(super) fn wake(&self, is_ready: impl FnOnce() -> bool) {
        let mut ready = self.ready.lock();
        if is_ready() {
            self.make_ready();
            *ready = true;
        }
    }

    /// Before somebody waits for `theirs`, an fd of the caller's end: it is ready as the file is.
    pub(super) fn refresh(&self, theirs: BorrowedFd<'_>, state: impl FnOnce() -> State) {
        // Who wakes waits for the lock, and sees what changed meanwhile.
        let mut ready = self.ready.lock();
        match state() {
            State::Ready if !*ready => {
                self.make_ready();
                *ready = true;
            }
            // Nothing is read from a file that has its number by now.
            State::NotReady if *ready && pipe_inode(theirs) == Some(self.inode) => {
                match self.theirs {
                    End::Read => empty(theirs),
                    End::Write => while rustix::io::write(theirs, &[0; PAGE_SIZE]).is_ok() {},
                }
                *ready = false;
            }
            State::Ready | State::NotReady | State::AsItIs => {}
        }
    }

    fn make_ready(&self) {
        match self.theirs {
            // Nobody is there to be woken, and a signal would come.
            End::Read if self.is_closed() => {}
            // A full pipe is ready, too.
            End::Read => drop(rustix::io::write(&self.ours, &[0])),
            End::Write => empty(self.ours.as_fd()),
        }
    }
}

/// Whether an emulated file is ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Ready,
    /// If it woke somebody.
    AsItIs,
    NotReady,
}

fn empty(fd: BorrowedFd<'_>) {
    let mut bytes = [0; PAGE_SIZE];
    while rustix::io::read(fd, &mut bytes).is_ok_and(|read| read > 0) {}
}

/// The inode of a pipe, if that is one.
pub(super) fn pipe_inode(fd: BorrowedFd<'_>) -> Option<u64> {
    let stat = fstat(fd).ok()?;
    let of_pipes = stat.st_dev == PIPES.load(Ordering::Relaxed);
    let is_pipe = FileType::from_raw_mode(stat.st_mode) == FileType::Fifo;
    (of_pipes && is_pipe).then_some(stat.st_ino)
}
