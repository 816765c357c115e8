//! Facts about `BPF_MAP_TYPE_PERF_EVENT_ARRAY`: what programs write to perf events.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mapemu::Kernel;
use mapemu::abi::{
    Bpf, Errno, Fd, MapRequest, MapType, Mapping, PAGE_SIZE, PerfEvent, PollEvents, ProgType, Prot,
    Result, perf_page,
};
use mapemu::calls;
use mapemu::env::Unsupported;
use mapemu::helper::Prog;
use mapemu::typed::{Events, PerfEventArray};

use crate::common::{BPF_ANY, map};
use crate::playing::{Emulated, Output, Side, on_both_sides};

const CURRENT_CPU: u64 = 0xffff_ffff;

/// An array of 4 events.
fn array(side: &dyn Side) -> Fd {
    map(side.bpf(), MapType::PERF_EVENT_ARRAY, 4, 4, 4, 0)
}

#[track_caller]
fn put(side: &dyn Side, array: Fd, index: u32, event: PerfEvent) -> Fd {
    let fd = side.bpf().perf_event_open(event).expect("an event");
    let (key, value) = (index.to_ne_bytes(), fd.to_ne_bytes());
    calls::bpf_map_update_elem(side.bpf(), array, &key, &value, BPF_ANY).expect("it fits");
    fd
}

fn mapped(side: &dyn Side, event: Fd, pages: usize) -> Result<Box<dyn Mapping>> {
    let request = MapRequest::shared(0, pages * PAGE_SIZE, true);
    side.bpf().mmap(event, request)
}

fn number(memory: &dyn Mapping, at: usize) -> u64 {
    let mut bytes = [0; 8];
    memory.read(at, &mut bytes).expect("in the memory");
    u64::from_ne_bytes(bytes)
}

/// Of a program without a packet, on CPU 0.
fn output(side: &dyn Side, array: Fd, flags: u64, data: &[u8]) -> Result<()> {
    let call = Output {
        prog_type: ProgType::RAW_TRACEPOINT,
        map: array,
        flags,
        data,
    };
    side.output(0, call)
}

#[test]
fn flags_then_index_then_kind_then_cpu_then_room() {
    on_both_sides(|side| {
        let array = array(side);
        let of_cpu = PerfEvent::bpf_output;
        put(side, array, 0, of_cpu(0));
        put(side, array, 1, of_cpu(1));
        let clock = PerfEvent {
            config: 0,
            ..of_cpu(1)
        };
        put(side, array, 2, clock);
        let give = |flags| output(side, array, flags, b"hello");
        assert_eq!(give(1 << 32 | 9), Err(Errno::EINVAL));
        assert_eq!(give(1 << 63 | 9), Err(Errno::EINVAL));
        assert_eq!(give(4), Err(Errno::E2BIG));
        assert_eq!(give(3), Err(Errno::ENOENT));
        assert_eq!(give(2), Err(Errno::EINVAL), "of another CPU too");
        assert_eq!(give(1), Err(Errno::EOPNOTSUPP));
        assert_eq!(give(0), Err(Errno::ENOSPC), "it is not mapped");
        assert_eq!(give(CURRENT_CPU), Err(Errno::ENOSPC));
        let call = Output {
            prog_type: ProgType::RAW_TRACEPOINT,
            map: array,
            flags: CURRENT_CPU,
            data: b"hello",
        };
        let event = put(side, array, 1, of_cpu(1));
        let memory = mapped(side, event, 2).expect("memory");
        assert_eq!(side.output(1, call), Ok(()), "the event of that CPU");
        assert_eq!(number(&*memory, perf_page::DATA_HEAD), 24);
    });
}

#[test]
fn an_event_takes_samples_while_it_is_on_and_mapped() {
    on_both_sides(|side| {
        let array = array(side);
        let off = PerfEvent {
            disabled: true,
            ..PerfEvent::bpf_output(0)
        };
        let event = put(side, array, 0, off);
        let give = || output(side, array, 0, b"hello");
        let memory = mapped(side, event, 2).expect("memory");
        assert_eq!(give(), Err(Errno::EOPNOTSUPP));
        side.enable(event, true).expect("an event");
        assert_eq!(give(), Ok(()));
        side.enable(event, false).expect("an event");
        assert_eq!(give(), Err(Errno::EOPNOTSUPP));
        side.enable(event, true).expect("an event");
        drop(memory);
        assert_eq!(give(), Err(Errno::ENOSPC));
        let memory = mapped(side, event, 2).expect("memory");
        assert_eq!(number(&*memory, perf_page::DATA_HEAD), 0, "a new buffer");
        side.bpf().close(event).expect("it is open");
        assert_eq!(give(), Ok(()), "the array holds it");
        assert_eq!(number(&*memory, perf_page::DATA_HEAD), 24);
    });
}

