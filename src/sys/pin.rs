//! `BPF_OBJ_PIN` and `BPF_OBJ_GET`, and the bpffs that they work in.
//!
//! The bpffs is in memory, at `/sys/fs/bpf`. What lies outside of it is looked at on the real file system, and never
//! changed: nothing can be pinned there.
//!
//! Kernel: `kernel/bpf/inode.c` (v6.18).

use std::collections::BTreeMap;
use std::path::Path;

use super::call::Call;
use super::files::Held;
use super::{Kernel, user_string};
use crate::abi::{Attr, Errno, Fd, MapFlags, ObjAttr, Result, UserMem};
use crate::map::object::Object;

/// Where the bpffs is mounted.
const ROOT: &str = "/sys/fs/bpf";
/// `PATH_MAX`, the NUL included.
const PATH_MAX: usize = 4096;
/// `NAME_MAX`
const NAME_MAX: usize = 255;
/// The caller's own directory.
const AT_FDCWD: Fd = (-100_i32).cast_unsigned();
/// Relative paths start at a directory that is given.
const BPF_F_PATH_FD: u32 = 1 << 14;

/// What a name in the bpffs stands for.
#[derive(Debug)]
enum Node {
    Dir(Dir),
    Pin(Held),
}

type Dir = BTreeMap<String, Node>;

/// The emulated bpffs.
#[derive(Debug, Default)]
pub(super) struct Bpffs(Dir);

/// A path, taken apart.
#[derive(Debug)]
enum Place {
    /// In the bpffs: names below its root.
    Inside(Vec<String>),
    /// Elsewhere.
    Outside(String),
}

impl Place {
    /// Kernel: `fs/namei.c`, as far as it goes without symbolic links.
    fn of(path: &str) -> Result<Self> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        if path.split('/').any(|name| name.len() > NAME_MAX) {
            return Err(Errno::ENAMETOOLONG);
        }
        let below = path.strip_prefix(ROOT);
        let Some(below) = below.filter(|below| below.is_empty() || below.starts_with('/')) else {
            return Ok(Self::Outside(path.to_owned()));
        };
        let names = below.split('/').filter(|name| !matches!(*name, "" | "."));
        Ok(Self::Inside(names.map(str::to_owned).collect()))
    }
}

impl Bpffs {
    /// The directory of those names.
    ///
    /// # Errors
    ///
    /// Those of [`not_found`] if one of them is missing, `ENOTDIR` if it is a pin.
    fn dir(&mut self, names: &[String]) -> Result<&mut Dir> {
        let mut dir = &mut self.0;
        for name in names {
            dir = match dir.get_mut(name) {
                Some(Node::Dir(dir)) => dir,
                Some(Node::Pin(_)) => return Err(Errno::ENOTDIR),
                None => return Err(not_found(name)),
            };
        }
        Ok(dir)
    }

    /// Puts something new at a path.
    ///
    /// # Errors
    ///
    /// Those of [`Bpffs::dir`]; `EEXIST`; `EPERM` for a name with a dot.
    fn add(&mut self, names: &[String], node: Node) -> Result<()> {
        let Some((name, parents)) = names.split_last() else {
            return Err(Errno::EEXIST);
        };
        let dir = self.dir(parents)?;
        if dir.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        if name.contains('.') {
            return Err(Errno::EPERM);
        }
        dir.insert(name.clone(), node);
        Ok(())
    }

    /// What is pinned at a path.
    ///
    /// # Errors
    ///
    /// Those of [`Bpffs::dir`]; `EACCES` for a directory.
    fn get(&mut self, names: &[String]) -> Result<Held> {
        let Some((name, parents)) = names.split_last() else {
            return Err(Errno::EACCES);
        };
        match self.dir(parents)?.get(name) {
            Some(Node::Pin(held)) => Ok(held.clone()),
            Some(Node::Dir(_)) => Err(Errno::EACCES),
            None => Err(not_found(name)),
        }
    }

    /// Takes a pin out.
    ///
    /// # Errors
    ///
    /// Those of [`Bpffs::dir`]; `EISDIR` for a directory.
    fn remove(&mut self, names: &[String]) -> Result<Node> {
        let Some((name, parents)) = names.split_last() else {
            return Err(Errno::EISDIR);
        };
        let dir = self.dir(parents)?;
        match dir.get(name) {
            Some(Node::Pin(_)) => dir.remove(name).ok_or(Errno::ENOENT),
            Some(Node::Dir(_)) => Err(Errno::EISDIR),
            None => Err(not_found(name)),
        }
    }

