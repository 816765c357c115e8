//! A program in the foreground: signals, job control and the exit status are as if it ran by itself.
//!
//! Two processes stand between the shell and the program. The first is the one that the shell knows: it passes on the signals
//! that it is sent, is stopped when the program stops, and ends as it ends. The second is the program's parent, and that of all
//! processes that lose theirs: it answers calls until the last of them is gone.

#![expect(unsafe_code, reason = "signals, fork(2), wait(2)")]

use std::io::{self, Read as _, Write as _};
use std::mem;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use libc::{c_int, pid_t, sigset_t};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Signal, getppid, kill_process};

use super::spawn::{Error, Run, Running};

/// mapemu itself failed.
const FAILED: u8 = 125;
/// The program cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// The program was not found.
const NOT_FOUND: u8 = 127;

/// Signals that a terminal sends to all of a group.
const FROM_TERMINAL: &[c_int] = &[
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGWINCH,
];

/// Signals that are meant for the program.
const PASSED_ON: &[c_int] = &[
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGWINCH,
];

/// How long we wait for the last call after the program's end, if there is nothing left that could make one.
const LAST_CALL: Duration = Duration::from_millis(50);

/// What the program's parent tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Event {
    Started,
    /// Others of its processes go on.
    Ended,
    /// And so does the process that tells it.
    Over,
}

/// Runs a program in the foreground, and gives the status to exit with: the program's, 128 and the signal's number, 125 if
/// mapemu itself failed. What goes wrong is told on standard error. This process has to have one thread.
pub fn in_foreground(run: Run, command: Command) -> u8 {
    match fronted(run, command) {
        Ok(status) => status,
        Err(error) => {
            tell(&error);
            FAILED
        }
    }
}

fn tell(error: &dyn std::error::Error) {
    // If nobody reads it, nobody misses it.
    let _ = writeln!(io::stderr(), "mapemu: {error}");
}

fn fronted(run: Run, command: Command) -> io::Result<u8> {
    let (front, back) = UnixStream::pair()?;
    // SAFETY: only numbers. Where it is ignored, nobody is told that a child ended.
    let of_children = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    let mut signals = set_of(PASSED_ON);
    add(&mut signals, libc::SIGCHLD);
    let before = block(&signals)?;
    // SAFETY: this process has one thread.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(front);
            let status = behind(run, command, back, (before, of_children));
            std::process::exit(status.into());
        }
        parent => {
            drop(back);
            drop((run, command));
            wait_for(front, parent)
        }
    }
}

/// The process that the shell knows.
fn wait_for(mut back: UnixStream, parent: pid_t) -> io::Result<u8> {
    let signals = signal_fd(PASSED_ON)?;
    let mut program = 0;
    loop {
        // A signal that comes before the program is there waits for it.
        let asked = if program > 0 {
            PollFlags::IN
        } else {
            PollFlags::empty()
        };
        let mut fds = [
            PollFd::new(&signals, asked),
            PollFd::new(&back, PollFlags::IN),
        ];
        if let Err(error) = poll(&mut fds, None)
            && error != rustix::io::Errno::INTR
        {
            return Err(error.into());
        }
        let [signalled, told] = fds.map(|fd| !fd.revents().is_empty());
        if told {
            // If it ended without a word here, it has told why.
            let over = (Event::Over, FAILED.into());
            let (event, number) = receive(&mut back)?.unwrap_or(over);
            match event {
                Event::Started => program = number,
                Event::Ended => return Ok(u8::try_from(number).unwrap_or(FAILED)),
                Event::Over => {
                    // SAFETY: only numbers; nobody wants the status.
                    unsafe { libc::waitpid(parent, std::ptr::null_mut(), 0) };
                    return Ok(u8::try_from(number).unwrap_or(FAILED));
                }
            }
        } else if signalled && let Some((signal, sent)) = next_signal(&signals) {
            // The terminal sends to all of the group, so the program has it already.
            if sent || !FROM_TERMINAL.contains(&signal) {
                // SAFETY: only numbers.
                unsafe { libc::kill(program, signal) };
            }
        }
    }
}

