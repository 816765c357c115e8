//! Threads on one map: what the kernel guarantees holds. Small and seeded; run under the thread sanitizer too.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use mapemu::Kernel;
use mapemu::abi::{Bpf as _, Errno, MapType, UpdateFlags};
use mapemu::btf::Writer;
use mapemu::calls::{self, CreateOpts};
use mapemu::helper::Prog;
use mapemu::store::Words;
use mapemu::typed::PerfEventArray;

const BPF_F_NO_PREALLOC: u32 = 1;
const BPF_ANY: u64 = 0;
const BPF_NOEXIST: u64 = 1;
const BPF_F_LOCK: u64 = 4;

const STEPS: u32 = if cfg!(mapemu_portable) { 2_000 } else { 20_000 };

fn hash(kernel: &Kernel, value_size: u32, max_entries: u32, map_flags: u32) -> u32 {
    let opts = CreateOpts {
        map_flags,
        ..CreateOpts::default()
    };
    calls::bpf_map_create(kernel, MapType::HASH, "", 4, value_size, max_entries, &opts).unwrap()
}

/// A map whose value is a lock and 56 bytes.
fn locked(kernel: &Kernel, map_type: MapType) -> u32 {
    let mut btf = Writer::new();
    let u32_id = btf.int("u32", 4);
    let u64_id = btf.int("u64", 8);
    let lock_id = btf.structure("bpf_spin_lock", 4, &[("val", u32_id, 0)]);
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    let mut members = vec![("lock", lock_id, 0)];
    members.extend(
        names
            .iter()
            .zip(1..)
            .map(|(name, index)| (*name, u64_id, index * 8)),
    );
    let value_id = btf.structure("value", 64, &members);
    let opts = CreateOpts {
        btf_fd: calls::bpf_btf_load(kernel, &btf.finish()).unwrap(),
        btf_key_type_id: u32_id,
        btf_value_type_id: value_id,
        ..CreateOpts::default()
    };
    calls::bpf_map_create(kernel, map_type, "", 4, 64, 4, &opts).unwrap()
}

