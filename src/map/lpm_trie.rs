//! `BPF_MAP_TYPE_LPM_TRIE`: finds the longest prefix of a key.
//!
//! A key is the length of a prefix in bits, a `u32` in the machine's byte order, and the bytes it is a prefix of.
//!
//! Kernel: `kernel/bpf/lpm_trie.c` (v6.18).

use std::any::Any;
use std::sync::{Arc, PoisonError};

use crossbeam_utils::sync::{ShardedLock, ShardedLockReadGuard, ShardedLockWriteGuard};

use super::{Batches, Caller, MapDef, MapOps, Value, checks};
use crate::abi::{Errno, Result, UpdateFlags};
use crate::btf::Fields;
use crate::env::Env;
use crate::store::{Entry, Full, Trie, Vacant, WORD, Words};

/// Bytes of a key before its data.
const PREFIX_LEN_SIZE: usize = size_of::<u32>();
/// Bytes that the kernel adds to each node.
const NODE_HEADER: u64 = 24;

/// See the module.
#[derive(Debug)]
pub struct LpmTrie {
    /// A replaced value gets memory of its own, so that a program that holds the old one goes on seeing it.
    ///
    /// Readers on several threads do not write to the same line of memory.
    trie: ShardedLock<Trie<Arc<Words>>>,
    /// Bits of the data part of a key.
    max_prefix_len: u32,
    value_size: u32,
    /// Bytes that one element takes.
    elem_charge: u64,
    env: Arc<Env>,
    fields: Fields,
}

impl LpmTrie {
    /// The empty trie. Memory is taken with each element.
    ///
    /// # Errors
    ///
    /// None.
    ///
    /// Kernel: `trie_alloc`.
    pub(super) fn new(def: &MapDef, env: &Arc<Env>) -> Result<Self> {
        let data_size = def.key_size as usize - PREFIX_LEN_SIZE;
        let trie = Trie::new(def.max_entries as usize, data_size);
        Ok(Self {
            max_prefix_len: trie.max_prefix_len(),
            trie: ShardedLock::new(trie),
            value_size: def.value_size,
            elem_charge: NODE_HEADER + u64::from(def.key_size) + u64::from(def.value_size),
            env: Arc::clone(env),
            fields: Fields::default(),
        })
    }

    // A panic below would be a bug of the trie's, and is told then; it is no reason for more of them.
    fn read(&self) -> ShardedLockReadGuard<'_, Trie<Arc<Words>>> {
        self.trie.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> ShardedLockWriteGuard<'_, Trie<Arc<Words>>> {
        self.trie.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The prefix that a key is, if it is not too long.
    fn prefix<'k>(&self, key: &'k [u8]) -> Option<(u32, &'k [u8])> {
        let (prefix_len, data) = key.split_at(PREFIX_LEN_SIZE);
        let prefix_len = u32::from_ne_bytes(prefix_len.try_into().expect("a u32"));
        (prefix_len <= self.max_prefix_len).then_some((prefix_len, data))
    }

    /// Memory for one value, with the value in it.
    fn new_value(&self, value: &[u8]) -> Result<Arc<Words>> {
        let words = Words::new(value.len().div_ceil(WORD)).map_err(|_| Errno::ENOMEM)?;
        words.write(0, value);
        Ok(Arc::new(words))
    }

    fn insert(&self, vacant: Vacant<'_, Arc<Words>>, value: &[u8]) -> Result<()> {
        self.env.charge(self.elem_charge)?;
        let inserted = self
            .new_value(value)
            .and_then(|value| vacant.insert(value).map_err(|Full| Errno::ENOSPC));
        if inserted.is_err() {
            self.env.uncharge(self.elem_charge);
        }
        inserted
    }
}

impl Drop for LpmTrie {
    fn drop(&mut self) {
        let n_elems = self.read().len() as u64;
        self.env.uncharge(n_elems * self.elem_charge);
    }
}

impl MapOps for LpmTrie {
    /// Kernel: `trie_lookup_elem`.
    fn lookup_elem(&self, _cpu: u32, key: &[u8]) -> Option<Value<'_>> {
        let (prefix_len, data) = self.prefix(key)?;
        let trie = self.read();
        let words = Arc::clone(trie.longest_match(prefix_len, data)?);
        drop(trie);
        Some(Value::shared(words, 0, self.value_size, &self.fields))
    }

    /// Kernel: `trie_update_elem`.
    fn update_elem(&self, _cpu: u32, key: &[u8], value: &[u8], flags: UpdateFlags) -> Result<()> {
        checks::update_flags(flags)?;
        let (prefix_len, data) = self.prefix(key).ok_or(Errno::EINVAL)?;
        let mut trie = self.write();
        if self.env.release.lpm_full_refuses_all && trie.is_full() {
            return Err(Errno::ENOSPC);
        }
        match trie.entry(prefix_len, data) {
            Entry::Stored(..) if flags == UpdateFlags::NOEXIST => Err(Errno::EEXIST),
            Entry::Stored(words, stored) => {
                match Arc::get_mut(words) {
                    // No program holds it.
                    Some(words) => words.write(0, value),
                    None => *words = self.new_value(value)?,
                }
                stored.copy_from_slice(data);
                Ok(())
            }
            Entry::Missing(_) if flags == UpdateFlags::EXIST => Err(Errno::ENOENT),
            Entry::Missing(vacant) => self.insert(vacant, value),
        }
    }

    /// Kernel: `trie_delete_elem`.
    fn delete_elem(&self, _cpu: u32, key: &[u8]) -> Result<()> {
        let (prefix_len, data) = self.prefix(key).ok_or(Errno::EINVAL)?;
        let removed = self.write().remove(prefix_len, data);
        removed.ok_or(Errno::ENOENT)?;
        self.env.uncharge(self.elem_charge);
        Ok(())
    }

    fn user_lookup_elem(
        &self,
        _: &Caller<'_>,
        key: &[u8],
        value: &mut [u8],
        _: UpdateFlags,
    ) -> Result<()> {
        let (prefix_len, data) = self.prefix(key).ok_or(Errno::ENOENT)?;
        let trie = self.read();
        let words = trie.longest_match(prefix_len, data).ok_or(Errno::ENOENT)?;
        words.read(0, value);
        Ok(())
    }

    /// Kernel: `trie_get_next_key`.
    fn get_next_key(&self, key: Option<&[u8]>, next_key: &mut [u8]) -> Result<()> {
        // Too long a prefix is as one that is not stored.
        let after = key.and_then(|key| self.prefix(key));
        let trie = self.read();
        let (prefix_len, data) = trie.next(after).ok_or(Errno::ENOENT)?;
        next_key[..PREFIX_LEN_SIZE].copy_from_slice(&prefix_len.to_ne_bytes());
        next_key[PREFIX_LEN_SIZE..].copy_from_slice(data);
        Ok(())
    }

    fn batches(&self) -> Batches {
        Batches {
            lookup: true,
            update: true,
            delete: true,
            ..Batches::default()
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
