//! Which emulated kernel a thread has: its own, or that of the thread that started it, and so on up.
//!
//! A thread that was started before its starter installed a kernel has it too: the question is asked at each call.

#![expect(
    unsafe_code,
    reason = "a reference that a thread keeps without a destructor"
)]

use std::cell::Cell;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};

use super::Installed;

/// What one thread has, and who started it.
#[derive(Debug, Default)]
pub(super) struct Thread {
    starter: Option<Arc<Self>>,
    /// Kernels that it installed; the last one counts.
    own: Mutex<Vec<Arc<Installed>>>,
    has_own: AtomicBool,
}

thread_local! {
    /// This thread's reference, from `Arc::into_raw`; null if it has none. Without a destructor it can be read at any time of
    /// a thread's life.
    static THIS: Cell<*const Thread> = const { Cell::new(ptr::null()) };
}

/// The kernel of all threads that have none.
static OF_PROCESS: RwLock<Option<Arc<Installed>>> = RwLock::new(None);

impl Thread {
    /// This thread.
    pub(super) fn this() -> Arc<Self> {
        Self::known().unwrap_or_else(|| {
            let this = Arc::new(Self::default());
            Self::begin(Arc::clone(&this));
            this
        })
    }

    /// This thread, if it was ever asked for.
    fn known() -> Option<Arc<Self>> {
        let this = THIS.get();
        if this.is_null() {
            return None;
        }
        // SAFETY: it came from `Arc::into_raw` in `begin`, whose reference lives until `end`.
        unsafe { Arc::increment_strong_count(this) };
        // SAFETY: that is the reference just made.
        Some(unsafe { Arc::from_raw(this) })
    }

    /// One that this thread starts.
    pub(super) fn started_here() -> Arc<Self> {
        Arc::new(Self {
            starter: Some(Self::this()),
            ..Self::default()
        })
    }

    /// This thread is that one from here on.
    pub(super) fn begin(this: Arc<Self>) {
        Self::end();
        THIS.set(Arc::into_raw(this));
    }

    /// This thread is none that is known.
    pub(super) fn end() {
        let this = THIS.replace(ptr::null());
        if !this.is_null() {
            // SAFETY: it came from `Arc::into_raw` in `begin`, and nobody finds it any more.
            drop(unsafe { Arc::from_raw(this) });
        }
    }

    /// It has that kernel, and all have that it starts.
    pub(super) fn install(&self, installed: Arc<Installed>) {
        self.own.lock().push(installed);
        self.has_own.store(true, Ordering::Release);
    }

    /// It has that kernel no more.
    pub(super) fn uninstall(&self, installed: &Arc<Installed>) {
        let mut own = self.own.lock();
        own.retain(|kept| !Arc::ptr_eq(kept, installed));
        self.has_own.store(!own.is_empty(), Ordering::Release);
    }

    fn kernel(&self) -> Option<Arc<Installed>> {
        if !self.has_own.load(Ordering::Acquire) {
            return None;
        }
        self.own.lock().last().map(Arc::clone)
    }
}

/// The kernel of this thread.
pub(super) fn current() -> Option<Arc<Installed>> {
    let mut thread = Thread::known();
    while let Some(this) = thread {
        if let Some(installed) = this.kernel() {
            return Some(installed);
        }
        thread = this.starter.as_ref().map(Arc::clone);
    }
    OF_PROCESS.read().as_ref().map(Arc::clone)
}

/// The kernel of all threads that have none.
pub(super) fn install_for_process(installed: Option<Arc<Installed>>) {
    let before = std::mem::replace(&mut *OF_PROCESS.write(), installed);
    drop(before);
}
