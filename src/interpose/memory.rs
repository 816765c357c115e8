//! This process's memory, at the addresses that a caller of bpf(2) gives.
#![expect(unsafe_code, reason = "addresses that come from outside")]

use std::ptr;

use crate::abi::{Errno, PAGE_SIZE, Result, UserMem};

/// The end of a process's memory.
const TASK_SIZE: u64 = if cfg!(target_arch = "aarch64") {
    1 << 48
} else {
    1 << 47
};

/// See the module. In debug builds a wrong address is `EFAULT`; in others it is a signal, unless it is that of no memory of
/// any process, as null.
#[derive(Debug)]
pub(super) struct ProcessMem(());

impl ProcessMem {
    /// # Safety
    ///
    /// As for a system call: no address that is used for writing is that of memory which Rust says does not change.
    pub(super) unsafe fn new() -> Self {
        Self(())
    }
}

/// # Errors
///
/// `EFAULT` where no process has memory.
fn plausible(addr: u64, len: usize) -> Result<usize> {
    let end = addr.checked_add(len as u64);
    if addr < PAGE_SIZE as u64 || end.is_none_or(|end| end > TASK_SIZE) {
        return Err(Errno::EFAULT);
    }
    usize::try_from(addr).map_err(|_| Errno::EFAULT)
}

/// What the kernel copied: all of it, or there is something that it may not touch.
fn copied(ret: isize, len: usize) -> Option<Result<()>> {
    match usize::try_from(ret) {
        Ok(copied) if copied == len => Some(Ok(())),
        Ok(_) => Some(Err(Errno::EFAULT)),
        Err(_) if std::io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT) => {
            Some(Err(Errno::EFAULT))
        }
        // Some sandboxes do not allow it at all.
        Err(_) => None,
    }
}

impl UserMem for ProcessMem {
    #[inline]
    fn read(&self, addr: u64, out: &mut [u8]) -> Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        let from = plausible(addr, out.len())?;
        if cfg!(debug_assertions)
            && let Some(done) = copy_in(from, out)
        {
            return done;
        }
        let from = ptr::with_exposed_provenance::<u8>(from);
        // SAFETY: by the contract of `new`, the caller says that there is memory; `out` is the emulator's own.
        unsafe { ptr::copy_nonoverlapping(from, out.as_mut_ptr(), out.len()) };
        Ok(())
    }

    #[inline]
    fn write(&mut self, addr: u64, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let to = plausible(addr, bytes.len())?;
        if cfg!(debug_assertions)
            && let Some(done) = copy_out(to, bytes)
        {
            return done;
        }
        let to = ptr::with_exposed_provenance_mut::<u8>(to);
        // SAFETY: by the contract of `new`, the caller says that there is memory which may be written.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }
}

fn copy_in(from: usize, out: &mut [u8]) -> Option<Result<()>> {
    let here = libc::iovec {
        iov_base: out.as_mut_ptr().cast(),
        iov_len: out.len(),
    };
    let there = libc::iovec {
        iov_base: ptr::with_exposed_provenance_mut(from),
        iov_len: out.len(),
    };
    let this = std::process::id().cast_signed();
    // SAFETY: the kernel checks the other side; this side is `out`.
    let ret = unsafe { libc::process_vm_readv(this, &raw const here, 1, &raw const there, 1, 0) };
    copied(ret, out.len())
}

fn copy_out(to: usize, bytes: &[u8]) -> Option<Result<()>> {
    let here = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let there = libc::iovec {
        iov_base: ptr::with_exposed_provenance_mut(to),
        iov_len: bytes.len(),
    };
    let this = std::process::id().cast_signed();
    // SAFETY: this side is only read; the kernel checks the other, and the caller gave it to be written.
    let ret = unsafe { libc::process_vm_writev(this, &raw const here, 1, &raw const there, 1, 0) };
    copied(ret, bytes.len())
}
