//! `CgroupStorage<V>`.

use std::borrow::Borrow;
use std::marker::PhantomData;

use bytemuck::{Pod, Zeroable};

use super::{Builder, Error, OwnedMap, TypedMap};
use crate::abi::MapType;

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
#[derive(Debug)]
pub struct CgroupStorage<V, K = CgroupStorageKey> {
    map: OwnedMap,
    _types: PhantomData<fn() -> (K, V)>,
}

impl<V: Pod, K: StorageKey> CgroupStorage<V, K> {
    /// A map to be made; it takes no `max_entries`.
    pub fn builder() -> Builder<Self> {
        Builder::new()
    }

    /// The value of a key. `flags`: 0 or `BPF_F_LOCK`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for other flags; `ENOENT` if nothing was attached there.
    #[doc(alias = "bpf_map_lookup_elem")]
    pub fn get(&self, key: &K, flags: u64) -> Result<V, Error> {
        self.map.get(key, flags)
    }

    /// Changes the value of an element; it never makes one. `flags`: `BPF_ANY` or `BPF_EXIST`, with `BPF_F_LOCK`.
    ///
    /// # Errors
    ///
    /// `EPERM` if it is frozen; `EINVAL` for other flags; `ENOENT` if nothing was attached there.
    #[doc(alias = "bpf_map_update_elem")]
    pub fn insert(
        &self,
        key: impl Borrow<K>,
        value: impl Borrow<V>,
        flags: u64,
    ) -> Result<(), Error> {
        self.map.insert(key.borrow(), value.borrow(), flags)
    }

    /// All keys, the newest element's first.
    #[doc(alias = "bpf_map_get_next_key")]
    pub fn keys(&self) -> impl Iterator<Item = Result<K, Error>> {
        self.map.keys()
    }

    /// All elements, the newest first.
    pub fn iter(&self) -> impl Iterator<Item = Result<(K, V), Error>> {
        self.map.iter()
    }

    /// The map behind it, for calls by bytes.
    pub fn map(&self) -> &OwnedMap {
        &self.map
    }
}

impl<V, K> From<OwnedMap> for CgroupStorage<V, K> {
    fn from(map: OwnedMap) -> Self {
        Self {
            map,
            _types: PhantomData,
        }
    }
}

impl<V, K: StorageKey> TypedMap for CgroupStorage<V, K> {
    type Key = K;
    type Value = V;
    const MAP_TYPE: MapType = MapType::CGROUP_STORAGE;
}
