//! The directory in which the program pins: one of the system's, with the emulated bpffs behind it.
//!
//! A pin is an empty file there, so that it is listed, renamed and removed as any other. It is known by its inode; what it
//! pins is in the kernel's own bpffs, under a number. One whose file is gone is taken out there before anybody can tell.
//!
//! Paths below `/sys/fs/bpf` mean that directory: calls with such a path are made here, on the program's behalf.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use parking_lot::Mutex;

use super::mapping::errno_of;
use super::placeholder::Inode;
use crate::Kernel;
use crate::abi::{Errno, Result};

/// Where the emulated bpffs is.
pub(super) const ROOT: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC`
pub(super) const MAGIC: i64 = 0xcafe_4a11;

/// See the module.
#[derive(Debug)]
pub(super) struct Bpffs {
    dir: PathBuf,
    /// It is removed in the end.
    temporary: bool,
    pins: Mutex<Pins>,
}

#[derive(Debug, Default)]
struct Pins {
    last: u64,
    pins: Vec<Pin>,
}

#[derive(Debug)]
struct Pin {
    /// Open, so that nothing else gets its inode.
    file: File,
    inode: Inode,
    /// In the kernel's bpffs.
    path: String,
}

impl Bpffs {
    /// In that directory, or a new one.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub(super) fn new(dir: Option<&Path>) -> io::Result<Self> {
        let (path, temporary) = match dir {
            Some(dir) => (fs::canonicalize(dir)?, false),
            None => (new_root()?, true),
        };
        if !fs::metadata(&path)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self {
            dir: path,
            temporary,
            pins: Mutex::default(),
        })
    }

    /// Where a path below [`ROOT`] leads; `None` for all others.
    pub(super) fn real_path(&self, path: &Path) -> Option<PathBuf> {
        let mut below = PathBuf::new();
        for part in path.strip_prefix(ROOT).ok()?.components() {
            match part {
                Component::Normal(name) => below.push(name),
                // The directory above the root is none of ours.
                Component::ParentDir if !below.pop() => return None,
                Component::ParentDir
                | Component::CurDir
                | Component::RootDir
                | Component::Prefix(_) => {}
            }
        }
        if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
            // What it names has to be a directory.
            below.push("");
        }
        Some(self.dir.join(below))
    }

    /// The path that the program knows of something below the directory.
    pub(super) fn shown(&self, path: &Path) -> Option<PathBuf> {
        let below = path.strip_prefix(&self.dir).ok()?;
        Some(
            Path::new(ROOT)
                .components()
                .chain(below.components())
                .collect(),
        )
    }

    /// A path means the directory, or something below it.
    pub(super) fn has(&self, path: &Path) -> bool {
        path.starts_with(&self.dir)
    }

    /// The path in the kernel's bpffs of what is pinned at a path.
    ///
    /// # Errors
    ///
    /// Those of path lookup; `EACCES` if it is no pin.
    pub(super) fn pinned(&self, path: &Path) -> Result<String> {
        let found = fs::metadata(path).map_err(|error| self.not_found(path, errno_of(error)))?;
        let inode = (found.dev(), found.ino());
        let pins = self.pins.lock();
        let pin = pins.pins.iter().find(|pin| pin.inode == inode);
        Ok(pin.ok_or(Errno::EACCES)?.path.clone())
    }

    /// The errno of a lookup: in the bpffs a name with a dot that is missing is `EPERM`.
    pub(super) fn not_found(&self, path: &Path, errno: Errno) -> Errno {
        let below = path.ancestors().take_while(|path| self.has(path));
        let missing = below.take_while(|path| fs::symlink_metadata(path).is_err());
        let is_refused = |missing: &Path| {
            let name = missing.file_name().unwrap_or_default();
            name.as_encoded_bytes().contains(&b'.') && missing.parent().is_some_and(Path::is_dir)
        };
        match errno {
            Errno::ENOENT if missing.last().is_some_and(is_refused) => Errno::EPERM,
            errno => errno,
        }
    }

    /// A file for a new pin; where it is to be pinned in the kernel's bpffs.
    ///
    /// # Errors
    ///
    /// Those of path lookup; `EEXIST`; `EPERM` for a name with a dot.
    pub(super) fn add(&self, path: &Path) -> Result<String> {
        let name = path.file_name().unwrap_or_default();
        let parent = path.parent().unwrap_or(path);
        let found =
            fs::metadata(parent).map_err(|error| self.not_found(parent, errno_of(error)))?;
        if !found.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        let bare: PathBuf = path.components().collect();
        if fs::symlink_metadata(bare).is_ok() {
            return Err(Errno::EEXIST);
        }
        if name.as_encoded_bytes().contains(&b'.') {
            return Err(Errno::EPERM);
        }
        if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
            return Err(Errno::ENOENT);
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(path).map_err(errno_of)?;
        let made = file.metadata().map_err(errno_of)?;
        let mut pins = self.pins.lock();
        pins.last += 1;
        let path = format!("{ROOT}/{}", pins.last);
        pins.pins.push(Pin {
            file,
            inode: (made.dev(), made.ino()),
            path: path.clone(),
        });
        Ok(path)
    }

    /// Nothing was pinned there after all.
    pub(super) fn undo(&self, path: &Path) {
        // It was made a moment ago; if it is gone, so much the better.
        let _ = fs::remove_file(path);
        let mut pins = self.pins.lock();
        pins.pins.pop();
    }

    /// The kernel's bpffs has no pins but those whose files are there. Those that went: their paths in it.
    pub(super) fn follow(&self, kernel: &Kernel) -> Vec<String> {
        let mut pins = self.pins.lock();
        let is_gone = |pin: &mut Pin| pin.file.metadata().is_ok_and(|file| file.nlink() == 0);
        let gone: Vec<Pin> = pins.pins.extract_if(.., is_gone).collect();
        drop(pins);
        for pin in &gone {
            // It cannot be missing: nobody else removes it.
            let _ = kernel.unlink(&pin.path);
        }
        gone.into_iter().map(|pin| pin.path).collect()
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        if self.temporary {
            // Nobody is there to be told.
            let _ = self.dir.parent().map(fs::remove_dir_all);
            return;
        }
        // Files that pin nothing any more would be taken for pins.
        for pin in &self.pins.get_mut().pins {
            let path = fs::read_link(super::placeholder::own_link(&pin.file));
            let _ = path.and_then(fs::remove_file);
        }
    }
}

/// A root as that of a bpffs, which only its owner can reach.
fn new_root() -> io::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let dir = new_dir()?.join("bpf");
    fs::create_dir(&dir)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o1777))?;
    Ok(dir)
}

/// A new directory that only its owner can enter.
pub(super) fn new_dir() -> io::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    let parent = std::env::temp_dir();
    let process = std::process::id();
    for number in 0..1_000_000 {
        let dir = parent.join(format!("mapemu-run-{process}-{number}"));
        match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(()) => return fs::canonicalize(&dir),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
