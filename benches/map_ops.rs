//! Cost of one operation, by size, each column beside the others in one run.
#![allow(missing_docs, clippy::cast_possible_truncation, reason = "a bench")]

#[path = "common/limit.rs"]
mod limit;

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use limit::Limit;
use mapemu::Kernel;
use mapemu::abi::{Bpf, MapType, UpdateFlags};
use mapemu::bench::column::{Column, Spec, keys};
use mapemu::bench::dash::{DashArr, DashBox};
use mapemu::bench::emulated::{Emulated, EmulatedBpf};
use mapemu::bench::running::Running;
use mapemu::calls::{self, CreateOpts};
use mapemu::helper::Prog;

fn column<const K: usize, const V: usize, C: Column<K>>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    present: &[[u8; K]],
    absent: &[[u8; K]],
    op: &str,
    max_entries: usize,
) {
    let Some(column) = C::new(&Spec::new(MapType::HASH, K, V, max_entries)) else {
        return;
    };
    let mut value = [7; V];
    for key in present {
        column.update(key, &value);
    }
    let mut i = 0;
    let mut step = |keys: &[[u8; K]]| {
        i = (i + 1) % keys.len();
        i
    };
    group.bench_function(C::NAME, |b| match op {
        "lookup hit" => b.iter(|| column.lookup(black_box(&present[step(present)]), &mut value)),
        "lookup miss" => b.iter(|| column.lookup(black_box(&absent[step(absent)]), &mut value)),
        "update" => b.iter(|| column.update(black_box(&present[step(present)]), &value)),
        "insert and delete" => b.iter(|| {
            let key = black_box(&present[step(present)]);
            column.delete(key);
            column.update(key, &value);
        }),
        _ => unreachable!("an operation of the list"),
    });
}

fn hash<const K: usize, const V: usize>(c: &mut Criterion, entries: usize) {
    let present = keys::<K>(entries * 96 / 100, 0);
    let absent = keys::<K>(entries * 96 / 100, 1 << 31);
    for op in ["lookup hit", "lookup miss", "update", "insert and delete"] {
        let mut group = c.benchmark_group(format!("{op} {K}/{V} {entries}"));
        group.throughput(Throughput::Elements(1));
        let n = entries;
        column::<K, V, Emulated>(&mut group, &present, &absent, op, n);
        column::<K, V, EmulatedBpf>(&mut group, &present, &absent, op, n);
        column::<K, V, Running>(&mut group, &present, &absent, op, n);
        column::<K, V, DashArr<K, V>>(&mut group, &present, &absent, op, n);
        column::<K, V, DashBox>(&mut group, &present, &absent, op, n);
        column::<K, V, Limit<K, V>>(&mut group, &present, &absent, op, n);
        group.finish();
    }
    walks::<K, V>(c, &present, entries);
}

fn walks<const K: usize, const V: usize>(c: &mut Criterion, present: &[[u8; K]], entries: usize) {
    fn one<const K: usize, const V: usize, C: Column<K>>(
        group: &mut BenchmarkGroup<'_, WallTime>,
        present: &[[u8; K]],
        entries: usize,
    ) {
        let Some(column) = C::new(&Spec::new(MapType::HASH, K, V, entries)) else {
            return;
        };
        for key in present {
            column.update(key, &[7; V]);
        }
        let mut next = [0; K];
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("{}, next key", C::NAME), |b| {
            column.next(None, &mut next);
            b.iter(|| {
                let key = next;
                column.next(Some(&key), &mut next) || column.next(None, &mut next)
            });
        });
        if column.batch() == 0 {
            return;
        }
        group.throughput(Throughput::Elements(present.len() as u64));
        group.bench_function(format!("{}, batches of 256", C::NAME), |b| {
            b.iter(|| column.batch())
        });
    }
    let mut group = c.benchmark_group(format!("walk {K}/{V} {entries}"));
    one::<K, V, Emulated>(&mut group, present, entries);
    one::<K, V, EmulatedBpf>(&mut group, present, entries);
    one::<K, V, Running>(&mut group, present, entries);
    group.finish();
}

/// Lookups of the program side: the value in place, one word of it read.
fn program_side(c: &mut Criterion) {
    let kernel = Kernel::new();
    let mut group = c.benchmark_group("program side 16/64 10000");
    group.throughput(Throughput::Elements(1));
    let fd = calls::bpf_map_create(
        &kernel,
        MapType::HASH,
        "",
        16,
        64,
        10_000,
        &CreateOpts::default(),
    )
    .expect("a map");
    let present = keys::<16>(9600, 0);
    for key in &present {
        calls::bpf_map_update_elem(&kernel, fd, key, &[7; 64], 0).expect("room");
    }
    let map = kernel.map(fd).expect("a map");
    let prog = Prog::sched_cls(0);
    let mut i = 0;
    group.bench_function("hash lookup", |b| {
        b.iter(|| {
            i = (i + 1) % present.len();
            prog.map_lookup_elem(&map, black_box(&present[i]))
                .map(|value| value.load_u64(0))
        });
    });
    group.bench_function("hash delete and insert", |b| {
        b.iter(|| {
            i = (i + 1) % present.len();
            let _ = prog.map_delete_elem(&map, &present[i]);
            prog.map_update_elem(&map, &present[i], &[7; 64], UpdateFlags::ANY)
        });
    });
    group.finish();
    kernel.close(fd).expect("it is open");
}

/// An array beside an index and a copy.
fn array<const V: usize>(c: &mut Criterion) {
    const ENTRIES: u32 = 10_000;
    let kernel = Kernel::new();
    let mut group = c.benchmark_group(format!("array lookup {V} {ENTRIES}"));
    group.throughput(Throughput::Elements(1));
    let fd = calls::bpf_map_create(
        &kernel,
        MapType::ARRAY,
        "",
        4,
        V as u32,
        ENTRIES,
        &CreateOpts::default(),
    )
    .expect("a map");
    let handle = kernel.map_handle(fd).expect("a handle");
    let plain = vec![[7_u8; V]; ENTRIES as usize];
    let mut out = [0; V];
    let mut index = 0_u32;
    group.bench_function("emulated", |b| {
        b.iter(|| {
            index = (index + 7919) % ENTRIES;
            handle.lookup_elem(&black_box(index).to_ne_bytes(), &mut out, UpdateFlags::ANY)
        });
    });
    group.bench_function("limit", |b| {
        b.iter(|| {
            index = (index + 7919) % ENTRIES;
            out = plain[black_box(index) as usize];
            black_box(&out);
        });
    });
    group.finish();
}

fn all(c: &mut Criterion) {
    hash::<4, 8>(c, 10_000);
    hash::<16, 64>(c, 10_000);
    hash::<64, 8>(c, 10_000);
    hash::<16, 1024>(c, 10_000);
    hash::<4, 8>(c, 1_000_000);
    hash::<16, 64>(c, 1_000_000);
    array::<8>(c);
    array::<64>(c);
    array::<1024>(c);
    program_side(c);
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    targets = all
}
criterion_main!(benches);
