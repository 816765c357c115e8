//! Facts about `BPF_MAP_TYPE_SK_STORAGE`, `INODE_STORAGE`, `TASK_STORAGE` and `CGRP_STORAGE`.

use mapemu::abi::{Bpf, Errno, Fd, MapType, PerfEvent, Result};
use mapemu::btf::Writer;
use mapemu::calls::{self, CreateOpts};
use mapemu::helper::Prog;
use mapemu::map::object::{OtherKind, Socket};
use mapemu::sys::Kernel;

use crate::common::{BPF_ANY, BPF_EXIST, BPF_F_LOCK, BPF_NOEXIST, NOT_OPEN, on_both};

const BPF_F_NO_PREALLOC: u32 = 1;
const GET_F_CREATE: u64 = 1;

/// A map with values of 16 bytes: a lock, a number of 4 bytes and one of 8.
fn storage(bpf: &dyn Bpf, map_type: MapType) -> Fd {
    let mut btf = Writer::new();
    let u32_id = btf.int("u32", 4);
    let u64_id = btf.int("u64", 8);
    let lock_id = btf.structure("bpf_spin_lock", 4, &[("val", u32_id, 0)]);
    let members = [("lock", lock_id, 0), ("a", u32_id, 4), ("b", u64_id, 8)];
    let value_id = btf.structure("value", 16, &members);
    let opts = CreateOpts {
        map_flags: BPF_F_NO_PREALLOC,
        btf_fd: calls::bpf_btf_load(bpf, &btf.finish()).expect("it is BTF"),
        btf_key_type_id: u32_id,
        btf_value_type_id: value_id,
        ..CreateOpts::default()
    };
    calls::bpf_map_create(bpf, map_type, "", 4, 16, 0, &opts).expect("a map")
}

fn put(bpf: &dyn Bpf, fd: Fd, owner: Fd, byte: u8, flags: u64) -> Result<()> {
    calls::bpf_map_update_elem(bpf, fd, &owner.to_ne_bytes(), &[byte; 16], flags)
}

fn get(bpf: &dyn Bpf, fd: Fd, owner: Fd) -> Result<[u8; 16]> {
    let mut value = [0; 16];
    calls::bpf_map_lookup_elem(bpf, fd, &owner.to_ne_bytes(), &mut value)?;
    Ok(value)
}

fn delete(bpf: &dyn Bpf, fd: Fd, owner: Fd) -> Result<()> {
    calls::bpf_map_delete_elem(bpf, fd, &owner.to_ne_bytes())
}

/// 16 bytes as they show: the lock is zero.
fn shown(byte: u8) -> [u8; 16] {
    let mut value = [byte; 16];
    value[..4].fill(0);
    value
}

#[test]
fn each_type_has_its_owners() {
    let kernel = Kernel::new();
    let socket = kernel.open(OtherKind::Socket(Socket::default()));
    let file = kernel.open(OtherKind::File);
    let process = kernel.open(OtherKind::Pidfd);
    let cgroup = kernel.cgroup_create("a", None).expect("a cgroup");
    let cases = [
        (MapType::SK_STORAGE, socket, Errno::ENOTSOCK),
        (MapType::TASK_STORAGE, process, Errno::EBADF),
        (MapType::CGRP_STORAGE, cgroup, Errno::EBADF),
    ];
    for (map_type, owner, wrong) in cases {
        let fd = storage(&kernel, map_type);
        for other in [socket, file, process, cgroup, fd] {
            let expected = if other == owner { Errno::ENOENT } else { wrong };
            assert_eq!(get(&kernel, fd, other), Err(expected), "{map_type}");
            assert_eq!(delete(&kernel, fd, other), Err(expected), "{map_type}");
        }
        assert_eq!(get(&kernel, fd, NOT_OPEN), Err(Errno::EBADF));
        assert_eq!(
            put(&kernel, fd, NOT_OPEN, 1, 3),
            Err(Errno::EBADF),
            "before flags"
        );
        assert_eq!(put(&kernel, fd, owner, 1, BPF_ANY), Ok(()));
        assert_eq!(get(&kernel, fd, owner), Ok(shown(1)));
    }
}

#[test]
fn any_fd_has_an_inode_and_some_share_one() {
    let kernel = Kernel::new();
    let fd = storage(&kernel, MapType::INODE_STORAGE);
    let file = kernel.open(OtherKind::File);
    let again = kernel.open_again(file).expect("it is open");
    assert_eq!(put(&kernel, fd, file, 1, BPF_ANY), Ok(()));
    assert_eq!(get(&kernel, fd, again), Ok(shown(1)));
    let event = kernel.open(OtherKind::PerfEvent(PerfEvent::bpf_output(0)));
    assert_eq!(
        put(&kernel, fd, fd, 2, BPF_ANY),
        Ok(()),
        "a map's own inode"
    );
    assert_eq!(
        get(&kernel, fd, event),
        Ok(shown(2)),
        "is that of all without one"
    );
}

#[test]
fn flags_are_those_of_a_hash() {
    let kernel = Kernel::new();
    let fd = storage(&kernel, MapType::SK_STORAGE);
    let socket = kernel.open(OtherKind::Socket(Socket::default()));
    let put = |byte, flags| put(&kernel, fd, socket, byte, flags);
    assert_eq!(
        put(1, 3),
        Err(Errno::EINVAL),
        "before the look for the value"
    );
    assert_eq!(put(1, BPF_EXIST), Err(Errno::ENOENT));
    assert_eq!(put(1, BPF_F_LOCK | BPF_EXIST), Err(Errno::ENOENT));
    assert_eq!(put(1, BPF_NOEXIST), Ok(()));
    assert_eq!(put(2, BPF_NOEXIST), Err(Errno::EEXIST));
    assert_eq!(put(2, BPF_F_LOCK | BPF_NOEXIST), Err(Errno::EEXIST));
    assert_eq!(put(2, BPF_F_LOCK), Ok(()));
    assert_eq!(get(&kernel, fd, socket), Ok(shown(2)));
}

