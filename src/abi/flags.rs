//! Flags, and what else is passed as bits.
//!
//! Source: `include/uapi/linux/bpf.h`; `include/uapi/linux/capability.h`.

use bitflags::bitflags;

use super::numbers;

bitflags! {
    /// Flags of `BPF_MAP_CREATE`. Holds any bits; the map's type judges them.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MapFlags: u32 {
        /// Elements are allocated when they are made, not at creation.
        const NO_PREALLOC = 1;
        /// An LRU list for each CPU.
        const NO_COMMON_LRU = 1 << 1;
        /// Memory of the node in `numa_node`.
        const NUMA_NODE = 1 << 2;
        /// The new fd can only read.
        const RDONLY = 1 << 3;
        /// The new fd can only write.
        const WRONLY = 1 << 4;
        /// Stack traces as build id and offset.
        const STACK_BUILD_ID = 1 << 5;
        /// The hash seed is 0.
        const ZERO_SEED = 1 << 6;
        /// Programs can only read.
        const RDONLY_PROG = 1 << 7;
        /// Programs can only write.
        const WRONLY_PROG = 1 << 8;
        /// Socket storage is cloned to accepted sockets.
        const CLONE = 1 << 9;
        /// The elements can be mapped.
        const MMAPABLE = 1 << 10;
        /// Perf events stay when the fd that put them is closed.
        const PRESERVE_ELEMS = 1 << 11;
        /// As an inner map, `max_entries` may differ.
        const INNER_MAP = 1 << 12;
        /// A `struct_ops` map that is attached by a link.
        const LINK = 1 << 13;
        /// `value_type_btf_obj_fd` is given.
        const VTYPE_BTF_OBJ_FD = 1 << 15;
        /// `map_token_fd` is given.
        const TOKEN_FD = 1 << 16;
        /// Arena: a fault on a page that is not there is a signal.
        const SEGV_ON_FAULT = 1 << 17;
        /// Arena: no conversion of user addresses.
        const NO_USER_CONV = 1 << 18;
        /// Ring buffer: new records take the place of old ones.
        const RB_OVERWRITE = 1 << 19;
        const _ = !0;
    }

    /// Flags of one update or lookup. Holds any bits; the map judges them.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct UpdateFlags: u64 {
        /// Only a key that is not there. Without any flag (`BPF_ANY`): either.
        const NOEXIST = 1;
        /// Only a key that is there.
        const EXIST = 1 << 1;
        /// Copy under the value's `bpf_spin_lock`.
        const LOCK = 1 << 2;
        /// `BPF_F_CPU`: of the CPU in the upper half, of a per-CPU value.
        const CPU = 1 << 3;
        /// `BPF_F_ALL_CPUS`: one value for all CPUs.
        const ALL_CPUS = 1 << 4;
        const _ = !0;
    }

    /// Flags of `BPF_PROG_ATTACH`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct AttachFlags: u32 {
        /// A descendant's program may take the place.
        const OVERRIDE = 1;
        /// Several programs at one place.
        const MULTI = 1 << 1;
        /// Takes the place of the program in `replace_bpf_fd`.
        const REPLACE = 1 << 2;
        const _ = !0;
    }

    /// Flags of `BPF_PROG_LOAD`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct ProgFlags: u32 {
        /// Accesses have to be aligned.
        const STRICT_ALIGNMENT = 1;
        /// Accesses need not be aligned.
        const ANY_ALIGNMENT = 1 << 1;
        /// For tests of the verifier.
        const TEST_RND_HI32 = 1 << 2;
        /// For tests of the verifier.
        const TEST_STATE_FREQ = 1 << 3;
        /// May sleep.
        const SLEEPABLE = 1 << 4;
        /// Takes packets in several pieces (XDP).
        const XDP_HAS_FRAGS = 1 << 5;
        /// Runs on one device only (XDP).
        const XDP_DEV_BOUND_ONLY = 1 << 6;
        /// For tests of the verifier.
        const TEST_REG_INVARIANTS = 1 << 7;
        /// `prog_token_fd` is given.
        const TOKEN_FD = 1 << 16;
        const _ = !0;
    }

    /// Capabilities that bpf(2) asks for, each at the bit of its number.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Caps: u64 {
        /// `CAP_NET_ADMIN`
        const NET_ADMIN = 1 << 12;
        /// `CAP_NET_RAW`
        const NET_RAW = 1 << 13;
        /// `CAP_SYS_ADMIN`, which stands in for `BPF`, `NET_ADMIN` and `PERFMON`.
        const SYS_ADMIN = 1 << 21;
        /// `CAP_SYS_RESOURCE`
        const SYS_RESOURCE = 1 << 24;
        /// `CAP_PERFMON`
        const PERFMON = 1 << 38;
        /// `CAP_BPF`
        const BPF = 1 << 39;
        const _ = !0;
    }
}

