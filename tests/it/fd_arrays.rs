//! Arrays of perf events and of cgroups.

use mapemu::abi::{Bpf, Errno, Fd, MapType, PerfEvent};
use mapemu::calls;
use mapemu::helper::Prog;
use mapemu::map::object::{Object, OtherKind};
use mapemu::sys::Kernel;

use crate::common::{BPF_ANY, NOT_OPEN, delete, map};
use crate::playing::on_both_sides;

const BPF_F_PRESERVE_ELEMS: u32 = 1 << 11;

fn put(kernel: &Kernel, fd: Fd, index: u32, thing: Fd, flags: u64) -> Result<(), Errno> {
    calls::bpf_map_update_elem(
        kernel,
        fd,
        &index.to_ne_bytes(),
        &thing.to_ne_bytes(),
        flags,
    )
}

/// Another open file of the same map.
fn open_again(kernel: &Kernel, fd: Fd) -> Fd {
    let id = calls::bpf_map_get_info_by_fd(kernel, fd).expect("info").id;
    calls::bpf_map_get_fd_by_id(kernel, id).expect("it lives")
}

#[test]
fn flags_then_index_then_fd() {
    let kernel = &Kernel::new();
    let event = kernel.open(OtherKind::PerfEvent(PerfEvent::bpf_output(0)));
    let cgroup = kernel.cgroup_create("c", None).expect("a new one");
    let file = kernel.open(OtherKind::File);
    let cgroup1 = kernel.open(OtherKind::Cgroup1);
    for (map_type, thing) in [
        (MapType::PERF_EVENT_ARRAY, event),
        (MapType::CGROUP_ARRAY, cgroup),
    ] {
        let fd = map(kernel, map_type, 4, 4, 2, 0);
        assert_eq!(put(kernel, fd, 9, NOT_OPEN, 1), Err(Errno::EINVAL));
        assert_eq!(put(kernel, fd, 2, NOT_OPEN, BPF_ANY), Err(Errno::E2BIG));
        for other in [NOT_OPEN, file, cgroup1, fd] {
            assert_eq!(put(kernel, fd, 1, other, BPF_ANY), Err(Errno::EBADF));
        }
        assert_eq!(put(kernel, fd, 1, thing, BPF_ANY), Ok(()));
        let mut value = [0; 4];
        for key in [1_u32, 9] {
            let found = calls::bpf_map_lookup_elem(kernel, fd, &key.to_ne_bytes(), &mut value);
            assert_eq!(found, Err(Errno::ENOTSUPP));
        }
        assert_eq!(delete(kernel, fd, 2), Err(Errno::E2BIG));
        assert_eq!(delete(kernel, fd, 0), Err(Errno::ENOENT));
        assert_eq!(delete(kernel, fd, 1), Ok(()));
        assert_eq!(delete(kernel, fd, 1), Err(Errno::ENOENT));
    }
}

#[test]
fn an_event_goes_with_the_open_file_that_put_it() {
    let kernel = &Kernel::new();
    let event = kernel.open(OtherKind::PerfEvent(PerfEvent::bpf_output(0)));
    for (map_flags, left) in [(0, Err(Errno::ENOENT)), (BPF_F_PRESERVE_ELEMS, Ok(()))] {
        let fd = map(kernel, MapType::PERF_EVENT_ARRAY, 4, 4, 2, map_flags);
        let other = open_again(kernel, fd);
        assert_eq!(put(kernel, fd, 0, event, BPF_ANY), Ok(()));
        assert_eq!(put(kernel, other, 1, event, BPF_ANY), Ok(()));
        let dup = kernel.dup(other).expect("it is open");
        kernel.close(other).expect("it is open");
        assert_eq!(delete(kernel, fd, 1), Ok(()), "the file has another fd");
        assert_eq!(put(kernel, dup, 1, event, BPF_ANY), Ok(()));
        kernel.close(dup).expect("it is open");
        assert_eq!(delete(kernel, fd, 1), left);
        assert_eq!(delete(kernel, fd, 0), Ok(()));
    }
}

