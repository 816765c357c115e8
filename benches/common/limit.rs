//! The open-coded limit: the kernel's hash and order with sizes known at compile time and no synchronisation at all. Beside
//! it stand the columns of `mapemu::bench`.
#![allow(
    missing_debug_implementations,
    unreachable_pub,
    unsafe_code,
    clippy::arc_with_non_send_sync,
    clippy::cast_possible_truncation,
    reason = "a bench: the limit is what no lock and no check costs"
)]

use std::cell::UnsafeCell;
use std::sync::Arc;

use mapemu::bench::column::{Column, Spec};

/// See the module. Two threads may only read it.
#[derive(Clone)]
pub struct Limit<const K: usize, const V: usize> {
    table: Arc<UnsafeCell<LimitTable<K, V>>>,
}

struct LimitTable<const K: usize, const V: usize> {
    heads: Vec<u32>,
    elems: Vec<LimitElem<K, V>>,
    free: Vec<u32>,
}

#[repr(C, align(8))]
#[derive(Clone)]
struct LimitElem<const K: usize, const V: usize> {
    next: u32,
    hash: u32,
    key: [u8; K],
    value: [u8; V],
}

// SAFETY: the benches write it from one thread only, while no other reads.
unsafe impl<const K: usize, const V: usize> Sync for Limit<K, V> {}
// SAFETY: as for `Sync`.
unsafe impl<const K: usize, const V: usize> Send for Limit<K, V> {}

const END: u32 = u32::MAX;

/// Bob Jenkins' lookup3 over the key, its length known at compile time.
#[inline]
pub fn lookup3<const K: usize>(key: &[u8; K]) -> u32 {
    let start = 0xdead_beef_u32.wrapping_add(K as u32);
    let (mut a, mut b, mut c) = (start, start, start);
    let word = |at: usize| {
        let mut bytes = [0; 4];
        let end = K.min(at + 4);
        if at < end {
            bytes[..end - at].copy_from_slice(&key[at..end]);
        }
        u32::from_le_bytes(bytes)
    };
    let mut at = 0;
    while K - at > 12 {
        a = a.wrapping_add(word(at));
        b = b.wrapping_add(word(at + 4));
        c = c.wrapping_add(word(at + 8));
        a = a.wrapping_sub(c) ^ c.rotate_left(4);
        c = c.wrapping_add(b);
        b = b.wrapping_sub(a) ^ a.rotate_left(6);
        a = a.wrapping_add(c);
        c = c.wrapping_sub(b) ^ b.rotate_left(8);
        b = b.wrapping_add(a);
        a = a.wrapping_sub(c) ^ c.rotate_left(16);
        c = c.wrapping_add(b);
        b = b.wrapping_sub(a) ^ a.rotate_left(19);
        a = a.wrapping_add(c);
        c = c.wrapping_sub(b) ^ b.rotate_left(4);
        b = b.wrapping_add(a);
        at += 12;
    }
    a = a.wrapping_add(word(at));
    b = b.wrapping_add(word(at + 4));
    c = c.wrapping_add(word(at + 8));
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

impl<const K: usize, const V: usize> LimitTable<K, V> {
    #[inline]
    fn find(&self, key: &[u8; K], hash: u32) -> Option<u32> {
        let mut at = self.heads[hash as usize & (self.heads.len() - 1)];
        while at != END {
            let elem = &self.elems[at as usize];
            if elem.hash == hash && elem.key == *key {
                return Some(at);
            }
            at = elem.next;
        }
        None
    }
}

impl<const K: usize, const V: usize> Column<K> for Limit<K, V> {
    const NAME: &'static str = "limit";

    fn new(spec: &Spec) -> Option<Self> {
        let elem = LimitElem {
            next: END,
            hash: 0,
            key: [0; K],
            value: [0; V],
        };
        Some(Self {
            table: Arc::new(UnsafeCell::new(LimitTable {
                heads: vec![END; spec.max_entries.next_power_of_two()],
                elems: vec![elem; spec.max_entries],
                free: (0..spec.max_entries as u32).collect(),
            })),
        })
    }

    fn on_cpu(&self, _cpu: u32) -> Self {
        self.clone()
    }

    #[inline]
    fn lookup(&self, key: &[u8; K], value: &mut [u8]) -> bool {
        // SAFETY: no thread writes while threads read (see `Sync`).
        let table = unsafe { &*self.table.get() };
        match table.find(key, lookup3(key)) {
            Some(at) => {
                value.copy_from_slice(&table.elems[at as usize].value);
                true
            }
            None => false,
        }
    }

    #[inline]
    fn update(&self, key: &[u8; K], value: &[u8]) {
        // SAFETY: one thread writes (see `Sync`).
        let table = unsafe { &mut *self.table.get() };
        let hash = lookup3(key);
        if let Some(at) = table.find(key, hash) {
            table.elems[at as usize].value.copy_from_slice(value);
            return;
        }
        let at = table.free.pop().expect("room");
        let bucket = hash as usize & (table.heads.len() - 1);
        let next = table.heads[bucket];
        table.elems[at as usize] = LimitElem {
            next,
            hash,
            key: *key,
            value: value.try_into().expect("a value's bytes"),
        };
        table.heads[bucket] = at;
    }

    #[inline]
    fn delete(&self, key: &[u8; K]) -> bool {
        // SAFETY: one thread writes (see `Sync`).
        let table = unsafe { &mut *self.table.get() };
        let hash = lookup3(key);
        let bucket = hash as usize & (table.heads.len() - 1);
        let (mut before, mut at) = (END, table.heads[bucket]);
        while at != END {
            let elem = &table.elems[at as usize];
            let next = elem.next;
            if elem.hash == hash && elem.key == *key {
                if before == END {
                    table.heads[bucket] = next;
                } else {
                    table.elems[before as usize].next = next;
                }
                table.free.push(at);
                return true;
            }
            (before, at) = (at, next);
        }
        false
    }

    #[inline]
    fn take(&self, key: &[u8; K], value: &mut [u8]) -> bool {
        self.lookup(key, value) && self.delete(key)
    }
}
