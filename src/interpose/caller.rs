//! bpf(2) as the crates of this process call it: which kernel is meant, and what its fds are here.

#![expect(unsafe_code, reason = "the attr's address comes from outside")]

use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::fstat;

use super::memory::ProcessMem;
use super::{Installed, notice, play, process, sockets, table, threads};
use crate::abi::{Cmd, Errno, Fd, Result, UserMem};
use crate::map::object::OtherKind;
use crate::sys::{Fds, OpenFile};

/// Who calls: a kernel, and the file that it was found by.
struct Caller<'a> {
    installed: &'a Arc<Installed>,
    first: Option<(Fd, &'a table::Entry)>,
    /// A path that lies in the directory of pins, and what it is in the emulated bpffs.
    pin: Mutex<Option<(PathBuf, String)>>,
}

impl fmt::Debug for Caller<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a caller of {:?}", self.installed)
    }
}

impl Fds for Caller<'_> {
    #[inline]
    fn get(&self, fd: Fd) -> Result<OpenFile> {
        if let Some((first, entry)) = self.first
            && first == fd
        {
            return Ok(entry.file.clone());
        }
        let number = fd.cast_signed();
        match table::get(number) {
            Some(entry) if Arc::ptr_eq(&entry.installed, self.installed) => Ok(entry.file.clone()),
            Some(_) => {
                notice(format_args!(
                    "fd {fd} is of another kernel than the call is for"
                ));
                Ok(self.installed.kernel.declare(OtherKind::File))
            }
            None => self.foreign(number),
        }
    }

    fn install(&self, file: OpenFile) -> Result<Fd> {
        table::install(self.installed, file)
    }

    fn path(&self, dir: Option<Fd>, path: String) -> Result<String> {
        let dir = dir.filter(|_| !path.starts_with('/'));
        if let Some(dir) = dir {
            self.get(dir)?;
        }
        let file = absolute(dir, Path::new(&path));
        let Some(bpffs) = self.installed.bpffs.get() else {
            return Ok(text(&file));
        };
        let Some(inside) = bpffs.inside(&file) else {
            return Ok(text(&file));
        };
        bpffs.follow(&self.installed.kernel);
        bpffs.make_parents(&self.installed.kernel, &file);
        *self.pin.lock() = Some((file, inside.clone()));
        Ok(inside)
    }
}

impl Caller<'_> {
    /// What is open here and no emulated file.
    fn foreign(&self, fd: RawFd) -> Result<OpenFile> {
        if fd < 0 {
            return Err(Errno::EBADF);
        }
        // SAFETY: if it is not open, fstat(2) says so; it is not kept.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let stat = fstat(fd).map_err(|_| Errno::EBADF)?;
        if let Some(socket) = sockets::get(self.installed, fd, &stat) {
            return Ok(socket);
        }
        // An inode is the same file at each call, a process the same process.
        let (inode, kind) = match pid(fd) {
            Some(pid) => ((u64::MAX, pid), OtherKind::Pidfd),
            None if link(fd).starts_with("net:[") => ((stat.st_dev, stat.st_ino), OtherKind::Netns),
            None => ((stat.st_dev, stat.st_ino), OtherKind::File),
        };
        let mut declared = self.installed.declared.lock();
        let file = declared
            .entry(inode)
            .or_insert_with(|| self.installed.kernel.declare(kind));
        Ok(file.clone())
    }
}

/// The process behind a pidfd; `None` if it is none.
fn pid(fd: BorrowedFd<'_>) -> Option<u64> {
    let number = fd.as_raw_fd();
    if link(fd) != "anon_inode:[pidfd]" {
        return None;
    }
    let told = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).ok()?;
    let pid = told.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    pid.trim().parse().ok()
}

