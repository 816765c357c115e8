//! Calls that come by ptrace(2): for places where a filter around this process refuses bpf(2), which notifications cannot pass.
//!
//! A call that may be refused there stops the program by a signal (a trap is stronger than a refusal); all others stop it before
//! they are made. Only x86-64.

#![expect(unsafe_code, reason = "ptrace(2), wait(2)")]

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;

use libc::{c_int, c_uint, pid_t, user_regs_struct};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};

use super::child;
use super::filter::ARCH;
use super::mapping::{errno_of, int};
use super::memory::TaskMem;
use super::placeholder::{inode_of, own_link};
use super::poll::Wait;
use super::port::{Answer, Port, Syscall, taken};
use super::server::Server;
use super::signals;
use super::task::process_of;
use crate::abi::{Attr, Errno, Fd, Result, UserMem};

const OPTIONS: c_int = libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACESECCOMP
    | libc::PTRACE_O_EXITKILL;

/// A stop at a system call, as wait(2) tells it.
const SYSCALL_STOP: c_int = libc::SIGTRAP | 0x80;
/// `SYS_SECCOMP`: a filter sent the signal.
const SYS_SECCOMP: c_int = 1;
/// Bytes of the instruction `syscall`.
const SYSCALL_LEN: u64 = 2;
/// Bytes below the stack that functions use without a word.
const RED_ZONE: u64 = 128;

/// What becomes of the program's first process.
pub(super) type Told<'a> = &'a mut dyn FnMut(c_int);

/// Traces a process from here on, with all that it makes.
///
/// # Errors
///
/// Those of the system.
pub(super) fn seize(process: pid_t) -> io::Result<()> {
    request(
        libc::PTRACE_SEIZE,
        process,
        0,
        OPTIONS.cast_unsigned().into(),
    )
}

/// Answers calls until no process is left. `told` gets what wait(2) says of the first one.
///
/// # Errors
///
/// Those of the system.
pub(super) fn serve(server: &Server, first: pid_t, strict: bool, told: Told<'_>) -> io::Result<()> {
    let mut is_program = false;
    let mut waits = Vec::new();
    loop {
        if !is_program && has_ended(first) {
            // It could not become the program: whoever made it waits for it.
            return Ok(());
        }
        let Some((task, status)) = next(server, &mut waits)? else {
            return Ok(());
        };
        let is_new = status >> 16 == libc::PTRACE_EVENT_EXEC;
        is_program |= is_new;
        if is_new || !libc::WIFSTOPPED(status) {
            // Another thread that executes a program ends the first one without a word, and has its number.
            waits.retain(|(stopped, _): &Waiting<'_>| stopped.task != task);
        }
        if !libc::WIFSTOPPED(status) {
            if task == first {
                told(status);
            }
            continue;
        }
        let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
        match event {
            libc::PTRACE_EVENT_SECCOMP => call(server, task, strict, false, &mut waits),
            libc::PTRACE_EVENT_STOP if is_stop(signal) => {
                if task == first {
                    told(status);
                }
                resume(libc::PTRACE_LISTEN, task, 0);
                restart_all(task, &mut waits);
            }
            0 if signal == libc::SIGSYS && is_ours(task) => {
                call(server, task, strict, true, &mut waits);
            }
            0 if signal != SYSCALL_STOP => resume(libc::PTRACE_CONT, task, signal),
            _ => resume(libc::PTRACE_CONT, task, 0),
        }
    }
}

fn is_stop(signal: c_int) -> bool {
    [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(&signal)
}

/// The process of a task stops, and with it all that waits in it.
fn restart_all(task: pid_t, waits: &mut Vec<Waiting<'_>>) {
    if waits.is_empty() {
        return;
    }
    let process = process_of(task);
    waits.retain_mut(|(stopped, wait)| {
        let stops = process_of(stopped.task) == process;
        if stops {
            let answer = wait.interrupted(stopped, signals::RESTART);
            stopped.returns(answer);
        }
        !stops
    });
}

/// A task that is stopped until its call is answered.
type Waiting<'a> = (Stopped<'a>, Box<Wait>);

/// What becomes of a task next. Calls that wait are answered meanwhile.
fn next(server: &Server, waits: &mut Vec<Waiting<'_>>) -> io::Result<Option<(pid_t, c_int)>> {
    // Nothing that can be waited for tells of stops.
    const PAUSE: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: 200_000,
    };
    while !waits.is_empty() {
        match wait(-1, libc::WNOHANG)? {
            Some((0, _)) => {}
            found => return Ok(found),
        }
        let mut fds = vec![PollFd::new(server.woken(), PollFlags::IN)];
        for (_, wait) in &*waits {
            let _ = wait.waits_for(&mut fds);
        }
        if poll(&mut fds, Some(&PAUSE)).is_ok() && !fds[0].revents().is_empty() {
            let _ = rustix::io::read(server.woken(), &mut [0; 8]);
        }
        drop(fds);
        waits.retain_mut(|(stopped, wait)| match wait.answer(stopped) {
            None => true,
            Some(answer) => {
                stopped.returns(answer);
                false
            }
        });
    }
    wait(-1, 0)
}

