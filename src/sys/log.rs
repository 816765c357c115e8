//! The log that a caller of `BPF_PROG_LOAD` or `BPF_BTF_LOAD` may ask for.
//!
//! What is refused says why, in the kernel's words; the trace of every instruction, which the kernel's log has too, is not
//! there.
//!
//! Kernel: `kernel/bpf/log.c` (v6.18).

use std::fmt;

use crate::abi::{Errno, Result, UserMem};

/// `BPF_LOG_MASK`: two levels, `BPF_LOG_STATS`, `BPF_LOG_FIXED`.
const LEVELS: u32 = 0xf;
/// The text is cut at the end, not at the beginning.
const FIXED: u32 = 1 << 3;

/// See the module.
#[derive(Debug)]
pub(super) struct Log {
    level: u32,
    addr: u64,
    size: u32,
    text: String,
}

impl Log {
    /// # Errors
    ///
    /// `EINVAL` for a log that is none.
    ///
    /// Kernel: `bpf_vlog_init`, `bpf_verifier_log_attr_valid`.
    pub(super) fn new(level: u32, size: u32, addr: u64) -> Result<Self> {
        let valid = (addr != 0) == (size != 0)
            && (addr == 0 || level != 0)
            && level & !LEVELS == 0
            && size <= u32::MAX >> 2;
        if !valid {
            return Err(Errno::EINVAL);
        }
        Ok(Self {
            level,
            addr,
            size,
            text: String::new(),
        })
    }

    /// One more line.
    pub(super) fn line(&mut self, line: fmt::Arguments<'_>) {
        if self.level != 0 {
            // Writing to a string does not fail.
            let _ = fmt::write(&mut self.text, format_args!("{line}\n"));
        }
    }

    /// A line that says what is wrong, and the answer to it.
    pub(super) fn refuse(&mut self, errno: Errno, line: fmt::Arguments<'_>) -> Errno {
        self.line(line);
        errno
    }

    /// Writes the text, its NUL included; the bytes that all of it takes.
    ///
    /// # Errors
    ///
    /// `EFAULT`; `ENOSPC` if it was cut, whatever the answer was to be.
    ///
    /// Kernel: `bpf_vlog_finalize`.
    pub(super) fn write(&self, mem: &mut dyn UserMem) -> (u32, Result<()>) {
        if self.level == 0 {
            return (0, Ok(()));
        }
        let mut bytes = self.text.clone().into_bytes();
        bytes.push(0);
        let all = u32::try_from(bytes.len()).expect("a log is short");
        if self.addr == 0 {
            return (all, Ok(()));
        }
        let room = self.size as usize;
        let cut = bytes.len().saturating_sub(room);
        if self.level & FIXED == 0 {
            bytes.drain(..cut);
        } else if cut > 0 {
            bytes.truncate(room);
            bytes[room - 1] = 0;
        }
        let written = mem.write(self.addr, &bytes);
        let fits = if cut > 0 { Err(Errno::ENOSPC) } else { Ok(()) };
        (all, written.and(fits))
    }
}
