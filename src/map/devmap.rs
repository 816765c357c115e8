//! `BPF_MAP_TYPE_DEVMAP` and `BPF_MAP_TYPE_DEVMAP_HASH`: network interfaces, to redirect packets to.
//!
//! An element is the index of an interface, and with values of 8 bytes a program that runs on the way there.
//!
//! Kernel: `kernel/bpf/devmap.c` (v6.18).

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{Mutex, RwLock};

use super::object::Prog;
use super::owner::Owner;
use super::{Caller, MapDef, MapOps, Target, Value, checks};
use crate::abi::{AttachType, Errno, MapType, ProgType, Result, UpdateFlags};
use crate::btf::Fields;
use crate::env::Env;
use crate::store::{Chains, Words};

/// See the module.
#[derive(Debug)]
pub struct Devmap {
    elems: Elems,
    max_entries: u32,
    value_size: u32,
    env: Arc<Env>,
    owner: Owner,
    /// None.
    fields: Fields,
}

#[derive(Debug)]
enum Elems {
    /// One word for each index: [`Dev::word`], 0 where there is none.
    Array {
        words: Words,
        progs: Mutex<HashMap<u32, Arc<Prog>>>,
    },
    Hash(RwLock<Chains<Place>>),
}

/// What a value stands for.
#[derive(Debug)]
struct Dev {
    ifindex: u32,
    prog: Option<Arc<Prog>>,
}

impl Dev {
    /// Interface and id of the program, as maps show them.
    fn word(&self) -> u64 {
        let prog_id = self.prog.as_ref().map_or(0, |prog| prog.id);
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&self.ifindex.to_ne_bytes());
        bytes[4..].copy_from_slice(&prog_id.to_ne_bytes());
        u64::from_ne_bytes(bytes)
    }
}

/// The interface in a word.
fn ifindex_of(word: u64) -> u32 {
    checks::u32_at(&word.to_ne_bytes(), 0)
}

/// An element of a hash: a value that lives on while a program holds it.
#[derive(Debug)]
struct Place {
    words: Arc<Words>,
    _prog: Option<Arc<Prog>>,
}

impl Devmap {
    /// An empty map.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// Kernel: `dev_map_alloc`.
    pub(super) fn new(def: &MapDef, env: &Arc<Env>) -> Result<Self> {
        let elems = if def.map_type == MapType::DEVMAP_HASH {
            Elems::Hash(RwLock::default())
        } else {
            Elems::Array {
                words: Words::new(def.max_entries as usize).map_err(|_| Errno::ENOMEM)?,
                progs: Mutex::default(),
            }
        };
        Ok(Self {
            elems,
            max_entries: def.max_entries,
            value_size: def.value_size,
            env: Arc::clone(env),
            owner: Owner::default(),
            fields: Fields::default(),
        })
    }

    /// The bucket of a key of a hash.
    fn bucket(&self, key: &[u8]) -> u32 {
        let n_buckets = self.max_entries.next_power_of_two();
        checks::index_of(key) & (n_buckets - 1)
    }

    /// The interface and the program that a value names.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such interface, or the program is none for this.
    fn dev(&self, caller: &Caller<'_>, value: &[u8]) -> Result<Dev> {
        let ifindex = checks::u32_at(value, 0);
        if !self.env.has_interface(ifindex) {
            return Err(Errno::EINVAL);
        }
        let prog = checks::xdp_prog(caller, value, AttachType::XDP_DEVMAP, &self.owner);
        Ok(Dev {
            ifindex,
            prog: prog.map_err(|_| Errno::EINVAL)?,
        })
    }

