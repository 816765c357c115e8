//! `BPF_MAP_TYPE_LRU_HASH` and `BPF_MAP_TYPE_LRU_PERCPU_HASH`: hashes that are never full, as new elements push out old
//! ones.
//!
//! A slot is taken before the key is looked for, so an update of a key that is there, and even one that fails, can push
//! out another element, or the very one. Buckets, order and batches are those of [`super::hash`]; which slot is taken is
//! the business of [`Lru`].
//!
//! Locks: those of the lists come before a bucket's; a slot is given back when its bucket is unlocked.
//!
//! Kernel: `kernel/bpf/hashtab.c`, `kernel/bpf/bpf_lru_list.c` (v6.18).

use std::any::Any;
use std::sync::Arc;

use super::hash::{self, BY_BUCKET};
use super::holdings::{self, Gone, Holdings};
use super::percpu_hash::{New, Parts};
use super::plain_hash;
use super::slots;
use super::{Access, Batches, BucketRequest, Caller, MapDef, MapOps, Value, checks};
use crate::abi::{Errno, MapFlags, MapHandle, Result, UpdateFlags};
use crate::btf::{Btf, Fields};
use crate::env::Env;
use crate::store::{Elems, Lru, Probe, Refill, Table, WORD, with_probe};

/// See the module.
#[derive(Debug)]
pub struct LruHash {
    table: Arc<Table>,
    lru: Lru,
    values: Values,
}

/// How values lie in their slots.
#[derive(Debug)]
enum Values {
    One {
        value_size: u32,
        fields: Fields,
        holdings: Option<Box<Holdings>>,
    },
    PerCpu(Parts),
}

impl LruHash {
    /// An empty map.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// Kernel: `htab_map_alloc`, `bpf_lru_init`, `bpf_lru_populate`.
    pub(super) fn new(def: &MapDef, env: &Arc<Env>) -> Result<Self> {
        let (n_slots, nr_cpus) = (def.max_entries, env.nr_cpus);
        let (values, value_words) = if def.map_type.is_percpu() {
            let parts = Parts::new(def, env);
            let words = parts.words();
            (Values::PerCpu(parts), words)
        } else {
            let one = Values::One {
                value_size: def.value_size,
                fields: Fields::default(),
                holdings: None,
            };
            (one, def.elem_size() / WORD)
        };
        let lru = if def.map_flags.contains(MapFlags::NO_COMMON_LRU) {
            Lru::own(n_slots / nr_cpus, nr_cpus)
        } else {
            let refill = Refill {
                by_size: env.release.lru_target_by_size,
                first_found_first: env.release.lru_first_found_first,
            };
            Lru::shared(n_slots, nr_cpus, refill)
        };
        Ok(Self {
            table: Arc::new(slots::table(def, env, n_slots, value_words)?),
            lru: lru.map_err(|_| Errno::ENOMEM)?,
            values,
        })
    }

