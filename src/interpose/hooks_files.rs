//! Hooks: paths, and limits of the process.

#![expect(unsafe_code, reason = "functions of the C library")]

use std::ffi::{OsStr, c_char, c_int, c_long, c_uint};
use std::ptr;

use super::own::cancellation_point;
use super::raw::{address, answer, as_int, raw, returned, returned_int};
use super::{files, limit, process, threads};
use crate::Kernel;
use crate::abi::Result;

/// open(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn open(
    path: *const c_char,
    flags: c_int,
    mode: libc::mode_t,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { openat(libc::AT_FDCWD, path, flags, mode) }
}

/// open64(3): the same, as offsets have 64 bits.
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn open64(
    path: *const c_char,
    flags: c_int,
    mode: libc::mode_t,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { openat(libc::AT_FDCWD, path, flags, mode) }
}

/// openat64(3): the same.
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn openat64(
    dir: c_int,
    path: *const c_char,
    flags: c_int,
    mode: libc::mode_t,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { openat(dir, path, flags, mode) }
}

/// openat(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn openat(
    dir: c_int,
    path: *const c_char,
    flags: c_int,
    mode: libc::mode_t,
) -> c_int {
    cancellation_point();
    // SAFETY: the caller's promise.
    if unsafe { files::may_be_ours(path) }
        // SAFETY: as above.
        && let Some(path) = unsafe { files::path(path) }
        && let Some(result) = files::open(path)
    {
        return as_int(answer(result.map(c_int::cast_unsigned)));
    }
    let args = [
        dir.into(),
        address(path),
        (flags | libc::O_LARGEFILE).into(),
        mode.into(),
        0,
        0,
    ];
    // SAFETY: the caller's promise.
    returned_int(unsafe { raw(libc::SYS_openat, args) })
}

/// readlink(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn readlink(
    path: *const c_char,
    out: *mut c_char,
    len: usize,
) -> isize {
    // SAFETY: the caller's promise.
    unsafe { readlinkat(libc::AT_FDCWD, path, out, len) }
}

/// readlinkat(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn readlinkat(
    dir: c_int,
    path: *const c_char,
    out: *mut c_char,
    len: usize,
) -> isize {
    let args = [
        dir.into(),
        address(path),
        address(out),
        len.cast_signed() as c_long,
        0,
        0,
    ];
    // SAFETY: the caller's promise.
    let ret = unsafe { raw(libc::SYS_readlinkat, args) };
    if let Ok(read) = usize::try_from(ret)
        && process::has_begun()
    {
        // SAFETY: the kernel wrote so many bytes there.
        let link = unsafe { std::slice::from_raw_parts(out.cast::<u8>(), read) };
        if let Some(name) = files::link_name(link) {
            let read = name.len().min(len);
            // SAFETY: the caller has room for `len` bytes.
            unsafe { ptr::copy_nonoverlapping(name.as_ptr(), out.cast::<u8>(), read) };
            return read.cast_signed();
        }
    }
    isize::try_from(returned(ret)).unwrap_or(-1)
}

/// statfs(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn statfs(path: *const c_char, out: *mut libc::statfs) -> c_int {
    let args = [address(path), address(out), 0, 0, 0, 0];
    // SAFETY: the caller's promise.
    let mut ret = unsafe { raw(libc::SYS_statfs, args) };
    if process::has_begun()
        // SAFETY: the caller's promise.
        && let Some(path) = unsafe { files::path(path) }
    {
        if ret == -c_long::from(libc::ENOENT) && matches!(files::mode(path), Some(Ok(_))) {
            // SAFETY: zeros are one, and the caller has room for it.
            unsafe { out.write_bytes(0, 1) };
            ret = 0;
        }
        if ret == 0 && files::is_bpffs(path) {
            // SAFETY: it was written just now.
            unsafe { (*out).f_type = libc::BPF_FS_MAGIC };
        }
    }
    returned_int(ret)
}

/// statfs64(3): the same, as counts have 64 bits.
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn statfs64(path: *const c_char, out: *mut libc::statfs) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { statfs(path, out) }
}

/// statx(2): what std asks for, too.
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn statx(
    dir: c_int,
    path: *const c_char,
    flags: c_int,
    mask: c_uint,
    out: *mut libc::statx,
) -> c_int {
    // SAFETY: the caller's promise.
    if let Some(mode) = unsafe { mode_of(path) } {
        if mode.is_ok() {
            // SAFETY: zeros are one, and the caller has room for it.
            unsafe { out.write_bytes(0, 1) };
        }
        return as_int(answer(mode.map(|mode| {
            let mode = u16::try_from(mode).expect("modes have 16 bits");
            // SAFETY: it was written just now.
            unsafe { (*out).stx_mask = libc::STATX_TYPE | libc::STATX_MODE };
            // SAFETY: as above.
            unsafe { (*out).stx_mode = mode };
            0
        })));
    }
    let args = [
        dir.into(),
        address(path),
        flags.into(),
        mask.into(),
        address(out),
        0,
    ];
    // SAFETY: the caller's promise.
    returned_int(unsafe { raw(libc::SYS_statx, args) })
}

