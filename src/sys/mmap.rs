//! mmap(2) of a map's file.
//!
//! Kernel: `kernel/bpf/syscall.c:bpf_map_mmap`, and the `map_mmap` of each type (v6.18).

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Kernel;
use super::files::{Held, MapUser};
use super::space::Area;
use crate::abi::{Errno, Fd, MapFlags, MapRequest, MapType, Mapping, Prot, Result, TASK_SIZE};
use crate::env::PAGE_SIZE;
use crate::map::Map;
use crate::store::{WORD, Words};

impl Kernel {
    /// The file layer's checks, then the map's.
    ///
    /// Kernel: `arch/x86/kernel/sys_x86_64.c:mmap`, `mm/mmap.c:do_mmap` (v6.18).
    pub(super) fn map_memory(&self, fd: Fd, request: MapRequest) -> Result<Box<dyn Mapping>> {
        if request.is_past_the_end() {
            return Err(Errno::ENOMEM);
        }
        if !request.offset.is_multiple_of(PAGE_SIZE as u64) {
            return Err(Errno::EINVAL);
        }
        let file = self.inner.files.get(fd)?;
        let prot = request.prot;
        if request.len == 0 {
            return Err(Errno::EINVAL);
        }
        if request.len as u64 > TASK_SIZE {
            return Err(Errno::ENOMEM);
        }
        let pages = request.len.div_ceil(PAGE_SIZE);
        let end = request.offset / PAGE_SIZE as u64 + pages as u64;
        let area = self.area(&file.held, &request)?;
        let request = MapRequest {
            addr: area.start(),
            ..request
        };
        if request.shared && prot.write && !file.write || !file.read {
            return Err(Errno::EACCES);
        }
        if prot.exec {
            return Err(Errno::EPERM);
        }
        let map = match &file.held {
            Held::Map(MapUser(map)) => map,
            Held::Link(_) | Held::Object(_) => return Err(Errno::ENODEV),
        };
        let _freezing = self.inner.freezing.lock();
        // A file that cannot write has no shared mappings.
        of_map(map, request, end, request.shared && file.write)?;
        let words = map.ops.mappable();
        let words = words.ok_or_else(|| {
            let map_type = map.def.map_type;
            let what = format_args!("mmap of maps of type {map_type}");
            self.inner.env.unsupported(what)
        })?;
        if prot.write {
            map.writers.fetch_add(1, Ordering::AcqRel);
        }
        Ok(Box::new(EmulatedMapping {
            area,
            map: Arc::clone(map),
            words: Arc::clone(words),
            offset: usize::try_from(request.offset).map_err(|_| Errno::EINVAL)?,
            len: pages * PAGE_SIZE,
            prot,
            writable: prot.write,
            // The kernel forgets to count an arena's mapping less when it goes.
            writer: prot.write && map.def.map_type != MapType::ARENA,
        }))
    }
}

impl Kernel {
    /// The place of a new mapping.
    ///
    /// Kernel: `mm/mmap.c:__get_unmapped_area`, `mm/mmap.c:do_mmap` (v6.18).
    fn area(&self, held: &Held, request: &MapRequest) -> Result<Area> {
        let len = request.len.next_multiple_of(PAGE_SIZE) as u64;
        let space = &self.inner.space;
        let room = |len| space.room(len);
        let start = match (held, request.addr) {
            (Held::Map(MapUser(map)), _) => map.ops.get_unmapped_area(request, &room)?,
            (_, 0) => room(request.len)?,
            (_, addr) => addr,
        };
        if start > TASK_SIZE - len {
            return Err(Errno::ENOMEM);
        }
        if !start.is_multiple_of(PAGE_SIZE as u64) {
            return Err(Errno::EINVAL);
        }
        space.take(start, len)
    }
}

/// What the map checks: `end` is the first page after the mapping.
fn of_map(map: &Map, request: MapRequest, end: u64, shared: bool) -> Result<()> {
    let write = request.prot.write;
    if !has_mmap(map) || !map.fields.0.is_empty() {
        return Err(Errno::ENOTSUPP);
    }
    if !shared {
        return Err(Errno::EINVAL);
    }
    if write {
        if map.frozen.load(Ordering::Acquire) {
            return Err(Errno::EPERM);
        }
        if map.def.map_flags.contains(MapFlags::RDONLY_PROG) {
            return Err(Errno::EACCES);
        }
    }
    if map.def.map_type != MapType::ARRAY {
        return map.ops.mmap(&request);
    }
    let size = map.ops.mappable().map_or(0, |words| words.len() * WORD);
    if end > size.div_ceil(PAGE_SIZE) as u64 {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// The type has memory that can be mapped, if the map was made so.
fn has_mmap(map: &Map) -> bool {
    matches!(
        map.def.map_type,
        MapType::ARRAY | MapType::RINGBUF | MapType::USER_RINGBUF | MapType::ARENA
    )
}

/// A mapping of a map's memory. It keeps the map alive; made writable, it counts as a writer as long as it lives.
struct EmulatedMapping {
    area: Area,
    map: Arc<Map>,
    words: Arc<Words>,
    /// Where it begins in the words, in bytes.
    offset: usize,
    len: usize,
    prot: Prot,
    /// It was made writable.
    writable: bool,
    /// It counts as a writer.
    writer: bool,
}

impl EmulatedMapping {
    /// Only programs give pages to an arena with `BPF_F_SEGV_ON_FAULT`, and none does here.
    fn check(&self, offset: usize, len: usize, allowed: bool) -> Result<()> {
        let inside = offset <= self.len && len <= self.len - offset;
        let no_pages = || self.map.def.map_flags.contains(MapFlags::SEGV_ON_FAULT);
        if inside && allowed && (len == 0 || !no_pages()) {
            Ok(())
        } else {
            Err(Errno::EFAULT)
        }
    }

    /// The parts of an access that lie in one page each: where in the words, in bytes, and which part.
    fn parts(&self, offset: usize, len: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
        let mut done = 0;
        std::iter::from_fn(move || {
            let rest = len.checked_sub(done).filter(|&rest| rest > 0)?;
            let at = self.offset + offset + done;
            let in_page = at % PAGE_SIZE;
            let part = done..done + rest.min(PAGE_SIZE - in_page);
            done = part.end;
            let page = self.map.ops.mapped_page(at / PAGE_SIZE);
            Some((page * PAGE_SIZE + in_page, part))
        })
    }
}

impl Mapping for EmulatedMapping {
    fn addr(&self) -> u64 {
        self.area.start()
    }

    fn read(&self, offset: usize, out: &mut [u8]) -> Result<()> {
        // What can be written can be read, on this machine.
        self.check(offset, out.len(), self.prot.read || self.prot.write)?;
        for (at, part) in self.parts(offset, out.len()) {
            self.words.read_bytes(at, &mut out[part]);
        }
        Ok(())
    }

    fn write(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        self.check(offset, bytes.len(), self.prot.write)?;
        for (at, part) in self.parts(offset, bytes.len()) {
            self.words.write_bytes(at, &bytes[part]);
        }
        Ok(())
    }

    fn protect(&mut self, prot: Prot) -> Result<()> {
        if prot.exec || prot.write && !self.writable {
            return Err(Errno::EACCES);
        }
        self.prot = prot;
        Ok(())
    }
}

impl Drop for EmulatedMapping {
    fn drop(&mut self) {
        if self.writer {
            self.map.writers.fetch_sub(1, Ordering::Release);
        }
    }
}

impl fmt::Debug for EmulatedMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of map {}", self.len, self.map.id)
    }
}
