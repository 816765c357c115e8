//! `BPF_MAP_TYPE_ARRAY`: `max_entries` elements that exist from creation on and never go away.
//!
//! Kernel: `kernel/bpf/arraymap.c` (v6.18).

use std::any::Any;
use std::sync::Arc;

use super::checks::{self, index_below, next_index};
use super::holdings::{self, Holdings};
use super::lock::SpinGuard;
use super::{Batches, Caller, MapDef, MapOps, Token, Value};
use crate::abi::{Errno, MapFlags, Result, UpdateFlags};
use crate::btf::{Btf, Fields};
use crate::env::{Env, PAGE_SIZE};
use crate::store::{WORD, Words};

/// See the module.
#[derive(Debug)]
pub struct Array {
    elems: Arc<Words>,
    mmapable: bool,
    max_entries: u32,
    value_size: u32,
    /// Words of one element.
    stride: usize,
    fields: Fields,
    holdings: Option<Box<Holdings>>,
}

impl Array {
    pub(super) fn new(def: &MapDef, _env: &Arc<Env>) -> Result<Self> {
        let mmapable = def.map_flags.contains(MapFlags::MMAPABLE);
        let stride = def.elem_size() / WORD;
        let words = stride
            .checked_mul(def.max_entries as usize)
            .ok_or(Errno::ENOMEM)?;
        let elems = if mmapable {
            Words::in_file(words.next_multiple_of(PAGE_SIZE / WORD))
        } else {
            Words::new(words)
        };
        Ok(Self {
            elems: Arc::new(elems.map_err(|_| Errno::ENOMEM)?),
            mmapable,
            max_entries: def.max_entries,
            value_size: def.value_size,
            stride,
            fields: Fields::default(),
            holdings: None,
        })
    }

    /// The word where an element begins.
    #[inline]
    fn at(&self, index: u32) -> usize {
        index as usize * self.stride
    }

    fn value(&self, index: u32) -> Value<'_> {
        Value::in_block(&self.elems, self.at(index), self.value_size, &self.fields)
            .with_holdings(self.holdings.as_deref())
    }

    /// Out of the way of the common lookup.
    #[cold]
    fn read_with_fields(&self, at: usize, value: &mut [u8], flags: UpdateFlags) {
        let guard = self.guard(at, flags);
        self.elems.read(at, value);
        drop(guard);
        self.fields.hide(value);
    }

    fn guard(&self, at: usize, flags: UpdateFlags) -> Option<SpinGuard<'_>> {
        let lock = self
            .fields
            .spin_lock()
            .filter(|_| flags.contains(UpdateFlags::LOCK))?;
        Some(SpinGuard::lock(&self.elems, at * WORD + lock as usize))
    }
}

/// The checks of an update that come before the value, in their order; the index.
///
/// Kernel: `kernel/bpf/arraymap.c:array_map_update_elem`.
pub(super) fn check_update(key: &[u8], max_entries: u32, flags: UpdateFlags) -> Result<u32> {
    checks::update_flags(flags - UpdateFlags::LOCK)?;
    // No element can be added: all of them exist since creation.
    let index = index_below(key, max_entries).ok_or(Errno::E2BIG)?;
    if flags.contains(UpdateFlags::NOEXIST) {
        return Err(Errno::EEXIST);
    }
    Ok(index)
}

impl MapOps for Array {
    #[inline]
    fn lookup_elem(&self, _cpu: u32, key: &[u8]) -> Option<Value<'_>> {
        index_below(key, self.max_entries).map(|index| self.value(index))
    }

    fn update_elem(&self, _cpu: u32, key: &[u8], value: &[u8], flags: UpdateFlags) -> Result<()> {
        let index = check_update(key, self.max_entries, flags)?;
        if flags.contains(UpdateFlags::LOCK) && self.fields.spin_lock().is_none() {
            return Err(Errno::EINVAL);
        }
        let at = self.at(index);
        if self.fields.is_empty() {
            self.elems.write(at, value);
        } else {
            let guard = self.guard(at, flags);
            self.fields.write_around(&self.elems, at, value);
            drop(guard);
            drop(holdings::take(self.holdings.as_deref(), &self.elems, at));
        }
        Ok(())
    }

    fn delete_elem(&self, _cpu: u32, _key: &[u8]) -> Result<()> {
        Err(Errno::EINVAL)
    }

    fn for_each_elem(
        &self,
        _cpu: u32,
        callback: &mut dyn FnMut(&[u8], Value<'_>) -> bool,
    ) -> Result<u64> {
        Ok(for_each_index(self.max_entries, |index| {
            callback(&index.to_ne_bytes(), self.value(index))
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
        let at = self.at(index_below(key, self.max_entries).ok_or(Errno::ENOENT)?);
        if self.fields.is_empty() {
            self.elems.read(at, value);
        } else {
            self.read_with_fields(at, value, flags);
        }
        Ok(())
    }

    fn get_next_key(&self, key: Option<&[u8]>, next_key: &mut [u8]) -> Result<()> {
        next_index(key, self.max_entries, next_key)
    }

    fn batches(&self) -> Batches {
        BY_INDEX
    }

    /// Kernel: `kernel/bpf/arraymap.c:array_map_meta_equal`.
    fn fits_template(&self, template: &MapDef, map: &MapDef) -> bool {
        template.map_flags.contains(MapFlags::INNER_MAP) || template.max_entries == map.max_entries
    }

    fn mappable(&self) -> Option<&Arc<Words>> {
        self.mmapable.then_some(&self.elems)
    }

    fn release_user_references(&self) {
        holdings::release_user_references(self.holdings.as_deref());
    }

    fn set_fields(&mut self, fields: Fields, btf: Option<&Arc<Btf>>) {
        self.holdings = Holdings::of(&fields, btf);
        self.fields = fields;
    }

    fn holdings(&self) -> Option<&Holdings> {
        self.holdings.as_deref()
    }

    fn elem_at(&self, at: usize) -> Option<(Vec<u8>, Value<'_>)> {
        let index = u32::try_from(at / self.stride).expect("indexes are u32");
        Some((index.to_ne_bytes().to_vec(), self.value(index)))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Arrays of values can be read and written by batches, by key.
pub(super) const BY_INDEX: Batches = Batches {
    lookup: true,
    lookup_and_delete: false,
    update: true,
    delete: false,
    token: Token::LastKey,
};

/// Calls `visit` for each index until it answers `false`; the number of calls.
///
/// Kernel: `kernel/bpf/arraymap.c:bpf_for_each_array_elem`.
pub(super) fn for_each_index(max_entries: u32, mut visit: impl FnMut(u32) -> bool) -> u64 {
    match (0..max_entries).position(|index| !visit(index)) {
        Some(last) => last as u64 + 1,
        None => max_entries.into(),
    }
}
