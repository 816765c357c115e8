//! The memory of a task of the program, at the addresses that its calls give.

#![expect(unsafe_code, reason = "memory of another process")]

use std::cell::RefCell;
use std::ptr;

use libc::iovec;

use super::port::Port;
use crate::abi::{Errno, Result, UserMem};

/// Bytes that are read at once, wherever what is asked for is in one such block: no page is smaller, so that what surrounds
/// it can be read if it can. A key is often beside its attr, and a crossing costs as much as the calls around it.
const BLOCK: usize = 4096;

/// See the module. It is that of the task whose call is being answered.
#[derive(Debug)]
pub(super) struct TaskMem<'a> {
    port: &'a dyn Port,
    /// The block that was read last, and its address.
    block: RefCell<(u64, [u8; BLOCK])>,
}

impl<'a> TaskMem<'a> {
    pub(super) fn new(port: &'a dyn Port) -> Self {
        Self {
            port,
            block: RefCell::new((u64::MAX, [0; BLOCK])),
        }
    }

    /// A text up to its NUL.
    ///
    /// # Errors
    ///
    /// `EFAULT`; `ENAMETOOLONG` for more than a path can have.
    pub(super) fn path(&self, addr: u64) -> Result<Vec<u8>> {
        const MOST: usize = 4096;
        let mut path = Vec::new();
        let mut at = addr;
        while path.len() < MOST {
            // Up to a multiple of so many bytes: they are on one page.
            let mut bytes = [0; 64];
            let len = bytes.len() - place(at) % bytes.len();
            self.read(at, &mut bytes[..len])?;
            if let Some(end) = bytes[..len].iter().position(|&byte| byte == 0) {
                path.extend(&bytes[..end]);
                return Ok(path);
            }
            path.extend(&bytes[..len]);
            at = at.wrapping_add(len as u64);
        }
        Err(Errno::ENAMETOOLONG)
    }

    fn copy_in(&self, addr: u64, out: &mut [u8]) -> Result<()> {
        let here = vector(out.as_mut_ptr(), out.len());
        let there = vector(ptr::without_provenance_mut(address(addr)?), out.len());
        let task = self.port.task();
        // SAFETY: `here` is `out`; the kernel checks the other side.
        let copied =
            unsafe { libc::process_vm_readv(task, &raw const here, 1, &raw const there, 1, 0) };
        self.judge(copied, out.len())?;
        // The number of a task that has ended may be another's.
        if self.port.is_waiting() {
            Ok(())
        } else {
            Err(Errno::EFAULT)
        }
    }

    fn judge(&self, copied: isize, len: usize) -> Result<()> {
        match usize::try_from(copied) {
            Ok(copied) if copied == len => Ok(()),
            Ok(_) => Err(Errno::EFAULT),
            Err(_) => {
                let error = std::io::Error::last_os_error();
                if !matches!(error.raw_os_error(), Some(libc::EFAULT | libc::ESRCH)) {
                    self.port.unreachable(&error);
                }
                Err(Errno::EFAULT)
            }
        }
    }
}

/// Where an address is in its block.
fn place(addr: u64) -> usize {
    usize::try_from(addr % BLOCK as u64).expect("less than a block")
}

fn vector(base: *mut u8, len: usize) -> iovec {
    iovec {
        iov_base: base.cast(),
        iov_len: len,
    }
}

fn address(addr: u64) -> Result<usize> {
    usize::try_from(addr).map_err(|_| Errno::EFAULT)
}

impl UserMem for TaskMem<'_> {
    fn read(&self, addr: u64, out: &mut [u8]) -> Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        let at = place(addr);
        let Some(end) = at.checked_add(out.len()).filter(|&end| end <= BLOCK) else {
            return self.copy_in(addr, out);
        };
        let start = addr - at as u64;
        let mut block = self.block.borrow_mut();
        if block.0 != start {
            block.0 = u64::MAX;
            self.copy_in(start, &mut block.1)?;
            block.0 = start;
        }
        out.copy_from_slice(&block.1[at..end]);
        Ok(())
    }

    fn write(&mut self, addr: u64, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.block.get_mut().0 = u64::MAX;
        // The number of a task that has ended may be another's.
        if !self.port.is_waiting() {
            return Err(Errno::EFAULT);
        }
        let here = vector(bytes.as_ptr().cast_mut(), bytes.len());
        let there = vector(ptr::without_provenance_mut(address(addr)?), bytes.len());
        let task = self.port.task();
        // SAFETY: this side is only read; the kernel checks the other.
        let copied =
            unsafe { libc::process_vm_writev(task, &raw const here, 1, &raw const there, 1, 0) };
        self.judge(copied, bytes.len())
    }
}
