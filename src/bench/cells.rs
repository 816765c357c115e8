//! The table, in cells: maps of one type and size, with all operations that they have.

use std::hint::black_box;

use super::burst::{Threads, burst, threads};
use super::column::{Column, Random, Spec, filled, keys};
use super::dash::DashArr;
use super::emulated::{Emulated, EmulatedBpf};
use super::ops::{Keys, Op, Timed, burst_from, burst_of_thread, timed};
use super::row::{BPF, DASHMAP, HANDLE, KERNEL, Row};
use super::running::Running;
use super::sides;
use crate::abi::MapType;

/// Maps of one type and size.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// What they are made with.
    pub spec: Spec,
    /// It is among the few that show the most.
    pub quick: bool,
    measure: fn(&Measure<'_>, &Spec),
}

impl Cell {
    /// The type's name, as `mapemu conform` has it.
    pub fn name(&self) -> String {
        let name = self.spec.map_type.name().expect("it is in the list");
        name.to_lowercase()
    }

    /// Measures all rows, on kernels with so many CPUs.
    pub fn measure(&self, measure: &Measure<'_>, nr_cpus: u32) {
        let spec = Spec {
            nr_cpus,
            ..self.spec
        };
        (self.measure)(measure, &spec);
    }
}

/// How much is done, and who is told of a row.
pub struct Measure<'a> {
    /// Rounds of each row.
    pub rounds: usize,
    /// There are two CPUs to run two threads on.
    pub two_threads: bool,
    /// What is measured now.
    pub begins: &'a dyn Fn(&str),
    /// A row is there.
    pub tell: &'a dyn Fn(Row),
}

impl std::fmt::Debug for Measure<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rounds", self.rounds)
    }
}

impl Measure<'_> {
    fn row(&self, spec: &Spec, op: Op, columns: [Option<Timed<'_>>; 4]) {
        self.row_named(spec, &op.to_string(), columns);
    }

    pub(super) fn row_named(&self, spec: &Spec, op: &str, columns: [Option<Timed<'_>>; 4]) {
        (self.begins)(op);
        (self.tell)(Row::measure(spec, op, self.rounds, columns));
    }
}

macro_rules! cells {
    ($($map_type:ident $key:literal $value:literal $entries:literal $quick:literal $measure:expr;)*) => {
        /// All cells.
        pub const CELLS: &[Cell] = &[$(Cell {
            spec: Spec::new(MapType::$map_type, $key, $value, $entries),
            quick: $quick,
            measure: $measure,
        }),*];
    };
}

cells! {
    HASH 4 8 10_000 true hashes::<4, 8>;
    HASH 16 64 10_000 true hashes::<16, 64>;
    HASH 64 8 10_000 false hashes::<64, 8>;
    HASH 16 1024 10_000 false hashes::<16, 1024>;
    HASH 4 8 300_000 false hashes::<4, 8>;
    HASH 16 64 200_000 false hashes::<16, 64>;
    HASH 16 64 1_000_000 false hashes::<16, 64>;
    ARRAY 4 8 10_000 true arrays::<8>;
    ARRAY 4 64 10_000 true arrays::<64>;
    ARRAY 4 1024 10_000 false arrays::<1024>;
    ARRAY 4 64 400_000 false arrays::<64>;
    PERCPU_HASH 4 8 10_000 false hashes::<4, 8>;
    PERCPU_HASH 16 64 10_000 true hashes::<16, 64>;
    PERCPU_ARRAY 4 8 10_000 false arrays::<8>;
    PERCPU_ARRAY 4 64 10_000 true arrays::<64>;
    LRU_HASH 4 8 10_000 false hashes::<4, 8>;
    LRU_HASH 16 64 10_000 true hashes::<16, 64>;
    LRU_HASH 4 8 300_000 false hashes::<4, 8>;
    LRU_PERCPU_HASH 16 64 10_000 false hashes::<16, 64>;
    LPM_TRIE 8 8 10_000 true tries::<8>;
    LPM_TRIE 20 8 10_000 false tries::<20>;
    QUEUE 0 64 1024 true queues::<64>;
    STACK 0 64 1024 true queues::<64>;
    BLOOM_FILTER 0 16 10_000 true bloom_filters;
    RINGBUF 0 0 1_048_576 true sides::rings;
}

/// The same map in all columns.
struct Columns<const K: usize, const V: usize> {
    handle: Emulated,
    bpf: EmulatedBpf,
    kernel: Option<Running>,
    dash: Option<DashArr<K, V>>,
}

impl<const K: usize, const V: usize> Columns<K, V> {
    fn filled(spec: &Spec, keys: &[[u8; K]], with_dash: bool) -> Self {
        Self {
            handle: filled(spec, keys).expect("it is always there"),
            bpf: filled(spec, keys).expect("it is always there"),
            kernel: filled(spec, keys),
            dash: with_dash.then(|| filled(spec, keys)).flatten(),
        }
    }

    fn timed<'a>(&'a self, keys: &'a Keys<K>, op: Op) -> [Option<Timed<'a>>; 4] {
        let evicts = op == Op::Evict;
        let dash = self.dash.as_ref().filter(|_| !evicts);
        [
            timed(&self.handle, keys, op),
            timed(&self.bpf, keys, op),
            self.kernel.as_ref().and_then(|map| timed(map, keys, op)),
            dash.and_then(|map| timed(map, keys, op)),
        ]
    }

    /// An LRU map may have pushed some out: those that all have.
    fn keep_present(&self, keys: &mut Keys<K>) {
        let mut value = vec![0; keys.user_value_size];
        keys.present.retain(|key| {
            self.handle.lookup(key, &mut value)
                && self.bpf.lookup(key, &mut value)
                && self
                    .kernel
                    .as_ref()
                    .is_none_or(|map| map.lookup(key, &mut value))
        });
        keys.stay = false;
    }

    /// Two threads with keys of their own, in the same buckets.
    fn two_threads(&self, measure: &Measure<'_>, spec: &Spec, keys: &Keys<K>, op: Op) {
        if !measure.two_threads {
            return;
        }
        (measure.begins)(&format!("{op}, 2 threads"));
        let halves = keys.present.split_at(keys.present.len() / 2);
        let size = keys.user_value_size;
        let column = |which, round| {
            let run = Run {
                halves,
                size,
                op,
                round,
            };
            match which {
                HANDLE => Some(run.threads(&self.handle)),
                BPF => Some(run.threads(&self.bpf)),
                KERNEL => self.kernel.as_ref().map(|map| run.threads(map)),
                DASHMAP => self.dash.as_ref().map(|map| run.threads(map)),
                _ => None,
            }
        };
        let row = Row::measure_threads(spec, op.to_string(), measure.rounds, &column);
        (measure.tell)(row);
    }
}

