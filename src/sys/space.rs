//! The part of the process's memory that mappings lie in: addresses only, nothing is behind them.
//!
//! Kernel: `mm/mmap.c:__get_unmapped_area`, `mm/mmap.c:do_mmap` (v6.18).

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::abi::{Errno, Result};
use crate::env::PAGE_SIZE;

/// Mappings that are not told where to be lie below this, each below the last one.
const MMAP_BASE: u64 = 0x7fff_f000_0000;

/// Mappings: their start, and their end.
#[derive(Debug, Default)]
pub(super) struct Space(Mutex<BTreeMap<u64, u64>>);

/// The place of one mapping; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Area {
    space: Arc<Space>,
    start: u64,
}

impl Space {
    /// The highest place for so many bytes.
    ///
    /// # Errors
    ///
    /// `ENOMEM`
    pub(super) fn room(&self, len: usize) -> Result<u64> {
        let len = (len as u64).next_multiple_of(PAGE_SIZE as u64);
        let taken = self.0.lock();
        let mut below = MMAP_BASE;
        for (&start, &end) in taken.range(..MMAP_BASE).rev() {
            if below.saturating_sub(end) >= len {
                break;
            }
            below = below.min(start);
        }
        let start = below.checked_sub(len).filter(|&start| start > 0);
        start.ok_or(Errno::ENOMEM)
    }

    /// Takes a place.
    ///
    /// # Errors
    ///
    /// `EEXIST` if something is there.
    pub(super) fn take(self: &Arc<Self>, start: u64, len: u64) -> Result<Area> {
        let mut taken = self.0.lock();
        let before = taken.range(..start + len).next_back();
        if before.is_some_and(|(_, &end)| end > start) {
            return Err(Errno::EEXIST);
        }
        taken.insert(start, start + len);
        Ok(Area {
            space: Arc::clone(self),
            start,
        })
    }
}

impl Area {
    /// Where it begins.
    pub(super) fn start(&self) -> u64 {
        self.start
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        self.space.0.lock().remove(&self.start);
    }
}