/// The program's parent.
fn behind(
    run: Run,
    mut command: Command,
    mut front: UnixStream,
    (before, of_children): (sigset_t, libc::sighandler_t),
) -> u8 {
    // SAFETY: only numbers. Without it, orphans are answered all the same, but may not be looked into.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    let as_before = move || {
        // SAFETY: only numbers.
        unsafe { libc::signal(libc::SIGCHLD, of_children) };
        set_mask(&before)
    };
    // SAFETY: two system calls, of memory that is there.
    unsafe { command.pre_exec(as_before) };
    let program = command.get_program().to_os_string();
    let running = match run.spawn(command) {
        Ok(running) => running,
        Err(Error::Program(error)) => {
            let status = if error.kind() == io::ErrorKind::NotFound {
                NOT_FOUND
            } else {
                NOT_EXECUTABLE
            };
            tell(&io::Error::new(
                error.kind(),
                format!("{}: {error}", program.display()),
            ));
            send(&mut front, Event::Over, status.into());
            return status;
        }
        Err(error) => {
            tell(&error);
            return FAILED;
        }
    };
    raise_limit();
    match follow(running, &mut front) {
        Ok(()) => 0,
        Err(error) => {
            tell(&error);
            FAILED
        }
    }
}

/// Tells what becomes of the program, then answers what is left of it.
fn follow(mut running: Running, front: &mut UnixStream) -> io::Result<()> {
    let program = pid_t::try_from(running.child().id()).map_err(io::Error::other)?;
    send(front, Event::Started, program);
    let events = running.take_events();
    let traced = events.is_some();
    let status = status_of(program, events, front)?;
    let number = if running.is_strict() && running.has_refused() {
        FAILED.into()
    } else if libc::WIFEXITED(status) {
        libc::WEXITSTATUS(status)
    } else {
        128 + libc::WTERMSIG(status)
    };
    if running.is_over_within(LAST_CALL) {
        // All is removed before anybody knows that it is over.
        drop(running);
        send(front, Event::Over, number);
        signal_front(front, Signal::CONT);
        return Ok(());
    }
    send(front, Event::Ended, number);
    signal_front(front, Signal::CONT);
    leave_outputs()?;
    while !running.is_over_within(Duration::from_secs(1)) {
        if !traced {
            reap(0, front);
        }
    }
    Ok(())
}

/// Waits until the program ends, and tells when it stops; `events` are what wait(2) says, if only the tracer can ask.
fn status_of(
    program: pid_t,
    mut events: Option<UnixStream>,
    front: &mut UnixStream,
) -> io::Result<c_int> {
    let signals = signal_fd(&[libc::SIGCHLD])?;
    loop {
        let mut fds = [
            PollFd::new(&signals, PollFlags::IN),
            PollFd::new(front, PollFlags::IN),
            // Nothing, if there are none.
            PollFd::new(events.as_ref().unwrap_or(front), PollFlags::IN),
        ];
        if let Err(error) = poll(&mut fds, None)
            && error != rustix::io::Errno::INTR
        {
            return Err(error.into());
        }
        let [signalled, gone, told] = fds.map(|fd| !fd.revents().is_empty());
        if signalled {
            while next_signal(&signals).is_some() {}
        }
        if gone {
            // Whoever ended the process in front meant the program.
            // SAFETY: only numbers; it is our child, and not waited for yet.
            unsafe { libc::kill(program, libc::SIGKILL) };
        }
        let status = match &mut events {
            None => reap(program, front),
            Some(told_by) if told => {
                let mut status = [0; 4];
                match told_by.read_exact(&mut status) {
                    Ok(()) => ended(c_int::from_ne_bytes(status), front),
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        // It was killed before it was seen to be the program.
                        events = None;
                        reap(program, front)
                    }
                    Err(error) => return Err(error),
                }
            }
            Some(_) => None,
        };
        if let Some(status) = status {
            return Ok(status);
        }
    }
}