/// What the file is called, or nothing.
fn link(fd: BorrowedFd<'_>) -> String {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    link.map(|link| text(&link)).unwrap_or_default()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A path from the root on; links on the way to its last name are followed.
fn absolute(dir: Option<Fd>, path: &Path) -> PathBuf {
    let from = match dir {
        Some(dir) => std::fs::read_link(format!("/proc/self/fd/{dir}")),
        None => std::env::current_dir(),
    };
    let path = from.unwrap_or_default().join(path);
    let Some((parent, name)) = path.parent().zip(path.file_name()) else {
        return path;
    };
    match std::fs::canonicalize(parent) {
        Ok(parent) => parent.join(name),
        Err(_) => path,
    }
}

/// Where in the attr the fd is that says which kernel is meant.
fn fd_offset(cmd: Cmd) -> Option<u64> {
    match cmd {
        Cmd::MAP_LOOKUP_ELEM
        | Cmd::MAP_UPDATE_ELEM
        | Cmd::MAP_DELETE_ELEM
        | Cmd::MAP_GET_NEXT_KEY
        | Cmd::MAP_LOOKUP_AND_DELETE_ELEM
        | Cmd::MAP_FREEZE
        | Cmd::OBJ_GET_INFO_BY_FD
        | Cmd::PROG_TEST_RUN
        | Cmd::PROG_BIND_MAP
        | Cmd::LINK_CREATE
        | Cmd::LINK_UPDATE
        | Cmd::LINK_DETACH
        | Cmd::ITER_CREATE => Some(0),
        Cmd::PROG_ATTACH | Cmd::PROG_DETACH => Some(4),
        Cmd::OBJ_PIN | Cmd::RAW_TRACEPOINT_OPEN => Some(8),
        Cmd::PROG_STREAM_READ_BY_FD => Some(16),
        Cmd::MAP_LOOKUP_BATCH
        | Cmd::MAP_LOOKUP_AND_DELETE_BATCH
        | Cmd::MAP_UPDATE_BATCH
        | Cmd::MAP_DELETE_BATCH => Some(36),
        _ => None,
    }
}

/// The answer to a call of bpf(2); `None` if it is for the running kernel.
///
/// # Safety
///
/// That of the system call.
#[inline]
pub(super) unsafe fn bpf(cmd: Cmd, attr: u64, size: u32) -> Option<Result<u32>> {
    if !process::may_answer() {
        return None;
    }
    // SAFETY: the caller's promise.
    let mut mem = unsafe { ProcessMem::new() };
    let fd = match fd_offset(cmd) {
        Some(offset) if u64::from(size) >= offset + 4 => {
            let mut fd = [0; 4];
            let read = mem.read(attr.wrapping_add(offset), &mut fd);
            read.ok().map(|()| Fd::from_ne_bytes(fd))
        }
        _ => None,
    };
    let entry = fd.and_then(|fd| Some((fd, table::get(fd.cast_signed())?)));
    let found;
    let caller = match &entry {
        Some((fd, entry)) => Caller {
            installed: &entry.installed,
            first: Some((*fd, &**entry)),
            pin: Mutex::new(None),
        },
        None => {
            found = threads::current()?;
            Caller {
                installed: &found,
                first: None,
                pin: Mutex::new(None),
            }
        }
    };
    Some(answered(|| caller.call(cmd, attr, size, &mut mem)))
}

/// What `f` gives; `EIO` for a panic, which was told by its hook: nothing unwinds into callers that know no unwinding.
pub(super) fn answered<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or(Err(Errno::EIO))
}

impl Caller<'_> {
    #[inline]
    fn call(&self, cmd: Cmd, attr: u64, size: u32, mem: &mut ProcessMem) -> Result<u32> {
        if let Cmd::MAP_GET_NEXT_ID
        | Cmd::MAP_GET_FD_BY_ID
        | Cmd::PROG_GET_NEXT_ID
        | Cmd::PROG_GET_FD_BY_ID
        | Cmd::BTF_GET_NEXT_ID
        | Cmd::BTF_GET_FD_BY_ID
        | Cmd::LINK_GET_NEXT_ID
        | Cmd::LINK_GET_FD_BY_ID = cmd
        {
            table::settle_all();
            if let Some(bpffs) = self.installed.bpffs.get() {
                bpffs.follow(&self.installed.kernel);
            }
        }
        if cmd == Cmd::PROG_TEST_RUN
            && let Some(played) = play::test_run(self.installed, self, (attr, size), mem)
        {
            return played;
        }
        let answer = self.installed.kernel.bpf_in(self, cmd, attr, size, mem)?;
        if cmd == Cmd::OBJ_PIN
            && let Some((file, path)) = self.pin.lock().take()
            && let Some(bpffs) = self.installed.bpffs.get()
        {
            bpffs.pinned(&self.installed.kernel, &file, path)?;
        }
        Ok(answer)
    }
}
