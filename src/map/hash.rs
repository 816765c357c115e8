//! `BPF_MAP_TYPE_HASH`: elements by key, preallocated or not.
//!
//! An update of a key that is there makes a new element in another slot, in front of its bucket, so a reader sees the old
//! value or the new one; with `BPF_F_LOCK` the value changes in place.
//!
//! `BPF_MAP_TYPE_RHASH` too: never preallocated, of a size that follows its elements. There an update of a key that is there
//! changes the value in place, and batches go by key. The order of its elements is one of those that it could have.
//!
//! Kernel: `kernel/bpf/hashtab.c` (v6.18).

use std::any::Any;
use std::sync::Arc;

use super::holdings::{self, Gone, Holdings};
use super::lock::SpinGuard;
use super::plain_hash::{self, Written};
use super::slots::Slots;
use super::{Access, Batches, BucketRequest, Caller, MapDef, MapOps, Token, Value, checks};
use crate::abi::{Errno, MapHandle, MapType, Result, UpdateFlags};
use crate::btf::{Btf, Fields};
use crate::env::Env;
use crate::store::{Bucket, Hash as KeyHash, Place, Probe, Table, WORD, with_probe};

/// See the module.
#[derive(Debug)]
pub struct Hash {
    slots: Arc<Slots>,
    value_size: u32,
    fields: Fields,
    holdings: Option<Box<Holdings>>,
    /// It is an `RHASH`.
    grows: bool,
    /// It is one of [`super::plain_hash`].
    plain: bool,
}

impl Hash {
    pub(super) fn new(def: &MapDef, env: &Arc<Env>, cpu: u32) -> Result<Self> {
        let slots = Slots::new(def, env, def.elem_size() / WORD, env.nr_cpus)?;
        slots.set_spares(cpu);
        let grows = def.map_type == MapType::RHASH;
        Ok(Self {
            plain: slots.are_preallocated() && !grows,
            slots: Arc::new(slots),
            value_size: def.value_size,
            fields: Fields::default(),
            holdings: None,
            grows,
        })
    }

    fn value(&self, slot: u32) -> Value<'_> {
        Value::in_block(
            self.slots.table.words(),
            self.slots.table.value_at(slot),
            self.value_size,
            &self.fields,
        )
        .with_holdings(self.holdings.as_deref())
    }

    /// Copies a value out, under its lock if the flags say so.
    #[inline(always)]
    fn copy_out(&self, slot: u32, value: &mut [u8], flags: UpdateFlags) {
        let at = self.slots.table.value_at(slot);
        if self.fields.is_empty() {
            self.slots.table.words().read(at, value);
        } else {
            self.copy_fields_out(at, value, flags);
        }
    }

    #[inline(never)]
    fn copy_fields_out(&self, at: usize, value: &mut [u8], flags: UpdateFlags) {
        let _guard = self.guard(at, flags);
        self.slots.table.words().read(at, value);
        self.fields.hide(value);
    }

    #[inline]
    fn guard(&self, value_at: usize, flags: UpdateFlags) -> Option<SpinGuard<'_>> {
        if !flags.contains(UpdateFlags::LOCK) {
            return None;
        }
        let lock = self.fields.spin_lock()?;
        Some(SpinGuard::lock(
            self.slots.table.words(),
            value_at * WORD + lock as usize,
        ))
    }

    /// Writes a value in place, under its lock if the flags say so.
    fn write_in_place(&self, slot: u32, value: &[u8], flags: UpdateFlags) {
        let at = self.slots.table.value_at(slot);
        let _guard = self.guard(at, flags);
        self.fields
            .write_around(self.slots.table.words(), at, value);
    }
}

