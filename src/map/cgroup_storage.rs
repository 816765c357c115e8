//! `BPF_MAP_TYPE_CGROUP_STORAGE` and its per-CPU kind: one element for each place where a program that uses the map was
//! attached, made by the attach and gone with the cgroup.
//!
//! Invariant: an element that a program runs with stays its own, whatever becomes of the map's table.
//!
//! Kernel: `kernel/bpf/local_storage.c` (v6.18).

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;

use super::checks::{Which, percpu_flags};
use super::lock::SpinGuard;
use super::{Caller, MapDef, MapOps, Value};
use crate::abi::{AttachType, Errno, Result, UpdateFlags};
use crate::btf::{Btf, Fields};
use crate::env::Env;
use crate::store::{WORD, Words};

/// Where an element belongs: a cgroup, and an attach type unless all share one element.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Key {
    cgroup_id: u64,
    attach_type: u32,
}

/// One element; its buffer is exchanged by updates.
struct Element {
    key: Key,
    /// One part for each CPU, or one for all.
    buffer: RwLock<Arc<Words>>,
}

/// The element that a program was given when it was attached.
#[derive(Clone)]
pub struct Storage(Arc<Element>);

impl Storage {
    /// The value in place, `value_size` bytes; of the per-CPU kind the part of that CPU.
    ///
    /// A pointer that was taken before an update shows the old bytes.
    pub fn value<'m>(&self, cpu: u32, def: &MapDef, fields: &'m Fields) -> Value<'m> {
        let part = if def.map_type.is_percpu() {
            cpu as usize
        } else {
            0
        };
        let words = Arc::clone(&self.0.buffer.read());
        Value::shared(words, part * def.elem_size() / WORD, def.value_size, fields)
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "storage at {:?}", self.0.key)
    }
}

/// Elements in the order in which they were made.
#[derive(Default)]
struct Table {
    by_key: HashMap<Key, u64>,
    by_age: BTreeMap<u64, Arc<Element>>,
    next: u64,
}

/// See the module.
pub struct CgroupStorage {
    def: MapDef,
    env: Arc<Env>,
    fields: Fields,
    table: RwLock<Table>,
}

impl CgroupStorage {
    /// A map without elements.
    ///
    /// # Errors
    ///
    /// None.
    pub(super) fn new(def: &MapDef, env: &Arc<Env>) -> Result<Self> {
        Ok(Self {
            def: def.clone(),
            env: Arc::clone(env),
            fields: Fields::default(),
            table: RwLock::new(Table::default()),
        })
    }

    /// A program that uses the map is attached: the element of that place, made of zeros if it is missing.
    ///
    /// # Errors
    ///
    /// `ENOMEM`
    ///
    /// Kernel: `kernel/bpf/cgroup.c:bpf_cgroup_storages_alloc`.
    pub fn attach(&self, cgroup_id: u64, attach_type: AttachType) -> Result<Storage> {
        let key = self.key(cgroup_id, attach_type.0);
        let mut table = self.table.write();
        if let Some(element) = table.find(key) {
            return Ok(Storage(Arc::clone(element)));
        }
        let element = Arc::new(Element {
            key,
            buffer: RwLock::new(self.buffer()?),
        });
        let age = table.next;
        table.next += 1;
        table.by_key.insert(key, age);
        table.by_age.insert(age, Arc::clone(&element));
        Ok(Storage(element))
    }

    /// An element for one run of a program that is not attached: zeros, and not in the map.
    ///
    /// # Errors
    ///
    /// `ENOMEM`
    ///
    /// Kernel: `net/bpf/test_run.c:bpf_test_run`.
    pub fn element_of_run(&self) -> Result<Storage> {
        Ok(Storage(Arc::new(Element {
            key: self.key(0, 0),
            buffer: RwLock::new(self.buffer()?),
        })))
    }

    fn key(&self, cgroup_id: u64, attach_type: u32) -> Key {
        let attach_type = if self.is_shared() { 0 } else { attach_type };
        Key {
            cgroup_id,
            attach_type,
        }
    }

    /// All attach types share the element of a cgroup.
    fn is_shared(&self) -> bool {
        self.def.key_size == 8
    }

    /// The key in its bytes; padding is ignored.
    fn parse(&self, bytes: &[u8]) -> Key {
        let cgroup_id = bytes[..8].try_into().expect("8 bytes");
        let attach_type = bytes
            .get(8..12)
            .map_or([0; 4], |bytes| bytes.try_into().expect("4 bytes"));
        self.key(
            u64::from_ne_bytes(cgroup_id),
            u32::from_ne_bytes(attach_type),
        )
    }

    /// Bytes of a value as bpf(2) copies it.
    fn size(&self) -> usize {
        self.def.user_value_size(self.env.nr_cpus)
    }

    fn buffer(&self) -> Result<Arc<Words>> {
        let words = Words::new(self.size().div_ceil(WORD));
        words.map(Arc::new).map_err(|_| Errno::ENOMEM)
    }

    /// The word where a CPU's part of a value begins.
    fn part_at(&self, cpu: u32) -> usize {
        cpu as usize * self.def.elem_size() / WORD
    }

