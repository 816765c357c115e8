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
use super::{Batches, BucketRequest, Caller, MapDef, MapOps, Value, checks};
use crate::abi::{Errno, MapFlags, Result, UpdateFlags};
use crate::btf::Fields;
use crate::env::Env;
use crate::store::{Lru, Table, WORD};

/// See the module.
#[derive(Debug)]
pub struct LruHash {
    table: Table,
    lru: Lru,
    value_size: usize,
    /// Words of one CPU's part of a value, or of the whole value where there is only one.
    part_words: usize,
    /// Values have a part for each CPU.
    is_percpu: bool,
    nr_cpus: u32,
    fields: Fields,
}

/// A value that is to be written.
#[derive(Clone, Copy)]
enum NewValue<'a> {
    /// As bpf(2) copies it: all parts, with what fills them up.
    Whole(&'a [u8]),
    /// One CPU's part, without what fills it up.
    Part { cpu: u32, value: &'a [u8] },
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
        let nr_cpus = env.nr_cpus;
        let is_percpu = def.map_type.is_percpu();
        let part_words = def.elem_size() / WORD;
        let n_parts = if is_percpu { nr_cpus as usize } else { 1 };
        let n_slots = def.max_entries;
        let lru = if def.map_flags.contains(MapFlags::NO_COMMON_LRU) {
            Lru::own(n_slots / nr_cpus, nr_cpus)
        } else {
            Lru::shared(n_slots, nr_cpus)
        };
        Ok(Self {
            table: hash::table(def, env, n_slots, part_words * n_parts)?,
            lru: lru.map_err(|_| Errno::ENOMEM)?,
            value_size: def.value_size as usize,
            part_words,
            is_percpu,
            nr_cpus,
            fields: Fields::default(),
        })
    }

    /// The value of a slot, as a program on that CPU sees it.
    #[inline]
    fn value(&self, slot: u32, cpu: u32) -> Value<'_> {
        let at = self.table.value_at(slot);
        let at = if self.is_percpu {
            at + cpu as usize * self.part_words
        } else {
            at
        };
        let size = u32::try_from(self.value_size).expect("it was a u32");
        Value::in_block(self.table.words(), at, size, &self.fields)
    }

    /// Copies a value out as bpf(2) does.
    #[inline]
    fn copy_out(&self, slot: u32, value: &mut [u8]) {
        self.table.words().read(self.table.value_at(slot), value);
        if !self.fields.is_empty() {
            for part in value.chunks_mut(self.part_words * WORD) {
                self.fields.hide(part);
            }
        }
    }

    /// Bytes of a value as bpf(2) copies it.
    fn user_value_size(&self) -> usize {
        if self.is_percpu {
            self.part_words * WORD * self.nr_cpus as usize
        } else {
            self.value_size
        }
    }

    /// A slot for a new element; another one may have to go.
    fn take(&self, cpu: u32) -> Result<u32> {
        let evict = |slot| self.evict(slot);
        self.lru.take(cpu, evict).ok_or(Errno::ENOMEM)
    }

    /// Takes the element of a slot out; false if it is none at the moment.
    ///
    /// Kernel: `htab_lru_map_delete_node`.
    fn evict(&self, slot: u32) -> bool {
        let mut bucket = self.table.lock(self.table.hash_of(slot));
        let place = bucket.places().find(|place| place.slot == slot);
        match place {
            Some(place) => bucket.remove(place),
            None => return false,
        }
        true
    }

    /// Kernel: `htab_lru_map_update_elem`.
    fn update_replacing(
        &self,
        cpu: u32,
        key: &[u8],
        value: NewValue<'_>,
        flags: UpdateFlags,
    ) -> Result<()> {
        checks::update_flags(flags)?;
        let slot = self.take(cpu)?;
        self.write_new(slot, key, value);
        let hash = self.table.hash(key);
        let mut bucket = self.table.lock(hash);
        let old = bucket.find(key, hash);
        let done = hash::check_flags(old.is_some(), flags);
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
            self.lru.give_back(slot);
        }
        done
    }

    /// Kernel: `__htab_lru_percpu_map_update_elem`.
    fn update_in_place(
        &self,
        cpu: u32,
        key: &[u8],
        value: NewValue<'_>,
        flags: UpdateFlags,
    ) -> Result<()> {
        checks::update_flags(flags)?;
        let slot = if flags == UpdateFlags::EXIST {
            None
        } else {
            Some(self.take(cpu)?)
        };
        let hash = self.table.hash(key);
        let mut bucket = self.table.lock(hash);
        let old = bucket.find(key, hash);
        let done = hash::check_flags(old.is_some(), flags);
        let unused = match (&done, old, slot) {
            (Err(_), ..) => slot,
            (Ok(()), Some(old), _) => {
                self.lru.reference(old.slot);
                self.write_in_place(old.slot, value);
                slot
            }
            (Ok(()), None, Some(slot)) => {
                self.write_new(slot, key, value);
                bucket.insert(slot, hash);
                None
            }
            (Ok(()), None, None) => unreachable!("with EXIST the key is there"),
        };
        drop(bucket);
        if let Some(slot) = unused {
            self.lru.give_back(slot);
        }
        done
    }

    fn update(&self, cpu: u32, key: &[u8], value: NewValue<'_>, flags: UpdateFlags) -> Result<()> {
        if self.is_percpu {
            self.update_in_place(cpu, key, value, flags)
        } else {
            self.update_replacing(cpu, key, value, flags)
        }
    }

    /// Writes key and value of a slot that is in no bucket. What fills up a part stays as it was, unless it is given.
    ///
    /// Kernel: `pcpu_init_value`.
    fn write_new(&self, slot: u32, key: &[u8], value: NewValue<'_>) {
        self.table.write_key(slot, key);
        let words = self.table.words();
        let at = self.table.value_at(slot);
        match value {
            NewValue::Whole(value) if self.fields.is_empty() => words.fill(at, value),
            NewValue::Whole(value) => {
                let mut fresh = value.to_vec();
                for part in fresh.chunks_mut(self.part_words * WORD) {
                    self.fields.clear(part);
                }
                words.fill(at, &fresh);
            }
            NewValue::Part { cpu, value } => {
                let mut fresh = value.to_vec();
                self.fields.clear(&mut fresh);
                let zeros = vec![0; value.len()];
                for of_cpu in 0..self.nr_cpus {
                    let part = if of_cpu == cpu { &fresh } else { &zeros };
                    words.write(at + of_cpu as usize * self.part_words, part);
                }
            }
        }
    }

    /// Changes the value of an element.
    ///
    /// Kernel: `pcpu_copy_value`.
    fn write_in_place(&self, slot: u32, value: NewValue<'_>) {
        let words = self.table.words();
        let at = self.table.value_at(slot);
        match value {
            NewValue::Whole(value) if self.fields.is_empty() => words.fill(at, value),
            NewValue::Whole(value) => {
                for (part, bytes) in value.chunks(self.part_words * WORD).enumerate() {
                    let at = at + part * self.part_words;
                    self.fields.write_around(words, at, bytes);
                }
            }
            NewValue::Part { cpu, value } => {
                let at = at + cpu as usize * self.part_words;
                self.fields.write_around(words, at, value);
            }
        }
    }

    /// Takes a key out, after a look at its slot.
    fn remove(&self, key: &[u8], before: impl FnOnce(u32)) -> Result<()> {
        let hash = self.table.hash(key);
        let mut bucket = self.table.lock(hash);
        let place = bucket.find(key, hash).ok_or(Errno::ENOENT)?;
        before(place.slot);
        bucket.remove(place);
        drop(bucket);
        self.lru.give_back(place.slot);
        Ok(())
    }

    fn find(&self, key: &[u8]) -> Option<u32> {
        self.table.find(key, self.table.hash(key))
    }
}