/// One round of two threads.
struct Run<'a, const K: usize> {
    halves: (&'a [[u8; K]], &'a [[u8; K]]),
    size: usize,
    op: Op,
    round: usize,
}

impl<const K: usize> Run<'_, K> {
    fn threads<C: Column<K>>(&self, map: &C) -> Threads {
        let maps = [map.on_cpu(0), map.on_cpu(1)];
        threads(&|cpu, part| {
            let keys = if cpu == 0 {
                self.halves.0
            } else {
                self.halves.1
            };
            let part = 6 * self.round + part;
            burst_of_thread(&maps[cpu as usize], keys, self.size, self.op, part)
        })
    }
}

fn hashes<const K: usize, const V: usize>(measure: &Measure<'_>, spec: &Spec) {
    let mut keys = Keys::<K>::of(spec, 96);
    let maps = Columns::<K, V>::filled(spec, &keys.present, true);
    let is_lru = matches!(spec.map_type, MapType::LRU_HASH | MapType::LRU_PERCPU_HASH);
    if is_lru {
        maps.keep_present(&mut keys);
    }
    let ops = [
        Op::Hit,
        Op::Miss,
        Op::Update,
        Op::Insert,
        Op::Delete,
        Op::Take,
        Op::Next,
        Op::Batch,
    ];
    for op in ops {
        measure.row(spec, op, maps.timed(&keys, op));
    }
    sides::programs::<K>(measure, spec, &maps.handle, maps.kernel.as_ref());
    // At the end: the other core keeps what it read, and the next write to each of those lines is dear.
    for op in [Op::Hit, Op::Update, Op::DeleteAndInsert] {
        maps.two_threads(measure, spec, &keys, op);
    }
    if is_lru {
        measure.row(spec, Op::Evict, maps.timed(&keys, Op::Evict));
    }
}

fn arrays<const V: usize>(measure: &Measure<'_>, spec: &Spec) {
    let keys = Keys::<4>::of(spec, 100);
    let maps = Columns::<4, V>::filled(spec, &keys.present, true);
    for op in [Op::Hit, Op::Update, Op::Next, Op::Batch] {
        measure.row(spec, op, maps.timed(&keys, op));
    }
    sides::programs::<4>(measure, spec, &maps.handle, maps.kernel.as_ref());
    for op in [Op::Hit, Op::Update] {
        maps.two_threads(measure, spec, &keys, op);
    }
}

