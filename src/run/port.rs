//! What a call comes through: seccomp's notifications, or ptrace(2).

use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use libc::pid_t;
use rustix::fs::OFlags;

use super::mapping::errno_of;
use super::poll::Wait;
use super::task;
use crate::abi::{Fd, Result};

/// A task that waits for the answer to a call.
pub(super) trait Port: fmt::Debug + Sync {
    /// The task's id.
    fn task(&self) -> pid_t;

    /// It waits yet: the id is that of the task, and of no later one.
    fn is_waiting(&self) -> bool;

    /// What is given to the task is opened once more for it.
    fn opens_again(&self) -> bool {
        false
    }

    /// Gives the task a new fd of a file. The file is one that can be opened again by its link in `/proc`.
    ///
    /// # Errors
    ///
    /// `EMFILE` if the task has no free one.
    fn add_fd(&self, file: BorrowedFd<'_>, access: OFlags, cloexec: bool) -> Result<Fd>;

    /// The task goes to a directory, which only this process can reach by a path. `None` if it cannot be brought there.
    fn chdir(&self, dir: BorrowedFd<'_>) -> Option<Result<u64>> {
        let _ = dir;
        None
    }

    /// The task's memory or its fds cannot be reached: people have to know.
    fn unreachable(&self, why: &io::Error);
}

/// A system call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Syscall {
    /// `AUDIT_ARCH_*`
    pub(super) arch: u32,
    pub(super) number: i64,
    pub(super) args: [u64; 6],
}

/// What becomes of it.
#[derive(Debug)]
pub(super) enum Answer {
    /// It returns that.
    Returns(Result<u64>),
    /// The running kernel answers.
    Continue,
    /// It waits.
    Later(Box<Wait>),
}

/// A file of the program, by an fd of ours.
///
/// # Errors
///
/// `EBADF` if it is not open; those of the system, which are told.
pub(super) fn taken(port: &dyn Port, fd: Fd) -> Result<OwnedFd> {
    task::taken(port.task(), fd).map_err(|error| {
        if error != rustix::io::Errno::BADF {
            port.unreachable(&error.into());
        }
        errno_of(error)
    })
}
