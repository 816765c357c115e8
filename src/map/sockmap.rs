//! `BPF_MAP_TYPE_SOCKMAP` and `BPF_MAP_TYPE_SOCKHASH`: sockets, to redirect data to.
//!
//! Kernel: `net/core/sock_map.c` (v6.18).

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::object::{OtherObject, Socket};
use super::{Caller, MapDef, MapOps, checks};
use crate::abi::{Errno, MapType, Result, UpdateFlags};
use crate::env::Env;
use crate::store::{Chains, jhash};

/// See the module.
#[derive(Debug)]
pub struct Sockmap {
    elems: Mutex<Elems>,
    max_entries: u32,
    value_size: u32,
    env: Arc<Env>,
}

#[derive(Debug)]
enum Elems {
    Array(HashMap<u32, Arc<OtherObject>>),
    Hash(Chains<Arc<OtherObject>>),
}

impl Sockmap {
    /// An empty map.
    ///
    /// # Errors
    ///
    /// None so far.
    ///
    /// Kernel: `sock_map_alloc`, `sock_hash_alloc`.
    #[expect(clippy::unnecessary_wraps, reason = "all types are made alike")]
    pub(super) fn new(def: &MapDef, env: &Arc<Env>) -> Result<Self> {
        let elems = if def.map_type == MapType::SOCKHASH {
            Elems::Hash(Chains::default())
        } else {
            Elems::Array(HashMap::new())
        };
        Ok(Self {
            elems: Mutex::new(elems),
            max_entries: def.max_entries,
            value_size: def.value_size,
            env: Arc::clone(env),
        })
    }

    /// The bucket of a key of a hash.
    fn bucket(&self, key: &[u8]) -> u32 {
        let n_buckets = self.max_entries.next_power_of_two();
        jhash(key, 0) & (n_buckets - 1)
    }
}

/// Sockets of that kind, and in that state, can be in socket maps.
///
/// Kernel: `sock_map_sk_is_suitable`, `sock_map_sk_state_allowed`.
fn is_suitable(socket: Socket) -> bool {
    match socket {
        Socket { xdp: true, .. } | Socket { other: true, .. } => false,
        Socket {
            unix: true, stream, ..
        } => !stream || socket.connected,
        Socket { stream: true, .. } => socket.listening || socket.connected,
        Socket { .. } => socket.bound || socket.connected,
    }
}

impl MapOps for Sockmap {
    fn socket(&self, key: &[u8]) -> Option<Arc<OtherObject>> {
        let elems = self.elems.lock();
        self.find(&elems, key).map(Arc::clone)
    }

    fn delete_elem(&self, _cpu: u32, key: &[u8]) -> Result<()> {
        let removed = match &mut *self.elems.lock() {
            Elems::Array(sockets) => {
                let removed = sockets.remove(&checks::index_of(key));
                removed.ok_or(Errno::EINVAL)?
            }
            Elems::Hash(chains) => {
                let removed = chains.remove(self.bucket(key), key);
                removed.ok_or(Errno::ENOENT)?
            }
        };
        removed.release_from_socket_map();
        Ok(())
    }

    /// Only values of 8 bytes have room for a socket's number.
    fn user_lookup_elem(
        &self,
        _: &Caller<'_>,
        key: &[u8],
        value: &mut [u8],
        _: UpdateFlags,
    ) -> Result<()> {
        if self.value_size != 8 {
            return Err(Errno::ENOSPC);
        }
        let elems = self.elems.lock();
        let cookie = self
            .find(&elems, key)
            .ok_or(Errno::ENOENT)?
            .cookie(|| self.env.next_socket_cookie());
        value.copy_from_slice(&cookie.to_ne_bytes());
        Ok(())
    }

    /// Kernel: `sock_map_update_elem_sys`.
    fn user_update_elem(
        &self,
        caller: &Caller<'_>,
        key: &[u8],
        value: &[u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        let fd = checks::fd_in_value(value)?;
        if i32::try_from(fd).is_err() {
            return Err(Errno::EINVAL);
        }
        let (object, _) = checks::socket(caller, fd)?;
        self.update(key, &object, flags)
    }

    fn get_next_key(&self, key: Option<&[u8]>, next_key: &mut [u8]) -> Result<()> {
        match &*self.elems.lock() {
            Elems::Array(_) => checks::next_index(key, self.max_entries, next_key),
            Elems::Hash(chains) => {
                let next = match key {
                    Some(key) => chains.next_key(self.bucket(key), key),
                    None => chains.first_key(),
                };
                next_key.copy_from_slice(next.ok_or(Errno::ENOENT)?);
                Ok(())
            }
        }
    }

    fn release_owner(&self, object_id: u64) {
        match &mut *self.elems.lock() {
            Elems::Array(sockets) => sockets.retain(|_, object| object.id != object_id),
            Elems::Hash(chains) => chains.retain(|object| object.id != object_id),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Sockmap {
    fn find<'e>(&self, elems: &'e Elems, key: &[u8]) -> Option<&'e Arc<OtherObject>> {
        match elems {
            Elems::Array(sockets) => sockets.get(&checks::index_of(key)),
            Elems::Hash(chains) => chains.get(self.bucket(key), key),
        }
    }

    /// Makes or changes an element.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if it is no socket for such maps; `EINVAL` for flags; `E2BIG` past the end; `EBUSY` if a reuseport array
    /// has it; `EEXIST`, `ENOENT`; `E2BIG` if the hash is full.
    ///
    /// Kernel: `sock_map_update_common`, `sock_hash_update_common`.
    pub fn update(&self, key: &[u8], object: &Arc<OtherObject>, flags: UpdateFlags) -> Result<()> {
        if !object.socket().is_some_and(is_suitable) {
            return Err(Errno::EOPNOTSUPP);
        }
        checks::update_flags(flags)?;
        let mut elems = self.elems.lock();
        if matches!(*elems, Elems::Array(_)) && checks::index_of(key) >= self.max_entries {
            return Err(Errno::E2BIG);
        }
        if !object.hold_in_socket_map() {
            return Err(Errno::EBUSY);
        }
        let replaced = self.put(&mut elems, key, object, flags);
        let released = match &replaced {
            Ok(old) => old.as_ref(),
            Err(_) => Some(object),
        };
        if let Some(object) = released {
            object.release_from_socket_map();
        }
        replaced.map(|_| ())
    }

    /// Puts a socket in its place; gives the one that was there.
    ///
    /// # Errors
    ///
    /// `EEXIST`, `ENOENT`; `E2BIG` if the hash is full.
    fn put(
        &self,
        elems: &mut Elems,
        key: &[u8],
        object: &Arc<OtherObject>,
        flags: UpdateFlags,
    ) -> Result<Option<Arc<OtherObject>>> {
        match elems {
            Elems::Array(sockets) => {
                let index = checks::index_of(key);
                checks::existence(sockets.contains_key(&index), flags)?;
                Ok(sockets.insert(index, Arc::clone(object)))
            }
            Elems::Hash(chains) => {
                let bucket = self.bucket(key);
                let is_there = chains.get(bucket, key).is_some();
                checks::existence(is_there, flags)?;
                if !is_there && chains.len() >= self.max_entries as usize {
                    return Err(Errno::E2BIG);
                }
                Ok(chains.insert(bucket, key, Arc::clone(object)))
            }
        }
    }
}

impl Drop for Sockmap {
    fn drop(&mut self) {
        match self.elems.get_mut() {
            Elems::Array(sockets) => sockets.values().for_each(|o| o.release_from_socket_map()),
            Elems::Hash(chains) => chains.values().for_each(|o| o.release_from_socket_map()),
        }
    }
}
