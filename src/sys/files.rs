//! Open files: what an fd leads to, and the table of them.
//!
//! Invariant: an fd's [`File`] is shared by its dups. When the last is closed it is dropped, and the map told; a map's
//! user references (open files and pins) are counted in it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_utils::CachePadded;
use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

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
///
/// There is a copy for each CPU, on cache lines of its own, so that calls on different CPUs do not meet. One that changes the
/// table locks all copies, in order; a call holds the lock of its own CPU's, and takes no other.
#[derive(Debug)]
pub(super) struct FdTable {
    /// A power of two.
    copies: Box<[CachePadded<RwLock<Files>>]>,
}

/// Copies at most: beyond them, CPUs share.
const MAX_COPIES: u32 = 16;

#[derive(Debug, Default)]
struct Files {
    files: Vec<Option<Arc<File>>>,
    /// No lower fd is free.
    first_free: usize,
}

/// The table while it changes: all copies.
struct Changing<'a> {
    copies: Vec<RwLockWriteGuard<'a, Files>>,
}

impl Changing<'_> {
    fn files(&self) -> &[Option<Arc<File>>] {
        &self.copies[0].files
    }

    fn first_free(&self) -> usize {
        let from = self.copies[0].first_free.min(self.files().len());
        let free = self.files()[from..].iter().position(Option::is_none);
        free.map_or(self.files().len(), |free| from + free)
    }

    fn open(&mut self, at: usize, file: &Arc<File>) {
        for copy in &mut self.copies {
            if at == copy.files.len() {
                copy.files.push(None);
            }
            copy.files[at] = Some(Arc::clone(file));
            copy.first_free = at + 1;
        }
    }

    fn close(&mut self, at: usize) {
        for copy in &mut self.copies {
            copy.files[at] = None;
            copy.first_free = copy.first_free.min(at);
        }
    }
}

impl Fds for FdTable {
    /// The lowest free fd now leads to that file.
    fn install(&self, OpenFile(file): OpenFile) -> Result<Fd> {
        let mut table = self.change();
        let at = table.first_free();
        if at >= MAX_FDS {
            return Err(Errno::EMFILE);
        }
        table.open(at, &file);
        Ok(Fd::try_from(at).expect("fds are few"))
    }

    fn get(&self, fd: Fd) -> Result<OpenFile> {
        Ok(OpenFile(Arc::clone(&*self.lend(fd, 0)?)))
    }
}

impl FdTable {
    /// An empty one, for so many CPUs.
    pub(super) fn new(nr_cpus: u32) -> Self {
        let copies = nr_cpus.clamp(1, MAX_COPIES).next_power_of_two();
        Self {
            copies: (0..copies).map(|_| CachePadded::default()).collect(),
        }
    }

    /// The open file behind an fd, which is not closed meanwhile: for a call on that CPU.
    #[inline(always)]
    pub(super) fn lend(&self, fd: Fd, cpu: u32) -> Result<MappedRwLockReadGuard<'_, Arc<File>>> {
        let copy = &self.copies[cpu as usize & (self.copies.len() - 1)];
        // Recursive: a command may look up fds while another thread waits to open one.
        let files = copy.read_recursive();
        let file = RwLockReadGuard::try_map(files, |copy| copy.files.get(fd as usize)?.as_ref());
        file.map_err(|_| Errno::EBADF)
    }

    fn change(&self) -> Changing<'_> {
        Changing {
            copies: self.copies.iter().map(|files| files.write()).collect(),
        }
    }

    /// Closes an fd; gives its file, to be dropped when no lock is held, and the socket that ends with its last fd.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open.
    pub(super) fn remove(&self, fd: Fd) -> Result<(Arc<File>, Option<u64>)> {
        let mut table = self.change();
        let at = fd as usize;
        let file = table.files().get(at).and_then(Option::as_ref);
        let file = Arc::clone(file.ok_or(Errno::EBADF)?);
        table.close(at);
        // Whether it is the last is seen under the lock: a call that uses the file meanwhile does not count.
        let socket = file.socket().filter(|_| {
            let mut open = table.files().iter().flatten();
            !open.any(|other| Arc::ptr_eq(other, &file))
        });
        Ok((file, socket))
    }
}
