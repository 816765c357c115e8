//! `BPF_MAP_TYPE_ARRAY`: `max_entries` elements that exist from creation on and never go away.
//!
//! Kernel: `kernel/bpf/arraymap.c` (v6.18).

use std::any::Any;
use std::sync::Arc;

use super::checks::{self, index_below, index_of, next_index};
use super::direct::{self, Direct};
use super::holdings::{self, Holdings};
use super::lock::SpinGuard;
use super::{Access, Batches, Caller, MapDef, MapOps, Token, Value};
use crate::abi::{Errno, MapFlags, MapHandle, Result, UpdateFlags};
use crate::btf::{Btf, Fields};
use crate::env::{Env, PAGE_SIZE};
use crate::store::{Shape, WORD, Words};

/// See the module.
#[derive(Debug)]
pub struct Array {
    elems: Elems,
    mmapable: bool,
    value_size: u32,
    fields: Fields,
    holdings: Option<Box<Holdings>>,
}

/// All elements, one behind the other.
#[derive(Clone, Debug)]
pub(super) struct Elems {
    pub(super) words: Arc<Words>,
    pub(super) max_entries: u32,
    /// Words of one element.
    pub(super) stride: usize,
}

impl Elems {
    /// The word where an element begins.
    #[inline]
    pub(super) fn at(&self, index: u32) -> usize {
        index as usize * self.stride
    }
}

impl Direct for Elems {
    type Key<'k> = u32;

    #[inline(always)]
    fn cut(&self, bytes: &[u8]) -> Option<u32> {
        <u32 as Shape>::cut(bytes, size_of::<u32>())
    }

    #[inline(always)]
    fn read(&self, index: u32, value: &mut [u8]) -> Result<()> {
        if index >= self.max_entries {
            return Err(Errno::ENOENT);
        }
        self.words.read(self.at(index), value);
        Ok(())
    }

    #[inline(always)]
    fn next_key(&self, index: u32, next_key: &mut [u8]) -> Option<Result<()>> {
        let next_key = next_key.first_chunk_mut::<4>()?;
        Some(next_index(
            Some(&index.to_ne_bytes()),
            self.max_entries,
            next_key,
        ))
    }
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
            elems: Elems {
                words: Arc::new(elems.map_err(|_| Errno::ENOMEM)?),
                max_entries: def.max_entries,
                stride,
            },
            mmapable,
            value_size: def.value_size,
            fields: Fields::default(),
            holdings: None,
        })
    }

    fn value(&self, index: u32) -> Value<'_> {
        Value::in_block(
            &self.elems.words,
            self.elems.at(index),
            self.value_size,
            &self.fields,
        )
        .with_holdings(self.holdings.as_deref())
    }

    /// Out of the way of the common lookup.
    #[cold]
    fn read_with_fields(&self, at: usize, value: &mut [u8], flags: UpdateFlags) {
        let guard = self.guard(at, flags);
        self.elems.words.read(at, value);
        drop(guard);
        self.fields.hide(value);
    }

    fn guard(&self, at: usize, flags: UpdateFlags) -> Option<SpinGuard<'_>> {
        let lock = self
            .fields
            .spin_lock()
            .filter(|_| flags.contains(UpdateFlags::LOCK))?;
        Some(SpinGuard::lock(
            &self.elems.words,
            at * WORD + lock as usize,
        ))
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
        index_below(key, self.elems.max_entries).map(|index| self.value(index))
    }

    fn update_elem(&self, _cpu: u32, key: &[u8], value: &[u8], flags: UpdateFlags) -> Result<()> {
        let index = check_update(key, self.elems.max_entries, flags)?;
        if flags.contains(UpdateFlags::LOCK) && self.fields.spin_lock().is_none() {
            return Err(Errno::EINVAL);
        }
        let at = self.elems.at(index);
        if self.fields.is_empty() {
            self.elems.words.write(at, value);
        } else {
            let guard = self.guard(at, flags);
            self.fields.write_around(&self.elems.words, at, value);
            drop(guard);
            drop(holdings::take(
                self.holdings.as_deref(),
                &self.elems.words,
                at,
            ));
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
        Ok(for_each_index(self.elems.max_entries, |index| {
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
        if self.fields.is_empty() {
            return self.elems.read(index_of(key), value);
        }
        let index = index_below(key, self.elems.max_entries).ok_or(Errno::ENOENT)?;
        self.read_with_fields(self.elems.at(index), value, flags);
        Ok(())
    }

    fn handle(&self, access: Access, other: Box<dyn MapHandle>) -> Box<dyn MapHandle> {
        if self.fields.is_empty() {
            let value_size = self.value_size as usize;
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

    /// Kernel: `kernel/bpf/arraymap.c:array_map_meta_equal`.
    fn fits_template(&self, template: &MapDef, map: &MapDef) -> bool {
        template.map_flags.contains(MapFlags::INNER_MAP) || template.max_entries == map.max_entries
    }

    fn mappable(&self) -> Option<&Arc<Words>> {
        self.mmapable.then_some(&self.elems.words)
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
        let index = u32::try_from(at / self.elems.stride).expect("indexes are u32");
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