    /// Kernel: `__dev_map_update_elem`.
    fn update_array(
        &self,
        caller: &Caller<'_>,
        index: u32,
        value: &[u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        let Elems::Array { words, progs } = &self.elems else {
            unreachable!("this is an array");
        };
        checks::update_flags(flags)?;
        if index >= self.max_entries {
            return Err(Errno::E2BIG);
        }
        if flags == UpdateFlags::NOEXIST {
            // As in any array, all elements are there.
            return Err(Errno::EEXIST);
        }
        let dev = if checks::u32_at(value, 0) != 0 {
            self.dev(caller, value)?
        } else if checks::prog_fd(value).is_some() {
            return Err(Errno::EINVAL);
        } else {
            Dev {
                ifindex: 0,
                prog: None,
            }
        };
        let mut progs = progs.lock();
        let word = words.word(index as usize);
        word.store(dev.word(), Ordering::Relaxed);
        match dev.prog {
            Some(prog) => progs.insert(index, prog),
            None => progs.remove(&index),
        };
        Ok(())
    }

    /// Kernel: `__dev_map_hash_update_elem`.
    fn update_hash(
        &self,
        chains: &RwLock<Chains<Place>>,
        caller: &Caller<'_>,
        key: &[u8],
        value: &[u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        checks::update_flags(flags)?;
        if checks::u32_at(value, 0) == 0 {
            return Err(Errno::EINVAL);
        }
        let bucket = self.bucket(key);
        let mut chains = chains.write();
        let is_there = chains.get(bucket, key).is_some();
        if is_there && flags == UpdateFlags::NOEXIST {
            return Err(Errno::EEXIST);
        }
        // With `EXIST` a key that is not there is made all the same.
        let dev = self.dev(caller, value)?;
        if !is_there && chains.len() >= self.max_entries as usize {
            return Err(Errno::E2BIG);
        }
        let words = Words::new(1).map_err(|_| Errno::ENOMEM)?;
        words.word(0).store(dev.word(), Ordering::Relaxed);
        let place = Place {
            words: Arc::new(words),
            _prog: dev.prog,
        };
        chains.insert(bucket, key, place);
        Ok(())
    }
}

impl MapOps for Devmap {
    fn lookup_elem(&self, _cpu: u32, key: &[u8]) -> Option<Value<'_>> {
        let size = self.value_size;
        match &self.elems {
            Elems::Array { words, .. } => {
                let index = checks::index_of(key);
                let is_there = index < self.max_entries
                    && words.word(index as usize).load(Ordering::Relaxed) != 0;
                is_there.then(|| Value::in_block(words, index as usize, size, &self.fields))
            }
            Elems::Hash(chains) => {
                let chains = chains.read();
                let place = chains.get(self.bucket(key), key)?;
                Some(Value::shared(
                    Arc::clone(&place.words),
                    0,
                    size,
                    &self.fields,
                ))
            }
        }
    }

    fn target(&self, key: &[u8]) -> Option<Target> {
        let place = self.lookup_elem(0, key)?;
        let (words, at) = place.place();
        let word = words.word(at).load(Ordering::Relaxed);
        Some(Target::Interface(ifindex_of(word)))
    }

    /// Of an array, emptying an empty place is fine.
    fn delete_elem(&self, _cpu: u32, key: &[u8]) -> Result<()> {
        match &self.elems {
            Elems::Array { words, progs } => {
                let index = checks::index_of(key);
                if index >= self.max_entries {
                    return Err(Errno::EINVAL);
                }
                let mut progs = progs.lock();
                words.word(index as usize).store(0, Ordering::Relaxed);
                progs.remove(&index);
                Ok(())
            }
            Elems::Hash(chains) => {
                let removed = chains.write().remove(self.bucket(key), key);
                removed.map(|_| ()).ok_or(Errno::ENOENT)
            }
        }
    }

    fn user_lookup_elem(
        &self,
        caller: &Caller<'_>,
        key: &[u8],
        value: &mut [u8],
        _: UpdateFlags,
    ) -> Result<()> {
        let place = self.lookup_elem(caller.cpu, key).ok_or(Errno::ENOENT)?;
        place.read(0, value);
        Ok(())
    }

    fn user_update_elem(
        &self,
        caller: &Caller<'_>,
        key: &[u8],
        value: &[u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        match &self.elems {
            Elems::Array { .. } => self.update_array(caller, checks::index_of(key), value, flags),
            Elems::Hash(chains) => self.update_hash(chains, caller, key, value, flags),
        }
    }

    fn get_next_key(&self, key: Option<&[u8]>, next_key: &mut [u8]) -> Result<()> {
        match &self.elems {
            Elems::Array { .. } => checks::next_index(key, self.max_entries, next_key),
            Elems::Hash(chains) => {
                let chains = chains.read();
                let next = match key {
                    Some(key) => chains.next_key(self.bucket(key), key),
                    None => chains.first_key(),
                };
                next_key.copy_from_slice(next.ok_or(Errno::ENOENT)?);
                Ok(())
            }
        }
    }

    fn release_interface(&self, ifindex: u32) {
        match &self.elems {
            Elems::Array { words, progs } => {
                let mut progs = progs.lock();
                for index in 0..self.max_entries {
                    let word = words.word(index as usize);
                    if ifindex_of(word.load(Ordering::Relaxed)) == ifindex {
                        word.store(0, Ordering::Relaxed);
                        progs.remove(&index);
                    }
                }
            }
            Elems::Hash(chains) => {
                let stays = |place: &Place| {
                    ifindex_of(place.words.word(0).load(Ordering::Relaxed)) != ifindex
                };
                chains.write().retain(stays);
            }
        }
    }

    /// A hash is not bound by programs that use it, only by those that are put in.
    fn used_by(&self, prog: &Prog) -> Result<()> {
        match &self.elems {
            Elems::Array { .. } => self.owner.bind(prog),
            Elems::Hash(_) => Ok(()),
        }
    }

    fn owner_prog_type(&self) -> Option<ProgType> {
        self.owner.prog_type()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
