//! Maps with Rust types, over any [`Bpf`](crate::abi::Bpf): the names are those that users of aya know.
//!
//! Keys and values are plain data: [`bytemuck::Pod`], so no padding, no pointers, any bytes are a value. A map is closed
//! when it is dropped.
//!
//! ```
//! use mapemu::Kernel;
//! use mapemu::typed::HashMap;
//!
//! let kernel = Kernel::new();
//! let ports: HashMap<u16, u64> = HashMap::builder().max_entries(2).create(&kernel)?;
//! ports.insert(80, 1, 0)?;
//! assert_eq!(ports.get(&80, 0)?, 1);
//! assert!(ports.get(&443, 0).unwrap_err().is_not_found());
//! # Ok::<(), mapemu::typed::Error>(())
//! ```

mod arena;
mod array;
mod batch;
mod bloom_filter;
mod cgroup_storage;
mod fd_arrays;
mod hash_map;
mod local_storage;
pub mod lpm_trie;
mod macros;
mod maps_of_maps;
mod owned;
mod perf_event_array;
mod queue_stack;
mod redirect;
mod ring_buf;
mod sockets;
mod stack_trace;
mod values;

use crate::abi::Errno;

pub use arena::Arena;
pub use array::{Array, PerCpuArray};
pub use batch::BatchError;
pub use bloom_filter::BloomFilter;
pub use bytemuck::Pod;
pub use cgroup_storage::{CgroupStorage, CgroupStorageKey, PerCpuCgroupStorage, StorageKey};
pub use fd_arrays::{CgroupArray, ProgramArray};
pub use hash_map::{HashMap, LruHashMap, LruPerCpuHashMap, PerCpuHashMap};
pub use local_storage::{CgrpStorage, InodeStorage, SkStorage, TaskStorage};
pub use lpm_trie::LpmTrie;
pub use maps_of_maps::{ArrayOfMaps, HashOfMaps};
pub use owned::{Builder, OwnedMap, TypedMap};
pub use perf_event_array::{Events, PerfEventArray, PerfEventArrayBuffer};
pub use queue_stack::{Queue, Stack};
pub use redirect::{CpuMap, CpuMapValue, DevMap, DevMapHash, DevMapValue};
pub use ring_buf::{RingBuf, RingBufItem, UserRingBuf};
pub use sockets::{ReuseportSockarray, SockHash, SockMap, XskMap};
pub use stack_trace::StackTrace;
pub use values::PerCpuValues;

/// What the kernel answered to a call of this front end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{op}: {errno}")]
pub struct Error {
    /// The command, by the name of the kernel's function: `map_update_elem`.
    pub op: &'static str,
    /// The answer.
    pub errno: Errno,
}

impl Error {
    /// There is no such key (`ENOENT`).
    pub fn is_not_found(&self) -> bool {
        self.errno == Errno::ENOENT
    }

    /// Adds the name of the command to an answer.
    pub(crate) fn of(op: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self { op, errno }
    }
}
