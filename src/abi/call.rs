//! What a caller of bpf(2) has to do with: the trait [`Bpf`], and the memory that its addresses point into.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Cmd, Errno, PAGE_SIZE, PerfEvent, PollEvents, Result, UpdateFlags};

/// A file descriptor, as attrs hold it.
pub type Fd = u32;

/// Memory that the addresses in an attr point into.
///
/// The same code serves the buffers of one call ([`Memory`]), this process, another process, or a fuzzer's bytes.
pub trait UserMem {
    /// Copies `out.len()` bytes from `addr` on; none from any address, null too.
    ///
    /// # Errors
    ///
    /// `EFAULT` if any of them is not readable.
    fn read(&self, addr: u64, out: &mut [u8]) -> Result<()>;

    /// Copies `bytes` to `addr`.
    ///
    /// # Errors
    ///
    /// `EFAULT` if any of them is not writable; those before it are written.
    fn write(&mut self, addr: u64, bytes: &[u8]) -> Result<()>;

    /// False if it is known that a write of so many bytes would fail: who has many to write goes by small steps then, as the
    /// kernel does, to fail at the right one.
    fn may_write(&self, _addr: u64, _len: usize) -> bool {
        true
    }
}

/// A kernel that answers bpf(2): the emulated one, the running one, or something that wraps either.
///
/// Safe whatever the attr holds: its addresses reach the buffers of `mem` and nothing else, on every kernel.
pub trait Bpf: Send + Sync {
    /// One call of bpf(2): `attr` is the address in `mem` of `size` bytes of `union bpf_attr`.
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    fn bpf(&self, cmd: Cmd, attr: u64, size: u32, mem: &mut Memory<'_>) -> Result<u32>;

    /// mmap(2) of an fd of this kernel.
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    fn mmap(&self, fd: Fd, request: MapRequest) -> Result<Box<dyn Mapping>>;

    /// close(2).
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open.
    fn close(&self, fd: Fd) -> Result<()>;

    /// perf_event_open(2): the event's fd.
    ///
    /// # Errors
    ///
    /// What the kernel answers: `EINVAL` if there is no such CPU; `ENOSYS` from one without perf events.
    fn perf_event_open(&self, _event: PerfEvent) -> Result<Fd> {
        Err(Errno::ENOSYS)
    }

    /// poll(2) of one file, all events asked for: waits until there is one, or the time is over (never, without one), which is
    /// no event. A file without events has one at once (`ERR`).
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open; `ENOSYS` from a kernel that cannot wait.
    fn poll(&self, _fd: Fd, _timeout: Option<Duration>) -> Result<PollEvents> {
        Err(Errno::ENOSYS)
    }

    /// The map behind an fd, for calls without an attr; none where each call has to be made with one.
    fn map_handle(&self, _fd: Fd) -> Option<Box<dyn MapHandle>> {
        None
    }

    /// Number of possible CPUs: a per-CPU value has one part for each.
    fn nr_cpus(&self) -> u32;

    /// The same kernel, called on that CPU.
    fn on_cpu(&self, cpu: u32) -> Box<dyn Bpf>;
}

/// A kernel that is shared, of whichever kind.
impl<B: Bpf + ?Sized> Bpf for Arc<B> {
    fn bpf(&self, cmd: Cmd, attr: u64, size: u32, mem: &mut Memory<'_>) -> Result<u32> {
        (**self).bpf(cmd, attr, size, mem)
    }

    fn mmap(&self, fd: Fd, request: MapRequest) -> Result<Box<dyn Mapping>> {
        (**self).mmap(fd, request)
    }

    fn close(&self, fd: Fd) -> Result<()> {
        (**self).close(fd)
    }

    fn perf_event_open(&self, event: PerfEvent) -> Result<Fd> {
        (**self).perf_event_open(event)
    }

    fn poll(&self, fd: Fd, timeout: Option<Duration>) -> Result<PollEvents> {
        (**self).poll(fd, timeout)
    }

    fn map_handle(&self, fd: Fd) -> Option<Box<dyn MapHandle>> {
        (**self).map_handle(fd)
    }

    fn nr_cpus(&self) -> u32 {
        (**self).nr_cpus()
    }

