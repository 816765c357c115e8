//! Arrays and hashes of maps.

use mapemu::abi::{Bpf, Errno, Fd, MapType, ProgType};
use mapemu::calls::{self, CreateOpts};
use mapemu::helper::Prog;
use mapemu::sys::Kernel;

use crate::common::{BPF_ANY, BPF_NOEXIST, NOT_OPEN, delete, map, on_both, small, update};

const BPF_EXIST: u64 = 2;
const BPF_F_NO_PREALLOC: u32 = 1;
const BPF_F_INNER_MAP: u32 = 1 << 12;

const OUTER: [MapType; 2] = [MapType::ARRAY_OF_MAPS, MapType::HASH_OF_MAPS];

/// A map of 4 maps like the template.
fn outer(bpf: &dyn Bpf, map_type: MapType, template: Fd, map_flags: u32) -> Result<Fd, Errno> {
    let opts = CreateOpts {
        inner_map_fd: template,
        map_flags,
        ..CreateOpts::default()
    };
    calls::bpf_map_create(bpf, map_type, "outer", 4, 4, 4, &opts)
}

fn put(bpf: &dyn Bpf, fd: Fd, key: u32, inner: Fd, flags: u64) -> Result<(), Errno> {
    calls::bpf_map_update_elem(bpf, fd, &key.to_ne_bytes(), &inner.to_ne_bytes(), flags)
}

/// The id of the map of a key.
fn get(bpf: &dyn Bpf, fd: Fd, key: u32) -> Result<u32, Errno> {
    let mut id = [0; 4];
    calls::bpf_map_lookup_elem(bpf, fd, &key.to_ne_bytes(), &mut id)?;
    Ok(u32::from_ne_bytes(id))
}

fn id_of(bpf: &dyn Bpf, fd: Fd) -> u32 {
    calls::bpf_map_get_info_by_fd(bpf, fd).expect("a map").id
}

#[test]
fn an_fd_goes_in_and_an_id_comes_out() {
    on_both(|bpf| {
        for map_type in OUTER {
            let inner = small(bpf, MapType::HASH);
            let fd = outer(bpf, map_type, inner, 0).expect("a map");
            assert_eq!(get(bpf, fd, 1), Err(Errno::ENOENT));
            assert_eq!(put(bpf, fd, 1, inner, BPF_ANY), Ok(()));
            assert_eq!(get(bpf, fd, 1), Ok(id_of(bpf, inner)));
            let other = small(bpf, MapType::HASH);
            assert_eq!(put(bpf, fd, 1, other, BPF_ANY), Ok(()), "exchanged");
            assert_eq!(get(bpf, fd, 1), Ok(id_of(bpf, other)));
            assert_eq!(delete(bpf, fd, 1), Ok(()));
            assert_eq!(delete(bpf, fd, 1), Err(Errno::ENOENT));
            assert_eq!(get(bpf, fd, 1), Err(Errno::ENOENT));
            let mut value = [0; 4];
            let taken = calls::bpf_map_lookup_and_delete_elem(bpf, fd, &[0; 4], &mut value);
            assert_eq!(taken, Err(Errno::ENOTSUPP));
        }
    });
}

#[test]
fn an_array_judges_flags_then_index_then_fd() {
    on_both(|bpf| {
        let fd = outer(bpf, OUTER[0], small(bpf, MapType::HASH), 0).expect("a map");
        for flags in [BPF_NOEXIST, BPF_EXIST, 3] {
            assert_eq!(put(bpf, fd, 9, NOT_OPEN, flags), Err(Errno::EINVAL));
        }
        assert_eq!(put(bpf, fd, 4, NOT_OPEN, BPF_ANY), Err(Errno::E2BIG));
        assert_eq!(put(bpf, fd, 3, NOT_OPEN, BPF_ANY), Err(Errno::EBADF));
        assert_eq!(put(bpf, fd, 3, 0, BPF_ANY), Err(Errno::EINVAL), "no map");
        assert_eq!(delete(bpf, fd, 4), Err(Errno::E2BIG));
        assert_eq!(get(bpf, fd, 4), Err(Errno::ENOENT));
    });
}

