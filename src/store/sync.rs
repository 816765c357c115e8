//! The atomics that the containers share state by: those of std, or those of a scheduler that tries orders.

#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(shuttle))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Rounds of spinning before a waiter gives way to other threads.
#[cfg(not(shuttle))]
const SPINS: u32 = 64;

/// Waits until another thread has done what `ready` looks for. Not inlined: who has to wait for nothing has all in registers.
#[cold]
#[inline(never)]
pub(crate) fn wait<T>(mut ready: impl FnMut() -> Option<T>) -> T {
    let mut waited = 0;
    loop {
        relax(&mut waited);
        if let Some(answer) = ready() {
            return answer;
        }
    }
}

/// Waits a moment for another thread, which may not run at the time. `waited` counts the rounds.
fn relax(waited: &mut u32) {
    *waited += 1;
    #[cfg(shuttle)]
    shuttle::thread::yield_now();
    #[cfg(not(shuttle))]
    if *waited < SPINS {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}
