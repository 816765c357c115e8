//! Whose fds a call means: the kernel's own table, or those of a process that calls through a front end.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::MappedRwLockReadGuard;

use super::files::{File, Held, MapUser};
use crate::abi::{Errno, Fd, MapType, PollEvents, Result, UserMem, perf_ioc};
use crate::map::object::Object;
use crate::map::perf_event::Event;
use crate::map::ringbuf_user::{self, ringbuf};

/// The fds of who calls bpf(2): see [`Kernel::bpf_in`](super::Kernel::bpf_in).
///
/// A front end that gives real numbers out (of files without a name, say) keeps the [`OpenFile`] behind each. What else the
/// caller has open it declares: [`Kernel::declare`](super::Kernel::declare). Closing is its own business: a file is closed when
/// its last clone is dropped.
pub trait Fds: fmt::Debug + Sync {
    /// The open file behind an fd, one opened with `O_PATH` too.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open.
    fn get(&self, fd: Fd) -> Result<OpenFile>;

    /// A new fd for an open file, closed on exec.
    ///
    /// # Errors
    ///
    /// `EMFILE` if none is free.
    fn install(&self, file: OpenFile) -> Result<Fd>;

    /// What a path means that the caller gave: it starts at the directory behind `dir`, or at the caller's own.
    ///
    /// # Errors
    ///
    /// Those of path lookup. Without an implementation: `EBADF`, or `ENOTDIR` for any `dir`.
    fn path(&self, dir: Option<Fd>, path: String) -> Result<String> {
        match dir {
            Some(dir) if !path.starts_with('/') => {
                Err(self.get(dir).err().unwrap_or(Errno::ENOTDIR))
            }
            _ => Ok(path),
        }
    }
}

/// An open file for the time of a call: the kernel's own are not counted meanwhile, as they cannot be closed.
#[derive(Debug)]
pub(super) enum Lent<'a> {
    Own(MappedRwLockReadGuard<'a, Arc<File>>),
    Caller(OpenFile),
}

impl Lent<'_> {
    #[inline(always)]
    pub(super) fn file(&self) -> &Arc<File> {
        match self {
            Self::Own(file) => file,
            Self::Caller(OpenFile(file)) => file,
        }
    }
}

/// An open file of an emulated kernel. Clones are the same file, as with dup(2).
#[derive(Clone, Debug)]
pub struct OpenFile(pub(super) Arc<File>);

/// What an [`OpenFile`] is a file of, and the id of that: two files of one object are of the same kind and id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum FileKind {
    /// A map.
    Map(u32),
    /// A program.
    Prog(u32),
    /// A link.
    Link(u32),
    /// BTF.
    Btf(u32),
    /// A cgroup.
    Cgroup(u64),
    /// What a front end declared.
    Other(u64),
}

impl OpenFile {
    /// What it is a file of.
    pub fn kind(&self) -> FileKind {
        match &self.0.held {
            Held::Map(MapUser(map)) => FileKind::Map(map.id),
            Held::Link(link) => FileKind::Link(link.id),
            Held::Object(Object::Map(map)) => FileKind::Map(map.id),
            Held::Object(Object::Prog(prog)) => FileKind::Prog(prog.id),
            Held::Object(Object::Btf(btf)) => FileKind::Btf(btf.id),
            Held::Object(Object::Cgroup(cgroup)) => FileKind::Cgroup(cgroup.id),
            Held::Object(Object::Other(object)) => FileKind::Other(object.id),
        }
    }

    /// Unique in one kernel; clones have the same.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The type of the map that it is a file of.
    pub fn map_type(&self) -> Option<MapType> {
        Some(self.0.map().ok()?.def.map_type)
    }

    /// May read.
    pub fn can_read(&self) -> bool {
        self.0.read
    }

    /// May write.
    pub fn can_write(&self) -> bool {
        self.0.write
    }

    /// The object behind it.
    pub fn object(&self) -> Object {
        self.0.held.object()
    }

    /// The file without a name that a mappable map's memory lies in, sealed at its size: what is mapped of it is that memory.
    ///
    /// The data of a ring buffer is in there once (see [`Granted::pieces`](super::Granted::pieces)), or twice
    /// ([`Builder::doubled_rings`](super::Builder::doubled_rings)). No check is made.
    #[cfg(all(target_os = "linux", not(shuttle)))]
    pub fn memory(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.0.map().ok()?.ops.mappable()?.file()
    }

    fn perf_event(&self) -> Option<&Event> {
        match &self.0.held {
            Held::Object(Object::Other(object)) => object.perf_event(),
            Held::Map(_) | Held::Link(_) | Held::Object(_) => None,
        }
    }

    /// ioctl(2): the requests of perf events ([`perf_ioc`]).
    ///
    /// # Errors
    ///
    /// `ENOTTY` if it is no perf event, and for other requests; `EOPNOTSUPP` for `PERF_EVENT_IOC_SET_BPF`, as programs do not run;
    /// `EINVAL`, `EFAULT`.
    ///
    /// Kernel: `kernel/events/core.c:_perf_ioctl`.
    pub fn ioctl(&self, request: u32, argument: u64, mem: &mut dyn UserMem) -> Result<()> {
        let event = self.perf_event().ok_or(Errno::ENOTTY)?;
        match request {
            perf_ioc::ENABLE => event.enable(true),
            perf_ioc::DISABLE => event.enable(false),
            perf_ioc::RESET => {}
            perf_ioc::PAUSE_OUTPUT => event.pause(argument != 0)?,
            perf_ioc::ID => mem.write(argument, &event.id.to_ne_bytes())?,
            perf_ioc::SET_BPF => return Err(Errno::EOPNOTSUPP),
            _ => return Err(Errno::ENOTTY),
        }
        Ok(())
    }

    /// poll(2): the bits of its state that are set. Those of a perf event are then not set any more.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is neither a map nor a perf event.
    pub fn poll(&self) -> Result<u32> {
        if let Some(event) = self.perf_event() {
            return Ok(event.poll());
        }
        Ok(self.0.map()?.ops.poll())
    }

    /// poll(2): waits until any bit of its state is set, or the time is over (never, without one), which is none.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is something else than a map or a perf event.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<PollEvents> {
        if let Some(event) = self.perf_event() {
            return Ok(event.wait(timeout));
        }
        Ok(ringbuf_user::poll(self.0.map()?, timeout))
    }

    /// Has `hook` called, as long as it is kept, whenever those who wait for a ring buffer or a perf event are woken; on the
    /// thread that wakes.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is neither: nothing else wakes anybody.
    pub fn on_wake(&self, hook: &Arc<dyn Fn() + Send + Sync>) -> Result<()> {
        if let Some(event) = self.perf_event() {
            event.on_wake(hook);
            return Ok(());
        }
        let ring = ringbuf(self.0.map()?).ok_or(Errno::EINVAL)?;
        ring.on_wake(hook);
        Ok(())
    }
}