// Compiled for each shape of keys; plain maps have functions of their own.
impl Hash {
    #[inline(never)]
    fn read_with_fields(
        &self,
        key: impl Probe,
        value: &mut [u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        self.slots
            .table
            .read(key, |slot| {
                self.copy_fields_out(self.slots.table.value_at(slot), value, flags);
            })
            .ok_or(Errno::ENOENT)
    }

    #[inline(never)]
    fn remove<const USER: bool>(&self, cpu: u32, key: impl Probe) -> Result<()> {
        let free = |slot| drop(self.take_fields(slot));
        self.slots.remove::<USER>(cpu, key, |_| (), free)
    }

    #[inline(never)]
    fn take(&self, cpu: u32, key: impl Probe, value: &mut [u8], flags: UpdateFlags) -> Result<()> {
        let look = |slot| self.copy_out(slot, value, flags);
        let free = |slot| drop(self.take_fields(slot));
        self.slots.remove::<true>(cpu, key, look, free)
    }

    /// Kernel: `kernel/bpf/hashtab.c:htab_map_update_elem`. The order of the checks is part of the behaviour.
    #[inline(never)]
    fn update<const USER: bool>(
        &self,
        cpu: u32,
        key: impl Probe,
        value: &[u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        let locks = flags.contains(UpdateFlags::LOCK);
        if locks {
            checks::update_flags(flags - UpdateFlags::LOCK)?;
            self.fields.spin_lock().ok_or(Errno::EINVAL)?;
        } else {
            checks::update_flags(flags)?;
        }
        let hash = self.slots.table.hash(key);
        if locks {
            // Of an element that is there, its own lock is enough: who waits for it holds up nobody else.
            let old = self.slots.table.find(key, hash);
            checks::existence(old.is_some(), flags)?;
            if let Some(old) = old {
                self.write_in_place(old, value, flags);
                return Ok(());
            }
        }
        let mut bucket = self.slots.table.lock(hash);
        self.slots.may_write::<USER>()?;
        let old = bucket.find(key, hash);
        checks::existence(old.is_some(), flags)?;
        match old {
            Some(old) if locks || self.grows => {
                self.write_in_place(old.slot, value, flags);
                Ok(())
            }
            Some(old) => self.replace(cpu, bucket, old, (key, hash), value),
            None => {
                let slot = self.slots.take(cpu)?;
                self.fill(slot, key, value);
                bucket.insert(slot, hash);
                Ok(())
            }
        }
    }

    /// Replaces an element by one in another slot.
    #[inline(always)]
    fn replace(
        &self,
        cpu: u32,
        mut bucket: Bucket<'_>,
        old: Place,
        (key, hash): (impl Probe, KeyHash),
        value: &[u8],
    ) -> Result<()> {
        let new = self.slots.take_for_replacing(cpu)?;
        self.fill(new, key, value);
        bucket.replace(old, new, hash);
        let gone = self.take_fields(old.slot);
        drop(bucket);
        self.slots.give_back_replaced(cpu, old.slot);
        drop(gone);
        Ok(())
    }

    /// Writes key and value of a slot that no list has.
    #[inline(always)]
    fn fill(&self, slot: u32, key: impl Probe, value: &[u8]) {
        self.slots.table.write_key(slot, key);
        let at = self.slots.table.value_at(slot);
        if self.fields.is_empty() {
            self.slots.table.words().fill(at, value);
        } else {
            self.fill_fields(at, value);
        }
    }

    fn fill_fields(&self, at: usize, value: &[u8]) {
        let words = self.slots.table.words();
        if self.slots.are_preallocated() {
            // A place of a preallocated map keeps its fields: a lock that someone holds stays held.
            self.fields.write_around(words, at, value);
        } else {
            // Fresh fields are zero, whatever the caller's bytes are.
            let mut fresh = value.to_vec();
            self.fields.clear(&mut fresh);
            words.fill(at, &fresh);
        }
    }

    /// What the special fields of an element held, which goes as the element does.
    #[inline]
    fn take_fields(&self, slot: u32) -> Gone {
        let table = &self.slots.table;
        holdings::take(
            self.holdings.as_deref(),
            table.words(),
            table.value_at(slot),
        )
    }

    #[inline(always)]
    fn update_any<const USER: bool>(
        &self,
        cpu: u32,
        key: &[u8],
        value: &[u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        with_probe!(key, |key| if self.plain {
            self.slots.update_plain::<USER>(cpu, key, value, flags)
        } else {
            self.update::<USER>(cpu, key, value, flags)
        })
    }

    #[inline(always)]
    fn remove_any<const USER: bool>(&self, cpu: u32, key: &[u8]) -> Result<()> {
        with_probe!(key, |key| if self.plain {
            self.slots.remove_plain::<USER>(cpu, key)
        } else {
            self.remove::<USER>(cpu, key)
        })
    }
}

impl MapOps for Hash {
    #[inline]
    fn lookup_elem(&self, _cpu: u32, key: &[u8]) -> Option<Value<'_>> {
        self.slots.table.find_key(key).map(|slot| self.value(slot))
    }

    fn update_elem(&self, cpu: u32, key: &[u8], value: &[u8], flags: UpdateFlags) -> Result<()> {
        self.update_any::<false>(cpu, key, value, flags)
    }

    fn delete_elem(&self, cpu: u32, key: &[u8]) -> Result<()> {
        self.remove_any::<false>(cpu, key)
    }

    fn for_each_elem(
        &self,
        _cpu: u32,
        callback: &mut dyn FnMut(&[u8], Value<'_>) -> bool,
    ) -> Result<u64> {
        Ok(for_each(&self.slots.table, |key, slot| {
            callback(key, self.value(slot))
        }))
    }

    #[inline]
    fn user_lookup_elem(
        &self,
        _caller: &Caller<'_>,
        key: &[u8],
        value: &mut [u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        with_probe!(key, |key| if self.fields.is_empty() {
            plain_hash::read(&self.slots.table, key, value)
        } else {
            self.read_with_fields(key, value, flags)
        })
    }

    fn handle(&self, access: Access, other: Box<dyn MapHandle>) -> Box<dyn MapHandle> {
        let (slots, value_size) = (Arc::clone(&self.slots), self.value_size as usize);
        if self.plain {
            plain_hash::handle(Written(slots), value_size, access, other)
        } else if self.fields.is_empty() {
            plain_hash::handle(slots, value_size, access, other)
        } else {
            other
        }
    }

    fn counts_writes(&self) -> bool {
        false
    }

    fn freeze(&self) {
        self.slots.freeze();
    }

    fn user_update_elem(
        &self,
        caller: &Caller<'_>,
        key: &[u8],
        value: &[u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        self.update_any::<true>(caller.cpu, key, value, flags)
    }

    fn user_delete_elem(&self, caller: &Caller<'_>, key: &[u8]) -> Result<()> {
        self.remove_any::<true>(caller.cpu, key)
    }

    fn user_lookup_and_delete_elem(
        &self,
        caller: &Caller<'_>,
        key: &[u8],
        value: &mut [u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        with_probe!(key, |key| self.take(caller.cpu, key, value, flags))
    }

    fn get_next_key(&self, key: Option<&[u8]>, next_key: &mut [u8]) -> Result<()> {
        next_key_of(&self.slots.table, key, next_key)
    }

    fn batches(&self) -> Batches {
        let token = if self.grows {
            Token::NextKey
        } else {
            Token::Bucket
        };
        Batches { token, ..BY_BUCKET }
    }

    fn n_buckets(&self) -> u32 {
        self.slots.table.n_buckets()
    }

    fn user_lookup_buckets(&self, caller: &Caller<'_>, request: &mut BucketRequest) {
        let flags = request.elem_flags;
        let gone = read_buckets(&self.slots.table, request, |slot, value| {
            self.copy_out(slot, value, flags);
        });
        for &slot in &gone {
            drop(self.take_fields(slot));
        }
        self.slots.give_back_all(caller.cpu, gone);
    }

    fn release_user_references(&self) {
        holdings::release_user_references(self.holdings.as_deref());
    }

    fn set_fields(&mut self, fields: Fields, btf: Option<&Arc<Btf>>) {
        self.holdings = Holdings::of(&fields, btf);
        self.plain &= fields.is_empty();
        self.fields = fields;
    }

    fn holdings(&self) -> Option<&Holdings> {
        self.holdings.as_deref()
    }

    fn elem_at(&self, at: usize) -> Option<(Vec<u8>, Value<'_>)> {
        let table = &self.slots.table;
        let slot = table.slot_of_value(at);
        let mut key = vec![0; table.key_size()];
        table.read_key(slot, &mut key);
        Some((key, self.value(slot)))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Hash types have all batch commands, and their lookups go by bucket.
pub(super) const BY_BUCKET: Batches = Batches {
    lookup: true,
    lookup_and_delete: true,
    update: true,
    delete: true,
    token: Token::Bucket,
};

/// The key after `key`; the first, if there is none such or it is gone.
///
/// Kernel: `kernel/bpf/hashtab.c:htab_map_get_next_key`.
pub(super) fn next_key_of(table: &Table, key: Option<&[u8]>, next_key: &mut [u8]) -> Result<()> {
    if table.next_key(key, next_key) {
        Ok(())
    } else {
        Err(Errno::ENOENT)
    }
}

/// Calls `visit(key, slot)` for each element until it answers `false`; the number of calls. The next element of a bucket is
/// taken before the call, so it is visited even if the call deletes it.
///
/// Kernel: `kernel/bpf/hashtab.c:bpf_for_each_hash_elem`.
pub(super) fn for_each(table: &Table, mut visit: impl FnMut(&[u8], u32) -> bool) -> u64 {
    let mut key = vec![0; table.key_size()];
    let mut calls = 0;
    for bucket in 0..table.n_buckets() {
        let mut at = table.front(bucket);
        while let Some(slot) = at {
            at = table.behind(slot);
            table.read_key(slot, &mut key);
            calls += 1;
            if !visit(&key, slot) {
                return calls;
            }
        }
    }
    calls
}

/// Reads buckets as the request says: keys, and values by `read_value(slot, value)`. The slots taken out, front to back, if
/// the request deletes.
///
/// Kernel: `kernel/bpf/hashtab.c:__htab_map_lookup_and_delete_batch`.
pub(super) fn read_buckets(
    table: &Table,
    request: &mut BucketRequest,
    mut read_value: impl FnMut(u32, &mut [u8]),
) -> Vec<u32> {
    let mut gone = Vec::new();
    while request.bucket < table.n_buckets() && request.wants_more() {
        let bucket = request.bucket;
        table.prefetch_ahead(bucket, true);
        let delete = request.delete;
        let locked = (delete && table.front(bucket).is_some()).then(|| table.lock_bucket(bucket));
        let mut read = |front| {
            let (mut at, mut read) = (front, 0);
            while let Some(slot) = at {
                if read == request.room {
                    return None;
                }
                at = table.behind(slot);
                let (key, value) = request.elem(request.read + read);
                table.read_key(slot, key);
                read_value(slot, value);
                read += 1;
            }
            Some(read)
        };
        let fitted = match &locked {
            Some(locked) => read(locked.front()),
            // Empty when it was looked at: what came since is not removed, so it is not read.
            None if delete => Some(0),
            None => table.read_bucket(bucket, read),
        };
        let Some(read) = fitted else {
            break;
        };
        request.read += read;
        request.room -= read;
        request.bucket += 1;
        if let Some(mut locked) = locked {
            gone.extend(locked.places().map(|place| place.slot));
            locked.clear();
        }
    }
    gone
}
