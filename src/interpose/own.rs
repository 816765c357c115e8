//! The C library's own functions of names that are ours in this program: those that a thread waits in, where it can be cancelled.

#![expect(unsafe_code, reason = "functions of the C library")]

use std::ffi::{CStr, c_void};
use std::mem::transmute_copy;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A function of the C library, looked up once.
pub(super) struct Own {
    name: &'static CStr,
    found: AtomicPtr<c_void>,
}

impl Own {
    pub(super) const fn new(name: &'static CStr) -> Self {
        Self {
            name,
            found: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// It, which has the type of `ours`; none where the library lacks it, and in a program that is linked statically.
    ///
    /// # Safety
    ///
    /// `ours` is a function that takes the place of that one.
    pub(super) unsafe fn like<F: Copy>(&self, _ours: F) -> Option<F> {
        const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
        let mut found = self.found.load(Ordering::Relaxed);
        if found.is_null() && !cfg!(target_feature = "crt-static") {
            // SAFETY: a name that ends with NUL.
            found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
            self.found.store(found, Ordering::Relaxed);
        }
        // SAFETY: both are addresses, of functions of one type by the caller's promise.
        (!found.is_null()).then(|| unsafe { transmute_copy::<*mut c_void, F>(&found) })
    }
}

/// A thread that is to be cancelled ends here, if it may be: what open(2), close(2) and others of the C library begin with.
#[inline(always)]
pub(super) fn cancellation_point() {
    unsafe extern "C-unwind" {
        fn pthread_testcancel();
    }
    // SAFETY: nothing is asked of the caller, whose callers expect it of the function that is ours.
    unsafe { pthread_testcancel() };
}
