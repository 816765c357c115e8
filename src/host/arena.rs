//! Memory of one call, as the kernel sees it: each buffer ends where unmapped memory begins.
//!
//! A [`Lane`] is memory that is there twice: once to be written, once to be read only, each with a page behind it that is
//! not mapped. A buffer lies at the end of its lane; the kernel gets the address that fits what it may do. Lanes belong to
//! a thread and are used again by its next call.
#![expect(unsafe_code, reason = "memory that is shared with the kernel")]

use std::cell::RefCell;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use super::os::{checked, last_errno, owned};
use crate::abi::{BufferBytes, Memory, Result};

/// Bytes of a page.
const PAGE: usize = 4096;

/// An address that is never mapped, and is not 0.
const NEVER_MAPPED: u64 = 16;

/// Bytes of a lane at least: what most calls need.
const LEAST: usize = 16 << 10;

thread_local! {
    static ARENA: RefCell<Arena> = const { RefCell::new(Arena { lanes: Vec::new() }) };
}

/// The lanes of one thread.
#[derive(Debug)]
pub(super) struct Arena {
    lanes: Vec<Lane>,
}

/// Memory for one buffer, mapped twice.
#[derive(Debug)]
struct Lane {
    /// The whole: to be written, a page, to be read, a page.
    start: NonNull<u8>,
    /// Bytes of one of the two.
    len: usize,
}

impl Lane {
    fn new(least: usize) -> Result<Self> {
        let len = least.next_power_of_two().max(LEAST);
        // SAFETY: the name is a C string; a new fd comes back.
        let fd = owned(i64::from(unsafe {
            libc::memfd_create(c"mapemu".as_ptr(), libc::MFD_CLOEXEC)
        }))?;
        let size = libc::off_t::try_from(len).expect("a buffer is shorter than all memory");
        // SAFETY: the fd is open; no memory is involved.
        checked(i64::from(unsafe { libc::ftruncate(fd.as_raw_fd(), size) }))?;
        let none = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: without an address, the kernel chooses a place where nothing is.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                2 * (len + PAGE),
                libc::PROT_NONE,
                none,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(last_errno());
        }
        let start = NonNull::new(start.cast::<u8>()).expect("mmap(2) does not choose 0");
        // From here on the lane unmaps itself.
        let lane = Self { start, len };
        let shared = libc::MAP_SHARED | libc::MAP_FIXED;
        for (at, prot) in [
            (0, libc::PROT_READ | libc::PROT_WRITE),
            (len + PAGE, libc::PROT_READ),
        ] {
            let place = lane.start.as_ptr().wrapping_add(at).cast();
            // SAFETY: the place lies in what was reserved above, which nobody uses yet.
            let mapped = unsafe { libc::mmap(place, len, prot, shared, fd.as_raw_fd(), 0) };
            if mapped == libc::MAP_FAILED {
                return Err(last_errno());
            }
        }
        Ok(lane)
    }

    /// Where a buffer of that length lies, for this process.
    fn place(&self, len: usize) -> *mut u8 {
        assert!(len <= self.len, "the lane was made long enough");
        self.start.as_ptr().wrapping_add(self.len - len)
    }

    /// The address of the page behind the memory: nothing is mapped there.
    fn behind(&self) -> u64 {
        self.start.as_ptr().wrapping_add(self.len).addr() as u64
    }

    fn put(&self, bytes: &[u8]) {
        // SAFETY: `place` has checked that the lane has room for them; the lane is this thread's, so nobody else uses it,
        // and `bytes` lie elsewhere.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.place(bytes.len()), bytes.len());
        }
    }

    fn get(&self, len: usize, at: usize, out: &mut [u8]) {
        assert!(at <= len && out.len() <= len - at, "inside of the buffer");
        let from = self.place(len).wrapping_add(at);
        // SAFETY: the bytes lie in the lane (checked here and in `place`), which is this thread's; no call is going on, so
        // the kernel does not write them.
        unsafe { std::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), out.len()) };
    }

    fn set(&self, len: usize, at: usize, bytes: &[u8]) {
        assert!(at <= len && bytes.len() <= len - at, "inside of the buffer");
        let to = self.place(len).wrapping_add(at);
        // SAFETY: as in `get`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // SAFETY: the lane's own mappings, which nobody uses any more.
        let ret = unsafe { libc::munmap(self.start.as_ptr().cast(), 2 * (self.len + PAGE)) };
        debug_assert_eq!(ret, 0, "the lane is mapped");
    }
}

/// A buffer of the call that goes on.
#[derive(Clone, Copy, Debug)]
struct Placed {
    /// Its address in [`Memory`].
    addr: u64,
    len: usize,
    writable: bool,
}

/// An address in a buffer that was replaced by another.
#[derive(Clone, Copy, Debug)]
struct Changed {
    buffer: usize,
    at: usize,
    /// Bytes of it that lie in what the kernel reads.
    len: usize,
    was: [u8; 8],
    is: [u8; 8],
}

/// The buffers of one call, in lanes.
#[derive(Debug)]
pub(super) struct Call<'a> {
    lanes: &'a [Lane],
    placed: Vec<Placed>,
    changed: Vec<Changed>,
}

