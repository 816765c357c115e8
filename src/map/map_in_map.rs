//! `BPF_MAP_TYPE_ARRAY_OF_MAPS` and `BPF_MAP_TYPE_HASH_OF_MAPS`: maps whose elements are maps.
//!
//! User space puts an fd in and sees an id; a program gets the inner map itself. The template, named at creation, says which
//! maps fit; it is not held. An element keeps its map alive.
//!
//! Kernel: `kernel/bpf/map_in_map.c`, `kernel/bpf/arraymap.c:array_of_maps_map_ops`,
//! `kernel/bpf/hashtab.c:htab_of_maps_map_ops` (v6.18).

use std::any::Any;
use std::sync::Arc;

use super::array::BY_INDEX;
use super::fd_array::{FdArray, Held};
use super::hash::{BY_BUCKET, next_key_of, read_buckets};
use super::object::Object;
use super::slots::Slots;
use super::{Batches, BucketRequest, Caller, Map, MapDef, MapOps, checks};
use crate::abi::{Errno, Fd, Result, UpdateFlags};
use crate::btf::Fields;
use crate::env::Env;
use crate::store::Table;

/// What inner maps have to be like.
#[derive(Debug)]
struct Template {
    def: MapDef,
    fields: Fields,
}

impl Template {
    /// The map behind an fd, if it fits.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open; `ENOTSUPP` if it is for one program only; `EINVAL` if it is no map, or one that
    /// does not fit.
    ///
    /// Kernel: `kernel/bpf/map_in_map.c:bpf_map_fd_get_ptr`.
    fn map(&self, caller: &Caller<'_>, fd: Fd) -> Result<Arc<Map>> {
        match caller.files.object(fd)? {
            Object::Map(map) if map.exclusive.is_some() => Err(Errno::ENOTSUPP),
            Object::Map(map) if self.is_fit_by(&map) => Ok(map),
            Object::Map(_)
            | Object::Btf(_)
            | Object::Prog(_)
            | Object::Cgroup(_)
            | Object::Other(_) => Err(Errno::EINVAL),
        }
    }

    /// Kernel: `kernel/bpf/map_in_map.c:bpf_map_meta_equal`.
    fn is_fit_by(&self, map: &Map) -> bool {
        let (wanted, is) = (&self.def, &map.def);
        wanted.map_type == is.map_type
            && wanted.key_size == is.key_size
            && wanted.value_size == is.value_size
            && wanted.map_flags == is.map_flags
            && (self.fields == map.fields || !map.env.release.inner_map_fields_equal)
            && map.ops.fits_template(wanted, is)
    }
}

/// An array of maps; see the module.
#[derive(Debug)]
pub struct ArrayOfMaps {
    maps: FdArray<Arc<Map>>,
    template: Template,
}

impl ArrayOfMaps {
    /// Empty places for maps like the template.
    ///
    /// # Errors
    ///
    /// None so far.
    #[expect(clippy::unnecessary_wraps, reason = "all types are made alike")]
    pub(super) fn new(
        def: &MapDef,
        _env: &Arc<Env>,
        _cpu: u32,
        template: MapDef,
        fields: Fields,
    ) -> Result<Self> {
        Ok(Self {
            maps: FdArray::new(def.max_entries),
            template: Template {
                def: template,
                fields,
            },
        })
    }
}

impl MapOps for ArrayOfMaps {
    fn lookup_inner(&self, key: &[u8]) -> Option<Arc<Map>> {
        self.maps.get(key)
    }

    fn delete_elem(&self, _cpu: u32, key: &[u8]) -> Result<()> {
        self.maps.delete(key)
    }

    fn user_lookup_elem(
        &self,
        _caller: &Caller<'_>,
        key: &[u8],
        value: &mut [u8],
        _flags: UpdateFlags,
    ) -> Result<()> {
        self.maps.read_id(key, value, |map| map.id)
    }