#[test]
fn samples_may_begin_with_the_time() {
    on_both_sides(|side| {
        let array = array(side);
        let timed = PerfEvent {
            timed: true,
            ..PerfEvent::bpf_output(0)
        };
        let event = put(side, array, 0, timed);
        let memory = mapped(side, event, 2).expect("memory");
        assert_eq!(output(side, array, 0, b"hello"), Ok(()));
        assert_eq!(number(&*memory, perf_page::DATA_HEAD), 32);
        let header = number(&*memory, PAGE_SIZE);
        assert_eq!(header, 9 | 1 << 32 | 32 << 48, "a sample of 32 bytes");
        let mut data = [0; 9];
        memory.read(PAGE_SIZE + 16, &mut data).expect("memory");
        assert_eq!(data, *b"\x0c\0\0\0hello");
    });
}

#[test]
fn a_paused_event_loses_samples_and_tells() {
    on_both_sides(|side| {
        let array = array(side);
        let event = put(side, array, 0, PerfEvent::bpf_output(0));
        let give = || output(side, array, 0, b"hello");
        assert_eq!(side.pause(event, true), Err(Errno::EINVAL), "no buffer");
        let memory = mapped(side, event, 2).expect("memory");
        assert_eq!(side.pause(event, true), Ok(()));
        assert_eq!((give(), give()), (Err(Errno::ENOSPC), Err(Errno::ENOSPC)));
        assert_eq!(number(&*memory, perf_page::DATA_HEAD), 0);
        assert_eq!(side.pause(event, false), Ok(()));
        assert_eq!(give(), Ok(()));
        assert_eq!(number(&*memory, perf_page::DATA_HEAD), 24 + 24);
        assert_eq!(number(&*memory, PAGE_SIZE + 16), 2, "two were lost");
    });
}

#[test]
fn programs_on_packets_add_bytes_of_them() {
    on_both_sides(|side| {
        let array = array(side);
        let event = put(side, array, 0, PerfEvent::bpf_output(0));
        let memory = mapped(side, event, 2).expect("memory");
        let with_packet = [
            (ProgType::SOCKET_FILTER, 50),
            (ProgType::SCHED_CLS, 64),
            (ProgType::SCHED_ACT, 64),
            (ProgType::XDP, 64),
        ];
        for (prog_type, size) in with_packet {
            let give = |len: u64, index| {
                let call = Output {
                    prog_type,
                    map: array,
                    flags: len << 32 | index,
                    data: b"hello",
                };
                side.output(0, call)
            };
            let before = number(&*memory, perf_page::DATA_HEAD);
            assert_eq!(give(size, 0), Ok(()), "{prog_type}");
            let after = number(&*memory, perf_page::DATA_HEAD);
            assert_eq!(after - before, (12 + 5 + size).next_multiple_of(8));
            assert_eq!(give(size + 1, 9), Err(Errno::EFAULT), "before the index");
            assert_eq!(give(1 << 20, 9), Err(Errno::EINVAL));
            assert_eq!(give(0, 9), Err(Errno::E2BIG));
        }
    });
}

#[test]
fn programs_on_packets_and_no_others_can_ask_for_bytes_of_them() {
    on_both_sides(|side| {
        let array = array(side);
        let ask = |prog_type| {
            let call = Output {
                prog_type,
                map: array,
                flags: 1 << 32 | 9,
                data: b"hello",
            };
            side.output(0, call)
        };
        for prog_type in [
            ProgType::SOCKET_FILTER,
            ProgType::SCHED_CLS,
            ProgType::SCHED_ACT,
            ProgType::XDP,
            ProgType::CGROUP_SKB,
            ProgType::LWT_IN,
            ProgType::LWT_OUT,
            ProgType::LWT_XMIT,
        ] {
            assert_eq!(ask(prog_type), Err(Errno::E2BIG), "{prog_type}");
        }
        assert_eq!(ask(ProgType::RAW_TRACEPOINT), Err(Errno::EINVAL));
    });
}

