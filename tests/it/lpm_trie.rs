//! Tries of prefixes.

use std::thread;

use mapemu::abi::{Bpf, Errno, Fd, MapType};
use mapemu::calls::{
    CreateOpts, bpf_map_create, bpf_map_delete_elem, bpf_map_get_next_key,
    bpf_map_lookup_and_delete_elem, bpf_map_lookup_elem, bpf_map_update_elem,
};

use mapemu::sys::Kernel;

use crate::common::{map, on_both};

const NO_PREALLOC: u32 = 1;
const ANY: u64 = 0;
const NOEXIST: u64 = 1;
const EXIST: u64 = 2;

/// A trie of IPv4 prefixes.
fn trie(bpf: &dyn Bpf, max_entries: u32) -> Fd {
    map(bpf, MapType::LPM_TRIE, 8, 4, max_entries, NO_PREALLOC)
}

fn key(address: [u8; 4], prefix_len: u32) -> [u8; 8] {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&prefix_len.to_ne_bytes());
    key[4..].copy_from_slice(&address);
    key
}

#[track_caller]
fn put(bpf: &dyn Bpf, fd: Fd, address: [u8; 4], prefix_len: u32, value: u32) {
    let value = value.to_ne_bytes();
    let put = bpf_map_update_elem(bpf, fd, &key(address, prefix_len), &value, ANY);
    assert_eq!(put, Ok(()));
}

fn get(bpf: &dyn Bpf, fd: Fd, address: [u8; 4], prefix_len: u32) -> Result<u32, Errno> {
    let mut value = [0; 4];
    bpf_map_lookup_elem(bpf, fd, &key(address, prefix_len), &mut value)
        .map(|()| u32::from_ne_bytes(value))
}

fn keys(bpf: &dyn Bpf, fd: Fd) -> Vec<([u8; 4], u32)> {
    let mut keys = Vec::new();
    let mut last: Option<[u8; 8]> = None;
    let mut next = [0; 8];
    while bpf_map_get_next_key(bpf, fd, last.as_ref().map(|key| &key[..]), &mut next).is_ok() {
        let [a, b, c, d, address @ ..] = next;
        keys.push((address, u32::from_ne_bytes([a, b, c, d])));
        assert!(keys.len() < 100, "a walk ends");
        last = Some(next);
    }
    keys
}

#[test]
fn finds_the_longest_prefix() {
    on_both(|bpf| {
        let fd = trie(bpf, 10);
        put(bpf, fd, [10, 0, 0, 0], 8, 8);
        put(bpf, fd, [10, 1, 0, 0], 16, 16);
        put(bpf, fd, [0, 0, 0, 0], 0, 0);
        assert_eq!(get(bpf, fd, [10, 1, 2, 3], 32), Ok(16));
        assert_eq!(get(bpf, fd, [10, 2, 2, 3], 32), Ok(8));
        assert_eq!(get(bpf, fd, [11, 2, 2, 3], 32), Ok(0));
    });
}

#[test]
fn finds_no_longer_prefix_than_asked_for() {
    on_both(|bpf| {
        let fd = trie(bpf, 10);
        put(bpf, fd, [10, 1, 0, 0], 16, 16);
        assert_eq!(get(bpf, fd, [10, 1, 0, 0], 15), Err(Errno::ENOENT));
        assert_eq!(get(bpf, fd, [10, 1, 0, 0], 16), Ok(16));
    });
}

#[test]
fn too_long_a_prefix_is_enoent_or_einval() {
    on_both(|bpf| {
        let fd = trie(bpf, 10);
        put(bpf, fd, [0, 0, 0, 0], 0, 1);
        let key = key([0; 4], 33);
        assert_eq!(get(bpf, fd, [0; 4], 33), Err(Errno::ENOENT));
        let updated = bpf_map_update_elem(bpf, fd, &key, &[0; 4], ANY);
        assert_eq!(updated, Err(Errno::EINVAL));
        assert_eq!(bpf_map_delete_elem(bpf, fd, &key), Err(Errno::EINVAL));
        let mut next = [0; 8];
        let found = bpf_map_get_next_key(bpf, fd, Some(&key), &mut next);
        assert_eq!(found, Ok(()), "the first one");
    });
}

#[test]
fn update_flags_are_judged_by_prefix() {
    on_both(|bpf| {
        let fd = trie(bpf, 2);
        let update = |prefix_len, flags| {
            bpf_map_update_elem(bpf, fd, &key([10, 0, 0, 0], prefix_len), &[1; 4], flags)
        };
        assert_eq!(update(8, EXIST), Err(Errno::ENOENT));
        assert_eq!(update(8, NOEXIST), Ok(()));
        assert_eq!(update(8, NOEXIST), Err(Errno::EEXIST));
        assert_eq!(update(8, EXIST), Ok(()));
        assert_eq!(update(16, NOEXIST), Ok(()));
        assert_eq!(update(24, NOEXIST), Err(Errno::ENOSPC));
        assert_eq!(update(24, EXIST), Err(Errno::ENOENT), "before the space");
        assert_eq!(update(16, ANY), Ok(()), "a full trie takes a replacement");
        for flags in [3, 4, 8, 1 << 32] {
            assert_eq!(update(8, flags), Err(Errno::EINVAL), "{flags:#x}");
        }
    });
}