impl MapOps for LruHash {
    /// The element counts as used.
    #[inline]
    fn lookup_elem(&self, cpu: u32, key: &[u8]) -> Option<Value<'_>> {
        let slot = self.find(key)?;
        self.lru.reference(slot);
        Some(self.value(slot, cpu))
    }

    /// The element counts as used.
    fn lookup_percpu_elem(&self, _cpu: u32, key: &[u8], of_cpu: u32) -> Option<Value<'_>> {
        if !self.is_percpu || of_cpu >= self.nr_cpus {
            return None;
        }
        let slot = self.find(key)?;
        self.lru.reference(slot);
        Some(self.value(slot, of_cpu))
    }

    fn update_elem(&self, cpu: u32, key: &[u8], value: &[u8], flags: UpdateFlags) -> Result<()> {
        let value = if self.is_percpu {
            NewValue::Part { cpu, value }
        } else {
            NewValue::Whole(value)
        };
        self.update(cpu, key, value, flags)
    }

    fn delete_elem(&self, _cpu: u32, key: &[u8]) -> Result<()> {
        self.remove(key, |_| ())
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
        _: UpdateFlags,
    ) -> Result<()> {
        let slot = self.find(key).ok_or(Errno::ENOENT)?;
        self.copy_out(slot, value);
        Ok(())
    }

    fn user_update_elem(
        &self,
        caller: &Caller<'_>,
        key: &[u8],
        value: &[u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        self.update(caller.cpu, key, NewValue::Whole(value), flags)
    }

    fn user_lookup_and_delete_elem(
        &self,
        _: &Caller<'_>,
        key: &[u8],
        value: &mut [u8],
        _: UpdateFlags,
    ) -> Result<()> {
        self.remove(key, |slot| self.copy_out(slot, value))
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

    fn user_lookup_bucket(
        &self,
        _: &Caller<'_>,
        bucket: u32,
        request: &mut BucketRequest<'_>,
    ) -> Result<()> {
        let gone = hash::read_bucket(&self.table, bucket, request, |slot, values| {
            let at = values.len();
            values.resize(at + self.user_value_size(), 0);
            self.copy_out(slot, &mut values[at..]);
        })?;
        for slot in gone.into_iter().rev() {
            self.lru.give_back(slot);
        }
        Ok(())
    }

    fn set_fields(&mut self, fields: Fields) {
        self.fields = fields;
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
