//! The `bpf_spin_lock` in a value.
//!
//! The lock is where the value is, as in the kernel, so whoever reaches the value by another way contends for the same
//! lock. A holder may be a thread that does not run at the moment: waiters spin a little, then give way.
//!
//! Kernel: `kernel/bpf/helpers.c:bpf_spin_lock`, `copy_map_value_locked` (v6.18).

use std::hint;
use std::sync::atomic::Ordering;
use std::thread;

use crate::store::{WORD, Words};

/// Rounds of spinning before a waiter gives way to other threads.
const SPINS: u32 = 64;

/// Holds a lock; lets go of it at the end of its life.
#[derive(Debug)]
pub struct SpinGuard<'w> {
    words: &'w Words,
    word: usize,
    bit: u64,
}

impl<'w> SpinGuard<'w> {
    /// Waits for the lock in the four bytes from `at_byte` on, and takes it.
    pub fn lock(words: &'w Words, at_byte: usize) -> Self {
        let mut spins = 0;
        loop {
            if let Some(guard) = Self::try_lock(words, at_byte) {
                return guard;
            }
            if spins < SPINS {
                spins += 1;
                hint::spin_loop();
            } else {
                thread::yield_now();
            }
        }
    }

    /// Takes the lock, if nobody holds it.
    pub fn try_lock(words: &'w Words, at_byte: usize) -> Option<Self> {
        let word = at_byte / WORD;
        let mut bytes = [0; WORD];
        bytes[at_byte % WORD] = 1;
        let bit = u64::from_ne_bytes(bytes);
        // A look first, so that waiters do not take the memory from each other.
        let is_free = words.word(word).load(Ordering::Relaxed) & bit == 0
            && words.word(word).fetch_or(bit, Ordering::Acquire) & bit == 0;
        // Made only now: a guard that is dropped unlocks.
        is_free.then(|| Self { words, word, bit })
    }
}

impl Drop for SpinGuard<'_> {
    fn drop(&mut self) {
        self.words
            .word(self.word)
            .fetch_and(!self.bit, Ordering::Release);
    }
}
