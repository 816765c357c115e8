//! Fds, ids, pins, and what they keep alive.

use mapemu::abi::{Bpf as _, Errno, MapType};
use mapemu::calls;
use mapemu::sys::Kernel;

use crate::common::{BPF_ANY, NOT_OPEN, lookup, on_both, queue, small, update};

#[test]
fn an_fd_that_is_not_open_has_its_own_errno_in_each_command() {
    on_both(|bpf| {
        assert_eq!(lookup(bpf, NOT_OPEN, 0), Err(Errno::EBADF));
        assert_eq!(lookup(bpf, 0, 0), Err(Errno::EINVAL), "open, and no map");
        let info = calls::bpf_map_get_info_by_fd(bpf, NOT_OPEN);
        assert_eq!(info, Err(Errno::EBADFD));
        let pin = calls::bpf_obj_pin(bpf, NOT_OPEN, "/sys/fs/bpf/x");
        assert_eq!(pin, Err(Errno::EINVAL));
    });
}

#[test]
fn a_map_lives_as_long_as_an_fd_or_a_pin() {
    let kernel = &Kernel::new();
    let fd = small(kernel, MapType::HASH);
    update(kernel, fd, 1, 5, BPF_ANY).expect("there is room");
    let id = calls::bpf_map_get_info_by_fd(kernel, fd).expect("info").id;
    let path = "/sys/fs/bpf/kept";
    assert_eq!(calls::bpf_obj_pin(kernel, fd, path), Ok(()));
    assert_eq!(calls::bpf_obj_pin(kernel, fd, path), Err(Errno::EEXIST));
    close(kernel, fd);
    let back = calls::bpf_obj_get(kernel, path).expect("pinned");
    assert_eq!(lookup(kernel, back, 1), Ok(5));
    assert_eq!(kernel.unlink(path), Ok(()));
    assert_eq!(lookup(kernel, back, 1), Ok(5));
    close(kernel, back);
    let by_id = calls::bpf_map_get_fd_by_id(kernel, id);
    assert_eq!(by_id, Err(Errno::ENOENT));
    assert_eq!(calls::bpf_map_get_next_id(kernel, 0), Err(Errno::ENOENT));
}

/// (Of the running kernel too, but other threads of the test open and close files there.)
#[test]
fn new_fds_take_the_lowest_free_number() {
    let kernel = Kernel::new();
    let (first, second) = (queue(&kernel), queue(&kernel));
    assert_eq!((first, second), (3, 4));
    kernel.close(first).expect("it is open");
    assert_eq!(queue(&kernel), first);
    assert_eq!(queue(&kernel), 5);
    assert_eq!(kernel.close(NOT_OPEN), Err(Errno::EBADF));
}

#[test]
fn ids_are_not_used_again() {
    on_both(|bpf| {
        let id = |fd| calls::bpf_map_get_info_by_fd(bpf, fd).expect("info").id;
        let fd = queue(bpf);
        let first = id(fd);
        bpf.close(fd).expect("it is open");
        assert!(id(queue(bpf)) > first);
    });
}

#[track_caller]
fn close(kernel: &Kernel, fd: u32) {
    mapemu::abi::Bpf::close(kernel, fd).expect("it is open");
}

/// Observed on Linux 6.18.44, each with the same files there: `d/`, `d/q`, `d/s/`, `d/s/r`, `e/`, `p`.
#[test]
fn names_in_the_bpffs_are_moved_and_removed() {
    let answer = |op: fn(&Kernel, &str, &str) -> Result<(), Errno>, from: &str, to: &str| {
        let kernel = Kernel::new();
        let fd = small(&kernel, MapType::HASH);
        let path = |name: &str| format!("/sys/fs/bpf/{name}");
        for dir in ["d", "e", "d/s"] {
            kernel.mkdir(&path(dir)).expect("there is none");
        }
        for pin in ["p", "d/q", "d/s/r"] {
            calls::bpf_obj_pin(&kernel, fd, &path(pin)).expect("there is none");
        }
        op(&kernel, &path(from), &path(to)).err()
    };
    for (from, to, errno) in [
        ("d", "d/x", Some(Errno::EINVAL)),
        ("d", "d/x.y", Some(Errno::EPERM)),
        ("d", "d/x/y", Some(Errno::ENOENT)),
        ("d", "d/q/x", Some(Errno::ENOTDIR)),
        ("d", "d/s/r", Some(Errno::EINVAL)),
        ("d/q", "d", Some(Errno::ENOTEMPTY)),
        ("d/s/r", "d", Some(Errno::ENOTEMPTY)),
        ("n", "p/x", Some(Errno::ENOTDIR)),
        ("n", "x.y", Some(Errno::ENOENT)),
        ("n.m", "x", Some(Errno::EPERM)),
        ("p", "x.y", Some(Errno::EPERM)),
        ("p", "n.m/x", Some(Errno::EPERM)),
        ("d", "d", None),
        ("d", "e", None),
        ("e", "d", Some(Errno::ENOTEMPTY)),
        ("d", "p", Some(Errno::ENOTDIR)),
        ("p", "e", Some(Errno::EISDIR)),
        ("d/q", "d/s/r", None),
        ("", "x", Some(Errno::EXDEV)),
        ("p", "", Some(Errno::EXDEV)),
    ] {
        assert_eq!(answer(Kernel::rename, from, to), errno, "{from} to {to}");
    }
    for (path, errno) in [
        ("d", Some(Errno::ENOTEMPTY)),
        ("e", None),
        ("p", Some(Errno::ENOTDIR)),
        ("n", Some(Errno::ENOENT)),
        ("d/n.m", Some(Errno::EPERM)),
        ("", Some(Errno::EBUSY)),
    ] {
        let rmdir = |kernel: &Kernel, path: &str, _: &str| kernel.rmdir(path);
        assert_eq!(answer(rmdir, path, ""), errno, "{path}");
    }
}
