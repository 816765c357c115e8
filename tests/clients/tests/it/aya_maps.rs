//! Maps by aya's types.

use std::io;
use std::thread;

use aya::maps::{HashMap, MapError};

use crate::kernel;

/// The errno of a failed call.
fn errno<T>(result: Result<T, MapError>) -> Option<i32> {
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
    assert_eq!(errno(map.insert(1, 11, 1)), Some(libc::EEXIST), "BPF_NOEXIST");
    assert_eq!(errno(map.insert(1, 11, 3)), Some(libc::EINVAL), "unknown flags");
    map.insert(1, 11, 2).unwrap();
    let mut all: Vec<(u32, u64)> = map.iter().map(Result::unwrap).collect();
    all.sort_unstable();
    assert_eq!(all, [(1, 11), (2, 20)]);
    map.remove(&1).unwrap();
    assert_eq!(errno(map.remove(&1)), Some(libc::ENOENT));
}

#[test]
fn threads_that_are_started_have_the_kernel() {
    let _kernel = kernel();
    thread::spawn(|| {
        let mut map = HashMap::<_, u32, u32>::create(1, 0).unwrap();
        map.insert(1, 1, 0).unwrap();
    })
    .join()
    .unwrap();
    let _ = io::stdout();
}