#[test]
fn a_hash_judges_fd_then_flags_then_key() {
    on_both(|bpf| {
        let template = small(bpf, MapType::HASH);
        for map_flags in [0, BPF_F_NO_PREALLOC] {
            let fd = outer(bpf, OUTER[1], template, map_flags).expect("a map");
            let misfit = small(bpf, MapType::ARRAY);
            assert_eq!(put(bpf, fd, 1, NOT_OPEN, 3), Err(Errno::EBADF));
            assert_eq!(put(bpf, fd, 1, misfit, BPF_EXIST), Err(Errno::EINVAL));
            assert_eq!(put(bpf, fd, 1, template, 3), Err(Errno::EINVAL));
            assert_eq!(put(bpf, fd, 1, template, BPF_EXIST), Err(Errno::ENOENT));
            assert_eq!(put(bpf, fd, 1, template, BPF_NOEXIST), Ok(()));
            assert_eq!(put(bpf, fd, 1, template, BPF_NOEXIST), Err(Errno::EEXIST));
            for key in 2..=4 {
                assert_eq!(put(bpf, fd, key, template, BPF_ANY), Ok(()));
            }
            assert_eq!(put(bpf, fd, 5, template, BPF_ANY), Err(Errno::E2BIG));
            assert_eq!(put(bpf, fd, 4, template, BPF_EXIST), Ok(()));
            assert_eq!(delete(bpf, fd, 2), Ok(()));
            assert_eq!(put(bpf, fd, 5, template, BPF_ANY), Ok(()));
        }
    });
}

#[test]
fn what_fits_is_like_the_template() {
    on_both(|bpf| {
        for map_type in OUTER {
            let hash = map(bpf, MapType::HASH, 4, 8, 4, 0);
            let fd = outer(bpf, map_type, hash, 0).expect("a map");
            let fits = |inner| put(bpf, fd, 0, inner, BPF_ANY);
            assert_eq!(
                fits(map(bpf, MapType::HASH, 4, 8, 9, 0)),
                Ok(()),
                "its size is free"
            );
            let misfit = Err(Errno::EINVAL);
            assert_eq!(fits(map(bpf, MapType::HASH, 8, 8, 4, 0)), misfit);
            assert_eq!(fits(map(bpf, MapType::HASH, 4, 4, 4, 0)), misfit);
            assert_eq!(
                fits(map(bpf, MapType::HASH, 4, 8, 4, BPF_F_NO_PREALLOC)),
                misfit
            );
            assert_eq!(fits(map(bpf, MapType::PERCPU_HASH, 4, 8, 4, 0)), misfit);
            let read_only = map(bpf, MapType::HASH, 4, 8, 4, crate::common::BPF_F_RDONLY);
            assert_eq!(fits(read_only), Ok(()), "that is the fd's");
        }
    });
}

#[test]
fn the_size_of_an_array_counts_unless_it_is_an_inner_map_by_flag() {
    on_both(|bpf| {
        let array = |max_entries, flags| map(bpf, MapType::ARRAY, 4, 8, max_entries, flags);
        let fixed = outer(bpf, OUTER[0], array(4, 0), 0).expect("a map");
        assert_eq!(put(bpf, fixed, 0, array(4, 0), BPF_ANY), Ok(()));
        assert_eq!(put(bpf, fixed, 0, array(5, 0), BPF_ANY), Err(Errno::EINVAL));
        let flagged = array(4, BPF_F_INNER_MAP);
        assert_eq!(put(bpf, fixed, 0, flagged, BPF_ANY), Err(Errno::EINVAL));
        let free = outer(bpf, OUTER[0], flagged, 0).expect("a map");
        assert_eq!(
            put(bpf, free, 0, array(9, BPF_F_INNER_MAP), BPF_ANY),
            Ok(())
        );
        assert_eq!(put(bpf, free, 0, array(4, 0), BPF_ANY), Err(Errno::EINVAL));
    });
}

#[test]
fn what_is_no_template() {
    on_both(|bpf| {
        for map_type in OUTER {
            let made = |template| outer(bpf, map_type, template, 0).map(|_| ());
            assert_eq!(made(NOT_OPEN), Err(Errno::EBADF));
            assert_eq!(made(0), Err(Errno::EINVAL), "no map");
            let inner = outer(bpf, map_type, small(bpf, MapType::HASH), 0).expect("a map");
            assert_eq!(made(inner), Err(Errno::EINVAL), "one level is enough");
            let progs = map(bpf, MapType::PROG_ARRAY, 4, 4, 1, 0);
            assert_eq!(made(progs), Err(Errno::ENOTSUPP));
        }
    });
}

