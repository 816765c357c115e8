//! What programs on packets and messages return, and flags of the helpers that redirect.
//!
//! Source: `include/uapi/linux/bpf.h`, `enum xdp_action`, `enum sk_action`.

use super::numbers;

numbers! {
    /// What an XDP program returns, `XDP_*`.
    XdpAction:
    ABORTED = 0;
    DROP = 1;
    PASS = 2;
    TX = 3;
    REDIRECT = 4;
}

numbers! {
    /// What a program on the data of a socket returns, `SK_*`.
    SkAction:
    DROP = 0;
    PASS = 1;
}

/// `BPF_F_BROADCAST`: to all interfaces of a map.
pub const REDIRECT_BROADCAST: u64 = 1 << 3;
/// `BPF_F_EXCLUDE_INGRESS`: but not to the one that the packet came from.
pub const REDIRECT_EXCLUDE_INGRESS: u64 = 1 << 4;
/// `BPF_F_INGRESS`: into the queue of what a socket receives, not out of it.
pub const REDIRECT_INGRESS: u64 = 1;