/// access(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn access(path: *const c_char, mode: c_int) -> c_int {
    // SAFETY: the caller's promise.
    if let Some(found) = unsafe { mode_of(path) } {
        return as_int(answer(found.map(|_| 0)));
    }
    let args = [libc::AT_FDCWD.into(), address(path), mode.into(), 0, 0, 0];
    // SAFETY: the caller's promise.
    returned_int(unsafe { raw(libc::SYS_faccessat, args) })
}

/// The mode of what is in the emulated bpffs; `None` for other paths.
///
/// # Safety
///
/// The path is null or ends with a NUL.
unsafe fn mode_of(path: *const c_char) -> Option<Result<u32>> {
    // SAFETY: the caller's promise.
    if !unsafe { files::may_be_ours(path) } {
        return None;
    }
    // SAFETY: as above.
    files::mode(unsafe { files::path(path) }?)
}

/// What a change of the emulated bpffs returns; `None` for other paths.
///
/// # Safety
///
/// The path is null or ends with a NUL.
unsafe fn changed(
    path: *const c_char,
    change: impl FnOnce(&Kernel, &str) -> Result<()>,
) -> Option<c_int> {
    // SAFETY: the caller's promise.
    if !unsafe { files::may_be_ours(path) } {
        return None;
    }
    // SAFETY: as above.
    let result = files::change(unsafe { files::path(path) }?, change)?;
    Some(as_int(answer(result.map(|()| 0))))
}

/// mkdir(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn mkdir(path: *const c_char, mode: libc::mode_t) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { mkdirat(libc::AT_FDCWD, path, mode) }
}

/// mkdirat(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn mkdirat(
    dir: c_int,
    path: *const c_char,
    mode: libc::mode_t,
) -> c_int {
    // SAFETY: the caller's promise.
    if let Some(changed) = unsafe { changed(path, Kernel::mkdir) } {
        return changed;
    }
    let args = [dir.into(), address(path), mode.into(), 0, 0, 0];
    // SAFETY: the caller's promise.
    returned_int(unsafe { raw(libc::SYS_mkdirat, args) })
}

/// unlink(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { unlinkat(libc::AT_FDCWD, path, 0) }
}

/// rmdir(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn rmdir(path: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { unlinkat(libc::AT_FDCWD, path, libc::AT_REMOVEDIR) }
}

/// unlinkat(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn unlinkat(dir: c_int, path: *const c_char, flags: c_int) -> c_int {
    let remove = match flags {
        libc::AT_REMOVEDIR => Kernel::rmdir,
        _ => Kernel::unlink,
    };
    // SAFETY: the caller's promise.
    if let Some(changed) = unsafe { changed(path, remove) } {
        return changed;
    }
    let args = [dir.into(), address(path), flags.into(), 0, 0, 0];
    // SAFETY: the caller's promise.
    returned_int(unsafe { raw(libc::SYS_unlinkat, args) })
}

/// setrlimit(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn setrlimit(resource: c_int, new: *const libc::rlimit) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { prlimit(0, resource, new, ptr::null_mut()) }
}

/// setrlimit64(3): the same, as limits have 64 bits.
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn setrlimit64(resource: c_int, new: *const libc::rlimit) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { prlimit(0, resource, new, ptr::null_mut()) }
}

/// rename(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    let target = unsafe { files::path(to) }.and_then(OsStr::to_str);
    if let Some(target) = target
        // SAFETY: the caller's promise.
        && let Some(changed) = unsafe { changed(from, |kernel, from| kernel.rename(from, target)) }
    {
        return changed;
    }
    let here = libc::AT_FDCWD.into();
    let args = [here, address(from), here, address(to), 0, 0];
    // SAFETY: the caller's promise.
    returned_int(unsafe { raw(libc::SYS_renameat2, args) })
}

/// getrlimit(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn getrlimit(resource: c_int, old: *mut libc::rlimit) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { prlimit(0, resource, ptr::null(), old) }
}

/// getrlimit64(3): the same, as limits have 64 bits.
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn getrlimit64(resource: c_int, old: *mut libc::rlimit) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { prlimit(0, resource, ptr::null(), old) }
}

/// prlimit64(3): the same, as limits have 64 bits.
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn prlimit64(
    pid: libc::pid_t,
    resource: c_int,
    new: *const libc::rlimit,
    old: *mut libc::rlimit,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { prlimit(pid, resource, new, old) }
}

/// prlimit(2): who may not raise `RLIMIT_MEMLOCK` has no need to.
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn prlimit(
    pid: libc::pid_t,
    resource: c_int,
    new: *const libc::rlimit,
    old: *mut libc::rlimit,
) -> c_int {
    let set = |new: *const libc::rlimit| {
        let args = [
            pid.into(),
            resource.into(),
            address(new),
            address(old),
            0,
            0,
        ];
        // SAFETY: the caller's promise, of either limit.
        unsafe { raw(libc::SYS_prlimit64, args) }
    };
    // It is another for a moment where a file is made.
    let settled = (resource.cast_unsigned() == libc::RLIMIT_NOFILE && process::is_interposed())
        .then(limit::settled);
    let mut ret = set(new);
    drop(settled);
    if ret == -c_long::from(libc::EPERM)
        && resource.cast_unsigned() == libc::RLIMIT_MEMLOCK
        && process::is_interposed()
        && threads::current().is_some()
    {
        ret = set(ptr::null());
    }
    returned_int(ret)
}
