//! What `/proc` tells of the program's tasks: what their fds are, where they are.

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use libc::pid_t;
use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, makedev, open, statx};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::placeholder::Inode;
use crate::abi::{Errno, Fd, Result};

/// Directories of fds that are kept open.
const MOST_KEPT: usize = 64;

/// The directories `/proc/TASK/fd` that are asked most.
#[derive(Debug, Default)]
pub(super) struct Tasks(Mutex<HashMap<pid_t, OwnedFd>>);

/// A file that a task has open.
#[derive(Clone, Copy, Debug)]
pub(super) struct TaskFile {
    pub(super) inode: Inode,
    pub(super) mode: u32,
}

impl Tasks {
    /// The file behind an fd of a task.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open; `EACCES` if the task hides it.
    pub(super) fn file(&self, task: pid_t, fd: Fd) -> Result<TaskFile> {
        self.stat(task, fd, AtFlags::empty())
    }

    /// Whether the file behind an fd may be read, and written.
    pub(super) fn access(&self, task: pid_t, fd: Fd) -> (bool, bool) {
        let link = self.stat(task, fd, AtFlags::SYMLINK_NOFOLLOW);
        let mode = link.map_or(0, |link| link.mode);
        (mode & 0o400 != 0, mode & 0o200 != 0)
    }

    fn stat(&self, task: pid_t, fd: Fd, flags: AtFlags) -> Result<TaskFile> {
        if fd.cast_signed() < 0 {
            return Err(Errno::EBADF);
        }
        let mut kept = self.0.lock();
        let mut name = [0; 16];
        let name = decimal(fd, &mut name);
        if let Some(dir) = kept.get(&task)
            && let Ok(stat) = file_at(dir, name, flags)
        {
            return Ok(stat);
        }
        // Not open, or the number of the task is another's by now.
        if kept.len() >= MOST_KEPT {
            kept.clear();
        }
        let path = format!("/proc/{task}/fd");
        let dir = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let dir = dir.map_err(|_| Errno::EBADF)?;
        let stat = file_at(&dir, name, flags);
        kept.insert(task, dir);
        stat.map_err(|error| match error {
            rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => Errno::EACCES,
            _ => Errno::EBADF,
        })
    }
}

/// Which file that is. Its file system is not asked: the program may be what serves it.
fn file_at(
    dir: impl AsFd,
    name: impl rustix::path::Arg,
    flags: AtFlags,
) -> rustix::io::Result<TaskFile> {
    let flags = flags | AtFlags::STATX_DONT_SYNC;
    let found = statx(
        dir,
        name,
        flags,
        StatxFlags::TYPE | StatxFlags::MODE | StatxFlags::INO,
    )?;
    Ok(TaskFile {
        inode: (
            makedev(found.stx_dev_major, found.stx_dev_minor),
            found.stx_ino,
        ),
        mode: found.stx_mode.into(),
    })
}

/// The file that a link in `/proc` leads to.
pub(super) fn linked(path: &Path) -> Option<TaskFile> {
    file_at(CWD, path, AtFlags::empty()).ok()
}

/// The type of the file system that an open file is on.
pub(super) fn file_system(task: pid_t, fd: Fd) -> Option<String> {
    let info = fs::read_to_string(format!("/proc/{task}/fdinfo/{fd}")).ok()?;
    let mount = info
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:"))?
        .trim();
    let mounts = fs::read_to_string(format!("/proc/{task}/mountinfo")).ok()?;
    let line = mounts
        .lines()
        .find(|line| line.split(' ').next() == Some(mount))?;
    let (_, behind) = line.split_once(" - ")?;
    behind.split(' ').next().map(str::to_owned)
}

/// A number as text, in that room.
fn decimal(number: u32, room: &mut [u8; 16]) -> &str {
    use std::io::Write as _;
    let mut rest = room.as_mut_slice();
    // A u32 has 10 digits at most.
    let _ = write!(rest, "{number}");
    let left = rest.len();
    std::str::from_utf8(&room[..16 - left]).unwrap_or("")
}