/// Runs `work` on two threads, one for each CPU, and `meanwhile` on this one. The threads are joined one by one: the end of a
/// scope is nothing that the sanitizer sees.
fn on_two_cpus(work: impl Fn(u32) + Sync, meanwhile: impl FnOnce()) {
    thread::scope(|scope| {
        let work = &work;
        let threads = [0, 1].map(|cpu| scope.spawn(move || work(cpu)));
        meanwhile();
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_replaced_key_is_never_absent() {
    for map_flags in [0, BPF_F_NO_PREALLOC] {
        let kernel = Kernel::new();
        let fd = hash(&kernel, 64, 8, map_flags);
        let key = 7_u32.to_ne_bytes();
        calls::bpf_map_update_elem(&kernel, fd, &key, &[0; 64], BPF_ANY).unwrap();
        let done = AtomicBool::new(false);
        on_two_cpus(
            |cpu| {
                let (kernel, done) = (kernel.on_cpu(cpu), &done);
                for step in 0..STEPS {
                    let value = [step.to_ne_bytes()[0]; 64];
                    calls::bpf_map_update_elem(&kernel, fd, &key, &value, BPF_ANY).unwrap();
                    // Others come and go in the same buckets.
                    let other = (100 + step % 5).to_ne_bytes();
                    let _ = calls::bpf_map_update_elem(&kernel, fd, &other, &value, BPF_ANY);
                    let _ = calls::bpf_map_delete_elem(&kernel, fd, &other);
                }
                done.store(true, Ordering::Relaxed);
            },
            || {
                let mut value = [0; 64];
                while !done.load(Ordering::Relaxed) {
                    let found = calls::bpf_map_lookup_elem(&kernel, fd, &key, &mut value);
                    assert_eq!(found, Ok(()), "map_flags {map_flags}");
                }
            },
        );
    }
}

#[test]
fn a_batch_has_each_key_once_while_values_are_replaced() {
    let kernel = Kernel::new();
    // Two buckets, so that most have neighbours.
    let fd = hash(&kernel, 8, 2, 0);
    for key in 0..2_u32 {
        calls::bpf_map_update_elem(&kernel, fd, &key.to_ne_bytes(), &[0; 8], BPF_ANY).unwrap();
    }
    let done = AtomicBool::new(false);
    on_two_cpus(
        |cpu| {
            let kernel = kernel.on_cpu(cpu);
            for step in 0..STEPS {
                let key = (step % 2).to_ne_bytes();
                calls::bpf_map_update_elem(&kernel, fd, &key, &[1; 8], BPF_ANY).unwrap();
            }
            done.store(true, Ordering::Release);
        },
        || {
            while !done.load(Ordering::Acquire) {
                let (mut keys, mut values, mut next) = ([0; 16], [0; 32], [0; 4]);
                let read = calls::bpf_map_lookup_batch(
                    &kernel,
                    fd,
                    None,
                    &mut next,
                    &mut keys,
                    &mut values,
                    4,
                );
                assert_eq!((read.count, read.result), (2, Err(Errno::ENOENT)));
                assert_ne!(keys[..4], keys[4..8], "each once");
            }
        },
    );
}

#[test]
fn a_lock_that_is_held_stays_held_in_the_next_element_of_its_place() {
    let kernel = Kernel::new();
    let fd = locked(&kernel, MapType::HASH);
    let map = kernel.map(fd).unwrap();
    let (one, two) = (1_u32.to_ne_bytes(), 2_u32.to_ne_bytes());
    calls::bpf_map_update_elem(&kernel, fd, &one, &[0; 64], BPF_ANY).unwrap();
    let prog = Prog::sched_cls(0);
    let stale = prog.map_lookup_elem(&map, &one).unwrap();
    let guard = prog.spin_lock(&stale);
    calls::bpf_map_delete_elem(&kernel, fd, &one).unwrap();
    calls::bpf_map_update_elem(&kernel, fd, &two, &[7; 64], BPF_ANY).unwrap();
    assert_eq!(
        stale.load_u64(8),
        u64::from_ne_bytes([7; 8]),
        "the same place"
    );
    let inside = AtomicU32::new(1);
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let prog = Prog::sched_cls(1);
            let value = prog.map_lookup_elem(&map, &two).unwrap();
            let _guard = prog.spin_lock(&value);
            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "alone");
        });
        thread::sleep(std::time::Duration::from_millis(20));
        inside.fetch_sub(1, Ordering::SeqCst);
        drop(guard);
        other.join().unwrap();
    });
}

#[test]
fn a_batch_of_maps_has_their_ids_while_one_is_deleted() {
    let kernel = Kernel::new();
    let inner = hash(&kernel, 8, 4, 0);
    let opts = CreateOpts {
        inner_map_fd: inner,
        ..CreateOpts::default()
    };
    let fd = calls::bpf_map_create(&kernel, MapType::HASH_OF_MAPS, "", 4, 4, 4, &opts).unwrap();
    let done = AtomicU32::new(0);
    on_two_cpus(
        |cpu| {
            let kernel = kernel.on_cpu(cpu);
            let key = cpu.to_ne_bytes();
            for _ in 0..STEPS {
                calls::bpf_map_update_elem(&kernel, fd, &key, &inner.to_ne_bytes(), BPF_ANY)
                    .unwrap();
                calls::bpf_map_delete_elem(&kernel, fd, &key).unwrap();
            }
            done.fetch_add(1, Ordering::Release);
        },
        || {
            while done.load(Ordering::Acquire) < 2 {
                let (mut keys, mut values, mut next) = ([0; 16], [0; 16], [0; 4]);
                let read = calls::bpf_map_lookup_batch(
                    &kernel,
                    fd,
                    None,
                    &mut next,
                    &mut keys,
                    &mut values,
                    4,
                );
                let ids = values.chunks(4).take(read.count as usize);
                assert!(
                    ids.into_iter().all(|id| id != [0; 4]),
                    "{read:?} {values:?}"
                );
            }
        },
    );
}

