//! The front ends with Rust types, each from its making to its last element.

use std::collections::BTreeSet;
use std::sync::Arc;

use mapemu::abi::{
    AttachType, Bpf, Cmd, Errno, Fd, MapRequest, Mapping, Memory, PerfEvent, ProgType, Result,
};
use mapemu::btf::Writer;
use mapemu::calls::{self, bpf_prog_attach};
use mapemu::helper::Prog;
use mapemu::map::object::{OtherKind, Socket};
use mapemu::sys::{Kernel, ProgDef};
use mapemu::typed::lpm_trie::Key;
use mapemu::typed::{
    Arena, Array, ArrayOfMaps, BatchError, BloomFilter, Builder, CgroupStorageKey, CgrpStorage,
    CpuMap, CpuMapValue, DevMap, DevMapHash, DevMapValue, Error, HashMap, HashOfMaps, InodeStorage,
    LpmTrie, LruHashMap, LruPerCpuHashMap, PerCpuArray, PerCpuCgroupStorage, PerCpuHashMap,
    PerCpuValues, PerfEventArray, ProgramArray, Queue, RingBuf, SkStorage, SockHash, SockMap,
    Stack, TaskStorage, TypedMap, UserRingBuf, XskMap,
};

use crate::common::{BPF_ANY, BPF_NOEXIST, running_kernel};

const BPF_EXIST: u64 = 2;

/// A kernel that is only reached by bpf(2).
#[derive(Clone)]
struct ByAttr(Arc<dyn Bpf>);

impl Bpf for ByAttr {
    fn bpf(&self, cmd: Cmd, attr: u64, size: u32, mem: &mut Memory<'_>) -> Result<u32> {
        self.0.bpf(cmd, attr, size, mem)
    }

    fn mmap(&self, fd: Fd, request: MapRequest) -> Result<Box<dyn Mapping>> {
        self.0.mmap(fd, request)
    }

    fn close(&self, fd: Fd) -> Result<()> {
        self.0.close(fd)
    }

    fn nr_cpus(&self) -> u32 {
        self.0.nr_cpus()
    }

    fn on_cpu(&self, cpu: u32) -> Box<dyn Bpf> {
        self.0.on_cpu(cpu)
    }
}

fn kernel() -> Kernel {
    Kernel::builder().cpus(3).build()
}

