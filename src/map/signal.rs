//! Wakes those who wait for a map: a counter of wakeups, with a place to sleep until it moves.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Signal {
    count: AtomicU64,
    sleepers: AtomicU32,
    lock: Mutex<()>,
    moved: Condvar,
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
