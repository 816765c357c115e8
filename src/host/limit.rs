//! What a map takes at its creation, and the most that the running kernel is asked for.
//!
//! A kernel gives what it is asked for: a map of 16 GiB takes the machine down, and no signal ends it.

use crate::abi::{Attr, CreateAttr, MapFlags, MapType};

/// No map of more bytes is asked for, unless the machine is there for that.
pub const LARGEST_MAP: u64 = 32 << 20;

/// A machine of no more memory is there to be lost: any map may be asked for, see `Host::of_any_size`.
pub(super) const MEMORY_TO_LOSE: u64 = 1 << 30;

/// What the panic begins with that stands for a request which is not made.
pub const REFUSED: &str = "the running kernel is not asked for";

/// About what the creation of a map allocates at once.
pub fn creation_bytes(attr: &CreateAttr, nr_cpus: u32) -> u64 {
    let map_type = attr.map_type;
    let [key, value, max_entries] =
        [attr.key_size, attr.value_size, attr.max_entries].map(u64::from);
    match map_type {
        MapType::LPM_TRIE
        | MapType::ARENA
        | MapType::CGROUP_STORAGE
        | MapType::PERCPU_CGROUP_STORAGE
        | MapType::SK_STORAGE
        | MapType::INODE_STORAGE
        | MapType::TASK_STORAGE
        | MapType::CGRP_STORAGE => 0,
        MapType::RINGBUF | MapType::USER_RINGBUF => max_entries,
        MapType::HASH | MapType::PERCPU_HASH | MapType::HASH_OF_MAPS
            if attr.map_flags.contains(MapFlags::NO_PREALLOC) =>
        {
            16 * max_entries
        }
        _ => {
            let copies = if map_type.is_percpu() {
                u64::from(nr_cpus)
            } else {
                1
            };
            let one = key.next_multiple_of(8) + value.next_multiple_of(8) * copies + 64;
            one.saturating_mul(max_entries)
        }
    }
}

/// # Panics
///
/// If the attr of a `BPF_MAP_CREATE` asks for too much.
pub(super) fn refuse_huge(attr: &[u8], nr_cpus: u32, largest: u64) {
    let attr = CreateAttr::decode(Attr(attr));
    let bytes = creation_bytes(&attr, nr_cpus);
    assert!(
        bytes <= largest,
        "{REFUSED} a map of type {} of about {} MiB (at most {} MiB)",
        attr.map_type,
        bytes >> 20,
        largest >> 20
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attr(map_type: MapType, key: u32, value: u32, max_entries: u32) -> [u8; 20] {
        let words = [map_type.0, key, value, max_entries, 0];
        let mut bytes = [0; 20];
        for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn small_maps_are_asked_for() {
        refuse_huge(&attr(MapType::HASH, 4, 8, 1024), 2, LARGEST_MAP);
        refuse_huge(&attr(MapType::LPM_TRIE, 8, 8, u32::MAX), 2, LARGEST_MAP);
        refuse_huge(&[], 2, LARGEST_MAP);
    }

    #[test]
    #[should_panic(expected = "is not asked for")]
    fn huge_maps_are_not() {
        refuse_huge(&attr(MapType::HASH, 4, u32::MAX, u32::MAX), 2, LARGEST_MAP);
    }

    #[test]
    #[should_panic(expected = "is not asked for")]
    fn values_of_many_cpus_count() {
        refuse_huge(
            &attr(MapType::PERCPU_ARRAY, 4, 32 << 10, 600),
            2,
            LARGEST_MAP,
        );
    }
}
