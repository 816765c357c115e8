//! The hash of the long key that a walk gave this thread last: it is most often the one that the walk goes on from, and to hash
//! it costs more than all the rest of the step.
//!
//! Only the computing is spared: a hash follows from key and seed alone, whatever became of the table.

use std::cell::RefCell;

/// Keys up to here are hashed faster than compared.
const SHORT: usize = 16;
const LONGEST: usize = 256;

struct Last {
    seed: u32,
    hash: u32,
    len: usize,
    key: [u8; LONGEST],
}

thread_local! {
    static LAST: RefCell<Last> = const {
        RefCell::new(Last { seed: 0, hash: 0, len: 0, key: [0; LONGEST] })
    };
}

#[inline]
fn is_kept(key: &[u8]) -> bool {
    key.len() > SHORT && key.len() <= LONGEST
}

/// The hash of a key, if it is the one that was kept last.
#[inline]
pub(super) fn get(key: &[u8], seed: u32) -> Option<u32> {
    if !is_kept(key) {
        return None;
    }
    LAST.with_borrow(|last| {
        (last.seed == seed && last.key[..last.len] == *key).then_some(last.hash)
    })
}

/// Keeps the hash of a key.
#[inline]
pub(super) fn keep(key: &[u8], seed: u32, hash: u32) {
    if is_kept(key) {
        LAST.with_borrow_mut(|last| {
            (last.seed, last.hash, last.len) = (seed, hash, key.len());
            last.key[..key.len()].copy_from_slice(key);
        });
    }
}