#[test]
fn memory_is_a_page_and_a_power_of_two_of_pages() {
    on_both_sides(|side| {
        let open = || {
            let event = PerfEvent::bpf_output(0);
            side.bpf().perf_event_open(event).expect("an event")
        };
        for (pages, data) in [
            (1, Some(0)),
            (2, Some(1)),
            (3, Some(2)),
            (4, None),
            (5, Some(4)),
        ] {
            let event = open();
            match (mapped(side, event, pages), data) {
                (Ok(memory), Some(data)) => {
                    let size = number(&*memory, perf_page::DATA_SIZE);
                    assert_eq!(size, data * PAGE_SIZE as u64);
                    assert!(mapped(side, event, pages).is_ok(), "once more");
                    let other = mapped(side, event, pages + 4);
                    assert_eq!(other.map(|_| ()), Err(Errno::EINVAL), "of another size");
                }
                (answer, _) => assert_eq!(answer.map(|_| ()), Err(Errno::EINVAL), "{pages}"),
            }
        }
        let shared = MapRequest::shared(0, 2 * PAGE_SIZE, true);
        for (request, errno) in [
            (
                MapRequest {
                    shared: false,
                    ..shared
                },
                Errno::EINVAL,
            ),
            (
                MapRequest {
                    offset: PAGE_SIZE as u64,
                    ..shared
                },
                Errno::EINVAL,
            ),
            (
                MapRequest {
                    offset: 1,
                    ..shared
                },
                Errno::EINVAL,
            ),
            (MapRequest { len: 0, ..shared }, Errno::EINVAL),
            (
                MapRequest {
                    prot: Prot {
                        exec: true,
                        ..shared.prot
                    },
                    ..shared
                },
                Errno::EPERM,
            ),
        ] {
            let answer = side.bpf().mmap(open(), request);
            assert_eq!(answer.map(|_| ()), Err(errno), "{request:?}");
        }
        let no_such = PerfEvent::bpf_output(side.bpf().nr_cpus());
        assert_eq!(side.bpf().perf_event_open(no_such), Err(Errno::EINVAL));
    });
}

#[test]
fn what_finds_no_room_is_told_by_a_record_before_the_next() {
    on_both_sides(|side| {
        let array = array(side);
        let event = put(side, array, 0, PerfEvent::bpf_output(0));
        let memory = mapped(side, event, 2).expect("memory");
        let read_on = |head: u64| {
            let tail = head.to_ne_bytes();
            memory.write(perf_page::DATA_TAIL, &tail).expect("its page");
        };
        let give = |len| output(side, array, 0, &vec![7; len]);
        assert_eq!(give(4076), Ok(()));
        assert_eq!(give(4), Err(Errno::ENOSPC));
        read_on(24);
        assert_eq!(give(4), Err(Errno::ENOSPC), "not with the other record");
        read_on(32);
        assert_eq!(give(4), Err(Errno::ENOSPC), "one byte stays free");
        read_on(40);
        assert_eq!(give(4), Ok(()));
        let record = [0, 8, 16].map(|at| number(&*memory, PAGE_SIZE + (4088 + at) % 4096));
        let id = side.event_id(event).expect("an event");
        assert_eq!(record, [24 << 48 | 2, id, 3]);
        assert_eq!(number(&*memory, perf_page::DATA_HEAD), 4088 + 24 + 16);
    });
}

#[test]
fn a_file_hangs_up_unless_it_is_mapped_and_tells_of_samples_once() {
    on_both_sides(|side| {
        let array = array(side);
        let event = put(side, array, 0, PerfEvent::bpf_output(0));
        assert_eq!(side.poll(event), 0x10);
        let memory = mapped(side, event, 2).expect("memory");
        assert_eq!(side.poll(event), 0);
        assert_eq!(output(side, array, 0, b"hello"), Ok(()));
        assert_eq!(side.poll(event), 0x41);
        assert_eq!(side.poll(event), 0);
        drop(memory);
        assert_eq!(side.poll(event), 0x10);
    });
}

