//! `BPF_MAP_TYPE_PERCPU_HASH`: a hash with a value for each CPU, preallocated or not.
//!
//! An update of a key that is there is in place. The bytes that fill a CPU's part up to 8 are written by user space only, and
//! stay in the slot whatever key has it.
//!
//! Kernel: `kernel/bpf/hashtab.c` (v6.18).

use std::any::Any;
use std::sync::Arc;

use super::checks::{self, Which};
use super::hash::{BY_BUCKET, for_each, next_key_of, read_buckets};
use super::holdings::{self, Gone, Holdings};
use super::plain_hash::{self, Plain};
use super::slots::Slots;
use super::{Access, Batches, BucketRequest, Caller, MapDef, MapOps, Value};
use crate::abi::{Errno, MapHandle, Result, UpdateFlags};
use crate::btf::{Btf, Fields};
use crate::env::{Env, Release};
use crate::store::{Probe, Table, WORD, with_probe};

/// See the module.
#[derive(Debug)]
pub struct PercpuHash {
    slots: Arc<Slots>,
    parts: Parts,
}

/// How the values of a per-CPU hash lie in their slots.
#[derive(Debug)]
pub(super) struct Parts {
    nr_cpus: u32,
    value_size: u32,
    /// Words of one CPU's part.
    part: usize,
    release: &'static Release,
    fields: Fields,
    holdings: Option<Box<Holdings>>,
}

impl Parts {
    pub(super) fn new(def: &MapDef, env: &Env) -> Self {
        Self {
            nr_cpus: env.nr_cpus,
            value_size: def.value_size,
            part: def.elem_size() / WORD,
            release: env.release,
            fields: Fields::default(),
            holdings: None,
        }
    }

    /// Number of parts of a value.
    pub(super) fn nr_cpus(&self) -> u32 {
        self.nr_cpus
    }

    /// Words of a value, of all CPUs.
    pub(super) fn words(&self) -> usize {
        self.part * self.nr_cpus as usize
    }

    /// One CPU's part, in place.
    pub(super) fn value<'m>(&'m self, table: &'m Table, slot: u32, cpu: u32) -> Value<'m> {
        Value::in_block(
            table.words(),
            self.at(table, slot, cpu),
            self.value_size,
            &self.fields,
        )
        .with_holdings(self.holdings.as_deref())
    }

    pub(super) fn set_fields(&mut self, fields: Fields, btf: Option<&Arc<Btf>>) {
        self.holdings = Holdings::of(&fields, btf);
        self.fields = fields;
    }

    pub(super) fn holdings(&self) -> Option<&Holdings> {
        self.holdings.as_deref()
    }

    /// What the special fields of an element held, of all CPUs, which goes as the element does.
    pub(super) fn take_fields(&self, table: &Table, slot: u32) -> Gone {
        let mut gone = Gone::default();
        if let Some(holdings) = &self.holdings {
            for cpu in 0..self.nr_cpus {
                gone.and(holdings.take(table.words(), self.at(table, slot, cpu)));
            }
        }
        gone
    }

    fn at(&self, table: &Table, slot: u32, cpu: u32) -> usize {
        table.value_at(slot) + cpu as usize * self.part
    }

    /// Copies a value out, as user space sees it: one CPU's if the flags say so.
    pub(super) fn read(&self, table: &Table, slot: u32, value: &mut [u8], flags: UpdateFlags) {
        if flags.contains(UpdateFlags::CPU) {
            table.words().read(self.at(table, slot, flags.cpu()), value);
            return self.fields.hide(value);
        }
        if self.fields.is_empty() {
            // The parts lie one behind the other, as user space has them.
            return table.words().read(table.value_at(slot), value);
        }
        for (cpu, part) in (0..self.nr_cpus).zip(value.chunks_exact_mut(self.part * WORD)) {
            table.words().read(self.at(table, slot, cpu), part);
            self.fields.hide(part);
        }
    }

