//! Begins a program, and answers its calls until the last of its processes is gone.

#![expect(
    unsafe_code,
    reason = "what a forked child does before it is a program"
)]

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::child::{self, Message, Stage};
use super::filter::{Backend, Filter};
use super::notify::{self, Listener};
use super::server::Server;
use crate::Kernel;

/// Why a program could not be run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A supervisor is there already: only one can be told of calls.
    #[error(
        "another supervisor watches the calls of this process (mapemu run in mapemu run, or a container manager): \
         only one can; use --backend ptrace"
    )]
    Nested,
    /// A filter around this process refuses bpf(2).
    #[error(
        "bpf(2) is refused here by a seccomp filter around mapemu, as containers have it. Run the container with \
         `--security-opt seccomp=unconfined` or, if its profile knows them, `--cap-add BPF --cap-add PERFMON`, or use \
         --backend ptrace"
    )]
    Refused,
    /// The kernel cannot tell of calls so that each is answered once.
    #[error(
        "the running kernel is too old for seccomp notifications that signals do not interrupt (Linux 5.19): use --backend ptrace"
    )]
    TooOld,
    /// A filter could not be installed.
    #[error("seccomp(2) does not work here ({0}): use --backend ptrace, if ptrace(2) does")]
    Filter(io::Error),
    /// Nothing is known of the program's processes.
    #[error(
        "/proc is not mounted here, or is that of other processes: mount it (mount -t proc proc /proc)"
    )]
    Proc,
    /// The kernel's ring buffers could not be mapped.
    #[error("the kernel of a run is made with `Kernel::builder().doubled_rings(true)`")]
    Rings,
    /// The program cannot be traced.
    #[error(
        "ptrace(2) does not work here ({0}): is this process traced already, by a debugger or mapemu run?"
    )]
    Traced(io::Error),
    /// The program could not be started.
    #[error("{0}")]
    Program(io::Error),
    /// Something of the system failed.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// How a program is run.
#[derive(Debug)]
pub struct Run {
    pub(super) kernel: Kernel,
    pub(super) backend: Backend,
    pub(super) pin_root: Option<PathBuf>,
    pub(super) strict: bool,
    trace: Option<File>,
}

impl Run {
    /// On that kernel, which others can use meanwhile. It has to be made with
    /// [`doubled_rings`](crate::sys::Builder::doubled_rings): programs map a ring buffer by themselves.
    pub fn new(kernel: Kernel) -> Self {
        Self {
            kernel,
            backend: Backend::Notify,
            pin_root: None,
            strict: false,
            trace: None,
        }
    }

    /// How calls come to us. Default: seccomp's notifications.
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// A directory that stands for `/sys/fs/bpf`: each pin is a file in it, as long as the program runs. Default: a new one,
    /// removed in the end.
    pub fn pin_root(mut self, dir: impl Into<PathBuf>) -> Self {
        self.pin_root = Some(dir.into());
        self
    }

    /// Calls that have to do with maps are written there, as a trace that `mapemu replay` reads.
    pub fn trace(mut self, file: File) -> Self {
        self.trace = Some(file);
        self
    }

    /// A program that asks for something that is not emulated is killed.
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// What is needed is there.
    fn check(&self) -> Result<(), Error> {
        if !self.kernel.env().doubled_rings {
            return Err(Error::Rings);
        }
        let own = std::fs::read_link("/proc/self").ok();
        if own != Some(std::process::id().to_string().into()) {
            return Err(Error::Proc);
        }
        Ok(())
    }

    /// Begins the program. Its calls are answered on a thread of this process.
    ///
    /// # Errors
    ///
    /// [`Error`]
    pub fn spawn(self, mut command: Command) -> Result<Running, Error> {
        self.check()?;
        let server = Server::new(self.kernel, self.pin_root.as_deref(), self.trace)?;
        let server = Arc::new(server);
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(io::Error::from)?;
        let filter = Filter::new(self.backend);
        let (backend, strict) = (self.backend, self.strict);
        let socket = theirs.try_clone()?;
        let other_end = ours.as_raw_fd();
        let prepare = move || {
            // SAFETY: it is the forked child's copy of `ours`, which nothing uses there. With it, it would never see that we
            // are gone.
            unsafe { libc::close(other_end) };
            child::prepare(&filter, backend, socket.as_fd())
        };
        // SAFETY: `prepare` makes system calls only, of memory that is there already.
        unsafe { command.pre_exec(prepare) };
        // It waits for its first answer before it is the program.
        let starting = thread::spawn(move || {
            let child = command.spawn();
            drop(command);
            drop(theirs);
            child
        });
        let begun = match child::told(ours.as_fd())? {
            Some(Message {
                stage: Stage::Listening,
                listener: Some(listener),
                ..
            }) => Some(Serving::of_notices(
                &server,
                Listener::new(listener),
                strict,
            )?),
            Some(Message {
                stage: Stage::Waiting,
                process,
                ..
            }) => Some(Serving::of_stops(&server, process, strict, &ours)?),
            Some(message) => return Err(failed(starting, message.stage)),
            None => None,
        };
        let child = starting.join().expect("it does not panic");
        match (child, begun) {
            (Ok(child), Some((serving, events))) => Ok(Running {
                child,
                server,
                serving: Some(serving),
                strict,
                events,
                status: None,
            }),
            (Ok(_), None) => Err(Error::Refused),
            (Err(error), begun) => {
                if let Some((serving, _)) = begun {
                    // Nobody is left who could call; what it used is put away before anybody knows.
                    let _ = serving.thread.join();
                }
                Err(
                    match child::told(ours.as_fd())?.map(|message| message.stage) {
                        Some(Stage::Refused) => Error::Refused,
                        Some(Stage::Filter) => Error::Filter(error),
                        _ => Error::Program(error),
                    },
                )
            }
        }
    }
}