/// A poll(2) under way ends when the last mapping goes, and does not keep the buffer.
fn hangs_up_while_polled<B: Bpf + Clone + 'static>(bpf: &B) {
    let event = bpf
        .perf_event_open(PerfEvent::bpf_output(0))
        .expect("an event");
    let map = |pages| bpf.mmap(event, MapRequest::shared(0, pages * PAGE_SIZE, true));
    let memory = map(2).expect("memory");
    let poller = bpf.clone();
    let waits = std::thread::spawn(move || poller.poll(event, Some(Duration::from_secs(20))));
    std::thread::sleep(Duration::from_millis(100));
    drop(memory);
    assert_eq!(waits.join().expect("no panic"), Ok(PollEvents::HUP));
    drop(map(3).expect("the first is gone"));
    assert_eq!(map((1 << 28) + 1).map(drop), Err(Errno::ENOMEM));
}

#[test]
fn who_polls_an_event_does_not_keep_its_buffer() {
    let kernel = Kernel::new();
    hangs_up_while_polled(&kernel);
    #[cfg(all(feature = "host", target_os = "linux"))]
    if crate::common::running_kernel().is_some() {
        hangs_up_while_polled(&mapemu::host::Host::new().expect("it was there just now"));
    }
}

#[test]
fn a_hook_is_called_when_the_last_mapping_of_an_event_goes() {
    let kernel = Kernel::new();
    let event = kernel
        .perf_event_open(PerfEvent::bpf_output(0))
        .expect("an event");
    let calls = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&calls);
    let hook: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    kernel
        .open_file(event)
        .expect("open")
        .on_wake(&hook)
        .expect("an event");
    drop(kernel.mmap(event, MapRequest::shared(0, 2 * PAGE_SIZE, true)));
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

/// What a reader of one page of data finds after each of those runs of samples.
fn read_after<B: Bpf + Clone + 'static>(
    bpf: &B,
    side: &dyn Side,
    runs: &[&[usize]],
) -> Vec<(Vec<Vec<u8>>, Events)> {
    let events = PerfEventArray::builder().max_entries(2).create(bpf);
    let events = events.expect("a map");
    let mut buffer = events.open(0, 1).expect("an event");
    assert!(!buffer.readable().expect("it is mapped"));
    let mut found = Vec::new();
    for run in runs {
        for &len in *run {
            let data = vec![0xa5; len];
            let _ = output(side, events.map().fd(), CURRENT_CPU, &data);
        }
        let mut samples = Vec::new();
        let read = buffer.read_events(|sample| samples.push(sample.to_vec()));
        found.push((samples, read.expect("it is mapped")));
        assert!(!buffer.readable().expect("it is mapped"));
    }
    found
}

/// Runs of samples of those lengths: some come back whole, others are counted with the next that find room.
fn a_reader_finds<B: Bpf + Clone + 'static>(bpf: &B, side: &dyn Side) {
    let found = read_after(bpf, side, &[&[4], &[12, 2028, 2028, 2028], &[2028], &[]]);
    let sample = |len| vec![0xa5_u8; len];
    let events = |read, lost| Events { read, lost };
    assert_eq!(found[0], (vec![sample(4)], events(1, 0)));
    assert_eq!(found[1], (vec![sample(12), sample(2028)], events(2, 0)));
    assert_eq!(found[2], (vec![sample(2028)], events(1, 2)));
    assert_eq!(found[3], (vec![], events(0, 0)));
}

#[test]
fn a_reader_finds_samples_and_how_many_are_lost() {
    let here = Emulated(Kernel::new());
    a_reader_finds(&here.0, &here);
    #[cfg(all(feature = "host", target_os = "linux"))]
    if crate::common::running_kernel().is_some() {
        let running = crate::playing::running::Running::new();
        a_reader_finds(running.host(), &running);
    }
}

#[test]
fn what_is_not_emulated_is_refused_by_name() {
    let kernel = Kernel::builder()
        .unsupported(Unsupported::Errno(Errno::ENOSYS))
        .build();
    let array = array(&Emulated(kernel.clone()));
    let map = kernel.map(array).expect("a map");
    let prog = Prog::sched_cls(0);
    assert_eq!(prog.perf_event_read(&map, 0), Err(Errno::ENOSYS));
    assert_eq!(prog.perf_event_read_value(&map, 0), Err(Errno::ENOSYS));
}

