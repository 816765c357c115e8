//! `Arena`: memory that programs and user space share.

use bytemuck::{Pod, bytes_of, bytes_of_mut};

use super::{Builder, Error, OwnedMap, TypedMap};
use crate::abi::{MapFlags, MapRequest, MapType, Mapping, PAGE_SIZE};

/// A map of type `BPF_MAP_TYPE_ARENA`, mapped: zeros at first, page by page.
///
/// `max_entries` is the number of pages; `map_extra` the address, a multiple of the page size, or 0 for any.
///
/// ```
/// use mapemu::Kernel;
/// use mapemu::typed::Arena;
///
/// let kernel = Kernel::new();
/// let arena = Arena::builder().max_entries(2).map_extra(0x10_0000_0000).create(&kernel)?;
/// assert_eq!(arena.addr(), 0x10_0000_0000);
/// arena.set(4096, &7_u64)?;
/// assert_eq!(arena.get::<u64>(4096)?, 7);
/// assert_eq!(arena.get::<u32>(0)?, 0);
/// # Ok::<(), mapemu::typed::Error>(())
/// ```
#[derive(Debug)]
pub struct Arena {
    map: OwnedMap,
    memory: Box<dyn Mapping>,
    len: usize,
}

impl Arena {
    /// A map to be made.
    pub fn builder() -> Builder<Self> {
        Builder::new()
    }

    /// The map behind it, for calls by bytes.
    pub fn map(&self) -> &OwnedMap {
        &self.map
    }

    /// Where it begins in the process's memory.
    pub fn addr(&self) -> u64 {
        self.memory.addr()
    }

    /// Bytes of its pages.
    #[expect(clippy::len_without_is_empty, reason = "it has a page at least")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// What lies at an offset in bytes.
    ///
    /// # Errors
    ///
    /// `EFAULT` where there is no page.
    pub fn get<T: Pod>(&self, offset: usize) -> Result<T, Error> {
        let mut value = T::zeroed();
        self.read(offset, bytes_of_mut(&mut value))?;
        Ok(value)
    }

    /// Writes a value at an offset in bytes.
    ///
    /// # Errors
    ///
    /// `EFAULT` where there is no page.
    pub fn set<T: Pod>(&self, offset: usize, value: &T) -> Result<(), Error> {
        self.write(offset, bytes_of(value))
    }

    /// Copies bytes out, from an offset on.
    ///
    /// # Errors
    ///
    /// `EFAULT` where there is no page.
    pub fn read(&self, offset: usize, out: &mut [u8]) -> Result<(), Error> {
        let read = self.memory.read(offset, out);
        read.map_err(Error::of("arena_read"))
    }

    /// Copies bytes in, from an offset on.
    ///
    /// # Errors
    ///
    /// `EFAULT` where there is no page.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), Error> {
        let written = self.memory.write(offset, bytes);
        written.map_err(Error::of("arena_write"))
    }
}

impl TypedMap for Arena {
    type Key = ();
    type Value = ();
    const MAP_TYPE: MapType = MapType::ARENA;
    const MAP_FLAGS: MapFlags = MapFlags::MMAPABLE;

    fn over(map: OwnedMap) -> Result<Self, Error> {
        let info = map.info()?;
        let len = info.max_entries as usize * PAGE_SIZE;
        let request = MapRequest {
            addr: info.map_extra,
            ..MapRequest::shared(0, len, true)
        };
        let memory = map.bpf().mmap(map.fd(), request);
        Ok(Self {
            memory: memory.map_err(Error::of("mmap"))?,
            map,
            len,
        })
    }
}
