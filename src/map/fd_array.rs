//! What maps of descriptors share: user space puts fds in, and the map holds what they stand for.
//!
//! Places are taken when they are used, so an array of many places costs nothing until then. What is taken out is given to
//! the caller, to be dropped when no lock is held: with a program or a map others may go.
//!
//! Kernel: `kernel/bpf/arraymap.c:fd_array_map_alloc_check` and its kin (v6.18).

use std::collections::BTreeMap;
use std::mem;

use parking_lot::RwLock;

use super::checks::{self, index_below, next_index};
use crate::abi::{Errno, Fd, Result, UpdateFlags};

/// Things by the number of their place.
#[derive(Debug)]
pub(super) struct Held<T>(RwLock<BTreeMap<u32, T>>);

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<T> Held<T> {
    /// What is in a place.
    pub(super) fn get(&self, place: u32) -> Option<T>
    where
        T: Clone,
    {
        self.0.read().get(&place).cloned()
    }

    /// What a place's content says of itself.
    pub(super) fn ask<R>(&self, place: u32, question: impl FnOnce(&T) -> R) -> Option<R> {
        self.0.read().get(&place).map(question)
    }

    /// Puts a thing in a place; what was there.
    #[must_use = "it is dropped when no lock is held"]
    pub(super) fn put(&self, place: u32, thing: T) -> Option<T> {
        self.0.write().insert(place, thing)
    }

    /// Empties a place; what was there.
    #[must_use = "it is dropped when no lock is held"]
    pub(super) fn take(&self, place: u32) -> Option<T> {
        self.0.write().remove(&place)
    }

    /// Empties all places whose content is so; what was there.
    #[must_use = "it is dropped when no lock is held"]
    pub(super) fn take_if(&self, is_so: impl Fn(&T) -> bool) -> BTreeMap<u32, T> {
        let mut held = self.0.write();
        let (taken, kept) = mem::take(&mut *held)
            .into_iter()
            .partition(|(_, thing)| is_so(thing));
        *held = kept;
        taken
    }
}

/// An array whose places are empty or hold a thing.
#[derive(Debug)]
pub(super) struct FdArray<T> {
    held: Held<T>,
    max_entries: u32,
}

impl<T> FdArray<T> {
    /// Empty places.
    pub(super) fn new(max_entries: u32) -> Self {
        Self {
            held: Held::default(),
            max_entries,
        }
    }

    /// What a key's place holds; none if there is no such place.
    pub(super) fn get(&self, key: &[u8]) -> Option<T>
    where
        T: Clone,
    {
        self.held.get(index_below(key, self.max_entries)?)
    }

    /// What a place holds.
    ///
    /// # Errors
    ///
    /// `E2BIG` if there is no such place, `ENOENT` if it is empty.
    pub(super) fn at(&self, index: u32) -> Result<T>
    where
        T: Clone,
    {
        if index >= self.max_entries {
            return Err(Errno::E2BIG);
        }
        self.held.get(index).ok_or(Errno::ENOENT)
    }

    /// Copies the id of what a key's place holds out.
    ///
    /// # Errors
    ///
    /// `ENOENT` if it is empty, or there is no such place.
    ///
    /// Kernel: `kernel/bpf/arraymap.c:bpf_fd_array_map_lookup_elem`.
    pub(super) fn read_id(
        &self,
        key: &[u8],
        value: &mut [u8],
        id_of: impl FnOnce(&T) -> u32,
    ) -> Result<()> {
        let index = index_below(key, self.max_entries).ok_or(Errno::ENOENT)?;
        let id = self.held.ask(index, id_of).ok_or(Errno::ENOENT)?;
        value.copy_from_slice(&id.to_ne_bytes());
        Ok(())
    }

    /// Puts what the fd in `value` stands for in a key's place.
    ///
    /// # Errors
    ///
    /// `EINVAL` for flags; `E2BIG` if there is no such place; then those of `thing`.
    ///
    /// Kernel: `kernel/bpf/arraymap.c:bpf_fd_array_map_update_elem`.
    pub(super) fn update(
        &self,
        key: &[u8],
        value: &[u8],
        flags: UpdateFlags,
        thing: impl FnOnce(Fd) -> Result<T>,
    ) -> Result<()> {
        if !flags.is_empty() {
            return Err(Errno::EINVAL);
        }
        let index = index_below(key, self.max_entries).ok_or(Errno::E2BIG)?;
        drop(self.held.put(index, thing(checks::fd_in_value(value)?)?));
        Ok(())
    }

    /// Empties a key's place.
    ///
    /// # Errors
    ///
    /// `E2BIG` if there is no such place, `ENOENT` if it is empty.
    ///
    /// Kernel: `kernel/bpf/arraymap.c:__fd_array_map_delete_elem`.
    pub(super) fn delete(&self, key: &[u8]) -> Result<()> {
        let index = index_below(key, self.max_entries).ok_or(Errno::E2BIG)?;
        drop(self.held.take(index).ok_or(Errno::ENOENT)?);
        Ok(())
    }

    /// Empties all places whose content is so.
    pub(super) fn delete_if(&self, is_so: impl Fn(&T) -> bool) {
        drop(self.held.take_if(is_so));
    }

    /// The key after `key`: every index is one, whatever is stored.
    ///
    /// # Errors
    ///
    /// `ENOENT` after the last one.
    pub(super) fn next_key(&self, key: Option<&[u8]>, next_key: &mut [u8]) -> Result<()> {
        next_index(key, self.max_entries, next_key)
    }
}
