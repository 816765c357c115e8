//! What maps take: memory of an element, in the process and as the running kernel charges it, and time by size.

use std::fs;
use std::hint::black_box;
use std::io;
use std::time::Instant;

use super::burst::ns_each;
use super::column::{Column, Spec, filled, keys, shuffle};
use super::emulated::Emulated;
use super::running::Running;
use crate::abi::MapType;

/// Bytes of memory that this process has now.
///
/// # Errors
///
/// Those of reading `/proc/self/status`: there is none but on Linux.
pub fn resident() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// What a full map takes for each of its elements.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// What it was made with.
    pub spec: Spec,
    /// Bytes in this process.
    pub own: f64,
    /// Bytes that the running kernel charges (fdinfo's `memlock`); none where it may not be asked.
    pub kernel: Option<f64>,
    /// The most that own ÷ kernel may be.
    pub goal: f64,
}

/// The maps that are weighed: the largest of their sizes that take no more than 32 MiB in the running kernel.
const WEIGHED: [(Spec, f64); 4] = [
    (Spec::new(MapType::HASH, 4, 8, 300_000), 0.5),
    (Spec::new(MapType::HASH, 16, 64, 200_000), 0.75),
    (Spec::new(MapType::HASH, 16, 1024, 29_000), 1.0),
    (Spec::new(MapType::ARRAY, 4, 64, 500_000), 1.0),
];

/// Weighs maps.
///
/// # Errors
///
/// Those of [`resident`].
pub fn shares() -> io::Result<Vec<Share>> {
    let share = |&(spec, goal): &(Spec, f64)| {
        Ok(match spec.key_size {
            4 => Share {
                spec,
                own: own_share::<4>(&spec)?,
                kernel: kernel_share::<4>(&spec),
                goal,
            },
            _ => Share {
                spec,
                own: own_share::<16>(&spec)?,
                kernel: kernel_share::<16>(&spec),
                goal,
            },
        })
    };
    WEIGHED.iter().map(share).collect()
}

fn own_share<const K: usize>(spec: &Spec) -> io::Result<f64> {
    let keys = keys::<K>(spec.max_entries, 0);
    let order: Vec<[u8; K]> = keys.clone();
    let before = resident()?;
    let map: Emulated = filled_in_order(spec, &order);
    let after = resident()?;
    black_box(&map);
    Ok(after.saturating_sub(before) as f64 / spec.max_entries as f64)
}

/// Without memory of its own for the order.
fn filled_in_order<const K: usize>(spec: &Spec, keys: &[[u8; K]]) -> Emulated {
    let map = <Emulated as Column<K>>::new(spec).expect("it is always there");
    let value = vec![7; spec.user_value_size()];
    for key in keys {
        map.update(key, &value);
    }
    map
}

fn kernel_share<const K: usize>(spec: &Spec) -> Option<f64> {
    let map: Running = filled(spec, &keys::<K>(spec.max_entries, 0))?;
    let charged = map.memlock().ok()?;
    Some(charged as f64 / spec.max_entries as f64)
}

/// What a map of that size costs, for each of its elements.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// What it was made with.
    pub spec: Spec,
    /// Bytes in this process.
    pub bytes: f64,
    /// ns to insert, in random order.
    pub fill_ns: f64,
    /// ns to look up, in another random order.
    pub lookup_ns: f64,
    /// ns to go on to the next key, from the first to the last.
    pub walk_ns: f64,
    /// ns to drop.
    pub drop_ns: f64,
    /// Bytes that stayed behind, in all.
    pub left: u64,
}

/// Numbers of elements, up to ten million.
pub const SIZES: [usize; 9] = [
    1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000,
];

/// Makes a hash of so many elements with keys of 4 bytes and values of 8, fills it to the end, looks each key up, walks through
/// all, and drops it.
///
/// # Errors
///
/// Those of [`resident`].
///
/// # Panics
///
/// If an element is lost on the way.
pub fn cost(max_entries: usize) -> io::Result<Cost> {
    let spec = Spec::new(MapType::HASH, 4, 8, max_entries);
    let mut keys = keys::<4>(max_entries, 0);
    let before = resident()?;
    let start = Instant::now();
    let map = filled_in_order(&spec, &keys);
    let fill = start.elapsed();
    let full = resident()?;

    shuffle(&mut keys, 0x0fed_cba9_8765_4321);
    let mut value = [0; 8];
    let start = Instant::now();
    for key in &keys {
        assert!(map.lookup(key, &mut value), "it was inserted");
    }
    let lookup = start.elapsed();

    let start = Instant::now();
    let mut walked = 0;
    let mut next = [0; 4];
    let mut more = map.next(None, &mut next);
    while more {
        walked += 1;
        let key = next;
        more = map.next(Some(&key), &mut next);
    }
    let walk = start.elapsed();
    assert_eq!(walked, max_entries, "each key once");

    let start = Instant::now();
    drop(map);
    let dropped = start.elapsed();
    Ok(Cost {
        spec,
        bytes: full.saturating_sub(before) as f64 / max_entries as f64,
        fill_ns: ns_each(fill, max_entries),
        lookup_ns: ns_each(lookup, max_entries),
        walk_ns: ns_each(walk, max_entries),
        drop_ns: ns_each(dropped, max_entries),
        left: resident()?.saturating_sub(before),
    })
}
