//! The kernel that the program sees: what becomes of each of its calls that comes to us.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};

use super::bpffs::Bpffs;
use super::caller::{self, Caller, caught};
use super::cgroups::Cgroups;
use super::child;
use super::filter::ARCH;
use super::foreign::Foreign;
use super::machine;
use super::memlock::Memlock;
use super::memory::TaskMem;
use super::notice::Notices;
use super::placeholder::open_again;
use super::port::{Answer, Port, Syscall};
use super::record::Recorder;
use super::sockets::{self, Sockets};
use super::table::{Entry, Table};
use super::task::{TaskFile, Tasks};
use super::{epoll, mapping, paths, perf, poll};
use crate::Kernel;
use crate::abi::{Cmd, Errno, Fd, Result};
use crate::vm::Interpreter;

/// See the module.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) kernel: Kernel,
    pub(super) tasks: Tasks,
    pub(super) table: Table,
    pub(super) foreign: Foreign,
    pub(super) sockets: Sockets,
    pub(super) bpffs: Bpffs,
    pub(super) cgroups: Cgroups,
    pub(super) notices: Notices,
    /// What is waited for with epoll(7).
    pub(super) watched: Mutex<Vec<Weak<Entry>>>,
    /// An eventfd.
    woken: Arc<OwnedFd>,
    /// What the lists of CPUs say, if that is not the truth.
    pub(super) cpus: Option<String>,
    memlock: Memlock,
    pub(super) recorder: Option<Recorder>,
}