/// Who reads what the program wrote does not wait for what it left behind.
fn leave_outputs() -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let null = options.read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

/// Waits for all children that have changed; the status of the program, if it ended.
fn reap(program: pid_t, front: &mut UnixStream) -> Option<c_int> {
    loop {
        let mut status = 0;
        // SAFETY: the status is ours.
        let child = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::WUNTRACED) };
        if child <= 0 {
            return None;
        }
        if child == program
            && let Some(status) = ended(status, front)
        {
            return Some(status);
        }
    }
}

/// The status of a program that has ended; if it has stopped, so does the process in front: whoever watches that one sees it.
fn ended(status: c_int, front: &UnixStream) -> Option<c_int> {
    if libc::WIFSTOPPED(status) {
        signal_front(front, Signal::STOP);
        return None;
    }
    Some(status)
}

/// Stops the process in front, or has it go on, as it has to who is to hear of the end: who stops itself may do so too late.
fn signal_front(front: &UnixStream, signal: Signal) {
    // It made both ends. If it is gone, another is our parent.
    if let Ok(made) = socket_peercred(front)
        && getppid() == Some(made.pid)
    {
        let _ = kill_process(made.pid, signal);
    }
}

/// As many files as we may have.
fn raise_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // With fewer it works, too.
    let _ = setrlimit(Resource::Nofile, most);
}

fn send(to: &mut UnixStream, event: Event, number: c_int) {
    let kind = match event {
        Event::Started => 1,
        Event::Ended => 2,
        Event::Over => 3,
    };
    let mut bytes = [kind, 0, 0, 0, 0];
    bytes[1..].copy_from_slice(&number.to_ne_bytes());
    // It may be gone.
    let _ = to.write_all(&bytes);
}

fn receive(from: &mut UnixStream) -> io::Result<Option<(Event, c_int)>> {
    let mut bytes = [0; 5];
    match from.read_exact(&mut bytes) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let [kind, a, b, c, d] = bytes;
    let event = match kind {
        1 => Event::Started,
        2 => Event::Ended,
        _ => Event::Over,
    };
    Ok(Some((event, c_int::from_ne_bytes([a, b, c, d]))))
}

fn set_of(signals: &[c_int]) -> sigset_t {
    // SAFETY: a set is plain numbers, and made empty next.
    let mut set = unsafe { mem::zeroed() };
    // SAFETY: the set is ours.
    unsafe { libc::sigemptyset(&raw mut set) };
    for &signal in signals {
        add(&mut set, signal);
    }
    set
}

fn add(set: &mut sigset_t, signal: c_int) {
    // SAFETY: the set is ours.
    unsafe { libc::sigaddset(set, signal) };
}

/// Keeps signals back; gives what was kept back before.
fn block(signals: &sigset_t) -> io::Result<sigset_t> {
    let mut before = set_of(&[]);
    // SAFETY: both sets are ours.
    let ret = unsafe { libc::sigprocmask(libc::SIG_BLOCK, signals, &raw mut before) };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(before)
}

fn set_mask(signals: &sigset_t) -> io::Result<()> {
    // SAFETY: the set is ours.
    let ret = unsafe { libc::sigprocmask(libc::SIG_SETMASK, signals, std::ptr::null_mut()) };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn signal_fd(signals: &[c_int]) -> io::Result<OwnedFd> {
    let set = set_of(signals);
    // SAFETY: the set is ours.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is new.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The next signal, and whether a process sent it, not the kernel.
fn next_signal(signals: &OwnedFd) -> Option<(c_int, bool)> {
    const SIZE: usize = size_of::<libc::signalfd_siginfo>();
    let mut bytes = [0; SIZE];
    let read = rustix::io::read(signals.as_fd(), &mut bytes).ok()?;
    if read < SIZE {
        return None;
    }
    let number = |at: usize| bytes[at..at + 4].try_into().map(c_int::from_ne_bytes).ok();
    let (signal, code) = (number(0)?, number(8)?);
    Some((signal, code <= 0))
}