#[test]
fn there_is_no_walk() {
    let kernel = Kernel::new();
    let fd = storage(&kernel, MapType::TASK_STORAGE);
    let mut next = [0; 4];
    let answer = calls::bpf_map_get_next_key(&kernel, fd, None, &mut next);
    assert_eq!(answer, Err(Errno::ENOTSUPP));
}

#[test]
fn a_value_ends_with_its_owner() {
    let kernel = Kernel::new();
    let tasks = storage(&kernel, MapType::TASK_STORAGE);
    let process = kernel.open(OtherKind::Pidfd);
    let again = kernel.open_again(process).expect("it is open");
    assert_eq!(put(&kernel, tasks, process, 1, BPF_ANY), Ok(()));
    kernel.close(process).expect("it is open");
    assert_eq!(get(&kernel, tasks, again), Ok(shown(1)), "not with the fd");
    kernel.end_owner(again);
    assert_eq!(get(&kernel, tasks, again), Err(Errno::ENOENT));
    assert_eq!(put(&kernel, tasks, again, 1, BPF_ANY), Err(Errno::ENOENT));
}

#[test]
fn a_program_gets_makes_and_deletes() {
    let kernel = Kernel::new();
    let fd = storage(&kernel, MapType::CGRP_STORAGE);
    let cgroup = kernel.cgroup_create("a", None).expect("a cgroup");
    let owner = kernel.object(cgroup).expect("it is open");
    let map = kernel.map(fd).expect("a map");
    let prog = Prog::sched_cls(0);
    let get_value = |flags| prog.storage_get(&map, &owner, None, flags);
    assert!(get_value(0).is_none());
    assert!(get_value(GET_F_CREATE | 2).is_none(), "no such flag");
    assert_eq!(prog.storage_delete(&map, &owner), Err(Errno::ENOENT));

    let value = get_value(GET_F_CREATE).expect("it is made");
    value.store_u64(8, 7);
    let mut seen = [0; 16];
    seen[8..].copy_from_slice(&7_u64.to_ne_bytes());
    assert_eq!(get(&kernel, fd, cgroup), Ok(seen));

    assert_eq!(put(&kernel, fd, cgroup, 9, BPF_F_LOCK), Ok(()));
    assert_eq!(value.load_u32(4), 0x0909_0909, "in place");
    assert_eq!(put(&kernel, fd, cgroup, 8, BPF_ANY), Ok(()));
    assert_eq!(value.load_u32(4), 0x0909_0909, "in another place");
    assert_eq!(prog.storage_delete(&map, &owner), Ok(()));
    assert_eq!(get(&kernel, fd, cgroup), Err(Errno::ENOENT));

    let initial = [5; 16];
    let made = prog.storage_get(&map, &owner, Some(&initial), GET_F_CREATE);
    assert_eq!(made.expect("it is made").load_u32(4), 0x0505_0505);
    assert_eq!(get(&kernel, fd, cgroup), Ok(shown(5)));
}

/// A map of one value for each process, `{u64; uptr to a struct of 8 bytes; bpf_spin_lock; u32}`.
#[track_caller]
fn with_user_pointer(bpf: &dyn Bpf) -> Fd {
    let mut btf = Writer::new();
    let u32_id = btf.int("u32", 4);
    let u64_id = btf.int("u64", 8);
    let lock_id = btf.structure("bpf_spin_lock", 4, &[("val", u32_id, 0)]);
    let target_id = btf.structure("of_the_user", 8, &[("x", u64_id, 0)]);
    let members = [
        ("a", u64_id, 0),
        ("p", btf.tagged_pointer("uptr", target_id), 8),
        ("lock", lock_id, 16),
        ("pad", u32_id, 20),
    ];
    let value_id = btf.structure("value", 24, &members);
    let opts = CreateOpts {
        map_flags: 1,
        btf_fd: calls::bpf_btf_load(bpf, &btf.finish()).expect("it is BTF"),
        btf_key_type_id: u32_id,
        btf_value_type_id: value_id,
        ..CreateOpts::default()
    };
    calls::bpf_map_create(bpf, MapType::TASK_STORAGE, "", 4, 24, 0, &opts).expect("a map")
}

#[test]
fn a_user_pointer_and_a_lock_do_not_go_together() {
    on_both(|bpf| {
        let map = with_user_pointer(bpf);
        let key = NOT_OPEN.to_ne_bytes();
        let update = |flags| calls::bpf_map_update_elem(bpf, map, &key, &[0; 24], flags);
        assert_eq!(
            update(4),
            Err(Errno::EOPNOTSUPP),
            "before the process is looked up"
        );
        assert_eq!(update(5), Err(Errno::EOPNOTSUPP));
        assert_eq!(update(3), Err(Errno::EBADF));
        assert_eq!(update(0), Err(Errno::EBADF));
    });
}

#[test]
#[should_panic(expected = "pointers to user memory in values")]
fn a_user_pointer_is_not_emulated() {
    let kernel = Kernel::new();
    let map = with_user_pointer(&kernel);
    let process = kernel.open(OtherKind::Pidfd);
    let update = |value: [u8; 24]| {
        calls::bpf_map_update_elem(&kernel, map, &process.to_ne_bytes(), &value, 0)
    };
    assert_eq!(update([0; 24]), Ok(()), "none is none");
    let _unreached = update([1; 24]);
}
