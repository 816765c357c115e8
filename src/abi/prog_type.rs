//! Types of programs.
//!
//! Source: `include/uapi/linux/bpf.h`, `enum bpf_prog_type`.

use super::numbers;

numbers! {
    /// The type of a program, `BPF_PROG_TYPE_*`.
    ///
    /// A newtype over constants, not an enum: a caller can pass any number.
    ProgType:
    UNSPEC = 0;
    SOCKET_FILTER = 1;
    KPROBE = 2;
    SCHED_CLS = 3;
    SCHED_ACT = 4;
    TRACEPOINT = 5;
    XDP = 6;
    PERF_EVENT = 7;
    CGROUP_SKB = 8;
    CGROUP_SOCK = 9;
    LWT_IN = 10;
    LWT_OUT = 11;
    LWT_XMIT = 12;
    SOCK_OPS = 13;
    SK_SKB = 14;
    CGROUP_DEVICE = 15;
    SK_MSG = 16;
    RAW_TRACEPOINT = 17;
    CGROUP_SOCK_ADDR = 18;
    LWT_SEG6LOCAL = 19;
    LIRC_MODE2 = 20;
    SK_REUSEPORT = 21;
    FLOW_DISSECTOR = 22;
    CGROUP_SYSCTL = 23;
    RAW_TRACEPOINT_WRITABLE = 24;
    CGROUP_SOCKOPT = 25;
    TRACING = 26;
    STRUCT_OPS = 27;
    EXT = 28;
    LSM = 29;
    SK_LOOKUP = 30;
    SYSCALL = 31;
    NETFILTER = 32;
}

impl ProgType {
    /// Programs of this type run on a packet, whose bytes `bpf_perf_event_output` can add.
    pub const fn has_packet(self) -> bool {
        matches!(
            self,
            Self::SOCKET_FILTER
                | Self::SCHED_CLS
                | Self::SCHED_ACT
                | Self::XDP
                | Self::CGROUP_SKB
                | Self::LWT_IN
                | Self::LWT_OUT
                | Self::LWT_XMIT
                | Self::LWT_SEG6LOCAL
                | Self::SK_SKB
        )
    }
}
