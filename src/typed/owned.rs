//! What all typed maps stand on: an fd that is closed at the end, and the element commands on it.

use std::fmt;
use std::marker::PhantomData;

use bytemuck::{Pod, bytes_of, bytes_of_mut};

use super::Error;
use super::values::ElemValue;
use crate::abi::{Bpf, Errno, Fd, MapFlags, MapHandle, MapInfo, MapType, Result, UpdateFlags};
use crate::calls::{self, CreateOpts};

/// A map's fd on some kernel; closed when dropped.
pub struct OwnedMap {
    bpf: Box<dyn Bpf>,
    fd: Fd,
    /// The way without an attr, where the kernel has one.
    handle: Option<Box<dyn MapHandle>>,
}

impl OwnedMap {
    /// Takes over an fd of that kernel.
    pub fn new<B: Bpf + Clone + 'static>(bpf: &B, fd: Fd) -> Self {
        Self {
            bpf: Box::new(bpf.clone()),
            fd,
            handle: bpf.map_handle(fd),
        }
    }

    /// The fd, for calls by bytes.
    pub fn fd(&self) -> Fd {
        self.fd
    }

    /// The kernel that the fd belongs to.
    pub fn bpf(&self) -> &dyn Bpf {
        &*self.bpf
    }

    /// What the kernel tells of the map.
    ///
    /// # Errors
    ///
    /// What `BPF_OBJ_GET_INFO_BY_FD` answers.
    pub fn info(&self) -> Result<MapInfo, Error> {
        calls::bpf_map_get_info_by_fd(self.bpf(), self.fd).map_err(Error::of("map_get_info_by_fd"))
    }

    /// System calls cannot write the map any more.
    ///
    /// # Errors
    ///
    /// What `BPF_MAP_FREEZE` answers: `EPERM` the second time; `EBUSY` while it is written or mapped writable.
    #[doc(alias = "bpf_map_freeze")]
    pub fn freeze(&self) -> Result<(), Error> {
        calls::bpf_map_freeze(self.bpf(), self.fd).map_err(Error::of("map_freeze"))
    }

    /// Gives the map a path in a bpf file system.
    ///
    /// # Errors
    ///
    /// What `BPF_OBJ_PIN` answers.
    #[doc(alias = "bpf_obj_pin")]
    pub fn pin(&self, path: &str) -> Result<(), Error> {
        calls::bpf_obj_pin(self.bpf(), self.fd, path).map_err(Error::of("obj_pin"))
    }

    pub(super) fn get<K: Pod, V: ElemValue>(&self, key: &K, flags: u64) -> Result<V, Error> {
        let key = bytes_of(key);
        V::read(self.bpf(), |out| match &self.handle {
            Some(handle) => handle.lookup_elem(key, out, UpdateFlags::from_bits_retain(flags)),
            None if key.is_empty() => calls::bpf_map_peek_elem(self.bpf(), self.fd, out),
            None => calls::bpf_map_lookup_elem_flags(self.bpf(), self.fd, key, out, flags),
        })
        .map_err(Error::of("map_lookup_elem"))
    }

    /// Asks for a value: a lookup that takes it in.
    pub(super) fn has<V: Pod>(&self, value: &V) -> Result<bool, Error> {
        let mut value = *value;
        match calls::bpf_map_peek_elem(self.bpf(), self.fd, bytes_of_mut(&mut value)) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(Error {
                op: "map_lookup_elem",
                errno,
            }),
        }
    }

    pub(super) fn insert<K: Pod, V: ElemValue>(
        &self,
        key: &K,
        value: &V,
        flags: u64,
    ) -> Result<(), Error> {
        let key = bytes_of(key);
        value
            .with_bytes(self.bpf(), |value| match &self.handle {
                Some(handle) => {
                    handle.update_elem(key, value, UpdateFlags::from_bits_retain(flags))
                }
                None if key.is_empty() => {
                    calls::bpf_map_push_elem(self.bpf(), self.fd, value, flags)
                }
                None => calls::bpf_map_update_elem(self.bpf(), self.fd, key, value, flags),
            })
            .map_err(Error::of("map_update_elem"))
    }

    pub(super) fn remove<K: Pod>(&self, key: &K) -> Result<(), Error> {
        match &self.handle {
            Some(handle) => handle.delete_elem(bytes_of(key)),
            None => calls::bpf_map_delete_elem(self.bpf(), self.fd, bytes_of(key)),
        }
        .map_err(Error::of("map_delete_elem"))
    }

    pub(super) fn take<K: Pod, V: ElemValue>(&self, key: &K, flags: u64) -> Result<V, Error> {
        let key = bytes_of(key);
        V::read(self.bpf(), |out| match &self.handle {
            Some(handle) => {
                handle.lookup_and_delete_elem(key, out, UpdateFlags::from_bits_retain(flags))
            }
            None if key.is_empty() => calls::bpf_map_pop_elem(self.bpf(), self.fd, out),
            None => {
                calls::bpf_map_lookup_and_delete_elem_flags(self.bpf(), self.fd, key, out, flags)
            }
        })
        .map_err(Error::of("map_lookup_and_delete_elem"))
    }

    fn next_key<K: Pod>(&self, key: Option<&K>) -> Result<Option<K>, Error> {
        let mut next = K::zeroed();
        let (key, out) = (key.map(bytes_of), bytes_of_mut(&mut next));
        let answer = match &self.handle {
            Some(handle) => handle.get_next_key(key, out),
            None => calls::bpf_map_get_next_key(self.bpf(), self.fd, key, out),
        };
        match answer {
            Ok(()) => Ok(Some(next)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(Error {
                op: "map_get_next_key",
                errno,
            }),
        }
    }

    pub(super) fn keys<K: Pod>(&self) -> Keys<'_, K> {
        Keys {
            map: self,
            last: None,
            ended: false,
        }
    }

    pub(super) fn iter<K: Pod, V: ElemValue>(&self) -> impl Iterator<Item = Result<(K, V), Error>> {
        self.keys().filter_map(|key| {
            let key = match key {
                Ok(key) => key,
                Err(error) => return Some(Err(error)),
            };
            match self.get(&key, 0) {
                Ok(value) => Some(Ok((key, value))),
                // Another party removed it since its key was read.
                Err(error) if error.is_not_found() => None,
                Err(error) => Some(Err(error)),
            }
        })
    }
}