    /// Writes a value into the slot of a key that is there, or (`fresh`) of a new one. Gives what its fields held: what they
    /// hold in the slot of a new key was put there by who still had a pointer to an old one, and a program leaves it.
    ///
    /// Kernel: `kernel/bpf/hashtab.c:pcpu_copy_value`, `pcpu_init_value`.
    pub(super) fn write(&self, table: &Table, slot: u32, value: New<'_>, fresh: bool) -> Gone {
        let words = table.words();
        let mut gone = Gone::default();
        let mut write = |at, part: &[u8], takes| {
            self.fields.write_around(words, at, part);
            if takes {
                gone.and(holdings::take(self.holdings(), words, at));
            }
        };
        match value {
            New::User(value, Which::Each) => {
                for (cpu, part) in (0..self.nr_cpus).zip(value.chunks_exact(self.part * WORD)) {
                    write(self.at(table, slot, cpu), &part[..self.user_bytes()], true);
                }
            }
            New::User(value, Which::All) => {
                for cpu in 0..self.nr_cpus {
                    write(self.at(table, slot, cpu), value, true);
                }
            }
            New::User(value, Which::One(cpu)) => {
                write(self.at(table, slot, cpu), value, true);
                if fresh && self.release.percpu_new_of_one_cpu_clears_others {
                    self.clear_others(table, slot, cpu, value.len());
                }
            }
            New::Program(cpu, value) if fresh => {
                let at = self.at(table, slot, cpu);
                write(at, value, false);
                if self.release.percpu_new_copies_padding {
                    // Bytes behind the program's value, which nobody here knows.
                    let end = at * WORD + value.len();
                    words.write_bytes(end, &vec![0; self.part * WORD - value.len()]);
                }
                let zeros = if self.release.percpu_new_clears_padding {
                    self.part * WORD
                } else {
                    value.len()
                };
                self.clear_others(table, slot, cpu, zeros);
            }
            New::Program(cpu, value) => {
                write(self.at(table, slot, cpu), value, true);
            }
        }
        gone
    }

    /// Bytes of a part that user space writes.
    fn user_bytes(&self) -> usize {
        if self.release.percpu_user_copies_padding {
            self.part * WORD
        } else {
            self.value_size as usize
        }
    }

    /// Makes so many bytes 0 in the parts of the other CPUs.
    fn clear_others(&self, table: &Table, slot: u32, cpu: u32, bytes: usize) {
        const ZEROS: [u8; 64] = [0; 64];
        for other in (0..self.nr_cpus).filter(|other| *other != cpu) {
            let mut at = self.at(table, slot, other);
            for from in (0..bytes).step_by(ZEROS.len()) {
                table
                    .words()
                    .write(at, &ZEROS[..ZEROS.len().min(bytes - from)]);
                at += ZEROS.len() / WORD;
            }
        }
    }

    /// A handle of a map whose values are such, in those elements.
    pub(super) fn handle(
        &self,
        elems: impl Plain,
        access: Access,
        other: Box<dyn MapHandle>,
    ) -> Box<dyn MapHandle> {
        if self.fields.is_empty() {
            // The parts lie one behind the other, as user space has them.
            plain_hash::handle(elems, self.words() * WORD, access, other)
        } else {
            other
        }
    }

    /// What an update from user space writes, and the flags that say whether.
    pub(super) fn user_new<'v>(
        &self,
        value: &'v [u8],
        flags: UpdateFlags,
    ) -> Result<(New<'v>, UpdateFlags)> {
        let (flags, which) = checks::percpu_flags(flags, self.release.cpu_flags)?;
        Ok((New::User(value, which), flags))
    }
}

