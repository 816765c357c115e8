//! Facts about `BPF_MAP_TYPE_DEVMAP` and `BPF_MAP_TYPE_DEVMAP_HASH`.

use mapemu::abi::{Bpf, Errno, Fd, MapType, Result};
use mapemu::calls;
use mapemu::sys::Kernel;

use crate::common::{BPF_ANY, BPF_EXIST, BPF_NOEXIST, keys, map, on_both};

/// The interface `lo`.
const LO: u32 = 1;
const NO_SUCH: u32 = 9999;

fn put(bpf: &dyn Bpf, fd: Fd, key: u32, ifindex: u32, flags: u64) -> Result<()> {
    calls::bpf_map_update_elem(bpf, fd, &key.to_ne_bytes(), &ifindex.to_ne_bytes(), flags)
}

fn get(bpf: &dyn Bpf, fd: Fd, key: u32) -> Result<u32> {
    let mut value = [0; 4];
    calls::bpf_map_lookup_elem(bpf, fd, &key.to_ne_bytes(), &mut value)?;
    Ok(u32::from_ne_bytes(value))
}

fn delete(bpf: &dyn Bpf, fd: Fd, key: u32) -> Result<()> {
    calls::bpf_map_delete_elem(bpf, fd, &key.to_ne_bytes())
}

#[test]
fn array_has_all_places_and_an_interface_in_some() {
    on_both(|bpf| {
        let fd = map(bpf, MapType::DEVMAP, 4, 4, 4, 0);
        assert_eq!(get(bpf, fd, 1), Err(Errno::ENOENT));
        assert_eq!(put(bpf, fd, 1, LO, BPF_EXIST), Ok(()));
        assert_eq!(get(bpf, fd, 1), Ok(LO));
        assert_eq!(put(bpf, fd, 2, LO, BPF_NOEXIST), Err(Errno::EEXIST));
        assert_eq!(put(bpf, fd, 4, LO, BPF_ANY), Err(Errno::E2BIG));
        assert_eq!(put(bpf, fd, 4, LO, 3), Err(Errno::EINVAL), "flags first");
        assert_eq!(put(bpf, fd, 1, NO_SUCH, BPF_ANY), Err(Errno::EINVAL));
        assert_eq!(put(bpf, fd, 1, 0, BPF_ANY), Ok(()), "0 empties the place");
        assert_eq!(get(bpf, fd, 1), Err(Errno::ENOENT));
        assert_eq!(delete(bpf, fd, 1), Ok(()), "of an empty place");
        assert_eq!(delete(bpf, fd, 4), Err(Errno::EINVAL));
        assert_eq!(keys(bpf, fd), [0, 1, 2, 3], "whatever is there");
    });
}

#[test]
fn hash_makes_keys_even_with_exist() {
    on_both(|bpf| {
        let fd = map(bpf, MapType::DEVMAP_HASH, 4, 4, 2, 0);
        assert_eq!(put(bpf, fd, 7, 0, BPF_ANY), Err(Errno::EINVAL));
        assert_eq!(put(bpf, fd, 7, LO, BPF_EXIST), Ok(()));
        assert_eq!(put(bpf, fd, 7, NO_SUCH, BPF_NOEXIST), Err(Errno::EEXIST));
        assert_eq!(put(bpf, fd, 8, LO, BPF_NOEXIST), Ok(()));
        assert_eq!(put(bpf, fd, 9, NO_SUCH, BPF_ANY), Err(Errno::EINVAL));
        assert_eq!(
            put(bpf, fd, 9, LO, BPF_ANY),
            Err(Errno::E2BIG),
            "last of all"
        );
        assert_eq!(put(bpf, fd, 8, LO, BPF_ANY), Ok(()));
        assert_eq!(delete(bpf, fd, 9), Err(Errno::ENOENT));
    });
}

#[test]
fn hash_walks_by_low_bits_of_the_key_newest_first() {
    on_both(|bpf| {
        let fd = map(bpf, MapType::DEVMAP_HASH, 4, 4, 8, 0);
        for key in [0, 8, 1, 16] {
            assert_eq!(put(bpf, fd, key, LO, BPF_ANY), Ok(()));
        }
        assert_eq!(keys(bpf, fd), [16, 8, 0, 1]);
        assert_eq!(put(bpf, fd, 0, LO, BPF_ANY), Ok(()));
        assert_eq!(keys(bpf, fd), [0, 16, 8, 1], "replaced is new");
    });
}

#[test]
fn info_shows_that_programs_only_read() {
    on_both(|bpf| {
        let fd = map(bpf, MapType::DEVMAP, 4, 4, 4, 0);
        let info = calls::bpf_map_get_info_by_fd(bpf, fd).expect("it is a map");
        assert_eq!(info.map_flags.bits(), 0x80);
    });
}

#[test]
fn elements_go_with_their_interface() {
    let kernel = Kernel::new();
    kernel.add_interface(5);
    for map_type in [MapType::DEVMAP, MapType::DEVMAP_HASH] {
        let fd = map(&kernel, map_type, 4, 4, 4, 0);
        assert_eq!(put(&kernel, fd, 1, 5, BPF_ANY), Ok(()));
        assert_eq!(put(&kernel, fd, 2, LO, BPF_ANY), Ok(()));
        kernel.remove_interface(5);
        assert_eq!(get(&kernel, fd, 1), Err(Errno::ENOENT));
        assert_eq!(get(&kernel, fd, 2), Ok(LO));
        kernel.add_interface(5);
    }
}
