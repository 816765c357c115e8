//! `BPF_MAP_TYPE_REUSEPORT_SOCKARRAY`: sockets that share a port, for a program to choose from.
//!
//! A socket is in one place of one such map at most.
//!
//! Kernel: `kernel/bpf/reuseport_array.c` (v6.18).

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::object::{OtherObject, Socket};
use super::{Caller, MapDef, MapOps, checks};
use crate::abi::{Errno, Result, UpdateFlags};
use crate::env::Env;

/// See the module.
#[derive(Debug)]
pub struct ReuseportSockarray {
    sockets: Mutex<HashMap<u32, Arc<OtherObject>>>,
    max_entries: u32,
    value_size: u32,
    env: Arc<Env>,
}

impl ReuseportSockarray {
    /// An empty map.
    ///
    /// # Errors
    ///
    /// None so far.
    ///
    /// Kernel: `reuseport_array_alloc`.
    #[expect(clippy::unnecessary_wraps, reason = "all types are made alike")]
    pub(super) fn new(def: &MapDef, env: &Arc<Env>) -> Result<Self> {
        Ok(Self {
            sockets: Mutex::default(),
            max_entries: def.max_entries,
            value_size: def.value_size,
            env: Arc::clone(env),
        })
    }
}

/// # Errors
///
/// `ENOTSUPP` for sockets that cannot share a port, `EINVAL` for one that does not.
///
/// Kernel: `reuseport_array_update_check`.
fn shares_a_port(socket: Socket) -> Result<()> {
    if socket.unix || socket.xdp || socket.other {
        return Err(Errno::ENOTSUPP);
    }
    let in_use = if socket.stream {
        socket.listening
    } else {
        socket.bound
    };
    if in_use && socket.reuseport {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

impl MapOps for ReuseportSockarray {
    fn socket(&self, key: &[u8]) -> Option<Arc<OtherObject>> {
        let sockets = self.sockets.lock();
        sockets.get(&checks::index_of(key)).map(Arc::clone)
    }

    fn delete_elem(&self, _cpu: u32, key: &[u8]) -> Result<()> {
        let index = checks::index_of(key);
        if index >= self.max_entries {
            return Err(Errno::E2BIG);
        }
        let removed = self.sockets.lock().remove(&index).ok_or(Errno::ENOENT)?;
        removed.release_from_array();
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
        let sockets = self.sockets.lock();
        let object = sockets.get(&checks::index_of(key)).ok_or(Errno::ENOENT)?;
        let cookie = object.cookie(|| self.env.next_socket_cookie());
        value.copy_from_slice(&cookie.to_ne_bytes());
        Ok(())
    }

    /// Kernel: `bpf_fd_reuseport_array_update_elem`.
    fn user_update_elem(
        &self,
        caller: &Caller<'_>,
        key: &[u8],
        value: &[u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        let index = checks::index_of(key);
        checks::update_flags(flags)?;
        if index >= self.max_entries {
            return Err(Errno::E2BIG);
        }
        let (object, socket) = checks::socket(caller, checks::fd_in_value(value)?)?;
        let mut sockets = self.sockets.lock();
        checks::existence(sockets.contains_key(&index), flags)?;
        shares_a_port(socket)?;
        if !object.hold_in_array() {
            return Err(Errno::EBUSY);
        }
        if let Some(old) = sockets.insert(index, object) {
            old.release_from_array();
        }
        Ok(())
    }

    fn get_next_key(&self, key: Option<&[u8]>, next_key: &mut [u8]) -> Result<()> {
        checks::next_index(key, self.max_entries, next_key)
    }

    fn release_owner(&self, object_id: u64) {
        self.sockets
            .lock()
            .retain(|_, object| object.id != object_id);
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for ReuseportSockarray {
    fn drop(&mut self) {
        for object in self.sockets.get_mut().values() {
            object.release_from_array();
        }
    }
}
