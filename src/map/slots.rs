//! A table and its free slots: what the hash types but the LRU ones share.
//!
//! Kernel: `kernel/bpf/hashtab.c` (v6.18).

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::MapDef;
use crate::abi::{Errno, MapFlags, MapType, Result};
use crate::env::Env;
use crate::store::{FreeLists, MAX_SLOTS, Probe, Table};

/// Slots beyond `max_entries` of a map that is not preallocated, for replacing updates that happen at once.
const REPLACING: u32 = 64;

/// Buckets of a hash that grows at most: its limit says nothing of how large it will be.
const GROWN_BUCKETS: u32 = 1 << 20;

/// Bytes of address space that one map reserves at most; elements past that are `ENOMEM`.
const RESERVED: usize = 1 << 40;

/// See the module.
#[derive(Debug)]
pub(super) struct Slots {
    pub(super) table: Table,
    pub(super) free: FreeLists,
    /// Number of elements, of a map that is not preallocated.
    count: Option<AtomicU32>,
    max_entries: u32,
    /// System calls cannot write any more.
    frozen: AtomicBool,
}

impl Slots {
    /// An empty table. `spare` slots more than elements, of a preallocated map.
    pub(super) fn new(def: &MapDef, env: &Env, value_words: usize, spare: u32) -> Result<Self> {
        let preallocated = !def.map_flags.contains(MapFlags::NO_PREALLOC);
        let n_slots = if preallocated {
            def.max_entries + spare
        } else {
            let most = RESERVED / Table::slot_size(def.key_size as usize, value_words);
            let most = u32::try_from(most).unwrap_or(u32::MAX >> 1);
            let wanted = def.max_entries.saturating_add(REPLACING);
            wanted.min(most).min(MAX_SLOTS)
        };
        Ok(Self {
            table: table(def, env, n_slots, value_words)?,
            free: FreeLists::new(n_slots, env.nr_cpus),
            count: (!preallocated).then(|| AtomicU32::new(0)),
            max_entries: def.max_entries,
            frozen: AtomicBool::new(false),
        })
    }

    /// Places are kept for all elements.
    pub(super) fn are_preallocated(&self) -> bool {
        self.count.is_none()
    }

    /// Asked under the lock of a bucket, before a look at what is in it, of a type that counts no writes.
    ///
    /// # Errors
    ///
    /// `EPERM` for system calls (`USER`) if the map is frozen.
    #[inline(always)]
    pub(super) fn may_write<const USER: bool>(&self) -> Result<()> {
        if USER && self.frozen.load(Ordering::SeqCst) {
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    /// No system call writes any more, nor is one in flight.
    pub(super) fn freeze(&self) {
        self.frozen.store(true, Ordering::SeqCst);
        self.table.pass_locks();
    }

    /// A slot for a new key.
    #[inline(always)]
    pub(super) fn take(&self, cpu: u32) -> Result<u32> {
        match &self.count {
            None => self.free.pop(&self.table, cpu).ok_or(Errno::E2BIG),
            Some(count) => self.take_counted(cpu, count),
        }
    }

    #[inline(never)]
    fn take_counted(&self, cpu: u32, count: &AtomicU32) -> Result<u32> {
        count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                (n < self.max_entries).then_some(n + 1)
            })
            .map_err(|_| Errno::E2BIG)?;
        self.free.pop(&self.table, cpu).ok_or_else(|| {
            count.fetch_sub(1, Ordering::Relaxed);
            Errno::ENOMEM
        })
    }

    /// Sets a slot aside for each CPU, of a preallocated map whose elements are replaced.
    pub(super) fn set_spares(&self, cpu: u32) {
        if self.count.is_none() {
            self.free.set_spares(&self.table, cpu);
        }
    }

    /// A slot for a key that is there already. It has to be followed by [`Slots::give_back_replaced`].
    #[inline(always)]
    pub(super) fn take_for_replacing(&self, cpu: u32) -> Result<u32> {
        if self.count.is_some() {
            self.free.pop(&self.table, cpu).ok_or(Errno::ENOMEM)
        } else {
            Ok(self.free.take_spare(cpu))
        }
    }

    /// Frees the slot that a key had before it was given another one.
    #[inline(always)]
    pub(super) fn give_back_replaced(&self, cpu: u32, slot: u32) {
        if self.count.is_some() {
            self.free.push(&self.table, cpu, slot);
        } else {
            self.free.put_spare(cpu, slot);
        }
    }

    /// Frees the slot of a key that is gone.
    #[inline(always)]
    fn give_back(&self, cpu: u32, slot: u32) {
        self.free.push(&self.table, cpu, slot);
        if let Some(count) = &self.count {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Frees the slots of a bucket's keys, the last first, so that the front one is on top.
    pub(super) fn give_back_all(&self, cpu: u32, slots: Vec<u32>) {
        for slot in slots.into_iter().rev() {
            self.give_back(cpu, slot);
        }
    }

    /// Takes a key out (`USER`: by a system call of a type that counts no writes), after a look at its slot under its bucket's lock; `free` gets what is left in the slot, when no lock is held
    /// and before anybody gets the slot.
    #[inline(always)]
    pub(super) fn remove<const USER: bool>(
        &self,
        cpu: u32,
        key: impl Probe,
        look: impl FnOnce(u32),
        free: impl FnOnce(u32),
    ) -> Result<()> {
        let hash = self.table.hash(key);
        let slot = {
            let mut bucket = self.table.lock(hash);
            self.may_write::<USER>()?;
            let place = bucket.find(key, hash).ok_or(Errno::ENOENT)?;
            look(place.slot);
            bucket.remove(place);
            place.slot
        };
        free(slot);
        self.give_back(cpu, slot);
        Ok(())
    }
}

/// An empty table for the keys of a map, with values of so many words.
pub(super) fn table(def: &MapDef, env: &Env, n_slots: u32, value_words: usize) -> Result<Table> {
    let seed = if def.map_flags.contains(MapFlags::ZERO_SEED) {
        0
    } else {
        u32::try_from(env.random() >> 32).expect("32 bits are left")
    };
    let mut n_buckets = def.max_entries.next_power_of_two();
    if def.map_type == MapType::RHASH {
        n_buckets = n_buckets.min(GROWN_BUCKETS);
    }
    Table::new(n_buckets, n_slots, def.key_size as usize, value_words, seed)
        .map_err(|_| Errno::ENOMEM)
}
