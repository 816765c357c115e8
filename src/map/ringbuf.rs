//! `BPF_MAP_TYPE_RINGBUF` and `BPF_MAP_TYPE_USER_RINGBUF`: records from programs to user space, and the other way.
//!
//! Here is the kernel's side. User space reads and writes the memory: [`ringbuf_user`](super::ringbuf_user).
//!
//! Kernel: `kernel/bpf/ringbuf.c` (v6.18).

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::signal::Signal;
use super::{MapDef, MapOps};
use crate::abi::{
    Errno, MapFlags, MapRequest, MapType, PollEvents, RINGBUF_BUSY_BIT, RINGBUF_DISCARD_BIT,
    RINGBUF_HDR_SZ, Result, RingbufFlags, ringbuf_query, ringbuf_record_size,
};
use crate::env::{Env, PAGE_SIZE, Release};
use crate::store::{Header, Ring, Words};

/// Bytes of data of the longest record.
const MAX_RECORD: u64 = u32::MAX as u64 / 4;
/// Bytes of data of the longest sample that a drain hands over: a dynptr holds no more.
const MAX_DYNPTR: u32 = (1 << 24) - 1;
/// Samples that one drain looks at.
const MAX_SAMPLES: u32 = 128 * 1024;
/// Pages of the kernel's own before the consumer's page, and the two pages of positions: where page numbers in headers
/// begin.
const FIRST_DATA_PAGE: u64 = 3;
/// Pages of positions, which can be mapped.
const POSITION_PAGES: usize = 2;

/// Both types.
#[derive(Debug)]
pub struct Ringbuf {
    ring: Ring,
    /// User space is the producer.
    user_produces: bool,
    /// Locked by who reserves.
    reserving: Mutex<()>,
    draining: AtomicBool,
    /// Its oldest records go where there is no room, read or not.
    overwrites: bool,
    release: &'static Release,
    signal: Signal,
}

/// A record that a program has reserved: to be submitted or discarded.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "the verifier refuses a program that neither submits nor discards a record"]
pub struct Reservation {
    position: u64,
    len: u32,
}

impl Reservation {
    /// Bytes of data.
    pub fn size(&self) -> usize {
        self.len as usize
    }

    /// The position of its data.
    ///
    /// # Panics
    ///
    /// If `len` bytes from `offset` on do not lie in it.
    fn position_of(&self, offset: usize, len: usize) -> u64 {
        assert!(
            offset <= self.size() && len <= self.size() - offset,
            "the verifier refuses: {len} bytes at {offset} are outside of a record of {} bytes",
            self.len
        );
        self.position + (RINGBUF_HDR_SZ + offset) as u64
    }
}

/// A sample that a drain hands to its callback: a read-only dynptr.
#[derive(Debug)]
pub struct Sample<'a> {
    ring: &'a Ring,
    position: u64,
    len: u32,
}

impl Sample<'_> {
    /// Bytes of data.
    pub fn size(&self) -> usize {
        self.len as usize
    }

    /// Copies bytes out, as `bpf_dynptr_read`.
    ///
    /// # Errors
    ///
    /// `E2BIG` if there are not so many.
    ///
    /// Kernel: `kernel/bpf/helpers.c:bpf_dynptr_read`.
    pub fn read(&self, offset: usize, out: &mut [u8]) -> Result<()> {
        if out.len() > self.size() || offset > self.size() - out.len() {
            return Err(Errno::E2BIG);
        }
        self.ring.read(self.position, RINGBUF_HDR_SZ + offset, out);
        Ok(())
    }

    /// A copy of all bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = vec![0; self.size()];
        self.read(0, &mut out).expect("it has so many");
        out
    }
}

/// What lies at the consumer's position of a user ring.
enum Next<'a> {
    Empty,
    Discarded(u64),
    Sample(Sample<'a>),
}

/// A drain under way, even if its callback panics.
struct Draining<'a>(&'a AtomicBool);

