//! Short bursts of one operation: on a shared machine only what ran a moment ago can be compared.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

pub const ROUNDS: usize = 9;
pub const BURST: usize = 4096;
pub const CHUNK: usize = 128;

/// Median of what one operation took, in ns, over chunks of a burst.
#[inline]
pub fn burst(mut op: impl FnMut(usize)) -> f64 {
    let mut chunks: Vec<f64> = (0..BURST / CHUNK)
        .map(|chunk| {
            let start = Instant::now();
            for i in 0..CHUNK {
                op(chunk * CHUNK + i);
            }
            start.elapsed().as_nanos() as f64 / CHUNK as f64
        })
        .collect();
    median(&mut chunks)
}

pub fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// How many operations two threads do in the time in which one thread does one; `work(thread, part)` is a burst, on what no
/// burst of another part was made on.
pub fn scaling(work: &(dyn Fn(usize, usize) -> f64 + Sync)) -> f64 {
    let on = |thread, part, start: &Start| {
        work(thread, part);
        start.wait();
        let figure = work(thread, part + 1);
        // Until the other is through, too.
        work(thread, part + 2);
        figure
    };
    let alone = on(0, 0, &Start::of(1));
    let start = Start::of(2);
    let together = std::thread::scope(|scope| {
        let other = scope.spawn(|| on(1, 3, &start));
        let here = on(0, 3, &start);
        f64::midpoint(here, other.join().expect("it does not panic"))
    });
    2.0 * alone / together
}

/// Where threads wait for each other without sleep: a wakeup takes as long as a burst.
struct Start(AtomicUsize);

impl Start {
    fn of(threads: usize) -> Self {
        Self(AtomicUsize::new(threads))
    }

    fn wait(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
        while self.0.load(Ordering::Acquire) > 0 {
            std::hint::spin_loop();
        }
    }
}