/// Puts the buffers of `mem` in lanes, has `call` make the call, and copies back what can be written.
///
/// # Errors
///
/// `ENOMEM` if there is no memory for the lanes; else what `call` returns.
pub(super) fn with_buffers(
    mem: &mut Memory<'_>,
    call: impl FnOnce(&mut Call<'_>) -> Result<u32>,
) -> Result<u32> {
    ARENA.with_borrow_mut(|arena| {
        let mut placed = Vec::with_capacity(8);
        for (index, (addr, bytes)) in mem.buffers().enumerate() {
            let (bytes, writable): (&[u8], bool) = match bytes {
                BufferBytes::In(bytes) => (bytes, false),
                BufferBytes::Out(bytes) => (bytes, true),
            };
            arena.make_room(index, bytes.len())?;
            arena.lanes[index].put(bytes);
            placed.push(Placed {
                addr,
                len: bytes.len(),
                writable,
            });
        }
        // A page behind a lane stands for every address that is no buffer's.
        arena.make_room(0, 0)?;
        let mut call_of = Call {
            lanes: &arena.lanes,
            placed,
            changed: Vec::new(),
        };
        let answer = call(&mut call_of);
        call_of.put_addresses_back();
        let Call { lanes, placed, .. } = call_of;
        for ((_, bytes), (lane, placed)) in mem.buffers().zip(lanes.iter().zip(&placed)) {
            if let BufferBytes::Out(bytes) = bytes {
                lane.get(placed.len, 0, bytes);
            }
        }
        answer
    })
}

impl Arena {
    /// The lane of that number has room for so many bytes.
    fn make_room(&mut self, index: usize, len: usize) -> Result<()> {
        match self.lanes.get_mut(index) {
            Some(lane) if lane.len >= len => {}
            Some(lane) => *lane = Lane::new(len)?,
            None => self.lanes.push(Lane::new(len)?),
        }
        Ok(())
    }
}

impl Call<'_> {
    /// Buffer and offset of an address of [`Memory`]; the byte behind the last one counts.
    pub(super) fn find(&self, addr: u64) -> Option<(usize, usize)> {
        self.placed.iter().enumerate().find_map(|(index, placed)| {
            let at = usize::try_from(addr.checked_sub(placed.addr)?).ok()?;
            (at <= placed.len).then_some((index, at))
        })
    }

    /// Bytes of a buffer, from an offset on.
    pub(super) fn rest(&self, buffer: usize, at: usize) -> usize {
        self.placed[buffer].len - at
    }

    /// Bytes of a buffer.
    pub(super) fn bytes(&self, buffer: usize, at: usize, out: &mut [u8]) {
        self.lanes[buffer].get(self.placed[buffer].len, at, out);
    }

    /// The address that the kernel gets for one of [`Memory`]'s: a small one stays, one of no buffer is not mapped.
    pub(super) fn real(&self, addr: u64) -> u64 {
        if addr < PAGE as u64 {
            return addr;
        }
        let Some((buffer, at)) = self.find(addr) else {
            return self.lanes[0].behind();
        };
        let (lane, placed) = (&self.lanes[buffer], &self.placed[buffer]);
        let place = lane.place(placed.len).addr() + at;
        let read_only = if placed.writable { 0 } else { lane.len + PAGE };
        (place + read_only) as u64
    }

    /// Puts the real address in place of the one that lies in a buffer, and gives that. Of an address that is cut off after
    /// `given` bytes the kernel fills in zeros: if that could be mapped, a part of one comes there that is not.
    pub(super) fn make_real(&mut self, buffer: usize, at: usize, given: usize) -> u64 {
        let len = given.min(8);
        let mut was = [0; 8];
        self.bytes(buffer, at, &mut was[..len]);
        let addr = u64::from_ne_bytes(was);
        let real = match len {
            8 => self.real(addr),
            _ => addr.min(NEVER_MAPPED),
        };
        if real != addr {
            let is = real.to_ne_bytes();
            self.lanes[buffer].set(self.placed[buffer].len, at, &is[..len]);
            self.changed.push(Changed {
                buffer,
                at,
                len,
                was,
                is,
            });
        }
        addr
    }

    /// The caller finds its own addresses again, unless the kernel wrote something else there. The last change goes first:
    /// where an info lies in the attr itself, one word may have been changed twice.
    fn put_addresses_back(&self) {
        for &Changed {
            buffer,
            at,
            len,
            was,
            is,
        } in self.changed.iter().rev()
        {
            let mut bytes = [0; 8];
            self.bytes(buffer, at, &mut bytes[..len]);
            if bytes[..len] == is[..len] {
                self.lanes[buffer].set(self.placed[buffer].len, at, &was[..len]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_was_changed_twice_is_put_back() {
        let addr = 0x1234_5678_9abc_u64;
        let mut buffer = addr.to_ne_bytes();
        let mut mem = Memory::new();
        mem.output(&mut buffer);
        let answer = with_buffers(&mut mem, |call| {
            assert_eq!(call.make_real(0, 0, 8), addr);
            // The same bytes again, from another byte on.
            call.make_real(0, 1, 7);
            Ok(0)
        });
        assert_eq!(answer, Ok(0));
        assert_eq!(buffer, addr.to_ne_bytes());
    }
}