/// Random prefixes, as routes are long: IPv4 /8 to /32, IPv6 /16 to /64; looked up are addresses that lie in them.
fn tries<const K: usize>(measure: &Measure<'_>, spec: &Spec) {
    let lens = if K == 8 { 8..=32 } else { 16..=64_u32 };
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let prefixes = (0..spec.max_entries).map(|_| {
        let len = lens.start() + u32::try_from(random.below(lens.clone().count())).expect("small");
        let mut key = [0; K];
        key[..4].copy_from_slice(&len.to_ne_bytes());
        for byte in &mut key[4..] {
            *byte = random.number().to_le_bytes()[0];
        }
        key
    });
    let mut present: Vec<[u8; K]> = prefixes.collect();
    let maps = Columns::<K, 8>::filled(spec, &present, false);
    let bits = u32::try_from(8 * (K - 4)).expect("bits of an address");
    let addresses = present.iter().map(|prefix| {
        let mut key = *prefix;
        key[..4].copy_from_slice(&bits.to_ne_bytes());
        key
    });
    let mut keys = Keys {
        present: addresses.collect(),
        absent: Vec::new(),
        stay: true,
        user_value_size: 8,
    };
    measure.row(spec, Op::Hit, maps.timed(&keys, Op::Hit));
    // Two prefixes can be the same one, and one chunk must not delete it twice.
    let mut seen = std::collections::HashSet::new();
    present.retain(|key| seen.insert(canonical(key)));
    keys.present = present;
    for op in [Op::Update, Op::Insert, Op::Delete, Op::Next] {
        measure.row(spec, op, maps.timed(&keys, op));
    }
}

/// A prefix without the bits behind it.
fn canonical<const K: usize>(key: &[u8; K]) -> [u8; K] {
    let mut key = *key;
    let len = u32::from_ne_bytes([key[0], key[1], key[2], key[3]]);
    for (bit, at) in (0_u32..).zip(32..8 * K) {
        if bit >= len {
            key[at / 8] &= !(0x80 >> (at % 8));
        }
    }
    key
}

fn queues<const V: usize>(measure: &Measure<'_>, spec: &Spec) {
    let half = vec![[]; spec.max_entries / 2];
    let maps = Columns::<0, V>::filled(spec, &half, false);
    let keys = Keys {
        present: half,
        absent: Vec::new(),
        stay: true,
        user_value_size: V,
    };
    for op in [Op::Push, Op::Pop, Op::Peek] {
        measure.row(spec, op, maps.timed(&keys, op));
    }
}

/// Values are what others have as keys.
fn bloom_filters(measure: &Measure<'_>, spec: &Spec) {
    fn pushes<'a, C: Column<0>>(map: &'a C, values: &'a [[u8; 16]]) -> Timed<'a> {
        Box::new(|at| {
            let values = burst_from(values, at);
            burst(|i| map.update(&[], black_box(values[i])))
        })
    }
    fn peeks<'a, C: Column<0>>(map: &'a C, values: &'a [[u8; 16]]) -> Timed<'a> {
        Box::new(|at| {
            let values = burst_from(values, at);
            burst(|i| {
                let mut value = *values[i];
                assert!(map.lookup(&[], black_box(&mut value)), "it is there");
            })
        })
    }
    let values = keys::<16>(spec.max_entries, 0);
    let maps = Columns::<0, 16>::filled(spec, &[], false);
    // Every value is in, from here on.
    for value in &values {
        Column::<0>::update(&maps.handle, &[], value);
        Column::<0>::update(&maps.bpf, &[], value);
        if let Some(map) = &maps.kernel {
            Column::<0>::update(map, &[], value);
        }
    }
    let kernel = maps.kernel.as_ref();
    let columns = [
        Some(pushes(&maps.handle, &values)),
        Some(pushes(&maps.bpf, &values)),
        kernel.map(|map| pushes(map, &values)),
        None,
    ];
    measure.row(spec, Op::Push, columns);
    let columns = [
        Some(peeks(&maps.handle, &values)),
        Some(peeks(&maps.bpf, &values)),
        kernel.map(|map| peeks(map, &values)),
        None,
    ];
    measure.row(spec, Op::Peek, columns);
}
