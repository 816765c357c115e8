//! User space's side of ring buffers: reads and writes their memory as libbpf does, and waits as epoll does.
//!
//! Source: `tools/lib/bpf/ringbuf.c`; `fs/eventpoll.c` (v6.18).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Map;
use super::ringbuf::Ringbuf;
use crate::abi::{
    Errno, PollEvents, RINGBUF_HDR_SZ, Result, RingMemory, next_record, write_sample,
};
use crate::store::{Header, Ring};

/// Why reading the emulated memory does not fail.
const ALWAYS_THERE: &str = "the ring is in this process's memory";

/// The ring buffer that a map is, if it is one.
pub fn ringbuf(map: &Map) -> Option<&Ringbuf> {
    map.ops.as_any().downcast_ref()
}

/// poll(2) of a map's file: its state, as soon as it has one, or the time is over (never, without one).
///
/// Who waits looks at the state when woken, and once more when the time is over: so a record that wakes nobody is found at
/// the end.
///
/// Kernel: `fs/select.c:do_poll`.
pub fn poll(map: &Map, timeout: Option<Duration>) -> PollEvents {
    let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let waits = ringbuf(map).filter(|_| left != Some(Duration::ZERO));
        let seen = waits.map(Ringbuf::signals);
        let events = PollEvents::from_bits_retain(map.ops.poll());
        match (waits, seen) {
            (Some(ring), Some(seen)) if events.is_empty() => ring.wait_signal(seen, left),
            _ => return events,
        };
    }
}

/// The ring, as its user space has it: who maps it can have moved a position to where no record begins, between two words.
impl RingMemory for Ring {
    fn size(&self) -> u64 {
        self.size()
    }

    fn consumer(&self) -> Result<u64> {
        Ok(self.consumer())
    }

    fn set_consumer(&self, position: u64) -> Result<()> {
        self.set_consumer(position);
        Ok(())
    }

    fn producer(&self) -> Result<u64> {
        Ok(self.producer())
    }

    fn set_producer(&self, position: u64) -> Result<()> {
        self.set_producer(position);
        Ok(())
    }

    fn header(&self, position: u64) -> Result<[u8; 8]> {
        let mut header = [0; RINGBUF_HDR_SZ];
        if position.is_multiple_of(RINGBUF_HDR_SZ as u64) {
            return Ok(self.header(position).to_ne_bytes());
        }
        self.read(position, 0, &mut header);
        Ok(header)
    }

    fn set_header(&self, position: u64, header: [u8; 8]) -> Result<()> {
        if position.is_multiple_of(RINGBUF_HDR_SZ as u64) {
            self.set_header(position, Header::from_ne_bytes(header));
        } else {
            self.write(position, &header);
        }
        Ok(())
    }

    fn read(&self, record: u64, out: &mut [u8]) -> Result<()> {
        self.read(record, RINGBUF_HDR_SZ, out);
        Ok(())
    }

    fn write(&self, record: u64, bytes: &[u8]) -> Result<()> {
        self.write(record.wrapping_add(RINGBUF_HDR_SZ as u64), bytes);
        Ok(())
    }
}

/// A map in an epoll set of its own.
///
/// Wakeups put it on the list of those that may be ready; only those on the list are asked for their state. So a record
/// that wakes nobody is not seen until something else wakes.
#[derive(Debug)]
pub struct Watch {
    map: Arc<Map>,
    /// `EPOLLET`: what was reported is taken off the list, ready or not.
    edge_triggered: bool,
    seen: u64,
    listed: bool,
}

impl Watch {
    /// Adds a ring buffer to a new epoll set; nothing for other maps.
    pub fn new(map: Arc<Map>, edge_triggered: bool) -> Option<Self> {
        let seen = ringbuf(&map)?.signals();
        Some(Self {
            map,
            edge_triggered,
            seen,
            listed: true,
        })
    }

    /// The ring buffer.
    pub fn ringbuf(&self) -> &Ringbuf {
        ringbuf(&self.map).expect("looked at by `new`")
    }