impl Drop for Draining<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Ringbuf {
    /// The empty ring.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// Kernel: `ringbuf_map_alloc`.
    pub(super) fn new(def: &MapDef, env: &Arc<Env>) -> Result<Self> {
        let size = def.max_entries as usize;
        Ok(Self {
            ring: Ring::new(size, PAGE_SIZE, env.doubled_rings).map_err(|_| Errno::ENOMEM)?,
            user_produces: def.map_type == MapType::USER_RINGBUF,
            reserving: Mutex::new(()),
            draining: AtomicBool::new(false),
            overwrites: def.map_flags.contains(MapFlags::RB_OVERWRITE),
            release: env.release,
            signal: Signal::default(),
        })
    }

    /// Whether user space is the producer (`USER_RINGBUF`).
    pub fn user_produces(&self) -> bool {
        self.user_produces
    }

    /// The ring itself, as user space maps it.
    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Makes room for a record. `None`: `flags` is not 0, it is too long, or there is no room.
    ///
    /// # Panics
    ///
    /// If user space is the producer: the verifier refuses.
    ///
    /// Kernel: `bpf_ringbuf_reserve`.
    pub fn reserve(&self, size: u64, flags: u64) -> Option<Reservation> {
        if flags == 0 { self.make(size) } else { None }
    }

    /// Kernel: `__bpf_ringbuf_reserve`.
    fn make(&self, size: u64) -> Option<Reservation> {
        self.expect_kind(false);
        let len = u32::try_from(size).ok().filter(|_| size <= MAX_RECORD)?;
        let total = ringbuf_record_size(len);
        if total > self.ring.size() {
            return None;
        }
        let _reserving = self.reserving.lock();
        let position = self.ring.producer();
        let mut pending = self.ring.pending();
        while pending < position {
            let header = self.ring.header(pending);
            if header.len & RINGBUF_BUSY_BIT != 0 {
                break;
            }
            pending += ringbuf_record_size(header.len & !RINGBUF_DISCARD_BIT);
        }
        self.ring.set_pending(pending);
        let end = position + total;
        let most = self.ring.size() - 1;
        let unread = end.wrapping_sub(self.ring.consumer());
        if end - pending > most || unread > most && !self.overwrites {
            return None;
        }
        if self.overwrites {
            let mut oldest = self.ring.overwritten();
            while end - oldest > most {
                let header = self.ring.header(oldest);
                oldest += ringbuf_record_size(header.len & !RINGBUF_DISCARD_BIT);
            }
            self.ring.set_overwritten(oldest);
        }
        let page = FIRST_DATA_PAGE + self.ring.place(position) / PAGE_SIZE as u64;
        let header = Header {
            len: len | RINGBUF_BUSY_BIT,
            page: u32::try_from(page).expect("a u32 counts the pages of a ring"),
        };
        self.ring.begin(position, header);
        self.ring.set_producer(end);
        Some(Reservation { position, len })
    }

    /// Copies bytes into a record.
    ///
    /// # Panics
    ///
    /// If they do not lie in it: the verifier refuses.
    pub fn write(&self, record: &Reservation, offset: usize, bytes: &[u8]) {
        self.ring
            .write(record.position_of(offset, bytes.len()), bytes);
    }

    /// Copies bytes out of a record.
    ///
    /// # Panics
    ///
    /// If they do not lie in it: the verifier refuses.
    pub fn read(&self, record: &Reservation, offset: usize, out: &mut [u8]) {
        self.ring
            .read(record.position_of(offset, out.len()), 0, out);
    }

    /// Shows a record to the consumer. Unknown flags are ignored.
    ///
    /// Kernel: `bpf_ringbuf_submit`.
    pub fn submit(&self, record: Reservation, flags: u64) {
        self.commit(record, flags, 0);
    }

    /// Gives a record up: the consumer passes over it. Unknown flags are ignored.
    ///
    /// Kernel: `bpf_ringbuf_discard`.
    pub fn discard(&self, record: Reservation, flags: u64) {
        self.commit(record, flags, RINGBUF_DISCARD_BIT);
    }

