//! Ring buffers, in both directions.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mapemu::abi::{
    Bpf, Errno, Fd, MapRequest, MapType, MappedRing, PollEvents, Prot, RINGBUF_HDR_SZ, RingMemory,
    ringbuf_query,
};
use mapemu::calls::{bpf_map_delete_elem, bpf_map_freeze, bpf_map_get_next_key, bpf_map_push_elem};
use mapemu::map::Map;
use mapemu::map::ringbuf_user::{Consumer, Producer, Watch, ringbuf};
use mapemu::sys::Kernel;

use crate::common::{map, on_both};

const PAGE: usize = 4096;
const NO_WAKEUP: u64 = 1;
const FORCE_WAKEUP: u64 = 2;

fn ring(bpf: &dyn Bpf, map_type: MapType) -> Fd {
    map(bpf, map_type, 0, 0, 4096, 0)
}

fn emulated(map_type: MapType) -> Arc<Map> {
    let kernel = Kernel::new();
    let fd = ring(&kernel, map_type);
    kernel.map(fd).expect("it is a map")
}

fn consume(consumer: &mut Consumer) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    consumer.consume(&mut |data| {
        records.push(data.to_vec());
        true
    });
    records
}

#[test]
fn element_commands_are_not_supported() {
    on_both(|bpf| {
        for map_type in [MapType::RINGBUF, MapType::USER_RINGBUF] {
            let fd = ring(bpf, map_type);
            let pushed = bpf_map_push_elem(bpf, fd, &[], 0);
            assert_eq!(pushed, Err(Errno::ENOTSUPP));
            let next = bpf_map_get_next_key(bpf, fd, None, &mut []);
            assert_eq!(next, Err(Errno::ENOTSUPP));
            let deleted = bpf_map_delete_elem(bpf, fd, &[0]);
            assert_eq!(deleted, Err(Errno::EINVAL), "a key is judged first");
        }
    });
}

fn try_map(bpf: &dyn Bpf, fd: Fd, pages: (u64, usize), write: bool) -> Result<(), Errno> {
    let request = MapRequest {
        addr: 0,
        len: pages.1 * PAGE,
        offset: pages.0 * PAGE as u64,
        prot: Prot {
            read: true,
            write,
            exec: false,
        },
        shared: true,
    };
    bpf.mmap(fd, request).map(|_| ())
}

#[test]
fn a_ring_mapped_writable_is_not_frozen_meanwhile() {
    on_both(|bpf| {
        let pages = [(MapType::RINGBUF, 0), (MapType::USER_RINGBUF, 1)];
        for (map_type, page) in pages {
            let fd = ring(bpf, map_type);
            let request = MapRequest::shared(page * PAGE as u64, PAGE, true);
            let mapping = bpf.mmap(fd, request).expect("user space writes here");
            assert_eq!(bpf_map_freeze(bpf, fd), Err(Errno::EBUSY));
            drop(mapping);
            assert_eq!(bpf_map_freeze(bpf, fd), Ok(()));
        }
    });
}

#[test]
fn only_the_consumers_page_can_be_mapped_writable() {
    on_both(|bpf| {
        let fd = ring(bpf, MapType::RINGBUF);
        assert_eq!(try_map(bpf, fd, (0, 4), false), Ok(()));
        assert_eq!(try_map(bpf, fd, (0, 5), false), Err(Errno::EINVAL));
        assert_eq!(try_map(bpf, fd, (4, 1), false), Err(Errno::EINVAL));
        assert_eq!(try_map(bpf, fd, (0, 1), true), Ok(()));
        assert_eq!(try_map(bpf, fd, (0, 2), true), Err(Errno::EPERM));
        assert_eq!(try_map(bpf, fd, (1, 1), true), Err(Errno::EPERM));
    });
}

#[test]
fn of_a_user_ring_all_but_the_consumers_page_can_be_mapped_writable() {
    on_both(|bpf| {
        let fd = ring(bpf, MapType::USER_RINGBUF);
        assert_eq!(try_map(bpf, fd, (0, 4), false), Ok(()));
        assert_eq!(try_map(bpf, fd, (0, 1), true), Err(Errno::EPERM));
        assert_eq!(try_map(bpf, fd, (1, 3), true), Ok(()));
        assert_eq!(try_map(bpf, fd, (1, 4), true), Err(Errno::EINVAL));
    });
}

