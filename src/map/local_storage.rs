//! `BPF_MAP_TYPE_SK_STORAGE`, `INODE_STORAGE`, `TASK_STORAGE` and `CGRP_STORAGE`: one value for each owner.
//!
//! System calls name an owner by an fd; what counts is what that stands for, so two fds of one owner name one value. A
//! value ends with its owner.
//!
//! Kernel: `kernel/bpf/bpf_local_storage.c`, and for each type `net/core/bpf_sk_storage.c`,
//! `kernel/bpf/bpf_inode_storage.c`, `bpf_task_storage.c`, `bpf_cgrp_storage.c` (v6.18).

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::create_rules::LOCAL_STORAGE_HEADER;
use super::holdings::Holdings;
use super::lock::SpinGuard;
use super::object::{Object, OtherKind};
use super::{Caller, Charge, Element, MapDef, MapOps, Value, checks};
use crate::abi::{Errno, Fd, MapType, Result, UpdateFlags};
use crate::btf::{Btf, FieldKind, Fields};
use crate::env::Env;
use crate::store::{WORD, Words};

/// `BPF_LOCAL_STORAGE_GET_F_CREATE`
const GET_CREATE: u64 = 1;

/// See the module.
#[derive(Debug)]
pub struct LocalStorage {
    map_type: MapType,
    value_size: u32,
    elem_size: usize,
    fields: Fields,
    /// Where the types of the fields are.
    btf: Option<Arc<Btf>>,
    env: Arc<Env>,
    elems: RwLock<HashMap<Owner, Elem>>,
}

/// Whose value it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Owner {
    /// A socket, a process, or an inode.
    Object(u64),
    Cgroup(u64),
    /// The inode that all fds without a file of their own share.
    AnonInode,
}

#[derive(Debug)]
struct Elem {
    element: Arc<Element>,
    _charge: Charge,
}

impl LocalStorage {
    /// A map without a value.
    ///
    /// # Errors
    ///
    /// None so far.
    ///
    /// Kernel: `bpf_local_storage_map_alloc`.
    #[expect(clippy::unnecessary_wraps, reason = "all types are made alike")]
    pub(super) fn new(def: &MapDef, env: &Arc<Env>) -> Result<Self> {
        Ok(Self {
            map_type: def.map_type,
            value_size: def.value_size,
            elem_size: def.elem_size(),
            fields: Fields::default(),
            btf: None,
            env: Arc::clone(env),
            elems: RwLock::default(),
        })
    }

    /// The owner that an object is for this type of map.
    ///
    /// # Errors
    ///
    /// `ENOTSOCK` or `EBADF` if it is none; `ENOENT` if the process has ended.
    fn owner(&self, object: &Object) -> Result<Owner> {
        let other = match object {
            Object::Other(other) => Some(other),
            Object::Map(_) | Object::Btf(_) | Object::Prog(_) | Object::Cgroup(_) => None,
        };
        match (self.map_type, object, other) {
            (MapType::SK_STORAGE, _, Some(other)) if matches!(other.kind, OtherKind::Socket(_)) => {
                Ok(Owner::Object(other.id))
            }
            (MapType::SK_STORAGE, ..) => Err(Errno::ENOTSOCK),
            (MapType::TASK_STORAGE, _, Some(other)) if other.kind == OtherKind::Pidfd => {
                if other.has_ended() {
                    return Err(Errno::ENOENT);
                }
                Ok(Owner::Object(other.id))
            }
            (MapType::CGRP_STORAGE, Object::Cgroup(cgroup), _) => Ok(Owner::Cgroup(cgroup.id)),
            (MapType::CGRP_STORAGE, _, Some(other)) if other.kind == OtherKind::Cgroup1 => {
                Ok(Owner::Object(other.id))
            }
            (MapType::TASK_STORAGE | MapType::CGRP_STORAGE, ..) => Err(Errno::EBADF),
            _ => Ok(inode(object)),
        }
    }

    fn owner_of_key(&self, caller: &Caller<'_>, key: &[u8]) -> Result<Owner> {
        let fd: Fd = checks::u32_at(key, 0);
        // Inodes and cgroups are looked up by `O_PATH` fds too.
        let object = match self.map_type {
            MapType::INODE_STORAGE | MapType::CGRP_STORAGE => caller.files.object_raw(fd)?,
            _ => caller.files.object(fd)?,
        };
        self.owner(&object)
    }

