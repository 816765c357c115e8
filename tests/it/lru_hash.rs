//! Facts about `BPF_MAP_TYPE_LRU_HASH` and `BPF_MAP_TYPE_LRU_PERCPU_HASH`.

use std::thread;

use mapemu::abi::{Bpf, Errno, MapType};
use mapemu::calls::{self, CreateOpts};
use mapemu::helper::Prog;
use mapemu::sys::Kernel;

use crate::common::{
    BPF_ANY, BPF_EXIST, BPF_NOEXIST, delete, keys, lookup, map, on_both, small, update,
};

const BPF_F_NO_COMMON_LRU: u32 = 1 << 1;

/// The keys, in order.
fn sorted(bpf: &dyn Bpf, fd: u32) -> Vec<u32> {
    let mut keys = keys(bpf, fd);
    keys.sort_unstable();
    keys
}

#[test]
fn the_oldest_goes_and_lookups_by_syscall_do_not_count() {
    on_both(|bpf| {
        let fd = small(bpf, MapType::LRU_HASH);
        for key in 1..=4 {
            assert_eq!(update(bpf, fd, key, 0, BPF_ANY), Ok(()));
        }
        assert_eq!(lookup(bpf, fd, 1), Ok(0));
        assert_eq!(update(bpf, fd, 5, 0, BPF_ANY), Ok(()));
        assert_eq!(sorted(bpf, fd), [2, 3, 4, 5]);
    });
}

#[test]
fn a_program_that_looks_spares_the_key() {
    let kernel = Kernel::new();
    let fd = small(&kernel, MapType::LRU_HASH);
    for key in 1..=4 {
        assert_eq!(update(&kernel, fd, key, 0, BPF_ANY), Ok(()));
    }
    let map = kernel.map(fd).expect("a map");
    let found = Prog::sched_cls(0).map_lookup_elem(&map, &1_u32.to_ne_bytes());
    assert!(found.is_some());
    assert_eq!(update(&kernel, fd, 5, 0, BPF_ANY), Ok(()));
    assert_eq!(sorted(&kernel, fd), [1, 3, 4, 5]);
}

#[test]
fn an_update_that_fails_evicts_too() {
    on_both(|bpf| {
        let fd = small(bpf, MapType::LRU_HASH);
        for key in 1..=4 {
            assert_eq!(update(bpf, fd, key, 0, BPF_ANY), Ok(()));
        }
        assert_eq!(update(bpf, fd, 4, 0, BPF_NOEXIST), Err(Errno::EEXIST));
        assert_eq!(sorted(bpf, fd), [2, 3, 4]);
        assert_eq!(update(bpf, fd, 4, 0, 3), Err(Errno::EINVAL));
        assert_eq!(sorted(bpf, fd), [2, 3, 4], "flags come first");
    });
}

#[test]
fn an_update_can_evict_its_own_key() {
    on_both(|bpf| {
        let fd = small(bpf, MapType::LRU_HASH);
        for key in 1..=4 {
            assert_eq!(update(bpf, fd, key, 0, BPF_ANY), Ok(()));
        }
        assert_eq!(update(bpf, fd, 1, 0, BPF_EXIST), Err(Errno::ENOENT));
        assert_eq!(sorted(bpf, fd), [2, 3, 4]);
    });
}

#[test]
fn a_deleted_key_makes_room() {
    on_both(|bpf| {
        let fd = small(bpf, MapType::LRU_HASH);
        for key in 1..=4 {
            assert_eq!(update(bpf, fd, key, 0, BPF_ANY), Ok(()));
        }
        assert_eq!(delete(bpf, fd, 4), Ok(()));
        assert_eq!(update(bpf, fd, 5, 0, BPF_ANY), Ok(()));
        assert_eq!(sorted(bpf, fd), [1, 2, 3, 5]);
    });
}

