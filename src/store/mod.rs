//! Containers of bytes: no errno, no flag, no type of map.

mod words;

pub use words::{WORD, Words};
