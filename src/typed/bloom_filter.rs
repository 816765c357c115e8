//! `BloomFilter<V>`.

use std::borrow::Borrow;

use bytemuck::Pod;

use super::Error;
use super::macros::{no_flags, typed_map};

typed_map! {
    /// A map of type `BPF_MAP_TYPE_BLOOM_FILTER`: values that are in, and some that only seem to be.
    ///
    /// [`Builder::map_extra`](super::Builder::map_extra) sets the number of hash functions.
    ///
    /// ```
    /// use mapemu::Kernel;
    /// use mapemu::typed::BloomFilter;
    ///
    /// let kernel = Kernel::new();
    /// let seen: BloomFilter<u32> = BloomFilter::builder().max_entries(100).create(&kernel)?;
    /// assert!(!seen.contains(&7)?);
    /// seen.insert(7, 0)?;
    /// assert!(seen.contains(&7)?);
    /// # Ok::<(), mapemu::typed::Error>(())
    /// ```
    BloomFilter<V: Pod>: BLOOM_FILTER, no_flags!(), { () => V }

    /// Adds a value. `flags`: `BPF_ANY`.
    ///
    /// # Errors
    ///
    /// `EPERM` if it is frozen; `EINVAL` for other flags.
    #[doc(alias = "bpf_map_push_elem")]
    pub fn insert(&self, value: impl Borrow<V>, flags: u64) -> Result<(), Error> {
        self.map.insert(&(), value.borrow(), flags)
    }

    /// Whether a value seems to be in: always, if it was added.
    ///
    /// # Errors
    ///
    /// `EPERM` if the fd cannot read.
    #[doc(alias = "bpf_map_peek_elem")]
    pub fn contains(&self, value: &V) -> Result<bool, Error> {
        self.map.has(value)
    }
}