#[test]
fn a_frozen_hash_does_not_change() {
    for _ in 0..20 {
        let kernel = Kernel::new();
        let fd = hash(&kernel, 8, 4, 0);
        let (key, other) = (7_u32.to_ne_bytes(), 8_u32.to_ne_bytes());
        calls::bpf_map_update_elem(&kernel, fd, &key, &[0; 8], BPF_ANY).unwrap();
        let begun = AtomicU32::new(0);
        on_two_cpus(
            |cpu| {
                let kernel = kernel.on_cpu(cpu);
                let handle = kernel.map_handle(fd).unwrap();
                begun.fetch_add(1, Ordering::Relaxed);
                for step in 0_u64.. {
                    let value = step.to_ne_bytes();
                    let done = match step % 4 {
                        0 => calls::bpf_map_update_elem(&kernel, fd, &key, &value, BPF_ANY),
                        1 => handle.update_elem(&key, &value, UpdateFlags::ANY),
                        2 => handle.update_elem(&other, &value, UpdateFlags::ANY),
                        _ => handle.delete_elem(&other),
                    };
                    match done {
                        Ok(()) => {}
                        // The other CPU deletes it as well.
                        Err(Errno::ENOENT) if step % 4 == 3 => {}
                        Err(errno) => return assert_eq!(errno, Errno::EPERM),
                    }
                }
            },
            || {
                while begun.load(Ordering::Relaxed) < 2 {
                    thread::yield_now();
                }
                calls::bpf_map_freeze(&kernel, fd).unwrap();
                let values = [(); 100].map(|()| {
                    [key, other].map(|key| {
                        let mut value = [0; 8];
                        calls::bpf_map_lookup_elem(&kernel, fd, &key, &mut value).map(|()| value)
                    })
                });
                assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
            },
        );
    }
}

