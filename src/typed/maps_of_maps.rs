//! `ArrayOfMaps` and `HashOfMaps<K>`.

use bytemuck::Pod;

use super::macros::{gets, inserts, iters, keys, no_flags, places_of_fds, removes, typed_map};
use crate::abi::Fd;

typed_map! {
    /// A map of type `BPF_MAP_TYPE_ARRAY_OF_MAPS`: maps by index. Fds go in, ids come out.
    ///
    /// ```
    /// use mapemu::Kernel;
    /// use mapemu::typed::{Array, ArrayOfMaps};
    ///
    /// let kernel = Kernel::new();
    /// let inner: Array<u64> = Array::builder().max_entries(4).create(&kernel)?;
    /// let outer = ArrayOfMaps::builder()
    ///     .max_entries(2)
    ///     .inner_map(inner.map().fd())
    ///     .create(&kernel)?;
    /// outer.set(1, inner.map().fd(), 0)?;
    /// assert_eq!(outer.get(&1, 0)?, inner.map().info()?.id);
    /// # Ok::<(), mapemu::typed::Error>(())
    /// ```
    ArrayOfMaps: ARRAY_OF_MAPS, no_flags!(), { u32 => u32 }
    places_of_fds!(Fd);
    gets!(u32 => u32);
    iters!(u32 => u32);
}

typed_map! {
    /// A map of type `BPF_MAP_TYPE_HASH_OF_MAPS`: maps by key. Fds go in, ids come out.
    ///
    /// ```
    /// use mapemu::Kernel;
    /// use mapemu::typed::{Array, HashOfMaps};
    ///
    /// let kernel = Kernel::new();
    /// let inner: Array<u64> = Array::builder().max_entries(4).create(&kernel)?;
    /// let outer: HashOfMaps<u64> = HashOfMaps::builder()
    ///     .max_entries(2)
    ///     .inner_map(inner.map().fd())
    ///     .create(&kernel)?;
    /// outer.insert(7, inner.map().fd(), 0)?;
    /// assert_eq!(outer.get(&7, 0)?, inner.map().info()?.id);
    /// # Ok::<(), mapemu::typed::Error>(())
    /// ```
    HashOfMaps<K: Pod>: HASH_OF_MAPS, no_flags!(), { K => u32 }
    gets!(K => u32);
    inserts!(K => Fd);
    removes!(K);
    iters!(K => u32);
}