/// What an update writes.
#[derive(Clone, Copy, Debug)]
pub(super) enum New<'v> {
    /// From user space.
    User(&'v [u8], Which),
    /// One CPU's value, from a program.
    Program(u32, &'v [u8]),
}

impl PercpuHash {
    pub(super) fn new(def: &MapDef, env: &Arc<Env>) -> Result<Self> {
        let parts = Parts::new(def, env);
        Ok(Self {
            slots: Arc::new(Slots::new(def, env, parts.words(), 0)?),
            parts,
        })
    }

    fn table(&self) -> &Table {
        &self.slots.table
    }

    #[inline(never)]
    fn read(&self, key: impl Probe, value: &mut [u8], flags: UpdateFlags) -> Result<()> {
        self.table()
            .read(key, |slot| {
                self.parts.read(self.table(), slot, value, flags);
            })
            .ok_or(Errno::ENOENT)
    }

    /// `flags` are judged.
    ///
    /// Kernel: `kernel/bpf/hashtab.c:__htab_percpu_map_update_elem`.
    fn update(&self, cpu: u32, key: impl Probe, value: New<'_>, flags: UpdateFlags) -> Result<()> {
        let hash = self.table().hash(key);
        let mut bucket = self.table().lock(hash);
        let old = bucket.find(key, hash);
        checks::existence(old.is_some(), flags)?;
        let gone = match old {
            Some(old) => self.parts.write(self.table(), old.slot, value, false),
            None => {
                let slot = self.slots.take(cpu)?;
                self.table().write_key(slot, key);
                let gone = self.parts.write(self.table(), slot, value, true);
                bucket.insert(slot, hash);
                gone
            }
        };
        drop(bucket);
        drop(gone);
        Ok(())
    }
}

impl MapOps for PercpuHash {
    fn lookup_elem(&self, cpu: u32, key: &[u8]) -> Option<Value<'_>> {
        let slot = self.table().find_key(key)?;
        Some(self.parts.value(self.table(), slot, cpu))
    }

    fn lookup_percpu_elem(&self, _cpu: u32, key: &[u8], of_cpu: u32) -> Option<Value<'_>> {
        if of_cpu >= self.parts.nr_cpus {
            return None;
        }
        self.lookup_elem(of_cpu, key)
    }

    fn update_elem(&self, cpu: u32, key: &[u8], value: &[u8], flags: UpdateFlags) -> Result<()> {
        checks::update_flags(flags)?;
        let new = New::Program(cpu, value);
        with_probe!(key, |key| self.update(cpu, key, new, flags))
    }

    fn delete_elem(&self, cpu: u32, key: &[u8]) -> Result<()> {
        let free = |slot| drop(self.parts.take_fields(self.table(), slot));
        with_probe!(key, |key| self.slots.remove::<false>(
            cpu,
            key,
            |_| (),
            free
        ))
    }

    fn for_each_elem(
        &self,
        cpu: u32,
        callback: &mut dyn FnMut(&[u8], Value<'_>) -> bool,
    ) -> Result<u64> {
        Ok(for_each(self.table(), |key, slot| {
            callback(key, self.parts.value(self.table(), slot, cpu))
        }))
    }

    fn user_lookup_elem(
        &self,
        _caller: &Caller<'_>,
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
        let (new, flags) = self.parts.user_new(value, flags)?;
        with_probe!(key, |key| self.update(caller.cpu, key, new, flags))
    }

    fn user_lookup_and_delete_elem(
        &self,
        caller: &Caller<'_>,
        key: &[u8],
        value: &mut [u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        let read = |slot| self.parts.read(self.table(), slot, value, flags);
        let free = |slot| drop(self.parts.take_fields(self.table(), slot));
        with_probe!(key, |key| self
            .slots
            .remove::<false>(caller.cpu, key, read, free))
    }

    fn handle(&self, access: Access, other: Box<dyn MapHandle>) -> Box<dyn MapHandle> {
        self.parts.handle(Arc::clone(&self.slots), access, other)
    }

    fn get_next_key(&self, key: Option<&[u8]>, next_key: &mut [u8]) -> Result<()> {
        next_key_of(self.table(), key, next_key)
    }

    fn batches(&self) -> Batches {
        BY_BUCKET
    }

    fn n_buckets(&self) -> u32 {
        self.table().n_buckets()
    }

    fn user_lookup_buckets(&self, caller: &Caller<'_>, request: &mut BucketRequest) {
        let flags = request.elem_flags;
        let gone = read_buckets(self.table(), request, |slot, value| {
            self.parts.read(self.table(), slot, value, flags);
        });
        for &slot in &gone {
            drop(self.parts.take_fields(self.table(), slot));
        }
        self.slots.give_back_all(caller.cpu, gone);
    }

    fn set_fields(&mut self, fields: Fields, btf: Option<&Arc<Btf>>) {
        self.parts.set_fields(fields, btf);
    }

    fn holdings(&self) -> Option<&Holdings> {
        self.parts.holdings()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
