//! Ratios to the running kernel, to dashmap and to open-coded limits: what docs/performance.md tells.
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

#[path = "common/copies.rs"]
mod copies;
#[path = "common/exact.rs"]
mod exact;
#[path = "common/limit.rs"]
mod limit;

use std::hint::black_box;
use std::time::Instant;

use copies::Copies;
use exact::Exact;
use limit::Limit;
use mapemu::abi::MapType;
use mapemu::bench::burst::{BURST, CHUNK, ROUNDS, burst, median, median_of, ns_each, threads};
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

const HIT: usize = 0;
const BATCH: usize = OPS.len() - 1;

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

/// What each column took in each round. Another one begins each time: who comes first finds the keys cold.
fn rounds<const N: usize, const M: usize>(
    columns: [&dyn Fn(usize) -> [f64; M]; N],
) -> Vec<[[f64; M]; N]> {
    let of_round = |number: usize| {
        let mut figures = [[0.0; M]; N];
        for turn in 0..N {
            let column = (number + turn) % N;
            figures[column] = columns[column](number * BURST);
        }
        figures
    };
    (0..ROUNDS).map(of_round).collect()
}

/// The ratio of two columns.
fn ratio<const N: usize, const M: usize>(
    rounds: &[[[f64; M]; N]],
    [over, under]: [usize; 2],
    op: usize,
) -> f64 {
    median_of(
        rounds
            .iter()
            .map(|round| round[over][op] / round[under][op]),
    )
}

const OWN: usize = 0;
const BPF: usize = 1;
const KERNEL: usize = 2;
const DASHMAP: usize = 3;
const BOXED: usize = 4;
const LIMIT: usize = 5;
const EXACT: usize = 6;
const COPY: usize = 7;

/// The ratios of a cell's table.
const RATIOS: [(&str, [usize; 2]); 9] = [
    ("kernel÷", [KERNEL, OWN]),
    ("÷dashmap", [OWN, DASHMAP]),
    ("÷boxed", [OWN, BOXED]),
    ("÷limit", [OWN, LIMIT]),
    ("÷exact", [OWN, EXACT]),
    ("k÷limit", [KERNEL, LIMIT]),
    ("k÷exact", [KERNEL, EXACT]),
    ("limit÷b", [LIMIT, BOXED]),
    ("exact÷b", [EXACT, BOXED]),
];

fn cell<const K: usize, const V: usize>(entries: usize) {
    let present = keys::<K>(entries * 96 / 100, 0);
    let absent = keys::<K>(entries * 96 / 100, 1 << 31);
    let spec = &Spec::new(MapType::HASH, K, V, entries);
    let own: Emulated = filled(spec, &present).expect("always there");
    let by_bpf: EmulatedBpf = filled(spec, &present).expect("always there");
    let kernel: Option<Running> = filled(spec, &present);
    let arr: DashArr<K, V> = filled(spec, &present).expect("always there");
    let boxed: DashBox = filled(spec, &present).expect("always there");
    let limit: Limit<K, V> = filled(spec, &present).expect("always there");
    let exact: Exact<K, V> = filled(spec, &present).expect("always there");
    let copies = Copies::<V>::new(present.len());

    let mut rounds = rounds([
        &|at| round::<K, V, _>(&own, &present, &absent, at),
        &|at| round::<K, V, _>(&by_bpf, &present, &absent, at),
        &|at| {
            let kernel = kernel.as_ref();
            kernel.map_or([0.0; OPS.len()], |kernel| {
                round::<K, V, _>(kernel, &present, &absent, at)
            })
        },
        &|at| round::<K, V, _>(&arr, &present, &absent, at),
        &|at| round::<K, V, _>(&boxed, &present, &absent, at),
        &|at| round::<K, V, _>(&limit, &present, &absent, at),
        &|at| round::<K, V, _>(&exact, &present, &absent, at),
        &|at| [copies.burst(at); OPS.len()],
    ]);
    for round in &mut rounds {
        // A handle has no batches.
        round[OWN][BATCH] = round[BPF][BATCH];
    }
    // Afterwards: the other core keeps what it read, and the next write to each of those lines is dear.
    let scaling = |keys: &[[u8; K]]| median_of((0..ROUNDS).map(|_| scaling::<K, V, _>(&own, keys)));
    let (all, one) = (scaling(&present), scaling(&present[..1]));
    println!(
        "\n{K}/{V} {entries}: ns, then ratios (÷dashmap … ÷exact: own ÷ the others; k: kernel; b: boxed)"
    );
    print!("{:>14} {:>8}", "", "own ns");
    RATIOS.iter().for_each(|(name, _)| print!(" {name:>8}"));
    for (op, name) in OPS.iter().enumerate() {
        let own = median_of(rounds.iter().map(|round| round[OWN][op]));
        print!("\n{name:>14} {own:>8.1}");
        for (_, columns) in RATIOS {
            print!(" {:>8.2}", ratio(&rounds, columns, op));
        }
    }
    println!(
        "\nbpf(2) hit: kernel ÷ own {:.1}; two threads: scaling {all:.2}, on one key {one:.2}\n\
         a copy of {V} bytes from a random place: kernel's hit ÷ copy {:.1}, its element of a batch ÷ copy {:.1}",
        ratio(&rounds, [KERNEL, BPF], HIT),
        ratio(&rounds, [KERNEL, COPY], HIT),
        ratio(&rounds, [KERNEL, COPY], BATCH),
    );
}

