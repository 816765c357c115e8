//! Facts about `BPF_MAP_TYPE_ARENA` and `BPF_MAP_TYPE_STACK_TRACE`.

use mapemu::abi::{Bpf, Errno, Fd, MapRequest, MapType, Mapping, ProgType, Prot, Result};
use mapemu::calls::{self, CreateOpts};
use mapemu::helper::Prog;
use mapemu::sys::Kernel;

use crate::common::{map, on_both};

const BPF_F_MMAPABLE: u32 = 1 << 10;
const BPF_F_SEGV_ON_FAULT: u32 = 1 << 17;
const PAGE: usize = 4096;

fn arena(bpf: &dyn Bpf) -> Fd {
    map(bpf, MapType::ARENA, 0, 0, 2, BPF_F_MMAPABLE)
}

fn mmap(bpf: &dyn Bpf, fd: Fd, pages: usize, write: bool) -> Result<Box<dyn Mapping>> {
    let request = MapRequest {
        addr: 0,
        len: pages * PAGE,
        offset: 0,
        prot: Prot {
            read: true,
            write,
            exec: false,
        },
        shared: true,
    };
    bpf.mmap(fd, request)
}

#[test]
fn arena_has_no_elements() {
    on_both(|bpf| {
        let fd = arena(bpf);
        let lookup = calls::bpf_map_lookup_elem(bpf, fd, &[], &mut []);
        assert_eq!(lookup, Err(Errno::EINVAL));
        let next = calls::bpf_map_get_next_key(bpf, fd, None, &mut []);
        assert_eq!(next, Err(Errno::EOPNOTSUPP));
    });
}

#[test]
fn arena_is_where_it_was_mapped_first() {
    on_both(|bpf| {
        let fd = arena(bpf);
        let mapping = mmap(bpf, fd, 2, true).expect("the first one");
        assert_eq!(mapping.write(PAGE, &[1, 2]), Ok(()));
        let mut bytes = [9; 3];
        assert_eq!(mapping.read(PAGE, &mut bytes), Ok(()));
        assert_eq!(bytes, [1, 2, 0]);
        assert_eq!(mmap(bpf, fd, 3, false).err(), Some(Errno::E2BIG));
        assert_eq!(mmap(bpf, fd, 2, false).err(), Some(Errno::EINVAL));
        drop(mapping);
        assert_eq!(
            mmap(bpf, fd, 1, false).err(),
            Some(Errno::EINVAL),
            "even then"
        );
    });
}

#[test]
fn arena_mapped_writable_is_never_frozen() {
    on_both(|bpf| {
        let fd = arena(bpf);
        drop(mmap(bpf, fd, 2, true).expect("the first one"));
        assert_eq!(calls::bpf_map_freeze(bpf, fd), Err(Errno::EBUSY));
        let fd = arena(bpf);
        assert_eq!(calls::bpf_map_freeze(bpf, fd), Ok(()));
        assert_eq!(mmap(bpf, fd, 2, true).err(), Some(Errno::EPERM));
        assert!(mmap(bpf, fd, 2, false).is_ok());
    });
}

#[test]
fn an_arena_with_segv_on_fault_has_no_page_that_no_program_took() {
    on_both(|bpf| {
        let fd = map(
            bpf,
            MapType::ARENA,
            0,
            0,
            2,
            BPF_F_MMAPABLE | BPF_F_SEGV_ON_FAULT,
        );
        let mapping = mmap(bpf, fd, 2, true).expect("the first one");
        assert_eq!(mapping.read(0, &mut [0]), Err(Errno::EFAULT));
        assert_eq!(mapping.write(PAGE, &[1]), Err(Errno::EFAULT));
        drop(mapping);
        let fd = map(
            bpf,
            MapType::ARENA,
            0,
            0,
            2,
            BPF_F_MMAPABLE | BPF_F_SEGV_ON_FAULT,
        );
        let request = MapRequest {
            prot: Prot {
                write: true,
                ..Prot::default()
            },
            ..MapRequest::shared(0, PAGE, true)
        };
        let mapping = bpf.mmap(fd, request).expect("it is only written");
        assert_eq!(mapping.read(0, &mut [0]), Err(Errno::EFAULT));
    });
}

