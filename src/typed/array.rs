//! `Array<V>` and `PerCpuArray<V>`.

use bytemuck::Pod;

use super::PerCpuValues;
use super::macros::{array_methods, batches, no_flags, typed_map};

typed_map! {
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
    Array<V: Pod>: ARRAY, no_flags!(), { u32 => V }
    array_methods!(V);
}

typed_map! {
    /// A map of type `BPF_MAP_TYPE_PERCPU_ARRAY`: an array with a value for each CPU.
    ///
    /// ```
    /// use mapemu::Kernel;
    /// use mapemu::typed::{PerCpuArray, PerCpuValues};
    ///
    /// let kernel = Kernel::builder().cpus(2).build();
    /// let counters: PerCpuArray<u32> = PerCpuArray::builder().max_entries(4).create(&kernel)?;
    /// counters.set(3, PerCpuValues::from(vec![7, 8]), 0)?;
    /// assert_eq!(counters.get(&3, 0)?[..], [7, 8]);
    /// # Ok::<(), mapemu::typed::Error>(())
    /// ```
    PerCpuArray<V: Pod>: PERCPU_ARRAY, no_flags!(), { u32 => V }
    array_methods!(PerCpuValues<V>);
}
