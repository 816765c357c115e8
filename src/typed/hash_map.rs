//! `HashMap<K, V>`.

use std::borrow::Borrow;
use std::marker::PhantomData;

use bytemuck::Pod;

use super::{Builder, Error, OwnedMap, TypedMap};
use crate::abi::MapType;

/// A map of type `BPF_MAP_TYPE_HASH`.
///
/// ```
/// use mapemu::Kernel;
/// use mapemu::abi::Errno;
/// use mapemu::typed::HashMap;
///
/// let kernel = Kernel::new();
/// let map: HashMap<u32, u64> = HashMap::builder().max_entries(1).create(&kernel)?;
/// map.insert(1, 10, 0)?;
/// assert_eq!(map.insert(2, 20, 0).unwrap_err().errno, Errno::E2BIG, "it is full");
/// map.insert(1, 11, 0)?;
/// assert_eq!(map.iter().collect::<Result<Vec<_>, _>>()?, [(1, 11)]);
/// # Ok::<(), mapemu::typed::Error>(())
/// ```
#[derive(Debug)]
pub struct HashMap<K, V> {
    map: OwnedMap,
    _types: PhantomData<fn() -> (K, V)>,
}

impl<K: Pod, V: Pod> HashMap<K, V> {
    /// A map to be made.
    pub fn builder() -> Builder<Self> {
        Builder::new()
    }

    /// The value of a key. `flags`: 0 or `BPF_F_LOCK`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for other flags; `ENOENT` if there is no such key.
    #[doc(alias = "bpf_map_lookup_elem")]
    pub fn get(&self, key: &K, flags: u64) -> Result<V, Error> {
        self.map.get(key, flags)
    }

    /// Makes or changes an element. `flags`: `BPF_ANY`, `BPF_NOEXIST` or `BPF_EXIST`, with `BPF_F_LOCK`.
    ///
    /// # Errors
    ///
    /// `EPERM` if it is frozen; `EINVAL` for other flags; `EEXIST`, `ENOENT` by the flags; `E2BIG` if it is full.
    #[doc(alias = "bpf_map_update_elem")]
    pub fn insert(
        &self,
        key: impl Borrow<K>,
        value: impl Borrow<V>,
        flags: u64,
    ) -> Result<(), Error> {
        self.map.insert(key.borrow(), value.borrow(), flags)
    }

    /// Removes an element.
    ///
    /// # Errors
    ///
    /// `EPERM` if it is frozen; `ENOENT` if there is no such key.
    #[doc(alias = "bpf_map_delete_elem")]
    pub fn remove(&self, key: &K) -> Result<(), Error> {
        self.map.remove(key)
    }

    /// The value of a key, which is removed.
    ///
    /// # Errors
    ///
    /// As [`HashMap::get`] and [`HashMap::remove`].
    #[doc(alias = "bpf_map_lookup_and_delete_elem")]
    pub fn take(&self, key: &K, flags: u64) -> Result<V, Error> {
        self.map.take(key, flags)
    }

    /// All keys, in the kernel's order.
    #[doc(alias = "bpf_map_get_next_key")]
    pub fn keys(&self) -> impl Iterator<Item = Result<K, Error>> {
        self.map.keys()
    }

    /// All elements, in the kernel's order; one that goes between its key and its value is passed over.
    pub fn iter(&self) -> impl Iterator<Item = Result<(K, V), Error>> {
        self.map.iter()
    }

    /// The map behind it, for calls by bytes.
    pub fn map(&self) -> &OwnedMap {
        &self.map
    }
}

impl<K, V> From<OwnedMap> for HashMap<K, V> {
    fn from(map: OwnedMap) -> Self {
        Self {
            map,
            _types: PhantomData,
        }
    }
}

impl<K, V> TypedMap for HashMap<K, V> {
    type Key = K;
    type Value = V;
    const MAP_TYPE: MapType = MapType::HASH;
}
