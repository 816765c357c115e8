//! The C library's functions that are ours. Each looks whether the call is for an emulated file, and is the system call if not;
//! on that way nothing is allocated or locked.
//!
//! The linker takes them for the C library's because it sees them first. What is variadic there has all its arguments here:
//! on Linux they are passed in the same places.

#![expect(unsafe_code, reason = "functions of the C library")]

use std::ffi::{CStr, c_long, c_void};
use std::mem::MaybeUninit;
use std::ptr;

use super::hooks_fds::{close, close_fd, close_range, dup2, dup3, ioctl};
use super::hooks_files::{
    access, getrlimit, getrlimit64, mkdir, mkdirat, open, open64, openat, openat64, prlimit,
    prlimit64, readlink, readlinkat, rename, rmdir, setrlimit, setrlimit64, statfs, statfs64,
    statx, unlink, unlinkat,
};
use super::hooks_memory::{mmap, mmap64, mremap, munmap};
use super::hooks_threads::pthread_create;
use super::hooks_wait::{epoll_pwait, epoll_pwait2, epoll_wait, poll, ppoll, pselect, select};
use super::memory::ProcessMem;
use super::raw::{answer, as_int, raw, returned};
use super::{caller, files, perf};
use crate::abi::Cmd;

/// syscall(3): aya and libbpf call bpf(2) and perf_event_open(2) by it.
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    let args = [a, b, c, d, e, f];
    match number {
        libc::SYS_bpf => {
            let cmd = Cmd(as_int(a).cast_unsigned());
            let size = as_int(c).cast_unsigned();
            // SAFETY: the caller's promise.
            if let Some(result) = unsafe { caller::bpf(cmd, b.cast_unsigned(), size) } {
                return answer(result);
            }
        }
        // SAFETY: the caller's promise.
        libc::SYS_close => return c_long::from(unsafe { close_fd(as_int(a)) }),
        // SAFETY: the caller's promise.
        libc::SYS_dup3 => return c_long::from(unsafe { dup3(as_int(a), as_int(b), as_int(c)) }),
        libc::SYS_close_range => {
            let (first, last) = (as_int(a).cast_unsigned(), as_int(b).cast_unsigned());
            // SAFETY: the caller's promise.
            return c_long::from(unsafe { close_range(first, last, as_int(c)) });
        }
        // SAFETY: the caller's promise.
        libc::SYS_ioctl => return c_long::from(unsafe { ioctl(as_int(a), b.cast_unsigned(), c) }),
        libc::SYS_perf_event_open => {
            // SAFETY: the caller's promise.
            let mem = unsafe { ProcessMem::new() };
            if let Some(result) = perf::open(a.cast_unsigned(), as_int(b), as_int(c), &mem) {
                return answer(result);
            }
        }
        _ => {}
    }
    // SAFETY: the caller's promise.
    returned(unsafe { raw(number, args) })
}

/// Has the linker keep what is in here.
pub(super) fn keep() {
    std::hint::black_box(ALL);
}

/// Looks whether the C library's names lead here.
#[track_caller]
pub(super) fn assert_active() {
    // In a library the linker may have put other functions in the place of ours, too; not in the place of one without a name.
    let here = origin(keep as *const c_void).dli_fbase;
    for (name, ours) in ALL {
        // SAFETY: a name that ends with NUL.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        let origin = origin(found);
        let is_ours = ptr::eq(found, *ours) && ptr::eq(origin.dli_fbase, here);
        if !found.is_null() && !is_ours {
            // SAFETY: null, or the name of a file that is loaded.
            let file = unsafe { files::path(origin.dli_fname) };
            let file = file.unwrap_or_default().display();
            panic!(
                "mapemu: {name:?} leads to {file}, and not to mapemu. Either the program was linked so that its libraries do not \
                 see mapemu's functions (--exclude-libs, a version script): link it without that, or statically. Or {file} \
                 takes their place, as a sanitizer does, or a library in LD_PRELOAD: do without it, or load it after mapemu"
            );
        }
    }
}

/// The program or library that has that address.
fn origin(address: *const c_void) -> libc::Dl_info {
    let mut info = MaybeUninit::zeroed();
    // SAFETY: there is room for it.
    unsafe { libc::dladdr(address, info.as_mut_ptr()) };
    // SAFETY: zeros are one, and so is what was written.
    unsafe { info.assume_init() }
}

/// The functions by name.
const ALL: &[(&CStr, *const c_void)] = &[
    (c"syscall", syscall as *const c_void),
    (c"close", close as *const c_void),
    (c"dup2", dup2 as *const c_void),
    (c"dup3", dup3 as *const c_void),
    (c"close_range", close_range as *const c_void),
    (c"mmap", mmap as *const c_void),
    (c"mmap64", mmap64 as *const c_void),
    (c"munmap", munmap as *const c_void),
    (c"mremap", mremap as *const c_void),
    (c"ioctl", ioctl as *const c_void),
    (c"epoll_wait", epoll_wait as *const c_void),
    (c"epoll_pwait", epoll_pwait as *const c_void),
    (c"epoll_pwait2", epoll_pwait2 as *const c_void),
    (c"poll", poll as *const c_void),
    (c"ppoll", ppoll as *const c_void),
    (c"select", select as *const c_void),
    (c"pselect", pselect as *const c_void),
    (c"open", open as *const c_void),
    (c"open64", open64 as *const c_void),
    (c"openat", openat as *const c_void),
    (c"openat64", openat64 as *const c_void),
    (c"readlink", readlink as *const c_void),
    (c"readlinkat", readlinkat as *const c_void),
    (c"statfs", statfs as *const c_void),
    (c"statfs64", statfs64 as *const c_void),
    (c"statx", statx as *const c_void),
    (c"access", access as *const c_void),
    (c"mkdir", mkdir as *const c_void),
    (c"mkdirat", mkdirat as *const c_void),
    (c"unlink", unlink as *const c_void),
    (c"rename", rename as *const c_void),
    (c"rmdir", rmdir as *const c_void),
    (c"unlinkat", unlinkat as *const c_void),
    (c"getrlimit", getrlimit as *const c_void),
    (c"getrlimit64", getrlimit64 as *const c_void),
    (c"setrlimit", setrlimit as *const c_void),
    (c"setrlimit64", setrlimit64 as *const c_void),
    (c"prlimit", prlimit as *const c_void),
    (c"prlimit64", prlimit64 as *const c_void),
    (c"pthread_create", pthread_create as *const c_void),
];