    /// The value of a slot, as a program on that CPU sees it.
    #[inline]
    fn value(&self, slot: u32, cpu: u32) -> Value<'_> {
        match &self.values {
            Values::One {
                value_size,
                fields,
                holdings,
            } => {
                let at = self.table.value_at(slot);
                Value::in_block(self.table.words(), at, *value_size, fields)
                    .with_holdings(holdings.as_deref())
            }
            Values::PerCpu(parts) => parts.value(&self.table, slot, cpu),
        }
    }

    /// Copies a value out as bpf(2) does.
    #[inline]
    fn copy_out(&self, slot: u32, value: &mut [u8], flags: UpdateFlags) {
        match &self.values {
            Values::One { fields, .. } => {
                self.table.words().read(self.table.value_at(slot), value);
                if !fields.is_empty() {
                    fields.hide(value);
                }
            }
            Values::PerCpu(parts) => parts.read(&self.table, slot, value, flags),
        }
    }

    /// What the special fields of an element held, which goes as the element does.
    #[inline]
    fn take_fields(&self, slot: u32) -> Gone {
        match &self.values {
            Values::One { holdings, .. } => {
                let at = self.table.value_at(slot);
                holdings::take(holdings.as_deref(), self.table.words(), at)
            }
            Values::PerCpu(parts) => parts.take_fields(&self.table, slot),
        }
    }

    /// Nobody has the slot any more.
    fn give_back(&self, slot: u32) {
        let gone = self.take_fields(slot);
        self.lru.give_back(slot);
        drop(gone);
    }

    /// A slot for a new element; another one may have to go.
    fn take(&self, cpu: u32) -> Result<u32> {
        let mut evicting = Evicting {
            map: self,
            gone: Gone::default(),
        };
        self.lru.take(cpu, &mut evicting).ok_or(Errno::ENOMEM)
    }

    /// Kernel: `htab_lru_map_update_elem`.
    fn update_replacing(
        &self,
        fields: &Fields,
        cpu: u32,
        key: impl Probe,
        value: &[u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        checks::update_flags(flags)?;
        let hash = self.table.hash(key);
        self.table.prefetch_bucket(hash);
        let slot = self.take(cpu)?;
        self.table.write_key(slot, key);
        let at = self.table.value_at(slot);
        if fields.is_empty() {
            self.table.words().fill(at, value);
        } else {
            // The place keeps its fields.
            fields.write_around(self.table.words(), at, value);
        }
        let mut bucket = self.table.lock(hash);
        let old = bucket.find(key, hash);
        let done = checks::existence(old.is_some(), flags);
        let unused = match (&done, old) {
            (Err(_), _) => Some(slot),
            (Ok(()), Some(old)) => {
                self.lru.reference(slot);
                bucket.replace(old, slot, hash);
                Some(old.slot)
            }
            (Ok(()), None) => {
                bucket.insert(slot, hash);
                None
            }
        };
        drop(bucket);
        if let Some(slot) = unused {
            self.give_back(slot);
        }
        done
    }

    /// `flags` are judged.
    ///
    /// Kernel: `__htab_lru_percpu_map_update_elem`.
    fn update_in_place(
        &self,
        parts: &Parts,
        cpu: u32,
        key: impl Probe,
        value: New<'_>,
        flags: UpdateFlags,
    ) -> Result<()> {
        let slot = if flags == UpdateFlags::EXIST {
            None
        } else {
            Some(self.take(cpu)?)
        };
        let hash = self.table.hash(key);
        let mut bucket = self.table.lock(hash);
        let old = bucket.find(key, hash);
        let done = checks::existence(old.is_some(), flags);
        let mut gone = Gone::default();
        let unused = match (&done, old, slot) {
            (Err(_), ..) => slot,
            (Ok(()), Some(old), _) => {
                self.lru.reference(old.slot);
                gone.and(parts.write(&self.table, old.slot, value, false));
                slot
            }
            (Ok(()), None, Some(slot)) => {
                self.table.write_key(slot, key);
                gone.and(parts.write(&self.table, slot, value, true));
                bucket.insert(slot, hash);
                None
            }
            (Ok(()), None, None) => unreachable!("with EXIST the key is there"),
        };
        drop(bucket);
        drop(gone);
        if let Some(slot) = unused {
            self.give_back(slot);
        }
        done
    }

    #[inline(never)]
    fn read(&self, key: impl Probe, value: &mut [u8], flags: UpdateFlags) -> Result<()> {
        self.table
            .read(key, |slot| self.copy_out(slot, value, flags))
            .ok_or(Errno::ENOENT)
    }

    /// Takes a key out, after a look at its slot.
    fn remove(&self, key: impl Probe, before: impl FnOnce(u32)) -> Result<()> {
        let hash = self.table.hash(key);
        let mut bucket = self.table.lock(hash);
        let place = bucket.find(key, hash).ok_or(Errno::ENOENT)?;
        before(place.slot);
        bucket.remove(place);
        drop(bucket);
        self.give_back(place.slot);
        Ok(())
    }
}

/// Elements that go for new ones. What they held is dropped when the lists are unlocked.
struct Evicting<'m> {
    map: &'m LruHash,
    gone: Gone,
}

impl Elems for &mut Evicting<'_> {
    /// Kernel: `htab_lru_map_delete_node`.
    fn evict(&mut self, slot: u32) -> bool {
        let table = &self.map.table;
        let mut bucket = table.lock(table.hash_of(slot));
        let place = bucket.find_slot(slot);
        if let Some(place) = place {
            bucket.remove(place);
            drop(bucket);
            self.gone.and(self.map.take_fields(slot));
        }
        place.is_some()
    }

    fn bring_near(&mut self, slots: &[u32]) {
        self.map.table.prefetch_chains(slots);
    }
}

