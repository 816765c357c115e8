//! User space's side of a ring buffer: where positions, headers and data lie, how records are read and samples written.
//!
//! A page with the consumer's position; a page with the producer's; the data area, twice in a row in a mapping, so that a
//! record that goes around the end lies in one piece. Positions only grow. All numbers are of the machine's byte order.
//!
//! Source: `tools/lib/bpf/ringbuf.c` (v6.18).

use std::sync::atomic::{Ordering, fence};

use super::{
    Bpf, Errno, Fd, MapRequest, Mapping, PAGE_SIZE, RINGBUF_BUSY_BIT, RINGBUF_DISCARD_BIT,
    RINGBUF_HDR_SZ, Result, ringbuf_record_size,
};

/// The memory of a ring buffer. Who reads a position or a header sees all that its writer wrote before.
pub trait RingMemory {
    /// Bytes of the data area, a power of two.
    fn size(&self) -> u64;

    /// The consumer's position.
    ///
    /// # Errors
    ///
    /// Those of the memory.
    fn consumer(&self) -> Result<u64>;

    /// Moves the consumer.
    ///
    /// # Errors
    ///
    /// Those of the memory.
    fn set_consumer(&self, position: u64) -> Result<()>;

    /// The producer's position.
    ///
    /// # Errors
    ///
    /// Those of the memory.
    fn producer(&self) -> Result<u64>;

    /// Moves the producer.
    ///
    /// # Errors
    ///
    /// Those of the memory.
    fn set_producer(&self, position: u64) -> Result<()>;

    /// The 8 bytes at a position.
    ///
    /// # Errors
    ///
    /// Those of the memory.
    fn header(&self, position: u64) -> Result<[u8; 8]>;

    /// Sets the 8 bytes at a position.
    ///
    /// # Errors
    ///
    /// Those of the memory.
    fn set_header(&self, position: u64, header: [u8; 8]) -> Result<()>;

    /// Copies data of the record at a position out: the bytes behind its header, which may go on past the end of the area.
    ///
    /// # Errors
    ///
    /// Those of the memory.
    fn read(&self, record: u64, out: &mut [u8]) -> Result<()>;

    /// Copies data of the record at a position in.
    ///
    /// # Errors
    ///
    /// Those of the memory.
    fn write(&self, record: u64, bytes: &[u8]) -> Result<()>;
}

/// A record on the ring, as its header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// Where its header begins.
    pub position: u64,
    /// Bytes of its data.
    pub len: u32,
    /// It is not submitted yet.
    pub busy: bool,
    /// Nobody is to see it.
    pub discarded: bool,
    /// What the kernel notes there: how many pages into its memory the record is.
    pub pg_off: u32,
}

impl Record {
    /// The record at a position.
    ///
    /// # Errors
    ///
    /// Those of the memory.
    pub fn at(ring: &(impl RingMemory + ?Sized), position: u64) -> Result<Self> {
        let [a, b, c, d, pg_off @ ..] = ring.header(position)?;
        let word = u32::from_ne_bytes([a, b, c, d]);
        Ok(Self {
            position,
            len: word & !(RINGBUF_BUSY_BIT | RINGBUF_DISCARD_BIT),
            busy: word & RINGBUF_BUSY_BIT != 0,
            discarded: word & RINGBUF_DISCARD_BIT != 0,
            pg_off: u32::from_ne_bytes(pg_off),
        })
    }

    /// Where the next one begins.
    pub const fn end(&self) -> u64 {
        self.position.wrapping_add(ringbuf_record_size(self.len))
    }

    /// Copies its data.
    ///
    /// # Errors
    ///
    /// `EFAULT` if it is longer than the ring, as none is that a kernel wrote; those of the memory.
    pub fn read(&self, ring: &(impl RingMemory + ?Sized), data: &mut Vec<u8>) -> Result<()> {
        if ringbuf_record_size(self.len) > ring.size() {
            return Err(Errno::EFAULT);
        }
        data.resize(self.len as usize, 0);
        ring.read(self.position, data)
    }
}

/// The oldest record that is for the reader; none if there is none yet. Those that were discarded are passed over.
///
/// # Errors
///
/// Those of the memory.
pub fn next_record(ring: &(impl RingMemory + ?Sized)) -> Result<Option<Record>> {
    let mut position = ring.consumer()?;
    while position < ring.producer()? {
        let record = Record::at(ring, position)?;
        if record.busy {
            return Ok(None);
        }
        if !record.discarded {
            return Ok(Some(record));
        }
        position = record.end();
        ring.set_consumer(position)?;
    }
    Ok(None)
}

