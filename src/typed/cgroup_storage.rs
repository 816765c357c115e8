//! `CgroupStorage<V>` and `PerCpuCgroupStorage<V>`.

use std::borrow::Borrow;

use bytemuck::{Pod, Zeroable};

use super::macros::{gets, iters, keys, no_flags, typed_map};
use super::{Error, PerCpuValues};

/// The key of an element that belongs to one place in one cgroup. `struct bpf_cgroup_storage_key`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct CgroupStorageKey {
    /// The cgroup's id: the inode number of its directory.
    pub cgroup_inode_id: u64,
    /// Where the program is attached, `BPF_CGROUP_*`.
    pub attach_type: u32,
    /// Ignored going in, 0 coming out.
    pub padding: u32,
}

/// A key of cgroup storage: [`CgroupStorageKey`], or a cgroup's id where all places share one element.
pub trait StorageKey: Pod {}

impl StorageKey for CgroupStorageKey {}
impl StorageKey for u64 {}

/// Elements that attaching makes.
macro_rules! changes {
    ($key:ty => $value:ty) => {
        /// Changes the value of an element; it never makes one. `flags`: `BPF_ANY` or `BPF_EXIST`, with `BPF_F_LOCK`.
        ///
        /// # Errors
        ///
        /// `EPERM` if it is frozen; `EINVAL` for other flags; `ENOENT` if nothing was attached there.
        #[doc(alias = "bpf_map_update_elem")]
        pub fn insert(
            &self,
            key: impl Borrow<$key>,
            value: impl Borrow<$value>,
            flags: u64,
        ) -> Result<(), Error> {
            self.map.insert(key.borrow(), value.borrow(), flags)
        }
    };
}

typed_map! {
    /// A map of type `BPF_MAP_TYPE_CGROUP_STORAGE`: an element for each place where a program that uses it is attached.
    ///
    /// Attaching makes elements, the end of the cgroup ends them; user space reads and changes them.
    ///
    /// ```
    /// use mapemu::abi::{AttachType, Errno, ProgType};
    /// use mapemu::sys::ProgDef;
    /// use mapemu::typed::{CgroupStorage, CgroupStorageKey};
    /// use mapemu::{Kernel, calls};
    ///
    /// let kernel = Kernel::new();
    /// let bytes: CgroupStorage<u64> = CgroupStorage::builder().create(&kernel)?;
    /// assert_eq!(bytes.keys().count(), 0);
    ///
    /// let cgroup = kernel.cgroup_create("web", None).unwrap();
    /// let prog = kernel
    ///     .prog_load(ProgDef {
    ///         name: "count",
    ///         prog_type: ProgType::CGROUP_SKB,
    ///         storages: &[bytes.map().fd()],
    ///         ..ProgDef::default()
    ///     })
    ///     .unwrap();
    /// calls::bpf_prog_attach(&kernel, prog, cgroup, AttachType::CGROUP_INET_EGRESS.0, 0).unwrap();
    ///
    /// let key = bytes.keys().next().unwrap()?;
    /// assert_eq!(key.attach_type, AttachType::CGROUP_INET_EGRESS.0);
    /// bytes.insert(key, 1500, 0)?;
    /// assert_eq!(bytes.get(&key, 0)?, 1500);
    /// # Ok::<(), mapemu::typed::Error>(())
    /// ```
    CgroupStorage<V: Pod, K: StorageKey = CgroupStorageKey>: CGROUP_STORAGE, no_flags!(), { K => V }
    gets!(K => V);
    changes!(K => V);
    iters!(K => V);
}

typed_map! {
    /// A map of type `BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE`: as [`CgroupStorage`], with a value for each CPU.
    ///
    /// ```
    /// use mapemu::Kernel;
    /// use mapemu::abi::Errno;
    /// use mapemu::typed::{PerCpuCgroupStorage, PerCpuValues};
    ///
    /// let kernel = Kernel::builder().cpus(2).build();
    /// let bytes: PerCpuCgroupStorage<u64, u64> = PerCpuCgroupStorage::builder().create(&kernel)?;
    /// let nowhere = bytes.insert(1, PerCpuValues::from(vec![0, 0]), 0);
    /// assert_eq!(nowhere.unwrap_err().errno, Errno::ENOENT, "nothing is attached there");
    /// # Ok::<(), mapemu::typed::Error>(())
    /// ```
    PerCpuCgroupStorage<V: Pod, K: StorageKey = CgroupStorageKey>: PERCPU_CGROUP_STORAGE, no_flags!(), { K => V }
    gets!(K => PerCpuValues<V>);
    changes!(K => PerCpuValues<V>);
    iters!(K => PerCpuValues<V>);
}