    /// What is ready now: epoll_wait(2) without waiting. Empty if it is not on the list.
    pub fn ready(&mut self) -> PollEvents {
        let signals = self.ringbuf().signals();
        self.listed |= signals != self.seen;
        self.seen = signals;
        if !self.listed {
            return PollEvents::empty();
        }
        let events = PollEvents::from_bits_retain(self.map.ops.poll());
        self.listed = !events.is_empty() && !self.edge_triggered;
        events
    }

    /// Waits until it is ready or the time is over (never, without one): epoll_wait(2).
    pub fn wait(&mut self, timeout: Option<Duration>) -> PollEvents {
        let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let events = self.ready();
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if !events.is_empty() || left == Some(Duration::ZERO) {
                return events;
            }
            self.ringbuf().wait_signal(self.seen, left);
        }
    }
}

/// Reads records that programs made.
#[derive(Debug)]
pub struct Consumer {
    watch: Watch,
    data: Vec<u8>,
}

impl Consumer {
    /// The reader of a `RINGBUF`; nothing for other maps. There is to be one at a time.
    pub fn new(map: Arc<Map>) -> Option<Self> {
        let watch = Watch::new(map, false)?;
        if watch.ringbuf().user_produces() {
            return None;
        }
        Some(Self {
            watch,
            data: Vec::new(),
        })
    }

    /// Hands records to a callback, oldest first, until it answers `false`, or one is reached that is busy, or the end; gives
    /// their number. Does not wait.
    ///
    /// Kernel: `tools/lib/bpf/ringbuf.c:ring_buffer__consume`.
    pub fn consume(&mut self, callback: &mut dyn FnMut(&[u8]) -> bool) -> usize {
        let ring = ringbuf(&self.watch.map).expect("looked at by `new`").ring();
        let mut count = 0;
        while let Some(record) = next_record(ring).expect(ALWAYS_THERE) {
            if record.read(ring, &mut self.data).is_err() {
                // Somebody moved the position to where no record begins.
                break;
            }
            let go_on = callback(&self.data);
            count += 1;
            ring.set_consumer(record.end());
            if !go_on {
                break;
            }
        }
        count
    }

    /// Waits until the ring is ready or the time is over (never, without one), then reads as [`Consumer::consume`]. Gives 0
    /// when the time is over, and when there are only busy or discarded records.
    ///
    /// Kernel: `tools/lib/bpf/ringbuf.c:ring_buffer__poll`.
    pub fn poll(
        &mut self,
        timeout: Option<Duration>,
        callback: &mut dyn FnMut(&[u8]) -> bool,
    ) -> usize {
        if self.watch.wait(timeout).is_empty() {
            return 0;
        }
        self.consume(callback)
    }

    /// The epoll set.
    pub fn watch(&mut self) -> &mut Watch {
        &mut self.watch
    }
}

/// Writes samples that programs drain.
#[derive(Debug)]
pub struct Producer {
    watch: Watch,
}

impl Producer {
    /// The writer of a `USER_RINGBUF`; nothing for other maps. There is to be one at a time.
    pub fn new(map: Arc<Map>) -> Option<Self> {
        let watch = Watch::new(map, false)?;
        watch.ringbuf().user_produces().then_some(Self { watch })
    }

    /// Writes a sample. Does not wait.
    ///
    /// # Errors
    ///
    /// `E2BIG` if it never fits; `ENOSPC` if it does not fit now.
    ///
    /// Kernel: `tools/lib/bpf/ringbuf.c:user_ring_buffer__reserve`, `user_ring_buffer__submit`.
    pub fn produce(&mut self, data: &[u8]) -> Result<()> {
        write_sample(self.watch.ringbuf().ring(), data)
    }

    /// Writes a sample as soon as there is room.
    ///
    /// # Errors
    ///
    /// `E2BIG` if it never fits; `ENOSPC` if it did not fit in that time.
    ///
    /// Kernel: `tools/lib/bpf/ringbuf.c:user_ring_buffer__reserve_blocking`.
    pub fn produce_blocking(&mut self, data: &[u8], timeout: Option<Duration>) -> Result<()> {
        let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let seen = self.watch.ringbuf().signals();
            match self.produce(data) {
                Err(Errno::ENOSPC) => {}
                done => return done,
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Err(Errno::ENOSPC);
            }
            self.watch.ringbuf().wait_signal(seen, left);
        }
    }
}