/// Writes a sample that programs drain.
///
/// # Errors
///
/// `E2BIG` if it never fits; `ENOSPC` if it does not fit now.
pub fn write_sample(ring: &(impl RingMemory + ?Sized), data: &[u8]) -> Result<()> {
    let len = u32::try_from(data.len())
        .ok()
        .filter(|len| len & (RINGBUF_BUSY_BIT | RINGBUF_DISCARD_BIT) == 0)
        .ok_or(Errno::E2BIG)?;
    let total = ringbuf_record_size(len);
    if total > ring.size() {
        return Err(Errno::E2BIG);
    }
    let (consumer, position) = (ring.consumer()?, ring.producer()?);
    // Whoever maps the ring can have put the producer behind the consumer: there is no room then.
    let used = position.wrapping_sub(consumer);
    if total > ring.size().saturating_sub(used) {
        return Err(Errno::ENOSPC);
    }
    ring.write(position, data)?;
    ring.set_header(position, header_of(len))?;
    ring.set_producer(position.wrapping_add(total))
}

/// The header that user space writes before a sample of that length, flags included.
pub fn header_of(len: u32) -> [u8; 8] {
    let mut header = [0; 8];
    header[..4].copy_from_slice(&len.to_ne_bytes());
    header
}

/// A ring buffer that is mapped: the consumer's page, and the rest.
#[derive(Debug)]
pub struct MappedRing {
    consumer: Box<dyn Mapping>,
    /// The producer's page, then the data area twice.
    rest: Box<dyn Mapping>,
    size: usize,
}

impl MappedRing {
    /// Maps a ring buffer of `size` bytes, writable where its user space writes.
    ///
    /// # Errors
    ///
    /// Those of mmap(2).
    pub fn new(bpf: &dyn Bpf, fd: Fd, size: usize, user_produces: bool) -> Result<Self> {
        let pages = |offset, len, write| bpf.mmap(fd, MapRequest::shared(offset, len, write));
        Ok(Self {
            consumer: pages(0, PAGE_SIZE, !user_produces)?,
            rest: pages(PAGE_SIZE as u64, PAGE_SIZE + 2 * size, user_produces)?,
            size,
        })
    }

    /// Where the byte of a position lies in the second mapping.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "cut to the size of the data area, a power of two"
    )]
    fn place(&self, position: u64) -> usize {
        PAGE_SIZE + (position as usize & self.size.wrapping_sub(1))
    }
}

/// Eight bytes whose writer's earlier writes are seen after.
fn acquire(mapping: &dyn Mapping, at: usize) -> Result<[u8; 8]> {
    let mut word = [0; 8];
    mapping.read(at, &mut word)?;
    fence(Ordering::Acquire);
    Ok(word)
}

/// Eight bytes whose reader sees what was written before.
fn release(mapping: &dyn Mapping, at: usize, word: [u8; 8]) -> Result<()> {
    fence(Ordering::Release);
    mapping.write(at, &word)
}

impl RingMemory for MappedRing {
    fn size(&self) -> u64 {
        self.size as u64
    }

    fn consumer(&self) -> Result<u64> {
        Ok(u64::from_ne_bytes(acquire(&*self.consumer, 0)?))
    }

    fn set_consumer(&self, position: u64) -> Result<()> {
        release(&*self.consumer, 0, position.to_ne_bytes())?;
        // Before the next look at the producer: else both sides could miss each other, and nobody would be woken.
        fence(Ordering::SeqCst);
        Ok(())
    }

    fn producer(&self) -> Result<u64> {
        Ok(u64::from_ne_bytes(acquire(&*self.rest, 0)?))
    }

    fn set_producer(&self, position: u64) -> Result<()> {
        release(&*self.rest, 0, position.to_ne_bytes())
    }

    fn header(&self, position: u64) -> Result<[u8; 8]> {
        acquire(&*self.rest, self.place(position))
    }

    fn set_header(&self, position: u64, header: [u8; 8]) -> Result<()> {
        release(&*self.rest, self.place(position), header)
    }

    fn read(&self, record: u64, out: &mut [u8]) -> Result<()> {
        self.rest.read(self.place(record) + RINGBUF_HDR_SZ, out)
    }

    fn write(&self, record: u64, bytes: &[u8]) -> Result<()> {
        self.rest.write(self.place(record) + RINGBUF_HDR_SZ, bytes)
    }
}
