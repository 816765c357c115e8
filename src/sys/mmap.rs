//! mmap(2) of a file of a map, or of a perf event.
//!
//! Kernel: `kernel/bpf/syscall.c:bpf_map_mmap`, and the `map_mmap` of each type (v6.18).

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Kernel;
use super::fds::{Fds, OpenFile};
use super::files::{File, Held, MapUser};
use super::space::Area;
use crate::abi::{Errno, Fd, MapFlags, MapRequest, MapType, Mapping, Prot, Result, TASK_SIZE};
use crate::env::PAGE_SIZE;
use crate::map::Map;
use crate::map::object::{Object, OtherObject};
use crate::map::perf_event::Buffer;
use crate::store::{WORD, Words};

impl Kernel {
    /// mmap(2) of a caller with fds of its own; the mapping is read and written by calls.
    ///
    /// # Errors
    ///
    /// `EBADF`, and those of [`Kernel::grant_mmap`].
    ///
    /// Kernel: `arch/x86/kernel/sys_x86_64.c:mmap` (v6.18).
    pub fn mmap_in(&self, fds: &dyn Fds, fd: Fd, request: MapRequest) -> Result<Box<dyn Mapping>> {
        // Before the fd is looked at.
        if request.is_past_the_end() {
            return Err(Errno::ENOMEM);
        }
        first_page(&request)?;
        let file = self.call(fds).file(fd)?;
        let space = &self.inner.space;
        let (area, granted) = self.grant(&file, request, |start, len| space.take(start, len))?;
        Ok(Box::new(EmulatedMapping {
            granted,
            area,
            prot: request.prot,
        }))
    }

    /// mmap(2) of an open file, all but the mapping: the file layer's checks, then the map's. A front end maps
    /// [`Granted::pieces`] of [`Granted::memory`], at [`MapRequest::addr`] if there is one, and drops what it was granted when
    /// the mapping goes. Where else its process has room is not known here.
    ///
    /// # Errors
    ///
    /// `EINVAL` for an offset or a length that cannot be, `ENOMEM`; `EOVERFLOW` past the end of all files; `EACCES` for what the
    /// file cannot; `EPERM` for code; `ENODEV` if it is no map; `ENOTSUPP` if the map cannot be mapped; `EPERM` if it is frozen;
    /// those of its type.
    ///
    /// Kernel: `mm/mmap.c:do_mmap`, `kernel/bpf/syscall.c:bpf_map_mmap` (v6.18).
    pub fn grant_mmap(&self, file: &OpenFile, request: MapRequest) -> Result<Granted> {
        if request.is_past_the_end() {
            return Err(Errno::ENOMEM);
        }
        let granted = self.grant(&file.0, request, |_, _| Ok(()))?;
        Ok(granted.1)
    }

    /// What is granted, and what `place` answers to where the mapping is to be.
    fn grant<P>(
        &self,
        file: &File,
        request: MapRequest,
        place: impl FnOnce(u64, u64) -> Result<P>,
    ) -> Result<(P, Granted)> {
        let first_page = first_page(&request)?;
        let prot = request.prot;
        if request.len == 0 {
            return Err(Errno::EINVAL);
        }
        if request.len as u64 > TASK_SIZE {
            return Err(Errno::ENOMEM);
        }
        let pages = request.len.div_ceil(PAGE_SIZE);
        let end = first_page + pages as u64;
        let choosing = self.inner.space.choose();
        let addr = self.unmapped_area(&file.held, &request)?;
        let place = place(addr, (pages * PAGE_SIZE) as u64)?;
        drop(choosing);
        let request = MapRequest { addr, ..request };
        let len = (pages * PAGE_SIZE) as u64;
        if request.offset.checked_add(len).is_none() {
            return Err(Errno::EOVERFLOW);
        }
        if request.shared && prot.write && !file.write || !file.read {
            return Err(Errno::EACCES);
        }
        if prot.exec && self.inner.env.release.mmap_refuses_code {
            return Err(Errno::EPERM);
        }
        let map = match &file.held {
            Held::Map(MapUser(map)) => map,
            Held::Object(Object::Other(event)) => {
                return Ok((place, of_event(event, request, pages)?));
            }
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
            std::mem::forget(map.writers.begin(0));
        }
        let granted = Granted {
            of: Mapped::Map(Arc::clone(map)),
            words: Arc::clone(words),
            offset: usize::try_from(request.offset).map_err(|_| Errno::EINVAL)?,
            len: pages * PAGE_SIZE,
            writable: prot.write,
            // The kernel forgets to count an arena's mapping less when it goes.
            writer: prot.write && map.def.map_type != MapType::ARENA,
        };
        Ok((place, granted))
    }