#[test]
fn what_can_be_written_can_be_read() {
    on_both(|bpf| {
        let fd = map(bpf, MapType::ARRAY, 4, 8, 1, BPF_F_MMAPABLE);
        let request = MapRequest {
            prot: Prot {
                write: true,
                ..Prot::default()
            },
            ..MapRequest::shared(0, PAGE, true)
        };
        let mapping = bpf.mmap(fd, request).expect("it is only written");
        assert_eq!(mapping.write(1, &[7]), Ok(()));
        let mut bytes = [9; 3];
        assert_eq!(mapping.read(0, &mut bytes), Ok(()));
        assert_eq!(bytes, [0, 7, 0]);
    });
}

/// Where nothing is in a test's process: a multiple of 4 GiB for each test.
const FREE: [u64; 3] = [0x10_0000_0000, 0x12_0000_0000, 0x14_0000_0000];

fn arena_at(bpf: &dyn Bpf, map_extra: u64) -> Fd {
    let opts = CreateOpts {
        map_flags: BPF_F_MMAPABLE,
        map_extra,
        ..CreateOpts::default()
    };
    calls::bpf_map_create(bpf, MapType::ARENA, "", 0, 0, 2, &opts).expect("an arena")
}

fn mmap_at(bpf: &dyn Bpf, fd: Fd, addr: u64, pages: usize) -> Result<Box<dyn Mapping>> {
    let request = MapRequest {
        addr,
        ..MapRequest::shared(0, pages * PAGE, true)
    };
    bpf.mmap(fd, request)
}

#[test]
fn an_arena_has_pages_behind_its_end_if_it_is_mapped_so() {
    on_both(|bpf| {
        let fd = arena(bpf);
        let mapping = mmap(bpf, fd, 3, true).expect("a mapping may be longer");
        let mut bytes = [9; 2];
        assert_eq!(mapping.read(2 * PAGE - 1, &mut bytes), Ok(()));
        assert_eq!(bytes, [0, 0]);
        assert_eq!(mapping.write(2 * PAGE, &[7]), Ok(()));
        assert_eq!(mapping.read(2 * PAGE - 1, &mut bytes), Ok(()));
        assert_eq!(bytes, [0, 7]);
        assert_eq!(mapping.write(3 * PAGE, &[1]), Err(Errno::EFAULT));
    });
}

#[test]
fn an_arena_with_map_extra_is_only_mapped_there() {
    on_both(|bpf| {
        let fd = arena_at(bpf, FREE[0]);
        let refused = |addr, pages| mmap_at(bpf, fd, addr, pages).map(drop);
        assert_eq!(refused(0, 2), Err(Errno::EINVAL));
        assert_eq!(refused(FREE[0] + 4096, 2), Err(Errno::EINVAL));
        assert_eq!(refused(FREE[0] + 1, 2), Err(Errno::EINVAL));
        assert_eq!(refused(FREE[0], 3), Err(Errno::E2BIG));
        assert_eq!(
            refused(FREE[0] + 1, 3),
            Err(Errno::E2BIG),
            "length is judged first"
        );
        assert_eq!(refused(FREE[0], 1), Err(Errno::EINVAL), "not all of it");
        let frozen = arena_at(bpf, FREE[0]);
        assert_eq!(calls::bpf_map_freeze(bpf, frozen), Ok(()));
        let short = mmap_at(bpf, frozen, FREE[0], 1).map(drop);
        assert_eq!(short, Err(Errno::EINVAL), "even if it is frozen");
        let whole = mmap_at(bpf, frozen, FREE[0], 2).map(drop);
        assert_eq!(whole, Err(Errno::EPERM));
        let mapping = mmap_at(bpf, fd, FREE[0], 2).expect("there");
        assert_eq!(mapping.addr(), FREE[0]);
        assert_eq!(mapping.write(PAGE, &[1]), Ok(()));
        assert_eq!(refused(FREE[0], 2), Err(Errno::EEXIST));
        assert_eq!(refused(FREE[0], 1), Err(Errno::EINVAL));
        drop(mapping);
        let mapping = mmap_at(bpf, fd, FREE[0], 2).expect("there again");
        let mut byte = [0];
        assert_eq!(mapping.read(PAGE, &mut byte), Ok(()));
        assert_eq!(byte, [1], "pages stay");
    });
}

