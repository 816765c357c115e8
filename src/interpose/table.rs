//! The fds of this process that lead to emulated files, of all kernels.
//!
//! A number is known from the call that made it, or by its inode when it is first met (dup(2), a socket that passed it on).
//! It is forgotten when it is closed: [`close`] and its kin are ours. Who closes it by a system call of their own is not seen:
//! so what a number is, is asked of the system at each use. An emulated file is open until the last fd of its placeholder is
//! closed, whoever does that.

#![expect(unsafe_code, reason = "numbers of fds that come from outside")]

use std::collections::HashMap;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use parking_lot::{Mutex, RwLock};

use super::numbers::{self, Numbers};
use super::placeholder::{End, Placeholder, State, pipe_inode};
use super::raw::errno_of;
use super::{Installed, wait};
use crate::abi::{Fd, MapType, Result};
use crate::sys::OpenFile;

/// An emulated file that is open.
pub(super) struct Entry {
    pub(super) installed: Arc<Installed>,
    pub(super) file: OpenFile,
    pub(super) placeholder: Arc<Placeholder>,
    /// Keeps the placeholder ready as the file is, for those that can be waited for.
    pub(super) wakes: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
}

/// The numbers that are in the table.
pub(super) static OURS: Numbers = Numbers::new();

/// Emulated files that are open.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// Those that can be waited for.
static WAITED_FOR: AtomicUsize = AtomicUsize::new(0);

/// By number. Nothing is allocated where one of its locks is held.
static BY_FD: [RwLock<Option<Arc<Entry>>>; numbers::COUNT] =
    [const { RwLock::new(None) }; numbers::COUNT];
static BY_INODE: LazyLock<Mutex<HashMap<u64, Arc<Entry>>>> = LazyLock::new(Mutex::default);

/// The place of a number in the table.
fn place(fd: RawFd) -> Option<&'static RwLock<Option<Arc<Entry>>>> {
    BY_FD.get(usize::try_from(fd).ok()?)
}

/// The emulated file behind a number.
#[inline]
pub(super) fn get(fd: RawFd) -> Option<Arc<Entry>> {
    if fd < 0 || OPEN.load(Ordering::Acquire) == 0 {
        return None;
    }
    // SAFETY: if it is not open, fstat(2) says so; it is not kept.
    let inode = pipe_inode(unsafe { BorrowedFd::borrow_raw(fd) });
    if OURS.has(fd) {
        let known = place(fd)?.read();
        if let Some(entry) = known
            .as_ref()
            .filter(|entry| Some(entry.placeholder.inode) == inode)
        {
            return Some(Arc::clone(entry));
        }
    }
    find(fd, inode)
}

/// A number that the table does not have, or has for another file: by its inode.
#[cold]
fn find(fd: RawFd, inode: Option<u64>) -> Option<Arc<Entry>> {
    let entry = inode.and_then(by_inode);
    match &entry {
        Some(entry) => insert(fd, entry),
        None => drop(forget(fd)),
    }
    entry
}

/// The emulated file of a placeholder.
pub(super) fn by_inode(inode: u64) -> Option<Arc<Entry>> {
    BY_INODE.lock().get(&inode).map(Arc::clone)
}

/// Such high numbers as have no place are found by their inode each time.
fn insert(fd: RawFd, entry: &Arc<Entry>) {
    if let Some(place) = place(fd) {
        let before = place.write().replace(Arc::clone(entry));
        OURS.add(fd);
        drop(before);
    }
}

/// Forgets a number, which is about to be closed.
pub(super) fn forget(fd: RawFd) -> Option<Arc<Entry>> {
    OURS.remove(fd);
    place(fd)?.write().take()
}

/// Forgets the numbers of a file that is closed: those that were closed where it was not seen.
fn forget_all(entry: &Arc<Entry>) {
    for place in OURS.all().filter_map(place) {
        // Its bit goes when the number is next looked at. The caller has the entry yet: nothing is dropped under the lock.
        place.write().take_if(|of| Arc::ptr_eq(of, entry));
    }
}

/// After an fd of it was closed: the emulated file is closed if that was the last.
pub(super) fn settle(entry: Arc<Entry>) {
    if entry.placeholder.is_closed() {
        let removed = BY_INODE.lock().remove(&entry.placeholder.inode);
        if removed.is_some() {
            OPEN.fetch_sub(1, Ordering::AcqRel);
            forget_all(&entry);
        }
    }
    // No lock is held: a map may go with it, and others with that.
    drop(entry);
}

/// Closes all emulated files whose last fd was closed where it was not seen.
pub(super) fn settle_all() {
    let open: Vec<_> = BY_INODE.lock().values().map(Arc::clone).collect();
    open.into_iter().for_each(settle);
}

/// A new fd for an emulated file.
///
/// # Errors
///
/// `EMFILE`, …
pub(super) fn install(installed: &Arc<Installed>, file: OpenFile) -> Result<Fd> {
    let end = if file.map_type() == Some(MapType::USER_RINGBUF) {
        End::Write
    } else {
        End::Read
    };
    let (fd, placeholder) = Placeholder::new(end).map_err(errno_of)?;
    let entry = Arc::new(Entry {
        installed: Arc::clone(installed),
        file,
        placeholder: Arc::new(placeholder),
        wakes: Mutex::new(None),
    });
    entry.follow();
    let inode = entry.placeholder.inode;
    BY_INODE.lock().insert(inode, Arc::clone(&entry));
    OPEN.fetch_add(1, Ordering::AcqRel);
    insert(fd.as_raw_fd(), &entry);
    Ok(fd.into_raw_fd().cast_unsigned())
}

impl Entry {
    /// Wakes those who wait for the placeholder whenever the file wakes, if it does.
    pub(super) fn follow(&self) {
        let placeholder = Arc::downgrade(&self.placeholder);
        let file = self.file.clone();
        let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
            if let Some(placeholder) = placeholder.upgrade() {
                placeholder.wake(|| wait::state(&file) != State::NotReady);
            }
        });
        if self.file.on_wake(&wake).is_ok() && self.wakes.lock().replace(wake).is_none() {
            WAITED_FOR.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.wakes.get_mut().is_some() {
            WAITED_FOR.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// There are emulated files that can be waited for. No lock is taken.
#[inline(always)]
pub(super) fn waited_for() -> bool {
    WAITED_FOR.load(Ordering::Acquire) > 0
}

/// Calls `f` with that number and its file, if it is one of ours. Nobody closes it meanwhile, unless it is not seen.
pub(super) fn with(fd: RawFd, f: impl FnOnce(BorrowedFd<'_>, &Entry)) {
    let Some(place) = place(fd).filter(|_| OURS.has(fd)) else {
        return;
    };
    if let Some(entry) = place.read().as_ref() {
        // SAFETY: it is in the table, whose lock is held; if it was closed all the same, system calls say so.
        f(unsafe { BorrowedFd::borrow_raw(fd) }, entry);
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} of {:?}", self.file.kind(), self.installed)
    }
}
