//! What the file system tells of emulated files and of the emulated kernel: links of `/proc/self/fd`, `/proc/self/fdinfo`, the
//! lists of CPUs.

#![expect(unsafe_code, reason = "paths that come from outside")]

use std::ffi::{CStr, OsStr, c_char};
use std::fmt::Write as _;
use std::os::fd::{IntoRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};

use super::raw::errno_of;
use super::{Installed, process, table, threads};
use crate::Kernel;
use crate::abi::Result;
use crate::sys::FileKind;

/// A path that a caller gave; `None` for null.
///
/// # Safety
///
/// It ends with a NUL, and does not change meanwhile.
pub(super) unsafe fn path<'a>(path: *const c_char) -> Option<&'a OsStr> {
    if path.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let path = unsafe { CStr::from_ptr(path) };
    Some(OsStr::from_bytes(path.to_bytes()))
}

/// It may be the path of a file that is ours: a look at a few bytes.
///
/// # Safety
///
/// It ends with a NUL.
#[inline(always)]
pub(super) unsafe fn may_be_ours(path: *const c_char) -> bool {
    if !process::has_begun() || path.is_null() {
        return false;
    }
    // SAFETY: the caller's promise.
    let of_proc = unsafe { begins_with(path, b"/proc/") };
    // SAFETY: the caller's promise.
    of_proc || unsafe { begins_with(path, b"/sys/") }
}

/// # Safety
///
/// It ends with a NUL.
#[inline(always)]
unsafe fn begins_with(path: *const c_char, with: &[u8]) -> bool {
    for (at, &byte) in with.iter().enumerate() {
        // SAFETY: the bytes before it are those of `with`, and no NUL.
        let place = unsafe { path.cast::<u8>().add(at) };
        // SAFETY: as above.
        if unsafe { *place } != byte {
            return false;
        }
    }
    true
}

/// What the name of an emulated file is in `/proc/self/fd`, if that is the name of its placeholder.
pub(super) fn link_name(placeholder: &[u8]) -> Option<&'static str> {
    let inode = placeholder.strip_prefix(b"pipe:[")?.strip_suffix(b"]")?;
    let inode = std::str::from_utf8(inode).ok()?.parse().ok()?;
    let name = match table::by_inode(inode)?.file.kind() {
        FileKind::Map(_) => "anon_inode:bpf-map",
        FileKind::Prog(_) => "anon_inode:bpf-prog",
        FileKind::Link(_) => "anon_inode:bpf-link",
        FileKind::Btf(_) => "anon_inode:btf",
        FileKind::Other(_) => "anon_inode:[perf_event]",
        FileKind::Cgroup(_) => return None,
    };
    Some(name)
}

/// A file that is read in place of one of the system; `None` if it is none of ours.
pub(super) fn open(path: &OsStr) -> Option<Result<RawFd>> {
    if !process::is_interposed() {
        return None;
    }
    let path = path.to_str()?;
    let text = match path.strip_prefix("/sys/devices/system/cpu/") {
        Some("possible" | "online" | "present") => cpus()?,
        Some(_) => return None,
        None => fdinfo(path)?,
    };
    Some(with_text(&text))
}

fn cpus() -> Option<String> {
    let nr_cpus = threads::current()?.kernel.env().nr_cpus;
    Some(match nr_cpus {
        1 => "0\n".to_owned(),
        _ => format!("0-{}\n", nr_cpus - 1),
    })
}

fn fdinfo(path: &str) -> Option<String> {
    let (process, rest) = path.strip_prefix("/proc/")?.split_once('/')?;
    let fd = rest.strip_prefix("fdinfo/")?;
    if process != "self" && process != "thread-self" && process.parse() != Ok(std::process::id()) {
        return None;
    }
    let entry = table::get(fd.parse().ok()?)?;
    let told = entry.file.fdinfo().ok()?;
    let access = match (entry.file.can_read(), entry.file.can_write()) {
        (true, true) => libc::O_RDWR,
        (false, _) => libc::O_WRONLY,
        (_, false) => libc::O_RDONLY,
    };
    let mut text = String::new();
    // Writing to a string does not fail. The last two are of the file system of files without a name.
    let _ = write!(
        text,
        "pos:\t0\nflags:\t{:08o}\nmnt_id:\t17\nino:\t1038\n{told}",
        access | libc::O_CLOEXEC
    );
    Some(text)
}

fn with_text(text: &str) -> Result<RawFd> {
    let fd = memfd_create("mapemu", MemfdFlags::CLOEXEC).map_err(errno_of)?;
    rustix::io::write(&fd, text.as_bytes()).map_err(errno_of)?;
    seek(&fd, SeekFrom::Start(0)).map_err(errno_of)?;
    Ok(fd.into_raw_fd())
}

/// Where the bpffs of all kernels is.
const BPFFS: &str = "/sys/fs/bpf";

/// The path lies in a bpffs of this thread's kernel.
pub(super) fn is_bpffs(path: &OsStr) -> bool {
    if !process::is_interposed() {
        return false;
    }
    let Some(installed) = threads::current() else {
        return false;
    };
    let path = std::path::absolute(path).unwrap_or_default();
    let path = path.canonicalize().unwrap_or(path);
    let is_ours = |bpffs: &super::Bpffs| bpffs.inside(&path).is_some();
    path.starts_with(BPFFS) || installed.bpffs.get().is_some_and(is_ours)
}

/// What is in `/sys/fs/bpf` is in the emulated bpffs, of a thread that has one.
fn in_bpffs(path: &OsStr) -> Option<(Arc<Installed>, &str)> {
    if !process::is_interposed() || !Path::new(path).starts_with(BPFFS) {
        return None;
    }
    Some((threads::current()?, path.to_str()?))
}

/// The mode of a directory or a pin in the emulated bpffs.
pub(super) fn mode(path: &OsStr) -> Option<Result<u32>> {
    let (installed, path) = in_bpffs(path)?;
    let is_dir = installed.kernel.is_dir(path);
    Some(is_dir.map(|is_dir| {
        if is_dir {
            libc::S_IFDIR | 0o700
        } else {
            libc::S_IFREG | 0o600
        }
    }))
}

/// A change of the emulated bpffs; `None` for other paths.
pub(super) fn change(
    path: &OsStr,
    change: impl FnOnce(&Kernel, &str) -> Result<()>,
) -> Option<Result<()>> {
    let (installed, path) = in_bpffs(path)?;
    Some(change(&installed.kernel, path))
}
