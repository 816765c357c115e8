//! Perf events as programs write to them.
//!
//! Kernel: `kernel/trace/bpf_trace.c`, `net/core/filter.c:bpf_skb_event_output` (v6.18).

use super::Prog;
use crate::abi::{Errno, Helper, PERF_CTXLEN_MASK, PERF_CTXLEN_SHIFT, PERF_INDEX_MASK, Result};
use crate::map::Map;
use crate::map::perf_event_array::PerfEventArray;

impl Prog {
    /// A record for the event whose index is in `flags`, or with `BPF_F_CURRENT_CPU` for that of this CPU.
    ///
    /// # Errors
    ///
    /// `EINVAL` for unknown flags; `E2BIG` if there is no such index; `ENOENT` if nothing is there; `EINVAL` if it is an event
    /// of another kind; `EOPNOTSUPP` if it is off, or that of another CPU; `ENOSPC` if it is not mapped, or there is no room.
    ///
    /// # Panics
    ///
    /// What the verifier refuses.
    #[doc(alias = "bpf_perf_event_output")]
    pub fn perf_event_output(&self, map: &Map, flags: u64, data: &[u8]) -> Result<()> {
        self.perf_event_output_packet(map, flags, data, &[])
    }

    /// As [`Prog::perf_event_output`], for a program that runs on a packet: the first bytes of it follow, as many as
    /// `BPF_F_CTXLEN_MASK` in `flags` says.
    ///
    /// # Errors
    ///
    /// `EINVAL` for unknown flags, of a program that has no packet for such bytes too; `EFAULT` if the packet has not so
    /// many bytes; then as [`Prog::perf_event_output`].
    ///
    /// # Panics
    ///
    /// As [`Prog::perf_event_output`].
    #[doc(alias = "bpf_skb_event_output")]
    #[doc(alias = "bpf_xdp_event_output")]
    pub fn perf_event_output_packet(
        &self,
        map: &Map,
        flags: u64,
        data: &[u8],
        packet: &[u8],
    ) -> Result<()> {
        self.enter(map, Helper::PERF_EVENT_OUTPUT);
        let packet_flags = if self.prog_type.has_packet() {
            PERF_CTXLEN_MASK
        } else {
            0
        };
        if flags & !(packet_flags | PERF_INDEX_MASK) != 0 {
            return Err(Errno::EINVAL);
        }
        let len = usize::try_from((flags & PERF_CTXLEN_MASK) >> PERF_CTXLEN_SHIFT);
        let packet = packet.get(..len.expect("20 bits")).ok_or(Errno::EFAULT)?;
        let events: Option<&PerfEventArray> = map.ops.as_any().downcast_ref();
        let events = events.expect("only arrays of perf events take this helper");
        events.output(self.cpu, flags, [data, packet])
    }

    /// The count of an event: there is nothing here that could be counted.
    ///
    /// # Errors
    ///
    /// What the user chose for what is not emulated.
    ///
    /// # Panics
    ///
    /// What the verifier refuses; if the user chose no errno.
    #[doc(alias = "bpf_perf_event_read")]
    pub fn perf_event_read(&self, map: &Map, _flags: u64) -> Result<u64> {
        self.enter(map, Helper::PERF_EVENT_READ);
        Err(map.env.unsupported(format_args!("bpf_perf_event_read")))
    }

    /// The count of an event, and how long it was on.
    ///
    /// # Errors
    ///
    /// What the user chose for what is not emulated.
    ///
    /// # Panics
    ///
    /// What the verifier refuses; if the user chose no errno.
    #[doc(alias = "bpf_perf_event_read_value")]
    pub fn perf_event_read_value(&self, map: &Map, _flags: u64) -> Result<[u64; 3]> {
        self.enter(map, Helper::PERF_EVENT_READ_VALUE);
        let what = format_args!("bpf_perf_event_read_value");
        Err(map.env.unsupported(what))
    }
}
