//! The open-coded limit of an exact map: beside the hash and the order of [`crate::limit`], what no map can do without whose
//! readers take no lock and whose updates are the kernel's, and nothing else.
//!
//! Sizes are known at compile time and nothing is checked. A bucket is a word {link: 32 bits, version: 31, locked: 1}; each
//! write is made under that bit, which is exchanged and given back by a release store. An update links a new element in
//! front, the CPU's spare one, which is taken by an exchange; free elements are in a list of the CPU's own, under its own
//! lock. Readers look at the version afterwards. Memory is in huge pages.
#![allow(
    missing_debug_implementations,
    unreachable_pub,
    unsafe_code,
    clippy::cast_possible_truncation,
    clippy::multiple_unsafe_ops_per_block,
    reason = "a bench: the limit is what no check costs"
)]

use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use mapemu::bench::column::{Column, Spec};
use memmap2::{Advice, MmapMut};

use crate::limit::lookup3;

const LOCKED: u64 = 1 << 63;
const VERSION: u64 = (LOCKED - 1) & !LINK;
const LINK: u64 = 0xffff_ffff;

/// See the module. Two threads may only read it.
#[derive(Clone)]
pub struct Exact<const K: usize, const V: usize> {
    table: Arc<Table<K, V>>,
}

struct Table<const K: usize, const V: usize> {
    buckets: Block<AtomicU64>,
    mask: u32,
    /// Links count from 1.
    elems: Block<Elem<K, V>>,
    cpu: Cpu,
}

#[repr(align(128))]
struct Cpu {
    spare: AtomicU32,
    locked: AtomicU32,
    free: AtomicU32,
}

#[repr(C, align(8))]
struct Elem<const K: usize, const V: usize> {
    next: AtomicU32,
    /// Of a free element: the next free one.
    hash: AtomicU32,
    key: UnsafeCell<[u8; K]>,
    value: UnsafeCell<[u8; V]>,
}

/// Zeros, in huge pages if they are many.
struct Block<T> {
    memory: MmapMut,
    of: PhantomData<T>,
}

// SAFETY: keys and values are written by one thread only, while no other reads; all else is atomic.
unsafe impl<const K: usize, const V: usize> Sync for Table<K, V> {}
// SAFETY: as for `Sync`.
unsafe impl<const K: usize, const V: usize> Send for Table<K, V> {}

impl<T> Block<T> {
    fn new(len: usize) -> Self {
        let memory = MmapMut::map_anon(len * size_of::<T>()).expect("memory");
        // A refusal costs speed, nothing else.
        let _ = memory.advise(Advice::HugePage);
        Self {
            memory,
            of: PhantomData,
        }
    }

    #[inline(always)]
    fn at(&self, index: u32) -> &T {
        // SAFETY: the table links only what it has; pages are aligned, and zeros are valid for all that it keeps.
        unsafe { &*self.memory.as_ptr().cast::<T>().add(index as usize) }
    }
}

impl<const K: usize, const V: usize> Table<K, V> {
    #[inline(always)]
    fn bucket(&self, hash: u32) -> &AtomicU64 {
        self.buckets.at(hash & self.mask)
    }

    #[inline(always)]
    fn lock(bucket: &AtomicU64) -> u64 {
        loop {
            let word = bucket.load(Ordering::Relaxed) & !LOCKED;
            let locked = word | LOCKED;
            let exchanged =
                bucket.compare_exchange_weak(word, locked, Ordering::Acquire, Ordering::Relaxed);
            if exchanged.is_ok() {
                return word;
            }
            spin_loop();
        }
    }

    /// The element and the one in front of it; 0 for none.
    #[inline(always)]
    fn find(&self, word: u64, key: &[u8; K], hash: u32) -> (u32, u32) {
        let (mut before, mut at) = (0, (word & LINK) as u32);
        while at != 0 {
            let elem = self.elems.at(at);
            // SAFETY: see `Sync`.
            if elem.hash.load(Ordering::Relaxed) == hash && unsafe { *elem.key.get() } == *key {
                break;
            }
            (before, at) = (at, elem.next.load(Ordering::Acquire));
        }
        (at, before)
    }

    #[inline(always)]
    fn copy(&self, at: u32, value: &mut [u8]) {
        // SAFETY: see `Sync`.
        value.copy_from_slice(unsafe { &*self.elems.at(at).value.get() });
    }

    #[inline(always)]
    fn fill(&self, at: u32, next: u32, hash: u32, key: &[u8; K], value: &[u8]) {
        let elem = self.elems.at(at);
        // SAFETY: see `Sync`.
        unsafe {
            *elem.key.get() = *key;
            *elem.value.get() = value.try_into().expect("a value's bytes");
        }
        elem.hash.store(hash, Ordering::Relaxed);
        elem.next.store(next, Ordering::Release);
    }