#[test]
fn frozen_nothing_can_be_mapped_writable() {
    on_both(|bpf| {
        let fd = ring(bpf, MapType::RINGBUF);
        assert_eq!(bpf_map_freeze(bpf, fd), Ok(()));
        assert_eq!(try_map(bpf, fd, (0, 1), true), Err(Errno::EPERM));
        assert_eq!(try_map(bpf, fd, (0, 1), false), Ok(()));
    });
}

#[test]
fn mapped_memory_shows_positions_header_and_data_twice() {
    let kernel = Kernel::new();
    let fd = ring(&kernel, MapType::RINGBUF);
    let map = kernel.map(fd).expect("it is a map");
    let ring = ringbuf(&map).expect("it is a ring");
    assert_eq!(ring.output(b"record", 0), Ok(()));
    let request = MapRequest {
        addr: 0,
        len: 4 * PAGE,
        offset: 0,
        prot: Prot {
            read: true,
            write: false,
            exec: false,
        },
        shared: true,
    };
    let memory = kernel.mmap(fd, request).expect("a mapping");
    let mut word = [0; 8];
    memory.read(PAGE, &mut word).expect("mapped");
    assert_eq!(u64::from_ne_bytes(word), 16, "the producer's position");
    for page in [2, 3] {
        memory.read(page * PAGE, &mut word).expect("mapped");
        let [len @ .., a, b, c, d] = word;
        assert_eq!(u32::from_ne_bytes(len), 6);
        assert_eq!(u32::from_ne_bytes([a, b, c, d]), 3);
        let mut data = [0; 6];
        memory.read(page * PAGE + 8, &mut data).expect("mapped");
        assert_eq!(&data, b"record");
    }
}

#[test]
fn records_come_in_the_order_of_reserve() {
    let map = emulated(MapType::RINGBUF);
    let ring = ringbuf(&map).expect("it is a ring");
    let mut consumer = Consumer::new(Arc::clone(&map)).expect("it is a ring");
    let first = ring.reserve(4, 0).expect("room");
    let second = ring.reserve(4, 0).expect("room");
    let third = ring.reserve(4, 0).expect("room");
    ring.write(&first, 0, b"1111");
    ring.write(&third, 2, b"33");
    ring.submit(third, 0);
    assert_eq!(consume(&mut consumer), Vec::<Vec<u8>>::new(), "busy");
    ring.submit(first, 0);
    assert_eq!(consume(&mut consumer), [b"1111"]);
    ring.discard(second, 0);
    assert_eq!(consume(&mut consumer), [[0, 0, b'3', b'3']]);
    assert_eq!(ring.query(ringbuf_query::CONS_POS), 48);
}

#[test]
fn a_ring_is_never_quite_full() {
    let map = emulated(MapType::RINGBUF);
    let ring = ringbuf(&map).expect("it is a ring");
    let size = PAGE as u64;
    assert_eq!(ring.reserve(size - RINGBUF_HDR_SZ as u64, 0), None);
    let record = ring
        .reserve(size - 2 * RINGBUF_HDR_SZ as u64, 0)
        .expect("room");
    assert_eq!(ring.reserve(0, 0), None);
    assert_eq!(ring.output(&[], 0), Err(Errno::EAGAIN));
    ring.submit(record, 0);
    assert_eq!(ring.query(ringbuf_query::AVAIL_DATA), size - 8);
}

#[test]
fn flags_of_reserve_and_output() {
    let map = emulated(MapType::RINGBUF);
    let ring = ringbuf(&map).expect("it is a ring");
    assert_eq!(ring.reserve(8, 1), None);
    assert_eq!(ring.output(&[1], 4), Err(Errno::EINVAL));
    assert_eq!(ring.output(&[1], NO_WAKEUP | FORCE_WAKEUP), Ok(()));
    assert_eq!(ring.query(9), 0, "an unknown question");
}

