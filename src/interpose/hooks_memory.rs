//! Hooks: mmap(2), mremap(2) and munmap(2).

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
    let may_be_ours = of_file && process::is_interposed();
    let mut entry = (may_be_ours && table::OURS.has(fd))
        .then(|| table::get(fd))
        .flatten();
    let mut ret = -c_long::from(libc::ENODEV);
    if entry.is_none() {
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
        // What cannot be mapped may be an emulated file that was not met before.
        if may_be_ours && ret == -c_long::from(libc::ENODEV) {
            entry = table::get(fd);
        }
    }
    if let Some(entry) = entry {
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

/// mremap(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn mremap(
    addr: *mut c_void,
    old_len: usize,
    new_len: usize,
    flags: c_int,
    new_addr: *mut c_void,
) -> *mut c_void {
    let (at, to) = (addr.expose_provenance(), new_addr.expose_provenance());
    let moved = mapping::before_unmap(at, old_len.max(1));
    let fixed = flags & libc::MREMAP_FIXED != 0;
    let replaced = fixed.then(|| mapping::before_unmap(to, new_len)).flatten();
    // What is ours does not grow.
    let ret = if moved.is_some() && new_len > old_len {
        -c_long::from(libc::EFAULT)
    } else {
        let args = [
            at.cast_signed() as c_long,
            old_len.cast_signed() as c_long,
            new_len.cast_signed() as c_long,
            flags.into(),
            to.cast_signed() as c_long,
            0,
        ];
        // SAFETY: the caller's promise.
        unsafe { raw(libc::SYS_mremap, args) }
    };
    let addr = usize::try_from(returned(ret));
    mapping::after_unmap(replaced, addr.is_ok());
    mapping::after_move(moved, addr.ok().map(|to| (at, to, new_len)));
    ptr::with_exposed_provenance_mut(addr.unwrap_or(usize::MAX))
}
