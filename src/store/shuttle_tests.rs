//! Tests of [`Table`] and [`FreeLists`] under a scheduler that tries orders of their steps:
//! `RUSTFLAGS="--cfg shuttle" cargo test --lib --release store::`

use shuttle::sync::Arc;
use shuttle::{check_random, thread};

use super::sync::Ordering;
use super::{FreeLists, Table};

const RUNS: usize = 20_000;

/// A table with one bucket for all keys, and its free slots: what the rule books make of these.
struct Elems {
    table: Table,
    free: FreeLists,
}

impl Elems {
    fn new(n_buckets: u32, n_slots: u32) -> Self {
        let table = Table::new(n_buckets, n_slots, 8, 1, 0).expect("memory");
        let free = FreeLists::new(n_slots, 2);
        free.set_spares(&table, 0);
        Self { table, free }
    }

    /// An update that replaces; false if there is no slot.
    fn update(&self, cpu: u32, key: u64, value: u64) -> bool {
        let hash = self.table.hash(key);
        let mut bucket = self.table.lock(hash);
        let old = bucket.find(key, hash);
        let slot = match old {
            Some(_) => Some(self.free.take_spare(cpu)),
            None => self.free.pop(&self.table, cpu),
        };
        let Some(slot) = slot else { return false };
        self.table.write_key(slot, key);
        let words = self.table.words();
        words
            .word(self.table.value_at(slot))
            .store(value, Ordering::Relaxed);
        match old {
            Some(old) => {
                bucket.replace(old, slot, hash);
                drop(bucket);
                self.free.put_spare(cpu, old.slot);
            }
            None => bucket.insert(slot, hash),
        }
        true
    }

    fn delete(&self, cpu: u32, key: u64) -> bool {
        let hash = self.table.hash(key);
        let mut bucket = self.table.lock(hash);
        let Some(old) = bucket.find(key, hash) else {
            return false;
        };
        bucket.remove(old);
        drop(bucket);
        self.free.push(&self.table, cpu, old.slot);
        true
    }

    fn lookup(&self, key: u64) -> Option<u64> {
        self.table.read(key, |slot| {
            let word = self.table.words().word(self.table.value_at(slot));
            word.load(Ordering::Relaxed)
        })
    }
}

#[test]
fn a_replaced_key_is_never_absent() {
    check_random(
        || {
            let elems = Arc::new(Elems::new(1, 5));
            // Key 1 is behind, so that its replacement takes two steps.
            elems.update(0, 1, 10);
            elems.update(0, 2, 20);
            let writers = [0, 1].map(|cpu| {
                let elems = Arc::clone(&elems);
                thread::spawn(move || {
                    for step in 0..2 {
                        assert!(elems.update(cpu, 1, 10 + step));
                        assert!(elems.update(cpu, 2, 20 + step));
                    }
                })
            });
            for _ in 0..3 {
                let value = elems.lookup(1);
                assert!(matches!(value, Some(10 | 11)), "{value:?}");
            }
            for writer in writers {
                writer.join().expect("no panic");
            }
        },
        RUNS,
    );
}

#[test]
fn a_lookup_reads_one_keys_value_only() {
    check_random(
        || {
            let elems = Arc::new(Elems::new(2, 4));
            elems.update(0, 1, 10);
            let writers = [0, 1].map(|cpu| {
                let elems = Arc::clone(&elems);
                thread::spawn(move || {
                    for key in 1..5 {
                        elems.update(cpu, key, key * 10);
                        elems.delete(cpu, key);
                    }
                })
            });
            for key in 1..4 {
                let value = elems.lookup(key);
                assert!(value.is_none_or(|value| value == key * 10), "{value:?}");
            }
            for writer in writers {
                writer.join().expect("no panic");
            }
        },
        RUNS,
    );
}

#[test]
fn a_walk_goes_by_keys_that_are_there_whatever_is_replaced() {
    check_random(
        || {
            let elems = Arc::new(Elems::new(2, 6));
            for key in 1..4 {
                elems.update(0, key, key);
            }
            let writers = [0, 1].map(|cpu| {
                let elems = Arc::clone(&elems);
                thread::spawn(move || {
                    elems.update(cpu, 1, 10);
                    elems.update(cpu, 2, 20);
                    // Its slot is another key's next.
                    elems.delete(cpu, 3);
                    elems.update(cpu, 4, 40);
                })
            });
            // From keys that are never absent a walk goes on: it begins anew from one that is.
            let bucket_of = |key: u64| elems.table.bucket_of(elems.table.hash(key));
            for from in [1, 2] {
                let mut next = [0; 8];
                if elems
                    .table
                    .next_key(Some(&u64::to_ne_bytes(from)), &mut next)
                {
                    let next = u64::from_ne_bytes(next);
                    assert!((1..5).contains(&next) && next != from, "{next}");
                    assert!(bucket_of(next) >= bucket_of(from));
                }
            }
            for writer in writers {
                writer.join().expect("no panic");
            }
        },
        RUNS,
    );
}

#[test]
fn no_slot_is_lost_or_given_twice() {
    check_random(
        || {
            let elems = Arc::new(Elems::new(2, 6));
            // Threads play the same CPU, too.
            let threads = [(0, 1), (0, 2), (1, 3)].map(|(cpu, key)| {
                let elems = Arc::clone(&elems);
                thread::spawn(move || {
                    for step in 0..2 {
                        assert!(elems.update(cpu, key, step), "there is room for all");
                        assert!(elems.update(cpu, key, 7));
                        assert_eq!(elems.lookup(key), Some(7));
                        assert!(elems.delete(cpu, key));
                        assert_eq!(elems.lookup(key), None);
                    }
                })
            });
            for thread in threads {
                thread.join().expect("no panic");
            }
            let mut slots: Vec<u32> = (0..4)
                .map(|_| elems.free.pop(&elems.table, 1).expect("all are free"))
                .chain([0, 1].map(|cpu| elems.free.take_spare(cpu)))
                .collect();
            assert_eq!(elems.free.pop(&elems.table, 1), None);
            slots.sort_unstable();
            assert_eq!(slots, [0, 1, 2, 3, 4, 5]);
        },
        RUNS,
    );
}

#[test]
fn of_two_writers_of_a_new_key_one_makes_it() {
    check_random(
        || {
            let elems = Arc::new(Elems::new(1, 4));
            let writers = [0, 1].map(|cpu| {
                let elems = Arc::clone(&elems);
                thread::spawn(move || {
                    let key = 1_u64;
                    let hash = elems.table.hash(key);
                    let mut bucket = elems.table.lock(hash);
                    if bucket.find(key, hash).is_some() {
                        return 0;
                    }
                    let slot = elems.free.pop(&elems.table, cpu).expect("there is room");
                    elems.table.write_key(slot, key);
                    bucket.insert(slot, hash);
                    1
                })
            });
            let made: u32 = writers.map(|w| w.join().expect("no panic")).iter().sum();
            assert_eq!(made, 1);
        },
        RUNS,
    );
}
