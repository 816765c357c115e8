//! The few system calls that are needed, each with its errno.
#![expect(unsafe_code, reason = "system calls")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::abi::{Cmd, Errno, Fd, Result};

/// The errno of the last system call of this thread that failed.
pub fn last_errno() -> Errno {
    errno_of(&io::Error::last_os_error())
}

/// The errno of an error of std's.
pub fn errno_of(error: &io::Error) -> Errno {
    let number = error
        .raw_os_error()
        .and_then(|number| u16::try_from(number).ok());
    number.map_or(Errno::EIO, Errno::new)
}

/// What a system call returned, unless it is negative.
///
/// # Errors
///
/// The errno of that call.
pub(crate) fn checked(ret: i64) -> Result<u32> {
    u32::try_from(ret).map_err(|_| last_errno())
}

/// An fd as system calls take it; what is no fd is none there either.
pub(crate) fn raw(fd: Fd) -> RawFd {
    fd.cast_signed()
}

/// An fd that std closes as attrs hold it.
pub fn number(fd: &impl AsRawFd) -> Fd {
    fd.as_raw_fd().cast_unsigned()
}

/// bpf(2) on an attr at that address.
///
/// # Safety
///
/// Every address that the command takes from the attr is that of memory which the kernel may read and write as the command
/// does, or is not mapped.
pub(super) unsafe fn bpf(cmd: Cmd, attr: u64, size: u32) -> Result<u32> {
    // SAFETY: the caller's promise.
    checked(unsafe { libc::syscall(libc::SYS_bpf, cmd.0, attr, size) })
}

/// Another number for an open file: at least `least`, close-on-exec.
///
/// # Errors
///
/// `EBADF`, `EMFILE`
pub fn dup(fd: Fd, least: i32) -> Result<OwnedFd> {
    // SAFETY: fcntl(2) looks the number up; no memory is involved.
    let ret = unsafe { libc::fcntl(raw(fd), libc::F_DUPFD_CLOEXEC, least) };
    owned(i64::from(ret))
}

/// A new fd that a system call returned.
pub(super) fn owned(ret: i64) -> Result<OwnedFd> {
    let fd = raw(checked(ret)?);
    // SAFETY: the kernel gave the number just now: nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `F_GETFL` and `F_GETFD` of an open file.
///
/// # Errors
///
/// `EBADF`
pub fn file_flags(fd: Fd) -> Result<(i32, i32)> {
    // SAFETY: fcntl(2) looks the number up; no memory is involved.
    let status = unsafe { libc::fcntl(raw(fd), libc::F_GETFL) };
    checked(i64::from(status))?;
    // SAFETY: as above.
    let own = unsafe { libc::fcntl(raw(fd), libc::F_GETFD) };
    checked(i64::from(own))?;
    Ok((status, own))
}
