//! System calls as the C library makes them: into the running kernel, and out with `errno`.
#![expect(unsafe_code, reason = "system calls, and the thread's errno")]

use std::arch::asm;
use std::ffi::{c_int, c_long};
use std::io;

use crate::abi::{Errno, Result};

/// What the kernel returns: negated errnos are the last page of numbers.
const FIRST_ERRNO: c_long = -4095;

/// A system call; what the kernel returned.
///
/// # Safety
///
/// That of the system call.
#[inline(always)]
pub(super) unsafe fn raw(number: c_long, args: [c_long; 6]) -> c_long {
    let [a, b, c, d, e, f] = args;
    let ret;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the kernel's calling convention; what the call does is the caller's promise.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => ret,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the kernel's calling convention; what the call does is the caller's promise.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a => ret,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f,
            options(nostack)
        );
    }
    ret
}

/// As the C library returns it: -1 and `errno` for a failure.
#[inline(always)]
pub(super) fn returned(ret: c_long) -> c_long {
    if (FIRST_ERRNO..0).contains(&ret) {
        return failed(-ret);
    }
    ret
}

/// As [`returned`], of a call that returns an `int`.
#[inline(always)]
pub(super) fn returned_int(ret: c_long) -> c_int {
    as_int(returned(ret))
}

/// The low half of a register, as an `int` is passed and returned.
#[inline(always)]
pub(super) fn as_int(register: c_long) -> c_int {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "what an int is in a register"
    )]
    let int = register as c_int;
    int
}

#[cold]
fn failed(errno: c_long) -> c_long {
    // SAFETY: the C library gives the address of this thread's errno.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: it is valid as long as the thread lives.
    unsafe { *place = as_int(errno) };
    -1
}

/// As the C library returns an answer of ours.
pub(super) fn answer(result: Result<u32>) -> c_long {
    match result {
        Ok(value) => c_long::from(value),
        Err(errno) => failed(c_long::from(errno.number())),
    }
}

/// The errno of a failure.
pub(super) fn errno_of(error: impl Into<io::Error>) -> Errno {
    let number = error.into().raw_os_error();
    let number = number.and_then(|number| u16::try_from(number).ok());
    number.map_or(Errno::EIO, Errno::new)
}

/// A pointer as it is passed.
pub(super) fn address<T>(pointer: *const T) -> c_long {
    pointer.expose_provenance().cast_signed() as c_long
}
