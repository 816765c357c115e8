//! Wakes those who wait for a map: a counter of wakeups, with a place to sleep until it moves, and calls to make then.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// What is called at each wakeup, as long as someone else keeps it.
type Hook = dyn Fn() + Send + Sync;

/// See the module.
#[derive(Default)]
pub(super) struct Signal {
    count: AtomicU64,
    sleepers: AtomicU32,
    lock: Mutex<()>,
    moved: Condvar,
    /// There are hooks.
    hooked: AtomicBool,
    hooks: Mutex<Vec<Weak<Hook>>>,
}

impl Signal {
    /// Number of wakeups so far.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Wakes all who wait.
    pub(super) fn wake(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            // A sleeper that has looked at the counter and not slept yet has the lock.
            drop(self.lock.lock());
            self.moved.notify_all();
        }
        if self.hooked.load(Ordering::SeqCst) {
            self.call_hooks();
        }
    }

    /// Has `hook` called at each wakeup from here on, as long as it is kept.
    pub(super) fn on_wake(&self, hook: &Arc<Hook>) {
        let mut hooks = self.hooks.lock();
        hooks.retain(|hook| hook.strong_count() > 0);
        hooks.push(Arc::downgrade(hook));
        drop(hooks);
        self.hooked.store(true, Ordering::SeqCst);
    }

    /// A hook may do as it likes: no lock is held.
    #[cold]
    fn call_hooks(&self) {
        let mut hooks = self.hooks.lock();
        hooks.retain(|hook| hook.strong_count() > 0);
        let kept: Vec<_> = hooks.iter().filter_map(Weak::upgrade).collect();
        drop(hooks);
        for hook in kept {
            hook();
        }
    }

    /// Sleeps until there was a wakeup after the first `seen` ones, or the time is over (never, without one); gives the
    /// number of wakeups.
    pub(super) fn wait(&self, seen: u64, timeout: Option<Duration>) -> u64 {
        // A time too far away for the clock is never.
        let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let forever = end.is_none();
        let mut guard = self.lock.lock();
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while self.count() == seen {
            if forever {
                self.moved.wait(&mut guard);
            } else if let Some(end) = end
                && self.moved.wait_until(&mut guard, end).timed_out()
            {
                break;
            }
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        self.count()
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} wakeups", self.count())
    }
}
