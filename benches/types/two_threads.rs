//! How much more two threads write than one, each on a CPU and with keys of its own, which lie in the same buckets.

use std::hint::black_box;

use mapemu::abi::{MapHandle, MapType, UpdateFlags};
use mapemu::host::{self, Host};

use super::common::burst::{BURST, ROUNDS, burst, scaling};
use super::common::keys;
use super::pair::{Pair, Running, Spec};
use super::{median_of, shown};

/// What a thread does with the keys that are its own.
#[derive(Clone, Copy)]
enum Op {
    Update,
    DeleteAndInsert,
}

/// ns of one operation on the emulated map.
fn own<const K: usize, const V: usize>(map: &dyn MapHandle, keys: &[[u8; K]], op: Op) -> f64 {
    let value = [1; V];
    burst(|i| {
        let key = black_box(&keys[i % keys.len()]);
        if let Op::DeleteAndInsert = op {
            map.delete_elem(key).expect("it is there");
        }
        map.update_elem(key, &value, UpdateFlags::ANY)
            .expect("room");
    })
}

/// The same in the running kernel.
fn running<const K: usize, const V: usize>(map: Running, keys: &[[u8; K]], op: Op) -> f64 {
    let value = [1; V];
    burst(|i| {
        let key = black_box(&keys[i % keys.len()]);
        if let Op::DeleteAndInsert = op {
            assert!(map.delete(key), "it is there");
        }
        map.update(key, &value);
    })
}

fn pin(cpu: usize) {
    // A refusal costs exactness, nothing else.
    let _ = host::run_on(cpu as u32);
}

pub fn writes(host: Option<&Host>) {
    println!(
        "\n{:<44} {:>8} {:>9}  goal",
        "writes by two threads ÷ by one, uniform keys", "own", "kernel"
    );
    of_size::<4, 8>(host, 10_000, "0.9");
    of_size::<16, 64>(host, 10_000, "0.9");
    of_size::<4, 8>(host, 300_000, "1.3");
    of_size::<4, 8>(None, 1_000_000, "1.3");
    of_size::<16, 64>(None, 1_000_000, "1.3");
}

fn of_size<const K: usize, const V: usize>(host: Option<&Host>, max_entries: usize, goal: &str) {
    let pair = Pair::new(host, Spec::of::<K, V>(MapType::HASH, max_entries));
    let all = keys::<K>(max_entries * 96 / 100, 0);
    pair.fill(&all, &[7; V]);
    let halves = all.split_at(all.len() / 2);
    let keys = |cpu| if cpu == 0 { halves.0 } else { halves.1 };
    let handles = [0, 1].map(|cpu| {
        let kernel = pair.kernel.on_cpu(cpu);
        mapemu::abi::Bpf::map_handle(&kernel, pair.fd).expect("a handle")
    });
    let ops = [
        (Op::Update, "update"),
        (Op::DeleteAndInsert, "delete and insert"),
    ];
    for (op, name) in ops {
        let mut figures: Vec<[f64; 2]> = Vec::new();
        for round in 0..ROUNDS {
            let part = |cpu, part: usize| {
                let keys: &[[u8; K]] = keys(cpu);
                &keys[part * BURST % keys.len()..]
            };
            figures.push([
                scaling(&|cpu, number| {
                    pin(cpu);
                    own::<K, V>(&*handles[cpu], part(cpu, 6 * round + number), op)
                }),
                pair.running.map_or(f64::NAN, |map| {
                    scaling(&|cpu, number| {
                        pin(cpu);
                        running::<K, V>(map, part(cpu, 6 * round + number), op)
                    })
                }),
            ]);
        }
        let column = |index: usize| median_of(figures.iter().map(|round| round[index]));
        let name = format!("{name} {K}/{V} {max_entries}");
        println!(
            "{name:<44} {} {}  {goal}",
            shown(column(0), 8, 2),
            shown(column(1), 9, 2)
        );
    }
}