/// A call that waits for its answer.
fn call<'a>(
    server: &'a Server,
    task: pid_t,
    strict: bool,
    trapped: bool,
    waits: &mut Vec<Waiting<'a>>,
) {
    let Ok(regs) = registers(task) else {
        return;
    };
    let call = Syscall {
        arch: ARCH | if regs.cs == 0x23 { 1 << 31 } else { 0 },
        number: if trapped { regs.rax } else { regs.orig_rax }.cast_signed(),
        args: [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9],
    };
    let mut stopped = Stopped {
        server,
        task,
        regs,
        at: Mutex::new(At {
            entry: !trapped,
            signals: Vec::new(),
        }),
    };
    let answer = server.serve(&stopped, &call);
    server.settle();
    if strict && server.notices.has_refused() {
        // SAFETY: only numbers; it is stopped, so the number is its own.
        unsafe { libc::kill(task, libc::SIGKILL) };
    }
    match answer {
        Answer::Continue if stopped.at.get_mut().entry => resume(libc::PTRACE_CONT, task, 0),
        Answer::Continue => {
            server.notices.tell(format_args!(
                "counters of perf_event_open(2) are not available with --backend ptrace: EACCES"
            ));
            stopped.returns(Err(Errno::EACCES));
        }
        Answer::Returns(result) => stopped.returns(result),
        Answer::Later(wait) => waits.push((stopped, wait)),
    }
}

/// A task that is stopped for a call.
struct Stopped<'a> {
    server: &'a Server,
    task: pid_t,
    regs: user_regs_struct,
    at: Mutex<At>,
}

/// Where it is stopped.
struct At {
    /// Before the call is made; else behind the instruction.
    entry: bool,
    /// What came meanwhile.
    signals: Vec<c_int>,
}

impl fmt::Debug for Stopped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {}", self.task)
    }
}

impl Port for Stopped<'_> {
    fn task(&self) -> pid_t {
        self.task
    }

    fn is_waiting(&self) -> bool {
        true
    }

    fn opens_again(&self) -> bool {
        true
    }

    /// The task opens our fd by its link, or is sent it where it does not see us.
    fn add_fd(&self, file: BorrowedFd<'_>, access: OFlags, cloexec: bool) -> Result<Fd> {
        let mut flags =
            access & !(OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::TRUNC);
        flags.set(OFlags::CLOEXEC, cloexec);
        match self.open_by_link(file, flags) {
            Err(Errno::EACCES | Errno::EPERM | Errno::ENOENT) => self.send(file, flags),
            answer => answer,
        }
    }

    fn chdir(&self, dir: BorrowedFd<'_>) -> Option<Result<u64>> {
        let go = |fd: Fd| {
            let gone = self.call(libc::SYS_fchdir, [fd.into(), 0, 0, 0]);
            self.close(fd);
            gone
        };
        Some(self.add_fd(dir, OFlags::PATH, true).and_then(go))
    }

    fn unreachable(&self, why: &io::Error) {
        self.server.notices.unreachable(self.task, why);
    }
}

