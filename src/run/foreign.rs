//! What the program has open besides emulated files, as maps see it: files, processes, cgroups, and [`sockets`](super::sockets).

use std::collections::HashMap;
use std::fs;

use parking_lot::Mutex;
use rustix::fs::FileType;

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
            let taken = task::taken(task, fd).ok();
            return server.sockets.file(server, file.inode.1, taken.as_ref());
        }
        let path = task::link(task, &format!("fd/{fd}")).unwrap_or_default();
        let name = path.as_os_str().as_encoded_bytes();
        let (what, kind) = if access == (false, false) {
            (What::Path, OtherKind::File)
        } else if file_type == FileType::Directory {
            let cgroups = &server.cgroups;
            if cgroups.has(&path) || task::file_system(task, fd).as_deref() == Some("cgroup2") {
                return cgroups.file(&server.kernel, file.inode, &path);
            }
            (What::File(file.inode), OtherKind::File)
        } else if name.starts_with(b"anon_inode:[pidfd]")
            && let Some(process) = process_behind(task, fd)
        {
            (What::Process(file.inode, process), OtherKind::Pidfd)
        } else if name.starts_with(b"net:[") {
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

/// The process that a pidfd means.
fn process_behind(task: i32, fd: Fd) -> Option<i32> {
    let info = fs::read_to_string(format!("/proc/{task}/fdinfo/{fd}")).ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    line.trim().parse().ok()
}
