//! `BPF_MAP_TYPE_PERCPU_ARRAY`: an array with a value for each CPU.
//!
//! The bytes that fill a CPU's part up to 8 are stored and shown on the system call side; programs leave them alone.
//!
//! Kernel: `kernel/bpf/arraymap.c` (v6.18).

use std::any::Any;
use std::sync::Arc;

use super::array::{BY_INDEX, Elems, check_update, for_each_index};
use super::checks::{Which, index_below, next_index, percpu_flags};
use super::direct;
use super::holdings::{self, Holdings};
use super::{Access, Batches, Caller, MapDef, MapOps, Value};
use crate::abi::{Errno, MapHandle, Result, UpdateFlags};
use crate::btf::{Btf, Fields};
use crate::env::{Env, Release};
use crate::store::{WORD, Words};

/// See the module.
#[derive(Debug)]
pub struct PercpuArray {
    elems: Elems,
    nr_cpus: u32,
    value_size: u32,
    /// Words of one CPU's part.
    part: usize,
    release: &'static Release,
    fields: Fields,
    holdings: Option<Box<Holdings>>,
}

impl PercpuArray {
    pub(super) fn new(def: &MapDef, env: &Arc<Env>) -> Result<Self> {
        let part = def.elem_size() / WORD;
        let stride = part * env.nr_cpus as usize;
        let words = stride
            .checked_mul(def.max_entries as usize)
            .ok_or(Errno::ENOMEM)?;
        Ok(Self {
            elems: Elems {
                words: Arc::new(Words::new(words).map_err(|_| Errno::ENOMEM)?),
                max_entries: def.max_entries,
                stride,
            },
            nr_cpus: env.nr_cpus,
            value_size: def.value_size,
            part,
            release: env.release,
            fields: Fields::default(),
            holdings: None,
        })
    }

    /// The word where a CPU's part of an element begins.
    fn at(&self, index: u32, cpu: u32) -> usize {
        self.elems.at(index) + cpu as usize * self.part
    }

    fn value(&self, index: u32, cpu: u32) -> Value<'_> {
        Value::in_block(
            &self.elems.words,
            self.at(index, cpu),
            self.value_size,
            &self.fields,
        )
        .with_holdings(self.holdings.as_deref())
    }

    /// Writes a CPU's part; what its fields held goes.
    fn write(&self, at: usize, part: &[u8]) {
        self.fields.write_around(&self.elems.words, at, part);
        drop(holdings::take(
            self.holdings.as_deref(),
            &self.elems.words,
            at,
        ));
    }

    /// The words at which the parts of a value begin, by CPU.
    fn parts(&self, index: u32) -> impl Iterator<Item = usize> {
        (0..self.nr_cpus).map(move |cpu| self.at(index, cpu))
    }

    fn check_update(&self, key: &[u8], flags: UpdateFlags) -> Result<u32> {
        let index = check_update(key, self.elems.max_entries, flags)?;
        // A per-CPU value never has a lock.
        if flags.contains(UpdateFlags::LOCK) {
            Err(Errno::EINVAL)
        } else {
            Ok(index)
        }
    }
}

impl MapOps for PercpuArray {
    fn lookup_elem(&self, cpu: u32, key: &[u8]) -> Option<Value<'_>> {
        index_below(key, self.elems.max_entries).map(|index| self.value(index, cpu))
    }

    fn lookup_percpu_elem(&self, _cpu: u32, key: &[u8], of_cpu: u32) -> Option<Value<'_>> {
        let index = index_below(key, self.elems.max_entries)?;
        (of_cpu < self.nr_cpus).then(|| self.value(index, of_cpu))
    }

    fn update_elem(&self, cpu: u32, key: &[u8], value: &[u8], flags: UpdateFlags) -> Result<()> {
        let index = self.check_update(key, flags)?;
        self.write(self.at(index, cpu), value);
        Ok(())
    }

    fn delete_elem(&self, _cpu: u32, _key: &[u8]) -> Result<()> {
        Err(Errno::EINVAL)
    }

    fn for_each_elem(
        &self,
        cpu: u32,
        callback: &mut dyn FnMut(&[u8], Value<'_>) -> bool,
    ) -> Result<u64> {
        Ok(for_each_index(self.elems.max_entries, |index| {
            callback(&index.to_ne_bytes(), self.value(index, cpu))
        }))
    }

    fn user_lookup_elem(
        &self,
        _caller: &Caller<'_>,
        key: &[u8],
        value: &mut [u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        let index = index_below(key, self.elems.max_entries).ok_or(Errno::ENOENT)?;
        if flags.contains(UpdateFlags::CPU) {
            self.elems.words.read(self.at(index, flags.cpu()), value);
            self.fields.hide(value);
            return Ok(());
        }
        for (at, part) in self
            .parts(index)
            .zip(value.chunks_exact_mut(self.part * WORD))
        {
            self.elems.words.read(at, part);
            self.fields.hide(part);
        }
        Ok(())
    }

    fn user_update_elem(
        &self,
        _caller: &Caller<'_>,
        key: &[u8],
        value: &[u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        let (flags, which) = percpu_flags(flags, self.release.cpu_flags)?;
        let index = self.check_update(key, flags)?;
        match which {
            Which::Each => {
                let bytes = if self.release.percpu_user_copies_padding {
                    self.part * WORD
                } else {
                    self.value_size as usize
                };
                for (at, part) in self.parts(index).zip(value.chunks_exact(self.part * WORD)) {
                    self.write(at, &part[..bytes]);
                }
            }
            Which::All => self.parts(index).for_each(|at| self.write(at, value)),
            Which::One(cpu) => self.write(self.at(index, cpu), value),
        }
        Ok(())
    }

    fn handle(&self, access: Access, other: Box<dyn MapHandle>) -> Box<dyn MapHandle> {
        if self.fields.is_empty() {
            // The parts lie one behind the other, as user space has them.
            let value_size = self.elems.stride * WORD;
            direct::handle(self.elems.clone(), value_size, access, other)
        } else {
            other
        }
    }

    fn get_next_key(&self, key: Option<&[u8]>, next_key: &mut [u8]) -> Result<()> {
        next_index(key, self.elems.max_entries, next_key)
    }

    fn batches(&self) -> Batches {
        BY_INDEX
    }

    fn fits_template(&self, template: &MapDef, map: &MapDef) -> bool {
        !self.release.inner_percpu_array_has_size || template.max_entries == map.max_entries
    }

    fn set_fields(&mut self, fields: Fields, btf: Option<&Arc<Btf>>) {
        self.holdings = Holdings::of(&fields, btf);
        self.fields = fields;
    }

    fn holdings(&self) -> Option<&Holdings> {
        self.holdings.as_deref()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