#[cfg(all(feature = "conform", target_os = "linux"))]
mod the_same_bytes {
    use mapemu::abi::Wakeup;
    use proptest::prelude::*;

    use super::*;
    use crate::common::running_kernel;
    use crate::playing::running::Running;

    /// What is done with an event.
    #[derive(Clone, Copy, Debug)]
    enum Op {
        /// So many bytes.
        Output(usize),
        /// The reader goes on, by so many 256ths of what there is to read.
        Read(i64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => (0_usize..40).prop_map(Op::Output),
            3 => (0_usize..1500).prop_map(Op::Output),
            1 => (65_480_usize..70_000).prop_map(Op::Output),
            2 => (0_i64..=256).prop_map(Op::Read),
        ]
    }

    fn wakeup() -> impl Strategy<Value = Wakeup> {
        prop_oneof![
            (0_u32..5).prop_map(Wakeup::Events),
            (0_u32..6000).prop_map(Wakeup::Watermark),
        ]
    }

    /// Everything that can be seen of an event's memory, but for its times, and how often they were written.
    fn seen(memory: &dyn Mapping, pages: usize) -> Vec<u8> {
        let mut bytes = vec![0; pages * PAGE_SIZE];
        memory.read(0, &mut bytes).expect("it is mapped");
        bytes[perf_page::LOCK..12].fill(0);
        bytes[24..40].fill(0);
        bytes
    }

    /// What an operation answers, and whether it woke somebody.
    fn act(
        side: &dyn Side,
        array: Fd,
        event: Fd,
        memory: &dyn Mapping,
        op: Op,
    ) -> (Result<()>, u32) {
        let answer = match op {
            Op::Output(len) => {
                let data: Vec<u8> = (1..=255).cycle().take(len).collect();
                output(side, array, 0, &data)
            }
            Op::Read(part) => {
                let head = number(memory, perf_page::DATA_HEAD);
                let tail = number(memory, perf_page::DATA_TAIL);
                // To anywhere: the kernel does not look whether a record ends there.
                let unread = head.wrapping_sub(tail).cast_signed();
                let tail = tail.wrapping_add_signed(unread * part / 256);
                memory.write(perf_page::DATA_TAIL, &tail.to_ne_bytes())
            }
        };
        (answer, side.poll(event))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

        /// Heads, records of samples and of lost ones, what fills them up, and wakeups are those of the running kernel.
        #[test]
        fn as_of_the_running_kernel(
            wakeup in wakeup(),
            data_pages in prop_oneof![4 => Just(1_usize), 4 => Just(2), 1 => Just(32)],
            write in prop::bool::weighted(0.8),
            backward in prop::bool::weighted(0.3),
            ops in prop::collection::vec(op(), 1..120),
        ) {
            if running_kernel().is_none() {
                return Ok(());
            }
            let opened = PerfEvent { wakeup, backward, ..PerfEvent::bpf_output(0) };
            let (emulated, running) = (Emulated(Kernel::new()), Running::new());
            let arrays = [array(&emulated), array(&running)];
            let real = put(&running, arrays[1], 0, opened);
            let id = running.event_id(real).expect("an event");
            // Ids are handed out upwards, and this kernel is new.
            let own = std::iter::repeat_with(|| put(&emulated, arrays[0], 0, opened))
                .find(|own| emulated.event_id(*own).expect("an event") >= id)
                .expect("without end");
            prop_assert_eq!(emulated.event_id(own), Ok(id));
            let pages = 1 + data_pages;
            let request = MapRequest::shared(0, pages * PAGE_SIZE, write);
            let own_memory = emulated.bpf().mmap(own, request).expect("memory");
            let real_memory = running.bpf().mmap(real, request).expect("memory");
            prop_assert_eq!(seen(&*own_memory, pages), seen(&*real_memory, pages));
            for op in ops {
                let ours = act(&emulated, arrays[0], own, &*own_memory, op);
                let theirs = act(&running, arrays[1], real, &*real_memory, op);
                prop_assert_eq!(ours, theirs, "{:?}", op);
                prop_assert_eq!(seen(&*own_memory, pages), seen(&*real_memory, pages));
            }
        }
    }
}
