//! The rows, by family of types.

use std::hint::black_box;

use mapemu::abi::{MapType, UpdateFlags};
use mapemu::helper::Prog;
use mapemu::host::Host;
use mapemu::map::Map;
use mapemu::map::ringbuf_user::Consumer;

use super::common::burst::{BURST, burst};
use super::common::keys;
use super::pair::{Pair, Spec};
use super::programs::{KEY_SIZE, KEYS, Op, Positions, Timed, VALUE_SIZE, scrambled};
use super::{Column, column, column_of, heading, row};

const ANY: UpdateFlags = UpdateFlags::ANY;
/// The largest LRU map of small elements that the running kernel is asked for takes less than 32 MiB.
const LARGE: usize = 300_000;
/// CPUs of both kernels.
const CPUS: usize = 2;

/// Lookups of keys that are there, by the handle.
fn hits<'a, const K: usize>(pair: &'a Pair, keys: &'a [[u8; K]], size: usize) -> Column<'a> {
    let mut value = vec![0; size];
    column_of(keys.len(), move |i| {
        let key = black_box(&keys[i % keys.len()]);
        pair.own.lookup_elem(key, &mut value, ANY).expect("a hit");
    })
}

fn kernel_hits<'a, const K: usize>(
    pair: &'a Pair,
    keys: &'a [[u8; K]],
    size: usize,
) -> Option<Column<'a>> {
    let running = pair.running?;
    let mut value = vec![0; size];
    Some(column_of(keys.len(), move |i| {
        assert!(running.lookup(black_box(&keys[i % keys.len()]), &mut value));
    }))
}

fn updates<'a, const K: usize>(pair: &'a Pair, keys: &'a [[u8; K]], size: usize) -> Column<'a> {
    let value = vec![1; size];
    column_of(keys.len(), move |i| {
        let key = black_box(&keys[i % keys.len()]);
        pair.own.update_elem(key, &value, ANY).expect("room");
    })
}

fn kernel_updates<'a, const K: usize>(
    pair: &'a Pair,
    keys: &'a [[u8; K]],
    size: usize,
) -> Option<Column<'a>> {
    let running = pair.running?;
    let value = vec![1; size];
    Some(column_of(keys.len(), move |i| {
        running.update(black_box(&keys[i % keys.len()]), &value);
    }))
}

/// Takes each key out and puts it in again.
fn cycles<'a, const K: usize>(pair: &'a Pair, keys: &'a [[u8; K]], size: usize) -> Column<'a> {
    let value = vec![1; size];
    column_of(keys.len(), move |i| {
        let key = black_box(&keys[i % keys.len()]);
        // Of an LRU map it may be gone.
        let _ = pair.own.delete_elem(key);
        pair.own.update_elem(key, &value, ANY).expect("room");
    })
}

fn kernel_cycles<'a, const K: usize>(
    pair: &'a Pair,
    keys: &'a [[u8; K]],
    size: usize,
) -> Option<Column<'a>> {
    let running = pair.running?;
    let value = vec![1; size];
    Some(column_of(keys.len(), move |i| {
        let key = black_box(&keys[i % keys.len()]);
        running.delete(key);
        running.update(key, &value);
    }))
}

/// The keys that both maps have: an LRU map may have pushed some out.
fn present<const K: usize>(pair: &Pair, keys: &[[u8; K]], size: usize) -> Vec<[u8; K]> {
    let mut value = vec![0; size];
    let mut is_there = |key: &&[u8; K]| {
        pair.own.lookup_elem(*key, &mut value, ANY).is_ok()
            && pair.running.is_none_or(|map| map.lookup(*key, &mut value))
    };
    keys.iter().filter(|key| is_there(key)).copied().collect()
}

fn filled<const K: usize>(host: Option<&Host>, spec: Spec, keys: &[[u8; K]], size: usize) -> Pair {
    let pair = Pair::new(host, spec);
    pair.fill(keys, &vec![7; size]);
    pair
}

pub fn hashes(host: Option<&Host>) {
    heading("hashes, by the handle and by bpf(2)");
    lru_hash::<16, 64>(host, 10_000);
    lru_hash::<4, 8>(host, 10_000);
    lru_hash::<4, 8>(host, LARGE);
    percpu_hash::<16, 64>(host, 10_000);
    percpu_hash::<4, 8>(host, 10_000);
}

