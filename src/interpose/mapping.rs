//! mmap(2), mremap(2) and munmap(2) of emulated files: the memory that is behind them, mapped for real.
//!
//! What is granted counts as long as any part of it is mapped. Mappings of all else are told from those by their address alone.

#![expect(unsafe_code, reason = "mappings")]

use std::cell::Cell;
use std::ffi::{c_int, c_long};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::process;
use super::raw::{errno_of, raw};
use super::table::Entry;
use crate::abi::{Errno, MapRequest, MapType, Prot, Result};
use crate::sys::Granted;

/// What is mapped. An allocator may map and unmap its own memory by these hooks: nothing is allocated or dropped while this is
/// locked, and to wait for it takes no memory either.
static MAPPED: Mutex<Option<Arc<[Mapped]>>> = Mutex::new(None);

/// A part of what was granted: from its first address to the one after it.
#[derive(Clone, Debug)]
pub(super) struct Mapped {
    first: usize,
    end: usize,
    granted: Arc<Granted>,
}

/// All that was ever mapped lies from the first to the second.
static BOUNDS: [AtomicUsize; 2] = [AtomicUsize::new(usize::MAX), AtomicUsize::new(0)];

thread_local! {
    /// This thread has the lock: who comes again is the handler of a signal.
    static HAS_LOCK: Cell<bool> = const { Cell::new(false) };
}

/// Calls `f` with what is mapped; `None` where a signal came meanwhile. It neither allocates nor drops anything.
fn locked<T>(f: impl FnOnce(&mut Option<Arc<[Mapped]>>) -> T) -> Option<T> {
    if HAS_LOCK.replace(true) {
        return None;
    }
    let mut mapped = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
    let found = f(&mut mapped);
    drop(mapped);
    HAS_LOCK.set(false);
    Some(found)
}

/// Puts another table in the place of what is there, as `f` makes it of that; what else it gives.
fn change<T>(f: impl Fn(&[Mapped]) -> (Vec<Mapped>, T)) -> Option<T> {
    loop {
        let seen = locked(|mapped| mapped.as_ref().map(Arc::clone))?;
        let (new, found) = f(seen.as_deref().unwrap_or_default());
        let mut new = Some(Arc::from(new));
        let changed = locked(|mapped| {
            let same = mapped.as_ref().map(Arc::as_ptr) == seen.as_ref().map(Arc::as_ptr);
            if same {
                std::mem::swap(mapped, &mut new);
            }
            same
        })?;
        if changed {
            return Some(found);
        }
    }
}

/// The arguments of mmap(2), but the file.
#[derive(Clone, Copy)]
pub(super) struct Arguments {
    pub(super) addr: usize,
    pub(super) len: usize,
    pub(super) prot: c_int,
    pub(super) flags: c_int,
    pub(super) offset: u64,
}

/// Something of ours may lie there. No lock is taken.
#[inline(always)]
pub(super) fn may_have(addr: usize, len: usize) -> bool {
    let [first, end] = &BOUNDS;
    addr < end.load(Ordering::Acquire) && addr.saturating_add(len) > first.load(Ordering::Acquire)
}

/// What lies there, which is about to be unmapped. It is taken out first: afterwards another thread may have mapped
/// something else there.
#[inline(always)]
pub(super) fn before_unmap(addr: usize, len: usize) -> Option<Vec<Mapped>> {
    (may_have(addr, len) && has(addr, len) && process::is_interposed()).then(|| take(addr, len))
}

/// What was taken out is gone, or is still there.
#[inline(always)]
pub(super) fn after_unmap(taken: Option<Vec<Mapped>>, gone: bool) {
    if let Some(taken) = taken.filter(|_| !gone) {
        put(&taken);
    }
}

/// What was taken out lies elsewhere, if it was moved: from where, to where, and how much of it.
#[inline(always)]
pub(super) fn after_move(taken: Option<Vec<Mapped>>, moved: Option<(usize, usize, usize)>) {
    let Some(mut taken) = taken else {
        return;
    };
    if let Some((from, to, len)) = moved {
        for piece in &mut taken {
            piece.first = piece.first - from + to;
            piece.end = (piece.end - from + to).min(to + whole_pages(len));
        }
        taken.retain(|piece| piece.first < piece.end);
    }
    put(&taken);
}

/// Something of ours lies there.
#[cold]
fn has(addr: usize, len: usize) -> bool {
    let end = addr.saturating_add(whole_pages(len));
    let overlaps = |piece: &Mapped| piece.first < end && piece.end > addr;
    let any = locked(|mapped| mapped.iter().flat_map(|mapped| mapped.iter()).any(overlaps));
    any.unwrap_or(false)
}

fn whole_pages(len: usize) -> usize {
    len.checked_next_multiple_of(crate::abi::PAGE_SIZE)
        .unwrap_or(usize::MAX)
}

/// Takes out what lies there. To drop it may drop a map.
fn take(addr: usize, len: usize) -> Vec<Mapped> {
    let end = addr.saturating_add(whole_pages(len));
    let taken = change(|mapped| {
        let (mut left, mut taken) = (Vec::new(), Vec::new());
        for piece in mapped {
            let part = |first: usize, end: usize| Mapped {
                first,
                end,
                granted: Arc::clone(&piece.granted),
            };
            let (from, to) = (piece.first.max(addr), piece.end.min(end));
            if from >= to {
                left.push(piece.clone());
                continue;
            }
            taken.push(part(from, to));
            left.extend((piece.first < from).then(|| part(piece.first, from)));
            left.extend((to < piece.end).then(|| part(to, piece.end)));
        }
        (left, taken)
    });
    taken.unwrap_or_default()
}