    fn value(&self, elem: &Elem) -> Value<'_> {
        Value::of_element(Arc::clone(&elem.element), self.value_size, &self.fields)
    }

    /// A new value of those bytes, or of zeros; special fields are zero.
    fn elem(&self, bytes: Option<&[u8]>) -> Result<Elem> {
        let header = LOCAL_STORAGE_HEADER;
        let charge = Charge::new(&self.env, self.elem_size as u64 + u64::from(header))?;
        let words = Words::new(self.elem_size / WORD).map_err(|_| Errno::ENOMEM)?;
        if let Some(bytes) = bytes {
            self.fields.write_around(&words, 0, bytes);
        }
        Ok(Elem {
            element: Arc::new(Element {
                words,
                holdings: Holdings::of(&self.fields, self.btf.as_ref()),
            }),
            _charge: charge,
        })
    }

    /// Copies a value in, all but its special fields; nobody else who takes the lock sees a part of it.
    fn write_locked(&self, words: &Words, lock: u32, value: &[u8]) {
        let _guard = SpinGuard::lock(words, lock as usize);
        self.fields.write_around(words, 0, value);
    }

    /// Kernel: `bpf_local_storage_update`.
    fn update(&self, owner: Owner, value: &[u8], flags: UpdateFlags) -> Result<()> {
        let existence = flags.difference(UpdateFlags::LOCK);
        checks::update_flags(existence)?;
        let lock = if flags.contains(UpdateFlags::LOCK) {
            Some(self.fields.spin_lock().ok_or(Errno::EINVAL)?)
        } else {
            None
        };
        let mut elems = self.elems.write();
        let old = elems.get(&owner);
        checks::existence(old.is_some(), existence)?;
        if let (Some(old), Some(lock)) = (old, lock) {
            let element = Arc::clone(&old.element);
            // A program that holds the lock may need the map to get on.
            drop(elems);
            self.write_locked(&element.words, lock, value);
        } else {
            let replaced = elems.insert(owner, self.elem(Some(value))?);
            drop(elems);
            drop(replaced);
        }
        Ok(())
    }

    fn delete(&self, owner: Owner) -> Result<()> {
        let removed = self.elems.write().remove(&owner);
        removed.map(|_| ()).ok_or(Errno::ENOENT)
    }

    /// `bpf_sk_storage_get` and its kin, as a program calls them: the owner's value. With `BPF_LOCAL_STORAGE_GET_F_CREATE`
    /// (1) in `flags` one is made where there is none, of the bytes in `initial` or zeros. None too for unknown flags, and
    /// for objects that own no value in this type of map.
    ///
    /// Kernel: `bpf_sk_storage_get`, `bpf_inode_storage_get`, `bpf_task_storage_get`, `bpf_cgrp_storage_get`.
    pub fn storage_get(
        &self,
        owner: &Object,
        flags: u64,
        initial: Option<&[u8]>,
    ) -> Option<Value<'_>> {
        if flags & !GET_CREATE != 0 {
            return None;
        }
        let owner = self.owner(owner).ok()?;
        if let Some(elem) = self.elems.read().get(&owner) {
            return Some(self.value(elem));
        }
        if flags & GET_CREATE == 0 {
            return None;
        }
        let mut elems = self.elems.write();
        if let Some(elem) = elems.get(&owner) {
            // Made meanwhile.
            return Some(self.value(elem));
        }
        let elem = self.elem(initial).ok()?;
        let value = self.value(&elem);
        elems.insert(owner, elem);
        Some(value)
    }

    /// `bpf_sk_storage_delete` and its kin, as a program calls them.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no value, or the object owns none in this type of map.
    ///
    /// Kernel: `bpf_sk_storage_delete`, `bpf_inode_storage_delete`, `bpf_task_storage_delete`,
    /// `bpf_cgrp_storage_delete`.
    pub fn storage_delete(&self, owner: &Object) -> Result<()> {
        self.delete(self.owner(owner).map_err(|_| Errno::ENOENT)?)
    }
}

/// The inode of an open file.
fn inode(object: &Object) -> Owner {
    match object {
        Object::Cgroup(cgroup) => Owner::Cgroup(cgroup.id),
        Object::Map(_) | Object::Btf(_) | Object::Prog(_) => Owner::AnonInode,
        Object::Other(other) => match other.kind {
            // A pidfd has an inode of its own since 6.9.
            OtherKind::File
            | OtherKind::Cgroup1
            | OtherKind::Socket(_)
            | OtherKind::Pidfd
            | OtherKind::Netns => Owner::Object(other.id),
            OtherKind::PerfEvent(_) | OtherKind::Link => Owner::AnonInode,
        },
    }
}

impl MapOps for LocalStorage {
    /// Without an fd table there is no owner: programs have [`LocalStorage::storage_delete`].
    fn delete_elem(&self, _cpu: u32, _key: &[u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn user_lookup_elem(
        &self,
        caller: &Caller<'_>,
        key: &[u8],
        value: &mut [u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        let owner = self.owner_of_key(caller, key)?;
        let elems = self.elems.read();
        let element = elems.get(&owner).map(|elem| Arc::clone(&elem.element));
        drop(elems);
        let words = &element.as_ref().ok_or(Errno::ENOENT)?.words;
        match self.fields.spin_lock() {
            Some(lock) if flags.contains(UpdateFlags::LOCK) => {
                let _guard = SpinGuard::lock(words, lock as usize);
                words.read(0, value);
            }
            Some(_) | None => words.read(0, value),
        }
        self.fields.hide(value);
        Ok(())
    }

    fn user_update_elem(
        &self,
        caller: &Caller<'_>,
        key: &[u8],
        value: &[u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        let uptrs = || {
            self.fields
                .0
                .iter()
                .filter(|field| field.kind == FieldKind::Uptr)
        };
        if flags.contains(UpdateFlags::LOCK) && uptrs().next().is_some() {
            return Err(Errno::EOPNOTSUPP);
        }
        let owner = self.owner_of_key(caller, key)?;
        if uptrs().any(|field| value[field.bytes()].iter().any(|byte| *byte != 0)) {
            let what = format_args!("pointers to user memory in values");
            return Err(self.env.unsupported(what));
        }
        self.update(owner, value, flags)
    }

    fn user_delete_elem(&self, caller: &Caller<'_>, key: &[u8]) -> Result<()> {
        self.delete(self.owner_of_key(caller, key)?)
    }

    fn release_owner(&self, object_id: u64) {
        // Not found is no failure: it has no value in this map.
        self.delete(Owner::Object(object_id)).ok();
    }

    fn release_cgroup(&self, cgroup_id: u64) {
        self.delete(Owner::Cgroup(cgroup_id)).ok();
    }

    fn set_fields(&mut self, fields: Fields, btf: Option<&Arc<Btf>>) {
        self.btf = btf.cloned();
        self.fields = fields;
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
