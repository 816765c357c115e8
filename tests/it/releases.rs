//! Releases: which one is taken, and a test on all of them.

use mapemu::abi::{Errno, MapType};
use mapemu::calls::{bpf_map_freeze, bpf_map_lookup_and_delete_elem, bpf_map_update_elem};
use mapemu::env::{RELEASES, Release, UnknownRelease};
use mapemu::sys::Kernel;

use crate::common::map;

/// The names of the releases on which that holds.
fn where_it_holds(holds: impl Fn(&Kernel) -> bool) -> Vec<&'static str> {
    let names = std::cell::RefCell::new(Vec::new());
    Kernel::each_release(|kernel| {
        if holds(kernel) {
            names.borrow_mut().push(kernel.release().name);
        }
    });
    names.into_inner()
}

#[test]
fn a_test_runs_on_all_releases() {
    let names: Vec<_> = RELEASES.iter().map(|release| release.name).collect();
    assert_eq!(where_it_holds(|_| true), names);
}

#[test]
#[should_panic(expected = "it fails on Linux 5.10.262, 6.1.192")]
fn who_fails_is_named() {
    Kernel::each_release(|kernel| {
        let frozen = map(kernel, MapType::ARRAY, 4, 8, 1, 0);
        bpf_map_freeze(kernel, frozen).expect("it is not frozen yet");
        assert_eq!(bpf_map_freeze(kernel, frozen), Err(Errno::EPERM));
    });
}

#[test]
fn the_kernel_tells_which_release_was_taken() {
    let kernel = Kernel::builder().release("6.16.12").expect("one is near");
    assert_eq!(kernel.build().release().name, "6.12.117");
    assert!(!Release::take("6.16.12").expect("one is near").is_proven);
    let unknown = Kernel::builder().release("4.19").err();
    assert_eq!(unknown, Some(UnknownRelease("4.19".to_owned())));
    assert_eq!(Kernel::new().release().name, "6.18.44");
}

#[test]
fn what_a_release_lacks_is_missing() {
    let has = |map_type: MapType, value_size| {
        where_it_holds(|kernel| {
            let opts = mapemu::calls::CreateOpts::default();
            mapemu::calls::bpf_map_create(kernel, map_type, "", 0, value_size, 1, &opts).is_ok()
        })
    };
    let bloom_filters = has(MapType::BLOOM_FILTER, 8);
    assert_eq!(bloom_filters.first(), Some(&"6.1.192"));
    assert_eq!(bloom_filters.len(), RELEASES.len() - 1);
    assert_eq!(has(MapType::QUEUE, 8).len(), RELEASES.len());
}

#[test]
fn an_lru_of_four_loses_all_at_once_on_old_releases() {
    let left_alone = where_it_holds(|kernel| {
        let map = map(kernel, MapType::LRU_HASH, 4, 4, 4, 0);
        let there = |key: u32| {
            let mut value = [0; 4];
            mapemu::calls::bpf_map_lookup_elem(kernel, map, &key.to_ne_bytes(), &mut value).is_ok()
        };
        for key in 1..=5_u32 {
            let key = key.to_ne_bytes();
            bpf_map_update_elem(kernel, map, &key, &key, 0).expect("an LRU hash is never full");
        }
        (1..=5).filter(|&key| there(key)).eq([5])
    });
    assert_eq!(left_alone, ["5.10.262", "6.1.192"]);
}

#[test]
fn a_hash_gives_its_elements_away_since_5_14() {
    let can = where_it_holds(|kernel| {
        let map = map(kernel, MapType::HASH, 4, 4, 1, 0);
        bpf_map_update_elem(kernel, map, &[1; 4], &[2; 4], 0).expect("there is room");
        let mut value = [0; 4];
        bpf_map_lookup_and_delete_elem(kernel, map, &[1; 4], &mut value).is_ok()
    });
    assert_eq!(can.first(), Some(&"6.1.192"));
    assert_eq!(can.len(), RELEASES.len() - 1);
}

#[test]
fn one_cpu_s_value_since_7_0() {
    const BPF_F_CPU: u64 = 8;
    let cpu_1 = BPF_F_CPU | 1 << 32;
    let can = where_it_holds(|kernel| {
        let map = map(kernel, MapType::PERCPU_ARRAY, 4, 8, 1, 0);
        let updated = bpf_map_update_elem(kernel, map, &[0; 4], &7_u64.to_ne_bytes(), cpu_1);
        let mut values = [0_u64; 2];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut values);
        mapemu::calls::bpf_map_lookup_elem(kernel, map, &[0; 4], bytes).expect("it is there");
        match updated {
            Ok(()) => values == [0, 7],
            Err(errno) => {
                // The value of a release without the flag has a part for each CPU: this one is too short.
                assert!(matches!(errno, Errno::EINVAL | Errno::EFAULT));
                false
            }
        }
    });
    assert_eq!(can, ["7.0.13", "7.3.4"]);
}