/// Holds a fact for a map that is reached by a handle, one that is reached by bpf(2), and one of the running kernel.
fn every_way<M: TypedMap>(builder: &Builder<M>, fact: fn(M)) {
    fact(builder.create(&kernel()).expect("a map"));
    fact(builder.create(&ByAttr(Arc::new(kernel()))).expect("a map"));
    if let Some(host) = running_kernel() {
        fact(builder.create(&ByAttr(host.into())).expect("a map"));
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: std::result::Result<T, Error>, errno: Errno) {
    assert_eq!(answer.expect_err("it is refused").errno, errno);
}

fn per_cpu<V: Copy>(values: [V; 3]) -> PerCpuValues<V> {
    PerCpuValues::from(values.to_vec())
}

fn all<T>(elems: impl Iterator<Item = std::result::Result<T, Error>>) -> Vec<T> {
    elems.map(|elem| elem.expect("an element")).collect()
}

fn prog(kernel: &Kernel, prog_type: ProgType, expected_attach_type: AttachType) -> Fd {
    let def = ProgDef {
        prog_type,
        expected_attach_type,
        ..ProgDef::default()
    };
    kernel.prog_load(def).expect("a program")
}

#[test]
fn hash_map() {
    every_way(
        &HashMap::<u32, u64>::builder().max_entries(3).name("ports"),
        |map| {
            assert_eq!(&map.map().info().expect("info").name[..6], b"ports\0");
            map.insert(1, 10, BPF_NOEXIST).expect("there is room");
            refused(map.insert(1, 10, BPF_NOEXIST), Errno::EEXIST);
            assert_eq!(map.get(&1, 0), Ok(10));
            assert_eq!(map.take(&1, 0), Ok(10));
            refused(map.remove(&1), Errno::ENOENT);
            map.insert(2, 20, BPF_ANY).expect("there is room");
            map.map().freeze().expect("nobody writes");
            refused(map.insert(2, 21, BPF_ANY), Errno::EPERM);
            refused(map.map().freeze(), Errno::EPERM);
            assert_eq!(all(map.iter()), [(2, 20)]);
        },
    );
}

#[test]
fn batches_of_a_hash() {
    every_way(
        &HashMap::<u16, u64>::builder().max_entries(100),
        |map: HashMap<u16, u64>| {
            assert_eq!(all(map.iter_batched(7)), []);
            let elems: Vec<_> = (0..100).map(|key| (key, u64::from(key) * 2)).collect();
            assert_eq!(map.insert_batch(&elems), Ok(()));
            for chunk in [0, 1, 7, 99, 100, 1000] {
                let read: BTreeSet<_> = all(map.iter_batched(chunk)).into_iter().collect();
                assert_eq!(read, elems.iter().copied().collect(), "by {chunk}");
            }
            assert_eq!(all(map.iter_batched(1)), all(map.iter()), "in one order");
            let more = [(3, 0), (100, 1), (101, 1)];
            let BatchError { done, error } = map.insert_batch(&more).expect_err("it is full");
            assert_eq!((done, error.errno), (1, Errno::E2BIG));
            assert_eq!(map.get(&3, 0), Ok(0));
        },
    );
}

#[test]
fn array() {
    every_way(&Array::<u64>::builder().max_entries(5), |map| {
        assert_eq!(map.len(), Ok(5));
        map.insert_batch(&[(0, 1), (4, 5)]).expect("they are there");
        assert_eq!(all(map.iter()), [1, 0, 0, 0, 5]);
        let elems = [(0, 1), (1, 0), (2, 0), (3, 0), (4, 5)];
        for chunk in [1, 2, 5, 6] {
            assert_eq!(all(map.iter_batched(chunk)), elems, "by {chunk}");
        }
        let beyond = map.insert_batch(&[(0, 2), (5, 2)]).expect_err("no index 5");
        assert_eq!((beyond.done, beyond.error.errno), (1, Errno::E2BIG));
        refused(map.get(&5, 0), Errno::ENOENT);
        refused(map.set(0, 1, BPF_NOEXIST), Errno::EEXIST);
    });
}

#[test]
fn per_cpu_array_rounds_parts_up() {
    let kernel = kernel();
    let map: PerCpuArray<u32> = PerCpuArray::builder()
        .max_entries(2)
        .create(&kernel)
        .expect("a map");
    map.set(1, per_cpu([7, 8, 9]), 0).expect("it is there");
    let program_side = kernel.map(map.map().fd()).expect("a map");
    let prog = Prog::sched_cls(2);
    let value = prog.map_lookup_elem(&program_side, &1_u32.to_ne_bytes());
    value.expect("it is there").store_u32(0, 10);
    assert_eq!(map.get(&1, 0), Ok(per_cpu([7, 8, 10])));
    assert_eq!(all(map.iter()), [per_cpu([0; 3]), per_cpu([7, 8, 10])]);
    assert_eq!(
        all(map.iter_batched(1)),
        [(0, per_cpu([0; 3])), (1, per_cpu([7, 8, 10]))]
    );
    let too_few = PerCpuValues::from(vec![1, 2]);
    refused(map.set(1, &too_few, 0), Errno::EINVAL);
    assert_eq!(map.get(&1, 0), Ok(per_cpu([7, 8, 10])), "as before");
    let batch = map.insert_batch(&[(0, too_few)]).expect_err("too few");
    assert_eq!((batch.done, batch.error.errno), (0, Errno::EINVAL));
}

/// What all hashes with a value for each CPU do; they differ in type alone.
macro_rules! per_cpu_hash {
    ($name:ident, $map:ident) => {
        #[test]
        fn $name() {
            let builder = $map::<u64, [u8; 3]>::builder().max_entries(8);
            every_way(&builder, |map| {
                let parts = [[1; 3], [2; 3], [3; 3]].into_iter().cycle();
                let value: Vec<_> = parts.take(map.map().bpf().nr_cpus() as usize).collect();
                let value = PerCpuValues::from(value);
                map.insert(5, &value, BPF_NOEXIST).expect("there is room");
                refused(map.insert(6, &value, BPF_EXIST), Errno::ENOENT);
                assert_eq!(map.get(&5, 0).as_ref(), Ok(&value));
                assert_eq!(all(map.keys()), [5]);
                assert_eq!(all(map.iter()), [(5, value.clone())]);
                map.insert_batch(&[(5, value.clone()), (7, value.clone())])
                    .expect("there is room");
                assert_eq!(all(map.iter_batched(1)).len(), 2);
                assert_eq!(map.take(&7, 0), Ok(value));
                map.remove(&5).expect("it is there");
                refused(map.remove(&5), Errno::ENOENT);
            });
        }
    };
}

per_cpu_hash!(per_cpu_hash_map, PerCpuHashMap);
per_cpu_hash!(lru_per_cpu_hash_map, LruPerCpuHashMap);

#[test]
fn lru_hash_map() {
    every_way(&LruHashMap::<u32, u64>::builder().max_entries(10), |map| {
        for key in 0..1000 {
            map.insert(key, 1, BPF_NOEXIST).expect("room is made");
        }
        assert_eq!(map.take(&999, 0), Ok(1));
        assert!(all(map.keys()).len() <= 10);
        assert_eq!(all(map.iter_batched(3)).len(), all(map.iter()).len());
    });
}

#[test]
fn lpm_trie() {
    every_way(&LpmTrie::<[u8; 4], u16>::builder().max_entries(4), |map| {
        map.insert(Key::new(0, [0; 4]), 0, 0).expect("room");
        map.insert_batch(&[
            (Key::new(24, [10, 0, 1, 0]), 24),
            (Key::new(9, [10, 128, 0, 0]), 9),
        ])
        .expect("room");
        let found = |data| map.get(&Key::new(32, data), 0);
        assert_eq!(found([10, 0, 1, 200]), Ok(24));
        assert_eq!(found([10, 200, 1, 200]), Ok(9));
        assert_eq!(found([9, 0, 0, 1]), Ok(0));
        refused(map.insert(Key::new(33, [0; 4]), 0, 0), Errno::EINVAL);
        map.remove(&Key::new(24, [10, 0, 1, 7]))
            .expect("it is there");
        assert_eq!(found([10, 0, 1, 200]), Ok(0));
        let keys: Vec<_> = all(map.keys())
            .iter()
            .map(|key| (key.prefix_len(), key.data()))
            .collect();
        assert_eq!(keys, [(9, [10, 128, 0, 0]), (0, [0; 4])]);
        assert_eq!(all(map.iter_batched(1)), all(map.iter()));
    });
}

#[test]
fn queue_and_stack() {
    every_way(&Queue::<u64>::builder().max_entries(2), |queue| {
        refused(queue.peek(), Errno::ENOENT);
        queue.push(1, 0).expect("room");
        queue.push(2, 0).expect("room");
        refused(queue.push(3, 0), Errno::E2BIG);
        queue.push(3, BPF_EXIST).expect("the oldest makes room");
        assert_eq!(
            (queue.peek(), queue.pop(0), queue.pop(0)),
            (Ok(2), Ok(2), Ok(3))
        );
        refused(queue.pop(0), Errno::ENOENT);
    });
    every_way(&Stack::<[u8; 3]>::builder().max_entries(2), |stack| {
        stack.push([1; 3], 0).expect("room");
        stack.push([2; 3], 0).expect("room");
        assert_eq!((stack.peek(), stack.pop(0)), (Ok([2; 3]), Ok([2; 3])));
        assert_eq!(stack.pop(0), Ok([1; 3]));
        refused(stack.pop(0), Errno::ENOENT);
    });
}

#[test]
fn bloom_filter() {
    let builder = BloomFilter::<u32>::builder().max_entries(1000).map_extra(3);
    every_way(&builder, |filter| {
        assert_eq!(filter.map().info().expect("info").map_extra, 3);
        assert_eq!(filter.contains(&7), Ok(false));
        filter.insert(7, BPF_ANY).expect("there is always room");
        assert_eq!(filter.contains(&7), Ok(true));
        refused(filter.insert(7, BPF_EXIST), Errno::EINVAL);
    });
}

#[test]
fn maps_of_maps() {
    let kernel = kernel();
    let inner: Array<u64> = Array::builder()
        .max_entries(1)
        .create(&kernel)
        .expect("a map");
    let (fd, id) = (inner.map().fd(), inner.map().info().expect("info").id);
    let array = ArrayOfMaps::builder().max_entries(3).inner_map(fd);
    let array = array.create(&kernel).expect("a map");
    array.set(1, fd, BPF_ANY).expect("it fits");
    assert_eq!(array.get(&1, 0), Ok(id));
    assert_eq!(all(array.iter()), [(1, id)]);
    assert_eq!(all(array.keys()), [0, 1, 2]);
    array.remove(&1).expect("it is there");
    refused(array.remove(&1), Errno::ENOENT);
    let hash = HashOfMaps::<u64>::builder().max_entries(3).inner_map(fd);
    let hash = hash.create(&kernel).expect("a map");
    hash.insert(9, fd, BPF_NOEXIST).expect("it fits");
    assert_eq!((hash.get(&9, 0), all(hash.iter())), (Ok(id), vec![(9, id)]));
    refused(hash.insert(9, hash.map().fd(), 0), Errno::EINVAL);
    hash.remove(&9).expect("it is there");
    refused(hash.get(&9, 0), Errno::ENOENT);
    refused(ArrayOfMaps::builder().create(&kernel), Errno::EINVAL);
}

#[test]
fn arrays_of_fds() {
    let kernel = kernel();
    let jumps = ProgramArray::builder().max_entries(2).create(&kernel);
    let jumps = jumps.expect("a map");
    let xdp = prog(&kernel, ProgType::XDP, AttachType(0));
    jumps.set(0, xdp, BPF_ANY).expect("it fits");
    assert!(jumps.get(&0, 0).expect("it is there") > 0);
    refused(jumps.get(&1, 0), Errno::ENOENT);
    refused(jumps.set(2, xdp, BPF_ANY), Errno::E2BIG);
    assert_eq!(all(jumps.keys()), [0, 1]);
    jumps.remove(&0).expect("it is there");
    refused(jumps.remove(&0), Errno::ENOENT);

    let events = PerfEventArray::builder().max_entries(3).create(&kernel);
    let events = events.expect("a map");
    let event = kernel.open(OtherKind::PerfEvent(PerfEvent::bpf_output(0)));
    events.set(2, event, BPF_ANY).expect("it fits");
    events.remove(&2).expect("it is there");
    refused(events.remove(&2), Errno::ENOENT);
}

#[test]
fn ring_buf() {
    let kernel = kernel();
    refused(
        RingBuf::builder().max_entries(100).create(&kernel),
        Errno::EINVAL,
    );
    let ring = RingBuf::builder()
        .max_entries(4096)
        .create(&ByAttr(Arc::new(kernel.clone())));
    let mut ring = ring.expect("a map");
    let map = kernel.map(ring.map().fd()).expect("a map");
    let prog = Prog::sched_cls(0);
    // So often that the ring wraps, with records over its end.
    for round in 0..100_u8 {
        let records: [&[u8]; 3] = [&[round; 5], &[], &[round; 1000]];
        let dropped = prog.ringbuf_reserve(&map, 24, 0).expect("room");
        dropped.discard(0);
        for record in records {
            prog.ringbuf_output(&map, record, 0).expect("room");
        }
        let busy = prog.ringbuf_reserve(&map, 8, 0).expect("room");
        prog.ringbuf_output(&map, b"after", 0).expect("room");
        for record in records {
            let item = ring.next().expect("it is mapped").expect("a record");
            assert_eq!(&*item, record);
        }
        assert!(ring.next().expect("it is mapped").is_none(), "it is busy");
        busy.write(0, &[round; 8]);
        busy.submit(0);
        for record in [&[round; 8], &b"after"[..]] {
            let item = ring.next().expect("it is mapped").expect("a record");
            assert_eq!(&*item, record);
        }
        assert!(ring.next().expect("it is mapped").is_none());
    }
}

#[test]
fn a_record_is_read_when_its_item_is_dropped() {
    let kernel = kernel();
    let ring = RingBuf::builder().max_entries(4096).create(&kernel);
    let mut ring = ring.expect("a map");
    let map = kernel.map(ring.map().fd()).expect("a map");
    let prog = Prog::sched_cls(0);
    prog.ringbuf_output(&map, &[1; 4000], 0).expect("room");
    let item = ring.next().expect("it is mapped").expect("a record");
    assert!(prog.ringbuf_output(&map, &[2; 4000], 0).is_err());
    drop(item);
    assert_eq!(prog.ringbuf_output(&map, &[2; 4000], 0), Ok(()));
}

#[test]
fn user_ring_buf() {
    let kernel = kernel();
    let ring = UserRingBuf::builder().max_entries(4096).create(&kernel);
    let mut ring = ring.expect("a map");
    let map = kernel.map(ring.map().fd()).expect("a map");
    let prog = Prog::sched_cls(0);
    refused(ring.output(&[0; 4089]), Errno::E2BIG);
    for round in 0..100_u8 {
        let samples = [vec![round; 1500], vec![], vec![round; 7]];
        for sample in &samples {
            ring.output(sample).expect("room");
        }
        refused(ring.output(&[0; 4000]), Errno::ENOSPC);
        let mut drained = Vec::new();
        let count = prog.user_ringbuf_drain(&map, 0, |sample| {
            drained.push(sample.to_vec());
            true
        });
        assert_eq!(count, Ok(3));
        assert_eq!(drained, samples);
    }
}

#[test]
fn per_cpu_cgroup_storage() {
    let kernel = kernel();
    let map: PerCpuCgroupStorage<u32> = PerCpuCgroupStorage::builder()
        .create(&kernel)
        .expect("a map");
    let cgroup = kernel.cgroup_create("web", None).expect("a cgroup");
    let count = ProgDef {
        prog_type: ProgType::CGROUP_SKB,
        storages: &[map.map().fd()],
        ..ProgDef::default()
    };
    let count = kernel.prog_load(count).expect("a program");
    let place = AttachType::CGROUP_INET_EGRESS;
    bpf_prog_attach(&kernel, count, cgroup, place.0, 0).expect("it fits");
    let keys: Vec<CgroupStorageKey> = all(map.keys());
    map.insert(keys[0], per_cpu([1, 2, 3]), BPF_EXIST)
        .expect("it is attached");
    assert_eq!(all(map.iter()), [(keys[0], per_cpu([1, 2, 3]))]);
    let nowhere = CgroupStorageKey::default();
    refused(map.get(&nowhere, 0), Errno::ENOENT);
}

/// What all local storages do; they differ in type and owner.
macro_rules! local_storage {
    ($name:ident, $map:ident, $owner:expr, $other:expr) => {
        #[test]
        fn $name() {
            let kernel = kernel();
            let mut btf = Writer::new();
            let (int, value) = (btf.int("int", 4), btf.int("u64", 8));
            let btf = calls::bpf_btf_load(&kernel, &btf.finish()).expect("it is good");
            refused($map::<u64>::builder().create(&kernel), Errno::EINVAL);
            let map = $map::<u64>::builder().btf(btf, int, value);
            let map = map.create(&kernel).expect("a map");
            let (owner, other): (Fd, Fd) = ($owner(&kernel), $other(&kernel));
            map.insert(owner, 7, BPF_NOEXIST).expect("it has none");
            refused(map.insert(owner, 7, BPF_NOEXIST), Errno::EEXIST);
            assert_eq!(map.get(&owner, 0), Ok(7));
            let again = kernel.open_again(owner).expect("it is open");
            assert_eq!(map.get(&again, 0), Ok(7));
            refused(map.get(&other, 0), Errno::ENOENT);
            map.remove(&again).expect("it is there");
            refused(map.remove(&owner), Errno::ENOENT);
        }
    };
}

fn cgroup(kernel: &Kernel, name: &str) -> Fd {
    kernel.cgroup_create(name, None).expect("a cgroup")
}

fn socket(kernel: &Kernel) -> Fd {
    kernel.open(OtherKind::Socket(Socket {
        stream: true,
        connected: true,
        ..Socket::default()
    }))
}

local_storage!(
    task_storage,
    TaskStorage,
    |kernel: &Kernel| kernel.open(OtherKind::Pidfd),
    |kernel: &Kernel| kernel.open(OtherKind::Pidfd)
);
local_storage!(
    inode_storage,
    InodeStorage,
    |kernel: &Kernel| kernel.open(OtherKind::File),
    |kernel: &Kernel| kernel.open(OtherKind::File)
);
local_storage!(sk_storage, SkStorage, socket, socket);
local_storage!(
    cgrp_storage,
    CgrpStorage,
    |kernel| cgroup(kernel, "a"),
    |kernel| cgroup(kernel, "b")
);

#[test]
fn maps_of_sockets() {
    let kernel = kernel();
    let map = SockMap::builder().max_entries(2).create(&kernel);
    let map = map.expect("a map");
    let fd = socket(&kernel);
    map.set(1, fd, BPF_NOEXIST).expect("it fits");
    refused(map.set(1, fd, BPF_NOEXIST), Errno::EEXIST);
    refused(map.set(2, fd, BPF_ANY), Errno::E2BIG);
    let cookie = map.get(&1, 0).expect("it is there");
    assert_eq!(all(map.keys()), [0, 1]);

    let hash = SockHash::<u64>::builder().max_entries(2).create(&kernel);
    let hash = hash.expect("a map");
    hash.insert(9, fd, BPF_ANY).expect("it fits");
    assert_eq!(hash.get(&9, 0), Ok(cookie), "the same socket");
    assert_eq!(all(hash.keys()), [9]);
    hash.remove(&9).expect("it is there");
    refused(hash.remove(&9), Errno::ENOENT);
    map.remove(&1).expect("it is there");
    refused(map.remove(&1), Errno::EINVAL);

    let xsk = XskMap::builder().max_entries(2).create(&kernel);
    let xsk = xsk.expect("a map");
    refused(xsk.set(0, fd, BPF_ANY), Errno::EOPNOTSUPP);
    let fd = kernel.open(OtherKind::Socket(Socket {
        xdp: true,
        ..Socket::default()
    }));
    xsk.set(0, fd, BPF_ANY).expect("it fits");
    refused(xsk.set(2, fd, BPF_ANY), Errno::E2BIG);
    xsk.remove(&0).expect("it is a place");
    refused(xsk.remove(&2), Errno::EINVAL);
}

#[test]
fn maps_to_redirect_to() {
    let kernel = kernel();
    kernel.add_interface(7);
    let on_the_way = prog(&kernel, ProgType::XDP, AttachType::XDP_DEVMAP);
    let dev = |if_index, prog_id| DevMapValue { if_index, prog_id };
    let map = DevMap::builder().max_entries(2).create(&kernel);
    let map = map.expect("a map");
    map.set(0, 7, None, BPF_ANY).expect("it is there");
    map.set(1, 7, Some(on_the_way), BPF_ANY).expect("it fits");
    assert_eq!(map.get(&0, 0), Ok(dev(7, 0)));
    let prog_id = map.get(&1, 0).expect("it is there").prog_id;
    assert_ne!(prog_id, 0);
    refused(map.set(1, 8, None, BPF_ANY), Errno::EINVAL);
    map.remove(&0).expect("it is a place");
    assert_eq!(all(map.iter()), [(1, dev(7, prog_id))]);

    let hash = DevMapHash::builder().max_entries(2).create(&kernel);
    let hash = hash.expect("a map");
    hash.insert(1000, 7, Some(on_the_way), BPF_NOEXIST)
        .expect("room");
    assert_eq!(all(hash.iter()), [(1000, dev(7, prog_id))]);
    hash.remove(&1000).expect("it is there");
    refused(hash.remove(&1000), Errno::ENOENT);

    let cpus = CpuMap::builder().max_entries(3).create(&kernel);
    let cpus = cpus.expect("a map");
    let there = prog(&kernel, ProgType::XDP, AttachType::XDP_CPUMAP);
    cpus.set(2, 192, Some(there), BPF_ANY).expect("it fits");
    let CpuMapValue {
        queue_size,
        prog_id,
    } = cpus.get(&2, 0).expect("it is there");
    assert_eq!((queue_size, prog_id != 0), (192, true));
    refused(cpus.set(2, 192, Some(on_the_way), BPF_ANY), Errno::ENOMEM);
    cpus.remove(&2).expect("it is a place");
    assert_eq!(all(cpus.keys()), [0, 1, 2]);
    assert_eq!(all(cpus.iter()), []);
}

#[test]
fn a_map_of_another_type_or_size_is_not_taken_over() {
    let kernel = kernel();
    let hash = HashMap::<u32, u64>::builder().max_entries(1);
    let hash = hash.create(&kernel).expect("a map");
    let dup = || kernel.dup(hash.map().fd()).expect("it is open");
    refused(
        LruHashMap::<u32, u64>::builder().from_fd(&kernel, dup()),
        Errno::EINVAL,
    );
    refused(
        HashMap::<u32, u32>::builder().from_fd(&kernel, dup()),
        Errno::EINVAL,
    );
    refused(RingBuf::builder().from_fd(&kernel, dup()), Errno::EINVAL);
    let same = HashMap::<u32, u64>::builder().from_fd(&kernel, dup());
    same.expect("it is one").insert(1, 2, 0).expect("room");
    assert_eq!(hash.get(&1, 0), Ok(2));
    kernel.mkdir("/sys/fs/bpf/a").expect("there is none");
    hash.map().pin("/sys/fs/bpf/a/hash").expect("it is free");
    assert!(calls::bpf_obj_get(&kernel, "/sys/fs/bpf/a/hash").is_ok());
}

#[test]
fn an_arena_is_memory() {
    every_way(&Arena::builder().max_entries(2), |arena| {
        assert_eq!(arena.len(), 8192);
        assert_eq!(arena.get::<u64>(8184), Ok(0));
        arena.set(4095, &0x0102_0304_u32).expect("across pages");
        let mut bytes = [9; 6];
        arena.read(4094, &mut bytes).expect("it is there");
        let [before, value @ .., after] = bytes;
        assert_eq!((before, after), (0, 0));
        assert_eq!(u32::from_ne_bytes(value), 0x0102_0304);
        refused(arena.get::<u64>(8190), Errno::EFAULT);
        refused(arena.write(8192, &[1]), Errno::EFAULT);
    });
    every_way(
        &Arena::builder().max_entries(1).map_extra(0x30_0000_0000),
        |arena| {
            assert_eq!(arena.addr(), 0x30_0000_0000);
        },
    );
    refused(
        Arena::builder()
            .max_entries(1)
            .map_extra(8)
            .create(&kernel()),
        Errno::EINVAL,
    );
}