#[test]
fn an_arena_does_not_lie_across_four_gigabytes() {
    on_both(|bpf| {
        let opts = CreateOpts {
            map_flags: BPF_F_MMAPABLE,
            map_extra: FREE[1] - 4096,
            ..CreateOpts::default()
        };
        let made = calls::bpf_map_create(bpf, MapType::ARENA, "", 0, 0, 2, &opts);
        assert_eq!(made, Err(Errno::ERANGE));
        let fd = arena(bpf);
        let mapping = mmap_at(bpf, fd, FREE[1] - 4096, 2).expect("somewhere else");
        assert_eq!(mapping.addr(), FREE[1]);
        drop(mapping);
        let refused = |addr| mmap_at(bpf, fd, addr, 2).map(drop);
        assert_eq!(refused(FREE[1] - 4096), Err(Errno::EINVAL));
        assert_eq!(refused(FREE[1]), Ok(()));
    });
}

#[test]
fn a_mapping_is_where_it_is_asked_for_or_nowhere() {
    on_both(|bpf| {
        let fd = map(bpf, MapType::ARRAY, 4, 8, 1, BPF_F_MMAPABLE);
        let at = |addr| mmap_at(bpf, fd, addr, 1);
        assert_eq!(at(FREE[2] + 8).map(drop), Err(Errno::EINVAL));
        assert_eq!(at(u64::MAX << 12).map(drop), Err(Errno::ENOMEM));
        let there = at(FREE[2]).expect("nothing is there");
        assert_eq!(there.addr(), FREE[2]);
        assert_eq!(at(FREE[2]).map(drop), Err(Errno::EEXIST));
        assert_eq!(at(FREE[2] - 4096).map(drop), Ok(()));
        let elsewhere = at(0).expect("anywhere");
        assert_ne!(elsewhere.addr(), FREE[2]);
        drop(there);
        assert_eq!(at(FREE[2]).map(drop), Ok(()));
    });
}

#[test]
fn stacks_are_only_taken_by_programs() {
    on_both(|bpf| {
        let fd = map(bpf, MapType::STACK_TRACE, 4, 80, 3, 0);
        let update = |key: u32, flags| {
            calls::bpf_map_update_elem(bpf, fd, &key.to_ne_bytes(), &[0; 80], flags)
        };
        assert_eq!(update(0, 0), Err(Errno::EINVAL));
        let delete = |key: u32| calls::bpf_map_delete_elem(bpf, fd, &key.to_ne_bytes());
        assert_eq!(delete(3), Err(Errno::ENOENT), "places are a power of two");
        assert_eq!(delete(4), Err(Errno::E2BIG));
    });
}

#[test]
fn a_stack_shows_until_it_is_taken_out() {
    let kernel = Kernel::new();
    let fd = map(&kernel, MapType::STACK_TRACE, 4, 24, 64, 0);
    let map = kernel.map(fd).expect("a map");
    let prog = Prog::new(ProgType::KPROBE, 0);
    let id = prog.get_stackid(&map, &[1, 2], 0).expect("there is room");
    let key = id.to_ne_bytes();
    let mut next = [0; 4];
    let first = calls::bpf_map_get_next_key(&kernel, fd, None, &mut next);
    assert_eq!((first, next), (Ok(()), key));
    let mut value = [9; 24];
    let taken = calls::bpf_map_lookup_and_delete_elem(&kernel, fd, &key, &mut value);
    assert_eq!(taken, Ok(()));
    let frames = [1_u64, 2, 0].map(u64::to_ne_bytes).concat();
    assert_eq!(value[..], frames);
    let gone = calls::bpf_map_lookup_elem(&kernel, fd, &key, &mut value);
    assert_eq!(gone, Err(Errno::ENOENT));
}

#[test]
fn a_mapping_longer_than_a_process_is_enomem() {
    on_both(|bpf| {
        let fd = arena(bpf);
        let request = MapRequest::shared(0, usize::MAX, false);
        assert_eq!(bpf.mmap(fd, request).map(drop), Err(Errno::ENOMEM));
    });
}