#[test]
fn a_process_is_asked_for_by_what_is_in_the_array() {
    on_both_sides(|side| {
        let fd = map(side.bpf(), MapType::CGROUP_ARRAY, 4, 4, 2, 0);
        let is_under = |index| side.task_under_cgroup(fd, index);
        assert_eq!(is_under(1), Err(Errno::EAGAIN));
        assert_eq!(is_under(2), Err(Errno::E2BIG));
        assert_eq!(is_under(u32::MAX), Err(Errno::E2BIG));
    });
}

#[test]
fn a_cgroup_is_under_itself_and_those_above() {
    let kernel = Kernel::new();
    let above = kernel.cgroup_create("above", None).expect("a new one");
    let below = kernel.cgroup_create("below", Some(above));
    let below = below.expect("a new one");
    let cgroup = |fd| match kernel.object(fd) {
        Ok(Object::Cgroup(cgroup)) => cgroup,
        other => panic!("{other:?} is no cgroup"),
    };
    let fd = map(&kernel, MapType::CGROUP_ARRAY, 4, 4, 2, 0);
    assert_eq!(put(&kernel, fd, 0, above, BPF_ANY), Ok(()));
    assert_eq!(put(&kernel, fd, 1, below, BPF_ANY), Ok(()));
    let map = kernel.map(fd).expect("a map");
    let prog = Prog::sched_cls(0);
    let (above, below) = (cgroup(above), cgroup(below));
    for (index, own, is_under) in [
        (0, &above, true),
        (0, &below, true),
        (1, &above, false),
        (1, &below, true),
    ] {
        let of_task = prog.current_task_under_cgroup(&map, index, own);
        assert_eq!(of_task, Ok(is_under));
        assert_eq!(prog.skb_under_cgroup(&map, index, Some(own)), of_task);
    }
    assert_eq!(prog.skb_under_cgroup(&map, 9, None), Err(Errno::ENOENT));
}

/// The same of the process that this is, on the running kernel.
#[cfg(all(feature = "host", target_os = "linux"))]
#[test]
fn this_process_is_under_the_root_and_not_under_a_new_cgroup() {
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

    use crate::playing::Side;
    use crate::playing::running::Running;

    if crate::common::running_kernel().is_none() {
        return;
    }
    let dir = std::env::temp_dir().join(format!("mapemu.{}.cgroup2", std::process::id()));
    std::fs::create_dir(&dir).expect("a new directory");
    mount("none", &dir, "cgroup2", MountFlags::empty(), None).expect("cgroups of version 2");
    let new = dir.join(format!("mapemu.{}", std::process::id()));
    std::fs::create_dir(&new).expect("a new cgroup");

    let side = Running::new();
    let fd = map(side.bpf(), MapType::CGROUP_ARRAY, 4, 4, 3, 0);
    for (index, cgroup) in [(0_u32, &dir), (1, &new)] {
        let cgroup = std::fs::File::open(cgroup).expect("a directory");
        let value = mapemu::host::os::number(&cgroup).to_ne_bytes();
        calls::bpf_map_update_elem(side.bpf(), fd, &index.to_ne_bytes(), &value, BPF_ANY)
            .expect("a cgroup");
    }
    let answers = [0, 1, 2, 3].map(|index| side.task_under_cgroup(fd, index));
    side.bpf().close(fd).expect("it is open");
    std::fs::remove_dir(&new).expect("nobody is in it");
    unmount(&dir, UnmountFlags::empty()).expect("it is mounted");
    std::fs::remove_dir(&dir).expect("it is empty");
    let empty = Err(Errno::EAGAIN);
    assert_eq!(answers, [Ok(true), Ok(false), empty, Err(Errno::E2BIG)]);
}
