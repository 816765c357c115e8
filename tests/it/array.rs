//! Arrays.

use mapemu::abi::{Bpf, Errno, Fd, MapRequest, MapType, Prot, UpdateFlags};
use mapemu::btf::Writer;
use mapemu::calls::{self, CreateOpts};
use mapemu::helper::Prog;
use mapemu::sys::Kernel;

use crate::common::{
    BPF_ANY, BPF_F_LOCK, BPF_NOEXIST, NOT_OPEN, delete, lookup, map, on_both, small,
    small_with_flags, update,
};

const BPF_EXIST: u64 = 2;
const BPF_F_RDONLY_PROG: u32 = 1 << 7;
const BPF_F_MMAPABLE: u32 = 1 << 10;
const PAGE: usize = 4096;

#[test]
fn all_elements_exist_from_birth_and_are_zero() {
    on_both(|bpf| {
        let fd = small(bpf, MapType::ARRAY);
        let values = [0, 1, 2, 3].map(|index| lookup(bpf, fd, index));
        assert_eq!(values, [Ok(0); 4]);
        for index in [4, 5, 8, u32::MAX] {
            assert_eq!(lookup(bpf, fd, index), Err(Errno::ENOENT), "{index}");
        }
    });
}

#[test]
fn update_past_end_is_e2big_even_with_noexist() {
    on_both(|bpf| {
        let fd = small(bpf, MapType::ARRAY);
        assert_eq!(update(bpf, fd, 4, 7, BPF_ANY), Err(Errno::E2BIG));
        assert_eq!(update(bpf, fd, 4, 7, BPF_NOEXIST), Err(Errno::E2BIG));
        assert_eq!(update(bpf, fd, 4, 7, 3), Err(Errno::EINVAL), "flags first");
        assert_eq!(update(bpf, fd, 3, 7, BPF_NOEXIST), Err(Errno::EEXIST));
        assert_eq!(update(bpf, fd, 3, 7, BPF_EXIST), Ok(()));
        assert_eq!(lookup(bpf, fd, 3), Ok(7));
    });
}

#[test]
fn elements_are_not_deleted() {
    on_both(|bpf| {
        let fd = small(bpf, MapType::ARRAY);
        assert_eq!(delete(bpf, fd, 0), Err(Errno::EINVAL));
        assert_eq!(delete(bpf, fd, 9), Err(Errno::EINVAL));
        let (key, mut value) = ([0; 4], [0; 8]);
        let taken = calls::bpf_map_lookup_and_delete_elem(bpf, fd, &key, &mut value);
        assert_eq!(taken, Err(Errno::ENOTSUPP));
    });
}

#[test]
fn keys_are_walked_in_order() {
    on_both(|bpf| {
        let fd = small(bpf, MapType::ARRAY);
        let next = |key: Option<u32>| {
            let (key, mut next) = (key.map(u32::to_ne_bytes), [0; 4]);
            let key = key.as_ref().map(|key| &key[..]);
            calls::bpf_map_get_next_key(bpf, fd, key, &mut next).map(|()| u32::from_ne_bytes(next))
        };
        assert_eq!(next(None), Ok(0));
        assert_eq!(next(Some(0)), Ok(1));
        assert_eq!(next(Some(3)), Err(Errno::ENOENT), "the last one");
        assert_eq!(next(Some(4)), Ok(0), "no key: from the start");
        assert_eq!(next(Some(u32::MAX)), Ok(0));
    });
}

#[test]
fn a_batch_token_is_the_last_key() {
    on_both(|bpf| {
        let fd = small(bpf, MapType::ARRAY);
        for index in 0..4 {
            assert_eq!(
                update(bpf, fd, index, u64::from(index) + 1, BPF_ANY),
                Ok(())
            );
        }
        let (mut token, mut keys, mut values) = ([0; 4], [0; 12], [0; 24]);
        let read =
            calls::bpf_map_lookup_batch(bpf, fd, None, &mut token, &mut keys, &mut values, 3);
        assert_eq!((read.count, read.result), (3, Ok(())));
        assert_eq!(token, 2_u32.to_ne_bytes());
        assert_eq!(values[16..], 3_u64.to_ne_bytes());
        let from = token;
        let read = calls::bpf_map_lookup_batch(
            bpf,
            fd,
            Some(&from),
            &mut token,
            &mut keys,
            &mut values,
            3,
        );
        assert_eq!((read.count, read.result), (1, Err(Errno::ENOENT)));
        assert_eq!(values[..8], 4_u64.to_ne_bytes());
    });
}

