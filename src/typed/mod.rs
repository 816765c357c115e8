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

mod array;
mod cgroup_storage;
mod hash_map;
mod owned;

use crate::abi::Errno;

pub use array::Array;
pub use bytemuck::Pod;
pub use cgroup_storage::{CgroupStorage, CgroupStorageKey, StorageKey};
pub use hash_map::HashMap;
pub use owned::{Builder, OwnedMap, TypedMap};

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
