//! `BPF_MAP_TYPE_ARENA`: memory that a program and user space share, page by page; no elements.
//!
//! Kernel: `kernel/bpf/arena.c` (v6.18).

use std::any::Any;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::{Caller, MapDef, MapOps};
use crate::abi::{Errno, MapRequest, Result, UpdateFlags};
use crate::env::PAGE_SIZE;
use crate::store::{WORD, Words};

/// The longest mapping, and what no arena lies across a multiple of.
const MAX_LEN: usize = 1 << 32;

/// See the module.
#[derive(Debug)]
pub struct Arena {
    /// Bytes of `max_entries` pages.
    size: usize,
    /// Its pages, and those behind it that its mapping reaches. There are none before it is mapped.
    pages: OnceLock<Arc<Words>>,
    /// Where in user space the arena is, once that is settled: by `map_extra`, or by the first mapping.
    place: Mutex<Option<Place>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    start: u64,
    len: usize,
}

impl Arena {
    /// An arena without a page.
    ///
    /// Kernel: `arena_map_alloc`.
    pub(super) fn new(def: &MapDef) -> Self {
        let size = def.max_entries as usize * PAGE_SIZE;
        let place = Place {
            start: def.map_extra,
            len: size,
        };
        Self {
            size,
            pages: OnceLock::new(),
            place: Mutex::new((place.start != 0).then_some(place)),
        }
    }

    /// Where the arena begins in user space, if that is settled.
    pub fn user_vm_start(&self) -> Option<u64> {
        self.place.lock().map(|place| place.start)
    }
}

/// Moves a place up if it would lie across a multiple of 4 GiB.
fn in_one_piece(start: u64, len: usize) -> u64 {
    let last = start + (len as u64 - 1);
    if start >> 32 == last >> 32 {
        start
    } else {
        start.next_multiple_of(MAX_LEN as u64)
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
        self.pages.get()
    }

    /// Kernel: `arena_get_unmapped_area`.
    fn get_unmapped_area(
        &self,
        request: &MapRequest,
        room: &dyn Fn(usize) -> Result<u64>,
    ) -> Result<u64> {
        if request.offset != 0 {
            return Err(Errno::EINVAL);
        }
        let len = request.len.next_multiple_of(PAGE_SIZE);
        let asked = Place {
            start: request.addr,
            len,
        };
        match *self.place.lock() {
            Some(place) if len > place.len => Err(Errno::E2BIG),
            Some(place) if asked != place => Err(Errno::EINVAL),
            Some(place) => Ok(place.start),
            None if len > MAX_LEN => Err(Errno::E2BIG),
            None if request.addr != 0 => Ok(in_one_piece(request.addr, len)),
            None => Ok(in_one_piece(room(2 * len)?, len)),
        }
    }

    /// The first mapping settles where the arena is.
    ///
    /// Kernel: `arena_map_mmap`.
    fn mmap(&self, request: &MapRequest) -> Result<()> {
        let asked = Place {
            start: request.addr,
            len: request.len.next_multiple_of(PAGE_SIZE),
        };
        let mut place = self.place.lock();
        if place.is_some_and(|place| place != asked) {
            return Err(Errno::EBUSY);
        }
        if self.pages.get().is_none() {
            // A mapping has pages behind the arena's last one too.
            let len = asked.len.max(self.size);
            let pages = Words::in_file(len / WORD).map_err(|_| Errno::ENOMEM)?;
            self.pages
                .set(Arc::new(pages))
                .expect("nobody else has the lock");
        }
        *place = Some(asked);
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
