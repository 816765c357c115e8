//! Types of maps.
//!
//! Source: `include/uapi/linux/bpf.h`, `enum bpf_map_type`.

use super::numbers;

numbers! {
    /// The type of a map, `BPF_MAP_TYPE_*`.
    ///
    /// A newtype over constants, not an enum: a caller can pass any number.
    MapType:
    UNSPEC = 0;
    HASH = 1;
    ARRAY = 2;
    PROG_ARRAY = 3;
    PERF_EVENT_ARRAY = 4;
    PERCPU_HASH = 5;
    PERCPU_ARRAY = 6;
    STACK_TRACE = 7;
    CGROUP_ARRAY = 8;
    LRU_HASH = 9;
    LRU_PERCPU_HASH = 10;
    LPM_TRIE = 11;
    ARRAY_OF_MAPS = 12;
    HASH_OF_MAPS = 13;
    DEVMAP = 14;
    SOCKMAP = 15;
    CPUMAP = 16;
    XSKMAP = 17;
    SOCKHASH = 18;
    CGROUP_STORAGE = 19;
    REUSEPORT_SOCKARRAY = 20;
    PERCPU_CGROUP_STORAGE = 21;
    QUEUE = 22;
    STACK = 23;
    SK_STORAGE = 24;
    DEVMAP_HASH = 25;
    STRUCT_OPS = 26;
    RINGBUF = 27;
    INODE_STORAGE = 28;
    TASK_STORAGE = 29;
    BLOOM_FILTER = 30;
    USER_RINGBUF = 31;
    CGRP_STORAGE = 32;
    ARENA = 33;
    INSN_ARRAY = 34;
    RHASH = 35;
}

impl MapType {
    /// Values of this type are one part for each CPU, on the bpf(2) side.
    pub const fn is_percpu(self) -> bool {
        matches!(
            self,
            Self::PERCPU_HASH
                | Self::PERCPU_ARRAY
                | Self::LRU_PERCPU_HASH
                | Self::PERCPU_CGROUP_STORAGE
        )
    }

    /// A program may stand beside each target in a map of this type.
    pub const fn has_target_programs(self) -> bool {
        matches!(self, Self::DEVMAP | Self::DEVMAP_HASH | Self::CPUMAP)
    }

    /// A queue or stack.
    pub const fn is_queue(self) -> bool {
        matches!(self, Self::QUEUE | Self::STACK)
    }

    /// This type has values and no keys: they are pushed, peeked at and popped.
    pub const fn is_keyless(self) -> bool {
        self.is_queue() || matches!(self, Self::BLOOM_FILTER)
    }

    /// Values of this type are maps: fds going in, ids coming out.
    pub const fn is_map_in_map(self) -> bool {
        matches!(self, Self::ARRAY_OF_MAPS | Self::HASH_OF_MAPS)
    }

    /// Values of this type are 4 bytes on the bpf(2) side, whatever they stand for.
    pub const fn is_fd_map(self) -> bool {
        self.is_map_in_map()
            || matches!(
                self,
                Self::PROG_ARRAY | Self::PERF_EVENT_ARRAY | Self::CGROUP_ARRAY
            )
    }
}
