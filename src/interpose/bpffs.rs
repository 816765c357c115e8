//! A directory in which objects can be pinned: of the system's files, with the emulated bpffs behind it.
//!
//! A pin is an empty file there, so that it is listed, looked at and removed as any other. One whose file is gone is taken out
//! of the emulated bpffs before anybody can tell: at the next command that a pin matters to.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::Kernel;
use crate::abi::Result;

/// Where the emulated bpffs is.
const ROOT: &str = "/sys/fs/bpf";

/// See the module.
#[derive(Debug)]
pub(super) struct Bpffs {
    dir: PathBuf,
    /// The pins: their files, and their paths in the emulated bpffs.
    pins: Mutex<Vec<(PathBuf, String)>>,
}

impl Bpffs {
    /// In a new directory.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            dir: new_dir(&std::env::temp_dir())?,
            pins: Mutex::default(),
        })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path in the emulated bpffs, if it lies in the directory.
    pub(super) fn inside(&self, path: &Path) -> Option<String> {
        let below = path.strip_prefix(&self.dir).ok()?;
        Some(format!("{ROOT}/{}", below.to_str()?))
    }

    /// The emulated bpffs has the directories, and has no pins but those whose files are there.
    pub(super) fn follow(&self, kernel: &Kernel) {
        let mut pins = self.pins.lock();
        let all = std::mem::take(&mut *pins);
        let is_there = |(file, _): &(PathBuf, String)| fs::symlink_metadata(file).is_ok();
        let (there, gone): (Vec<_>, Vec<_>) = all.into_iter().partition(is_there);
        *pins = there;
        drop(pins);
        for (_, path) in gone {
            // It may be gone there too.
            let _ = kernel.unlink(&path);
        }
    }

    /// The directories that lead to a path are in the emulated bpffs, too.
    pub(super) fn make_parents(&self, kernel: &Kernel, path: &Path) {
        let below = path.ancestors().skip(1).take_while(|dir| *dir != self.dir);
        let mut below: Vec<&Path> = below.filter(|dir| dir.is_dir()).collect();
        below.reverse();
        for dir in below {
            if let Some(dir) = self.inside(dir) {
                // Most of them are there already.
                let _ = kernel.mkdir(&dir);
            }
        }
    }

    /// The file of a new pin.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub(super) fn pinned(&self, kernel: &Kernel, file: &Path, path: String) -> Result<()> {
        let made = OpenOptions::new().write(true).create_new(true).open(file);
        if let Err(error) = made {
            let _ = kernel.unlink(&path);
            return Err(super::raw::errno_of(error));
        }
        self.pins.lock().push((file.to_owned(), path));
        Ok(())
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        // Nobody is there to be told.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A new directory in another.
///
/// # Errors
///
/// Those of the system.
pub(super) fn new_dir(parent: &Path) -> io::Result<PathBuf> {
    let process = std::process::id();
    let mut number = 0_u32;
    loop {
        let dir = parent.join(format!("mapemu-{process}-{number}"));
        match fs::create_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
            Ok(()) => return fs::canonicalize(&dir),
        }
    }
}
