//! How many write commands and writable mappings of a map there are: `BPF_MAP_FREEZE` is `EBUSY` as long as there are any.
//!
//! Each CPU counts its own, on a cache line of its own, so that writers on different CPUs do not meet.

use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam_utils::CachePadded;

/// Counters at most: beyond them, CPUs share.
const MAX_COUNTERS: u32 = 16;

/// See the module.
#[derive(Debug)]
pub struct Writers {
    /// A power of two.
    cpus: Box<[CachePadded<AtomicU32>]>,
}

/// A writer that is counted.
#[derive(Debug)]
pub struct Writing<'a>(&'a AtomicU32);

impl Writers {
    /// None yet, on so many CPUs.
    pub(super) fn new(nr_cpus: u32) -> Self {
        let counters = nr_cpus.clamp(1, MAX_COUNTERS).next_power_of_two();
        Self {
            cpus: (0..counters).map(|_| CachePadded::default()).collect(),
        }
    }

    /// Counts one more, until it is dropped, or ended as [`Writers::end`] does; that CPU's.
    #[inline]
    pub fn begin(&self, cpu: u32) -> Writing<'_> {
        let counter = self.of(cpu);
        counter.fetch_add(1, Ordering::AcqRel);
        Writing(counter)
    }

    /// One that began on that CPU, and was forgotten, ends.
    pub fn end(&self, cpu: u32) {
        drop(Writing(self.of(cpu)));
    }

    #[inline]
    fn of(&self, cpu: u32) -> &AtomicU32 {
        &self.cpus[cpu as usize & (self.cpus.len() - 1)]
    }

    /// There are any.
    pub fn any(&self) -> bool {
        self.cpus
            .iter()
            .any(|count| count.load(Ordering::Acquire) > 0)
    }
}

impl Drop for Writing<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_of_any_cpu_count() {
        let writers = Writers::new(2);
        assert!(!writers.any());
        let (first, second) = (writers.begin(0), writers.begin(1));
        drop(first);
        assert!(writers.any());
        std::mem::forget(second);
        writers.end(1);
        assert!(!writers.any());
    }
}
