//! A directory in which objects can be pinned: of the system's files, with the emulated bpffs behind it.
//!
//! A pin is an empty file there, so that it is listed, looked at, moved and removed as any other. One whose file is elsewhere or gone
//! follows it in the emulated bpffs before anybody can tell: at the next command that a pin matters to.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
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
    pins: Mutex<Vec<Pin>>,
}

#[derive(Debug)]
struct Pin {
    /// Its file, where it was last.
    file: PathBuf,
    inode: u64,
    /// Its path in the emulated bpffs.
    path: String,
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

    /// The emulated bpffs has no pins but those whose files are there, where they are.
    pub(super) fn follow(&self, kernel: &Kernel) {
        let mut pins = self.pins.lock();
        let is_there = |pin: &Pin| inode(&pin.file).is_ok_and(|inode| inode == pin.inode);
        if pins.iter().all(is_there) {
            return;
        }
        let mut found = HashMap::new();
        find(&self.dir, &mut found);
        let gone: Vec<_> = pins
            .extract_if(.., |pin| !found.contains_key(&pin.inode))
            .collect();
        // First those, as others may be in their places.
        for pin in gone {
            // It may be gone there too.
            let _ = kernel.unlink(&pin.path);
        }
        for pin in pins.iter_mut().filter(|pin| !is_there(pin)) {
            if let Some(file) = found.remove(&pin.inode) {
                self.moved(kernel, pin, file);
            }
        }
    }

    /// The file of a pin is there now.
    fn moved(&self, kernel: &Kernel, pin: &mut Pin, file: PathBuf) {
        self.make_parents(kernel, &file);
        if let Some(path) = self.inside(&file)
            && kernel.rename(&pin.path, &path).is_ok()
        {
            (pin.file, pin.path) = (file, path);
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
        match made.and_then(|_| inode(file)) {
            Ok(inode) => {
                let file = file.to_owned();
                self.pins.lock().push(Pin { file, inode, path });
                Ok(())
            }
            Err(error) => {
                let _ = kernel.unlink(&path);
                Err(super::raw::errno_of(error))
            }
        }
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        // Nobody is there to be told.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn inode(file: &Path) -> io::Result<u64> {
    Ok(fs::symlink_metadata(file)?.ino())
}

/// The files below a directory, by their inodes. What cannot be read is not there.
fn find(dir: &Path, found: &mut HashMap<u64, PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find(&path, found);
        } else if let Ok(inode) = inode(&path) {
            found.insert(inode, path);
        }
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