#[test]
fn of_two_writers_with_noexist_one_wins() {
    let kernel = Kernel::new();
    let fd = hash(&kernel, 8, 4, 0);
    let wins = AtomicU32::new(0);
    let both = Barrier::new(2);
    on_two_cpus(
        |cpu| {
            let (kernel, wins, both) = (kernel.on_cpu(cpu), &wins, &both);
            for round in 0..STEPS / 20 {
                both.wait();
                match calls::bpf_map_update_elem(&kernel, fd, &[1, 0, 0, 0], &[1; 8], BPF_NOEXIST) {
                    Ok(()) => {
                        wins.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(errno) => assert_eq!(errno, Errno::EEXIST),
                }
                both.wait();
                if cpu == 0 {
                    assert_eq!(wins.load(Ordering::Relaxed), round + 1);
                    calls::bpf_map_delete_elem(&kernel, fd, &[1, 0, 0, 0]).unwrap();
                }
            }
        },
        || {},
    );
}

#[test]
fn a_locked_value_is_never_torn() {
    for map_type in [MapType::HASH, MapType::ARRAY] {
        let kernel = Kernel::new();
        let fd = locked(&kernel, map_type);
        let key = [1, 0, 0, 0];
        calls::bpf_map_update_elem(&kernel, fd, &key, &[0; 64], BPF_ANY).unwrap();
        let done = AtomicBool::new(false);
        on_two_cpus(
            |cpu| {
                let (kernel, done) = (kernel.on_cpu(cpu), &done);
                for step in 0..STEPS {
                    let value = [step.to_ne_bytes()[0]; 64];
                    calls::bpf_map_update_elem(&kernel, fd, &key, &value, BPF_F_LOCK).unwrap();
                }
                done.store(true, Ordering::Relaxed);
            },
            || {
                let mut value = [0; 64];
                while !done.load(Ordering::Relaxed) {
                    calls::bpf_map_lookup_elem_flags(&kernel, fd, &key, &mut value, BPF_F_LOCK)
                        .unwrap();
                    assert_eq!(value[..4], [0; 4], "the lock never shows");
                    assert!(
                        value[4..].iter().all(|byte| *byte == value[4]),
                        "{map_type} torn: {value:?}"
                    );
                }
            },
        );
    }
}

/// Kernel: `kernel/bpf/hashtab.c:htab_map_update_elem`, which takes no bucket's lock for that.
#[test]
fn who_waits_for_a_values_lock_holds_up_nobody_else() {
    let kernel = Kernel::new();
    let fd = locked(&kernel, MapType::HASH);
    let key = 1_u32.to_ne_bytes();
    calls::bpf_map_update_elem(&kernel, fd, &key, &[0; 64], BPF_ANY).unwrap();
    let map = kernel.map(fd).unwrap();
    let prog = Prog::sched_cls(0);
    let value = prog.map_lookup_elem(&map, &key).unwrap();
    let guard = prog.spin_lock(&value);
    thread::scope(|scope| {
        let on_other = kernel.on_cpu(1);
        let waits = scope
            .spawn(move || calls::bpf_map_update_elem(&on_other, fd, &key, &[1; 64], BPF_F_LOCK));
        // It waits by then, most likely; if not, nothing is shown, and nothing fails.
        thread::sleep(std::time::Duration::from_millis(20));
        calls::bpf_map_delete_elem(&kernel, fd, &key).unwrap();
        drop(guard);
        waits.join().unwrap().unwrap();
    });
}

#[test]
fn a_counter_under_a_spin_lock_loses_no_update() {
    let kernel = Kernel::new();
    let fd = locked(&kernel, MapType::ARRAY);
    let map = kernel.map(fd).unwrap();
    on_two_cpus(
        |cpu| {
            let map = &map;
            let prog = Prog::sched_cls(cpu);
            let value = prog.map_lookup_elem(map, &[0; 4]).unwrap();
            for _ in 0..STEPS {
                let guard = prog.spin_lock(&value);
                value.store_u64(8, value.load_u64(8) + 1);
                drop(guard);
            }
        },
        || {},
    );
    let value = Prog::sched_cls(0).map_lookup_elem(&map, &[0; 4]).unwrap();
    assert_eq!(value.load_u64(8), u64::from(STEPS) * 2);
}

/// Each thread owns its keys; slots wander between the CPUs' free lists. What is there at the end is what was put there.
#[test]
fn a_batch_takes_each_element_once() {
    let kernel = Kernel::builder().cpus(2).build();
    let fd = hash(&kernel, 4, 1, 0);
    let key = 1_u32.to_ne_bytes();
    let take = || {
        let (mut token, mut keys, mut values) = ([0; 4], [0; 4], [0; 4]);
        calls::bpf_map_lookup_and_delete_batch(
            &kernel,
            fd,
            None,
            &mut token,
            &mut keys,
            &mut values,
            1,
        )
        .count
    };
    let (made, taken) = (AtomicU32::new(0), AtomicU32::new(0));
    let work = |cpu| {
        for _ in 0..STEPS {
            if cpu == 0 {
                let update = calls::bpf_map_update_elem(&kernel, fd, &key, &key, BPF_NOEXIST);
                made.fetch_add(u32::from(update.is_ok()), Ordering::Relaxed);
            } else {
                taken.fetch_add(take(), Ordering::Relaxed);
            }
        }
    };
    on_two_cpus(work, || ());
    assert_eq!(taken.into_inner() + take(), made.into_inner());
}

#[test]
fn nothing_is_lost_or_doubled() {
    for map_flags in [0, BPF_F_NO_PREALLOC] {
        let kernel = Kernel::new();
        let fd = hash(&kernel, 8, 64, map_flags);
        let map = kernel.map(fd).unwrap();
        on_two_cpus(
            |cpu| {
                let map = &map;
                let prog = Prog::sched_cls(cpu);
                let mut there = [None; 32];
                for step in 0..STEPS {
                    let index = (step.wrapping_mul(2_654_435_761) >> 20) % 32;
                    let key = (cpu * 1000 + index).to_ne_bytes();
                    let place = &mut there[index as usize];
                    let value = u64::from(step) << 8 | u64::from(index);
                    let seen = prog
                        .map_lookup_elem(map, &key)
                        .map(|value| value.load_u64(0));
                    assert_eq!(seen, *place, "step {step}");
                    if step % 3 == 0 && place.is_some() {
                        prog.map_delete_elem(map, &key).unwrap();
                        *place = None;
                    } else {
                        prog.map_update_elem(map, &key, &value.to_ne_bytes(), UpdateFlags::ANY)
                            .unwrap();
                        *place = Some(value);
                    }
                }
            },
            || {},
        );
        let mut keys = Vec::new();
        Prog::sched_cls(0)
            .for_each_map_elem(&map, 0, |key, _| {
                keys.push(key.to_vec());
                true
            })
            .unwrap();
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count, "no key twice");
        // As many can be added as there is room for, and not one more.
        for number in count..64 {
            let key = u32::try_from(5000 + number).unwrap().to_ne_bytes();
            calls::bpf_map_update_elem(&kernel, fd, &key, &[0; 8], BPF_ANY).unwrap();
        }
        assert_eq!(
            calls::bpf_map_update_elem(&kernel, fd, &[0xff; 4], &[0; 8], BPF_ANY),
            Err(Errno::E2BIG)
        );
    }
}