    /// Kernel: `bpf_ringbuf_commit`.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the record is gone afterwards"
    )]
    fn commit(&self, record: Reservation, flags: u64, bits: u32) {
        let header = Header {
            len: record.len | bits,
            ..self.ring.header(record.position)
        };
        self.ring.set_header(record.position, header);
        let flags = RingbufFlags::from_bits_retain(flags);
        let consumer_is_here =
            self.ring.place(self.ring.consumer()) == self.ring.place(record.position);
        if flags.contains(RingbufFlags::FORCE_WAKEUP)
            || (consumer_is_here && !flags.contains(RingbufFlags::NO_WAKEUP))
        {
            self.signal.wake();
        }
    }

    /// A record in one step.
    ///
    /// # Errors
    ///
    /// `EINVAL` for unknown flags; `EAGAIN` if there is no room.
    ///
    /// # Panics
    ///
    /// If user space is the producer: the verifier refuses.
    ///
    /// Kernel: `bpf_ringbuf_output`.
    pub fn output(&self, data: &[u8], flags: u64) -> Result<()> {
        let known = RingbufFlags::NO_WAKEUP | RingbufFlags::FORCE_WAKEUP;
        if flags & !known.bits() != 0 {
            return Err(Errno::EINVAL);
        }
        let record = self.make(data.len() as u64).ok_or(Errno::EAGAIN)?;
        self.write(&record, 0, data);
        self.submit(record, flags);
        Ok(())
    }

    /// One number about the ring ([`ringbuf_query`]); 0 for unknown questions.
    ///
    /// # Panics
    ///
    /// If user space is the producer: the verifier refuses.
    ///
    /// Kernel: `bpf_ringbuf_query`.
    pub fn query(&self, what: u64) -> u64 {
        self.expect_kind(false);
        match what {
            ringbuf_query::AVAIL_DATA => self.available(),
            ringbuf_query::RING_SIZE => self.ring.size(),
            ringbuf_query::CONS_POS => self.ring.consumer(),
            ringbuf_query::PROD_POS => self.ring.producer(),
            ringbuf_query::OVERWRITE_POS if self.overwrites => self.ring.overwritten(),
            _ => 0,
        }
    }

    /// Bytes between the positions, whatever user space has made of them; what is overwritten is not among them.
    fn available(&self) -> u64 {
        let (consumer, producer) = (self.ring.consumer(), self.ring.producer());
        let unread = producer.wrapping_sub(consumer);
        if !self.overwrites {
            return unread;
        }
        let oldest = self.ring.overwritten();
        let kept = producer - oldest;
        if self.release.ringbuf_unread_is_kept {
            unread.min(kept)
        } else if consumer < oldest {
            kept
        } else {
            unread
        }
    }

    /// Hands the samples that user space wrote to a callback until it answers `false`; their number.
    ///
    /// # Errors
    ///
    /// `EINVAL` for unknown flags; `EBUSY` if another drain is under way; `EINVAL` or `E2BIG` at a sample whose header
    /// cannot be, even after others were handed over.
    ///
    /// # Panics
    ///
    /// If programs are the producers: the verifier refuses.
    ///
    /// Kernel: `bpf_user_ringbuf_drain`.
    pub fn drain(&self, flags: u64, callback: &mut dyn FnMut(&Sample<'_>) -> bool) -> Result<u64> {
        self.expect_kind(true);
        let known = RingbufFlags::NO_WAKEUP | RingbufFlags::FORCE_WAKEUP;
        if flags & !known.bits() != 0 {
            return Err(Errno::EINVAL);
        }
        if self.draining.swap(true, Ordering::Acquire) {
            return Err(Errno::EBUSY);
        }
        let draining = Draining(&self.draining);
        let (mut handed, mut passed) = (0, 0_u64);
        let end = self.drain_locked(callback, &mut handed, &mut passed);
        drop(draining);
        let flags = RingbufFlags::from_bits_retain(flags);
        if flags.contains(RingbufFlags::FORCE_WAKEUP)
            || (handed + passed > 0 && !flags.contains(RingbufFlags::NO_WAKEUP))
        {
            self.signal.wake();
        }
        end.map(|()| handed)
    }

    fn drain_locked(
        &self,
        callback: &mut dyn FnMut(&Sample<'_>) -> bool,
        handed: &mut u64,
        passed: &mut u64,
    ) -> Result<()> {
        for _ in 0..MAX_SAMPLES {
            match self.next_sample()? {
                Next::Empty => break,
                Next::Discarded(end) => {
                    self.ring.set_consumer(end);
                    *passed += 1;
                }
                Next::Sample(sample) => {
                    let go_on = callback(&sample);
                    self.ring.set_consumer(
                        sample
                            .position
                            .wrapping_add(ringbuf_record_size(sample.len)),
                    );
                    *handed += 1;
                    if !go_on {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Kernel: `__bpf_user_ringbuf_peek`.
    fn next_sample(&self) -> Result<Next<'_>> {
        let producer = self.ring.producer();
        if !producer.is_multiple_of(8) {
            return Err(Errno::EINVAL);
        }
        let position = self.ring.consumer();
        if position >= producer {
            return Ok(Next::Empty);
        }
        let header = self.ring.header(position).len;
        let len = header & !(RINGBUF_BUSY_BIT | RINGBUF_DISCARD_BIT);
        let total = ringbuf_record_size(len);
        if total > producer - position {
            return Err(Errno::EINVAL);
        }
        if total > self.ring.size() || len > MAX_DYNPTR {
            return Err(Errno::E2BIG);
        }
        if header & RINGBUF_DISCARD_BIT != 0 {
            return Ok(Next::Discarded(position + total));
        }
        if header & RINGBUF_BUSY_BIT != 0 {
            return Ok(Next::Empty);
        }
        Ok(Next::Sample(Sample {
            ring: &self.ring,
            position,
            len,
        }))
    }

    /// Number of wakeups so far: of readers by submit, discard and output, of writers by drains.
    pub fn signals(&self) -> u64 {
        self.signal.count()
    }

    /// Waits until there was a wakeup after the first `seen` ones, or the time is over (never, without one); gives their
    /// number.
    pub fn wait_signal(&self, seen: u64, timeout: Option<Duration>) -> u64 {
        self.signal.wait(seen, timeout)
    }

    /// Has `hook` called at each wakeup, as long as it is kept, on the thread that wakes.
    pub fn on_wake(&self, hook: &Arc<dyn Fn() + Send + Sync>) {
        self.signal.on_wake(hook);
    }

    fn expect_kind(&self, user_produces: bool) {
        assert!(
            self.user_produces == user_produces,
            "the verifier refuses: the helper is for the other kind of ring buffer"
        );
    }
}

impl MapOps for Ringbuf {
    /// Kernel: `ringbuf_map_poll_kern`, `ringbuf_map_poll_user`.
    fn poll(&self) -> u32 {
        let available = self.available();
        if self.user_produces {
            if available < self.ring.size() {
                return (PollEvents::OUT | PollEvents::WRNORM).bits();
            }
        } else if available != 0 {
            return (PollEvents::IN | PollEvents::RDNORM).bits();
        }
        0
    }

    fn mappable(&self) -> Option<&Arc<Words>> {
        Some(self.ring.words())
    }

    /// Kernel: `ringbuf_map_mmap_kern`, `ringbuf_map_mmap_user`.
    fn mmap(&self, request: &MapRequest) -> Result<()> {
        let first_page = request.offset / PAGE_SIZE as u64;
        let n_pages = request.len.div_ceil(PAGE_SIZE) as u64;
        if request.prot.write {
            let owned = if self.user_produces {
                first_page != 0
            } else {
                first_page == 0 && n_pages == 1
            };
            if !owned {
                return Err(Errno::EPERM);
            }
        }
        let pages = POSITION_PAGES as u64 + 2 * (self.ring.size() / PAGE_SIZE as u64);
        match first_page.checked_add(n_pages) {
            Some(end) if end <= pages => Ok(()),
            _ => Err(Errno::EINVAL),
        }
    }

    /// The data is there twice.
    fn mapped_page(&self, page: usize) -> usize {
        let bytes = usize::try_from(self.ring.size()).expect("the ring is in memory");
        match page.checked_sub(POSITION_PAGES) {
            Some(data_page) if !self.ring.is_doubled() => {
                POSITION_PAGES + data_page % (bytes / PAGE_SIZE)
            }
            _ => page,
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
