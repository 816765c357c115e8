//! Open files: what an fd leads to, and the table of them.
//!
//! Invariant: an fd's [`File`] is shared by its dups. When the last is closed it is dropped, and the map told; a map's
//! user references (open files and pins) are counted in it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::RwLock;

use super::fds::{Fds, OpenFile};
use super::link::Link;
use crate::abi::{Errno, Fd, Result};
use crate::map::Map;
use crate::map::object::{Object, OtherKind};

/// The most fds that are open at once (`fs.nr_open`).
const MAX_FDS: usize = 1 << 20;

/// An open file.
#[derive(Debug)]
pub(super) struct File {
    /// Unique in one kernel.
    pub(super) id: u64,
    /// What it is a file of.
    pub(super) held: Held,
    /// May read.
    pub(super) read: bool,
    /// May write.
    pub(super) write: bool,
    /// Opened with `O_PATH`.
    pub(super) path_only: bool,
}

impl File {
    /// The id of the socket behind it, if it is one.
    fn socket(&self) -> Option<u64> {
        match &self.held {
            Held::Object(Object::Other(object)) if matches!(object.kind, OtherKind::Socket(_)) => {
                Some(object.id)
            }
            Held::Map(_) | Held::Link(_) | Held::Object(_) => None,
        }
    }

    /// The map behind it.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is none.
    #[inline]
    pub(super) fn map(&self) -> Result<&Arc<Map>> {
        match &self.held {
            Held::Map(MapUser(map)) => Ok(map),
            Held::Link(_) | Held::Object(_) => Err(Errno::EINVAL),
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if let Held::Map(MapUser(map)) = &self.held {
            map.ops.release_file(self.id);
        }
    }
}

/// What open files and pins hold.
#[derive(Clone, Debug)]
pub(super) enum Held {
    /// A map, by a user reference.
    Map(MapUser),
    /// A link between a program and what it is attached to.
    Link(Arc<Link>),
    /// Anything else.
    Object(Object),
}

impl Held {
    /// As maps see it.
    pub(super) fn object(&self) -> Object {
        match self {
            Self::Map(MapUser(map)) => Object::Map(Arc::clone(map)),
            Self::Link(link) => Object::Other(Arc::clone(&link.object)),
            Self::Object(object) => object.clone(),
        }
    }
}

/// One user reference of a map; the last one that goes tells the map.
#[derive(Debug)]
pub(super) struct MapUser(pub(super) Arc<Map>);

impl MapUser {
    pub(super) fn new(map: Arc<Map>) -> Self {
        map.user_references.fetch_add(1, Ordering::AcqRel);
        Self(map)
    }
}

impl Clone for MapUser {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.0))
    }
}

impl Drop for MapUser {
    fn drop(&mut self) {
        if self.0.user_references.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.ops.release_user_references();
        }
    }
}

/// The open files by fd.
#[derive(Debug, Default)]
pub(super) struct FdTable(RwLock<Slots>);

#[derive(Debug, Default)]
struct Slots {
    files: Vec<Option<Arc<File>>>,
    /// No lower fd is free.
    first_free: usize,
}

impl Fds for FdTable {
    /// The lowest free fd now leads to that file.
    fn install(&self, OpenFile(file): OpenFile) -> Result<Fd> {
        let mut guard = self.0.write();
        let slots = &mut *guard;
        let from = slots.first_free.min(slots.files.len());
        let at = slots.files[from..]
            .iter()
            .position(Option::is_none)
            .map_or(slots.files.len(), |free| from + free);
        if at >= MAX_FDS {
            return Err(Errno::EMFILE);
        }
        if at == slots.files.len() {
            slots.files.push(None);
        }
        slots.files[at] = Some(file);
        slots.first_free = at + 1;
        Ok(Fd::try_from(at).expect("fds are few"))
    }

    #[inline]
    fn get(&self, fd: Fd) -> Result<OpenFile> {
        // Recursive: a command may look up fds while another thread waits to open one.
        let slots = self.0.read_recursive();
        let slot = slots.files.get(fd as usize).and_then(Option::as_ref);
        slot.map(Arc::clone).map(OpenFile).ok_or(Errno::EBADF)
    }
}

impl FdTable {
    /// Closes an fd; gives its file, to be dropped when no lock is held, and the socket that ends with its last fd.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open.
    pub(super) fn remove(&self, fd: Fd) -> Result<(Arc<File>, Option<u64>)> {
        let mut slots = self.0.write();
        let at = fd as usize;
        let file = slots.files.get_mut(at).and_then(Option::take);
        let file = file.ok_or(Errno::EBADF)?;
        slots.first_free = slots.first_free.min(at);
        // Whether it is the last is seen under the lock: a call that uses the file meanwhile does not count.
        let socket = file.socket().filter(|_| {
            let mut open = slots.files.iter().flatten();
            !open.any(|other| Arc::ptr_eq(other, &file))
        });
        Ok((file, socket))
    }
}
