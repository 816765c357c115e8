//! Lines for people: the program sees an errno, and no words.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use libc::pid_t;
use parking_lot::Mutex;

/// Lines that were written, each once.
#[derive(Debug, Default)]
pub(super) struct Notices {
    told: Mutex<BTreeSet<String>>,
    refused: AtomicBool,
}

impl Notices {
    /// A line on standard error, the first time.
    pub(super) fn tell(&self, what: fmt::Arguments<'_>) {
        let line = format!("mapemu: {what}\n");
        let mut told = self.told.lock();
        if !told.contains(&line) {
            // If nobody reads it, nobody misses it.
            let _ = io::stderr().write_all(line.as_bytes());
            told.insert(line);
        }
    }

    /// Something was asked for that is not emulated.
    pub(super) fn refuse(&self, what: fmt::Arguments<'_>) {
        self.refused.store(true, Ordering::Relaxed);
        self.tell(what);
    }

    /// Something was refused so far.
    pub(super) fn has_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// A task cannot be looked into.
    pub(super) fn unreachable(&self, task: pid_t, why: &io::Error) {
        let command = std::fs::read_to_string(format!("/proc/{task}/comm")).unwrap_or_default();
        let command = command.trim();
        match why.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => self.refuse(format_args!(
                "process {task} ({command}) cannot be looked into ({why}): it has made itself not dumpable, its file cannot be \
                 read, or kernel.yama.ptrace_scope forbids it; its calls of bpf(2) fail"
            )),
            Some(libc::EMFILE | libc::ENFILE) => self.refuse(format_args!(
                "mapemu has no free file descriptor for one more object ({why}): raise the limit (ulimit -n)"
            )),
            // It has ended, and waits for no answer.
            Some(libc::ESRCH) => {}
            _ => self.refuse(format_args!(
                "a call of process {task} ({command}) could not be answered: {why}"
            )),
        }
    }
}