    /// Kernel: `bpf_percpu_cgroup_storage_update`.
    fn update_parts(&self, key: &[u8], value: &[u8], flags: UpdateFlags) -> Result<()> {
        let release = self.env.release;
        let (existence, which) = percpu_flags(flags, release.cpu_flags)?;
        let both = UpdateFlags::NOEXIST | UpdateFlags::EXIST;
        if existence == UpdateFlags::NOEXIST || flags.low() == both {
            return Err(Errno::EINVAL);
        }
        let element = self.element(key)?;
        let words = element.buffer.read();
        match which {
            Which::Each => {
                let bytes = if release.percpu_user_copies_padding {
                    self.def.elem_size()
                } else {
                    self.def.value_size as usize
                };
                for (cpu, part) in (0..).zip(value.chunks_exact(self.def.elem_size())) {
                    words.write(self.part_at(cpu), &part[..bytes]);
                }
            }
            Which::All => {
                for cpu in 0..self.env.nr_cpus {
                    words.write(self.part_at(cpu), value);
                }
            }
            Which::One(cpu) => words.write(self.part_at(cpu), value),
        }
        Ok(())
    }

    fn element(&self, key: &[u8]) -> Result<Arc<Element>> {
        let table = self.table.read();
        let element = table.find(self.parse(key));
        element.map(Arc::clone).ok_or(Errno::ENOENT)
    }

    /// The lock in a value of that buffer, held, if it is asked for.
    fn locked<'w>(&self, words: &'w Words, flags: UpdateFlags) -> Option<SpinGuard<'w>> {
        let at = self.fields.spin_lock()?;
        let asked = flags.contains(UpdateFlags::LOCK);
        asked.then(|| SpinGuard::lock(words, at as usize))
    }
}

impl Table {
    fn find(&self, key: Key) -> Option<&Arc<Element>> {
        self.by_age.get(self.by_key.get(&key)?)
    }
}

impl MapOps for CgroupStorage {
    /// Kernel: `cgroup_storage_lookup_elem`, `bpf_percpu_cgroup_storage_copy`.
    fn user_lookup_elem(
        &self,
        _caller: &Caller<'_>,
        key: &[u8],
        value: &mut [u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        let element = self.element(key)?;
        let words = Arc::clone(&element.buffer.read());
        if flags.contains(UpdateFlags::CPU) {
            words.read(self.part_at(flags.cpu()), value);
            return Ok(());
        }
        let lock = self.locked(&words, flags);
        words.read(0, value);
        drop(lock);
        self.fields.hide(value);
        Ok(())
    }

    /// Changes an element; it never makes one.
    ///
    /// Kernel: `cgroup_storage_update_elem`, `bpf_percpu_cgroup_storage_update`.
    fn user_update_elem(
        &self,
        _caller: &Caller<'_>,
        key: &[u8],
        value: &[u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        if self.def.map_type.is_percpu() {
            return self.update_parts(key, value, flags);
        }
        let in_place = flags.contains(UpdateFlags::LOCK);
        let known = UpdateFlags::EXIST | UpdateFlags::LOCK;
        if !known.contains(flags) || (in_place && self.fields.spin_lock().is_none()) {
            return Err(Errno::EINVAL);
        }
        let element = self.element(key)?;
        if in_place {
            let words = Arc::clone(&element.buffer.read());
            let _lock = self.locked(&words, flags);
            self.fields.write_around(&words, 0, value);
        } else {
            let words = self.buffer()?;
            self.fields.write_around(&words, 0, value);
            *element.buffer.write() = words;
        }
        Ok(())
    }

    /// Elements go with their cgroup only.
    fn delete_elem(&self, _cpu: u32, _key: &[u8]) -> Result<()> {
        Err(Errno::EINVAL)
    }

    /// The newest element comes first.
    ///
    /// Kernel: `cgroup_storage_get_next_key`.
    fn get_next_key(&self, key: Option<&[u8]>, next_key: &mut [u8]) -> Result<()> {
        let table = self.table.read();
        let next = match key {
            None => table.by_age.last_key_value(),
            Some(key) => {
                let age = table.by_key.get(&self.parse(key)).ok_or(Errno::ENOENT)?;
                table.by_age.range(..age).next_back()
            }
        };
        let Some((_, element)) = next else {
            if key.is_some() && !self.env.release.cgroup_storage_walk_ends {
                // Bytes of the kernel's own, which are nobody's key: of a lock that is free, and of a pointer.
                next_key.fill(0);
                if let Some(pointer) = next_key.get_mut(8..16) {
                    pointer.copy_from_slice(&self.env.random().to_ne_bytes());
                }
                return Ok(());
            }
            return Err(Errno::ENOENT);
        };
        next_key.fill(0);
        next_key[..8].copy_from_slice(&element.key.cgroup_id.to_ne_bytes());
        if let Some(attach_type) = next_key.get_mut(8..12) {
            attach_type.copy_from_slice(&element.key.attach_type.to_ne_bytes());
        }
        Ok(())
    }

    fn release_cgroup(&self, cgroup_id: u64) {
        let mut table = self.table.write();
        let Table { by_key, by_age, .. } = &mut *table;
        by_key.retain(|key, age| {
            let gone = key.cgroup_id == cgroup_id;
            if gone {
                by_age.remove(age);
            }
            !gone
        });
    }

    fn set_fields(&mut self, fields: Fields, _btf: Option<&Arc<Btf>>) {
        self.fields = fields;
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl fmt::Debug for CgroupStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n_elems = self.table.read().by_age.len();
        write!(f, "{} of {n_elems} elements", self.def.map_type)
    }
}
