//! Free slots, a stack for each CPU, in the kernel's order.
//!
//! Slots are numbered from 0. Each CPU owns a run of them at first, stacked in rising order, so that the highest is on
//! top. A slot is taken from the caller's CPU, or from the next one that has any; it is freed to the caller's CPU.
//!
//! Making the stacks touches no slot: a stack is a list of slots that were freed, above a run that was never used.
//!
//! Kernel: `kernel/bpf/percpu_freelist.c` (v6.18).

use super::sync::{AtomicU32, Ordering, wait};

/// Where the link of a free slot is kept.
pub trait Links {
    /// The slot that lies under a free one.
    fn get(&self, slot: u32) -> u32;
    /// Puts a slot above another.
    fn set(&self, slot: u32, under: u32);
}

/// No slot.
pub const NONE: u32 = u32::MAX;

/// See the module.
#[derive(Debug)]
pub struct FreeLists {
    cpus: Box<[Stack]>,
}

/// One CPU's stack, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Stack {
    locked: AtomicU32,
    /// The slot freed last; changed under the lock.
    head: AtomicU32,
    /// The run that was never used, `start..end`, taken from its end; changed under the lock.
    start: AtomicU32,
    end: AtomicU32,
    /// A slot kept aside for replacing updates.
    spare: AtomicU32,
}

impl FreeLists {
    /// `n_slots` slots, all free, divided among the CPUs: the first ones get the rest of the division, one each.
    pub fn new(n_slots: u32, nr_cpus: u32) -> Self {
        let (each, rest) = (n_slots / nr_cpus, n_slots % nr_cpus);
        let mut start = 0;
        let cpus = (0..nr_cpus)
            .map(|cpu| {
                let end = start + each + u32::from(cpu < rest);
                let stack = Stack {
                    locked: AtomicU32::new(0),
                    head: AtomicU32::new(NONE),
                    start: AtomicU32::new(start),
                    end: AtomicU32::new(end),
                    spare: AtomicU32::new(NONE),
                };
                start = end;
                stack
            })
            .collect();
        Self { cpus }
    }

    /// Takes a slot: that CPU's top one, or that of the next CPU which has any.
    #[inline(always)]
    pub fn pop(&self, links: &impl Links, cpu: u32) -> Option<u32> {
        self.cpus[cpu as usize]
            .pop(links)
            .or_else(|| self.pop_of_others(links, cpu as usize))
    }

    #[cold]
    fn pop_of_others(&self, links: &impl Links, cpu: usize) -> Option<u32> {
        let (before, from) = self.cpus.split_at(cpu);
        let stacks = || from.iter().chain(before);
        stacks()
            .skip(1)
            .find_map(|stack| stack.pop(links))
            .or_else(|| {
                // A slot may have come to a stack that was looked at already; there is none if all are empty at once.
                self.cpus.iter().for_each(Stack::lock);
                let slot = stacks().find_map(|stack| stack.pop_locked(links));
                self.cpus.iter().for_each(Stack::unlock);
                slot
            })
    }

    /// Frees a slot, to that CPU.
    #[inline(always)]
    pub fn push(&self, links: &impl Links, cpu: u32, slot: u32) {
        let stack = &self.cpus[cpu as usize];
        stack.lock();
        links.set(slot, stack.head.load(Ordering::Relaxed));
        stack.head.store(slot, Ordering::Relaxed);
        stack.unlock();
    }

    /// Takes a slot for each CPU's spare one, all of them on `cpu`, which makes the map.
    ///
    /// # Panics
    ///
    /// If there are fewer slots than CPUs.
    pub fn set_spares(&self, links: &impl Links, cpu: u32) {
        for stack in &self.cpus {
            let slot = self
                .pop(links, cpu)
                .expect("there are more slots than CPUs");
            stack.spare.store(slot, Ordering::Relaxed);
        }
    }

    /// Takes that CPU's spare slot. It has to be put back, by [`FreeLists::put_spare`]: another thread that plays the same
    /// CPU waits for it.
    #[inline]
    pub fn take_spare(&self, cpu: u32) -> u32 {
        let spare = &self.cpus[cpu as usize].spare;
        let take = || Some(spare.swap(NONE, Ordering::Acquire)).filter(|slot| *slot != NONE);
        take().unwrap_or_else(|| wait(take))
    }

    /// Gives that CPU its next spare slot.
    #[inline]
    pub fn put_spare(&self, cpu: u32, slot: u32) {
        self.cpus[cpu as usize].spare.store(slot, Ordering::Release);
    }
}

impl Stack {
    #[inline(always)]
    fn pop(&self, links: &impl Links) -> Option<u32> {
        self.lock();
        let slot = self.pop_locked(links);
        self.unlock();
        slot
    }

    #[inline]
    fn pop_locked(&self, links: &impl Links) -> Option<u32> {
        let head = self.head.load(Ordering::Relaxed);
        let end = self.end.load(Ordering::Relaxed);
        if head != NONE {
            self.head.store(links.get(head), Ordering::Relaxed);
            Some(head)
        } else if end > self.start.load(Ordering::Relaxed) {
            self.end.store(end - 1, Ordering::Relaxed);
            Some(end - 1)
        } else {
            None
        }
    }

    #[inline(always)]
    fn lock(&self) {
        let lock = || (self.locked.swap(1, Ordering::Acquire) == 0).then_some(());
        lock().unwrap_or_else(|| wait(lock));
    }

    #[inline]
    fn unlock(&self) {
        self.locked.store(0, Ordering::Release);
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::cell::RefCell;

    use super::*;

    struct Array(RefCell<Vec<u32>>);

    impl Links for Array {
        fn get(&self, slot: u32) -> u32 {
            self.0.borrow()[slot as usize]
        }
        fn set(&self, slot: u32, under: u32) {
            self.0.borrow_mut()[slot as usize] = under;
        }
    }

    #[test]
    fn slots_come_as_the_kernel_gives_them() {
        let links = Array(RefCell::new(vec![NONE; 5]));
        let lists = FreeLists::new(5, 2);
        // CPU 0 has 0, 1, 2; CPU 1 has 3, 4.
        assert_eq!(lists.pop(&links, 1), Some(4));
        assert_eq!(lists.pop(&links, 0), Some(2));
        lists.push(&links, 1, 2);
        assert_eq!(
            lists.pop(&links, 1),
            Some(2),
            "freed to the CPU that freed it"
        );
        assert_eq!(lists.pop(&links, 1), Some(3));
        assert_eq!(
            lists.pop(&links, 1),
            Some(1),
            "from the next CPU that has any"
        );
        assert_eq!(lists.pop(&links, 1), Some(0));
        assert_eq!(lists.pop(&links, 0), None);
    }
}