    /// Where a new mapping is to be.
    ///
    /// Kernel: `mm/mmap.c:__get_unmapped_area`, `mm/mmap.c:do_mmap` (v6.18).
    fn unmapped_area(&self, held: &Held, request: &MapRequest) -> Result<u64> {
        let len = request.len.next_multiple_of(PAGE_SIZE) as u64;
        let room = |len| self.inner.space.room(len);
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
        Ok(start)
    }
}

/// # Errors
///
/// `EINVAL` if it does not begin at a page.
fn first_page(request: &MapRequest) -> Result<u64> {
    if !request.offset.is_multiple_of(PAGE_SIZE as u64) {
        return Err(Errno::EINVAL);
    }
    Ok(request.offset / PAGE_SIZE as u64)
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

/// The buffer of a perf event.
///
/// Kernel: `kernel/events/core.c:perf_mmap` (v6.18).
fn of_event(event: &Arc<OtherObject>, request: MapRequest, pages: usize) -> Result<Granted> {
    let of_event = event.perf_event().ok_or(Errno::ENODEV)?;
    if !request.shared || request.offset != 0 {
        return Err(Errno::EINVAL);
    }
    let buffer = of_event.map(pages - 1, request.prot.write)?;
    Ok(Granted {
        words: Arc::clone(buffer.words()),
        of: Mapped::Event {
            event: Arc::clone(event),
            _buffer: buffer,
        },
        offset: 0,
        len: pages * PAGE_SIZE,
        writable: true,
        writer: false,
    })
}

/// The type has memory that can be mapped, if the map was made so.
fn has_mmap(map: &Map) -> bool {
    matches!(
        map.def.map_type,
        MapType::ARRAY | MapType::RINGBUF | MapType::USER_RINGBUF | MapType::ARENA
    )
}

/// What a mapping is of, and keeps alive.
#[derive(Debug)]
enum Mapped {
    Map(Arc<Map>),
    /// A perf event; its buffer is there as long as it is mapped.
    Event {
        event: Arc<OtherObject>,
        _buffer: Arc<Buffer>,
    },
}

/// A mapping that the kernel allows, of a map's memory or a perf event's buffer. It keeps that alive; a map's that can be
/// written counts as a writer as long as it lives.
pub struct Granted {
    of: Mapped,
    words: Arc<Words>,
    /// Where it begins in the map's memory, in bytes.
    offset: usize,
    len: usize,
    /// It can be written, from the start or by mprotect(2).
    writable: bool,
    /// It counts as a writer.
    writer: bool,
}

impl Granted {
    /// Bytes of the mapping: whole pages.
    pub fn size(&self) -> usize {
        self.len
    }

    /// The pieces of the mapping in order: how many bytes, and where in the file of [`Granted::memory`] they begin. One, but
    /// for ring buffers: their data is in the file once, and in the mapping twice. Past the end of the file (the mapping of an
    /// arena can be longer) there is nothing to map.
    pub fn pieces(&self) -> Vec<(usize, u64)> {
        let mut pieces: Vec<(usize, u64)> = Vec::new();
        for page in self.offset / PAGE_SIZE..(self.offset + self.len) / PAGE_SIZE {
            let at = (self.page(page) * PAGE_SIZE) as u64;
            match pieces.last_mut() {
                Some((len, from)) if *from + *len as u64 == at => *len += PAGE_SIZE,
                _ => pieces.push((PAGE_SIZE, at)),
            }
        }
        pieces
    }

    /// The file to map. If the mapping is to be read only, the file is too, so that mprotect(2) answers as for a map.
    ///
    /// # Errors
    ///
    /// Those of the system.
    #[cfg(all(target_os = "linux", not(shuttle)))]
    pub fn memory(&self) -> std::io::Result<std::os::fd::OwnedFd> {
        use std::os::fd::AsRawFd;
        let file = self.words.file().ok_or(std::io::ErrorKind::Unsupported)?;
        if self.writable {
            return file.try_clone_to_owned();
        }
        let again = std::fs::File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        Ok(again.into())
    }

    /// Which page of the memory a page of the mapping is.
    fn page(&self, page: usize) -> usize {
        match &self.of {
            Mapped::Map(map) => map.ops.mapped_page(page),
            Mapped::Event { .. } => page,
        }
    }

    /// Bytes at the beginning that can be written, if any: of a perf event, the page of positions.
    pub fn write_end(&self) -> usize {
        match &self.of {
            Mapped::Map(_) => self.len,
            Mapped::Event { .. } => PAGE_SIZE,
        }
    }

    /// Only programs give pages to an arena with `BPF_F_SEGV_ON_FAULT`, and none does here.
    fn has_pages(&self) -> bool {
        match &self.of {
            Mapped::Map(map) => !map.def.map_flags.contains(MapFlags::SEGV_ON_FAULT),
            Mapped::Event { .. } => true,
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
            Some((self.page(at / PAGE_SIZE) * PAGE_SIZE + in_page, part))
        })
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        if let Mapped::Map(map) = &self.of
            && self.writer
        {
            map.writers.end(0);
        }
    }
}