    fn user_update_elem(
        &self,
        caller: &Caller<'_>,
        key: &[u8],
        value: &[u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        self.maps
            .update(key, value, flags, |fd| self.template.map(caller, fd))
    }

    fn get_next_key(&self, key: Option<&[u8]>, next_key: &mut [u8]) -> Result<()> {
        self.maps.next_key(key, next_key)
    }

    fn batches(&self) -> Batches {
        BY_INDEX
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A hash of maps; see the module.
///
/// Invariant: `maps` has the map of each slot that is in a bucket, and of no free one; it changes under the bucket's lock,
/// or when nobody else can reach the slot.
#[derive(Debug)]
pub struct HashOfMaps {
    slots: Slots,
    /// The map of a key that is there is exchanged in its element.
    in_place: bool,
    maps: Held<Arc<Map>>,
    template: Template,
}

impl HashOfMaps {
    /// An empty hash for maps like the template.
    ///
    /// # Errors
    ///
    /// `ENOMEM`
    pub(super) fn new(
        def: &MapDef,
        env: &Arc<Env>,
        cpu: u32,
        template: MapDef,
        fields: Fields,
    ) -> Result<Self> {
        let in_place = env.release.hash_of_maps_in_place;
        let spare = if in_place { 0 } else { env.nr_cpus };
        let slots = Slots::new(def, env, 0, spare)?;
        if !in_place {
            slots.set_spares(cpu);
        }
        Ok(Self {
            slots,
            in_place,
            maps: Held::default(),
            template: Template {
                def: template,
                fields,
            },
        })
    }

    fn table(&self) -> &Table {
        &self.slots.table
    }

    fn slot(&self, key: &[u8]) -> Option<u32> {
        self.table().find_key(key)
    }
}

impl MapOps for HashOfMaps {
    fn lookup_inner(&self, key: &[u8]) -> Option<Arc<Map>> {
        self.maps.get(self.slot(key)?)
    }

    fn delete_elem(&self, cpu: u32, key: &[u8]) -> Result<()> {
        // The map may go with it: not under the bucket's lock. And who reads the bucket meanwhile still sees it.
        let free = |slot| drop(self.maps.take(slot));
        self.slots.remove::<false>(cpu, key, |_| (), free)
    }

    fn user_lookup_elem(
        &self,
        _caller: &Caller<'_>,
        key: &[u8],
        value: &mut [u8],
        _flags: UpdateFlags,
    ) -> Result<()> {
        let id = self
            .slot(key)
            .and_then(|slot| self.maps.ask(slot, |map| map.id));
        value.copy_from_slice(&id.ok_or(Errno::ENOENT)?.to_ne_bytes());
        Ok(())
    }

    /// The map of a key that is there is exchanged in place, or gets a new element; and the fd is judged before flags and key.
    ///
    /// Kernel: `kernel/bpf/hashtab.c:bpf_fd_htab_map_update_elem`, `htab_map_update_elem_in_place`.
    fn user_update_elem(
        &self,
        caller: &Caller<'_>,
        key: &[u8],
        value: &[u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        let map = self.template.map(caller, checks::fd_in_value(value)?)?;
        checks::update_flags(flags)?;
        let hash = self.table().hash(key);
        let mut bucket = self.table().lock(hash);
        let place = bucket.find(key, hash);
        checks::existence(place.is_some(), flags)?;
        let old = match place {
            Some(place) if self.in_place => self.maps.put(place.slot, map),
            Some(place) => {
                let slot = self.slots.take_for_replacing(caller.cpu)?;
                self.table().write_key(slot, key);
                let none = self.maps.put(slot, map);
                bucket.replace(place, slot, hash);
                drop(bucket);
                drop(none);
                drop(self.maps.take(place.slot));
                self.slots.give_back_replaced(caller.cpu, place.slot);
                return Ok(());
            }
            None => {
                let slot = self.slots.take(caller.cpu)?;
                self.table().write_key(slot, key);
                let none = self.maps.put(slot, map);
                bucket.insert(slot, hash);
                none
            }
        };
        drop(bucket);
        drop(old);
        Ok(())
    }

    fn get_next_key(&self, key: Option<&[u8]>, next_key: &mut [u8]) -> Result<()> {
        next_key_of(self.table(), key, next_key)
    }

    fn batches(&self) -> Batches {
        BY_BUCKET
    }

    fn n_buckets(&self) -> u32 {
        self.table().n_buckets()
    }

    fn user_lookup_buckets(&self, caller: &Caller<'_>, request: &mut BucketRequest) {
        let gone = read_buckets(self.table(), request, |slot, value| {
            // One that left its bucket meanwhile may have none: then the bucket is read again.
            let id = self.maps.ask(slot, |map| map.id).unwrap_or_default();
            value.copy_from_slice(&id.to_ne_bytes());
        });
        let old: Vec<_> = gone.iter().map(|&slot| self.maps.take(slot)).collect();
        self.slots.give_back_all(caller.cpu, gone);
        drop(old);
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
