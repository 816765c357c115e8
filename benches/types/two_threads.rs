//! How much more two threads write than one, each on a CPU and with keys of its own, which lie in the same buckets.

use std::hint::black_box;

use mapemu::abi::{MapHandle, MapType, UpdateFlags};
use mapemu::host::{self, Host};

use super::common::burst::{BURST, ROUNDS, burst, median};
use super::common::keys;
use super::pair::{Pair, Running, Spec};

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

/// How many operations two threads do in the time in which one thread does one; `work(cpu, part)` is a burst on keys of that
/// part, of which each is done once.
fn scaling(first_part: usize, work: &(dyn Fn(u32, usize) -> f64 + Sync)) -> f64 {
    let on = |cpu, part| {
        // A refusal costs exactness, nothing else.
        let _ = host::run_on(cpu);
        // The other thread has begun when the first burst is over.
        (work(cpu, part), work(cpu, part + 1)).1
    };
    let alone = on(0, first_part);
    let together = std::thread::scope(|scope| {
        let other = scope.spawn(|| on(1, first_part + 2));
        let here = on(0, first_part + 2);
        f64::midpoint(here, other.join().expect("it does not panic"))
    });
    2.0 * alone / together
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
    let spec = Spec {
        map_type: MapType::HASH,
        key_size: K,
        value_size: V,
        max_entries,
    };
    let pair = Pair::new(host, spec);
    let all = keys::<K>(max_entries * 96 / 100, 0);
    for key in &all {
        pair.update(key, &[7; V]);
    }
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
                scaling(4 * round, &|cpu, number| {
                    own::<K, V>(&*handles[cpu as usize], part(cpu, number), op)
                }),
                pair.running.map_or(f64::NAN, |map| {
                    scaling(4 * round, &|cpu, number| {
                        running::<K, V>(map, part(cpu, number), op)
                    })
                }),
            ]);
        }
        let column = |index: usize| {
            let mut column: Vec<f64> = figures.iter().map(|round| round[index]).collect();
            median(&mut column)
        };
        let name = format!("{name} {K}/{V} {max_entries}");
        println!("{name:<44} {:>8.2} {:>9.2}  {goal}", column(0), column(1));
    }
}