#[test]
fn an_update_batch_stops_at_the_first_error() {
    on_both(|bpf| {
        let fd = small(bpf, MapType::ARRAY);
        let keys: Vec<u8> = [0_u32, 9, 1]
            .iter()
            .flat_map(|key| key.to_ne_bytes())
            .collect();
        let values = [[5; 8]; 3].concat();
        let written = calls::bpf_map_update_batch(bpf, fd, &keys, &values, 3, BPF_ANY);
        assert_eq!((written.count, written.result), (1, Err(Errno::E2BIG)));
        assert_eq!(lookup(bpf, fd, 0), Ok(u64::from_ne_bytes([5; 8])));
        assert_eq!(lookup(bpf, fd, 1), Ok(0));
        let deleted = calls::bpf_map_delete_batch(bpf, fd, &keys, 3);
        assert_eq!((deleted.count, deleted.result), (3, Err(Errno::ENOTSUPP)));
    });
}

#[test]
fn bytes_between_elements_stay() {
    on_both(|bpf| {
        let fd = map(bpf, MapType::ARRAY, 4, 5, 2, 0);
        let set = |index: u32, value: &[u8]| {
            calls::bpf_map_update_elem(bpf, fd, &index.to_ne_bytes(), value, BPF_ANY)
        };
        assert_eq!(set(0, b"first"), Ok(()));
        assert_eq!(set(1, b"later"), Ok(()));
        let mut value = *b"xxxxx|";
        let found = calls::bpf_map_lookup_elem(bpf, fd, &[0; 4], &mut value);
        assert_eq!((found, &value), (Ok(()), b"first|"));
    });
}

/// An array whose values are a `bpf_spin_lock`, four bytes, and a number.
fn locked(bpf: &dyn Bpf) -> Fd {
    let mut btf = Writer::new();
    let int = btf.int("unsigned int", 4);
    let long = btf.int("unsigned long", 8);
    let lock = btf.structure("bpf_spin_lock", 4, &[("val", int, 0)]);
    let value = btf.structure(
        "value",
        16,
        &[("lock", lock, 0), ("low", int, 4), ("number", long, 8)],
    );
    let opts = CreateOpts {
        btf_fd: calls::bpf_btf_load(bpf, &btf.finish()).expect("fine BTF"),
        btf_key_type_id: int,
        btf_value_type_id: value,
        ..CreateOpts::default()
    };
    calls::bpf_map_create(bpf, MapType::ARRAY, "locked", 4, 16, 2, &opts).expect("a map")
}

#[test]
fn a_lock_in_the_value_is_not_seen_and_not_written() {
    on_both(|bpf| {
        let fd = locked(bpf);
        let set = |flags| calls::bpf_map_update_elem(bpf, fd, &[0; 4], &[0xff; 16], flags);
        let shown = [[0; 4], [0xff; 4], [0xff; 4], [0xff; 4]].concat();
        for flags in [BPF_ANY, BPF_F_LOCK, BPF_F_LOCK | BPF_EXIST] {
            assert_eq!(set(flags), Ok(()), "{flags}");
            let mut value = [1; 16];
            for read in [BPF_ANY, BPF_F_LOCK] {
                let found = calls::bpf_map_lookup_elem_flags(bpf, fd, &[0; 4], &mut value, read);
                assert_eq!((found, &value[..]), (Ok(()), &shown[..]));
            }
        }
        assert_eq!(set(BPF_F_LOCK | BPF_NOEXIST), Err(Errno::EEXIST));
        assert_eq!(set(BPF_F_LOCK | 3), Err(Errno::EINVAL));
        assert_eq!(calls::bpf_map_freeze(bpf, fd), Err(Errno::ENOTSUPP));
    });
}

#[test]
fn programs_have_the_element_itself() {
    let kernel = &Kernel::new();
    let fd = small(kernel, MapType::ARRAY);
    let array = kernel.map(fd).expect("a map");
    let prog = Prog::sched_cls(0);
    let key = 1_u32.to_ne_bytes();
    let value = prog.map_lookup_elem(&array, &key).expect("an element");
    value.store_u64(0, 8);
    assert_eq!(lookup(kernel, fd, 1), Ok(8));
    assert_eq!(update(kernel, fd, 1, 9, BPF_ANY), Ok(()));
    assert_eq!(value.load_u64(0), 9, "updates are in place");
    assert!(prog.map_lookup_elem(&array, &[4, 0, 0, 0]).is_none());
}

#[test]
fn a_program_learns_of_an_element_before_it_learns_of_the_lock() {
    let kernel = &Kernel::new();
    let array = kernel.map(small(kernel, MapType::ARRAY)).expect("a map");
    let prog = Prog::sched_cls(0);
    let set = |index: u32, flags| {
        let flags = UpdateFlags::from_bits_retain(flags);
        prog.map_update_elem(&array, &index.to_ne_bytes(), &[0; 8], flags)
    };
    assert_eq!(set(0, BPF_F_LOCK | BPF_NOEXIST), Err(Errno::EEXIST));
    assert_eq!(set(4, BPF_F_LOCK), Err(Errno::E2BIG));
    assert_eq!(set(0, BPF_F_LOCK), Err(Errno::EINVAL));
    assert_eq!(prog.map_delete_elem(&array, &[0; 4]), Err(Errno::EINVAL));
}