    /// Removes a directory.
    ///
    /// # Errors
    ///
    /// Those of [`Bpffs::dir`]; `ENOTDIR` for a pin; `ENOTEMPTY`; `EBUSY` for the root.
    fn remove_dir(&mut self, names: &[String]) -> Result<()> {
        let Some((name, parents)) = names.split_last() else {
            return Err(Errno::EBUSY);
        };
        let dir = self.dir(parents)?;
        match dir.get(name) {
            Some(Node::Dir(inside)) if inside.is_empty() => {
                dir.remove(name);
                Ok(())
            }
            Some(Node::Dir(_)) => Err(Errno::ENOTEMPTY),
            Some(Node::Pin(_)) => Err(Errno::ENOTDIR),
            None => Err(not_found(name)),
        }
    }

    /// Moves a pin or a directory; what was there before.
    ///
    /// # Errors
    ///
    /// Those of [`Bpffs::dir`] and of [`not_found`]; `EPERM` for a new name with a dot; `EINVAL` into itself; `EISDIR`, `ENOTDIR` or
    /// `ENOTEMPTY` if what is there cannot be replaced by it; `EXDEV` for the root, whose directory is elsewhere.
    fn rename(&mut self, from: &[String], to: &[String]) -> Result<Option<Node>> {
        let (Some((old, old_parents)), Some((new, new_parents))) =
            (from.split_last(), to.split_last())
        else {
            return Err(Errno::EXDEV);
        };
        let is_inside = |path: &[String], dir: &[String]| path != dir && path.starts_with(dir);
        // Both directories come before what is in them.
        self.dir(old_parents)?;
        self.dir(new_parents)?;
        let moved = self.dir(old_parents)?.get(old);
        let is_dir = matches!(moved.ok_or(not_found(old))?, Node::Dir(_));
        match self.dir(new_parents)?.get(new) {
            None if new.contains('.') => return Err(Errno::EPERM),
            _ if is_inside(to, from) => return Err(Errno::EINVAL),
            _ if is_inside(from, to) => return Err(Errno::ENOTEMPTY),
            Some(_) if from == to => return Ok(None),
            Some(Node::Pin(_)) if is_dir => return Err(Errno::ENOTDIR),
            Some(Node::Dir(_)) if !is_dir => return Err(Errno::EISDIR),
            Some(Node::Dir(inside)) if !inside.is_empty() => return Err(Errno::ENOTEMPTY),
            Some(_) | None => {}
        }
        let moved = self.dir(old_parents)?.remove(old).ok_or(Errno::ENOENT)?;
        Ok(self.dir(new_parents)?.insert(new.clone(), moved))
    }
}

/// The answer to a name that is missing: `EPERM` if there is a dot in it, else `ENOENT`.
///
/// Kernel: `kernel/bpf/inode.c:bpf_lookup`.
fn not_found(name: &str) -> Errno {
    if name.contains('.') {
        Errno::EPERM
    } else {
        Errno::ENOENT
    }
}

/// The answer to something new at a path outside of the bpffs.
fn outside_new(path: &str) -> Errno {
    let path = Path::new(path);
    let parent = path.parent().unwrap_or(path);
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    if path.exists() {
        Errno::EEXIST
    } else if parent.is_dir() {
        Errno::EPERM
    } else if parent.exists() {
        Errno::ENOTDIR
    } else {
        Errno::ENOENT
    }
}

/// A path from the caller's memory, up to its NUL.
///
/// # Errors
///
/// `EFAULT`; `ENAMETOOLONG`.
///
/// Kernel: `fs/namei.c:getname_flags`.
pub(super) fn read_path(mem: &dyn UserMem, addr: u64) -> Result<String> {
    let path = user_string(mem, addr, PATH_MAX)?;
    if path.len() >= PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    // Names are bytes to the kernel; those that are no text stay apart from each other well enough.
    Ok(String::from_utf8(path).unwrap_or_else(|error| error.as_bytes().escape_ascii().to_string()))
}