#[test]
fn a_place_keeps_its_map_alive() {
    on_both(|bpf| {
        for map_type in OUTER {
            let template = small(bpf, MapType::HASH);
            let fd = outer(bpf, map_type, template, 0).expect("a map");
            let inner = small(bpf, MapType::HASH);
            update(bpf, inner, 5, 6, BPF_ANY).expect("there is room");
            assert_eq!(put(bpf, fd, 0, inner, BPF_ANY), Ok(()));
            bpf.close(inner).expect("it is open");
            let id = get(bpf, fd, 0).expect("it is there");
            let again = calls::bpf_map_get_fd_by_id(bpf, id).expect("it lives");
            assert_eq!(crate::common::lookup(bpf, again, 5), Ok(6));
            bpf.close(again).expect("it is open");
            assert_eq!(put(bpf, fd, 0, template, BPF_ANY), Ok(()));
            let gone = calls::bpf_map_get_fd_by_id(bpf, id);
            assert_eq!(gone, Err(Errno::ENOENT));
        }
    });
}

#[test]
fn a_batch_passes_empty_places_over() {
    on_both(|bpf| {
        let inner = small(bpf, MapType::HASH);
        let fd = outer(bpf, OUTER[0], inner, 0).expect("a map");
        assert_eq!(put(bpf, fd, 1, inner, BPF_ANY), Ok(()));
        assert_eq!(put(bpf, fd, 3, inner, BPF_ANY), Ok(()));
        let (mut token, mut keys, mut ids) = ([0; 4], [0; 16], [0; 16]);
        let read = calls::bpf_map_lookup_batch(bpf, fd, None, &mut token, &mut keys, &mut ids, 4);
        assert_eq!((read.count, read.result), (2, Err(Errno::ENOENT)));
        assert_eq!(
            keys[..8],
            [1_u32.to_ne_bytes(), 3_u32.to_ne_bytes()].concat()
        );
        assert_eq!(ids[..4], id_of(bpf, inner).to_ne_bytes());
        let deleted = calls::bpf_map_delete_batch(bpf, fd, &keys, 1);
        assert_eq!((deleted.count, deleted.result), (1, Err(Errno::ENOTSUPP)));
    });
}

#[test]
fn a_hash_of_maps_is_emptied_by_a_batch() {
    on_both(|bpf| {
        let inner = small(bpf, MapType::HASH);
        let fd = outer(bpf, OUTER[1], inner, 0).expect("a map");
        let keys = [1_u32.to_ne_bytes(), 2_u32.to_ne_bytes()].concat();
        let fds = [inner.to_ne_bytes(), NOT_OPEN.to_ne_bytes()].concat();
        let written = calls::bpf_map_update_batch(bpf, fd, &keys, &fds, 2, BPF_ANY);
        assert_eq!((written.count, written.result), (1, Err(Errno::EBADF)));
        let (mut token, mut read, mut ids) = ([0; 4], [0; 16], [0; 16]);
        let taken = calls::bpf_map_lookup_and_delete_batch(
            bpf, fd, None, &mut token, &mut read, &mut ids, 4,
        );
        assert_eq!(
            (taken.count, taken.result),
            (1, Err(Errno::ENOENT)),
            "the end"
        );
        assert_eq!(
            (&read[..4], &ids[..4]),
            (&keys[..4], &id_of(bpf, inner).to_ne_bytes()[..])
        );
        assert_eq!(get(bpf, fd, 1), Err(Errno::ENOENT));
    });
}

#[test]
fn a_program_finds_the_map_itself() {
    let kernel = &Kernel::new();
    for map_type in OUTER {
        let inner = small(kernel, MapType::HASH);
        update(kernel, inner, 5, 6, BPF_ANY).expect("there is room");
        let fd = outer(kernel, map_type, inner, 0).expect("a map");
        put(kernel, fd, 2, inner, BPF_ANY).expect("it fits");
        let prog = Prog::new(ProgType::XDP, 0);
        let outer = kernel.map(fd).expect("a map");
        assert!(
            prog.map_lookup_inner(&outer, &1_u32.to_ne_bytes())
                .is_none()
        );
        let found = prog.map_lookup_inner(&outer, &2_u32.to_ne_bytes());
        let found = found.expect("it was put in");
        let value = prog.map_lookup_elem(&found, &5_u32.to_ne_bytes());
        assert_eq!(value.expect("an element").load_u64(0), 6);
    }
}
