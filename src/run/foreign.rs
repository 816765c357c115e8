//! What the program has open besides emulated files, as maps see it: files, processes, cgroups, and [`sockets`](super::sockets).

use std::collections::HashMap;
use std::fs;
use std::os::fd::OwnedFd;

use parking_lot::Mutex;
use rustix::fs::FileType;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::placeholder::Inode;
use super::port::Port;
use super::server::Server;
use super::task::{self, TaskFile};
use crate::abi::Fd;
use crate::map::object::OtherKind;
use crate::sys::OpenFile;

/// Objects that were met, so that the same is the same again.
#[derive(Debug, Default)]
pub(super) struct Foreign(Mutex<HashMap<What, OpenFile>>);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum What {
    File(Inode),
    Path,
    /// The number is -1 after it has ended.
    Process(Inode, i32),
}

impl Foreign {
    /// The object behind an fd that is open.
    pub(super) fn file(
        &self,
        server: &Server,
        port: &dyn Port,
        fd: Fd,
        file: TaskFile,
    ) -> OpenFile {
        let task = port.task();
        let access = server.tasks.access(task, fd);
        let file_type = FileType::from_raw_mode(file.mode);
        if file_type == FileType::Socket {
            let taken = taken(task, fd);
            return server.sockets.file(server, file.inode.1, taken.as_ref());
        }
        let (what, kind) = if access == (false, false) {
            (What::Path, OtherKind::File)
        } else if file_type == FileType::Directory {
            let path = task::link(task, &format!("fd/{fd}")).unwrap_or_default();
            let cgroups = &server.cgroups;
            if cgroups.has(&path) || task::file_system(task, fd).as_deref() == Some("cgroup2") {
                return cgroups.file(&server.kernel, file.inode, &path);
            }
            (What::File(file.inode), OtherKind::File)
        } else if let Some(process) = process_behind(task, fd) {
            (What::Process(file.inode, process), OtherKind::Pidfd)
        } else if is_netns(task, fd) {
            (What::File(file.inode), OtherKind::Netns)
        } else {
            (What::File(file.inode), OtherKind::File)
        };
        let mut known = self.0.lock();
        let new = || match what {
            What::Path => server.kernel.declare_path(),
            What::File(_) | What::Process(..) => server.kernel.declare(kind),
        };
        let file = known.entry(what).or_insert_with(new);
        if matches!(what, What::Process(_, -1)) {
            server.kernel.end(file);
        }
        file.clone()
    }
}

fn is_netns(task: i32, fd: Fd) -> bool {
    let link = task::link(task, &format!("fd/{fd}"));
    link.is_ok_and(|link| link.as_os_str().as_encoded_bytes().starts_with(b"net:["))
}

/// The process that a pidfd means.
fn process_behind(task: i32, fd: Fd) -> Option<i32> {
    let link = task::link(task, &format!("fd/{fd}")).ok()?;
    if !link.to_str()?.starts_with("anon_inode:[pidfd]") {
        return None;
    }
    let info = fs::read_to_string(format!("/proc/{task}/fdinfo/{fd}")).ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    line.trim().parse().ok()
}

/// A file of a task, by an fd of ours.
fn taken(task: i32, fd: Fd) -> Option<OwnedFd> {
    let process = task::process_of(task)?;
    let pidfd = pidfd_open(Pid::from_raw(process)?, PidfdFlags::empty()).ok()?;
    pidfd_getfd(&pidfd, fd.cast_signed(), PidfdGetfdFlags::empty()).ok()
}
