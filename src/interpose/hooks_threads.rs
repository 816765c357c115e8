//! Hooks: pthread_create(3).

#![expect(unsafe_code, reason = "functions of the C library")]

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use super::threads::Thread;

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
pub(super) unsafe extern "C" fn pthread_create(
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
    static OWN: super::own::Own = super::own::Own::new(c"pthread_create");
    // SAFETY: it has the type of ours.
    let own = unsafe { OWN.like(pthread_create as PthreadCreate) };
    own.expect("the C library has threads")
}
