//! `HashMap<K, V>`, and the other maps by key that hash it.

use bytemuck::Pod;

use super::PerCpuValues;
use super::macros::{batches, gets, inserts, iters, keys, no_flags, removes, takes, typed_map};

/// What all hashes have.
macro_rules! hash_methods {
    ($key:ty => $value:ty) => {
        gets!($key => $value);
        inserts!($key => $value);
        removes!($key);
        takes!($key => $value);
        iters!($key => $value);
        batches!($key => $value);
    };
}

typed_map! {
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
    HashMap<K: Pod, V: Pod>: HASH, no_flags!(), { K => V }
    hash_methods!(K => V);
}

typed_map! {
    /// A map of type `BPF_MAP_TYPE_LRU_HASH`: when it is full, an element that was not used for long makes room.
    ///
    /// ```
    /// use mapemu::Kernel;
    /// use mapemu::typed::LruHashMap;
    ///
    /// let kernel = Kernel::new();
    /// let recent: LruHashMap<u32, u64> = LruHashMap::builder().max_entries(8).create(&kernel)?;
    /// for key in 0..100 {
    ///     recent.insert(key, 0, 0)?;
    /// }
    /// assert!(recent.get(&0, 0).unwrap_err().is_not_found());
    /// assert_eq!(recent.get(&99, 0)?, 0);
    /// # Ok::<(), mapemu::typed::Error>(())
    /// ```
    LruHashMap<K: Pod, V: Pod>: LRU_HASH, no_flags!(), { K => V }
    hash_methods!(K => V);
}

typed_map! {
    /// A map of type `BPF_MAP_TYPE_PERCPU_HASH`: a value for each CPU, of which a program sees its own.
    ///
    /// ```
    /// use mapemu::Kernel;
    /// use mapemu::typed::{PerCpuHashMap, PerCpuValues};
    ///
    /// let kernel = Kernel::builder().cpus(2).build();
    /// let hits: PerCpuHashMap<u32, u64> = PerCpuHashMap::builder().max_entries(8).create(&kernel)?;
    /// hits.insert(1, PerCpuValues::from(vec![10, 20]), 0)?;
    /// assert_eq!(hits.get(&1, 0)?.iter().sum::<u64>(), 30);
    /// # Ok::<(), mapemu::typed::Error>(())
    /// ```
    PerCpuHashMap<K: Pod, V: Pod>: PERCPU_HASH, no_flags!(), { K => V }
    hash_methods!(K => PerCpuValues<V>);
}

typed_map! {
    /// A map of type `BPF_MAP_TYPE_LRU_PERCPU_HASH`: a value for each CPU, and an element that was not used for long makes
    /// room when it is full.
    ///
    /// ```
    /// use mapemu::Kernel;
    /// use mapemu::typed::{LruPerCpuHashMap, PerCpuValues};
    ///
    /// let kernel = Kernel::builder().cpus(2).build();
    /// let map: LruPerCpuHashMap<u32, u32> = LruPerCpuHashMap::builder().max_entries(8).create(&kernel)?;
    /// map.insert(1, PerCpuValues::from(vec![10, 20]), 0)?;
    /// assert_eq!(map.take(&1, 0)?[1], 20);
    /// # Ok::<(), mapemu::typed::Error>(())
    /// ```
    LruPerCpuHashMap<K: Pod, V: Pod>: LRU_PERCPU_HASH, no_flags!(), { K => V }
    hash_methods!(K => PerCpuValues<V>);
}
