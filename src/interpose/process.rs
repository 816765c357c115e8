//! What holds for the whole process: whether any kernel was ever installed, and whether this is a child that was forked off.

#![expect(unsafe_code, reason = "a page that a child does not inherit")]

use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use super::notice;

/// A number that is the process's in the process that installed a kernel, and 0 in its children: they have copies of the emulated
/// kernels, which nobody else sees.
static HERE: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());

/// From here on calls are looked at.
pub(super) fn begin() {
    static BEGIN: Once = Once::new();
    BEGIN.call_once(|| {
        HERE.store(page(), Ordering::Release);
    });
}

/// A page that the kernel clears in children.
fn page() -> *mut AtomicU32 {
    let len = crate::abi::PAGE_SIZE;
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, at no address that anybody has.
    let page = unsafe { libc::mmap(ptr::null_mut(), len, prot, flags, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED, "there is memory for a page");
    // SAFETY: it is the mapping just made.
    unsafe { libc::madvise(page, len, libc::MADV_WIPEONFORK) };
    let here = page.cast::<AtomicU32>();
    // SAFETY: it is a page of zeros, which is never unmapped.
    unsafe { &*here }.store(std::process::id(), Ordering::Release);
    here
}

/// A kernel was installed in this process, which is not a child that was forked off.
#[inline(always)]
pub(super) fn is_interposed() -> bool {
    let here = HERE.load(Ordering::Acquire);
    // SAFETY: it is null, or points into the page of `begin`, which is never unmapped.
    let here = unsafe { here.as_ref() };
    here.is_some_and(|here| here.load(Ordering::Relaxed) != 0)
}

/// As [`is_interposed`], and it is no child of vfork(2) either: such a child has the memory of its parent. Asks the system.
pub(super) fn is_this() -> bool {
    let here = HERE.load(Ordering::Acquire);
    // SAFETY: as in `is_interposed`.
    let here = unsafe { here.as_ref() };
    here.is_some_and(|here| here.load(Ordering::Relaxed) == std::process::id())
}

/// As [`is_interposed`], of a call that a child would make in vain: it is told.
#[inline(always)]
pub(super) fn may_answer() -> bool {
    if is_interposed() {
        return true;
    }
    if has_begun() {
        in_child();
    }
    false
}

#[cold]
fn in_child() {
    notice(format_args!(
        "a forked child has no emulated maps: its calls go to the running kernel"
    ));
}

/// A kernel was installed in this process, or in the one that it was forked off.
#[inline(always)]
pub(super) fn has_begun() -> bool {
    !HERE.load(Ordering::Relaxed).is_null()
}
