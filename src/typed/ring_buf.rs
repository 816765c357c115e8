//! `RingBuf` and `UserRingBuf`: records between programs and user space, in memory that both map.
//!
//! Source: `tools/lib/bpf/ringbuf.c` (v6.18).

use std::ops::Deref;
use std::sync::atomic::{Ordering, fence};

use super::{Builder, Error, OwnedMap, TypedMap};
use crate::abi::{
    Errno, MapFlags, MapRequest, MapType, Mapping, PAGE_SIZE, RINGBUF_BUSY_BIT,
    RINGBUF_DISCARD_BIT, RINGBUF_HDR_SZ, Result as AbiResult, ringbuf_record_size,
};

const HEADER: usize = 8;
const _: () = assert!(HEADER as u64 == RINGBUF_HDR_SZ);

/// The memory of a ring buffer as user space has it.
#[derive(Debug)]
struct Pages {
    /// The consumer's page.
    consumer: Box<dyn Mapping>,
    /// The producer's page, then the data area twice in a row.
    producer: Box<dyn Mapping>,
    /// Bytes of the data area.
    size: usize,
}

/// The word at the beginning of a page: a position. What its writer wrote before is seen after.
fn position(page: &dyn Mapping) -> AbiResult<u64> {
    let mut word = [0; 8];
    page.read(0, &mut word)?;
    fence(Ordering::Acquire);
    Ok(u64::from_ne_bytes(word))
}

/// Moves a position. Who reads it sees what was written before.
fn set_position(page: &dyn Mapping, position: u64) -> AbiResult<()> {
    fence(Ordering::Release);
    page.write(0, &position.to_ne_bytes())
}

impl Pages {
    fn new(map: &OwnedMap, user_produces: bool) -> Result<Self, Error> {
        let size = map.info()?.max_entries as usize;
        let pages = |offset, len, write| {
            let request = MapRequest::shared(offset, len, write);
            map.bpf().mmap(map.fd(), request).map_err(Error::of("mmap"))
        };
        Ok(Self {
            consumer: pages(0, PAGE_SIZE, !user_produces)?,
            producer: pages(PAGE_SIZE as u64, PAGE_SIZE + 2 * size, user_produces)?,
            size,
        })
    }

    /// Where the byte of a position lies in the producer's mapping.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "cut to the size of the data area, a power of two"
    )]
    fn place(&self, position: u64) -> usize {
        PAGE_SIZE + (position as usize & self.size.wrapping_sub(1))
    }

    /// Reads the next record that is for the reader into `data`; where it ends. None if there is none yet.
    fn read_record(&self, data: &mut Vec<u8>) -> AbiResult<Option<u64>> {
        let mut at = position(&*self.consumer)?;
        loop {
            if at >= position(&*self.producer)? {
                return Ok(None);
            }
            let mut header = [0; HEADER];
            self.producer.read(self.place(at), &mut header)?;
            fence(Ordering::Acquire);
            let word = u32::from_ne_bytes(*header.first_chunk().expect("a header has 8 bytes"));
            if word & RINGBUF_BUSY_BIT != 0 {
                return Ok(None);
            }
            let len = word & !RINGBUF_DISCARD_BIT;
            let end = at.wrapping_add(ringbuf_record_size(len));
            if word & RINGBUF_DISCARD_BIT == 0 {
                data.resize(len as usize, 0);
                self.producer.read(self.place(at) + HEADER, data)?;
                return Ok(Some(end));
            }
            at = end;
            set_position(&*self.consumer, at)?;
        }
    }

    /// # Errors
    ///
    /// `E2BIG`, `ENOSPC`.
    fn write_record(&self, data: &[u8]) -> AbiResult<()> {
        let len = u32::try_from(data.len())
            .ok()
            .filter(|len| len & (RINGBUF_BUSY_BIT | RINGBUF_DISCARD_BIT) == 0)
            .ok_or(Errno::E2BIG)?;
        let (total, size) = (ringbuf_record_size(len), self.size as u64);
        if total > size {
            return Err(Errno::E2BIG);
        }
        let (consumer, at) = (position(&*self.consumer)?, position(&*self.producer)?);
        if total > size.saturating_sub(at.wrapping_sub(consumer)) {
            return Err(Errno::ENOSPC);
        }
        let place = self.place(at);
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&len.to_ne_bytes());
        self.producer.write(place + HEADER, data)?;
        self.producer.write(place, &header)?;
        set_position(&*self.producer, at.wrapping_add(total))
    }
}