    fn on_cpu(&self, cpu: u32) -> Box<dyn Bpf> {
        (**self).on_cpu(cpu)
    }
}

/// A map behind an fd that was looked up once: the element commands, without an attr and the caller's memory.
///
/// Keys and values have the map's sizes ([`EFAULT`](Errno::EFAULT) if they are shorter); answers are those of bpf(2). Room for an
/// answer may be written even if there is none: when an element goes while it is read.
pub trait MapHandle: Send + Sync + fmt::Debug {
    /// `BPF_MAP_LOOKUP_ELEM`
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    fn lookup_elem(&self, key: &[u8], value: &mut [u8], flags: UpdateFlags) -> Result<()>;

    /// `BPF_MAP_UPDATE_ELEM`
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    fn update_elem(&self, key: &[u8], value: &[u8], flags: UpdateFlags) -> Result<()>;

    /// `BPF_MAP_DELETE_ELEM`
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    fn delete_elem(&self, key: &[u8]) -> Result<()>;

    /// `BPF_MAP_LOOKUP_AND_DELETE_ELEM`
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    fn lookup_and_delete_elem(
        &self,
        key: &[u8],
        value: &mut [u8],
        flags: UpdateFlags,
    ) -> Result<()>;

    /// `BPF_MAP_GET_NEXT_KEY`
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    fn get_next_key(&self, key: Option<&[u8]>, next_key: &mut [u8]) -> Result<()>;
}

/// Protection of a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Prot {
    /// `PROT_READ`
    pub read: bool,
    /// `PROT_WRITE`
    pub write: bool,
    /// `PROT_EXEC`
    pub exec: bool,
}

/// The end of a process's memory, on x86-64.
pub(crate) const TASK_SIZE: u64 = (1 << 47) - PAGE_SIZE as u64;

/// The arguments of mmap(2) that a map judges.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MapRequest {
    /// Where it is to be, and nowhere else, unless something is there already (`MAP_FIXED_NOREPLACE`); 0: anywhere.
    ///
    /// Past the end of a process's memory it is `ENOMEM` before anything else: the kernel would put an arena at 0 then, where
    /// null pointers point.
    pub addr: u64,
    /// Length in bytes.
    pub len: usize,
    /// Offset in bytes, a multiple of the page size.
    pub offset: u64,
    /// Protection.
    pub prot: Prot,
    /// `MAP_SHARED`, else `MAP_PRIVATE`.
    pub shared: bool,
}

impl MapRequest {
    /// It is to be past the end of a process's memory.
    pub(crate) fn is_past_the_end(&self) -> bool {
        let end = self.addr.saturating_add(self.len as u64);
        self.addr != 0 && end > TASK_SIZE
    }

    /// A shared mapping that can be read, and perhaps written.
    pub const fn shared(offset: u64, len: usize, write: bool) -> Self {
        Self {
            addr: 0,
            len,
            offset,
            prot: Prot {
                read: true,
                write,
                exec: false,
            },
            shared: true,
        }
    }
}

/// A mapping of a map's memory; munmap(2) when dropped.
pub trait Mapping: Send + fmt::Debug {
    /// Where it begins in the process's memory. An emulated mapping has an address of its own too, but no memory there.
    fn addr(&self) -> u64;

    /// Copies bytes out, from `offset` in the mapping on.
    ///
    /// # Errors
    ///
    /// `EFAULT` where a real access would be a signal: outside, or not readable.
    fn read(&self, offset: usize, out: &mut [u8]) -> Result<()>;

    /// Copies bytes in, from `offset` in the mapping on.
    ///
    /// # Errors
    ///
    /// `EFAULT` where a real access would be a signal: outside, or not writable.
    fn write(&self, offset: usize, bytes: &[u8]) -> Result<()>;

    /// mprotect(2) of the whole mapping.
    ///
    /// # Errors
    ///
    /// `EACCES` if it can never be made writable.
    fn protect(&mut self, prot: Prot) -> Result<()>;
}

/// The buffers of one call, each with an address that can be put in the attr.
///
/// Nothing else is mapped: any other address, and every byte past a buffer's end, is `EFAULT`.
#[derive(Default)]
pub struct Memory<'a> {
    /// The first buffers; those past `len` are empty and have no address.
    first: [Buffer<'a>; 6],
    /// Number of buffers.
    len: usize,
    /// Those that the first places have no room for: only odd calls have so many.
    more: Vec<Buffer<'a>>,
}

enum Buffer<'a> {
    In(&'a [u8]),
    Out(&'a mut [u8]),
}

impl Default for Buffer<'_> {
    fn default() -> Self {
        Self::In(&[])
    }
}