/// ns of lookups.
fn hits<const K: usize, C: Column<K>>(
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

/// Lookups in an array, beside the kernel's, and an index and a copy.
fn array<const V: usize>(entries: usize) {
    let present = keys::<4>(entries, 0);
    let spec = &Spec::new(MapType::ARRAY, 4, V, entries);
    let own: Emulated = filled(spec, &present).expect("always there");
    let kernel: Option<Running> = filled(spec, &present);
    let copies = Copies::<V>::new(entries);
    let rounds = rounds([
        &|at| [hits(&own, &present, spec, at)],
        &|at| {
            [kernel
                .as_ref()
                .map_or(0.0, |kernel| hits(kernel, &present, spec, at))]
        },
        &|at| [copies.burst(at)],
    ]);
    println!(
        "\nARRAY {V} {entries}: kernel ÷ own {:.1}, own ÷ index and copy {:.2}, kernel ÷ index and copy {:.1}",
        ratio(&rounds, [1, 0], 0),
        ratio(&rounds, [0, 2], 0),
        ratio(&rounds, [1, 2], 0),
    );
}

/// Lookups of the values of two CPUs, beside those of one, and both beside copies of as many bytes.
fn percpu<const K: usize, const V: usize, const BOTH: usize>(entries: usize) {
    let present = keys::<K>(entries * 96 / 100, 0);
    let percpu = &Spec::new(MapType::PERCPU_HASH, K, V, entries);
    let hash = &Spec::new(MapType::HASH, K, V, entries);
    let of_two: Emulated = filled(percpu, &present).expect("always there");
    let of_one: Emulated = filled(hash, &present).expect("always there");
    let (two, one) = (Copies::<BOTH>::new(entries), Copies::<V>::new(entries));
    let rounds = rounds([
        &|at| [hits(&of_two, &present, percpu, at)],
        &|at| [hits(&of_one, &present, hash, at)],
        &|at| [two.burst(at)],
        &|at| [one.burst(at)],
    ]);
    println!(
        "\nPERCPU_HASH {K}/{V} {entries}: ÷ HASH {:.2}; a copy of {BOTH} bytes ÷ one of {V} {:.2}",
        ratio(&rounds, [0, 1], 0),
        ratio(&rounds, [2, 3], 0),
    );
}

/// Words as arguments are filters: the cells whose names have them all are measured.
fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    // So calls `cargo test`.
    if words.iter().any(|word| word == "--test") {
        return;
    }
    let cells: [(&str, fn()); 14] = [
        ("HASH 4/8 10k", || cell::<4, 8>(10_000)),
        ("HASH 16/64 10k", || cell::<16, 64>(10_000)),
        ("HASH 64/8 10k", || cell::<64, 8>(10_000)),
        ("HASH 16/1024 10k", || cell::<16, 1024>(10_000)),
        ("HASH 4/8 1M", || cell::<4, 8>(1_000_000)),
        ("HASH 16/64 1M", || cell::<16, 64>(1_000_000)),
        ("HASH 64/8 1M", || cell::<64, 8>(1_000_000)),
        ("HASH 16/1024 100k", || cell::<16, 1024>(100_000)),
        ("ARRAY 8 10k", || array::<8>(10_000)),
        ("ARRAY 64 10k", || array::<64>(10_000)),
        ("ARRAY 1024 10k", || array::<1024>(10_000)),
        ("ARRAY 64 1M", || array::<64>(1_000_000)),
        ("PERCPU_HASH 4/8 10k", || percpu::<4, 8, 16>(10_000)),
        ("PERCPU_HASH 16/64 10k", || percpu::<16, 64, 128>(10_000)),
    ];
    for (name, run) in cells {
        if words.iter().all(|word| name.contains(word.as_str())) {
            run();
        }
    }
}