/// A map of type `BPF_MAP_TYPE_RINGBUF`, and its reader: records that programs make.
///
/// There is to be one reader at a time. It does not wait: [`RingBuf::next`] gives what is there.
///
/// ```
/// use mapemu::Kernel;
/// use mapemu::helper::Prog;
/// use mapemu::typed::RingBuf;
///
/// let kernel = Kernel::new();
/// let mut events = RingBuf::builder().max_entries(4096).create(&kernel)?;
/// let map = kernel.map(events.map().fd()).unwrap();
/// Prog::sched_cls(0).ringbuf_output(&map, b"hello", 0).unwrap();
/// assert_eq!(&*events.next()?.unwrap(), b"hello");
/// assert!(events.next()?.is_none());
/// # Ok::<(), mapemu::typed::Error>(())
/// ```
#[derive(Debug)]
pub struct RingBuf {
    map: OwnedMap,
    pages: Pages,
    data: Vec<u8>,
}

impl RingBuf {
    /// A map to be made; `max_entries` is the number of bytes, a power of two and a multiple of the page size.
    pub fn builder() -> Builder<Self> {
        Builder::new()
    }

    /// The map behind it, for calls by bytes.
    pub fn map(&self) -> &OwnedMap {
        &self.map
    }

    /// The oldest record; none if there is none, or it is not submitted yet. Its room is free again when the item is
    /// dropped.
    ///
    /// # Errors
    ///
    /// `EFAULT` if the record reaches out of the ring, because somebody else moved the consumer's position.
    #[expect(
        clippy::should_implement_trait,
        reason = "an item borrows the reader: there is one at a time"
    )]
    pub fn next(&mut self) -> Result<Option<RingBufItem<'_>>, Error> {
        let record = self.pages.read_record(&mut self.data);
        let end = record.map_err(Error::of("ringbuf_read"))?;
        Ok(end.map(|end| RingBufItem {
            data: &self.data,
            consumer: &*self.pages.consumer,
            end,
        }))
    }
}

impl TypedMap for RingBuf {
    type Key = ();
    type Value = ();
    const MAP_TYPE: MapType = MapType::RINGBUF;
    const MAP_FLAGS: MapFlags = MapFlags::empty();

    fn over(map: OwnedMap) -> Result<Self, Error> {
        Ok(Self {
            pages: Pages::new(&map, false)?,
            map,
            data: Vec::new(),
        })
    }
}

/// The bytes of a record. When it is dropped, the record is read.
#[derive(Debug)]
pub struct RingBufItem<'a> {
    data: &'a [u8],
    consumer: &'a dyn Mapping,
    end: u64,
}

impl Deref for RingBufItem<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.data
    }
}

impl Drop for RingBufItem<'_> {
    fn drop(&mut self) {
        set_position(self.consumer, self.end).expect("the consumer's page was made writable");
    }
}

/// A map of type `BPF_MAP_TYPE_USER_RINGBUF`, and its writer: samples that programs drain.
///
/// There is to be one writer at a time.
///
/// ```
/// use mapemu::Kernel;
/// use mapemu::abi::Errno;
/// use mapemu::typed::UserRingBuf;
///
/// let kernel = Kernel::new();
/// let mut samples = UserRingBuf::builder().max_entries(4096).create(&kernel)?;
/// samples.output(b"hello")?;
/// assert_eq!(samples.output(&[0; 4088]).unwrap_err().errno, Errno::ENOSPC, "not now");
/// assert_eq!(samples.output(&[0; 4096]).unwrap_err().errno, Errno::E2BIG, "never");
/// # Ok::<(), mapemu::typed::Error>(())
/// ```
#[derive(Debug)]
pub struct UserRingBuf {
    map: OwnedMap,
    pages: Pages,
}

impl UserRingBuf {
    /// A map to be made; `max_entries` is the number of bytes, a power of two and a multiple of the page size.
    pub fn builder() -> Builder<Self> {
        Builder::new()
    }

    /// The map behind it, for calls by bytes.
    pub fn map(&self) -> &OwnedMap {
        &self.map
    }

    /// Writes a sample. Does not wait.
    ///
    /// # Errors
    ///
    /// `E2BIG` if it never fits; `ENOSPC` if it does not fit now.
    #[doc(alias = "user_ring_buffer__reserve")]
    #[doc(alias = "user_ring_buffer__submit")]
    pub fn output(&mut self, data: &[u8]) -> Result<(), Error> {
        let written = self.pages.write_record(data);
        written.map_err(Error::of("user_ringbuf_output"))
    }
}

impl TypedMap for UserRingBuf {
    type Key = ();
    type Value = ();
    const MAP_TYPE: MapType = MapType::USER_RINGBUF;
    const MAP_FLAGS: MapFlags = MapFlags::empty();

    fn over(map: OwnedMap) -> Result<Self, Error> {
        Ok(Self {
            pages: Pages::new(&map, true)?,
            map,
        })
    }
}
