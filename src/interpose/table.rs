//! The fds of this process that lead to emulated files, of all kernels.
//!
//! A number is known from the call that made it, or by its inode when it is first met (dup(2), a socket that passed it on).
//! It is forgotten when it is closed: [`close`] and its kin are ours. An emulated file is open until the last fd of its
//! placeholder is closed, whoever does that.
//!
//! Invariant: a number that is in the table is open. Whoever holds the table's lock can use it.

#![expect(unsafe_code, reason = "numbers of fds that the table says are open")]

use std::collections::HashMap;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, RawFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use parking_lot::{Mutex, RwLock};

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

/// One bit for each of the first numbers: it is in the table. Asked on the way of every close(2) and mmap(2).
static OURS: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];
const WORDS: usize = 1024;

/// Emulated files that are open.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// Those that can be waited for.
static WAITED_FOR: AtomicUsize = AtomicUsize::new(0);

static BY_FD: RwLock<Vec<Option<Arc<Entry>>>> = RwLock::new(Vec::new());
static BY_INODE: LazyLock<Mutex<HashMap<u64, Arc<Entry>>>> = LazyLock::new(Mutex::default);

/// The word and the bit of a number.
#[inline(always)]
fn bit(fd: RawFd) -> Option<(&'static AtomicU64, u64)> {
    let at = usize::try_from(fd).ok()?;
    Some((OURS.get(at / 64)?, 1 << (at % 64)))
}

/// The number is in the table. No lock is taken.
#[inline(always)]
pub(super) fn has(fd: RawFd) -> bool {
    bit(fd).is_some_and(|(word, bit)| word.load(Ordering::Acquire) & bit != 0)
}

/// The emulated file behind a number.
#[inline]
pub(super) fn get(fd: RawFd) -> Option<Arc<Entry>> {
    if !has(fd) {
        return find(fd);
    }
    let numbers = BY_FD.read();
    let place = numbers.get(usize::try_from(fd).ok()?)?;
    place.as_ref().map(Arc::clone)
}

/// A number that is not in the table: by its inode.
#[cold]
fn find(fd: RawFd) -> Option<Arc<Entry>> {
    if fd < 0 || OPEN.load(Ordering::Acquire) == 0 {
        return None;
    }
    // SAFETY: if it is not open, fstat(2) says so; it is not kept.
    let inode = pipe_inode(unsafe { BorrowedFd::borrow_raw(fd) })?;
    let entry = BY_INODE.lock().get(&inode).map(Arc::clone)?;
    insert(fd, &entry);
    Some(entry)
}

/// The emulated file of a placeholder.
pub(super) fn by_inode(inode: u64) -> Option<Arc<Entry>> {
    BY_INODE.lock().get(&inode).map(Arc::clone)
}

fn insert(fd: RawFd, entry: &Arc<Entry>) {
    let (Some((word, bit)), Ok(at)) = (bit(fd), usize::try_from(fd)) else {
        // Such high numbers are found by their inode each time.
        return;
    };
    let mut numbers = BY_FD.write();
    if numbers.len() <= at {
        numbers.resize(at + 1, None);
    }
    let before = numbers[at].replace(Arc::clone(entry));
    word.fetch_or(bit, Ordering::AcqRel);
    drop(numbers);
    drop(before);
}

/// Forgets a number, which is about to be closed.
#[cold]
pub(super) fn forget(fd: RawFd) -> Option<Arc<Entry>> {
    let (word, bit) = bit(fd)?;
    let mut numbers = BY_FD.write();
    word.fetch_and(!bit, Ordering::AcqRel);
    numbers.get_mut(usize::try_from(fd).ok()?)?.take()
}

/// Forgets all numbers from `first` to `last`, which are about to be closed.
pub(super) fn forget_range(first: Fd, last: Fd) -> Vec<Arc<Entry>> {
    let end = u32::try_from(WORDS * 64).expect("a small number");
    let known = (first..=last.min(end - 1)).map(u32::cast_signed);
    known.filter(|&fd| has(fd)).filter_map(forget).collect()
}

/// Forgets the numbers of a file that is closed: those that were closed where it was not seen.
fn forget_all(entry: &Arc<Entry>) {
    let numbers = BY_FD.read();
    let of_it =
        |number: &Option<Arc<Entry>>| number.as_ref().is_some_and(|of| Arc::ptr_eq(of, entry));
    let stale: Vec<RawFd> = (0..)
        .zip(numbers.iter())
        .filter(|(_, number)| of_it(number))
        .map(|(fd, _)| fd)
        .collect();
    drop(numbers);
    for fd in stale {
        forget(fd);
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

/// Calls `f` with that number and its file, if it is one of ours. It stays open meanwhile.
pub(super) fn with(fd: RawFd, f: impl FnOnce(BorrowedFd<'_>, &Entry)) {
    let numbers = BY_FD.read();
    let entry = usize::try_from(fd)
        .ok()
        .and_then(|at| numbers.get(at)?.as_ref());
    if let Some(entry) = entry {
        // SAFETY: it is in the table, whose lock is held: it is open.
        f(unsafe { BorrowedFd::borrow_raw(fd) }, entry);
    }
}

/// Calls `f` with all numbers and their files. They stay open meanwhile.
pub(super) fn for_each(mut f: impl FnMut(BorrowedFd<'_>, &Entry)) {
    let numbers = BY_FD.read();
    for (fd, entry) in (0..).zip(numbers.iter()) {
        if let Some(entry) = entry {
            // SAFETY: it is in the table, whose lock is held: it is open.
            f(unsafe { BorrowedFd::borrow_raw(fd) }, entry);
        }
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} of {:?}", self.file.kind(), self.installed)
    }
}