/// What a link in a task's directory in `/proc` leads to.
pub(super) fn link(task: pid_t, name: &str) -> Result<PathBuf> {
    let link = fs::read_link(format!("/proc/{task}/{name}"));
    link.map_err(|_| Errno::ENOENT)
}

/// A path that a task means, from the root on.
///
/// # Errors
///
/// `EBADF`, `ENOENT`: there is nothing to begin at.
pub(super) fn absolute(task: pid_t, dir: Option<Fd>, path: &Path) -> Result<PathBuf> {
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    let start = match dir {
        None => link(task, "cwd")?,
        Some(dir) => link(task, &format!("fd/{dir}")).map_err(|_| Errno::EBADF)?,
    };
    Ok(start.join(path))
}

/// What `/proc` tells of a task under these names, each with its colon; nothing of those that are not there.
pub(super) fn status<const N: usize>(task: pid_t, names: [&str; N]) -> [Option<String>; N] {
    let status = fs::read_to_string(format!("/proc/{task}/status")).unwrap_or_default();
    names.map(|name| {
        let told = status.lines().find_map(|line| line.strip_prefix(name));
        told.map(|told| told.trim().to_owned())
    })
}

/// The process that a task belongs to.
pub(super) fn process_of(task: pid_t) -> Option<pid_t> {
    let [process] = status(task, ["Tgid:"]);
    process?.parse().ok()
}

/// A file of a task, by an fd of ours.
pub(super) fn taken(task: pid_t, fd: Fd) -> rustix::io::Result<OwnedFd> {
    let process = process_of(task).and_then(Pid::from_raw);
    let pidfd = pidfd_open(process.ok_or(rustix::io::Errno::BADF)?, PidfdFlags::empty())?;
    pidfd_getfd(&pidfd, fd.cast_signed(), PidfdGetfdFlags::empty())
}

/// What a task takes off the modes of new files.
pub(super) fn umask(task: pid_t) -> u32 {
    let [mask] = status(task, ["Umask:"]);
    mask.and_then(|mask| u32::from_str_radix(&mask, 8).ok())
        .unwrap_or(0)
}

/// How many fds a task has room for.
pub(super) fn fd_room(task: pid_t) -> usize {
    let [size] = status(task, ["FDSize:"]);
    size.and_then(|size| size.parse().ok()).unwrap_or(0)
}

/// All processes that can be looked at.
pub(super) fn processes() -> Vec<pid_t> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.parse().ok()).collect()
}

/// Whether any process has a shared mapping of a file; one that can be written, if that is asked.
pub(super) fn is_mapped(inode: Inode, writable: bool) -> bool {
    let own = std::process::id().cast_signed();
    let others = processes().into_iter().filter(|&process| process != own);
    others.into_iter().any(|process| {
        let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default();
        maps.lines().any(|line| {
            let mut fields = line.split_ascii_whitespace().skip(1);
            let prot = fields.next().unwrap_or_default().as_bytes();
            let found = fields.nth(2).and_then(|inode| inode.parse().ok());
            let of_memfd = line.contains("/memfd:");
            let fits = prot.get(3) == Some(&b's') && (!writable || prot.get(1) == Some(&b'w'));
            of_memfd && found == Some(inode.1) && fits
        })
    })
}

/// Whether any process has a file open.
pub(super) fn is_open(inode: Inode) -> bool {
    let own = std::process::id().cast_signed();
    let others = processes().into_iter().filter(|&process| process != own);
    others.into_iter().any(|process| {
        let Ok(fds) = fs::read_dir(format!("/proc/{process}/fd")) else {
            return false;
        };
        let mut files = fds.filter_map(|fd| linked(&fd.ok()?.path()));
        files.any(|file| file.inode == inode)
    })
}
