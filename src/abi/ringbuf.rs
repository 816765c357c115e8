//! Ring buffers: flags of the helpers, headers of records, bits of poll(2).
//!
//! Source: `include/uapi/linux/bpf.h`; `include/uapi/asm-generic/poll.h`.

use bitflags::bitflags;

bitflags! {
    /// Flags of the helpers that end a record, and of a drain. Holds any bits; the helper judges them.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct RingbufFlags: u64 {
        /// Wakes nobody.
        const NO_WAKEUP = 1;
        /// Wakes those who wait, whatever the positions; wins over `NO_WAKEUP`.
        const FORCE_WAKEUP = 1 << 1;
        const _ = !0;
    }

    /// Readiness of a file, as poll(2) and epoll have it.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct PollEvents: u32 {
        /// `POLLIN`
        const IN = 1;
        /// `POLLOUT`
        const OUT = 4;
        /// `POLLERR`
        const ERR = 8;
        /// `POLLHUP`
        const HUP = 16;
        /// `POLLRDNORM`
        const RDNORM = 64;
        /// `POLLWRNORM`
        const WRNORM = 256;
        const _ = !0;
    }
}

/// `BPF_RINGBUF_BUSY_BIT` in a record's length: not submitted yet.
pub const RINGBUF_BUSY_BIT: u32 = 1 << 31;
/// `BPF_RINGBUF_DISCARD_BIT` in a record's length: nobody is to see it.
pub const RINGBUF_DISCARD_BIT: u32 = 1 << 30;
/// `BPF_RINGBUF_HDR_SZ`: bytes before a record's data.
pub const RINGBUF_HDR_SZ: usize = 8;

/// What `bpf_ringbuf_query` can be asked for.
pub mod ringbuf_query {
    /// `BPF_RB_AVAIL_DATA`: bytes between the positions.
    pub const AVAIL_DATA: u64 = 0;
    /// `BPF_RB_RING_SIZE`: bytes of the ring.
    pub const RING_SIZE: u64 = 1;
    /// `BPF_RB_CONS_POS`: the consumer's position.
    pub const CONS_POS: u64 = 2;
    /// `BPF_RB_PROD_POS`: the producer's position.
    pub const PROD_POS: u64 = 3;
    /// `BPF_RB_OVERWRITE_POS`: where the oldest record is, of a ring that overwrites.
    pub const OVERWRITE_POS: u64 = 4;
}

/// Bytes that a record of `len` bytes of data takes on the ring.
pub const fn ringbuf_record_size(len: u32) -> u64 {
    (len as u64 + RINGBUF_HDR_SZ as u64).next_multiple_of(8)
}
