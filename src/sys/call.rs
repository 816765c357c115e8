//! One call of bpf(2) on its way: the kernel, the CPU, and whose fds it means.

use std::sync::Arc;

use super::fds::{Fds, Lent, OpenFile};
use super::files::{File, Held};
use super::{Inner, Kernel};
use crate::abi::{Errno, Fd, MapFlags, ProgType, Result};
use crate::map::Map;
use crate::map::object::{Cgroup, Object, Prog};

/// See the module. The commands are its methods.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    pub(super) inner: &'a Inner,
    pub(super) cpu: u32,
    pub(super) fds: &'a dyn Fds,
}

impl Kernel {
    /// A call with the fds of the kernel's own table.
    pub(super) fn own(&self) -> Call<'_> {
        self.call(&self.inner.files)
    }

    /// A call with those fds.
    pub(super) fn call<'a>(&'a self, fds: &'a dyn Fds) -> Call<'a> {
        Call {
            inner: &self.inner,
            cpu: self.cpu,
            fds,
        }
    }
}

impl Call<'_> {
    /// The file behind an fd, one opened with `O_PATH` too.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open.
    pub(super) fn any(&self, fd: Fd) -> Result<Arc<File>> {
        // By the same copy of the table that a call has lent a file of.
        Ok(Arc::clone(self.lend(fd)?.file()))
    }

    /// Always inlined: what is lent then needs no place in memory.
    #[inline(always)]
    fn lend(&self, fd: Fd) -> Result<Lent<'_>> {
        let own = &self.inner.files;
        if std::ptr::addr_eq(self.fds, own) {
            own.lend(fd, self.cpu).map(Lent::Own)
        } else {
            self.fds.get(fd).map(Lent::Caller)
        }
    }

    /// The file behind an fd, for the time of an element command, which opens and closes nothing. Nobody else does either,
    /// meanwhile; where a command may wait for a lock in a value, that is for the caller's threads to end, the file is not lent.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open; one opened with `O_PATH` counts as not open.
    #[inline(always)]
    pub(super) fn lent(&self, fd: Fd) -> Result<Lent<'_>> {
        let lent = self.lend(fd)?;
        let file = lent.file();
        if file.path_only {
            return Err(Errno::EBADF);
        }
        if file.map().is_ok_and(|map| !map.fields.is_empty()) {
            return Ok(Lent::Caller(OpenFile(Arc::clone(file))));
        }
        Ok(lent)
    }

    /// The file behind an fd.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open; one opened with `O_PATH` counts as not open.
    #[inline]
    pub(super) fn file(&self, fd: Fd) -> Result<Arc<File>> {
        let file = self.any(fd)?;
        if file.path_only {
            return Err(Errno::EBADF);
        }
        Ok(file)
    }

    /// A new fd that can read and write.
    pub(super) fn open(&self, held: Held) -> Result<Fd> {
        self.open_with(held, MapFlags::empty())
    }

    /// A new fd, with the access that flags leave.
    pub(super) fn open_with(&self, held: Held, flags: MapFlags) -> Result<Fd> {
        let read = !flags.contains(MapFlags::WRONLY);
        let write = !flags.contains(MapFlags::RDONLY);
        let file = self.inner.file(held, read, write, false);
        self.fds.install(OpenFile(file))
    }

    /// The object behind an fd.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open.
    pub(super) fn object(&self, fd: Fd) -> Result<Object> {
        Ok(self.file(fd)?.held.object())
    }

    /// The map behind an fd.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open, `EINVAL` if it is something else.
    pub(super) fn map(&self, fd: Fd) -> Result<Arc<Map>> {
        self.file(fd)?.map().map(Arc::clone)
    }

    /// The program behind an fd.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open, `EINVAL` if it is something else.
    pub(super) fn prog(&self, fd: Fd) -> Result<Arc<Prog>> {
        match self.object(fd)? {
            Object::Prog(prog) => Ok(prog),
            Object::Map(_) | Object::Btf(_) | Object::Cgroup(_) | Object::Other(_) => {
                Err(Errno::EINVAL)
            }
        }
    }

    /// The program behind an fd, of that type.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open, `EINVAL` if it is something else.
    pub(super) fn prog_of_type(&self, fd: Fd, prog_type: ProgType) -> Result<Arc<Prog>> {
        let prog = self.prog(fd)?;
        if prog.prog_type == prog_type {
            Ok(prog)
        } else {
            Err(Errno::EINVAL)
        }
    }

    /// The cgroup behind an fd, removed or not.
    ///
    /// # Errors
    ///
    /// `EBADF` for anything else.
    pub(super) fn cgroup(&self, fd: Fd) -> Result<Arc<Cgroup>> {
        match self.object(fd)? {
            Object::Cgroup(cgroup) => Ok(cgroup),
            Object::Map(_) | Object::Btf(_) | Object::Prog(_) | Object::Other(_) => {
                Err(Errno::EBADF)
            }
        }
    }

    /// The cgroup behind an fd.
    ///
    /// # Errors
    ///
    /// `EBADF` for anything else; `ENOENT` if it was removed.
    pub(super) fn live_cgroup(&self, fd: Fd) -> Result<Arc<Cgroup>> {
        let cgroup = self.cgroup(fd)?;
        if self.inner.cgroups.lock().is_alive(cgroup.id) {
            Ok(cgroup)
        } else {
            Err(Errno::ENOENT)
        }
    }
}
