//! Ratios to the running kernel, to dashmap and to the open-coded limit, as docs/performance.md names them.
//!
//! Absolute times are good to a third only on a shared machine, so each figure is a ratio within one round: the columns
//! take turns in short bursts, a burst is the median over chunks of operations, and the figure is the median over the
//! rounds. Nothing is asserted here.
#![allow(
    missing_docs,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a bench"
)]

#[path = "common/limit.rs"]
mod limit;

use std::hint::black_box;
use std::time::Instant;

use limit::Limit;
use mapemu::abi::MapType;
use mapemu::bench::burst::{BURST, CHUNK, ROUNDS, burst, median, ns_each, threads};
use mapemu::bench::column::{Column, Spec, filled, keys};
use mapemu::bench::dash::{DashArr, DashBox};
use mapemu::bench::emulated::{Emulated, EmulatedBpf};
use mapemu::bench::running::Running;

/// Maps of so many elements fit into the caches.
const SMALL: usize = 20_000;

const OPS: [&str; 9] = [
    "hit",
    "miss",
    "update",
    "insert",
    "delete",
    "ins.+del.",
    "take",
    "next key",
    "batch, each",
];

/// One round of one column: ns of each of [`OPS`]; 0 where the column has no such operation.
type Figures = [f64; OPS.len()];

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

fn round<const K: usize, const V: usize, C: Column<K>>(
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
    [hit, miss, update, insert, delete, cycle, take, walk, batch]
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
fn scaling<const K: usize, const V: usize, C: Column<K>>(column: &C, present: &[[u8; K]]) -> f64 {
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

fn cell<const K: usize, const V: usize>(entries: usize) {
    let present = keys::<K>(entries * 96 / 100, 0);
    let absent = keys::<K>(entries * 96 / 100, 1 << 31);
    let spec = &Spec::new(MapType::HASH, K, V, entries);
    let emulated: Emulated = filled(spec, &present).expect("always there");
    let by_bpf: EmulatedBpf = filled(spec, &present).expect("always there");
    let running: Option<Running> = filled(spec, &present);
    let arr: DashArr<K, V> = filled(spec, &present).expect("always there");
    let boxed: DashBox = filled(spec, &present).expect("always there");
    let limit: Limit<K, V> = filled(spec, &present).expect("always there");

    let mut rounds: Vec<[Figures; 6]> = Vec::new();
    for number in 0..ROUNDS {
        let at = number * BURST;
        let mut figures = [[0.0; OPS.len()]; 6];
        // Another one begins each time: who comes first finds the keys cold.
        for turn in 0..figures.len() {
            let column = (number + turn) % figures.len();
            figures[column] = match column {
                0 => round::<K, V, _>(&emulated, &present, &absent, at),
                1 => round::<K, V, _>(&by_bpf, &present, &absent, at),
                2 => running.as_ref().map_or([0.0; OPS.len()], |kernel| {
                    round::<K, V, _>(kernel, &present, &absent, at)
                }),
                3 => round::<K, V, _>(&arr, &present, &absent, at),
                4 => round::<K, V, _>(&boxed, &present, &absent, at),
                _ => round::<K, V, _>(&limit, &present, &absent, at),
            };
        }
        // A handle has no batches.
        figures[0][OPS.len() - 1] = figures[1][OPS.len() - 1];
        rounds.push(figures);
    }
    // Afterwards: the other core keeps what it read, and the next write to each of those lines is dear.
    let pairs: Vec<[f64; 2]> = (0..ROUNDS)
        .map(|_| {
            [
                scaling::<K, V, _>(&emulated, &present),
                scaling::<K, V, _>(&emulated, &present[..1]),
            ]
        })
        .collect();
    let ratio = |over: usize, under: usize, op: usize| {
        let mut ratios: Vec<f64> = rounds.iter().map(|r| r[over][op] / r[under][op]).collect();
        median(&mut ratios)
    };
    println!(
        "\n{K}/{V} {entries}: ns, then ratios (kernel ÷ own: more is better; own ÷ the others: less is better)"
    );
    println!(
        "{:>14} {:>8} {:>8} {:>9} {:>9} {:>9}",
        "", "own ns", "kernel÷", "÷dashmap", "÷boxed", "÷limit"
    );
    for (op, name) in OPS.iter().enumerate() {
        let mut own: Vec<f64> = rounds.iter().map(|r| r[0][op]).collect();
        println!(
            "{name:>14} {:>8.1} {:>8.1} {:>9.2} {:>9.2} {:>9.2}",
            median(&mut own),
            ratio(2, 0, op),
            ratio(0, 3, op),
            ratio(0, 4, op),
            ratio(0, 5, op)
        );
    }
    let column = |index: usize| {
        let mut figures: Vec<f64> = pairs.iter().map(|pair| pair[index]).collect();
        median(&mut figures)
    };
    println!(
        "bpf(2) hit: kernel ÷ own {:.1}; two threads: scaling {:.2}, on one key {:.2}",
        ratio(2, 1, 0),
        column(0),
        column(1)
    );
}

/// A word as argument is a filter: the cells whose names have it are measured.
fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    // So calls `cargo test`.
    if words.iter().any(|word| word == "--test") {
        return;
    }
    let cells: [(&str, fn()); 8] = [
        ("4/8 10k", || cell::<4, 8>(10_000)),
        ("16/64 10k", || cell::<16, 64>(10_000)),
        ("64/8 10k", || cell::<64, 8>(10_000)),
        ("16/1024 10k", || cell::<16, 1024>(10_000)),
        ("4/8 1M", || cell::<4, 8>(1_000_000)),
        ("16/64 1M", || cell::<16, 64>(1_000_000)),
        ("64/8 1M", || cell::<64, 8>(1_000_000)),
        ("16/1024 100k", || cell::<16, 1024>(100_000)),
    ];
    for (name, run) in cells {
        if words.iter().all(|word| name.contains(word.as_str())) {
            run();
        }
    }
}
