//! `BPF_MAP_TYPE_QUEUE` and `BPF_MAP_TYPE_STACK`: values without keys, taken out oldest or newest first.
//!
//! Kernel: `kernel/bpf/queue_stack_maps.c` (v6.18).

use std::any::Any;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{MapDef, MapOps};
use crate::abi::{Errno, MapType, Result, UpdateFlags};
use crate::env::Env;
use crate::store::{Fifo, Full};

/// Both types.
#[derive(Debug)]
pub struct QueueStack {
    /// Newest first, as a stack.
    newest_first: bool,
    values: Mutex<Fifo>,
}

impl QueueStack {
    /// The empty map.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// Kernel: `queue_stack_map_alloc`.
    pub(super) fn new(def: &MapDef, _env: &Arc<Env>) -> Result<Self> {
        let values = Fifo::new(def.max_entries as usize, def.value_size as usize)
            .map_err(|_| Errno::ENOMEM)?;
        Ok(Self {
            newest_first: def.map_type == MapType::STACK,
            values: Mutex::new(values),
        })
    }

    fn get(&self, value: &mut [u8], take: bool) -> Result<()> {
        let mut values = self.values.lock();
        let found = if self.newest_first {
            values.last(value)
        } else {
            values.first(value)
        };
        if found.is_none() {
            value.fill(0);
            return Err(Errno::ENOENT);
        }
        if take {
            let taken = if self.newest_first {
                values.drop_last()
            } else {
                values.drop_first()
            };
            taken.expect("it was there");
        }
        Ok(())
    }
}

impl MapOps for QueueStack {
    fn update_elem(&self, _: u32, _: &[u8], _: &[u8], _: UpdateFlags) -> Result<()> {
        Err(Errno::EINVAL)
    }

    fn delete_elem(&self, _cpu: u32, _key: &[u8]) -> Result<()> {
        Err(Errno::EINVAL)
    }

    /// With `EXIST`, a full map loses its oldest value: of a stack the bottom.
    ///
    /// Kernel: `queue_stack_map_push_elem`.
    fn push_elem(&self, value: &[u8], flags: UpdateFlags) -> Result<()> {
        let replace = flags.contains(UpdateFlags::EXIST);
        if flags != UpdateFlags::ANY && flags != UpdateFlags::EXIST {
            return Err(Errno::EINVAL);
        }
        let mut values = self.values.lock();
        let mut pushed = values.push(value);
        if pushed == Err(Full) && replace {
            values.drop_first().expect("it is full");
            pushed = values.push(value);
        }
        pushed.map_err(|Full| Errno::E2BIG)
    }

    fn pop_elem(&self, value: &mut [u8]) -> Result<()> {
        self.get(value, true)
    }

    fn peek_elem(&self, value: &mut [u8]) -> Result<()> {
        self.get(value, false)
    }

    fn get_next_key(&self, _key: Option<&[u8]>, _next_key: &mut [u8]) -> Result<()> {
        Err(Errno::EINVAL)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
