//! Cgroups, as far as programs are attached to them: directories of the running kernel's, and where that makes none for an
//! ordinary user, ones of our own.
//!
//! A directory that is refused below `/sys/fs/cgroup` is made elsewhere: calls with its path are made there.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use parking_lot::Mutex;
use rustix::fs::{Access, Mode, access, statfs};

use super::bpffs::new_dir;
use super::mapping::errno_of;
use super::placeholder::Inode;
use crate::Kernel;
use crate::abi::{Errno, Fd, Result};
use crate::map::object::OtherKind;
use crate::sys::OpenFile;

/// `CGROUP2_SUPER_MAGIC`
pub(super) const MAGIC: i64 = 0x6367_7270;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Cgroups {
    /// Where our own are made; only if there are any.
    dir: OnceLock<PathBuf>,
    /// Our own: the path that the program gave, and where it is.
    made: Mutex<Vec<(PathBuf, PathBuf)>>,
    /// Those that the kernel knows, by an fd of its own.
    known: Mutex<HashMap<Inode, Fd>>,
}

impl Cgroups {
    /// Where a path below one of our own leads.
    pub(super) fn real_path(&self, path: &Path) -> Option<PathBuf> {
        let made = self.made.lock();
        made.iter().find_map(|(given, real)| {
            let below = path.strip_prefix(given).ok()?;
            let plain = below
                .components()
                .all(|part| matches!(part, std::path::Component::Normal(_)));
            plain.then(|| real.join(below))
        })
    }

    /// A path means one of our own.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.dir.get().is_some_and(|dir| path.starts_with(dir))
    }

    /// A directory that the running kernel refuses; `None` if it does not, or if it would be no cgroup.
    pub(super) fn make(&self, path: &Path, mode: u32) -> Option<Result<u64>> {
        let parent = path.parent()?;
        if let Some(real) = self.real_path(path) {
            let made = rustix::fs::mkdir(&real, Mode::from(mode));
            return Some(made.map(|()| 0).map_err(errno_of));
        }
        if !is_cgroup(parent) || access(parent, Access::WRITE_OK).is_ok() || path.exists() {
            return None;
        }
        let make = || -> io::Result<u64> {
            if self.dir.get().is_none() {
                let _ = self.dir.set(new_dir()?);
            }
            let dir = self.dir.get().expect("it was set");
            let mut made = self.made.lock();
            let real = dir.join(made.len().to_string());
            fs::create_dir(&real)?;
            made.push((path.to_owned(), real));
            Ok(0)
        };
        Some(make().map_err(errno_of))
    }

    /// One of our own, which is not there any more.
    pub(super) fn removed(&self, kernel: &Kernel, real: &Path, inode: Inode) {
        self.made.lock().retain(|(_, own)| own != real);
        if let Some(fd) = self.known.lock().remove(&inode) {
            // It had no children, or its directory would be there yet.
            let _ = kernel.cgroup_remove(fd);
        }
    }

    /// The cgroup of a directory: its id is the number of the inode.
    pub(super) fn file(&self, kernel: &Kernel, inode: Inode, path: &Path) -> OpenFile {
        let fd = self.fd(kernel, inode, path);
        let file = fd.and_then(|fd| kernel.open_file(fd));
        file.unwrap_or_else(|_| kernel.declare(OtherKind::File))
    }

    fn fd(&self, kernel: &Kernel, inode: Inode, path: &Path) -> Result<Fd> {
        if let Some(fd) = self.known.lock().get(&inode) {
            return Ok(*fd);
        }
        let parent = path.parent().filter(|parent| {
            // The root of the hierarchy is that of the emulated one.
            let above = parent.parent().unwrap_or(parent);
            self.has(above) || is_cgroup(parent) && is_cgroup(above)
        });
        let parent = match parent {
            None => None,
            Some(parent) => {
                use std::os::unix::fs::MetadataExt;
                let found = fs::metadata(parent).map_err(errno_of)?;
                Some(self.fd(kernel, (found.dev(), found.ino()), parent)?)
            }
        };
        let name = path.file_name().ok_or(Errno::EINVAL)?.to_string_lossy();
        let fd = kernel.cgroup_declare(&name, parent, inode.1)?;
        self.known.lock().insert(inode, fd);
        Ok(fd)
    }
}

/// A directory of cgroup v2.
pub(super) fn is_cgroup(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.f_type == MAGIC)
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        if let Some(dir) = self.dir.get() {
            // Nobody is there to be told.
            let _ = fs::remove_dir_all(dir);
        }
    }
}