impl UpdateFlags {
    /// `BPF_ANY`: no flag.
    pub const ANY: Self = Self::empty();

    /// The lower half, where the flags are.
    pub const fn low(self) -> Self {
        Self::from_bits_retain(self.bits() & 0xffff_ffff)
    }

    /// The upper half: the CPU that [`UpdateFlags::CPU`] is about.
    pub const fn cpu(self) -> u32 {
        let [a, b, c, d, ..] = self.bits().to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }
}

impl Caps {
    /// Has that one capability, or `SYS_ADMIN` in its place.
    ///
    /// Kernel: `include/linux/capability.h:bpf_capable` and its kin.
    pub const fn capable(self, cap: Self) -> bool {
        self.intersects(cap.union(Self::SYS_ADMIN))
    }
}

numbers! {
    /// Where a program is attached, `BPF_CGROUP_*` and the rest of `enum bpf_attach_type`.
    AttachType:
    CGROUP_INET_INGRESS = 0;
    CGROUP_INET_EGRESS = 1;
    CGROUP_INET_SOCK_CREATE = 2;
    CGROUP_SOCK_OPS = 3;
    SK_SKB_STREAM_PARSER = 4;
    SK_SKB_STREAM_VERDICT = 5;
    CGROUP_DEVICE = 6;
    SK_MSG_VERDICT = 7;
    CGROUP_INET4_BIND = 8;
    CGROUP_INET6_BIND = 9;
    CGROUP_INET4_CONNECT = 10;
    CGROUP_INET6_CONNECT = 11;
    CGROUP_INET4_POST_BIND = 12;
    CGROUP_INET6_POST_BIND = 13;
    CGROUP_UDP4_SENDMSG = 14;
    CGROUP_UDP6_SENDMSG = 15;
    LIRC_MODE2 = 16;
    FLOW_DISSECTOR = 17;
    CGROUP_SYSCTL = 18;
    CGROUP_UDP4_RECVMSG = 19;
    CGROUP_UDP6_RECVMSG = 20;
    CGROUP_GETSOCKOPT = 21;
    CGROUP_SETSOCKOPT = 22;
    TRACE_RAW_TP = 23;
    TRACE_FENTRY = 24;
    TRACE_FEXIT = 25;
    MODIFY_RETURN = 26;
    LSM_MAC = 27;
    TRACE_ITER = 28;
    CGROUP_INET4_GETPEERNAME = 29;
    CGROUP_INET6_GETPEERNAME = 30;
    CGROUP_INET4_GETSOCKNAME = 31;
    CGROUP_INET6_GETSOCKNAME = 32;
    XDP_DEVMAP = 33;
    CGROUP_INET_SOCK_RELEASE = 34;
    XDP_CPUMAP = 35;
    SK_LOOKUP = 36;
    SK_SKB_VERDICT = 38;
    LSM_CGROUP = 43;
    TCX_INGRESS = 46;
    TCX_EGRESS = 47;
    CGROUP_UNIX_CONNECT = 49;
    CGROUP_UNIX_SENDMSG = 50;
    CGROUP_UNIX_RECVMSG = 51;
    CGROUP_UNIX_GETPEERNAME = 52;
    CGROUP_UNIX_GETSOCKNAME = 53;
    NETKIT_PRIMARY = 54;
    NETKIT_PEER = 55;
}
