//! `LpmTrie<K, V>` and its keys.

use bytemuck::{Pod, Zeroable};

use super::macros::{batches, gets, inserts, iters, keys, removes, typed_map};
use crate::abi::MapFlags;

/// A prefix: so many leading bits of some data. `struct bpf_lpm_trie_key`.
///
/// The data's first byte is the most significant: addresses are in network byte order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Pod, Zeroable)]
#[repr(C, packed)]
pub struct Key<K> {
    prefix_len: u32,
    data: K,
}

impl<K> Key<K> {
    /// The first `prefix_len` bits of some data; the rest of it counts for nothing.
    pub const fn new(prefix_len: u32, data: K) -> Self {
        Self { prefix_len, data }
    }

    /// Number of bits that count.
    pub const fn prefix_len(&self) -> u32 {
        self.prefix_len
    }
}

impl<K: Copy> Key<K> {
    /// The data, with the bits that do not count.
    pub const fn data(&self) -> K {
        self.data
    }
}

typed_map! {
    /// A map of type `BPF_MAP_TYPE_LPM_TRIE`: the value of the longest prefix that matches.
    ///
    /// ```
    /// use mapemu::Kernel;
    /// use mapemu::typed::LpmTrie;
    /// use mapemu::typed::lpm_trie::Key;
    ///
    /// let kernel = Kernel::new();
    /// let routes: LpmTrie<[u8; 4], u32> = LpmTrie::builder().max_entries(8).create(&kernel)?;
    /// routes.insert(Key::new(8, [10, 0, 0, 0]), 1, 0)?;
    /// routes.insert(Key::new(16, [10, 1, 0, 0]), 2, 0)?;
    /// assert_eq!(routes.get(&Key::new(32, [10, 1, 2, 3]), 0)?, 2);
    /// assert_eq!(routes.get(&Key::new(32, [10, 9, 2, 3]), 0)?, 1);
    /// # Ok::<(), mapemu::typed::Error>(())
    /// ```
    LpmTrie<K: Pod, V: Pod>: LPM_TRIE, MapFlags::NO_PREALLOC, { Key<K> => V }
    gets!(Key<K> => V);
    inserts!(Key<K> => V);
    removes!(Key<K>);
    iters!(Key<K> => V);
    batches!(Key<K> => V);
}
