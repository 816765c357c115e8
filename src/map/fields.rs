//! Which types of maps may have which special fields in their values, and writes that leave them alone.
//!
//! Kernel: `kernel/bpf/syscall.c:map_check_btf`, `include/linux/bpf.h:bpf_obj_memcpy` (v6.18).

use crate::abi::{Errno, MapType, Result};
use crate::btf::{FieldKind, Fields};
use crate::env::Release;
use crate::store::{WORD, Words};

/// Whether values of that type of map may have these fields.
///
/// # Errors
///
/// `EOPNOTSUPP` (of some releases `ENOTSUPP`) if one of them may not be there.
pub fn allowed(map_type: MapType, fields: &Fields, release: &Release) -> Result<()> {
    let mut kinds = fields.0.iter().map(|field| field.kind);
    match kinds.find(|&kind| !is_allowed(map_type, kind, release)) {
        None => Ok(()),
        Some(FieldKind::SpinLock) => Err(release.lock_in_wrong_type),
        Some(_) => Err(Errno::EOPNOTSUPP),
    }
}

fn is_allowed(map_type: MapType, kind: FieldKind, release: &Release) -> bool {
    let is_local_storage = matches!(
        map_type,
        MapType::SK_STORAGE
            | MapType::INODE_STORAGE
            | MapType::TASK_STORAGE
            | MapType::CGRP_STORAGE
    );
    let is_hash_or_array = matches!(map_type, MapType::HASH | MapType::RHASH | MapType::ARRAY);
    let is_lru_hash = map_type == MapType::LRU_HASH;
    match kind {
        FieldKind::SpinLock | FieldKind::ResSpinLock => {
            is_hash_or_array || is_local_storage || map_type == MapType::CGROUP_STORAGE
        }
        FieldKind::ListHead | FieldKind::RbRoot if map_type == MapType::RHASH => false,
        FieldKind::Timer
        | FieldKind::Workqueue
        | FieldKind::TaskWork
        | FieldKind::ListHead
        | FieldKind::RbRoot => is_hash_or_array || is_lru_hash,
        FieldKind::Kptr
        | FieldKind::KptrPercpu
        | FieldKind::KptrUntrusted
        | FieldKind::Refcount => {
            let elsewhere = is_local_storage
                || matches!(map_type, MapType::PERCPU_HASH | MapType::LRU_PERCPU_HASH);
            is_hash_or_array
                || is_lru_hash
                || map_type == MapType::PERCPU_ARRAY
                || release.kptr_everywhere && elsewhere
        }
        FieldKind::Uptr => map_type == MapType::TASK_STORAGE,
        FieldKind::ListNode | FieldKind::RbNode => false,
    }
}

impl Fields {
    /// Writes all bytes of `value` but the fields' to the place that begins at the word `at`.
    pub fn write_around(&self, words: &Words, at: usize, value: &[u8]) {
        let mut start = 0;
        for field in &self.0 {
            let bytes = field.bytes();
            write_part(words, at, value, start..bytes.start);
            start = bytes.end;
        }
        write_part(words, at, value, start..value.len());
    }
}

fn write_part(words: &Words, at: usize, value: &[u8], part: std::ops::Range<usize>) {
    let from = part.start;
    let bytes = &value[part];
    if from.is_multiple_of(WORD) {
        words.write(at + from / WORD, bytes);
    } else {
        words.write_bytes(at * WORD + from, bytes);
    }
}
