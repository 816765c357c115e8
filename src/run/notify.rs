//! Seccomp's notifications: a call of the program waits, we are told of it, and answer.

#![expect(unsafe_code, reason = "ioctl(2)")]

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libc::{c_ulong, pid_t, seccomp_notif, seccomp_notif_addfd, seccomp_notif_resp};
use rustix::fs::OFlags;

use super::notice::Notices;
use super::port::{Answer, Port, Syscall};
use crate::abi::{Errno, Fd, Result};

/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`: both sides may take turns on one CPU.
const SYNC_WAKE_UP: u64 = 1;

/// Room for a struct of a kernel that knows more fields.
const ROOM: usize = 64;

/// The end of a filter that is told of calls.
#[derive(Debug)]
pub(super) struct Listener(OwnedFd);

/// A struct that the kernel fills, with room behind it.
#[repr(C)]
struct Roomy<T> {
    of: T,
    room: [u64; ROOM],
}

impl Listener {
    pub(super) fn new(fd: OwnedFd) -> Self {
        let listener = Self(fd);
        // Only faster, and not known before Linux 6.6: a refusal does not matter.
        // SAFETY: the argument is a number.
        let _ = unsafe {
            libc::ioctl(
                listener.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS,
                SYNC_WAKE_UP as c_ulong,
            )
        };
        listener
    }

    /// The next call; `None` if its task ended meanwhile.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub(super) fn receive(&self) -> io::Result<Option<(u64, pid_t, Syscall)>> {
        // SAFETY: it is a plain struct of numbers, which has to be zero at first.
        let mut notice: Roomy<seccomp_notif> = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes a struct, and there is room for a longer one.
        let ret = unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_RECV,
                &raw mut notice,
            )
        };
        if ret < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::ENOENT | libc::EINTR) => Ok(None),
                _ => Err(error),
            };
        }
        let data = &notice.of.data;
        let call = Syscall {
            arch: data.arch,
            number: data.nr.into(),
            args: data.args,
        };
        Ok(Some((notice.of.id, notice.of.pid.cast_signed(), call)))
    }

    /// The answer. If the task has ended, nobody needs it.
    pub(super) fn send(&self, id: u64, answer: Answer) {
        let (val, error, flags) = match answer {
            Answer::Returns(Ok(value)) => (value.cast_signed(), 0, 0),
            Answer::Returns(Err(errno)) => (0, -i32::from(errno.number()), 0),
            Answer::Continue => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE),
        };
        let response = Roomy {
            of: seccomp_notif_resp {
                id,
                val,
                error,
                flags: u32::try_from(flags).expect("a small flag"),
            },
            room: [0; ROOM],
        };
        // SAFETY: the kernel reads a struct, and there is room for a longer one.
        let _ = unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_SEND,
                &raw const response,
            )
        };
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A task that waits for the answer to a notification.
pub(super) struct Waiting<'a> {
    pub(super) listener: &'a Listener,
    pub(super) id: u64,
    pub(super) task: pid_t,
    pub(super) notices: &'a Notices,
}

impl fmt::Debug for Waiting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {}", self.task)
    }
}

impl Port for Waiting<'_> {
    fn task(&self) -> pid_t {
        self.task
    }

    fn is_waiting(&self) -> bool {
        // SAFETY: the kernel reads a number.
        let ret = unsafe {
            libc::ioctl(
                self.listener.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_ID_VALID,
                &raw const self.id,
            )
        };
        ret == 0
    }

    fn add_fd(&self, file: BorrowedFd<'_>, _access: OFlags, cloexec: bool) -> Result<Fd> {
        let request = seccomp_notif_addfd {
            id: self.id,
            flags: 0,
            srcfd: file.as_raw_fd().cast_unsigned(),
            newfd: 0,
            newfd_flags: if cloexec {
                libc::O_CLOEXEC.cast_unsigned()
            } else {
                0
            },
        };
        // SAFETY: the kernel reads a struct.
        let ret = unsafe {
            libc::ioctl(
                self.listener.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_ADDFD,
                &raw const request,
            )
        };
        u32::try_from(ret).map_err(|_| {
            let number = io::Error::last_os_error().raw_os_error();
            let number = number.and_then(|number| u16::try_from(number).ok());
            number.map_or(Errno::EMFILE, Errno::new)
        })
    }

    fn unreachable(&self, why: &io::Error) {
        self.notices.unreachable(self.task, why);
    }
}
