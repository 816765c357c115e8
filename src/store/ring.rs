//! A ring of records in memory that can be mapped: a page with the consumer's position, a page with the producer's, the data.
//!
//! Positions only grow; the place in the data is the position modulo the size. Whoever maps it puts the pages of data there
//! twice in a row, so that a record that goes around the end lies in one piece. Here it is copied in two.
//!
//! A ring in line has both copies in its memory. What is written here is written to both; what user space writes lies in one
//! piece from the beginning of a record on, and is read so.
//!
//! Kernel: `kernel/bpf/ringbuf.c:struct bpf_ringbuf` (v6.18).

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{WORD, Words};

/// See the module.
#[derive(Debug)]
pub struct Ring {
    words: Arc<Words>,
    /// Bytes of data, a power of two.
    size: u64,
    page_size: usize,
    in_line: bool,
}

/// What stands before a record's data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Length of the data, and flags.
    pub len: u32,
    /// A second number; the kernel writes a page number there.
    pub page: u32,
}

impl Ring {
    /// An empty ring of `size` bytes of data, a power of two and a multiple of the page size.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn new(size: usize, page_size: usize) -> io::Result<Self> {
        Self::with_copies(1, size, page_size)
    }

    /// One with both copies of the data in its memory.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn in_line(size: usize, page_size: usize) -> io::Result<Self> {
        Self::with_copies(2, size, page_size)
    }

    fn with_copies(copies: usize, size: usize, page_size: usize) -> io::Result<Self> {
        assert!(size.is_power_of_two() && size.is_multiple_of(page_size));
        let words = Words::in_file((2 * page_size + copies * size) / WORD)?;
        Ok(Self {
            words: Arc::new(words),
            size: size as u64,
            page_size,
            in_line: copies == 2,
        })
    }

    /// The memory; without the second copy of the data, if that is not in line.
    pub fn words(&self) -> &Arc<Words> {
        &self.words
    }

    /// Both copies of the data are in its memory.
    pub fn is_in_line(&self) -> bool {
        self.in_line
    }

    /// Bytes of data.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The consumer's position.
    pub fn consumer(&self) -> u64 {
        self.words.word(0).load(Ordering::SeqCst)
    }

    /// Moves the consumer.
    pub fn set_consumer(&self, position: u64) {
        // All of this is sequentially consistent, as a producer looks at it right after it made a record visible, and the
        // consumer looks for records right after it moved: one of them has to see the other.
        self.words.word(0).store(position, Ordering::SeqCst);
    }

    /// The producer's position.
    pub fn producer(&self) -> u64 {
        self.words
            .word(self.page_size / WORD)
            .load(Ordering::Acquire)
    }

    /// Moves the producer: what was written before is seen by who sees the position.
    pub fn set_producer(&self, position: u64) {
        self.words
            .word(self.page_size / WORD)
            .store(position, Ordering::Release);
    }

    /// The place of a position in the data.
    pub fn place(&self, position: u64) -> u64 {
        position & (self.size - 1)
    }

    /// The header at a position, a multiple of 8.
    pub fn header(&self, position: u64) -> Header {
        let word = self.words.word(self.byte(position) / WORD);
        let bytes = word.load(Ordering::SeqCst).to_ne_bytes();
        let [a, b, c, d, e, f, g, h] = bytes;
        Header {
            len: u32::from_ne_bytes([a, b, c, d]),
            page: u32::from_ne_bytes([e, f, g, h]),
        }
    }

    /// Writes the header at a position, a multiple of 8: what was written before is seen by who sees it.
    pub fn set_header(&self, position: u64, header: Header) {
        let [a, b, c, d] = header.len.to_ne_bytes();
        let [e, f, g, h] = header.page.to_ne_bytes();
        let word = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
        self.words
            .word(self.byte(position) / WORD)
            .store(word, Ordering::SeqCst);
    }

    /// Copies bytes out, from a position on.
    pub fn read(&self, position: u64, out: &mut [u8]) {
        let mut position = position;
        let mut rest = out;
        while !rest.is_empty() {
            let (now, later) = rest.split_at_mut(self.piece(position, rest.len()));
            let from = self.byte(position);
            if from.is_multiple_of(WORD) {
                self.words.read(from / WORD, now);
            } else {
                self.words.read_bytes(from, now);
            }
            position = position.wrapping_add(now.len() as u64);
            rest = later;
        }
    }

    /// Copies bytes out of a record that begins at a position, from `offset` on: they lie in one piece where there are both
    /// copies of the data.
    pub fn read_record(&self, position: u64, offset: u64, out: &mut [u8]) {
        if !self.in_line {
            return self.read(position.wrapping_add(offset), out);
        }
        let offset = usize::try_from(offset).expect("a record is in memory");
        self.words.read_bytes(self.byte(position) + offset, out);
    }

    /// Copies bytes in, from a position on; bytes beside them stay.
    pub fn write(&self, position: u64, bytes: &[u8]) {
        let mut position = position;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(self.piece(position, rest.len()));
            let to = self.byte(position);
            if to.is_multiple_of(WORD) {
                self.words.write(to / WORD, now);
            } else {
                self.words.write_bytes(to, now);
            }
            if self.in_line {
                let copy = usize::try_from(self.size).expect("the ring is in memory");
                self.words.write_bytes(to + copy, now);
            }
            position = position.wrapping_add(now.len() as u64);
            rest = later;
        }
    }

    /// How many of `len` bytes lie before the end of the data.
    fn piece(&self, position: u64, len: usize) -> usize {
        let left = self.size - self.place(position);
        usize::try_from(left).map_or(len, |left| left.min(len))
    }

    /// The byte of the memory at a position.
    fn byte(&self, position: u64) -> usize {
        let place = usize::try_from(self.place(position)).expect("the ring is in memory");
        2 * self.page_size + place
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::Ring;

    #[test]
    fn in_line_both_copies_are_written_and_a_record_is_one_piece() {
        let ring = Ring::in_line(4096, 4096).expect("memory");
        let bytes: Vec<u8> = (0..=255).collect();
        let position = 4096 * 3 - 104;
        ring.write(position, &bytes);
        let mut out = [0; 256];
        ring.read_record(position, 0, &mut out);
        assert_eq!(out.as_slice(), bytes);
        let words = ring.words();
        let mut first = [0; 152];
        words.read_bytes(2 * 4096, &mut first);
        assert_eq!(first, bytes[104..], "around the end");
        // As user space writes it: behind the first copy, and not at its beginning.
        words.write_bytes(2 * 4096 + 4096, &[7; 8]);
        ring.read_record(position, 104, &mut out[..8]);
        assert_eq!(out[..8], [7; 8]);
    }

    #[test]
    fn goes_around_the_end() {
        let ring = Ring::new(4096, 4096).expect("memory");
        let bytes: Vec<u8> = (0..=255).collect();
        for position in [4096 * 3 - 100, 4096 * 5 - 96, 7] {
            ring.write(position, &bytes);
            let mut out = [0; 256];
            ring.read(position, &mut out);
            assert_eq!(out.as_slice(), bytes, "at {position}");
        }
    }
}
