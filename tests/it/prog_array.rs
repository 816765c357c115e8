//! Arrays of programs.

use mapemu::abi::{AttachType, Bpf, Errno, Fd, MapType, ProgType};
use mapemu::calls;
use mapemu::sys::{Kernel, ProgDef};

use crate::common::{BPF_ANY, NOT_OPEN, delete, map};
use crate::playing::on_both_sides;

const NO_ATTACH_TYPE: AttachType = AttachType(0);

fn array(kernel: &Kernel) -> Fd {
    map(kernel, MapType::PROG_ARRAY, 4, 4, 4, 0)
}

fn load(
    kernel: &Kernel,
    prog_type: ProgType,
    expected_attach_type: AttachType,
    maps: &[Fd],
) -> Result<Fd, Errno> {
    kernel.prog_load(ProgDef {
        name: "",
        prog_type,
        expected_attach_type,
        maps,
        storages: &[],
    })
}

fn filter(kernel: &Kernel) -> Fd {
    load(kernel, ProgType::SOCKET_FILTER, NO_ATTACH_TYPE, &[]).expect("a program")
}

fn classifier(kernel: &Kernel) -> Fd {
    load(kernel, ProgType::SCHED_CLS, NO_ATTACH_TYPE, &[]).expect("a program")
}

fn put(kernel: &Kernel, fd: Fd, index: u32, prog: Fd, flags: u64) -> Result<(), Errno> {
    calls::bpf_map_update_elem(kernel, fd, &index.to_ne_bytes(), &prog.to_ne_bytes(), flags)
}

fn get(kernel: &Kernel, fd: Fd, index: u32) -> Result<u32, Errno> {
    let mut id = [0; 4];
    calls::bpf_map_lookup_elem(kernel, fd, &index.to_ne_bytes(), &mut id)?;
    Ok(u32::from_ne_bytes(id))
}

#[test]
fn flags_then_index_then_fd() {
    let kernel = &Kernel::new();
    let fd = array(kernel);
    assert_eq!(put(kernel, fd, 9, NOT_OPEN, 1), Err(Errno::EINVAL));
    assert_eq!(put(kernel, fd, 4, NOT_OPEN, BPF_ANY), Err(Errno::E2BIG));
    assert_eq!(put(kernel, fd, 0, NOT_OPEN, BPF_ANY), Err(Errno::EBADF));
    assert_eq!(put(kernel, fd, 0, fd, BPF_ANY), Err(Errno::EINVAL), "a map");
    assert_eq!(put(kernel, fd, 0, filter(kernel), BPF_ANY), Ok(()));
    assert!(get(kernel, fd, 0).is_ok_and(|id| id > 0));
    assert_eq!(get(kernel, fd, 1), Err(Errno::ENOENT));
    assert_eq!(get(kernel, fd, 4), Err(Errno::ENOENT));
    assert_eq!(delete(kernel, fd, 4), Err(Errno::E2BIG));
    assert_eq!(delete(kernel, fd, 1), Err(Errno::ENOENT));
    assert_eq!(delete(kernel, fd, 0), Ok(()));
}

#[test]
fn the_first_program_binds_it_for_good() {
    let kernel = &Kernel::new();
    let fd = array(kernel);
    let owner = || {
        let lines = kernel.fdinfo(fd).expect("a map");
        lines.contains("owner_prog_type:\t1\nowner_jited:\t1\n")
    };
    assert!(!owner());
    assert_eq!(put(kernel, fd, 0, filter(kernel), BPF_ANY), Ok(()));
    assert!(owner());
    let other = classifier(kernel);
    assert_eq!(put(kernel, fd, 1, other, BPF_ANY), Err(Errno::EINVAL));
    assert_eq!(delete(kernel, fd, 0), Ok(()));
    assert_eq!(put(kernel, fd, 0, other, BPF_ANY), Err(Errno::EINVAL));
    assert!(owner());
}