#[test]
fn no_word_is_torn_wherever_it_is_copied_to() {
    const WORDS: usize = 32;
    let words = Words::new(WORDS).expect("memory");
    let stop = AtomicBool::new(false);
    let torn = thread::scope(|scope| {
        scope.spawn(|| {
            let mut word = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                word = !word;
                (0..WORDS).for_each(|at| words.word(at).store(word, Ordering::Relaxed));
            }
        });
        let mut out = [0; 8 * WORDS + 8];
        let mut torn = 0;
        for round in 0..if cfg!(miri) { 20 } else { 200_000 } {
            let out = &mut out[round % 8..][..8 * WORDS];
            words.read(0, out);
            let whole = |word: &&[u8]| word.iter().all(|byte| *byte == word[0]);
            torn += out.chunks(8).filter(|word| !whole(word)).count();
        }
        stop.store(true, Ordering::Relaxed);
        torn
    });
    assert_eq!(torn, 0);
}

#[test]
fn perf_records_are_read_whole_in_order_and_none_is_lost_untold() {
    let kernel = Kernel::new();
    let events = PerfEventArray::builder().max_entries(2);
    let events = events.create(&kernel).unwrap();
    let map = kernel.map(events.map().fd()).unwrap();
    let mut buffers = [0, 1].map(|cpu| events.open(cpu, 1).unwrap());
    let mut next = [0_u64; 2];
    let mut read = |all: bool| {
        for (buffer, next) in buffers.iter_mut().zip(&mut next) {
            let mut numbers = Vec::new();
            let found = buffer.read_events(|sample| {
                let words = sample.as_chunks::<8>().0;
                assert!(words.iter().all(|word| *word == words[0]), "torn");
                numbers.push(u64::from_ne_bytes(words[0]));
            });
            *next += found.unwrap().lost;
            // What is lost was written between those samples.
            let last = numbers.last().copied();
            assert!(numbers.is_sorted_by(|a, b| a < b), "out of order");
            *next += numbers.len() as u64;
            if all && let Some(last) = last {
                assert_eq!(last + 1, *next, "each is read or told");
            }
        }
    };
    let done = AtomicU32::new(0);
    on_two_cpus(
        |cpu| {
            let prog = Prog::sched_cls(cpu);
            let output = |number: u64| {
                let data = number.to_ne_bytes().repeat(9);
                prog.perf_event_output(&map, 0xffff_ffff, &data)
            };
            for number in 0..u64::from(STEPS) {
                let _ = output(number);
            }
            done.fetch_add(1, Ordering::Release);
        },
        || {
            while done.load(Ordering::Acquire) < 2 {
                read(false);
            }
            read(false);
        },
    );
    // The last ones that found no room are told with these.
    for cpu in 0..2 {
        let data = u64::from(STEPS).to_ne_bytes().repeat(9);
        let prog = Prog::sched_cls(cpu);
        prog.perf_event_output(&map, 0xffff_ffff, &data).unwrap();
    }
    read(true);
}
