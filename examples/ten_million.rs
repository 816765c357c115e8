//! A map of ten million elements: made, filled, walked through and dropped, with what each step takes.
//!
//! ```sh
//! cargo run --release --example ten_million
//! ```
//!
//! Memory is taken when it is used, and given back with the map. In a debug build it is a million, unless an argument says
//! otherwise. Costs by size: `mapemu bench --memory`, and `docs/cost-by-size.svg`.
#![allow(clippy::print_stdout, reason = "an example")]

use std::fs;
use std::time::Instant;

use mapemu::Kernel;
use mapemu::typed::{Error, HashMap};

fn main() -> Result<(), Error> {
    let usual = if cfg!(debug_assertions) {
        1_000_000
    } else {
        10_000_000
    };
    let n: u32 = std::env::args()
        .nth(1)
        .map_or(usual, |text| text.parse().expect("a number of elements"));
    println!("{n} elements     ms     MiB in the process");
    let before = resident();

    let kernel = Kernel::new();
    let map: HashMap<u32, u64> =
        step("made", || HashMap::builder().max_entries(n).create(&kernel))?;
    step("filled", || {
        // Any order: as odd numbers have no factor of 2, each key comes once.
        (0..n).try_for_each(|i| {
            let key = i.wrapping_mul(0x9e37_79b1);
            map.insert(key, u64::from(i), 0)
        })
    })?;
    let full = resident();
    let walked = step("walked", || map.keys().count());
    assert_eq!(walked, n as usize, "each key once");
    step("looked up", || {
        (0..n).try_for_each(|i| {
            let value = map.get(&i.wrapping_mul(0x9e37_79b1), 0)?;
            assert_eq!(value, u64::from(i));
            Ok::<(), Error>(())
        })
    })?;
    step("dropped", || drop((map, kernel)));

    if let (Some(before), Some(full), Some(after)) = (before, full, resident()) {
        let each = full.saturating_sub(before) as f64 / f64::from(n);
        println!("{each:.1} bytes of an element");
        // 24 of a slot, 8 of each of the 16,777,216 buckets; and pages that the allocator keeps.
        assert!(each < 64.0, "an element takes little more than itself");
        let left = after.saturating_sub(before);
        assert!(left < 16 << 20, "{left} bytes stayed behind");
    }
    Ok(())
}

/// Does a step, and tells what it took.
fn step<R>(name: &str, does: impl FnOnce() -> R) -> R {
    let start = Instant::now();
    let done = does();
    let took = start.elapsed().as_millis();
    let mib = resident().map_or_else(String::new, |bytes| (bytes >> 20).to_string());
    println!("{name:<15} {took:>6} {mib:>7}");
    done
}

/// Bytes of memory that this process has, where the system tells.
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
