//! Perf events that programs write to: what one is opened with, its memory, the records in it.
//!
//! Source: `include/uapi/linux/perf_event.h`.

use super::Attr;

/// What a perf event is opened with: a software event of all processes on one CPU, as of `struct perf_event_attr`.
///
/// Programs write to events of [`PerfEvent::BPF_OUTPUT`]: raw samples (`PERF_SAMPLE_RAW`), and at most the time with them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PerfEvent {
    /// What it counts: `PERF_COUNT_SW_*`.
    pub config: u64,
    /// The CPU.
    pub cpu: u32,
    /// Takes nothing before it is enabled.
    pub disabled: bool,
    /// When who waits for it is woken.
    pub wakeup: Wakeup,
    /// `PERF_SAMPLE_TIME`: samples begin with the time.
    pub timed: bool,
    /// `write_backward`: each record lies before the last one.
    pub backward: bool,
}

/// When a perf event wakes those who wait for it: at half of the buffer in any case but that of another watermark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wakeup {
    /// `wakeup_events`: after so many samples; 0 is never.
    Events(u32),
    /// `wakeup_watermark`: after so many bytes; 0 is half of the buffer.
    Watermark(u32),
}

impl PerfEvent {
    /// `PERF_COUNT_SW_BPF_OUTPUT`
    pub const BPF_OUTPUT: u64 = 10;

    /// An event for programs to write to, on that CPU, that wakes after each sample.
    pub const fn bpf_output(cpu: u32) -> Self {
        Self {
            config: Self::BPF_OUTPUT,
            cpu,
            disabled: false,
            wakeup: Wakeup::Events(1),
            timed: false,
            backward: false,
        }
    }
}

/// Bits in a `struct perf_event_attr`.
pub mod perf_attr {
    /// `PERF_SAMPLE_TIME`, in `sample_type`.
    pub const SAMPLE_TIME: u64 = 1 << 2;
    /// `PERF_SAMPLE_RAW`, in `sample_type`.
    pub const SAMPLE_RAW: u64 = 1 << 10;
    /// `disabled`
    pub const DISABLED: u64 = 1;
    /// `watermark`
    pub const WATERMARK: u64 = 1 << 14;
    /// `sample_id_all`
    pub const SAMPLE_ID_ALL: u64 = 1 << 18;
    /// `write_backward`
    pub const WRITE_BACKWARD: u64 = 1 << 27;
}

/// Requests of ioctl(2): `PERF_EVENT_IOC_*`.
#[expect(missing_docs, reason = "the names are the kernel's")]
pub mod perf_ioc {
    pub const ENABLE: u32 = 0x2400;
    pub const DISABLE: u32 = 0x2401;
    pub const RESET: u32 = 0x2403;
    pub const ID: u32 = 0x8008_2407;
    pub const SET_BPF: u32 = 0x4004_2408;
    pub const PAUSE_OUTPUT: u32 = 0x4004_2409;

    /// Those that emulated events answer.
    pub const ALL: [u32; 6] = [ENABLE, DISABLE, RESET, ID, SET_BPF, PAUSE_OUTPUT];
}

/// What is looked at of a `struct perf_event_attr`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PerfAttr {
    /// `PERF_TYPE_*`
    pub kind: u32,
    config: u64,
    samples: u64,
    bits: u64,
    wakeup: u32,
}

impl PerfAttr {
    /// Bytes of it.
    pub const SIZE: usize = 64;

    /// From its bytes.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Self {
        let attr = Attr(bytes);
        Self {
            kind: attr.u32(0),
            config: attr.u64(8),
            samples: attr.u64(24),
            bits: attr.u64(40),
            wakeup: attr.u32(48),
        }
    }

    /// Programs write to such events.
    pub fn is_bpf_output(&self) -> bool {
        const SOFTWARE: u32 = 1;
        (self.kind, self.config) == (SOFTWARE, PerfEvent::BPF_OUTPUT)
    }

    /// Its records have more in them, or less, than raw samples with or without the time.
    pub fn has_other_records(&self) -> bool {
        use perf_attr::{SAMPLE_ID_ALL, SAMPLE_RAW, SAMPLE_TIME};
        let timed = self.samples == SAMPLE_RAW | SAMPLE_TIME && self.bits & SAMPLE_ID_ALL == 0;
        self.samples != SAMPLE_RAW && !timed
    }

    /// The event, on that CPU.
    pub fn event(&self, cpu: u32) -> PerfEvent {
        use perf_attr::{DISABLED, SAMPLE_TIME, WATERMARK, WRITE_BACKWARD};
        PerfEvent {
            config: self.config,
            cpu,
            disabled: self.bits & DISABLED != 0,
            wakeup: if self.bits & WATERMARK != 0 {
                Wakeup::Watermark(self.wakeup)
            } else {
                Wakeup::Events(self.wakeup)
            },
            timed: self.samples & SAMPLE_TIME != 0,
            backward: self.bits & WRITE_BACKWARD != 0,
        }
    }
}

/// Where the numbers are in `struct perf_event_mmap_page`, the first page of an event's memory.
pub mod perf_page {
    /// A number that is even unless the times are being written.
    pub const LOCK: usize = 8;
    /// What the page tells of counters.
    pub const CAPABILITIES: usize = 40;
    /// Bytes of the struct up to its reserved ones.
    pub const SIZE: usize = 72;
    /// Where the next record will begin; the kernel moves it, and it only grows.
    pub const DATA_HEAD: usize = 1024;
    /// Up to where records were read; user space moves it.
    pub const DATA_TAIL: usize = 1032;
    /// Where the data begins.
    pub const DATA_OFFSET: usize = 1040;
    /// Bytes of data.
    pub const DATA_SIZE: usize = 1048;
}

/// Bytes of a `struct perf_event_header`: type, misc, and the bytes of the record with it.
pub const PERF_HEADER_SIZE: usize = 8;
/// `PERF_RECORD_LOST`: the event's id, and how many samples found no room.
pub const PERF_RECORD_LOST: u32 = 2;
/// `PERF_RECORD_SAMPLE`: of a raw sample, its bytes as a `u32`, and those.
pub const PERF_RECORD_SAMPLE: u32 = 9;
/// `PERF_RECORD_MISC_KERNEL`: it came from the kernel.
pub const PERF_RECORD_MISC_KERNEL: u16 = 1;

/// `BPF_F_INDEX_MASK`: the bits of the flags that are an index in an array of events.
pub const PERF_INDEX_MASK: u64 = 0xffff_ffff;
/// `BPF_F_CURRENT_CPU`: the index of the CPU that the program runs on.
pub const PERF_CURRENT_CPU: u64 = PERF_INDEX_MASK;
/// `BPF_F_CTXLEN_MASK`: the bits of the flags that say how many bytes of the packet follow.
pub const PERF_CTXLEN_MASK: u64 = 0xfffff << PERF_CTXLEN_SHIFT;
/// The lowest of those bits.
pub const PERF_CTXLEN_SHIFT: u32 = 32;
