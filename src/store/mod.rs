//! Containers of bytes: no errno, no flag, no type of map.

mod lru;
mod words;

pub use lru::Lru;
pub use words::{WORD, Words};
