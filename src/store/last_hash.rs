//! The hash of the key that a walk gave this thread last: it is most often the one that the walk goes on from. To hash a long key costs
//! more than all the rest of the step; a short one is hashed fast, but its bucket waits for it, while a comparison is guessed and
//! the bucket is loaded at once.
//!
//! Only the computing is spared: a hash follows from key and seed alone, whatever became of the table.
//!
//! A signal handler may walk while this thread is in here: it finds the record borrowed, and does without.

use std::cell::RefCell;
use std::sync::atomic::{Ordering, compiler_fence};

/// A key of up to 16 bytes: the number that they are, and how many.
pub(super) type Short = (u128, usize);

/// Longer keys are not kept.
const LONGEST: usize = 256;

struct LastShort {
    key: Short,
    seed: u32,
    hash: u32,
}

struct Last {
    seed: u32,
    hash: u32,
    len: usize,
    key: [u8; LONGEST],
}

thread_local! {
    static SHORT: RefCell<LastShort> = const {
        RefCell::new(LastShort { key: (0, 0), seed: 0, hash: 0 })
    };
    static LAST: RefCell<Last> = const {
        RefCell::new(Last { seed: 0, hash: 0, len: 0, key: [0; LONGEST] })
    };
}

/// What `f` makes of a record, while it is borrowed for a handler too.
#[inline(always)]
fn borrowed<T, R>(record: &RefCell<T>, f: impl FnOnce(&mut T) -> Option<R>) -> Option<R> {
    let mut record = record.try_borrow_mut().ok()?;
    compiler_fence(Ordering::SeqCst);
    let answer = f(&mut record);
    compiler_fence(Ordering::SeqCst);
    answer
}

/// The hash of a short key, if it is the one that was kept last.
#[inline(always)]
pub(super) fn get_short(key: Short, seed: u32) -> Option<u32> {
    SHORT.with(|last| {
        borrowed(last, |last| {
            (last.key == key && last.seed == seed).then_some(last.hash)
        })
    })
}

/// Keeps the hash of a short key.
#[inline(always)]
pub(super) fn keep_short(key: Short, seed: u32, hash: u32) {
    SHORT.with(|last| {
        borrowed(last, |last| {
            *last = LastShort { key, seed, hash };
            Some(())
        })
    });
}

/// The hash of a key, if it is the one that was kept last.
#[inline]
pub(super) fn get(key: &[u8], seed: u32) -> Option<u32> {
    LAST.with(|last| {
        borrowed(last, |last| {
            let is_it = last.seed == seed && last.len > 0 && last.key[..last.len] == *key;
            is_it.then_some(last.hash)
        })
    })
}

/// Keeps the hash of a key.
#[inline]
pub(super) fn keep(key: &[u8], seed: u32, hash: u32) {
    if key.len() > LONGEST {
        return;
    }
    LAST.with(|last| {
        borrowed(last, |last| {
            (last.seed, last.hash, last.len) = (seed, hash, key.len());
            last.key[..key.len()].copy_from_slice(key);
            Some(())
        })
    });
}