#[test]
fn a_walk_of_a_program_counts_the_call_that_ends_it() {
    let kernel = &Kernel::new();
    let array = kernel.map(small(kernel, MapType::ARRAY)).expect("a map");
    let prog = Prog::sched_cls(0);
    let mut seen = Vec::new();
    let calls = prog.for_each_map_elem(&array, 0, |key, _| {
        seen.push(u32::from_ne_bytes(key.try_into().expect("4 bytes")));
        key != 2_u32.to_ne_bytes()
    });
    assert_eq!((calls, seen), (Ok(3), vec![0, 1, 2]));
    let all = prog.for_each_map_elem(&array, 0, |_, _| true);
    assert_eq!(all, Ok(4));
    let flagged = prog.for_each_map_elem(&array, 1, |_, _| true);
    assert_eq!(flagged, Err(Errno::EINVAL));
}

fn request(len: usize, write: bool) -> MapRequest {
    MapRequest {
        addr: 0,
        offset: 0,
        len,
        prot: Prot {
            read: true,
            write,
            exec: false,
        },
        shared: true,
    }
}

#[test]
fn a_mapping_is_the_memory_of_the_elements() {
    on_both(|bpf| {
        let fd = map(bpf, MapType::ARRAY, 4, 12, 3, BPF_F_MMAPABLE);
        let mapping = bpf.mmap(fd, request(PAGE, true)).expect("it is mappable");
        let value = [7; 12];
        let set = calls::bpf_map_update_elem(bpf, fd, &1_u32.to_ne_bytes(), &value, BPF_ANY);
        assert_eq!(set, Ok(()));
        let mut seen = [1; 16];
        assert_eq!(mapping.read(16, &mut seen), Ok(()));
        assert_eq!(seen[..12], value, "element 1 is at 16");
        assert_eq!(seen[12..], [0; 4], "what fills it up stays");
        assert_eq!(mapping.write(32, &[3; 16]), Ok(()));
        let mut value = [0; 12];
        let found = calls::bpf_map_lookup_elem(bpf, fd, &2_u32.to_ne_bytes(), &mut value);
        assert_eq!((found, value), (Ok(()), [3; 12]));
        assert_eq!(calls::bpf_map_freeze(bpf, fd), Err(Errno::EBUSY));
        drop(mapping);
        assert_eq!(calls::bpf_map_freeze(bpf, fd), Ok(()));
        let again = bpf.mmap(fd, request(PAGE, true)).map(drop);
        assert_eq!(again, Err(Errno::EPERM));
        assert_eq!(bpf.mmap(fd, request(PAGE, false)).map(drop), Ok(()));
    });
}

#[test]
fn what_cannot_be_mapped() {
    on_both(|bpf| {
        let plain = small(bpf, MapType::ARRAY);
        let refused = |fd, request| bpf.mmap(fd, request).map(drop);
        assert_eq!(refused(plain, request(PAGE, false)), Err(Errno::EINVAL));
        let fd = small_with_flags(bpf, MapType::ARRAY, BPF_F_MMAPABLE);
        let two_pages = refused(fd, request(2 * PAGE, false));
        assert_eq!(two_pages, Err(Errno::EINVAL), "there is one");
        let private = MapRequest {
            shared: false,
            ..request(PAGE, false)
        };
        assert_eq!(refused(fd, private), Err(Errno::EINVAL));
        let flags = BPF_F_MMAPABLE | BPF_F_RDONLY_PROG;
        let fd = small_with_flags(bpf, MapType::ARRAY, flags);
        assert_eq!(refused(fd, request(PAGE, true)), Err(Errno::EACCES));
        let percpu = small(bpf, MapType::PERCPU_ARRAY);
        assert_eq!(refused(percpu, request(PAGE, false)), Err(Errno::ENOTSUPP));
    });
}

#[test]
fn no_mapping_is_longer_than_a_process() {
    on_both(|bpf| {
        let fd = small_with_flags(bpf, MapType::ARRAY, BPF_F_MMAPABLE);
        for len in [1 << 60, usize::MAX - PAGE, usize::MAX] {
            let refused = bpf.mmap(fd, request(len, false)).map(drop);
            assert_eq!(refused, Err(Errno::ENOMEM), "{len}");
        }
        let refused = bpf.mmap(fd, request(0, false)).map(drop);
        assert_eq!(refused, Err(Errno::EINVAL));
    });
}

#[test]
fn an_offset_inside_of_a_page_is_einval_even_without_a_file() {
    on_both(|bpf| {
        let aligned = request(PAGE, false);
        let inside = MapRequest {
            offset: 8,
            ..aligned
        };
        assert_eq!(bpf.mmap(NOT_OPEN, inside).map(drop), Err(Errno::EINVAL));
        assert_eq!(bpf.mmap(NOT_OPEN, aligned).map(drop), Err(Errno::EBADF));
    });
}
