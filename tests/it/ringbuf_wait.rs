//! Facts about waiting for a ring buffer: a reader sleeps in one thread, a program writes in another.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mapemu::abi::{Bpf, Errno, MapType, PollEvents};
use mapemu::conform::{Both, Worlds};
use mapemu::trace::{Options, RingStep, World};
use mapemu::typed::RingBuf;

use crate::common::{on_both, running_kernel, small};

const NO_WAKEUP: u64 = 1;
const FORCE_WAKEUP: u64 = 2;

/// Longer than any test takes.
const LONG: Option<Duration> = Some(Duration::from_secs(20));

/// Time in which a reader falls asleep.
const A_WHILE: Duration = Duration::from_millis(60);

/// Holds a fact that takes programs against both kernels.
#[track_caller]
fn on_both_worlds(fact: fn(&mut dyn World)) {
    if running_kernel().is_none() {
        return;
    }
    let both = Both::new(Options::default()).expect("it was there just now");
    let (mut running, mut emulated) = both.worlds().expect("two kernels");
    for world in [&mut running, &mut emulated] {
        fact(&mut **world);
        world.finish();
    }
}

fn ring(world: &dyn World) -> RingBuf {
    let bpf: Arc<dyn Bpf> = world.bpf().on_cpu(0).into();
    let builder = RingBuf::builder().max_entries(4096);
    builder.create(&bpf).expect("a ring buffer")
}

/// A program runs these steps on the ring.
fn run(world: &mut dyn World, fd: u32, steps: &[RingStep]) {
    let facts = world.map_facts(fd).expect("a map");
    world.ringbuf(fd, &facts, steps).expect("it runs");
}

/// What a reader gets that waits, and how long it takes, while a program runs these steps.
fn read_while(
    world: &mut dyn World,
    mut ring: RingBuf,
    timeout: Option<Duration>,
    steps: &[RingStep],
) -> (Option<Vec<u8>>, Duration) {
    let fd = ring.map().fd();
    thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let start = Instant::now();
            let item = ring.next_blocking(timeout).expect("it can wait");
            (item.map(|item| item.to_vec()), start.elapsed())
        });
        thread::sleep(A_WHILE);
        run(world, fd, steps);
        reader.join().expect("it reads")
    })
}

#[test]
fn a_record_wakes_who_waits() {
    on_both_worlds(|world| {
        let ring = ring(world);
        let output = RingStep::Output(b"woken".to_vec(), 0);
        let (record, _) = read_while(world, ring, None, &[output]);
        assert_eq!(record.as_deref(), Some(&b"woken"[..]));
    });
}

#[test]
fn a_record_without_wakeup_is_found_when_the_time_is_over() {
    on_both_worlds(|world| {
        let ring = ring(world);
        let timeout = 5 * A_WHILE;
        let output = RingStep::Output(b"quiet".to_vec(), NO_WAKEUP);
        let (record, took) = read_while(world, ring, Some(timeout), &[output]);
        assert_eq!(record.as_deref(), Some(&b"quiet"[..]));
        assert!(took >= timeout, "not before: {took:?}");
    });
}

#[test]
fn a_forced_wakeup_finds_what_was_quiet() {
    on_both_worlds(|world| {
        let ring = ring(world);
        let quiet = RingStep::Output(b"quiet".to_vec(), NO_WAKEUP);
        let forced = RingStep::Output(b"forced".to_vec(), NO_WAKEUP | FORCE_WAKEUP);
        let (record, took) = read_while(world, ring, LONG, &[quiet, forced]);
        assert_eq!(record.as_deref(), Some(&b"quiet"[..]));
        assert!(Some(took) < LONG);
    });
}

#[test]
fn a_record_behind_an_unread_one_wakes_nobody() {
    on_both_worlds(|world| {
        let ring = ring(world);
        let quiet = RingStep::Output(b"quiet".to_vec(), NO_WAKEUP);
        let behind = RingStep::Output(b"behind".to_vec(), 0);
        let timeout = 5 * A_WHILE;
        let (record, took) = read_while(world, ring, Some(timeout), &[quiet, behind]);
        assert_eq!(record.as_deref(), Some(&b"quiet"[..]));
        assert!(took >= timeout, "not before: {took:?}");
    });
}

#[test]
fn a_discarded_record_wakes_and_is_not_read() {
    on_both_worlds(|world| {
        let ring = ring(world);
        let steps = [
            RingStep::Reserve(8, 0, 0, Vec::new()),
            RingStep::Discard(0, 0),
        ];
        let timeout = 4 * A_WHILE;
        let (record, took) = read_while(world, ring, Some(timeout), &steps);
        assert_eq!(record, None);
        assert!(took >= timeout, "not before: {took:?}");
    });
}

#[test]
fn what_is_there_is_read_without_waiting() {
    on_both_worlds(|world| {
        let mut ring = ring(world);
        let none = ring.next_blocking(Some(Duration::ZERO));
        assert!(none.expect("it reads").is_none());
        let fd = ring.map().fd();
        run(world, fd, &[RingStep::Output(vec![7], NO_WAKEUP)]);
        let item = ring.next_blocking(None).expect("it reads");
        assert_eq!(item.as_deref(), Some(&[7][..]));
    });
}

#[test]
fn maps_without_events_are_in_error_at_once() {
    on_both(|bpf| {
        let fd = small(bpf, MapType::ARRAY);
        assert_eq!(bpf.poll(fd, None), Ok(PollEvents::ERR));
        assert_eq!(bpf.poll(u32::MAX >> 1, None), Err(Errno::EBADF));
    });
}
