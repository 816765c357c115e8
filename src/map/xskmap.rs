//! `BPF_MAP_TYPE_XSKMAP`: `AF_XDP` sockets, to redirect packets to.
//!
//! Kernel: `net/xdp/xskmap.c` (v6.18).

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Caller, MapDef, MapOps, Target, checks};
use crate::abi::{Errno, Result, UpdateFlags};
use crate::env::Env;

/// See the module.
#[derive(Debug)]
pub struct Xskmap {
    /// Ids of sockets by index.
    sockets: Mutex<HashMap<u32, u64>>,
    max_entries: u32,
}

impl Xskmap {
    /// An empty map.
    ///
    /// # Errors
    ///
    /// None so far.
    ///
    /// Kernel: `xsk_map_alloc`.
    #[expect(clippy::unnecessary_wraps, reason = "all types are made alike")]
    pub(super) fn new(def: &MapDef, _env: &Arc<Env>) -> Result<Self> {
        Ok(Self {
            sockets: Mutex::default(),
            max_entries: def.max_entries,
        })
    }
}

impl MapOps for Xskmap {
    fn target(&self, key: &[u8]) -> Option<Target> {
        let sockets = self.sockets.lock();
        let id = sockets.get(&checks::index_of(key))?;
        Some(Target::Socket(*id))
    }

    /// Emptying an empty place is fine.
    fn delete_elem(&self, _cpu: u32, key: &[u8]) -> Result<()> {
        let index = checks::index_of(key);
        if index >= self.max_entries {
            return Err(Errno::EINVAL);
        }
        self.sockets.lock().remove(&index);
        Ok(())
    }

    fn user_lookup_elem(
        &self,
        _: &Caller<'_>,
        _: &[u8],
        _: &mut [u8],
        _: UpdateFlags,
    ) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Kernel: `xsk_map_update_elem`.
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
        let (object, socket) = checks::socket(caller, checks::u32_at(value, 0))?;
        if !socket.xdp {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut sockets = self.sockets.lock();
        let old = sockets.get(&index).copied();
        if old == Some(object.id) {
            // Even with `NOEXIST`.
            return Ok(());
        }
        checks::existence(old.is_some(), flags)?;
        sockets.insert(index, object.id);
        Ok(())
    }

    fn get_next_key(&self, key: Option<&[u8]>, next_key: &mut [u8]) -> Result<()> {
        checks::next_index(key, self.max_entries, next_key)
    }

    /// Unlike other types, as many elements as the template.
    fn fits_template(&self, template: &MapDef, map: &MapDef) -> bool {
        template.max_entries == map.max_entries
    }

    fn release_owner(&self, object_id: u64) {
        self.sockets.lock().retain(|_, id| *id != object_id);
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