impl<'a> Memory<'a> {
    /// Addresses of buffers begin here; no process of a 64-bit Linux has memory there.
    pub const BASE: u64 = 0x6d61_0000_0000_0000;

    /// The bits of an address that are the offset in its buffer.
    const OFFSET_BITS: u32 = 32;

    /// Memory with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes that can only be read; gives their address.
    pub fn input(&mut self, bytes: &'a [u8]) -> u64 {
        self.add(Buffer::In(bytes))
    }

    /// Adds bytes that can be read and written; gives their address.
    pub fn output(&mut self, bytes: &'a mut [u8]) -> u64 {
        self.add(Buffer::Out(bytes))
    }

    fn add(&mut self, buffer: Buffer<'a>) -> u64 {
        match self.first.get_mut(self.len) {
            Some(place) => *place = buffer,
            None => self.more.push(buffer),
        }
        self.len += 1;
        // The number is small, so nothing is lost.
        Self::BASE + ((self.len as u64) << Self::OFFSET_BITS)
    }

    /// The buffers in the order they were added: their address, their bytes, and whether those can be written.
    pub fn buffers(&mut self) -> impl Iterator<Item = (u64, BufferBytes<'_>)> {
        let Self { first, len, more } = self;
        first
            .iter_mut()
            .take(*len)
            .chain(more)
            .zip(1_u64..)
            .map(|(buffer, number)| {
                let bytes = match buffer {
                    Buffer::In(bytes) => BufferBytes::In(bytes),
                    Buffer::Out(bytes) => BufferBytes::Out(bytes),
                };
                (Self::BASE + (number << Self::OFFSET_BITS), bytes)
            })
    }

    fn buffer(&self, index: usize) -> Option<&Buffer<'a>> {
        match index.checked_sub(self.first.len()) {
            None => self.first.get(index).filter(|_| index < self.len),
            Some(index) => self.more.get(index),
        }
    }

    /// Buffer and range of the bytes at an address, if they lie in one buffer.
    fn find(&self, addr: u64, len: usize) -> Result<(usize, std::ops::Range<usize>)> {
        let from_base = addr.wrapping_sub(Self::BASE);
        let number = usize::try_from(from_base >> Self::OFFSET_BITS).map_err(|_| Errno::EFAULT)?;
        let index = number.wrapping_sub(1);
        let buffer = self.buffer(index).ok_or(Errno::EFAULT)?;
        let size = match buffer {
            Buffer::In(bytes) => bytes.len(),
            Buffer::Out(bytes) => bytes.len(),
        };
        let start = usize::try_from(from_base & ((1 << Self::OFFSET_BITS) - 1))
            .map_err(|_| Errno::EFAULT)?;
        if start > size || len > size - start {
            return Err(Errno::EFAULT);
        }
        Ok((index, start..start + len))
    }
}

/// The bytes of one buffer of a [`Memory`].
#[derive(Debug)]
pub enum BufferBytes<'a> {
    /// Can only be read.
    In(&'a [u8]),
    /// Can be read and written.
    Out(&'a mut [u8]),
}

impl UserMem for Memory<'_> {
    fn read(&self, addr: u64, out: &mut [u8]) -> Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        let (index, range) = self.find(addr, out.len())?;
        let bytes = match self.buffer(index).ok_or(Errno::EFAULT)? {
            Buffer::In(bytes) => *bytes,
            Buffer::Out(bytes) => bytes,
        };
        out.copy_from_slice(&bytes[range]);
        Ok(())
    }

    fn may_write(&self, addr: u64, len: usize) -> bool {
        self.find(addr, len)
            .is_ok_and(|(index, _)| matches!(self.buffer(index), Some(Buffer::Out(_))))
    }

    fn write(&mut self, addr: u64, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        // As far as the buffer goes.
        let (index, room) = self.find(addr, 0)?;
        let places = self.first.len();
        let buffer = match index.checked_sub(places) {
            None => &mut self.first[index],
            Some(index) => &mut self.more[index],
        };
        match buffer {
            Buffer::In(_) => Err(Errno::EFAULT),
            Buffer::Out(out) => {
                let out = &mut out[room.start..];
                let len = bytes.len().min(out.len());
                out[..len].copy_from_slice(&bytes[..len]);
                if len == bytes.len() {
                    Ok(())
                } else {
                    Err(Errno::EFAULT)
                }
            }
        }
    }
}

impl fmt::Debug for Memory<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory of {} buffers", self.len)
    }
}
