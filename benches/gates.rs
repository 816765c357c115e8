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
#[path = "common/round.rs"]
mod round;

use copies::Copies;
use exact::Exact;
use limit::Limit;
use mapemu::abi::MapType;
use mapemu::bench::burst::{BURST, ROUNDS, median_of};
use mapemu::bench::column::{Spec, filled, keys};
use mapemu::bench::dash::{DashArr, DashBox};
use mapemu::bench::emulated::{Emulated, EmulatedBpf};
use mapemu::bench::running::Running;
use round::{BATCH, HIT, OPS, SMALL, hits, round, scaling};

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
    let small = entries <= SMALL;

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
        &|at| [copies.burst(at, small); OPS.len()],
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
        &|at| [copies.burst(at, entries <= SMALL)],
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
        &|at| [two.burst(at, true)],
        &|at| [one.burst(at, true)],
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