impl Drop for OwnedMap {
    fn drop(&mut self) {
        // Whoever closed the fd by hand has closed it: nothing is left to do.
        let _ = self.bpf.close(self.fd);
    }
}

impl fmt::Debug for OwnedMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "map fd {}", self.fd)
    }
}

/// The keys of a map, each the next of the one before.
///
/// As the kernel does it: when the last key is gone by the time of the next step, a hash starts again at its first.
#[derive(Debug)]
pub(super) struct Keys<'m, K> {
    map: &'m OwnedMap,
    last: Option<K>,
    ended: bool,
}

impl<K: Pod> Iterator for Keys<'_, K> {
    type Item = Result<K, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match self.map.next_key(self.last.as_ref()) {
            Ok(Some(key)) => {
                self.last = Some(key);
                Some(Ok(key))
            }
            Ok(None) => {
                self.ended = true;
                None
            }
            Err(error) => {
                self.ended = true;
                Some(Err(error))
            }
        }
    }
}

/// A typed map that a [`Builder`] can make.
pub trait TypedMap: Sized {
    /// Its key; `()` where it has none.
    type Key;
    /// Its value.
    type Value;
    /// Its type.
    const MAP_TYPE: MapType;
    /// Flags without which no map of that type can be made.
    const MAP_FLAGS: MapFlags;

    /// Takes over a map of that type and those sizes.
    ///
    /// # Errors
    ///
    /// What the kernel answers, where the map's memory is mapped.
    fn over(map: OwnedMap) -> Result<Self, Error>;
}

/// Makes a typed map. It judges nothing: the kernel does, when [`Builder::create`] asks it.
#[derive(Clone, Debug)]
pub struct Builder<M> {
    name: String,
    max_entries: u32,
    opts: CreateOpts,
    _map: PhantomData<M>,
}

impl<M: TypedMap> Builder<M> {
    pub(super) fn new() -> Self {
        Self {
            name: String::new(),
            max_entries: 0,
            opts: CreateOpts {
                map_flags: M::MAP_FLAGS.bits(),
                ..CreateOpts::default()
            },
            _map: PhantomData,
        }
    }

    /// Name, 15 bytes at most.
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Number of elements at most.
    pub fn max_entries(mut self, max_entries: u32) -> Self {
        self.max_entries = max_entries;
        self
    }

    /// Flags, `BPF_F_*`; those without which there is no such map are there already.
    pub fn map_flags(mut self, map_flags: u32) -> Self {
        self.opts.map_flags = M::MAP_FLAGS.bits() | map_flags;
        self
    }

    /// What the type makes of it: the number of hash functions of a Bloom filter, the address of an arena.
    pub fn map_extra(mut self, map_extra: u64) -> Self {
        self.opts.map_extra = map_extra;
        self
    }

    /// The template of a map of maps: a map like those that it holds.
    pub fn inner_map(mut self, inner_map_fd: Fd) -> Self {
        self.opts.inner_map_fd = inner_map_fd;
        self
    }

    /// BTF with the types of key and value: where the value has a lock.
    pub fn btf(mut self, btf_fd: Fd, key_type_id: u32, value_type_id: u32) -> Self {
        self.opts.btf_fd = btf_fd;
        self.opts.btf_key_type_id = key_type_id;
        self.opts.btf_value_type_id = value_type_id;
        self
    }

    /// Makes the map.
    ///
    /// # Errors
    ///
    /// What `BPF_MAP_CREATE` answers.
    pub fn create<B: Bpf + Clone + 'static>(&self, bpf: &B) -> Result<M, Error> {
        let fd = calls::bpf_map_create(
            bpf,
            M::MAP_TYPE,
            &self.name,
            size_of_u32::<M::Key>(),
            size_of_u32::<M::Value>(),
            self.max_entries,
            &self.opts,
        )
        .map_err(Error::of("map_create"))?;
        M::over(OwnedMap::new(bpf, fd))
    }

    /// Takes over the fd of a map that is there: by id, by path, from somebody else.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is a map of another type or other sizes; else what `BPF_OBJ_GET_INFO_BY_FD` answers.
    pub fn from_fd<B: Bpf + Clone + 'static>(&self, bpf: &B, fd: Fd) -> Result<M, Error> {
        let map = OwnedMap::new(bpf, fd);
        let info = map.info()?;
        let same = info.map_type == M::MAP_TYPE
            && info.key_size == size_of_u32::<M::Key>()
            && info.value_size == size_of_u32::<M::Value>();
        if same {
            M::over(map)
        } else {
            Err(Error {
                op: "from_fd",
                errno: Errno::EINVAL,
            })
        }
    }
}

fn size_of_u32<T>() -> u32 {
    u32::try_from(size_of::<T>()).expect("keys and values are far smaller than 4 GiB")
}
