//! Seccomp's notifications: a call of the program waits, we are told of it, and answer.

#![expect(unsafe_code, reason = "ioctl(2)")]

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libc::{c_ulong, pid_t, seccomp_notif, seccomp_notif_addfd, seccomp_notif_resp};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

use super::notice::Notices;
use super::poll::Wait;
use super::port::{Answer, Port, Syscall};
use super::server::Server;
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

    /// The answer, unless the running kernel is to answer. If the task has ended, nobody needs it.
    pub(super) fn send(&self, id: u64, answer: Option<Result<u64>>) {
        let (val, error, flags) = match answer {
            Some(Ok(value)) => (value.cast_signed(), 0, 0),
            Some(Err(errno)) => (0, -i32::from(errno.number()), 0),
            None => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE),
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

/// Answers calls until no process is left that could make one.
pub(super) fn serve(server: &Server, listener: &Listener, strict: bool) -> io::Result<()> {
    let mut waits: Vec<(u64, pid_t, Box<Wait>)> = Vec::new();
    let notices = &server.notices;
    let port = |id, task| Waiting {
        listener,
        id,
        task,
        notices,
    };
    loop {
        let [calls, closed] = poll_with(server, listener, &waits)?;
        if closed.contains(PollFlags::IN) {
            server.settle();
        }
        if calls.contains(PollFlags::IN) {
            if let Some((id, task, call)) = listener.receive()? {
                let answer = server.serve(&port(id, task), &call);
                if strict && notices.has_refused() {
                    // The call is not answered any more.
                    end(task);
                }
                match answer {
                    Answer::Returns(answer) => listener.send(id, Some(answer)),
                    Answer::Continue => listener.send(id, None),
                    Answer::Later(wait) => waits.push((id, task, wait)),
                }
            }
        } else if calls.intersects(PollFlags::HUP | PollFlags::ERR) {
            return Ok(());
        }
        waits.retain_mut(|(id, task, wait)| {
            let port = port(*id, *task);
            if !port.is_waiting() {
                return false;
            }
            let answer = wait.answer(&port);
            if answer.is_some() {
                listener.send(*id, answer);
            }
            answer.is_none()
        });
    }
}

/// Waits for a call, a closing, or what calls wait for; what there is of the first two.
fn poll_with(
    server: &Server,
    listener: &Listener,
    waits: &[(u64, pid_t, Box<Wait>)],
) -> io::Result<[PollFlags; 2]> {
    let woken = server.woken();
    let mut fds = vec![
        PollFd::new(listener, PollFlags::IN),
        PollFd::new(server.table.closings(), PollFlags::IN),
        PollFd::new(woken, PollFlags::IN),
    ];
    let times = waits.iter().map(|(.., wait)| wait.waits_for(&mut fds));
    let time = times.min().map(|time| Timespec {
        tv_sec: 0,
        tv_nsec: time.subsec_nanos().into(),
    });
    match poll(&mut fds, time.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    if !fds[2].revents().is_empty() {
        let _ = rustix::io::read(woken, &mut [0; 8]);
    }
    Ok([fds[0].revents(), fds[1].revents()])
}

/// Kills the process of a task.
fn end(task: pid_t) {
    let process = super::task::process_of(task).and_then(rustix::process::Pid::from_raw);
    if let Some(process) = process {
        // It may be gone.
        let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
    }
}