    /// Takes an element out of a locked bucket, and unlocks it.
    #[inline(always)]
    fn remove(&self, bucket: &AtomicU64, word: u64, at: u32, before: u32) {
        let next = self.elems.at(at).next.load(Ordering::Relaxed);
        if before == 0 {
            bucket.store(word_of(next, word), Ordering::Release);
        } else {
            self.elems.at(before).next.store(next, Ordering::Release);
            bucket.store(word_of((word & LINK) as u32, word), Ordering::Release);
        }
        self.free(|cpu| {
            let under = cpu.free.load(Ordering::Relaxed);
            self.elems.at(at).hash.store(under, Ordering::Relaxed);
            cpu.free.store(at, Ordering::Relaxed);
        });
    }

    /// The CPU's free elements, under their lock.
    #[inline(always)]
    fn free<R>(&self, f: impl FnOnce(&Cpu) -> R) -> R {
        while self.cpu.locked.swap(1, Ordering::Acquire) != 0 {
            spin_loop();
        }
        let answer = f(&self.cpu);
        self.cpu.locked.store(0, Ordering::Release);
        answer
    }
}

/// A bucket's word with that front, and the next version.
#[inline(always)]
fn word_of(front: u32, word: u64) -> u64 {
    (word + LINK + 1) & VERSION | u64::from(front)
}

impl<const K: usize, const V: usize> Column<K> for Exact<K, V> {
    const NAME: &'static str = "exact limit";

    fn new(spec: &Spec) -> Option<Self> {
        let n_buckets = spec.max_entries.next_power_of_two();
        let table = Table {
            buckets: Block::new(n_buckets),
            mask: n_buckets as u32 - 1,
            elems: Block::new(spec.max_entries + 2),
            cpu: Cpu {
                spare: AtomicU32::new(spec.max_entries as u32 + 1),
                locked: AtomicU32::new(0),
                free: AtomicU32::new(spec.max_entries as u32),
            },
        };
        for at in 1..=spec.max_entries as u32 {
            let elem: &Elem<K, V> = table.elems.at(at);
            elem.hash.store(at - 1, Ordering::Relaxed);
        }
        Some(Self {
            table: Arc::new(table),
        })
    }

    fn on_cpu(&self, _cpu: u32) -> Self {
        self.clone()
    }

    #[inline]
    fn lookup(&self, key: &[u8; K], value: &mut [u8]) -> bool {
        let (table, hash) = (&*self.table, lookup3(key));
        let bucket = table.bucket(hash);
        loop {
            let word = bucket.load(Ordering::Acquire);
            let (at, _) = table.find(word, key, hash);
            if at != 0 {
                table.copy(at, value);
            }
            fence(Ordering::Acquire);
            if (bucket.load(Ordering::Relaxed) ^ word) & VERSION == 0 {
                return at != 0;
            }
        }
    }

    #[inline]
    fn update(&self, key: &[u8; K], value: &[u8]) {
        let (table, hash) = (&*self.table, lookup3(key));
        let bucket = table.bucket(hash);
        let word = Table::<K, V>::lock(bucket);
        let (old, before) = table.find(word, key, hash);
        let front = (word & LINK) as u32;
        if old == 0 {
            let new = table.free(|cpu| {
                let new = cpu.free.load(Ordering::Relaxed);
                let under = table.elems.at(new).hash.load(Ordering::Relaxed);
                cpu.free.store(under, Ordering::Relaxed);
                new
            });
            table.fill(new, front, hash, key, value);
            bucket.store(word & VERSION | u64::from(new), Ordering::Release);
            return;
        }
        let new = table.cpu.spare.swap(0, Ordering::Acquire);
        let behind = table.elems.at(old).next.load(Ordering::Relaxed);
        let changed = word_of(new, word);
        if before == 0 {
            table.fill(new, behind, hash, key, value);
        } else {
            table.fill(new, front, hash, key, value);
            // Its readers find the one or the other.
            bucket.store(changed | LOCKED, Ordering::Release);
            table.elems.at(before).next.store(behind, Ordering::Release);
        }
        bucket.store(changed, Ordering::Release);
        table.cpu.spare.store(old, Ordering::Release);
    }

    #[inline]
    fn delete(&self, key: &[u8; K]) -> bool {
        self.take(key, &mut [])
    }

    #[inline]
    fn take(&self, key: &[u8; K], value: &mut [u8]) -> bool {
        let (table, hash) = (&*self.table, lookup3(key));
        let bucket = table.bucket(hash);
        let word = Table::<K, V>::lock(bucket);
        let (at, before) = table.find(word, key, hash);
        if at == 0 {
            bucket.store(word, Ordering::Release);
            return false;
        }
        if !value.is_empty() {
            table.copy(at, value);
        }
        table.remove(bucket, word, at, before);
        true
    }
}
