//! What all types with `max_entries` places counted from 0 share: keys are `u32` indices.
//!
//! Kernel: `kernel/bpf/arraymap.c:array_map_get_next_key` and its kin (v6.18).

use crate::abi::{Errno, Result};

/// The index that a key of 4 bytes holds, if it is below `max_entries`.
#[inline]
pub(super) fn index_of(key: &[u8], max_entries: u32) -> Option<u32> {
    let index = u32::from_ne_bytes(key.try_into().expect("keys of arrays have 4 bytes"));
    (index < max_entries).then_some(index)
}

/// The index after `key`; 0 after none and after one past the end.
///
/// # Errors
///
/// `ENOENT` after the last.
pub(super) fn next_index(key: Option<&[u8]>, next_key: &mut [u8], max_entries: u32) -> Result<()> {
    let next = match key.and_then(|key| index_of(key, max_entries)) {
        Some(index) if index == max_entries - 1 => return Err(Errno::ENOENT),
        Some(index) => index + 1,
        None => 0,
    };
    next_key.copy_from_slice(&next.to_ne_bytes());
    Ok(())
}