fn lru_hash<const K: usize, const V: usize>(host: Option<&Host>, max_entries: usize) {
    let all = keys::<K>(max_entries * 96 / 100, 0);
    // The running kernel has one large map at a time.
    let hash = filled(None, Spec::of::<K, V>(MapType::HASH, max_entries), &all, V);
    let map = filled(
        host,
        Spec::of::<K, V>(MapType::LRU_HASH, max_entries),
        &all,
        V,
    );
    let keys = present(&map, &all, V);
    row(
        &format!("LRU_HASH hit {K}/{V} {max_entries}"),
        "÷HASH 1.3",
        hits(&map, &keys, V),
        kernel_hits(&map, &keys, V),
        Some(hits(&hash, &keys, V)),
    );
    row(
        &format!("LRU_HASH update {K}/{V} {max_entries}"),
        "",
        updates(&map, &keys, V),
        kernel_updates(&map, &keys, V),
        Some(updates(&hash, &keys, V)),
    );
    row(
        &format!("LRU_HASH insert that evicts {K}/{V} {max_entries}"),
        "kernel÷ 6",
        evictions::<K>(&map, V),
        kernel_evictions::<K>(&map, V),
        None,
    );
}

fn percpu_hash<const K: usize, const V: usize>(host: Option<&Host>, max_entries: usize) {
    let all = keys::<K>(max_entries * 96 / 100, 0);
    let hash = filled(None, Spec::of::<K, V>(MapType::HASH, max_entries), &all, V);
    let size = CPUS * V;
    let map = filled(
        host,
        Spec::of::<K, V>(MapType::PERCPU_HASH, max_entries),
        &all,
        size,
    );
    row(
        &format!("PERCPU_HASH hit {K}/{V} {max_entries}"),
        "÷HASH 1.6",
        hits(&map, &all, size),
        kernel_hits(&map, &all, size),
        Some(hits(&hash, &all, V)),
    );
    row(
        &format!("PERCPU_HASH update {K}/{V} {max_entries}"),
        "",
        updates(&map, &all, size),
        kernel_updates(&map, &all, size),
        Some(updates(&hash, &all, V)),
    );
    row(
        &format!("PERCPU_HASH delete and insert {K}/{V} {max_entries}"),
        "",
        cycles(&map, &all, size),
        kernel_cycles(&map, &all, size),
        Some(cycles(&hash, &all, V)),
    );
}

/// A key that no map has had.
fn fresh<const K: usize>(number: &mut u32) -> [u8; K] {
    *number += 1;
    let mut key = [0; K];
    key[..4].copy_from_slice(&number.to_le_bytes());
    key
}

fn evictions<const K: usize>(pair: &Pair, size: usize) -> Column<'_> {
    let value = vec![1; size];
    let mut number = 1 << 24;
    column(move |_| {
        let key = fresh::<K>(&mut number);
        pair.own.update_elem(&key, &value, ANY).expect("room");
    })
}

fn kernel_evictions<const K: usize>(pair: &Pair, size: usize) -> Option<Column<'_>> {
    let running = pair.running?;
    let value = vec![1; size];
    let mut number = 1 << 24;
    Some(column(move |_| {
        running.update(&fresh::<K>(&mut number), &value);
    }))
}

pub fn arrays(host: Option<&Host>) {
    heading("arrays");
    arrays_of::<8>(host, 10_000);
    arrays_of::<64>(host, 10_000);
    arrays_of::<1024>(host, 10_000);
}

fn arrays_of<const V: usize>(host: Option<&Host>, max_entries: usize) {
    for (map_type, size) in [(MapType::ARRAY, V), (MapType::PERCPU_ARRAY, CPUS * V)] {
        let keys = keys::<4>(max_entries, 0);
        let map = filled(host, Spec::of::<4, V>(map_type, max_entries), &keys, size);
        let percpu = if map_type == MapType::ARRAY {
            ""
        } else {
            "PERCPU_"
        };
        row(
            &format!("{percpu}ARRAY lookup {V} {max_entries}"),
            if percpu.is_empty() && V <= 64 {
                "kernel÷ 80"
            } else {
                ""
            },
            hits(&map, &keys, size),
            kernel_hits(&map, &keys, size),
            None,
        );
        row(
            &format!("{percpu}ARRAY update {V} {max_entries}"),
            "",
            updates(&map, &keys, size),
            kernel_updates(&map, &keys, size),
            None,
        );
    }
}