impl Call<'_> {
    /// # Errors
    ///
    /// `EINVAL` for flags that are not allowed, and for a directory without its flag.
    fn path_fd(&self, attr: &ObjAttr, allowed: MapFlags) -> Result<()> {
        let path_fd = if self.inner.env.release.pin_in_directory {
            BPF_F_PATH_FD
        } else {
            0
        };
        let flag = attr.file_flags & BPF_F_PATH_FD != 0;
        if attr.file_flags & !(allowed.bits() | path_fd) != 0 || (attr.path_fd != 0 && !flag) {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    /// The path that is meant.
    fn path(&self, attr: &ObjAttr, mem: &dyn UserMem) -> Result<String> {
        let dir = (attr.file_flags & BPF_F_PATH_FD != 0).then_some(attr.path_fd);
        let dir = dir.filter(|&dir| dir != AT_FDCWD);
        self.fds.path(dir, read_path(mem, attr.pathname)?)
    }

    /// Kernel: `bpf_obj_pin_user`.
    pub(super) fn obj_pin(&self, attr: Attr<'_>, mem: &mut dyn UserMem) -> Result<u32> {
        let attr = ObjAttr::decode(attr);
        self.path_fd(&attr, MapFlags::empty())?;
        let file = self.file(attr.bpf_fd);
        let file = file.map_err(|_| Errno::EINVAL)?;
        match &file.held {
            Held::Map(_) | Held::Link(_) | Held::Object(Object::Prog(_)) => {}
            Held::Object(_) => return Err(Errno::EINVAL),
        }
        match Place::of(&self.path(&attr, mem)?)? {
            Place::Inside(names) => {
                let pin = Node::Pin(file.held.clone());
                self.inner.bpffs.lock().add(&names, pin)?;
            }
            Place::Outside(path) => return Err(outside_new(&path)),
        }
        Ok(0)
    }

    /// Kernel: `bpf_obj_get_user`.
    pub(super) fn obj_get(&self, attr: Attr<'_>, mem: &mut dyn UserMem) -> Result<u32> {
        let attr = ObjAttr::decode(attr);
        let both = MapFlags::RDONLY | MapFlags::WRONLY;
        if attr.bpf_fd != 0 {
            return Err(Errno::EINVAL);
        }
        self.path_fd(&attr, both)?;
        let flags = MapFlags::from_bits_retain(attr.file_flags) & both;
        if flags == both {
            return Err(Errno::EINVAL);
        }
        match Place::of(&self.path(&attr, mem)?)? {
            Place::Inside(names) => {
                let held = self.inner.bpffs.lock().get(&names)?;
                if matches!(held, Held::Link(_)) && !flags.is_empty() {
                    return Err(Errno::EINVAL);
                }
                self.open_with(held, flags)
            }
            Place::Outside(path) if Path::new(&path).exists() => Err(Errno::EACCES),
            Place::Outside(_) => Err(Errno::ENOENT),
        }
    }
}

impl Kernel {
    /// mkdir(2) in the bpffs, at `/sys/fs/bpf`.
    ///
    /// # Errors
    ///
    /// `ENOENT` or `ENOTDIR` of the path; `EEXIST`; `EPERM` for a name with a dot, and outside of the bpffs.
    pub fn mkdir(&self, path: &str) -> Result<()> {
        match Place::of(path)? {
            Place::Inside(names) => {
                let dir = Node::Dir(Dir::new());
                self.inner.bpffs.lock().add(&names, dir)
            }
            Place::Outside(path) => Err(outside_new(&path)),
        }
    }

    /// rmdir(2) in the bpffs.
    ///
    /// # Errors
    ///
    /// `ENOENT` or `ENOTDIR` of the path; `ENOTEMPTY`; `EBUSY` for the bpffs itself; `EPERM` outside of it, and for a name with a dot.
    pub fn rmdir(&self, path: &str) -> Result<()> {
        match Place::of(path)? {
            Place::Inside(names) => self.inner.bpffs.lock().remove_dir(&names),
            Place::Outside(path) if Path::new(&path).exists() => Err(Errno::EPERM),
            Place::Outside(_) => Err(Errno::ENOENT),
        }
    }

    /// rename(2) in the bpffs.
    ///
    /// # Errors
    ///
    /// `ENOENT` or `ENOTDIR` of the paths; `EINVAL` of a directory into itself; `EISDIR`, `ENOTDIR` or `ENOTEMPTY` of what is to be
    /// replaced; `EPERM` for a name with a dot; `EXDEV` for the bpffs itself, and to or from elsewhere.
    pub fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (Place::Inside(from), Place::Inside(to)) = (Place::of(from)?, Place::of(to)?) else {
            return Err(Errno::EXDEV);
        };
        // Dropped when no lock is held: a map may go with it.
        let replaced = self.inner.bpffs.lock().rename(&from, &to)?;
        drop(replaced);
        Ok(())
    }

    /// Whether a path in the bpffs is a directory, or a pin.
    ///
    /// # Errors
    ///
    /// `ENOENT` or `ENOTDIR` of the path; `ENOENT` outside of the bpffs.
    pub fn is_dir(&self, path: &str) -> Result<bool> {
        let Place::Inside(names) = Place::of(path)? else {
            return Err(Errno::ENOENT);
        };
        let Some((name, parents)) = names.split_last() else {
            return Ok(true);
        };
        let mut bpffs = self.inner.bpffs.lock();
        let node = bpffs.dir(parents)?.get(name).ok_or(Errno::ENOENT)?;
        Ok(matches!(node, Node::Dir(_)))
    }

    /// unlink(2) of a pin in the bpffs.
    ///
    /// # Errors
    ///
    /// `ENOENT` or `ENOTDIR` of the path; `EISDIR`; `EPERM` outside of the bpffs.
    pub fn unlink(&self, path: &str) -> Result<()> {
        match Place::of(path)? {
            Place::Inside(names) => {
                // Dropped when no lock is held: a map may go with it.
                let node = self.inner.bpffs.lock().remove(&names)?;
                drop(node);
                Ok(())
            }
            Place::Outside(path) if Path::new(&path).exists() => Err(Errno::EPERM),
            Place::Outside(_) => Err(Errno::ENOENT),
        }
    }
}
