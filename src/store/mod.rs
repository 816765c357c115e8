//! Containers of bytes: no errno, no flag, no type of map.

mod bits;
mod blocks;
mod chains;
mod fifo;
mod freelist;
mod jhash;
mod last_hash;
mod lru;
mod probe;
mod rbtree;
mod ring;
mod room;
#[cfg(all(test, shuttle))]
mod shuttle_tests;
mod sync;
mod table;
mod trie;
mod words;

pub use bits::Bits;
pub use chains::Chains;
pub use fifo::Fifo;
pub use freelist::{FreeLists, NONE};
pub use jhash::jhash;
pub use lru::{Elems, Lru, Refill};
pub(crate) use probe::{OtherSize, Probe, Shape, with_probe, with_shape};
pub use rbtree::{RbTree, Side};
pub use ring::{Header, Ring};
pub use room::{Blocks, FewWords, Room, Stored};
pub(crate) use sync::AtomicU64;
pub use table::{Bucket, Hash, MAX_SLOTS, Place, Table, Unlinked};
pub use trie::{Entry, Trie, Vacant};
pub use words::{WORD, Words};

/// There is no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;
