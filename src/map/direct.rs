//! Handles that go to the elements of their map by themselves, in the calls that have nothing to be judged but the sizes of what
//! they are given, plain flags, and whether the map is frozen. All others they leave to the handle for all types.

use std::fmt;

use super::slots::Slots;
use crate::abi::{MapHandle, Result, UpdateFlags};
use crate::store::Probe;

/// Where calls through a handle happen, and the rights of its file.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// The CPU.
    pub cpu: u32,
    /// May read.
    pub read: bool,
    /// May write.
    pub write: bool,
}

/// The elements of a map whose values have no special fields, as calls through a handle reach them.
pub(super) trait Direct: Send + Sync + fmt::Debug + 'static {
    /// A key of the map's size.
    type Key<'k>: Probe;

    /// The key at the beginning of some bytes, if they are as many.
    fn cut<'k>(&self, bytes: &'k [u8]) -> Option<Self::Key<'k>>;

    /// Copies a value out.
    ///
    /// # Errors
    ///
    /// `ENOENT`
    fn read(&self, key: Self::Key<'_>, value: &mut [u8]) -> Result<()>;

    /// Copies the key behind another to the beginning of some bytes; none if they are too few.
    fn next_key(&self, key: Self::Key<'_>, next_key: &mut [u8]) -> Option<Result<()>>;

    /// Where elements are written, of a plain hash; no other type can be written without more to be looked at.
    fn slots(&self) -> Option<&Slots> {
        None
    }
}

/// See the module.
#[derive(Debug)]
struct Handle<D> {
    direct: D,
    access: Access,
    /// Bytes of a value as bpf(2) copies it.
    value_size: usize,
    other: Box<dyn MapHandle>,
}

/// A handle of those elements, whose values have so many bytes as bpf(2) copies them.
pub(super) fn handle(
    direct: impl Direct,
    value_size: usize,
    access: Access,
    other: Box<dyn MapHandle>,
) -> Box<dyn MapHandle> {
    Box::new(Handle {
        direct,
        access,
        value_size,
        other,
    })
}

impl<D: Direct> MapHandle for Handle<D> {
    fn lookup_elem(&self, key: &[u8], value: &mut [u8], flags: UpdateFlags) -> Result<()> {
        if self.access.read
            && flags.is_empty()
            && let Some(key) = self.direct.cut(key)
            && value.len() >= self.value_size
        {
            return self.direct.read(key, &mut value[..self.value_size]);
        }
        self.other.lookup_elem(key, value, flags)
    }

    fn update_elem(&self, key: &[u8], value: &[u8], flags: UpdateFlags) -> Result<()> {
        if self.access.write
            && flags.bits() <= UpdateFlags::EXIST.bits()
            && let Some(key) = self.direct.cut(key)
            && let Some(value) = value.get(..self.value_size)
            && let Some(slots) = self.direct.slots()
        {
            return slots.update_plain::<true>(self.access.cpu, key, value, flags);
        }
        self.other.update_elem(key, value, flags)
    }

    fn delete_elem(&self, key: &[u8]) -> Result<()> {
        if self.access.write
            && let Some(key) = self.direct.cut(key)
            && let Some(slots) = self.direct.slots()
        {
            return slots.remove_plain::<true>(self.access.cpu, key);
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
        if self.access.read
            && let Some(Some(from)) = key.map(|key| self.direct.cut(key))
            && let Some(done) = self.direct.next_key(from, next_key)
        {
            return done;
        }
        self.other.get_next_key(key, next_key)
    }
}
