//! Values in a row, at most so many: put in at the end, taken out at either end.
//!
//! Invariant: `len <= max_len`, and the values lie from place `first` on, around the end of the block.

use std::io;

use super::{Full, WORD, Words};

/// Not safe to use by several threads at once: the map has a lock.
#[derive(Debug)]
pub struct Fifo {
    places: Words,
    stride: usize,
    max_len: usize,
    first: usize,
    len: usize,
}

impl Fifo {
    /// Room for `max_len` values of `value_size` bytes.
    ///
    /// # Errors
    ///
    /// Those of the system: there is no such room.
    pub fn new(max_len: usize, value_size: usize) -> io::Result<Self> {
        let stride = value_size.div_ceil(WORD);
        let words = max_len
            .checked_mul(stride)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            places: Words::new(words)?,
            stride,
            max_len,
            first: 0,
            len: 0,
        })
    }

    /// Puts a value in at the end.
    ///
    /// # Errors
    ///
    /// If there is no room.
    pub fn push(&mut self, value: &[u8]) -> Result<(), Full> {
        if self.len == self.max_len {
            return Err(Full);
        }
        self.places.write(self.place(self.len), value);
        self.len += 1;
        Ok(())
    }

    /// Copies the oldest value out.
    pub fn first(&self, value: &mut [u8]) -> Option<()> {
        self.read(0, value)
    }

    /// Copies the newest value out.
    pub fn last(&self, value: &mut [u8]) -> Option<()> {
        self.read(self.len.checked_sub(1)?, value)
    }

    /// Takes the oldest value out.
    pub fn drop_first(&mut self) -> Option<()> {
        self.len = self.len.checked_sub(1)?;
        self.first = (self.first + 1) % self.max_len;
        Some(())
    }

    /// Takes the newest value out.
    pub fn drop_last(&mut self) -> Option<()> {
        self.len = self.len.checked_sub(1)?;
        Some(())
    }

    fn read(&self, index: usize, value: &mut [u8]) -> Option<()> {
        if index >= self.len {
            return None;
        }
        self.places.read(self.place(index), value);
        Some(())
    }

    /// The word where the value at `index` begins.
    fn place(&self, index: usize) -> usize {
        // Both are below `max_len`, which fits in 33 bits.
        (self.first + index) % self.max_len * self.stride
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::{Fifo, Full};

    #[test]
    fn goes_around_the_end() {
        let mut fifo = Fifo::new(3, 5).expect("memory");
        let mut out = [0; 5];
        assert_eq!(fifo.first(&mut out), None);
        for round in 0..10_u8 {
            for value in 0..3 {
                assert_eq!(fifo.push(&[round + value; 5]), Ok(()));
            }
            assert_eq!(fifo.push(&[0; 5]), Err(Full));
            assert_eq!(fifo.last(&mut out), Some(()));
            assert_eq!(out, [round + 2; 5]);
            assert_eq!(fifo.drop_last(), Some(()));
            for value in 0..2 {
                assert_eq!(fifo.first(&mut out), Some(()));
                assert_eq!(out, [round + value; 5]);
                assert_eq!(fifo.drop_first(), Some(()));
            }
            assert_eq!(fifo.drop_first(), None);
        }
    }
}