impl fmt::Debug for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.of {
            Mapped::Map(map) => write!(f, "{} bytes of map {}", self.len, map.id),
            Mapped::Event { event, .. } => {
                write!(f, "{} bytes of perf event {}", self.len, event.id)
            }
        }
    }
}

/// A mapping that is read and written by calls.
#[derive(Debug)]
struct EmulatedMapping {
    granted: Granted,
    area: Area,
    prot: Prot,
}

impl EmulatedMapping {
    fn check(&self, offset: usize, len: usize, end: usize, allowed: bool) -> Result<()> {
        let inside = offset <= end && len <= end - offset;
        if inside && allowed && (len == 0 || self.granted.has_pages()) {
            Ok(())
        } else {
            Err(Errno::EFAULT)
        }
    }
}

impl Mapping for EmulatedMapping {
    fn addr(&self) -> u64 {
        self.area.start()
    }

    fn read(&self, offset: usize, out: &mut [u8]) -> Result<()> {
        // What can be written can be read, on this machine.
        let granted = &self.granted;
        let allowed = self.prot.read || self.prot.write;
        self.check(offset, out.len(), granted.len, allowed)?;
        for (at, part) in granted.parts(offset, out.len()) {
            granted.words.read_bytes(at, &mut out[part]);
        }
        Ok(())
    }

    fn write(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        let granted = &self.granted;
        self.check(offset, bytes.len(), granted.write_end(), self.prot.write)?;
        for (at, part) in granted.parts(offset, bytes.len()) {
            granted.words.write_bytes(at, &bytes[part]);
        }
        Ok(())
    }

    fn protect(&mut self, prot: Prot) -> Result<()> {
        if prot.exec || prot.write && !self.granted.writable {
            return Err(Errno::EACCES);
        }
        self.prot = prot;
        Ok(())
    }
}
