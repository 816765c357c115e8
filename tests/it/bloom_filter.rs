//! Bloom filters.

use mapemu::abi::{Bpf, Errno, Fd, MapType};
use mapemu::calls::{
    CreateOpts, bpf_map_create, bpf_map_delete_elem, bpf_map_freeze, bpf_map_get_info_by_fd,
    bpf_map_get_next_key, bpf_map_peek_elem, bpf_map_pop_elem, bpf_map_push_elem,
};

use crate::common::{map, on_both};

const ZERO_SEED: u32 = 1 << 6;

fn filter(bpf: &dyn Bpf, max_entries: u32, map_flags: u32) -> Fd {
    map(bpf, MapType::BLOOM_FILTER, 0, 4, max_entries, map_flags)
}

fn push(bpf: &dyn Bpf, fd: Fd, value: u32) -> Result<(), Errno> {
    bpf_map_push_elem(bpf, fd, &value.to_ne_bytes(), 0)
}

fn peek(bpf: &dyn Bpf, fd: Fd, value: u32) -> Result<(), Errno> {
    let mut bytes = value.to_ne_bytes();
    let found = bpf_map_peek_elem(bpf, fd, &mut bytes);
    assert_eq!(bytes, value.to_ne_bytes(), "the value stays");
    found
}

#[test]
fn what_was_put_in_is_found_whatever_the_seed() {
    on_both(|bpf| {
        for flags in [0, ZERO_SEED] {
            let fd = filter(bpf, 20, flags);
            for value in 0..100 {
                assert_eq!(push(bpf, fd, value), Ok(()), "never full");
            }
            for value in 0..100 {
                assert_eq!(peek(bpf, fd, value), Ok(()));
            }
        }
    });
}

#[test]
fn with_seed_0_the_false_ones_are_known() {
    on_both(|bpf| {
        let fd = filter(bpf, 20, ZERO_SEED);
        assert_eq!(peek(bpf, fd, 0), Err(Errno::ENOENT), "it is empty");
        for value in 0..20 {
            assert_eq!(push(bpf, fd, value), Ok(()));
        }
        let found = (20..4000).filter(|&value| peek(bpf, fd, value).is_ok());
        // Seen on Linux 6.18.
        assert_eq!(found.collect::<Vec<u32>>(), FALSE_ONES);
    });
}

const FALSE_ONES: [u32; 17] = [
    109, 132, 275, 406, 439, 661, 1047, 1337, 1439, 1464, 1534, 2454, 2608, 2805, 3019, 3079, 3492,
];

#[test]
fn flags_are_einval() {
    on_both(|bpf| {
        let fd = filter(bpf, 20, 0);
        for flags in [1, 2, 3, 4, 1 << 32] {
            let pushed = bpf_map_push_elem(bpf, fd, &[0; 4], flags);
            assert_eq!(pushed, Err(Errno::EINVAL), "{flags:#x}");
        }
    });
}

#[test]
fn nothing_is_taken_out_or_walked() {
    on_both(|bpf| {
        let fd = filter(bpf, 20, 0);
        assert_eq!(push(bpf, fd, 1), Ok(()));
        let mut value = 1_u32.to_ne_bytes();
        assert_eq!(bpf_map_pop_elem(bpf, fd, &mut value), Err(Errno::ENOTSUPP));
        let next = bpf_map_get_next_key(bpf, fd, None, &mut value);
        assert_eq!(next, Err(Errno::EOPNOTSUPP));
        assert_eq!(
            bpf_map_delete_elem(bpf, fd, &value),
            Err(Errno::EINVAL),
            "a key is judged first"
        );
    });
}

#[test]
fn frozen_it_takes_no_more() {
    on_both(|bpf| {
        let fd = filter(bpf, 20, 0);
        assert_eq!(push(bpf, fd, 1), Ok(()));
        assert_eq!(bpf_map_freeze(bpf, fd), Ok(()));
        assert_eq!(push(bpf, fd, 1), Err(Errno::EPERM));
        assert_eq!(peek(bpf, fd, 1), Ok(()));
    });
}

#[test]
fn number_of_hashes_is_as_given() {
    on_both(|bpf| {
        let create = |map_extra| {
            let opts = CreateOpts {
                map_extra,
                ..CreateOpts::default()
            };
            bpf_map_create(bpf, MapType::BLOOM_FILTER, "", 0, 4, 20, &opts)
        };
        for map_extra in [0, 1, 15] {
            let fd = create(map_extra).expect("a filter");
            let info = bpf_map_get_info_by_fd(bpf, fd).expect("info");
            assert_eq!(info.map_extra, map_extra);
        }
        assert_eq!(create(16), Err(Errno::EINVAL));
    });
}
