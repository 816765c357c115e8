//! Plain hashes: preallocated, with values without special fields. Most are, and their operations have less to look at.
//!
//! What is here is compiled for each shape of keys, and for values of one word, with what these need and nothing else: the less
//! code, the further ahead the processor sees. The rules are those of [`super::hash`].

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use super::slots::Slots;
use super::{Access, checks};
use crate::abi::{Errno, MapHandle, Result, UpdateFlags};
use crate::store::{Blocks, Probe, Room, Stored, Unlinked, WORD};

impl Slots {
    /// Copies a value out.
    #[inline(always)]
    pub(super) fn read_plain(&self, key: impl Probe, value: &mut [u8]) -> Result<()> {
        if let Ok(word) = <&mut [u8; WORD]>::try_from(&mut *value) {
            return self.read_small(key, word);
        }
        if let Some(blocks) = Blocks::of(value) {
            return self.read_small(key, blocks);
        }
        self.read_any(key, value)
    }

    /// A value that is copied without a call.
    #[inline(never)]
    fn read_small(&self, key: impl Probe, mut value: impl Room) -> Result<()> {
        let table = &self.table;
        let copy = |slot| value.fill(table.words(), table.value_at(slot));
        match table.try_read(key, table.hash(key), copy) {
            Ok(Some(())) => Ok(()),
            Ok(None) => Err(Errno::ENOENT),
            Err(Unlinked) => self.read_any(key, value.bytes()),
        }
    }

    #[inline(never)]
    fn read_any(&self, key: impl Probe, value: &mut [u8]) -> Result<()> {
        let table = &self.table;
        let copy = |slot| table.words().read(table.value_at(slot), value);
        table.read(key, copy).ok_or(Errno::ENOENT)
    }

    /// Inserts or replaces.
    #[inline(always)]
    pub(super) fn update_plain<const USER: bool>(
        &self,
        cpu: u32,
        key: impl Probe,
        value: &[u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        match value.try_into() {
            Ok(&word) => self.put::<USER>(cpu, key, u64::from_ne_bytes(word), flags),
            Err(_) => self.put::<USER>(cpu, key, value, flags),
        }
    }

    #[inline(never)]
    fn put<const USER: bool>(
        &self,
        cpu: u32,
        key: impl Probe,
        value: impl Stored,
        flags: UpdateFlags,
    ) -> Result<()> {
        checks::update_flags(flags)?;
        let Self { table, free, .. } = self;
        let hash = table.hash(key);
        let mut bucket = table.lock(hash);
        self.may_write::<USER>()?;
        let old = bucket.find(key, hash);
        checks::existence(old.is_some(), flags)?;
        let slot = match old {
            Some(_) => free.take_spare(cpu),
            None => free.pop(table, cpu).ok_or(Errno::E2BIG)?,
        };
        table.write_key(slot, key);
        value.write(table.words(), table.value_at(slot));
        match old {
            Some(old) => {
                bucket.replace(old, slot, hash);
                drop(bucket);
                free.put_spare(cpu, old.slot);
            }
            None => bucket.insert(slot, hash),
        }
        Ok(())
    }

    /// Removes.
    #[inline(never)]
    pub(super) fn remove_plain<const USER: bool>(&self, cpu: u32, key: impl Probe) -> Result<()> {
        let Self { table, free, .. } = self;
        let hash = table.hash(key);
        let mut bucket = table.lock(hash);
        self.may_write::<USER>()?;
        let place = bucket.find(key, hash).ok_or(Errno::ENOENT)?;
        bucket.remove(place);
        drop(bucket);
        free.push(table, cpu, place.slot);
        Ok(())
    }
}

/// Keys of one size.
trait Shape: Send + Sync + fmt::Debug + 'static {
    type Key<'k>: Probe;

    /// The key of that size at the beginning of some bytes, if they are as many.
    fn cut(bytes: &[u8], size: usize) -> Option<Self::Key<'_>>;
}

