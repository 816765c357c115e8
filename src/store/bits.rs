//! A set of numbers, as bits that are only ever set. No lock: a set bit is seen at the latest when the threads meet.

use std::io;
use std::sync::atomic::Ordering;

use super::Words;

const BITS: u64 = u64::BITS as u64;

/// See the module.
#[derive(Debug)]
pub struct Bits {
    words: Words,
}

impl Bits {
    /// The empty set of numbers below `len`.
    ///
    /// # Errors
    ///
    /// Those of the system: there is no such room.
    pub fn new(len: u64) -> io::Result<Self> {
        let words = usize::try_from(len.div_ceil(BITS)).map_err(|_| io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            words: Words::new(words)?,
        })
    }

    /// Puts a number in. Writes nothing if it is there.
    pub fn set(&self, number: u32) {
        if !self.is_set(number) {
            let (word, bit) = place(number);
            self.words.word(word).fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Whether a number is in it.
    pub fn is_set(&self, number: u32) -> bool {
        let (word, bit) = place(number);
        self.words.word(word).load(Ordering::Relaxed) & bit != 0
    }
}

/// The index of the word, and the bit in it.
fn place(number: u32) -> (usize, u64) {
    ((number / u64::BITS) as usize, 1 << (number % u64::BITS))
}
