//! Hooks: mmap(2) and munmap(2).

#![expect(unsafe_code, reason = "functions of the C library")]

use std::ffi::{c_int, c_long, c_void};
use std::ptr;

use super::raw::{raw, returned, returned_int};
use super::{caller, mapping, process, table};

/// mmap(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn mmap(
    addr: *mut c_void,
    len: usize,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: libc::off_t,
) -> *mut c_void {
    let of_file = flags & libc::MAP_ANONYMOUS == 0;
    let arguments = mapping::Arguments {
        addr: addr.expose_provenance(),
        len,
        prot,
        flags,
        offset: offset.cast_unsigned(),
    };
    let mut ret = -c_long::from(libc::ENODEV);
    if !(of_file && table::has(fd) && process::is_interposed()) {
        let args = [
            arguments.addr.cast_signed() as c_long,
            len.cast_signed() as c_long,
            prot.into(),
            flags.into(),
            fd.into(),
            offset,
        ];
        let replaced =
            (flags & libc::MAP_FIXED != 0).then(|| mapping::before_unmap(arguments.addr, len));
        // SAFETY: the caller's promise.
        ret = unsafe { raw(libc::SYS_mmap, args) };
        mapping::after_unmap(replaced.flatten(), ret >= 0);
    }
    // What cannot be mapped may be an emulated file that was not met before.
    if of_file
        && ret == -c_long::from(libc::ENODEV)
        && process::is_interposed()
        && let Some(entry) = table::get(fd)
    {
        // SAFETY: the caller's promise.
        let mapped = caller::answered(|| unsafe { mapping::map(&entry, arguments) });
        ret = match mapped {
            Ok(addr) => addr.cast_signed() as c_long,
            Err(errno) => -c_long::from(errno.number()),
        };
    }
    let addr = usize::try_from(returned(ret)).unwrap_or(usize::MAX);
    ptr::with_exposed_provenance_mut(addr)
}

/// mmap64(3): the same, as offsets have 64 bits.
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn mmap64(
    addr: *mut c_void,
    len: usize,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: libc::off_t,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { mmap(addr, len, prot, flags, fd, offset) }
}

/// munmap(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn munmap(addr: *mut c_void, len: usize) -> c_int {
    let at = addr.expose_provenance();
    let args = [
        at.cast_signed() as c_long,
        len.cast_signed() as c_long,
        0,
        0,
        0,
        0,
    ];
    let gone = mapping::before_unmap(at, len);
    // SAFETY: the caller's promise.
    let ret = unsafe { raw(libc::SYS_munmap, args) };
    mapping::after_unmap(gone, ret == 0);
    returned_int(ret)
}
