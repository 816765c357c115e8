//! Short bursts of one operation: on a shared machine only what ran a moment ago can be compared.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Operations of a burst.
pub const BURST: usize = 4096;

/// Operations that are timed at once; a burst is the median over its chunks.
pub const CHUNK: usize = 128;

/// Rounds in which columns take turns.
pub const ROUNDS: usize = 9;

/// Median of what one operation took, in ns, over chunks of a burst.
#[inline]
pub fn burst(mut op: impl FnMut(usize)) -> f64 {
    burst_between(|_| {}, &mut op, |_| {})
}

/// As [`burst`]; each operation of a chunk is prepared before the chunk begins, and made good for after its end. Done one by
/// one, a map that always changes the same key would have its places at hand.
#[inline]
pub fn burst_between(
    mut before: impl FnMut(usize),
    mut op: impl FnMut(usize),
    mut after: impl FnMut(usize),
) -> f64 {
    let mut chunks: Vec<f64> = (0..BURST / CHUNK)
        .map(|chunk| {
            let chunk = chunk * CHUNK..(chunk + 1) * CHUNK;
            chunk.clone().for_each(&mut before);
            let start = Instant::now();
            chunk.clone().for_each(&mut op);
            let took = start.elapsed();
            chunk.for_each(&mut after);
            ns_each(took, CHUNK)
        })
        .collect();
    median(&mut chunks)
}

/// ns of one of `count`, which took so long.
pub fn ns_each(took: std::time::Duration, count: usize) -> f64 {
    took.as_secs_f64() * 1e9 / count as f64
}

/// The median; NaN of none.
pub fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// As [`median`].
pub fn median_of(figures: impl Iterator<Item = f64>) -> f64 {
    median(&mut figures.collect::<Vec<_>>())
}

/// ns that an operation takes a thread: alone, and beside another that does the same.
#[derive(Clone, Copy, Debug)]
pub struct Threads {
    /// Of one thread.
    pub alone: f64,
    /// Of each of two.
    pub together: f64,
}

impl Threads {
    /// How many operations two threads do in the time in which one does one.
    pub fn scaling(self) -> f64 {
        2.0 * self.alone / self.together
    }
}

/// One thread, then two, begun together, each on a CPU of its own. `work(cpu, part)` is a burst, on what no burst of another
/// part was made on.
pub fn threads(work: &(dyn Fn(u32, usize) -> f64 + Sync)) -> Threads {
    let on = |cpu, part, start: &Start| {
        run_on(cpu);
        work(cpu, part);
        start.wait();
        let figure = work(cpu, part + 1);
        // Until the other is through, too.
        work(cpu, part + 2);
        figure
    };
    let (one, two) = (Start::of(1), Start::of(2));
    std::thread::scope(|scope| {
        let (on, one, two) = (&on, &one, &two);
        let alone = scope.spawn(move || on(0, 0, one));
        let alone = alone.join().expect("it does not panic");
        let both = [0, 1].map(|cpu| scope.spawn(move || on(cpu, 3, two)));
        let [first, second] = both.map(|thread| thread.join().expect("it does not panic"));
        Threads {
            alone,
            together: f64::midpoint(first, second),
        }
    })
}

#[cfg(target_os = "linux")]
fn run_on(cpu: u32) {
    // A refusal costs exactness, nothing else.
    let _ = crate::host::run_on(cpu);
}

#[cfg(not(target_os = "linux"))]
fn run_on(_cpu: u32) {}

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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn a_burst_prepares_and_makes_good() {
        let present = std::cell::RefCell::new(std::collections::HashSet::new());
        let ns = burst_between(
            |i| assert!(present.borrow_mut().insert(i)),
            |i| assert!(present.borrow().contains(&i)),
            |i| assert!(present.borrow_mut().remove(&i)),
        );
        assert!(ns > 0.0);
        assert!(present.borrow().is_empty());
    }

    #[test]
    fn two_threads_have_parts_of_their_own() {
        let calls = AtomicUsize::new(0);
        let figure = threads(&|cpu, part| {
            calls.fetch_add(1 << (8 * cpu), Ordering::Relaxed);
            // Alone an operation takes 1 ns, beside another 2.
            if part < 3 { 1.0 } else { 2.0 }
        });
        assert_eq!(calls.into_inner(), 6 | 3 << 8);
        assert_eq!(
            (figure.alone, figure.together, figure.scaling()),
            (1.0, 2.0, 1.0)
        );
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median_of([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert!(median_of(std::iter::empty()).is_nan());
    }
}
