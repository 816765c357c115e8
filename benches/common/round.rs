//! One round of one column: each operation in a burst.
#![allow(missing_docs, unreachable_pub, unsafe_code, reason = "a bench")]

use std::hint::black_box;
use std::time::Instant;

use mapemu::bench::burst::{BURST, CHUNK, ROUNDS, burst, median, ns_each, threads};
use mapemu::bench::column::{Column, Spec};

/// Maps of so many elements fit into the caches.
pub const SMALL: usize = 20_000;

pub const OPS: [&str; 11] = [
    "hit",
    "hit, alone",
    "miss",
    "update",
    "upd., alone",
    "insert",
    "delete",
    "ins.+del.",
    "take",
    "next key",
    "batch, each",
];

pub const HIT: usize = 0;
pub const BATCH: usize = OPS.len() - 1;

/// One round of one column: ns of each of [`OPS`]; 0 where the column has no such operation.
pub type Figures = [f64; OPS.len()];

/// Insertion, deletion, and lookup with deletion, in turns of a chunk each: a map that always changes the same key would have
/// its places, and the allocator's, at hand.
fn changes<const K: usize, const V: usize, C: Column<K>>(column: &C, keys: &[[u8; K]]) -> [f64; 4] {
    let mut value = [1; V];
    let chunks = keys.chunks(CHUNK).map(|keys| {
        let timed = |op: &mut dyn FnMut(&[u8; K])| {
            let start = Instant::now();
            keys.iter().for_each(op);
            ns_each(start.elapsed(), keys.len())
        };
        let delete = timed(&mut |key| assert!(column.delete(black_box(key))));
        let insert = timed(&mut |key| column.update(black_box(key), &[1; V]));
        let take = timed(&mut |key| assert!(column.take(black_box(key), &mut value)));
        for key in keys {
            column.update(key, &value);
        }
        [insert, delete, insert + delete, take]
    });
    let chunks: Vec<[f64; 4]> = chunks.collect();
    std::array::from_fn(|op| median(&mut chunks.iter().map(|chunk| chunk[op]).collect::<Vec<_>>()))
}

pub fn round<const K: usize, const V: usize, C: Column<K>>(
    column: &C,
    present: &[[u8; K]],
    absent: &[[u8; K]],
    at: usize,
) -> Figures {
    // Each operation has keys of its own, so that those of a large map are cold; a small map is warm.
    let part = |op: usize| at + op * BURST * ROUNDS;
    let of = |keys: &[[u8; K]], i: usize| keys[i % keys.len()];
    let small = present.len() <= SMALL;
    let mut value = [1; V];
    let warm = |op: usize| {
        let mut value = [1; V];
        let burst = if small { BURST } else { 0 };
        for i in 0..burst {
            column.lookup(&of(present, part(op) + i), &mut value);
        }
    };
    warm(0);
    let hit = burst(|i| assert!(column.lookup(black_box(&of(present, part(0) + i)), &mut value)));
    let miss = burst(|i| assert!(!column.lookup(black_box(&of(absent, part(0) + i)), &mut value)));
    warm(1);
    let update = burst(|i| column.update(black_box(&of(present, part(1) + i)), &value));
    // One at a time: what memory takes is not hidden behind the next operation.
    warm(3);
    let hit_alone = burst(|i| {
        wait();
        assert!(column.lookup(black_box(&of(present, part(3) + i)), &mut value));
    });
    warm(4);
    let update_alone = burst(|i| {
        wait();
        column.update(black_box(&of(present, part(4) + i)), &value);
    });
    warm(2);
    let changed: Vec<[u8; K]> = (0..BURST).map(|i| of(present, part(2) + i)).collect();
    let [insert, delete, cycle, take] = changes::<K, V, C>(column, &changed);
    let mut next = [0; K];
    let walks = column.next(None, &mut next);
    let walk = if walks {
        burst(|_| {
            let key = next;
            if !column.next(Some(&key), &mut next) {
                column.next(None, &mut next);
            }
        })
    } else {
        0.0
    };
    let batch = batch(column, small);
    [
        hit,
        hit_alone,
        miss,
        update,
        update_alone,
        insert,
        delete,
        cycle,
        take,
        walk,
        batch,
    ]
}

/// Waits until all that came before is done: the processor begins nothing ahead.
#[inline(always)]
fn wait() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: it reads and writes nothing.
    unsafe {
        std::arch::asm!("lfence");
    }
}

/// ns of an element of a batch; 0 where there are none.
fn batch<const K: usize, C: Column<K>>(column: &C, small: bool) -> f64 {
    if small {
        column.batch();
    }
    let start = Instant::now();
    let read = column.batch();
    if read == 0 {
        0.0
    } else {
        ns_each(start.elapsed(), read)
    }
}

/// How many lookups two threads do in the time in which one thread does one.
pub fn scaling<const K: usize, const V: usize, C: Column<K>>(
    column: &C,
    present: &[[u8; K]],
) -> f64 {
    let columns = [column.on_cpu(0), column.on_cpu(1)];
    let figure = threads(&|cpu, part| {
        let (column, mut value) = (&columns[cpu as usize], [0; V]);
        // Each thread has half of the keys for itself, if there are so many.
        let from = part * BURST + cpu as usize * present.len() / 2;
        burst(|i| {
            let key = &present[(from + i) % present.len()];
            assert!(column.lookup(black_box(key), &mut value));
        })
    });
    figure.scaling()
}

/// ns of lookups.
pub fn hits<const K: usize, C: Column<K>>(
    column: &C,
    present: &[[u8; K]],
    spec: &Spec,
    at: usize,
) -> f64 {
    let mut value = vec![0; spec.user_value_size()];
    let mut hits = |at| {
        burst(|i| {
            let key = &present[(at + i) % present.len()];
            assert!(column.lookup(black_box(key), &mut value));
        })
    };
    hits(at);
    hits(at)
}