pub fn keyless(host: Option<&Host>) {
    heading("types without keys");
    for (map_type, name) in [(MapType::QUEUE, "QUEUE"), (MapType::STACK, "STACK")] {
        let map = Pair::new(host, Spec::of::<0, 64>(map_type, 1024));
        for _ in 0..512 {
            map.update(&[], &[7; 64]);
        }
        let mut value = [1; 64];
        let own = column(|_| {
            map.own.update_elem(&[], &value, ANY).expect("room");
            map.own
                .lookup_and_delete_elem(&[], &mut value, ANY)
                .expect("a value");
        });
        let mut value = [1; 64];
        let kernel = map.running.map(|running| {
            column(move |_| {
                running.update(&[], &value);
                assert!(running.take(&[], &mut value));
            })
        });
        row(&format!("{name} push and pop 64"), "", own, kernel, None);
    }
    bloom_filter(host);
}

fn bloom_filter(host: Option<&Host>) {
    let map = Pair::new(host, Spec::of::<0, 16>(MapType::BLOOM_FILTER, 10_000));
    let values = keys::<16>(10_000, 0);
    let pushes = column(|i| {
        let value = black_box(&values[i % values.len()]);
        map.own.update_elem(&[], value, ANY).expect("never full");
    });
    let kernel = map.running.map(|running| {
        let values = &values;
        column(move |i| running.update(&[], black_box(&values[i % values.len()])))
    });
    row("BLOOM_FILTER push 16 10000", "", pushes, kernel, None);
    let peeks = column(|i| {
        let mut value = values[i % values.len()];
        map.own.lookup_elem(&[], &mut value, ANY).expect("there");
    });
    let kernel = map.running.map(|running| {
        let values = &values;
        column(move |i| {
            let mut value = values[i % values.len()];
            assert!(running.lookup(&[], &mut value));
        })
    });
    row("BLOOM_FILTER peek 16 10000", "", peeks, kernel, None);
}

pub fn tries(host: Option<&Host>) {
    heading("LPM_TRIE, 10000 random prefixes, values of 8");
    tries_of::<8>(host, "IPv4 /8 to /32", 8..=32);
    tries_of::<20>(host, "IPv6 /16 to /64", 16..=64);
}

/// Keys of `K` bytes: the length of the prefix, and an address.
fn tries_of<const K: usize>(host: Option<&Host>, name: &str, lens: std::ops::RangeInclusive<u32>) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let n_lens = u64::from(lens.end() - lens.start() + 1);
    let mut prefixes = Vec::new();
    let mut addresses = Vec::new();
    for _ in 0..10_000 {
        let len = lens.start() + (random() % n_lens) as u32;
        let mut key = [0; K];
        key[..4].copy_from_slice(&len.to_ne_bytes());
        for byte in &mut key[4..] {
            *byte = random() as u8;
        }
        prefixes.push(key);
        // An address in it.
        key[..4].copy_from_slice(&(8 * (K as u32 - 4)).to_ne_bytes());
        addresses.push(key);
    }
    let map = filled(
        host,
        Spec::of::<K, 8>(MapType::LPM_TRIE, 10_000),
        &prefixes,
        8,
    );
    row(
        &format!("{name} lookup"),
        "",
        hits(&map, &addresses, 8),
        kernel_hits(&map, &addresses, 8),
        None,
    );
    row(
        &format!("{name} update"),
        "",
        updates(&map, &prefixes, 8),
        kernel_updates(&map, &prefixes, 8),
        None,
    );
    row(
        &format!("{name} delete and insert"),
        "",
        cycles(&map, &prefixes, 8),
        kernel_cycles(&map, &prefixes, 8),
        None,
    );
}

