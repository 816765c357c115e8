//! A ring of records in memory that can be mapped: a page with the consumer's position, a page with the producer's, the data.
//!
//! Positions only grow; the place in the data is the position modulo the size. Whoever maps it puts the pages of data there
//! twice in a row, so that a record that goes around the end lies in one piece. Here it is copied in two; or, for those who
//! cannot map pages twice, the memory holds the data twice (doubled): what is written here goes to both places, and what they
//! write lies in one piece from the first on.
//!
//! Kernel: `kernel/bpf/ringbuf.c:struct bpf_ringbuf` (v6.18).

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{AtomicU64, WORD, Words};

/// See the module.
#[derive(Debug)]
pub struct Ring {
    words: Arc<Words>,
    /// Bytes of data, a power of two.
    size: u64,
    page_size: usize,
    doubled: bool,
}

/// What stands before a record's data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Length of the data, and flags.
    pub len: u32,
    /// A second number; the kernel writes a page number there.
    pub page: u32,
}

impl Header {
    /// From its bytes in memory.
    pub fn from_ne_bytes([a, b, c, d, e, f, g, h]: [u8; 8]) -> Self {
        Self {
            len: u32::from_ne_bytes([a, b, c, d]),
            page: u32::from_ne_bytes([e, f, g, h]),
        }
    }

    /// Its bytes in memory.
    pub fn to_ne_bytes(self) -> [u8; 8] {
        let [a, b, c, d] = self.len.to_ne_bytes();
        let [e, f, g, h] = self.page.to_ne_bytes();
        [a, b, c, d, e, f, g, h]
    }
}

impl Ring {
    /// An empty ring of `size` bytes of data, a power of two and a multiple of the page size.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn new(size: usize, page_size: usize, doubled: bool) -> io::Result<Self> {
        assert!(size.is_power_of_two() && size.is_multiple_of(page_size));
        let data = if doubled { 2 * size } else { size };
        let words = Words::in_file((2 * page_size + data) / WORD)?;
        Ok(Self {
            words: Arc::new(words),
            size: size as u64,
            page_size,
            doubled,
        })
    }

    /// The memory; it has a second copy of the data if that is doubled.
    pub fn words(&self) -> &Arc<Words> {
        &self.words
    }

    /// The memory holds the data twice.
    pub fn is_doubled(&self) -> bool {
        self.doubled
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

    /// A word of the producer's page.
    fn of_producer(&self, at: usize) -> &AtomicU64 {
        self.words.word(self.page_size / WORD + at)
    }

    /// The producer's position.
    pub fn producer(&self) -> u64 {
        self.of_producer(0).load(Ordering::Acquire)
    }

    /// Moves the producer: what was written before is seen by who sees the position.
    pub fn set_producer(&self, position: u64) {
        self.of_producer(0).store(position, Ordering::Release);
    }

    /// The position of the oldest record that may be busy: the word behind the producer's position.
    pub fn pending(&self) -> u64 {
        self.of_producer(1).load(Ordering::Relaxed)
    }

    /// Sets it; one thread at a time.
    pub fn set_pending(&self, position: u64) {
        self.of_producer(1).store(position, Ordering::Relaxed);
    }

    /// Where the oldest record is that is not overwritten: the word behind that.
    pub fn overwritten(&self) -> u64 {
        self.of_producer(2).load(Ordering::Acquire)
    }

    /// Sets it; one thread at a time. Who sees the records behind it begin sees that they moved.
    pub fn set_overwritten(&self, position: u64) {
        self.of_producer(2).store(position, Ordering::Release);
    }

    /// The place of a position in the data.
    pub fn place(&self, position: u64) -> u64 {
        position & (self.size - 1)
    }

    /// The header at a position, a multiple of 8.
    pub fn header(&self, position: u64) -> Header {
        let word = self.words.word(self.byte(position) / WORD);
        Header::from_ne_bytes(word.load(Ordering::SeqCst).to_ne_bytes())
    }

    /// Writes the header at a position, a multiple of 8: what was written before is seen by who sees it.
    pub fn set_header(&self, position: u64, header: Header) {
        self.store_header(position, header, Ordering::SeqCst);
    }

    /// Writes the header at the producer's position: it is seen by who sees that the producer moved on.
    pub fn begin(&self, position: u64, header: Header) {
        self.store_header(position, header, Ordering::Relaxed);
    }

    fn store_header(&self, position: u64, header: Header, order: Ordering) {
        let word = u64::from_ne_bytes(header.to_ne_bytes());
        // The first copy last: who finds the header there finds all that belongs to it.
        for at in self.places(self.byte(position)).rev() {
            self.words.word(at / WORD).store(word, order);
        }
    }

    /// Copies bytes of the record at a position out, from that offset in it on.
    pub fn read(&self, record: u64, offset: usize, out: &mut [u8]) {
        if self.doubled {
            // In one piece, as its writer wrote it: what is past the end is in the second copy.
            return self.read_piece(self.byte(record) + offset, out);
        }
        let mut position = record.wrapping_add(offset as u64);
        let mut rest = out;
        while !rest.is_empty() {
            let (now, later) = rest.split_at_mut(self.piece(position, rest.len()));
            self.read_piece(self.byte(position), now);
            position = position.wrapping_add(now.len() as u64);
            rest = later;
        }
    }

    fn read_piece(&self, from: usize, out: &mut [u8]) {
        if from.is_multiple_of(WORD) {
            self.words.read(from / WORD, out);
        } else {
            self.words.read_bytes(from, out);
        }
    }

    /// Copies bytes in, from a position on; bytes beside them stay.
    pub fn write(&self, position: u64, bytes: &[u8]) {
        let mut position = position;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(self.piece(position, rest.len()));
            for to in self.places(self.byte(position)) {
                if to.is_multiple_of(WORD) {
                    self.words.write(to / WORD, now);
                } else {
                    self.words.write_bytes(to, now);
                }
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

    /// Where a byte of the first copy of the data is: there, and in the second.
    fn places(&self, byte: usize) -> impl DoubleEndedIterator<Item = usize> {
        let size = usize::try_from(self.size).expect("the ring is in memory");
        let copies = if self.doubled { 2 } else { 1 };
        (0..copies).map(move |copy| byte + copy * size)
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
    fn goes_around_the_end() {
        for doubled in [false, true] {
            let ring = Ring::new(4096, 4096, doubled).expect("memory");
            let bytes: Vec<u8> = (0..=255).collect();
            for position in [4096 * 3 - 100, 4096 * 5 - 96, 7] {
                ring.write(position, &bytes);
                let mut out = [0; 256];
                ring.read(position, 0, &mut out);
                assert_eq!(out.as_slice(), bytes, "at {position}");
            }
        }
    }

    #[test]
    fn both_copies_are_written_and_one_piece_is_read() {
        let ring = Ring::new(4096, 4096, true).expect("memory");
        let bytes: Vec<u8> = (0..16).collect();
        ring.write(4088, &bytes);
        for copy in [8192, 8192 + 4096] {
            let (mut first, mut last) = ([0; 8], [0; 8]);
            ring.words().read_bytes(copy + 4088, &mut first);
            ring.words().read_bytes(copy, &mut last);
            assert_eq!([first, last].concat(), bytes);
        }
        // Who maps it writes past the end of the first copy.
        ring.words().write_bytes(8192 + 4096, &[7; 8]);
        let mut out = [0; 16];
        ring.read(4088, 0, &mut out);
        assert_eq!(out[8..], [7; 8]);
    }
}