fn failed(starting: JoinHandle<io::Result<Child>>, stage: Stage) -> Error {
    let error = match starting.join() {
        Ok(Err(error)) => error,
        _ => io::ErrorKind::Other.into(),
    };
    match (stage, error.raw_os_error()) {
        (Stage::Filter, Some(libc::EBUSY)) => Error::Nested,
        (Stage::Filter, Some(libc::EINVAL)) => Error::TooOld,
        (Stage::Filter, _) => Error::Filter(error),
        (Stage::Listening | Stage::Waiting | Stage::Refused, _) => Error::System(error),
    }
}

/// A program that runs. Dropped, it runs on, and is answered.
#[derive(Debug)]
pub struct Running {
    child: Child,
    server: Arc<Server>,
    serving: Option<Serving>,
    strict: bool,
    /// What wait(2) says of the first process, if only the thread that answers can ask.
    events: Option<UnixStream>,
    status: Option<ExitStatus>,
}

impl Running {
    /// The program's first process; its pipes, if it has any.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits until the program's first process ends. Others may go on: see [`Running::finish`].
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn wait(&mut self) -> Result<ExitStatus, Error> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        let Some(events) = &mut self.events else {
            return Ok(self.child.wait()?);
        };
        loop {
            let mut status = [0; 4];
            match events.read_exact(&mut status) {
                Ok(()) => {}
                // It was killed before it was seen to be the program.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(self.child.wait()?);
                }
                Err(error) => return Err(error.into()),
            }
            let status = i32::from_ne_bytes(status);
            if !libc::WIFSTOPPED(status) {
                let status = ExitStatus::from_raw(status);
                self.status = Some(status);
                return Ok(status);
            }
        }
    }

    /// What wait(2) says of the first process, if nobody else can ask.
    pub(super) fn take_events(&mut self) -> Option<UnixStream> {
        self.events.take()
    }

    /// Waits until all its processes are gone.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn finish(mut self) -> Result<(), Error> {
        self.wait()?;
        match self.serving.take().map(|serving| serving.thread.join()) {
            Some(Ok(ended)) => Ok(ended?),
            _ => Ok(()),
        }
    }

    /// Whether no process of it is left that could make a call, now or in that time.
    pub(super) fn is_over_within(&mut self, time: std::time::Duration) -> bool {
        let over = self
            .serving
            .as_ref()
            .map(|serving| serving.over.recv_timeout(time));
        match over {
            None => true,
            Some(Err(std::sync::mpsc::RecvTimeoutError::Timeout)) => false,
            Some(_) => {
                let serving = self.serving.take();
                // What went wrong was told.
                let _ = serving.map(|serving| serving.thread.join());
                true
            }
        }
    }

    pub(super) fn is_strict(&self) -> bool {
        self.strict
    }

    /// Something was asked for that is not emulated.
    pub fn has_refused(&self) -> bool {
        self.server.notices.has_refused()
    }
}

/// The thread that answers.
#[derive(Debug)]
struct Serving {
    thread: JoinHandle<io::Result<()>>,
    /// Hangs up when it ends.
    over: std::sync::mpsc::Receiver<()>,
}

/// A thread that answers, and where it tells of the first process.
type Begun = (Serving, Option<UnixStream>);

impl Serving {
    fn of_notices(server: &Arc<Server>, listener: Listener, strict: bool) -> io::Result<Begun> {
        let serving = Self::begin(server, move |server| {
            notify::serve(server, &listener, strict)
        })?;
        Ok((serving, None))
    }

    #[cfg(target_arch = "x86_64")]
    fn of_stops(
        server: &Arc<Server>,
        process: i32,
        strict: bool,
        waiting: &OwnedFd,
    ) -> Result<Begun, Error> {
        use std::io::Write as _;
        let (events, mut told) = UnixStream::pair()?;
        let waiting = waiting.try_clone()?;
        let (seized, seizing) = std::sync::mpsc::channel();
        let serving = Self::begin(server, move |server| {
            // Only the thread that traces can begin to.
            let result = super::ptrace::seize(process);
            let failed = result.is_err();
            let _ = seized.send(result);
            if failed {
                return Ok(());
            }
            rustix::io::write(&waiting, &[0])?;
            drop(waiting);
            super::ptrace::serve(server, process, strict, &mut |status| {
                // If nobody wants to know, nothing is lost.
                let _ = told.write_all(&status.to_ne_bytes());
            })
        })?;
        match seizing.recv() {
            Ok(Ok(())) => Ok((serving, Some(events))),
            Ok(Err(error)) => {
                let _ = serving.thread.join();
                Err(Error::Traced(error))
            }
            Err(_) => Err(io::Error::from(io::ErrorKind::Other).into()),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn of_stops(_: &Arc<Server>, _: i32, _: bool, _: &OwnedFd) -> Result<Begun, Error> {
        let why = "the ptrace backend is for x86-64 only";
        Err(io::Error::new(io::ErrorKind::Unsupported, why).into())
    }

    fn begin(
        server: &Arc<Server>,
        serve: impl FnOnce(&Server) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let server = Arc::clone(server);
        let thread = thread::Builder::new().name("mapemu-run".to_owned());
        let (ends, over) = std::sync::mpsc::channel();
        let thread = thread.spawn(move || {
            let ended = serve(&server);
            if let Err(error) = &ended {
                server
                    .notices
                    .tell(format_args!("calls are not answered any more: {error}"));
            }
            drop(server);
            drop(ends);
            ended
        })?;
        Ok(Self { thread, over })
    }
}
