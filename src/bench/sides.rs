//! The program side: what helpers cost an emulated program, and one of the running kernel, without a system call.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use super::burst::{BURST, burst, ns_each};
use super::cells::Measure;
use super::column::{Column, Spec};
use super::emulated::Emulated;
use super::ops::{Timed, burst_from};
use super::running::Running;
use crate::abi::{MapType, UpdateFlags};
use crate::helper::Prog;
use crate::map::Map;
use crate::map::ringbuf_user::Consumer;

/// Keys are numbers below this.
pub(super) const KEYS: u32 = 8192;
/// The largest key and value that programs have room for.
const LARGEST_KEY: usize = 16;
const LARGEST_VALUE: usize = 64;
/// Bytes of a record.
pub(super) const RECORD: usize = 64;

/// The number behind `number`: each below [`KEYS`] comes up once before the first comes again.
const fn scrambled(number: u32) -> u32 {
    number.wrapping_mul(1_664_525).wrapping_add(101_390_421) & (KEYS - 1)
}

/// What a program does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ProgOp {
    Lookup,
    Update,
    DeleteAndUpdate,
    Output,
}

impl ProgOp {
    const fn name(self) -> &'static str {
        match self {
            Self::Lookup => "program: lookup hit",
            Self::Update => "program: update",
            Self::DeleteAndUpdate => "program: delete and insert",
            Self::Output => "program: output",
        }
    }
}

/// The rows of a map whose keys are numbers, all below [`KEYS`] there; none where a program has no room for its values.
pub(super) fn programs<const K: usize>(
    measure: &Measure<'_>,
    spec: &Spec,
    own: &Emulated,
    kernel: Option<&Running>,
) {
    if K > LARGEST_KEY || spec.value_size > LARGEST_VALUE || spec.max_entries < KEYS as usize {
        return;
    }
    let keys = in_scrambled_order::<K>();
    let (map, prog) = (own.map(), Prog::sched_cls(0));
    let ops = [ProgOp::Lookup, ProgOp::Update, ProgOp::DeleteAndUpdate];
    let has = |op: &ProgOp| spec.map_type != MapType::ARRAY || *op != ProgOp::DeleteAndUpdate;
    for op in ops.into_iter().filter(has) {
        let own = by_prog(&map, &prog, &keys, spec.value_size, op);
        let columns = [Some(own), None, by_kernel(kernel, op), None];
        measure.row_named(spec, op.name(), columns);
    }
}

fn in_scrambled_order<const K: usize>() -> Vec<[u8; K]> {
    let mut number = 0;
    let keys = (0..KEYS).map(|_| {
        number = scrambled(number);
        let mut key = [0; K];
        key[..4].copy_from_slice(&number.to_le_bytes());
        key
    });
    keys.collect()
}

/// An operation of an emulated program.
fn by_prog<'a, const K: usize>(
    map: &'a Map,
    prog: &'a Prog,
    keys: &'a [[u8; K]],
    value_size: usize,
    op: ProgOp,
) -> Timed<'a> {
    const ANY: UpdateFlags = UpdateFlags::ANY;
    let value = vec![1; value_size];
    let twice = move |op: &mut dyn FnMut(&[u8; K]), at: usize| {
        let keys = burst_from(keys, at);
        let mut once = || burst(|i| op(black_box(keys[i])));
        once();
        once()
    };
    match op {
        ProgOp::Lookup => Box::new(move |at| {
            twice(
                &mut |key| {
                    // Of an LRU map it may be gone.
                    if let Some(value) = prog.map_lookup_elem(map, key) {
                        black_box(value.load_u64(0));
                    }
                },
                at,
            )
        }),
        ProgOp::Update => Box::new(move |at| {
            let mut op = |key: &[u8; K]| prog.map_update_elem(map, key, &value, ANY).expect("room");
            twice(&mut op, at)
        }),
        ProgOp::DeleteAndUpdate => Box::new(move |at| {
            let mut op = |key: &[u8; K]| {
                let _ = prog.map_delete_elem(map, key);
                prog.map_update_elem(map, key, &value, ANY).expect("room");
            };
            twice(&mut op, at)
        }),
        ProgOp::Output => unreachable!("it has no key"),
    }
}

/// The same by a program of the running kernel; none where it may not be loaded.
#[cfg(target_os = "linux")]
fn by_kernel(map: Option<&Running>, op: ProgOp) -> Option<Timed<'_>> {
    let timed = super::programs::Timed::new(map?, op)?;
    Some(Box::new(move |_| (timed.run(), timed.run()).1))
}

#[cfg(not(target_os = "linux"))]
fn by_kernel(_map: Option<&Running>, _op: ProgOp) -> Option<Timed<'_>> {
    None
}

/// A ring buffer, with records of [`RECORD`] bytes.
pub(super) fn rings(measure: &Measure<'_>, spec: &Spec) {
    let own = <Emulated as Column<0>>::new(spec).expect("it is always there");
    let (map, prog) = (own.map(), Prog::sched_cls(0));
    let output = || prog.ringbuf_output(&map, &[7; RECORD], 0).expect("room");
    let outputs = || {
        let ns = burst(|_| output());
        assert_eq!(consume(&map), BURST, "all fitted");
        ns
    };
    let kernel = <Running as Column<0>>::new(spec);
    let columns = [
        Some(Box::new(|_| outputs()) as Timed<'_>),
        None,
        kernel_outputs(kernel.as_ref()),
        None,
    ];
    measure.row_named(spec, ProgOp::Output.name(), columns);
    let reserves = || {
        let ns = burst(|_| {
            let record = prog.ringbuf_reserve(&map, RECORD as u64, 0);
            let record = record.expect("room");
            record.write(0, black_box(&[7; RECORD]));
            record.submit(0);
        });
        consume(&map);
        ns
    };
    let reserves = Some(Box::new(|_| reserves()) as Timed<'_>);
    measure.row_named(
        spec,
        "program: reserve and submit",
        [reserves, None, None, None],
    );
    let consumes = || {
        (0..BURST).for_each(|_| output());
        let start = Instant::now();
        let read = consume(&map);
        ns_each(start.elapsed(), read)
    };
    let consumes = Some(Box::new(|_| consumes()) as Timed<'_>);
    measure.row_named(spec, "consume", [consumes, None, None, None]);
}

/// Reads all records; how many there were.
fn consume(map: &Arc<Map>) -> usize {
    let consumer = Consumer::new(Arc::clone(map));
    let mut sum = 0_u64;
    let read = consumer.expect("a ring").consume(&mut |bytes| {
        sum += u64::from(bytes[0]);
        true
    });
    black_box(sum);
    read
}

#[cfg(target_os = "linux")]
fn kernel_outputs(map: Option<&Running>) -> Option<Timed<'_>> {
    let timed = super::programs::Timed::new(map?, ProgOp::Output)?;
    let positions = super::programs::Positions::of(&timed, map?)?;
    Some(Box::new(move |_| {
        let ns = timed.run();
        let bytes = positions.consume();
        assert_eq!(bytes, (BURST * (RECORD + 8)) as u64, "all fitted");
        ns
    }))
}

#[cfg(not(target_os = "linux"))]
fn kernel_outputs(_map: Option<&Running>) -> Option<Timed<'_>> {
    None
}
