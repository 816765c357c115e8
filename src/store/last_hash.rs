//! The hash of the key that a walk gave this thread last: it is most often the one that the walk goes on from. To hash a long key costs
//! more than all the rest of the step; a short one is hashed fast, but the step can begin with its bucket only then, while the
//! processor takes for granted that a comparison turns out as it always did.
//!
//! Only the computing is spared: a hash follows from key and seed alone, whatever became of the table.

use std::cell::{Cell, RefCell};

/// A key of up to 16 bytes: the number that they are, and how many.
pub(super) type Short = (u128, usize);

/// Longer keys are not kept.
const LONGEST: usize = 256;

struct Last {
    seed: u32,
    hash: u32,
    len: usize,
    key: [u8; LONGEST],
}

thread_local! {
    static SHORT: Cell<(Short, u32, u32)> = const { Cell::new(((0, 0), 0, 0)) };
    static LAST: RefCell<Last> = const {
        RefCell::new(Last { seed: 0, hash: 0, len: 0, key: [0; LONGEST] })
    };
}

/// The hash of a short key, if it is the one that was kept last.
#[inline(always)]
pub(super) fn get_short(key: Short, seed: u32) -> Option<u32> {
    let (last, last_seed, hash) = SHORT.get();
    (last == key && last_seed == seed).then_some(hash)
}

/// Keeps the hash of a short key.
#[inline(always)]
pub(super) fn keep_short(key: Short, seed: u32, hash: u32) {
    SHORT.set((key, seed, hash));
}

/// The hash of a key, if it is the one that was kept last.
#[inline]
pub(super) fn get(key: &[u8], seed: u32) -> Option<u32> {
    LAST.with_borrow(|last| {
        (last.seed == seed && last.len > 0 && last.key[..last.len] == *key).then_some(last.hash)
    })
}

/// Keeps the hash of a key.
#[inline]
pub(super) fn keep(key: &[u8], seed: u32, hash: u32) {
    if key.len() <= LONGEST {
        LAST.with_borrow_mut(|last| {
            (last.seed, last.hash, last.len) = (seed, hash, key.len());
            last.key[..key.len()].copy_from_slice(key);
        });
    }
}
