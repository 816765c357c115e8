//! What signals make of a call that waits here: `/proc` tells of those that have come, and of stops.
//!
//! The caller sleeps in the running kernel until it is answered, whatever it is sent. So that a signal is handled, or the process
//! stops, the call has to end: it is begun again after that, unless a handler ran. Only the kernel knows that, so it is asked to
//! do so; and it does for a task that it has told of a signal. Where another task may be the one that was told, `EINTR` is the
//! answer, which a program knows how to take.
//!
//! Kernel: `kernel/signal.c:complete_signal`, `do_signal_stop` (v6.18).

use std::fs;

use libc::pid_t;

use super::task;
use crate::abi::Errno;

/// `ERESTARTNOHAND`: the call is begun again, if no handler runs. The program never sees it.
pub(super) const RESTART: Errno = Errno::new(514);

/// The signals that stop a process.
const STOPS: [i32; 4] = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

/// Signals that do nothing where no handler is.
const BY_DEFAULT_IGNORED: [i32; 4] = [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH];

fn set_of(signals: [i32; 4]) -> u64 {
    signals
        .iter()
        .fold(0, |set, signal| set | 1 << (signal - 1))
}

/// What is known of a task.
struct Status {
    process: pid_t,
    threads: usize,
    has_ended: bool,
    own: u64,
    shared: u64,
    ignored: u64,
    caught: u64,
    blocked: u64,
}

impl Status {
    fn of(task: pid_t) -> Option<Self> {
        let names = [
            "Tgid:", "Threads:", "State:", "SigPnd:", "ShdPnd:", "SigIgn:", "SigCgt:", "SigBlk:",
        ];
        let [
            process,
            threads,
            state,
            own,
            shared,
            ignored,
            caught,
            blocked,
        ] = task::status(task, names);
        let set = |told: Option<String>| u64::from_str_radix(&told?, 16).ok();
        Some(Self {
            process: process?.parse().ok()?,
            threads: threads?.parse().ok()?,
            has_ended: state?.starts_with(['Z', 'X']),
            own: set(own)?,
            shared: set(shared)?,
            ignored: set(ignored)?,
            caught: set(caught)?,
            blocked: set(blocked)?,
        })
    }

    /// A signal has come that ends a call, unless it is one of those.
    fn is_signalled(&self, blocked: u64) -> bool {
        let ignored = self.ignored | set_of(BY_DEFAULT_IGNORED) & !self.caught;
        (self.own | self.shared) & !blocked & !self.blocked & !ignored != 0
    }
}

/// How a call ends that waits: if a signal has come besides those, or its process is about to stop, if that is asked: all its
/// threads are looked at.
pub(super) fn interrupted(task: pid_t, blocked: u64, may_stop: bool) -> Option<Errno> {
    let status = Status::of(task)?;
    if !status.is_signalled(blocked) {
        return (may_stop && is_stopping(task)).then_some(RESTART);
    }
    let stops = set_of(STOPS) & !status.caught;
    let seen = !status.blocked & !blocked;
    if status.own & seen != 0 || status.threads == 1 {
        return Some(RESTART);
    }
    if task != status.process {
        // The first thread is told of what was sent to all, if it wants to hear it.
        let first = Status::of(status.process)?;
        let heard = !first.has_ended && status.shared & seen & !first.blocked != 0;
        return (!heard).then_some(Errno::EINTR);
    }
    let stopped = status.shared & seen & stops != 0;
    Some(if stopped { RESTART } else { Errno::EINTR })
}

/// Another thread has stopped, and waits for this one.
fn is_stopping(task: pid_t) -> bool {
    let has_stopped = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.ok()?.path();
        let stat = fs::read_to_string(path.join("stat")).ok()?;
        let (_, behind) = stat.rsplit_once(") ")?;
        Some(behind.starts_with('T'))
    };
    fs::read_dir(format!("/proc/{task}/task"))
        .is_ok_and(|mut tasks| tasks.any(|entry| has_stopped(entry) == Some(true)))
}