impl MapOps for LruHash {
    /// The element counts as used.
    #[inline]
    fn lookup_elem(&self, cpu: u32, key: &[u8]) -> Option<Value<'_>> {
        let slot = self.table.find_key(key)?;
        self.lru.reference(slot);
        Some(self.value(slot, cpu))
    }

    /// The element counts as used.
    fn lookup_percpu_elem(&self, _cpu: u32, key: &[u8], of_cpu: u32) -> Option<Value<'_>> {
        let Values::PerCpu(parts) = &self.values else {
            return None;
        };
        if of_cpu >= parts.nr_cpus() {
            return None;
        }
        self.lookup_elem(of_cpu, key)
    }

    fn update_elem(&self, cpu: u32, key: &[u8], value: &[u8], flags: UpdateFlags) -> Result<()> {
        match &self.values {
            Values::One { fields, .. } => {
                with_probe!(key, |key| self
                    .update_replacing(fields, cpu, key, value, flags))
            }
            Values::PerCpu(parts) => {
                checks::update_flags(flags)?;
                let new = New::Program(cpu, value);
                with_probe!(key, |key| self.update_in_place(parts, cpu, key, new, flags))
            }
        }
    }

    fn delete_elem(&self, _cpu: u32, key: &[u8]) -> Result<()> {
        with_probe!(key, |key| self.remove(key, |_| ()))
    }

    fn for_each_elem(
        &self,
        cpu: u32,
        callback: &mut dyn FnMut(&[u8], Value<'_>) -> bool,
    ) -> Result<u64> {
        Ok(hash::for_each(&self.table, |key, slot| {
            callback(key, self.value(slot, cpu))
        }))
    }

    #[inline]
    fn user_lookup_elem(
        &self,
        _: &Caller<'_>,
        key: &[u8],
        value: &mut [u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        with_probe!(key, |key| self.read(key, value, flags))
    }

    fn user_update_elem(
        &self,
        caller: &Caller<'_>,
        key: &[u8],
        value: &[u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        let cpu = caller.cpu;
        match &self.values {
            Values::One { fields, .. } => {
                with_probe!(key, |key| self
                    .update_replacing(fields, cpu, key, value, flags))
            }
            Values::PerCpu(parts) => {
                let (new, flags) = parts.user_new(value, flags)?;
                with_probe!(key, |key| self.update_in_place(parts, cpu, key, new, flags))
            }
        }
    }

    fn user_lookup_and_delete_elem(
        &self,
        _: &Caller<'_>,
        key: &[u8],
        value: &mut [u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        let copy = |slot| self.copy_out(slot, value, flags);
        with_probe!(key, |key| self.remove(key, copy))
    }

    fn handle(&self, access: Access, other: Box<dyn MapHandle>) -> Box<dyn MapHandle> {
        match &self.values {
            Values::One {
                value_size, fields, ..
            } if fields.is_empty() => {
                let table = Arc::clone(&self.table);
                plain_hash::handle(table, *value_size as usize, access, other)
            }
            Values::One { .. } => other,
            Values::PerCpu(parts) => parts.handle(Arc::clone(&self.table), access, other),
        }
    }

    fn get_next_key(&self, key: Option<&[u8]>, next_key: &mut [u8]) -> Result<()> {
        hash::next_key_of(&self.table, key, next_key)
    }

    fn batches(&self) -> Batches {
        BY_BUCKET
    }

    fn n_buckets(&self) -> u32 {
        self.table.n_buckets()
    }

    fn user_lookup_buckets(&self, _: &Caller<'_>, request: &mut BucketRequest) {
        let flags = request.elem_flags;
        let gone = hash::read_buckets(&self.table, request, |slot, value| {
            self.copy_out(slot, value, flags);
        });
        for slot in gone.into_iter().rev() {
            self.give_back(slot);
        }
    }

    fn release_user_references(&self) {
        holdings::release_user_references(self.holdings());
    }

    fn holdings(&self) -> Option<&Holdings> {
        match &self.values {
            Values::One { holdings, .. } => holdings.as_deref(),
            Values::PerCpu(parts) => parts.holdings(),
        }
    }

    fn elem_at(&self, at: usize) -> Option<(Vec<u8>, Value<'_>)> {
        let table = &self.table;
        let slot = table.slot_of_value(at);
        let mut key = vec![0; table.key_size()];
        table.read_key(slot, &mut key);
        Some((key, self.value(slot, 0)))
    }

    fn set_fields(&mut self, fields: Fields, btf: Option<&Arc<Btf>>) {
        match &mut self.values {
            Values::One {
                fields: own,
                holdings,
                ..
            } => {
                *holdings = Holdings::of(&fields, btf);
                *own = fields;
            }
            Values::PerCpu(parts) => parts.set_fields(fields, btf),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