impl Stopped<'_> {
    /// The call returns that.
    fn returns(&mut self, result: Result<u64>) {
        if result == Err(signals::RESTART) {
            self.begins_again();
            return;
        }
        let mut regs = self.regs;
        regs.rax = match result {
            Ok(value) => value,
            Err(errno) => errno.negated().cast_unsigned(),
        };
        // No call is made, and none begun again.
        regs.orig_rax = u64::MAX;
        self.goes_on(&regs);
    }

    /// The call has not been made, and is made again after the signal that has come, unless a handler runs.
    fn begins_again(&mut self) {
        let mut regs = self.regs;
        // Whatever becomes of the signal meanwhile, the kernel looks for one, and so at how the call ended.
        let looks = || request(libc::PTRACE_INTERRUPT, self.task, 0, 0);
        if self
            .skip(&mut self.at.lock())
            .and_then(|()| looks())
            .is_ok()
        {
            regs.rax = signals::RESTART.negated().cast_unsigned();
        } else {
            regs.orig_rax = u64::MAX;
            regs.rax = Errno::EINTR.negated().cast_unsigned();
        }
        self.goes_on(&regs);
    }

    fn goes_on(&mut self, regs: &user_regs_struct) {
        let _ = set_registers(self.task, regs);
        for signal in self.at.get_mut().signals.drain(..) {
            // SAFETY: only numbers.
            unsafe { libc::syscall(libc::SYS_tkill, self.task, signal) };
        }
        resume(libc::PTRACE_CONT, self.task, 0);
    }

    /// # Errors
    ///
    /// `ENOENT` if the path leads to something else there, and those of open(2).
    fn open_by_link(&self, file: BorrowedFd<'_>, flags: OFlags) -> Result<Fd> {
        let path = format!("/proc/{}/fd/{}\0", std::process::id(), file.as_raw_fd());
        let room = self.room();
        TaskMem::new(self).write(room, path.as_bytes())?;
        let here = libc::AT_FDCWD.cast_unsigned().into();
        let opened = self.call(libc::SYS_openat, [here, room, flags.bits().into(), 0])?;
        let fd = int(opened);
        let found = self.server.tasks.file(self.task, fd)?;
        if inode_of(file).ok() == Some(found.inode) {
            return Ok(fd);
        }
        self.close(fd);
        Err(Errno::ENOENT)
    }

    /// Through a socket that the task makes for it.
    fn send(&self, file: BorrowedFd<'_>, flags: OFlags) -> Result<Fd> {
        let file =
            open(own_link(file), flags | OFlags::CLOEXEC, Mode::empty()).map_err(errno_of)?;
        let room = self.room();
        let (unix, kind) = (libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC);
        let args = [unix, kind, 0].map(|arg| u64::from(arg.cast_unsigned()));
        self.call(libc::SYS_socketpair, [args[0], args[1], args[2], room])?;
        let mut ends = [0; 8];
        TaskMem::new(self).read(room, &mut ends)?;
        let ends = [Attr(&ends).u32(0), Attr(&ends).u32(4)];
        let sent = taken(self, ends[1]).and_then(|socket| {
            child::send_fd(socket.as_fd(), file.as_fd()).map_err(errno_of)?;
            self.received(ends[0], room)
        });
        ends.iter().for_each(|&end| self.close(end));
        let fd = sent?;
        // It gets the number that it would have had.
        let dup = match flags.contains(OFlags::CLOEXEC) {
            true => libc::F_DUPFD_CLOEXEC,
            false => libc::F_DUPFD,
        };
        let lowest = self.call(
            libc::SYS_fcntl,
            [fd.into(), u64::from(dup.cast_unsigned()), 0, 0],
        );
        self.close(fd);
        lowest.map(int)
    }

    /// The task receives an fd.
    fn received(&self, socket: Fd, room: u64) -> Result<Fd> {
        // A byte, a vector of it, room for an fd, and the header of it all.
        let (byte, vector, control, header) = (room, room + 16, room + 32, room + 64);
        let words = [byte, 1, 0, 0, 0, 0, 0, 0, vector, 1, control, 24, 0];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        TaskMem::new(self).write(vector, &bytes)?;
        self.call(libc::SYS_recvmsg, [socket.into(), header, 0, 0])?;
        let mut received = [0; 24];
        TaskMem::new(self).read(control, &mut received)?;
        Ok(Attr(&received).u32(16))
    }

    /// Memory below the task's stack that it does not use.
    fn room(&self) -> u64 {
        const ROOM: u64 = 256;
        (self.regs.rsp - RED_ZONE - ROOM) & !15
    }

    fn close(&self, fd: Fd) {
        let _ = self.call(libc::SYS_close, [fd.into(), 0, 0, 0]);
    }

    /// What a call answers that the task makes for us.
    fn call(&self, number: i64, args: [u64; 4]) -> Result<u64> {
        let made = self.make(number, args).map_err(|error| {
            self.unreachable(&error);
            Errno::EIO
        })?;
        match u16::try_from(-made) {
            Ok(errno @ 1..4096) => Err(Errno::new(errno)),
            _ => Ok(made.cast_unsigned()),
        }
    }

    /// The task makes a call for us.
    fn make(&self, number: i64, args: [u64; 4]) -> io::Result<i64> {
        let mut at = self.at.lock();
        self.skip(&mut at)?;
        let mut regs = self.regs;
        regs.rip -= SYSCALL_LEN;
        regs.rax = number.cast_unsigned();
        regs.orig_rax = u64::MAX;
        [regs.rdi, regs.rsi, regs.rdx, regs.r10] = args;
        set_registers(self.task, &regs)?;
        self.to_next_call(&mut at, 2)?;
        Ok(registers(self.task)?.rax.cast_signed())
    }

    /// Its own call is not made: it stops behind it.
    fn skip(&self, at: &mut At) -> io::Result<()> {
        if at.entry {
            let mut regs = self.regs;
            regs.orig_rax = u64::MAX;
            set_registers(self.task, &regs)?;
            at.entry = false;
            self.to_next_call(at, 1)?;
        }
        Ok(())
    }

    /// Goes on until it has stopped at system calls so many times: before one, and behind it.
    fn to_next_call(&self, at: &mut At, stops: u32) -> io::Result<()> {
        let mut left = stops;
        while left > 0 {
            request(libc::PTRACE_SYSCALL, self.task, 0, 0)?;
            let status = next_stop(self.task)?;
            let signal = libc::WSTOPSIG(status);
            match status >> 16 {
                0 if signal == SYSCALL_STOP => left -= 1,
                0 => at.signals.push(signal),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The signal that a task is stopped with is that of our filter.
fn is_ours(task: pid_t) -> bool {
    // SAFETY: it is a plain struct of numbers.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let got = request(
        libc::PTRACE_GETSIGINFO,
        task,
        0,
        (&raw mut info).expose_provenance() as u64,
    );
    if got.is_err() || info.si_code != SYS_SECCOMP {
        return false;
    }
    let ours = [libc::SYS_bpf, libc::SYS_perf_event_open];
    registers(task).is_ok_and(|regs| ours.contains(&regs.rax.cast_signed()))
}

fn registers(task: pid_t) -> io::Result<user_regs_struct> {
    // SAFETY: it is a plain struct of numbers.
    let mut regs: user_regs_struct = unsafe { std::mem::zeroed() };
    let room = (&raw mut regs).expose_provenance() as u64;
    request(libc::PTRACE_GETREGS, task, 0, room)?;
    Ok(regs)
}

fn set_registers(task: pid_t, regs: &user_regs_struct) -> io::Result<()> {
    let from = ptr::from_ref(regs).expose_provenance() as u64;
    request(libc::PTRACE_SETREGS, task, 0, from)
}

/// Goes on, with a signal. A task that is gone does not.
fn resume(how: c_uint, task: pid_t, signal: c_int) {
    let _ = request(how, task, 0, signal.cast_unsigned().into());
}

fn request(request: c_uint, task: pid_t, addr: u64, data: u64) -> io::Result<()> {
    // SAFETY: where the data is an address, it is that of a struct that the request is about, and that is there yet.
    let ret = unsafe { libc::ptrace(request, task, addr, data) };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Waits until something becomes of a process; whether it has ended.
fn has_ended(process: pid_t) -> bool {
    // SAFETY: it is a plain struct of numbers.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WNOWAIT | libc::WEXITED | libc::WSTOPPED | libc::__WALL;
    // SAFETY: the struct is ours.
    let ret = unsafe { libc::waitid(libc::P_PID, process.cast_unsigned(), &raw mut info, flags) };
    let ends = [libc::CLD_EXITED, libc::CLD_KILLED, libc::CLD_DUMPED];
    ret == 0 && ends.contains(&info.si_code)
}

/// What wait(2) says of the next stop of a task. If the task ends, that is left for [`serve`] to find.
///
/// # Errors
///
/// `ESRCH` if it has ended, and those of the system.
fn next_stop(task: pid_t) -> io::Result<c_int> {
    loop {
        if has_ended(task) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        // SAFETY: it is a plain struct of numbers.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let flags = libc::WNOHANG | libc::WSTOPPED | libc::__WALL | libc::__WNOTHREAD;
        // SAFETY: the struct is ours.
        let ret = unsafe { libc::waitid(libc::P_PID, task.cast_unsigned(), &raw mut info, flags) };
        if ret < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: waitid(2) tells of a child, or leaves zeros.
        let of = unsafe { info.si_pid() };
        // A stop is over when the task is killed.
        if of == task {
            // SAFETY: as above.
            return Ok(unsafe { info.si_status() } << 8 | 0x7f);
        }
    }
}

/// What became of a task that this thread traces; `None` if there is none. Task 0 is none yet, if that is not waited for.
fn wait(task: pid_t, flags: c_int) -> io::Result<Option<(pid_t, c_int)>> {
    loop {
        let mut status = 0;
        let flags = flags | libc::__WALL | libc::__WNOTHREAD;
        // SAFETY: the status is ours.
        let found = unsafe { libc::waitpid(task, &raw mut status, flags) };
        if found >= 0 {
            return Ok(Some((found, status)));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ECHILD) => return Ok(None),
            Some(libc::EINTR) => {}
            _ => return Err(error),
        }
    }
}