#[test]
fn a_program_that_uses_it_binds_it_too() {
    let kernel = &Kernel::new();
    let fd = array(kernel);
    let user = load(kernel, ProgType::SOCKET_FILTER, NO_ATTACH_TYPE, &[fd]);
    assert!(user.is_ok());
    assert_eq!(
        put(kernel, fd, 0, classifier(kernel), BPF_ANY),
        Err(Errno::EINVAL)
    );
    assert_eq!(put(kernel, fd, 0, filter(kernel), BPF_ANY), Ok(()));
    let other = load(kernel, ProgType::SCHED_CLS, NO_ATTACH_TYPE, &[fd]);
    assert_eq!(other, Err(Errno::EINVAL));
}

#[test]
fn programs_of_one_array_attach_to_the_same() {
    let kernel = &Kernel::new();
    let fd = array(kernel);
    let load = |attach_type| {
        load(
            kernel,
            ProgType::CGROUP_SOCK_ADDR,
            AttachType(attach_type),
            &[],
        )
        .expect("a program")
    };
    let (connect4, connect6) = (load(10), load(11));
    assert_eq!(put(kernel, fd, 0, connect4, BPF_ANY), Ok(()));
    assert_eq!(put(kernel, fd, 1, connect6, BPF_ANY), Err(Errno::EINVAL));
}

#[test]
fn programs_of_one_array_use_the_same_cgroup_storage_or_none() {
    let kernel = &Kernel::new();
    let storage = || map(kernel, MapType::CGROUP_STORAGE, 16, 8, 0, 0);
    let load =
        |maps: &[Fd]| load(kernel, ProgType::CGROUP_SKB, NO_ATTACH_TYPE, maps).expect("a program");
    let (none, one, two) = (load(&[]), load(&[storage()]), load(&[storage()]));
    let in_order = |progs: [Fd; 3]| {
        let fd = array(kernel);
        progs.map(|prog| put(kernel, fd, 0, prog, BPF_ANY))
    };
    let misfit = Err(Errno::EINVAL);
    assert_eq!(in_order([none, one, none]), [Ok(()), misfit, Ok(())]);
    assert_eq!(in_order([one, none, two]), [Ok(()), Ok(()), misfit]);
}

#[test]
fn it_is_emptied_when_its_last_fd_goes_even_while_a_program_uses_it() {
    let kernel = &Kernel::new();
    let fd = array(kernel);
    let user = load(kernel, ProgType::SOCKET_FILTER, NO_ATTACH_TYPE, &[fd]);
    let user = user.expect("a program");
    put(kernel, fd, 0, user, BPF_ANY).expect("of its kind");
    let id = calls::bpf_map_get_info_by_fd(kernel, fd).expect("info").id;
    let again = kernel.dup(fd).expect("it is open");
    kernel.close(fd).expect("it is open");
    assert!(get(kernel, again, 0).is_ok(), "an fd is left");
    kernel.close(again).expect("it is open");
    let by_id = calls::bpf_map_get_fd_by_id(kernel, id).expect("the program holds it");
    assert_eq!(get(kernel, by_id, 0), Err(Errno::ENOENT));
    kernel.close(by_id).expect("it is open");
    kernel.close(user).expect("it is open");
    let by_id = calls::bpf_map_get_fd_by_id(kernel, id);
    assert_eq!(by_id, Err(Errno::ENOENT), "nobody is left");
}

#[test]
fn a_run_jumps_33_times() {
    on_both_sides(|side| {
        for prog_type in [ProgType::SOCKET_FILTER, ProgType::SCHED_CLS, ProgType::XDP] {
            let fd = map(side.bpf(), MapType::PROG_ARRAY, 4, 4, 4, 0);
            assert_eq!(side.jump(prog_type, fd, 0), (34, 1), "{prog_type}");
        }
    });
}

#[test]
fn without_a_program_to_jump_to_it_goes_on() {
    on_both_sides(|side| {
        for to in [1, 4, u32::MAX] {
            let fd = map(side.bpf(), MapType::PROG_ARRAY, 4, 4, 4, 0);
            assert_eq!(side.jump(ProgType::XDP, fd, to), (1, 1), "to {to}");
        }
    });
}