impl Server {
    pub(super) fn new(
        kernel: Kernel,
        pin_root: Option<&Path>,
        trace: Option<File>,
    ) -> io::Result<Self> {
        let nr_cpus = kernel.env().nr_cpus;
        let list = match nr_cpus {
            1 => "0\n".to_owned(),
            _ => format!("0-{}\n", nr_cpus - 1),
        };
        let truth = std::fs::read_to_string("/sys/devices/system/cpu/possible");
        kernel.run_programs_with(Arc::new(Interpreter));
        // A trace is replayed where there is `lo` only.
        if trace.is_none() {
            machine::interfaces().for_each(|ifindex| kernel.add_interface(ifindex));
        }
        let recorder = trace.map(|file| Recorder::new(file, &kernel));
        Ok(Self {
            recorder: recorder.transpose()?,
            tasks: Tasks::default(),
            table: Table::new()?,
            foreign: Foreign::default(),
            sockets: Sockets::default(),
            bpffs: Bpffs::new(pin_root)?,
            cgroups: Cgroups::default(),
            notices: Notices::default(),
            watched: Mutex::default(),
            woken: Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?),
            cpus: (!truth.is_ok_and(|truth| truth == list)).then_some(list),
            memlock: Memlock::default(),
            kernel,
        })
    }

    /// What becomes of a call.
    pub(super) fn serve(&self, port: &dyn Port, call: &Syscall) -> Answer {
        match caught(|| self.call_of(port, call)) {
            Ok(answer) => answer,
            Err(words) => {
                self.notices
                    .refuse(format_args!("a call failed here: {words}"));
                Answer::Returns(Err(Errno::EIO))
            }
        }
    }

    fn call_of(&self, port: &dyn Port, call: &Syscall) -> Answer {
        let args = call.args;
        if call.arch != ARCH || call.number & 0x4000_0000 != 0 {
            self.notices.refuse(format_args!(
                "process {} calls bpf(2) as a program of another architecture (32 bits?), which is not emulated: ENOSYS",
                port.task()
            ));
            return Answer::Returns(Err(Errno::ENOSYS));
        }
        match call.number {
            libc::SYS_bpf if child::is_hello(call) => Answer::Returns(Err(Errno::new(child::HERE))),
            libc::SYS_bpf => Answer::Returns(caller::bpf(self, port, args)),
            libc::SYS_epoll_ctl => epoll::ctl(self, port, args),
            libc::SYS_epoll_pwait | libc::SYS_epoll_pwait2 => self.epoll_wait(),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_epoll_wait => self.epoll_wait(),
            libc::SYS_ppoll | libc::SYS_pselect6 => poll::call(self, port, call),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_poll | libc::SYS_select => poll::call(self, port, call),
            libc::SYS_mmap => mapping::mmap(self, port, args),
            libc::SYS_perf_event_open => perf::open(self, port, args),
            libc::SYS_ioctl => perf::ioctl(self, port, args),
            libc::SYS_setsockopt => sockets::setsockopt(self, port, args),
            libc::SYS_prlimit64 => self.memlock.limit(port, args[0], args[2], args[3]),
            libc::SYS_setrlimit => self.memlock.limit(port, 0, args[1], 0),
            libc::SYS_getrlimit => self.memlock.limit(port, 0, 0, args[1]),
            _ => paths::call(self, port, call),
        }
    }

    /// The running kernel waits for eventfds of ours that say what is so.
    fn epoll_wait(&self) -> Answer {
        epoll::refresh(self);
        Answer::Continue
    }

    /// To be called when a call that waits is to be looked at again.
    pub(super) fn wakes(&self) -> Arc<dyn Fn() + Send + Sync> {
        let woken = Arc::clone(&self.woken);
        Arc::new(move || {
            // Full, it is seen all the same.
            let _ = rustix::io::write(&*woken, &1_u64.to_ne_bytes());
        })
    }

    /// Readable when a call that waits is to be looked at again.
    pub(super) fn woken(&self) -> &OwnedFd {
        &self.woken
    }

    /// The file behind an fd of a task.
    ///
    /// # Errors
    ///
    /// `EBADF`.
    pub(super) fn file(&self, port: &dyn Port, fd: Fd) -> Result<TaskFile> {
        self.tasks.file(port.task(), fd).map_err(|errno| {
            if errno == Errno::EACCES {
                port.unreachable(&io::Error::from_raw_os_error(libc::EACCES));
            }
            Errno::EBADF
        })
    }

    /// What `f` gives. A panic names what is not emulated: it is told, and refused.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` for that.
    pub(super) fn answered<T>(&self, f: impl FnOnce() -> Result<T>) -> Result<T> {
        caught(f).unwrap_or_else(|words| {
            let what = words.strip_prefix("mapemu does not emulate ");
            let what = what.map(|what| what.strip_suffix(" yet").unwrap_or(what));
            match what {
                Some(what) => {
                    self.notices
                        .refuse(format_args!("{what} is not emulated: EOPNOTSUPP"));
                    Err(Errno::EOPNOTSUPP)
                }
                None => {
                    self.notices
                        .refuse(format_args!("a call failed here: {words}"));
                    Err(Errno::EIO)
                }
            }
        })
    }

    /// The kernel's answer to bpf(2), which is recorded if that is wanted.
    pub(super) fn call(
        &self,
        caller: &Caller<'_>,
        cmd: Cmd,
        attr: u64,
        size: u32,
        mem: &mut TaskMem<'_>,
    ) -> Result<u32> {
        let Some(recorder) = &self.recorder else {
            // In a trace time stands still, so that its replay finds the same values.
            if matches!(cmd, Cmd::PROG_LOAD | Cmd::PROG_TEST_RUN) {
                let passed = machine::now_ns().saturating_sub(self.kernel.env().now_ns());
                self.kernel.advance(passed);
            }
            return self.kernel.bpf_in(caller, cmd, attr, size, mem);
        };
        // What was closed is closed in the trace, too, before anything new gets its name.
        self.settle();
        let call = recorder.request(caller, cmd, attr, size, mem);
        let answer = self.kernel.bpf_in(caller, cmd, attr, size, mem);
        recorder.answer(caller, call, answer, mem);
        answer
    }

    /// Closes the emulated files whose last fd was closed.
    pub(super) fn settle(&self) {
        self.closed(self.table.settle());
    }

    pub(super) fn closed(&self, gone: Vec<Arc<Entry>>) {
        if let Some(recorder) = &self.recorder {
            gone.iter().for_each(|entry| recorder.closed(entry));
        }
        drop(gone);
    }

    /// Pins whose files are gone are gone.
    pub(super) fn follow_pins(&self) {
        let gone = self.bpffs.follow(&self.kernel);
        if let Some(recorder) = &self.recorder {
            gone.iter().for_each(|path| recorder.unlinked(path));
        }
    }

    /// A file that is read in place of another.
    ///
    /// # Errors
    ///
    /// `EMFILE` of the caller; `ENFILE` of ours, which is told.
    pub(super) fn give_text(&self, port: &dyn Port, text: &str, cloexec: bool) -> Result<Fd> {
        use rustix::fs::{MemfdFlags, memfd_create};
        let made = || -> io::Result<_> {
            let fd = memfd_create("mapemu", MemfdFlags::CLOEXEC)?;
            rustix::io::write(&fd, text.as_bytes())?;
            open_again(&fd, true, false)
        };
        let file = made().map_err(|error| {
            port.unreachable(&error);
            Errno::ENFILE
        })?;
        port.add_fd(file.as_fd(), rustix::fs::OFlags::RDONLY, cloexec)
    }
}