#[test]
fn a_busy_record_holds_what_lies_behind_it_even_if_the_consumer_is_past_it() {
    let kernel = Kernel::new();
    let fd = ring(&kernel, MapType::RINGBUF);
    let map = kernel.map(fd).expect("it is a map");
    let ring = ringbuf(&map).expect("it is a ring");
    let busy = ring.reserve(2000, 0).expect("room");
    assert_eq!(ring.output(&[0; 2000], 0), Ok(()));
    let request = MapRequest {
        addr: 0,
        len: PAGE,
        offset: 0,
        prot: Prot {
            read: true,
            write: true,
            exec: false,
        },
        shared: true,
    };
    let memory = kernel.mmap(fd, request).expect("a mapping");
    memory.write(0, &4016_u64.to_ne_bytes()).expect("mapped");
    assert_eq!(ring.output(&[0; 2000], 0), Err(Errno::EAGAIN));
    ring.submit(busy, 0);
    assert_eq!(ring.output(&[0; 2000], 0), Ok(()));
}

#[test]
fn only_the_record_where_the_consumer_stands_wakes() {
    let map = emulated(MapType::RINGBUF);
    let ring = ringbuf(&map).expect("it is a ring");
    let mut watch = Watch::new(Arc::clone(&map), true).expect("it is a ring");
    let mut consumer = Consumer::new(Arc::clone(&map)).expect("it is a ring");
    let ready = PollEvents::IN | PollEvents::RDNORM;
    assert_eq!(watch.ready(), PollEvents::empty());
    ring.output(&[1], 0).expect("room");
    assert_eq!(watch.ready(), ready);
    assert_eq!(watch.ready(), PollEvents::empty(), "told once");
    ring.output(&[2], 0).expect("room");
    assert_eq!(watch.ready(), PollEvents::empty(), "the first is there");
    consume(&mut consumer);
    ring.output(&[3], NO_WAKEUP).expect("room");
    assert_eq!(watch.ready(), PollEvents::empty());
    ring.output(&[4], 0).expect("room");
    assert_eq!(watch.ready(), PollEvents::empty(), "a lost wakeup");
    ring.output(&[5], FORCE_WAKEUP).expect("room");
    assert_eq!(watch.ready(), ready);
}

#[test]
fn poll_waits_for_a_wakeup() {
    let map = emulated(MapType::RINGBUF);
    let mut consumer = Consumer::new(Arc::clone(&map)).expect("it is a ring");
    let mut seen = Vec::new();
    let mut read = |data: &[u8]| {
        seen.push(data.to_vec());
        true
    };
    assert_eq!(consumer.poll(Some(Duration::ZERO), &mut read), 0);
    let count = if cfg!(miri) { 5 } else { 500 };
    thread::scope(|scope| {
        scope.spawn(|| {
            let ring = ringbuf(&map).expect("it is a ring");
            for number in 0..count {
                while ring.output(&u64::to_ne_bytes(number), 0).is_err() {
                    thread::yield_now();
                }
            }
        });
        let mut left = count;
        while left > 0 {
            left -= consumer.poll(None, &mut read) as u64;
        }
    });
    let numbers: Vec<_> = (0..count).map(u64::to_ne_bytes).collect();
    assert_eq!(seen, numbers);
}

#[test]
fn many_producers_lose_nothing() {
    let map = emulated(MapType::RINGBUF);
    let mut consumer = Consumer::new(Arc::clone(&map)).expect("it is a ring");
    let (threads, count) = if cfg!(miri) { (2, 5) } else { (4, 500) };
    let mut next = vec![0; threads];
    thread::scope(|scope| {
        for thread in 0..threads {
            let map = &map;
            scope.spawn(move || {
                let ring = ringbuf(map).expect("it is a ring");
                for number in 0..count {
                    let data = vec![u8::try_from(thread).expect("few"); number % 100 + 1];
                    while ring.output(&data, 0).is_err() {
                        thread::yield_now();
                    }
                }
            });
        }
        let mut left = threads * count;
        while left > 0 {
            left -= consumer.poll(None, &mut |data| {
                let thread = usize::from(data[0]);
                assert!(data.iter().all(|&byte| byte == data[0]));
                assert_eq!(data.len(), next[thread] % 100 + 1, "in order");
                next[thread] += 1;
                true
            });
        }
    });
    assert_eq!(next, vec![count; threads]);
}

