//! Sets of numbers of fds, which are asked without a lock: on the way of every close(2) and mmap(2).

use std::ffi::c_uint;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};

const WORDS: usize = 1024;
const WORD_BITS: usize = 64;

/// How many numbers, from 0 on, can be in a set.
pub(super) const COUNT: usize = WORDS * WORD_BITS;

/// See the module.
#[derive(Debug)]
pub(super) struct Numbers([AtomicU64; WORDS]);

impl Numbers {
    pub(super) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }

    /// The word and the bit of a number.
    #[inline(always)]
    fn bit(&self, fd: RawFd) -> Option<(&AtomicU64, u64)> {
        let at = usize::try_from(fd).ok()?;
        Some((self.0.get(at / WORD_BITS)?, 1 << (at % WORD_BITS)))
    }

    /// It is in the set.
    #[inline(always)]
    pub(super) fn has(&self, fd: RawFd) -> bool {
        self.bit(fd)
            .is_some_and(|(word, bit)| word.load(Ordering::Acquire) & bit != 0)
    }

    /// It is in the set from here on, unless it is too high.
    pub(super) fn add(&self, fd: RawFd) {
        if let Some((word, bit)) = self.bit(fd) {
            word.fetch_or(bit, Ordering::AcqRel);
        }
    }

    /// It is not in the set from here on.
    pub(super) fn remove(&self, fd: RawFd) {
        if let Some((word, bit)) = self.bit(fd) {
            word.fetch_and(!bit, Ordering::AcqRel);
        }
    }

    /// Those from `first` to `last`.
    pub(super) fn within(&self, first: c_uint, last: c_uint) -> impl Iterator<Item = RawFd> {
        let end = COUNT.min(last as usize + 1);
        let mut at = first as usize;
        std::iter::from_fn(move || {
            while at < end {
                let left = self.0[at / WORD_BITS].load(Ordering::Acquire) >> (at % WORD_BITS);
                if left == 0 {
                    at = (at / WORD_BITS + 1) * WORD_BITS;
                    continue;
                }
                let found = at + left.trailing_zeros() as usize;
                at = found + 1;
                return (found < end).then(|| RawFd::try_from(found).expect("a small number"));
            }
            None
        })
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = RawFd> {
        self.within(0, c_uint::MAX)
    }
}