macro_rules! shape {
    ($($int:ty),*) => {$(
        impl Shape for $int {
            type Key<'k> = Self;

            #[inline(always)]
            fn cut(bytes: &[u8], _size: usize) -> Option<Self> {
                bytes.first_chunk().map(|&bytes| Self::from_ne_bytes(bytes))
            }
        }
    )*};
}

shape!(u32, u64, u128);

/// Keys of another size.
#[derive(Debug)]
struct OtherSize;

impl Shape for OtherSize {
    type Key<'k> = &'k [u8];

    #[inline(always)]
    fn cut(bytes: &[u8], size: usize) -> Option<&[u8]> {
        bytes.get(..size)
    }
}

/// A handle that goes to the slots by itself; what takes more than that, `other` does.
#[derive(Debug)]
struct Handle<S> {
    slots: Arc<Slots>,
    access: Access,
    value_size: usize,
    other: Box<dyn MapHandle>,
    shape: PhantomData<S>,
}

/// A handle of a plain hash.
pub(super) fn handle(
    slots: &Arc<Slots>,
    value_size: u32,
    access: Access,
    other: Box<dyn MapHandle>,
) -> Box<dyn MapHandle> {
    fn of<S: Shape>(
        slots: &Arc<Slots>,
        value_size: u32,
        access: Access,
        other: Box<dyn MapHandle>,
    ) -> Box<dyn MapHandle> {
        Box::new(Handle {
            slots: Arc::clone(slots),
            access,
            value_size: value_size as usize,
            other,
            shape: PhantomData::<S>,
        })
    }
    match slots.table.key_size() {
        4 => of::<u32>(slots, value_size, access, other),
        8 => of::<u64>(slots, value_size, access, other),
        16 => of::<u128>(slots, value_size, access, other),
        _ => of::<OtherSize>(slots, value_size, access, other),
    }
}

impl<S: Shape> Handle<S> {
    #[inline(always)]
    fn cut<'k>(&self, key: &'k [u8]) -> Option<S::Key<'k>> {
        S::cut(key, self.slots.table.key_size())
    }

    /// A system call may write through this handle: it is asked before all else.
    #[inline(always)]
    fn may_write(&self) -> bool {
        self.access.write && self.slots.may_write::<true>().is_ok()
    }
}

impl<S: Shape> MapHandle for Handle<S> {
    fn lookup_elem(&self, key: &[u8], value: &mut [u8], flags: UpdateFlags) -> Result<()> {
        if self.access.read
            && flags.is_empty()
            && let Some(key) = self.cut(key)
            && value.len() >= self.value_size
        {
            return self.slots.read_plain(key, &mut value[..self.value_size]);
        }
        self.other.lookup_elem(key, value, flags)
    }

    fn update_elem(&self, key: &[u8], value: &[u8], flags: UpdateFlags) -> Result<()> {
        if self.may_write()
            && flags.bits() <= UpdateFlags::EXIST.bits()
            && let Some(key) = self.cut(key)
            && let Some(value) = value.get(..self.value_size)
        {
            return self
                .slots
                .update_plain::<true>(self.access.cpu, key, value, flags);
        }
        self.other.update_elem(key, value, flags)
    }

    fn delete_elem(&self, key: &[u8]) -> Result<()> {
        if self.may_write()
            && let Some(key) = self.cut(key)
        {
            return self.slots.remove_plain::<true>(self.access.cpu, key);
        }
        self.other.delete_elem(key)
    }

    fn lookup_and_delete_elem(
        &self,
        key: &[u8],
        value: &mut [u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        self.other.lookup_and_delete_elem(key, value, flags)
    }

    fn get_next_key(&self, key: Option<&[u8]>, next_key: &mut [u8]) -> Result<()> {
        let table = &self.slots.table;
        if self.access.read
            && let Some(Some(key)) = key.map(|key| self.cut(key))
            && let Some(next_key) = next_key.get_mut(..table.key_size())
        {
            return if table.key_after(key, next_key) {
                Ok(())
            } else {
                Err(Errno::ENOENT)
            };
        }
        self.other.get_next_key(key, next_key)
    }
}