/// An operation of an emulated program.
fn by_prog<'a>(map: &'a Map, prog: &'a Prog, keys: &'a [[u8; KEY_SIZE]], op: Op) -> Column<'a> {
    let value = [1; VALUE_SIZE];
    let key = move |i: usize| black_box(&keys[i % keys.len()]);
    match op {
        Op::Lookup => column(move |i| {
            let value = prog.map_lookup_elem(map, key(i)).expect("a hit");
            black_box(value.load_u64(0));
        }),
        Op::DeleteAndUpdate => column(move |i| {
            let _ = prog.map_delete_elem(map, key(i));
            prog.map_update_elem(map, key(i), &value, ANY)
                .expect("room");
        }),
        Op::Update => column(move |i| {
            prog.map_update_elem(map, key(i), &value, ANY)
                .expect("room");
        }),
        Op::Output => unreachable!("it has no key"),
    }
}

pub fn program_side(host: Option<&Host>) {
    heading("programs, 16/64 10000, and the kernel's own");
    let mut number = 0;
    let keys: Vec<[u8; KEY_SIZE]> = (0..KEYS)
        .map(|_| {
            number = scrambled(number);
            let mut key = [0; KEY_SIZE];
            key[..4].copy_from_slice(&number.to_le_bytes());
            key
        })
        .collect();
    let prog = Prog::sched_cls(0);
    let types = [
        (MapType::HASH, "HASH", VALUE_SIZE),
        (MapType::LRU_HASH, "LRU_HASH", VALUE_SIZE),
        (MapType::PERCPU_HASH, "PERCPU_HASH", CPUS * VALUE_SIZE),
    ];
    for (map_type, name, size) in types {
        let spec = Spec::of::<KEY_SIZE, VALUE_SIZE>(map_type, 10_000);
        let pair = filled(host, spec, &keys, size);
        let map = pair.kernel.map(pair.fd).expect("it is open");
        let ops = [
            (Op::Lookup, "hit", "kernel÷ 1.4"),
            (Op::Update, "update", ""),
            (Op::DeleteAndUpdate, "delete and insert", "kernel÷ 2"),
        ];
        for (op, what, goal) in ops {
            let kernel = host.zip(pair.running).map(|(host, running)| {
                let timed = Timed::new(host, running, op);
                Box::new(move |_| (timed.run(), timed.run()).1) as Column<'_>
            });
            row(
                &format!("{name} {what}"),
                if map_type == MapType::HASH { goal } else { "" },
                by_prog(&map, &prog, &keys, op),
                kernel,
                None,
            );
        }
    }
}

pub fn rings(host: Option<&Host>) {
    heading("RINGBUF, 1 MiB, records of 64 bytes");
    let pair = Pair::new(host, Spec::of::<0, 0>(MapType::RINGBUF, 1 << 20));
    let map = pair.kernel.map(pair.fd).expect("it is open");
    let prog = Prog::sched_cls(0);
    let consume = || {
        let consumer = Consumer::new(std::sync::Arc::clone(&map));
        let mut sum = 0_u64;
        let read = consumer.expect("a ring").consume(&mut |bytes| {
            sum += u64::from(bytes[0]);
            true
        });
        black_box(sum);
        read
    };
    let output = || {
        prog.ringbuf_output(&map, &[7; VALUE_SIZE], 0)
            .expect("room")
    };
    let kernel = host.zip(pair.running).map(|(host, running)| {
        let timed = Timed::new(host, running, Op::Output);
        let positions = Positions::of(host, running);
        Box::new(move |_| {
            let ns = timed.run();
            let bytes = positions.consume();
            assert_eq!(bytes, (BURST * (VALUE_SIZE + 8)) as u64, "all fitted");
            ns
        }) as Column<'_>
    });
    row(
        "output, by a program",
        "",
        Box::new(|_| {
            let ns = burst(|_| output());
            assert_eq!(consume(), BURST, "all fitted");
            ns
        }),
        kernel,
        None,
    );
    row(
        "reserve, write and submit, by a program",
        "",
        Box::new(|_| {
            let ns = burst(|_| {
                let record = prog.ringbuf_reserve(&map, VALUE_SIZE as u64, 0);
                let record = record.expect("room");
                record.write(0, black_box(&[7; VALUE_SIZE]));
                record.submit(0);
            });
            consume();
            ns
        }),
        None,
        None,
    );
    row(
        "consume, each",
        "",
        Box::new(|_| {
            for _ in 0..BURST {
                output();
            }
            let start = std::time::Instant::now();
            let read = consume();
            start.elapsed().as_nanos() as f64 / read as f64
        }),
        None,
        None,
    );
}
