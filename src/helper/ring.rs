//! Ring buffers as programs use them.
//!
//! Kernel: `kernel/bpf/ringbuf.c` (v6.18).

use std::fmt;
use std::thread;

use super::Prog;
use super::verifier::Refused;
use crate::abi::{Errno, Helper, Result};
use crate::map::Map;
use crate::map::ringbuf::{Reservation, Ringbuf, Sample};

impl Prog {
    /// A record in one step.
    ///
    /// # Errors
    ///
    /// `EINVAL` for unknown flags; `EAGAIN` if there is no room.
    ///
    /// # Panics
    ///
    /// What the verifier refuses.
    #[doc(alias = "bpf_ringbuf_output")]
    pub fn ringbuf_output(&self, map: &Map, data: &[u8], flags: u64) -> Result<()> {
        self.enter(map, Helper::RINGBUF_OUTPUT);
        ring_of(map).output(data, flags)
    }

    /// Room for a record of `size` bytes; `None` if there is none, if it is too long, or for any flag.
    ///
    /// # Panics
    ///
    /// What the verifier refuses.
    #[doc(alias = "bpf_ringbuf_reserve")]
    pub fn ringbuf_reserve<'m>(&self, map: &'m Map, size: u64, flags: u64) -> Option<Record<'m>> {
        self.enter(map, Helper::RINGBUF_RESERVE);
        let ring = ring_of(map);
        let reservation = ring.reserve(size, flags)?;
        Some(Record {
            ring,
            reservation: Some(reservation),
        })
    }

    /// One number about the ring; 0 for unknown questions.
    ///
    /// # Panics
    ///
    /// What the verifier refuses.
    #[doc(alias = "bpf_ringbuf_query")]
    pub fn ringbuf_query(&self, map: &Map, what: u64) -> u64 {
        self.enter(map, Helper::RINGBUF_QUERY);
        ring_of(map).query(what)
    }

    /// Hands the samples that user space wrote to a callback until it answers `false`; their number.
    ///
    /// # Errors
    ///
    /// `EINVAL` for unknown flags; `EBUSY` if another drain is under way; `EINVAL` or `E2BIG` at a broken sample.
    ///
    /// # Panics
    ///
    /// What the verifier refuses.
    #[doc(alias = "bpf_user_ringbuf_drain")]
    pub fn user_ringbuf_drain(
        &self,
        map: &Map,
        flags: u64,
        mut callback: impl FnMut(&Sample<'_>) -> bool,
    ) -> Result<u64> {
        self.enter(map, Helper::USER_RINGBUF_DRAIN);
        ring_of(map).drain(flags, &mut callback)
    }
}

fn ring_of(map: &Map) -> &Ringbuf {
    map.ops
        .as_any()
        .downcast_ref()
        .expect("only ring buffers take these helpers")
}

/// A record that is written in place, and then submitted or discarded.
///
/// # Panics
///
/// When it is dropped without either: the verifier refuses such a program.
pub struct Record<'m> {
    ring: &'m Ringbuf,
    reservation: Option<Reservation>,
}

impl Record<'_> {
    /// Its bytes.
    pub fn size(&self) -> usize {
        self.reservation().size()
    }

    /// Copies bytes in, from `offset` on.
    ///
    /// # Panics
    ///
    /// If they do not lie in it.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        self.ring.write(self.reservation(), offset, bytes);
    }

    /// Copies bytes out, from `offset` on.
    ///
    /// # Panics
    ///
    /// If they do not lie in it.
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        self.ring.read(self.reservation(), offset, out);
    }

    /// Shows it to the consumer.
    #[doc(alias = "bpf_ringbuf_submit")]
    pub fn submit(mut self, flags: u64) {
        let reservation = self.reservation.take().expect("not over yet");
        self.ring.submit(reservation, flags);
    }

    /// Gives it up.
    #[doc(alias = "bpf_ringbuf_discard")]
    pub fn discard(mut self, flags: u64) {
        let reservation = self.reservation.take().expect("not over yet");
        self.ring.discard(reservation, flags);
    }

    fn reservation(&self) -> &Reservation {
        self.reservation.as_ref().expect("not over yet")
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        if self.reservation.is_some() && !thread::panicking() {
            let refused = Refused {
                errno: Errno::EINVAL,
                rule: "a record is neither submitted nor discarded",
            };
            panic!("{refused}");
        }
    }
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record of {} bytes", self.size())
    }
}
