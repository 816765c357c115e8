//! Maps by aya's types.

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{
    Array, BloomFilter, HashMap, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues, Queue, Stack,
};
use aya::util::nr_cpus;

use crate::kernel;

/// The errno of a failed call.
pub(crate) fn errno<T>(result: Result<T, MapError>) -> Option<i32> {
    match result.err()? {
        MapError::SyscallError(error) => error.io_error.raw_os_error(),
        MapError::KeyNotFound => Some(libc::ENOENT),
        _ => None,
    }
}

#[test]
fn hash_map_holds_what_is_inserted() {
    let _kernel = kernel();
    let mut map = HashMap::<_, u32, u64>::create(2, 0).unwrap();
    map.insert(1, 10, 0).unwrap();
    map.insert(2, 20, 0).unwrap();
    assert_eq!(map.get(&1, 0).unwrap(), 10);
    assert_eq!(errno(map.get(&3, 0)), Some(libc::ENOENT));
    assert_eq!(errno(map.insert(3, 30, 0)), Some(libc::E2BIG), "it is full");
    assert_eq!(
        errno(map.insert(1, 11, 1)),
        Some(libc::EEXIST),
        "BPF_NOEXIST"
    );
    assert_eq!(
        errno(map.insert(1, 11, 3)),
        Some(libc::EINVAL),
        "unknown flags"
    );
    map.insert(1, 11, 2).unwrap();
    let mut all: Vec<(u32, u64)> = map.iter().map(Result::unwrap).collect();
    all.sort_unstable();
    assert_eq!(all, [(1, 11), (2, 20)]);
    map.remove(&1).unwrap();
    assert_eq!(errno(map.remove(&1)), Some(libc::ENOENT));
}

#[test]
fn array_has_all_its_elements() {
    let _kernel = kernel();
    let mut map = Array::<_, [u16; 3]>::create(3, 0).unwrap();
    map.set(2, [1, 2, 3], 0).unwrap();
    assert_eq!(map.get(&2, 0).unwrap(), [1, 2, 3]);
    assert_eq!(
        errno(map.set(0, [0; 3], 1)),
        Some(libc::EEXIST),
        "BPF_NOEXIST"
    );
    assert!(matches!(map.get(&3, 0), Err(MapError::OutOfBounds { .. })));
    let all: Vec<_> = map.iter().map(Result::unwrap).collect();
    assert_eq!(all, [[0; 3], [0; 3], [1, 2, 3]]);
}

#[test]
fn every_cpu_has_its_value() {
    let _kernel = kernel();
    let cpus = nr_cpus().unwrap();
    let values =
        |from: u32| PerCpuValues::try_from((from..).take(cpus).collect::<Vec<_>>()).unwrap();
    let mut array = PerCpuArray::<_, u32>::create(2, 0).unwrap();
    array.set(1, values(5), 0).unwrap();
    assert_eq!(**array.get(&1, 0).unwrap(), **values(5));
    assert!(array.get(&0, 0).unwrap().iter().all(|&value| value == 0));
    let mut hash = PerCpuHashMap::<_, u8, u32>::create(1, 0).unwrap();
    hash.insert(1, values(9), 0).unwrap();
    assert_eq!(errno(hash.insert(2, values(9), 0)), Some(libc::E2BIG));
    assert_eq!(
        hash.iter()
            .map(Result::unwrap)
            .map(|(key, _)| key)
            .collect::<Vec<_>>(),
        [1]
    );
    hash.remove(&1).unwrap();
    assert_eq!(errno(hash.get(&1, 0)), Some(libc::ENOENT));
}

#[test]
fn queue_and_stack_have_an_order() {
    let _kernel = kernel();
    let mut queue = Queue::<_, u32>::create(2, 0).unwrap();
    let mut stack = Stack::<_, u32>::create(2, 0).unwrap();
    for value in [1, 2] {
        queue.push(value, 0).unwrap();
        stack.push(value, 0).unwrap();
    }
    assert_eq!(errno(queue.push(3, 0)), Some(libc::E2BIG));
    queue.push(3, 2).unwrap();
    assert_eq!(
        [queue.pop(0).unwrap(), queue.pop(0).unwrap()],
        [2, 3],
        "BPF_EXIST drops the oldest"
    );
    assert_eq!([stack.pop(0).unwrap(), stack.pop(0).unwrap()], [2, 1]);
    assert_eq!(
        errno(stack.pop(0)),
        Some(libc::ENOENT).filter(|_| false).or(errno(queue.pop(0)))
    );
}

#[test]
fn bloom_filter_knows_what_it_was_given() {
    let _kernel = kernel();
    let mut map = BloomFilter::<_, u64>::create(100, 0).unwrap();
    map.insert(5, 0).unwrap();
    map.contains(5, 0).unwrap();
    let found = (1000..2000)
        .filter(|value| map.contains(value, 0).is_ok())
        .count();
    assert!(found < 300, "{found} of 1000 that were not put in");
}

#[test]
fn lpm_trie_finds_the_longest_prefix() {
    const NO_PREALLOC: u32 = 1;
    let _kernel = kernel();
    assert_eq!(
        errno(LpmTrie::<_, u32, u32>::create(10, 0)),
        None,
        "a failed create is another error"
    );
    let mut map = LpmTrie::<_, [u8; 4], u32>::create(10, NO_PREALLOC).unwrap();
    map.insert(&Key::new(8, [10, 0, 0, 0]), 8, 0).unwrap();
    map.insert(&Key::new(16, [10, 1, 0, 0]), 16, 0).unwrap();
    let get = |address| map.get(&Key::new(32, address), 0);
    assert_eq!(get([10, 1, 2, 3]).unwrap(), 16);
    assert_eq!(get([10, 2, 2, 3]).unwrap(), 8);
    assert_eq!(errno(get([11, 2, 2, 3])), Some(libc::ENOENT));
    assert_eq!(map.iter().count(), 2);
}
