//! Plain hashes: preallocated, with values without special fields. Most are, and their operations have less to look at.
//!
//! What is here is compiled for each shape of keys, and for values of one word, with what these need and nothing else: the less
//! code, the further ahead the processor sees. The rules are those of [`super::hash`].

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use super::checks;
use super::direct::{self, Access, Direct};
use super::slots::Slots;
use crate::abi::{Errno, MapHandle, Result, UpdateFlags};
use crate::store::{
    Blocks, FewWords, Probe, Room, Shape, Stored, Table, Unlinked, WORD, with_shape,
};

/// Copies a value out.
#[inline(always)]
pub(super) fn read(table: &Table, key: impl Probe, value: &mut [u8]) -> Result<()> {
    if let Ok(word) = <&mut [u8; WORD]>::try_from(&mut *value) {
        return read_into(table, key, word);
    }
    if let Some(blocks) = Blocks::<true>::of(value) {
        return read_into(table, key, blocks);
    }
    if let Some(words) = FewWords::of(value) {
        return read_into(table, key, words);
    }
    if let Some(blocks) = Blocks::<false>::of(value) {
        return read_into(table, key, blocks);
    }
    read_any(table, key, value)
}

/// A value of one of the sizes that are copied fast.
#[inline(never)]
fn read_into(table: &Table, key: impl Probe, mut value: impl Room) -> Result<()> {
    let copy = |slot| value.fill(table.words(), table.value_at(slot));
    match table.try_read(key, table.hash(key), copy) {
        Ok(Some(())) => Ok(()),
        Ok(None) => Err(Errno::ENOENT),
        Err(Unlinked) => read_any(table, key, value.bytes()),
    }
}

#[inline(never)]
fn read_any(table: &Table, key: impl Probe, value: &mut [u8]) -> Result<()> {
    let copy = |slot| table.words().read(table.value_at(slot), value);
    table.read(key, copy).ok_or(Errno::ENOENT)
}

impl Slots {
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

/// The elements of a hash whose values have no special fields.
pub(super) trait Plain: Send + Sync + fmt::Debug + 'static {
    fn table(&self) -> &Table;

    /// As [`Direct::slots`].
    #[inline(always)]
    fn slots(&self) -> Option<&Slots> {
        None
    }
}

impl Plain for Arc<Table> {
    #[inline(always)]
    fn table(&self) -> &Table {
        self
    }
}

/// Elements that are only read: of a type whose writes are counted, or that looks at more when it writes.
impl Plain for Arc<Slots> {
    #[inline(always)]
    fn table(&self) -> &Table {
        &self.table
    }
}

/// Elements of a plain hash, which are written too.
#[derive(Debug)]
pub(super) struct Written(pub(super) Arc<Slots>);

impl Plain for Written {
    #[inline(always)]
    fn table(&self) -> &Table {
        &self.0.table
    }

    #[inline(always)]
    fn slots(&self) -> Option<&Slots> {
        Some(&self.0)
    }
}

/// Elements, by keys of that shape.
#[derive(Debug)]
struct Shaped<S, E> {
    elems: E,
    shape: PhantomData<S>,
}

impl<S: Shape, E: Plain> Direct for Shaped<S, E> {
    type Key<'k> = S::Key<'k>;

    #[inline(always)]
    fn cut<'k>(&self, bytes: &'k [u8]) -> Option<S::Key<'k>> {
        S::cut(bytes, self.elems.table().key_size())
    }

    #[inline(always)]
    fn read(&self, key: S::Key<'_>, value: &mut [u8]) -> Result<()> {
        read(self.elems.table(), key, value)
    }

    #[inline(always)]
    fn next_key(&self, key: S::Key<'_>, next_key: &mut [u8]) -> Option<Result<()>> {
        let table = self.elems.table();
        let found = table.key_after(key, next_key.get_mut(..table.key_size())?);
        Some(if found { Ok(()) } else { Err(Errno::ENOENT) })
    }

    #[inline(always)]
    fn slots(&self) -> Option<&Slots> {
        self.elems.slots()
    }
}

/// A handle of a hash whose values have no special fields.
pub(super) fn handle<E: Plain>(
    elems: E,
    value_size: usize,
    access: Access,
    other: Box<dyn MapHandle>,
) -> Box<dyn MapHandle> {
    with_shape!(elems.table().key_size(), S => {
        let shape = PhantomData::<S>;
        direct::handle(Shaped { elems, shape }, value_size, access, other)
    })
}
