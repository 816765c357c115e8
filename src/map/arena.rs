//! `BPF_MAP_TYPE_ARENA`: memory that a program and user space share, page by page; no elements.
//!
//! Kernel: `kernel/bpf/arena.c` (v6.18).

use std::any::Any;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Caller, MapDef, MapOps};
use crate::abi::{Errno, MapRequest, Result, UpdateFlags};
use crate::env::{Env, PAGE_SIZE};
use crate::store::{WORD, Words};

/// The longest mapping.
const MAX_LEN: usize = 1 << 32;

/// See the module.
#[derive(Debug)]
pub struct Arena {
    /// `max_entries` pages.
    pages: Arc<Words>,
    /// Where in user space the arena is, once that is settled: by `map_extra`, or by the first mapping.
    place: Mutex<Option<Place>>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    len: usize,
}

impl Arena {
    /// An arena without a page.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// Kernel: `arena_map_alloc`.
    pub(super) fn new(def: &MapDef, _env: &Arc<Env>) -> Result<Self> {
        let len = def.max_entries as usize * PAGE_SIZE;
        let pages = Words::in_file(len / WORD).map_err(|_| Errno::ENOMEM)?;
        Ok(Self {
            pages: Arc::new(pages),
            place: Mutex::new((def.map_extra != 0).then_some(Place { len })),
        })
    }
}

impl MapOps for Arena {
    fn update_elem(&self, _: u32, _: &[u8], _: &[u8], _: UpdateFlags) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn delete_elem(&self, _cpu: u32, _key: &[u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn push_elem(&self, _value: &[u8], _flags: UpdateFlags) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn pop_elem(&self, _value: &mut [u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn peek_elem(&self, _value: &mut [u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn user_lookup_elem(
        &self,
        _: &Caller<'_>,
        _: &[u8],
        _: &mut [u8],
        _: UpdateFlags,
    ) -> Result<()> {
        Err(Errno::EINVAL)
    }

    fn get_next_key(&self, _key: Option<&[u8]>, _next_key: &mut [u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn mappable(&self) -> Option<&Arc<Words>> {
        Some(&self.pages)
    }

    /// A second mapping could only be at the same address, and no caller here says one.
    ///
    /// Kernel: `arena_get_unmapped_area`.
    fn get_unmapped_area(&self, request: &MapRequest) -> Result<()> {
        if request.offset != 0 {
            return Err(Errno::EINVAL);
        }
        let len = request.len.next_multiple_of(PAGE_SIZE);
        match *self.place.lock() {
            Some(place) if len > place.len => Err(Errno::E2BIG),
            Some(_) => Err(Errno::EINVAL),
            None if len > MAX_LEN => Err(Errno::E2BIG),
            None => Ok(()),
        }
    }

    /// The first mapping settles where the arena is.
    ///
    /// Kernel: `arena_map_mmap`.
    fn mmap(&self, request: &MapRequest) -> Result<()> {
        let len = request.len.next_multiple_of(PAGE_SIZE);
        let mut place = self.place.lock();
        if place.is_some() {
            // Another thread was first.
            return Err(Errno::EBUSY);
        }
        *place = Some(Place { len });
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
