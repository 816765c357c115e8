//! `RingBuf` and `UserRingBuf`: records between programs and user space, in memory that both map.
//!
//! Source: `tools/lib/bpf/ringbuf.c` (v6.18).

use std::ops::Deref;
use std::thread;
use std::time::{Duration, Instant};

use super::{Builder, Error, OwnedMap, TypedMap};
use crate::abi::{
    MapFlags, MapType, MappedRing, Result as AbiResult, RingMemory, next_record, write_sample,
};

fn mapped(map: &OwnedMap, user_produces: bool) -> Result<MappedRing, Error> {
    let size = map.info()?.max_entries as usize;
    let ring = MappedRing::new(map.bpf(), map.fd(), size, user_produces);
    ring.map_err(Error::of("mmap"))
}

/// A map of type `BPF_MAP_TYPE_RINGBUF`, and its reader: records that programs make.
///
/// There is to be one reader at a time: [`RingBuf::next`] gives what is there, [`RingBuf::next_blocking`] waits.
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
    ring: MappedRing,
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
        let end = self.read().map_err(Error::of("ringbuf_read"))?;
        Ok(end.map(|end| self.item(end)))
    }

    /// The oldest record, as [`RingBuf::next`]; waits for it until the time is over (forever, without one).
    ///
    /// Programs wake who waits unless they submit with `BPF_RB_NO_WAKEUP`, or the reader has not yet read all that was there
    /// before; a record that wakes nobody is found when another one wakes, or at the end of the time.
    ///
    /// # Errors
    ///
    /// Those of [`RingBuf::next`], and of waiting.
    #[doc(alias = "ring_buffer__poll")]
    pub fn next_blocking(
        &mut self,
        timeout: Option<Duration>,
    ) -> Result<Option<RingBufItem<'_>>, Error> {
        let over = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if let Some(end) = self.read().map_err(Error::of("ringbuf_read"))? {
                return Ok(Some(self.item(end)));
            }
            let left = over.map(|over| over.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(None);
            }
            let polled = self.map.bpf().poll(self.map.fd(), left);
            if polled.map_err(Error::of("poll"))?.is_empty() {
                continue;
            }
            // What is there may be busy still.
            thread::yield_now();
        }
    }

    /// Reads the oldest record; where it ends.
    fn read(&mut self) -> AbiResult<Option<u64>> {
        let Some(record) = next_record(&self.ring)? else {
            return Ok(None);
        };
        record.read(&self.ring, &mut self.data)?;
        Ok(Some(record.end()))
    }

    fn item(&self, end: u64) -> RingBufItem<'_> {
        RingBufItem {
            data: &self.data,
            ring: &self.ring,
            end,
        }
    }
}

impl TypedMap for RingBuf {
    type Key = ();
    type Value = ();
    const MAP_TYPE: MapType = MapType::RINGBUF;
    const MAP_FLAGS: MapFlags = MapFlags::empty();

    fn over(map: OwnedMap) -> Result<Self, Error> {
        Ok(Self {
            ring: mapped(&map, false)?,
            map,
            data: Vec::new(),
        })
    }
}

/// The bytes of a record. When it is dropped, the record is read.
#[derive(Debug)]
pub struct RingBufItem<'a> {
    data: &'a [u8],
    ring: &'a MappedRing,
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
        let moved = self.ring.set_consumer(self.end);
        moved.expect("the consumer's page was made writable");
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
    ring: MappedRing,
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
        let written = write_sample(&self.ring, data);
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
            ring: mapped(&map, true)?,
            map,
        })
    }
}
