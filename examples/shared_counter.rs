//! A counter that programs on several CPUs share: an update is lost without a lock, none under a `bpf_spin_lock`.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "an example")]

use std::sync::Barrier;
use std::thread;

use mapemu::Kernel;
use mapemu::abi::{Errno, MapType};
use mapemu::btf::Writer;
use mapemu::calls::{self, CreateOpts};
use mapemu::helper::Prog;

const CPUS: u32 = 2;
const STEPS: u32 = 10_000;
const COUNT: usize = 8;
const KEY: [u8; 4] = [0; 4];

fn main() -> Result<(), Errno> {
    let kernel = Kernel::builder().cpus(CPUS).build();

    // struct value { struct bpf_spin_lock lock; __u64 count; };
    let mut btf = Writer::new();
    let u32_id = btf.int("u32", 4);
    let u64_id = btf.int("u64", 8);
    let lock_id = btf.structure("bpf_spin_lock", 4, &[("val", u32_id, 0)]);
    let value_id = btf.structure("value", 16, &[("lock", lock_id, 0), ("count", u64_id, 8)]);
    let opts = CreateOpts {
        btf_fd: calls::bpf_btf_load(&kernel, &btf.finish())?,
        btf_key_type_id: u32_id,
        btf_value_type_id: value_id,
        ..CreateOpts::default()
    };
    let fd = calls::bpf_map_create(&kernel, MapType::HASH, "counter", 4, 16, 1, &opts)?;
    calls::bpf_map_update_elem(&kernel, fd, &KEY, &[0; 16], 0)?;
    let map = kernel.map(fd)?;

    // Both read 0, then both write 1: the barrier makes the bad case happen each time.
    let both_have_read = Barrier::new(CPUS as usize);
    thread::scope(|scope| {
        for cpu in 0..CPUS {
            let (map, both_have_read) = (&map, &both_have_read);
            scope.spawn(move || {
                let prog = Prog::sched_cls(cpu);
                let value = prog.map_lookup_elem(map, &KEY).expect("made above");
                let count = value.load_u64(COUNT);
                both_have_read.wait();
                value.store_u64(COUNT, count + 1);
            });
        }
    });
    let count = || -> Result<u64, Errno> {
        let mut value = [0; 16];
        calls::bpf_map_lookup_elem(&kernel, fd, &KEY, &mut value)?;
        let [.., a, b, c, d, e, f, g, h] = value;
        Ok(u64::from_ne_bytes([a, b, c, d, e, f, g, h]))
    };
    println!(
        "without a lock: {CPUS} updates, the counter is {}",
        count()?
    );
    assert_eq!(count()?, 1);

    calls::bpf_map_update_elem(&kernel, fd, &KEY, &[0; 16], 0)?;
    thread::scope(|scope| {
        for cpu in 0..CPUS {
            let map = &map;
            scope.spawn(move || {
                let prog = Prog::sched_cls(cpu);
                let value = prog.map_lookup_elem(map, &KEY).expect("made above");
                for _ in 0..STEPS {
                    let lock = prog.spin_lock(&value);
                    value.store_u64(COUNT, value.load_u64(COUNT) + 1);
                    lock.spin_unlock();
                }
            });
        }
    });
    println!(
        "under the lock: {} updates, the counter is {}",
        CPUS * STEPS,
        count()?
    );
    assert_eq!(count()?, u64::from(CPUS * STEPS));
    Ok(())
}
