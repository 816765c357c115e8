//! `Array<V>`.

use std::borrow::Borrow;
use std::marker::PhantomData;

use bytemuck::Pod;

use super::{Builder, Error, OwnedMap, TypedMap};
use crate::abi::MapType;

/// A map of type `BPF_MAP_TYPE_ARRAY`: all its elements are there from the start.
///
/// ```
/// use mapemu::Kernel;
/// use mapemu::abi::Errno;
/// use mapemu::typed::Array;
///
/// let kernel = Kernel::new();
/// let counters: Array<u64> = Array::builder().max_entries(4).create(&kernel)?;
/// assert_eq!(counters.len()?, 4);
/// counters.set(3, 7, 0)?;
/// assert_eq!(counters.get(&3, 0)?, 7);
/// assert_eq!(counters.set(4, 7, 0).unwrap_err().errno, Errno::E2BIG);
/// # Ok::<(), mapemu::typed::Error>(())
/// ```
#[derive(Debug)]
pub struct Array<V> {
    map: OwnedMap,
    _types: PhantomData<fn() -> V>,
}

impl<V: Pod> Array<V> {
    /// A map to be made.
    pub fn builder() -> Builder<Self> {
        Builder::new()
    }

    /// Number of elements.
    ///
    /// # Errors
    ///
    /// What `BPF_OBJ_GET_INFO_BY_FD` answers.
    #[expect(clippy::len_without_is_empty, reason = "an array is never empty")]
    pub fn len(&self) -> Result<u32, Error> {
        self.map.info().map(|info| info.max_entries)
    }

    /// The value at an index. `flags`: 0 or `BPF_F_LOCK`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for other flags; `ENOENT` past the end.
    #[doc(alias = "bpf_map_lookup_elem")]
    pub fn get(&self, index: &u32, flags: u64) -> Result<V, Error> {
        self.map.get(index, flags)
    }

    /// Changes the value at an index. `flags`: `BPF_ANY` or `BPF_EXIST`, with `BPF_F_LOCK`.
    ///
    /// # Errors
    ///
    /// `EPERM` if it is frozen; `EINVAL` for other flags; `E2BIG` past the end; `EEXIST` for `BPF_NOEXIST`.
    #[doc(alias = "bpf_map_update_elem")]
    pub fn set(&self, index: u32, value: impl Borrow<V>, flags: u64) -> Result<(), Error> {
        self.map.insert(&index, value.borrow(), flags)
    }

    /// All values, by index.
    pub fn iter(&self) -> impl Iterator<Item = Result<V, Error>> {
        self.map
            .iter::<u32, V>()
            .map(|elem| elem.map(|(_, value)| value))
    }

    /// The map behind it, for calls by bytes.
    pub fn map(&self) -> &OwnedMap {
        &self.map
    }
}

impl<V> From<OwnedMap> for Array<V> {
    fn from(map: OwnedMap) -> Self {
        Self {
            map,
            _types: PhantomData,
        }
    }
}

impl<V> TypedMap for Array<V> {
    type Key = u32;
    type Value = V;
    const MAP_TYPE: MapType = MapType::ARRAY;
}