#[test]
fn a_drain_hands_over_until_it_is_told_to_stop() {
    let map = emulated(MapType::USER_RINGBUF);
    let ring = ringbuf(&map).expect("it is a ring");
    let mut producer = Producer::new(Arc::clone(&map)).expect("it is a user ring");
    for data in [b"one", b"two"] {
        producer.produce(data).expect("room");
    }
    let mut seen = Vec::new();
    assert_eq!(ring.drain(8, &mut |_| true), Err(Errno::EINVAL));
    let mut stop = |sample: &mapemu::map::ringbuf::Sample<'_>| {
        assert_eq!(sample.read(0, &mut [0; 4]), Err(Errno::E2BIG));
        seen.push(sample.to_vec());
        false
    };
    assert_eq!(ring.drain(0, &mut stop), Ok(1));
    assert_eq!(ring.drain(0, &mut stop), Ok(1));
    assert_eq!(ring.drain(0, &mut stop), Ok(0));
    assert_eq!(seen, [b"one", b"two"]);
}

#[test]
fn a_drain_does_not_nest() {
    let map = emulated(MapType::USER_RINGBUF);
    let ring = ringbuf(&map).expect("it is a ring");
    let mut producer = Producer::new(Arc::clone(&map)).expect("it is a user ring");
    producer.produce(b"one").expect("room");
    let mut nested = |_: &mapemu::map::ringbuf::Sample<'_>| {
        assert_eq!(ring.drain(0, &mut |_| true), Err(Errno::EBUSY));
        true
    };
    assert_eq!(ring.drain(0, &mut nested), Ok(1));
}

#[test]
fn a_writer_waits_for_room() {
    let map = emulated(MapType::USER_RINGBUF);
    let mut producer = Producer::new(Arc::clone(&map)).expect("it is a user ring");
    assert_eq!(producer.produce(&[0; PAGE]), Err(Errno::E2BIG));
    producer.produce(&[1; PAGE - 8]).expect("the whole ring");
    assert_eq!(producer.produce(&[]), Err(Errno::ENOSPC));
    let waited = producer.produce_blocking(&[], Some(Duration::from_millis(1)));
    assert_eq!(waited, Err(Errno::ENOSPC));
    thread::scope(|scope| {
        scope.spawn(|| {
            let ring = ringbuf(&map).expect("it is a ring");
            while ring.drain(0, &mut |_| true) == Ok(0) {
                thread::yield_now();
            }
        });
        assert_eq!(producer.produce_blocking(&[2; 100], None), Ok(()));
    });
}

#[test]
fn no_room_for_a_producer_behind_the_consumer() {
    let kernel = Kernel::new();
    let fd = ring(&kernel, MapType::USER_RINGBUF);
    let map = kernel.map(fd).expect("it is a map");
    let mut producer = Producer::new(Arc::clone(&map)).expect("it is a user ring");
    assert_eq!(producer.produce(&[1; 8]), Ok(()));
    let ring = ringbuf(&map).expect("it is a ring");
    assert_eq!(ring.drain(0, &mut |_| true), Ok(1));
    let request = MapRequest::shared(PAGE as u64, PAGE, true);
    let memory = kernel.mmap(fd, request).expect("a mapping");
    memory.write(0, &0_u64.to_ne_bytes()).expect("mapped");
    assert_eq!(producer.produce(&[1; 8]), Err(Errno::ENOSPC));
}

#[test]
fn a_sample_lies_where_the_producer_was_moved_to() {
    let kernel = Kernel::new();
    let fd = ring(&kernel, MapType::USER_RINGBUF);
    let memory = MappedRing::new(&kernel, fd, PAGE, true).expect("a ring");
    memory.set_producer(12).expect("it is mapped");
    let mut producer = Producer::new(kernel.map(fd).expect("a map")).expect("it is a user ring");
    assert_eq!(producer.produce(&[7; 8]), Ok(()));
    assert_eq!(memory.header(12), Ok([8, 0, 0, 0, 0, 0, 0, 0]));
    let mut data = [0; 8];
    memory.read(12, &mut data).expect("it is mapped");
    assert_eq!(data, [7; 8]);
}
