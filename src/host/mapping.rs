//! Memory of a map that is mapped into this process.
#![expect(
    unsafe_code,
    reason = "mmap(2), and memory that the kernel and programs write meanwhile"
)]

use std::ptr::NonNull;

use super::os::{checked, last_errno, raw};
use crate::abi::{Errno, Fd, MapRequest, Mapping, Prot, Result};

/// Bytes of a page.
const PAGE: usize = 4096;

const WORD: usize = size_of::<u64>();

/// A mapping; its bytes are only reached by copies.
#[derive(Debug)]
pub(super) struct Mapped {
    start: NonNull<u8>,
    /// As it was asked for; the kernel rounds up to pages.
    len: usize,
    prot: Prot,
}

// SAFETY: the memory belongs to the mapping, whichever thread has it.
unsafe impl Send for Mapped {}

fn bits(prot: Prot) -> libc::c_int {
    let bit = |on: bool, bit| if on { bit } else { libc::PROT_NONE };
    bit(prot.read, libc::PROT_READ)
        | bit(prot.write, libc::PROT_WRITE)
        | bit(prot.exec, libc::PROT_EXEC)
}

impl Mapped {
    pub(super) fn new(fd: Fd, request: MapRequest) -> Result<Self> {
        if request.is_past_the_end() {
            return Err(Errno::ENOMEM);
        }
        let MapRequest {
            addr,
            len,
            offset,
            prot,
            shared,
        } = request;
        let flags = if shared {
            libc::MAP_SHARED
        } else {
            libc::MAP_PRIVATE
        };
        let flags = if addr == 0 {
            flags
        } else {
            flags | libc::MAP_FIXED_NOREPLACE
        };
        let addr = usize::try_from(addr).map_err(|_| Errno::ENOMEM)?;
        let offset = libc::off_t::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
        // SAFETY: with an address or without, the kernel takes no place where something is.
        let start = unsafe {
            libc::mmap(
                std::ptr::without_provenance_mut(addr),
                len,
                bits(prot),
                flags,
                raw(fd),
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(last_errno());
        }
        let start = NonNull::new(start.cast()).expect("mmap(2) does not choose 0");
        Ok(Self { start, len, prot })
    }

    /// The place of those bytes, with its pages there.
    fn place(&self, offset: usize, len: usize, write: bool) -> Result<*mut u8> {
        let whole = self.len.next_multiple_of(PAGE);
        if offset > whole || len > whole - offset {
            return Err(Errno::EFAULT);
        }
        let place = self.start.as_ptr().wrapping_add(offset);
        if len == 0 {
            return Ok(place);
        }
        let first = offset / PAGE * PAGE;
        let page = self.start.as_ptr().wrapping_add(first).cast();
        let pages = (offset + len).next_multiple_of(PAGE) - first;
        let advice = if write {
            libc::MADV_POPULATE_WRITE
        } else {
            libc::MADV_POPULATE_READ
        };
        // SAFETY: the pages lie in the mapping (checked above); the advice changes no byte.
        let there = unsafe { libc::madvise(page, pages, advice) };
        match checked(i64::from(there)) {
            // Where an access would be a signal.
            Err(Errno::EFAULT | Errno::ENOMEM) => Err(Errno::EFAULT),
            // `EINVAL`: a kernel before 5.14, or special memory, which is there.
            _ => Ok(place),
        }
    }
}

/// Whether words can be copied as such: then they are not torn.
fn by_words(place: *mut u8, len: usize) -> bool {
    place.addr().is_multiple_of(WORD) && len.is_multiple_of(WORD)
}

impl Mapping for Mapped {
    fn addr(&self) -> u64 {
        self.start.as_ptr().addr() as u64
    }

    fn read(&self, offset: usize, out: &mut [u8]) -> Result<()> {
        // What can be written can be read, on this machine.
        if !self.prot.read && !self.prot.write {
            return Err(Errno::EFAULT);
        }
        // The kernel brings pages only for an access that the mapping has been asked for.
        let place = self.place(offset, out.len(), !self.prot.read)?;
        if by_words(place, out.len()) {
            for (index, word) in out.chunks_exact_mut(WORD).enumerate() {
                let from = place.cast::<u64>().wrapping_add(index);
                // SAFETY: the word lies in the mapping, readable (checked in `place`), and is aligned.
                let value = unsafe { from.read_volatile() };
                word.copy_from_slice(&value.to_ne_bytes());
            }
            return Ok(());
        }
        for (index, byte) in out.iter_mut().enumerate() {
            // SAFETY: the byte lies in the mapping, readable (checked in `place`).
            *byte = unsafe { place.wrapping_add(index).read_volatile() };
        }
        Ok(())
    }

    fn write(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        if !self.prot.write {
            return Err(Errno::EFAULT);
        }
        let place = self.place(offset, bytes.len(), true)?;
        if by_words(place, bytes.len()) {
            for (index, word) in bytes.as_chunks::<WORD>().0.iter().enumerate() {
                let to = place.cast::<u64>().wrapping_add(index);
                // SAFETY: the word lies in the mapping, writable (checked in `place`), and is aligned.
                unsafe { to.write_volatile(u64::from_ne_bytes(*word)) };
            }
            return Ok(());
        }
        for (index, byte) in bytes.iter().enumerate() {
            // SAFETY: the byte lies in the mapping, writable (checked in `place`).
            unsafe { place.wrapping_add(index).write_volatile(*byte) };
        }
        Ok(())
    }

    fn protect(&mut self, prot: Prot) -> Result<()> {
        let start = self.start.as_ptr().cast();
        // SAFETY: the whole mapping is ours; it is only reached by the copies above, which ask for its protection.
        let ret = unsafe { libc::mprotect(start, self.len, bits(prot)) };
        checked(i64::from(ret))?;
        self.prot = prot;
        Ok(())
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody reaches it any more.
        let ret = unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert_eq!(ret, 0, "it is mapped");
    }
}
