//! The C library's functions that are ours. Each looks whether the call is for an emulated file, and is the system call if not;
//! on that way nothing is allocated or locked.
//!
//! The linker takes them for the C library's because it sees them first. What is variadic there has all its arguments here:
//! on Linux they are passed in the same places.

#![expect(unsafe_code, reason = "functions of the C library")]

use std::ffi::{CStr, c_int, c_long, c_uint, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::raw::{answer, as_int, raw, returned, returned_int};
use super::threads::Thread;
use super::{caller, table};
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
        libc::SYS_close => return c_long::from(unsafe { close(as_int(a)) }),
        // SAFETY: the caller's promise.
        libc::SYS_dup3 => return c_long::from(unsafe { dup3(as_int(a), as_int(b), as_int(c)) }),
        _ => {}
    }
    // SAFETY: the caller's promise.
    returned(unsafe { raw(number, args) })
}

/// close(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn close(fd: c_int) -> c_int {
    let entry = if table::has(fd) {
        table::forget(fd)
    } else {
        None
    };
    // SAFETY: the caller's promise.
    let ret = unsafe { raw(libc::SYS_close, [fd.into(), 0, 0, 0, 0, 0]) };
    entry.into_iter().for_each(table::settle);
    returned_int(ret)
}

/// dup2(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn dup2(old: c_int, new: c_int) -> c_int {
    if old == new {
        // SAFETY: the caller's promise.
        let ret = unsafe {
            raw(
                libc::SYS_fcntl,
                [old.into(), libc::F_GETFD.into(), 0, 0, 0, 0],
            )
        };
        return if ret < 0 { returned_int(ret) } else { new };
    }
    // SAFETY: the caller's promise.
    unsafe { dup3(old, new, 0) }
}

/// dup3(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
    let entry = if table::has(new) {
        table::forget(new)
    } else {
        None
    };
    // SAFETY: the caller's promise.
    let ret = unsafe {
        raw(
            libc::SYS_dup3,
            [old.into(), new.into(), flags.into(), 0, 0, 0],
        )
    };
    entry.into_iter().for_each(table::settle);
    returned_int(ret)
}

/// close_range(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    let entries = table::forget_range(first, last);
    // SAFETY: the caller's promise.
    let ret = unsafe {
        raw(
            libc::SYS_close_range,
            [first.into(), last.into(), flags.into(), 0, 0, 0],
        )
    };
    entries.into_iter().for_each(table::settle);
    returned_int(ret)
}

/// What a new thread begins with.
struct Start {
    routine: Routine,
    argument: *mut c_void,
    thread: Arc<Thread>,
}

type Routine = unsafe extern "C-unwind" fn(*mut c_void) -> *mut c_void;
type PthreadCreate = unsafe extern "C" fn(
    *mut libc::pthread_t,
    *const libc::pthread_attr_t,
    Routine,
    *mut c_void,
) -> c_int;

/// pthread_create(3): a thread has the kernel of the one that starts it.
///
/// # Safety
///
/// That of the function.
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_create(
    thread: *mut libc::pthread_t,
    attr: *const libc::pthread_attr_t,
    routine: Routine,
    argument: *mut c_void,
) -> c_int {
    let start = Box::into_raw(Box::new(Start {
        routine,
        argument,
        thread: Thread::started_here(),
    }));
    // SAFETY: the caller's promise; `begin` takes the box.
    let ret = unsafe { libc_pthread_create()(thread, attr, begin, start.cast()) };
    if ret != 0 {
        // SAFETY: no thread has it.
        drop(unsafe { Box::from_raw(start) });
    }
    ret
}

unsafe extern "C-unwind" fn begin(start: *mut c_void) -> *mut c_void {
    // SAFETY: `pthread_create` made the box for this thread alone.
    let start = *unsafe { Box::from_raw(start.cast::<Start>()) };
    Thread::begin(start.thread);
    // SAFETY: whoever called `pthread_create` promised it.
    let ret = unsafe { (start.routine)(start.argument) };
    Thread::end();
    ret
}

/// The C library's own function.
#[cfg(target_feature = "crt-static")]
fn libc_pthread_create() -> PthreadCreate {
    unsafe extern "C" {
        fn __pthread_create(
            thread: *mut libc::pthread_t,
            attr: *const libc::pthread_attr_t,
            routine: Routine,
            argument: *mut c_void,
        ) -> c_int;
    }
    __pthread_create
}

/// The C library's own function.
#[cfg(not(target_feature = "crt-static"))]
fn libc_pthread_create() -> PthreadCreate {
    static FOUND: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
    let mut found = FOUND.load(Ordering::Relaxed);
    if found.is_null() {
        // SAFETY: a name that ends with NUL.
        found = unsafe { libc::dlsym(libc::RTLD_NEXT, c"pthread_create".as_ptr()) };
        assert!(!found.is_null(), "the C library has threads");
        FOUND.store(found, Ordering::Relaxed);
    }
    // SAFETY: the function of that name has that type.
    unsafe { std::mem::transmute::<*mut c_void, PthreadCreate>(found) }
}

/// Has the linker keep what is in here.
pub(super) fn keep() {
    std::hint::black_box(ALL);
}

/// The functions by name.
const ALL: &[(&CStr, *const c_void)] = &[
    (c"syscall", syscall as *const c_void),
    (c"close", close as *const c_void),
    (c"dup2", dup2 as *const c_void),
    (c"dup3", dup3 as *const c_void),
    (c"close_range", close_range as *const c_void),
    (c"pthread_create", pthread_create as *const c_void),
];