#[test]
fn a_cpu_has_its_share_and_loses_four_at_once() {
    on_both(|bpf| {
        let fd = map(bpf, MapType::LRU_HASH, 4, 8, 7, BPF_F_NO_COMMON_LRU);
        let info = calls::bpf_map_get_info_by_fd(bpf, fd).expect("a map");
        assert_eq!(info.max_entries, 8, "as many for each CPU");
        for key in 0..5 {
            assert_eq!(update(bpf, fd, key, 0, BPF_ANY), Ok(()));
        }
        assert_eq!(sorted(bpf, fd), [4]);
    });
}

#[test]
fn per_cpu_exist_takes_no_slot() {
    on_both(|bpf| {
        let fd = small(bpf, MapType::LRU_PERCPU_HASH);
        let update = |key: u32, flags| {
            calls::bpf_map_update_elem(bpf, fd, &key.to_ne_bytes(), &[7; 16], flags)
        };
        for key in 1..=4 {
            assert_eq!(update(key, BPF_ANY), Ok(()));
        }
        assert_eq!(update(9, BPF_EXIST), Err(Errno::ENOENT));
        assert_eq!(update(2, BPF_EXIST), Ok(()));
        assert_eq!(sorted(bpf, fd), [1, 2, 3, 4]);
        assert_eq!(update(4, BPF_ANY), Ok(()));
        assert_eq!(sorted(bpf, fd), [2, 3, 4]);
    });
}

/// Slots are neither lost nor shared when two CPUs write, evict and delete at once.
#[test]
fn threads_lose_no_slot() {
    const KEYS: u32 = 40;
    let steps = if cfg!(miri) { 200 } else { 20_000 };
    for map_type in [MapType::LRU_HASH, MapType::LRU_PERCPU_HASH] {
        for map_flags in [0, BPF_F_NO_COMMON_LRU] {
            let kernel = Kernel::new();
            let fd = map(&kernel, map_type, 4, 8, 16, map_flags);
            let shared = kernel.map(fd).expect("a map");
            thread::scope(|scope| {
                for cpu in [0, 1] {
                    let shared = &shared;
                    scope.spawn(move || {
                        let prog = Prog::sched_cls(cpu);
                        let mut random = 0x9e37_79b9_u32 + cpu;
                        for _ in 0..steps {
                            random ^= random << 13;
                            random ^= random >> 17;
                            random ^= random << 5;
                            let key = (random >> 8) % KEYS;
                            let bytes = key.to_ne_bytes();
                            if random.is_multiple_of(4) {
                                // Someone else may have been first.
                                let _ = prog.map_delete_elem(shared, &bytes);
                                continue;
                            }
                            let value = u64::from(key).to_ne_bytes();
                            let flags = mapemu::abi::UpdateFlags::ANY;
                            let done = prog.map_update_elem(shared, &bytes, &value, flags);
                            // There is none to be had while the only inactive element is on its way out on the
                            // other CPU: in the kernel, too.
                            assert!(matches!(done, Ok(()) | Err(Errno::ENOMEM)), "{done:?}");
                        }
                    });
                }
            });
            let found = keys(&kernel, fd);
            assert!(found.len() <= 16);
            for key in found {
                assert_eq!(delete(&kernel, fd, key), Ok(()));
            }
            for key in 100..100 + 8 {
                let value = [1; 16];
                let size = if map_type.is_percpu() { 16 } else { 8 };
                let done = calls::bpf_map_update_elem(
                    &kernel,
                    fd,
                    &u32::to_ne_bytes(key),
                    &value[..size],
                    BPF_ANY,
                );
                assert_eq!(done, Ok(()));
            }
            assert_eq!(
                sorted(&kernel, fd),
                (100..108).collect::<Vec<_>>(),
                "no slot is lost"
            );
        }
    }
}

#[test]
fn the_number_of_buckets_is_that_of_the_rounded_elements() {
    let opts = CreateOpts {
        map_flags: BPF_F_NO_COMMON_LRU,
        ..CreateOpts::default()
    };
    let kernel = Kernel::builder().cpus(3).build();
    // 2^27 rounded up to a multiple of 3 is just too many.
    let map = calls::bpf_map_create(&kernel, MapType::LRU_HASH, "", 4, 8, 1 << 27, &opts);
    assert_eq!(map, Err(Errno::E2BIG));
}