/// Those pieces are mapped.
fn put(pieces: &[Mapped]) {
    let [lowest, highest] = &BOUNDS;
    for piece in pieces {
        lowest.fetch_min(piece.first, Ordering::AcqRel);
        highest.fetch_max(piece.end, Ordering::AcqRel);
    }
    change(|mapped| ([mapped, pieces].concat(), ()));
}

/// Maps an emulated file.
///
/// # Errors
///
/// What the kernel answers.
///
/// # Safety
///
/// That of mmap(2).
pub(super) unsafe fn map(entry: &Entry, mut of: Arguments) -> Result<usize> {
    const FIXED: c_int = libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE;
    if entry.file.map_type() == Some(MapType::ARENA) && of.flags & FIXED == 0 {
        // Programs know where it is: it is settled before it is mapped.
        if of.addr == 0 {
            of.addr = room(of.len)?;
        }
        of.flags |= libc::MAP_FIXED_NOREPLACE;
    }
    let fixed = of.flags & FIXED != 0;
    let request = MapRequest {
        addr: if fixed { of.addr as u64 } else { 0 },
        len: of.len,
        offset: of.offset,
        prot: Prot {
            read: of.prot & libc::PROT_READ != 0,
            write: of.prot & libc::PROT_WRITE != 0,
            exec: of.prot & libc::PROT_EXEC != 0,
        },
        shared: of.flags & libc::MAP_TYPE != libc::MAP_PRIVATE,
    };
    let granted = entry.installed.kernel.grant_mmap(&entry.file, request)?;
    let memory = granted.memory().map_err(errno_of)?;
    let pieces = pieces(&granted, of.prot);
    // SAFETY: the caller's promise.
    let addr = unsafe { map_pieces(of, &memory, &pieces, granted.size()) }?;
    let end = addr + granted.size();
    // What lay there is not mapped any more.
    drop(before_unmap(addr, granted.size()));
    put(&[Mapped {
        first: addr,
        end,
        granted: Arc::new(granted),
    }]);
    // A perf event has nobody to wake before it is mapped.
    entry.follow();
    Ok(addr)
}

/// A free place for an arena, which does not lie across a multiple of 4 GiB.
fn room(len: usize) -> Result<usize> {
    const PIECE: usize = 1 << 32;
    if len == 0 || len > PIECE {
        // Refused later.
        return Ok(0);
    }
    let nothing = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping, at no address that anybody has.
    let start = unsafe { mmap(0, 2 * len, libc::PROT_NONE, nothing, -1, 0) }?;
    // SAFETY: it is the mapping just made.
    unsafe { munmap(start, 2 * len) };
    let in_one_piece = start / PIECE == (start + len - 1) / PIECE;
    Ok(if in_one_piece {
        start
    } else {
        start.next_multiple_of(PIECE)
    })
}

/// A part of a mapping: bytes, where in the file, protection.
type Piece = (usize, u64, c_int);

fn pieces(granted: &Granted, prot: c_int) -> Vec<Piece> {
    let mut left = granted.write_end();
    let mut pieces = Vec::new();
    for (len, offset) in granted.pieces() {
        let writable = len.min(left);
        left -= writable;
        if writable > 0 {
            pieces.push((writable, offset, prot));
        }
        if writable < len {
            let rest = (
                len - writable,
                offset + writable as u64,
                prot & !libc::PROT_WRITE,
            );
            pieces.push(rest);
        }
    }
    pieces
}

/// # Safety
///
/// That of mmap(2).
unsafe fn map_pieces(
    of: Arguments,
    memory: &OwnedFd,
    pieces: &[Piece],
    size: usize,
) -> Result<usize> {
    if let [(len, offset, prot)] = *pieces {
        // SAFETY: the caller's promise.
        return unsafe { mmap(of.addr, len, prot, of.flags, memory.as_raw_fd(), offset) };
    }
    // The room first, at the address that is asked for; then its parts.
    let nothing = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let place = of.flags & (libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE);
    // SAFETY: the caller's promise.
    let addr = unsafe { mmap(of.addr, size, libc::PROT_NONE, nothing | place, -1, 0) }?;
    let flags = of.flags & !libc::MAP_FIXED_NOREPLACE | libc::MAP_FIXED;
    let mut at = addr;
    for &(len, offset, prot) in pieces {
        // SAFETY: it lies in the mapping that was just made.
        let piece = unsafe { mmap(at, len, prot, flags, memory.as_raw_fd(), offset) };
        if let Err(errno) = piece {
            // SAFETY: nobody knows of it yet.
            unsafe { munmap(addr, size) };
            return Err(errno);
        }
        at += len;
    }
    Ok(addr)
}

/// # Safety
///
/// That of the system call.
unsafe fn munmap(addr: usize, len: usize) {
    let [addr, len] = [addr, len].map(|number| number.cast_signed() as c_long);
    // SAFETY: the caller's promise.
    unsafe { raw(libc::SYS_munmap, [addr, len, 0, 0, 0, 0]) };
}

/// # Safety
///
/// That of the system call.
unsafe fn mmap(
    addr: usize,
    len: usize,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: u64,
) -> Result<usize> {
    let args = [
        addr.cast_signed() as c_long,
        len.cast_signed() as c_long,
        prot.into(),
        flags.into(),
        fd.into(),
        offset.cast_signed(),
    ];
    // SAFETY: the caller's promise.
    let ret = unsafe { raw(libc::SYS_mmap, args) };
    match u16::try_from(-ret) {
        Ok(errno @ 1..4096) => Err(Errno::new(errno)),
        _ => usize::try_from(ret).map_err(|_| Errno::EIO),
    }
}