#[test]
fn nodes_without_a_value_do_not_count() {
    on_both(|bpf| {
        let fd = trie(bpf, 2);
        // They part at bit 7, where a node without a value stands.
        put(bpf, fd, [10, 0, 0, 0], 32, 1);
        put(bpf, fd, [11, 0, 0, 0], 32, 2);
        assert_eq!(keys(bpf, fd).len(), 2);
        assert_eq!(get(bpf, fd, [10, 0, 0, 1], 32), Err(Errno::ENOENT));
        let deleted = bpf_map_delete_elem(bpf, fd, &key([10, 0, 0, 0], 7));
        assert_eq!(deleted, Err(Errno::ENOENT));
    });
}

#[test]
fn walk_goes_from_long_to_short_and_from_0_to_1() {
    on_both(|bpf| {
        let fd = trie(bpf, 10);
        for (address, prefix_len) in [
            ([0, 0, 0, 0], 0),
            ([192, 168, 0, 0], 16),
            ([192, 168, 1, 0], 24),
            ([10, 0, 0, 0], 8),
            ([192, 168, 0, 0], 24),
        ] {
            put(bpf, fd, address, prefix_len, 0);
        }
        let order = [
            ([10, 0, 0, 0], 8),
            ([192, 168, 0, 0], 24),
            ([192, 168, 1, 0], 24),
            ([192, 168, 0, 0], 16),
            ([0, 0, 0, 0], 0),
        ];
        assert_eq!(keys(bpf, fd), order);
    });
}

#[test]
fn walk_gives_the_bytes_of_the_last_update() {
    on_both(|bpf| {
        let fd = trie(bpf, 10);
        put(bpf, fd, [10, 1, 1, 1], 8, 1);
        put(bpf, fd, [10, 2, 2, 2], 8, 2);
        assert_eq!(keys(bpf, fd), [([10, 2, 2, 2], 8)]);
    });
}

#[test]
fn walk_begins_again_after_a_prefix_that_is_not_there() {
    on_both(|bpf| {
        let fd = trie(bpf, 10);
        put(bpf, fd, [10, 0, 0, 0], 8, 1);
        put(bpf, fd, [11, 0, 0, 0], 8, 1);
        let mut next = [0; 8];
        let found = bpf_map_get_next_key(bpf, fd, Some(&key([10, 0, 0, 0], 7)), &mut next);
        assert_eq!(found, Ok(()));
        assert_eq!(next, key([10, 0, 0, 0], 8));
    });
}

#[test]
fn lookup_and_delete_is_not_supported() {
    on_both(|bpf| {
        let fd = trie(bpf, 10);
        let mut value = [0; 4];
        let popped = bpf_map_lookup_and_delete_elem(bpf, fd, &key([0; 4], 0), &mut value);
        assert_eq!(popped, Err(Errno::ENOTSUPP));
    });
}

#[test]
fn creation_is_einval_for_every_wrong_size() {
    on_both(|bpf| {
        let create = |key_size, value_size, map_flags| {
            let opts = CreateOpts {
                map_flags,
                ..CreateOpts::default()
            };
            bpf_map_create(bpf, MapType::LPM_TRIE, "", key_size, value_size, 1, &opts).map(|_| ())
        };
        assert_eq!(create(5, 1, NO_PREALLOC), Ok(()));
        assert_eq!(create(260, 1, NO_PREALLOC), Ok(()));
        assert_eq!(create(5, 1, 0), Err(Errno::EINVAL));
        assert_eq!(create(4, 1, NO_PREALLOC), Err(Errno::EINVAL));
        assert_eq!(create(261, 1, NO_PREALLOC), Err(Errno::EINVAL));
        assert_eq!(create(5, 0, NO_PREALLOC), Err(Errno::EINVAL));
    });
}

#[test]
fn a_programs_pointer_shows_the_old_value_after_a_replacement() {
    let kernel = Kernel::new();
    let fd = trie(&kernel, 10);
    put(&kernel, fd, [10, 0, 0, 0], 8, 1);
    let map = kernel.map(fd).expect("it is a map");
    let old = map.ops.lookup_elem(0, &key([10, 1, 2, 3], 32));
    let old = old.expect("it is there");
    put(&kernel, fd, [10, 0, 0, 0], 8, 2);
    assert_eq!(old.to_vec(), 1_u32.to_ne_bytes());
    let deleted = bpf_map_delete_elem(&kernel, fd, &key([10, 0, 0, 0], 8));
    assert_eq!(deleted, Ok(()));
    assert_eq!(old.to_vec(), 1_u32.to_ne_bytes());
}

#[test]
fn lookups_and_updates_at_once_see_whole_values() {
    let kernel = Kernel::new();
    let fd = trie(&kernel, 1000);
    put(&kernel, fd, [10, 0, 0, 0], 8, 0);
    let rounds = if cfg!(miri) { 5 } else { 300 };
    thread::scope(|scope| {
        for thread in 1..3_u8 {
            let kernel = &kernel;
            scope.spawn(move || {
                for round in 0..rounds {
                    let host = [10, thread, 0, u8::try_from(round % 200).expect("small")];
                    put(kernel, fd, host, 32, u32::from(thread));
                    assert_eq!(get(kernel, fd, host, 32), Ok(u32::from(thread)));
                    let deleted = bpf_map_delete_elem(kernel, fd, &key(host, 32));
                    assert_eq!(deleted, Ok(()));
                    assert_eq!(get(kernel, fd, host, 32), Ok(0));
                }
            });
        }
    });
    assert_eq!(keys(&kernel, fd), [([10, 0, 0, 0], 8)]);
}
