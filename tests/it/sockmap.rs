//! Facts about `BPF_MAP_TYPE_SOCKMAP`, `BPF_MAP_TYPE_SOCKHASH` and `BPF_MAP_TYPE_REUSEPORT_SOCKARRAY`.

use mapemu::abi::{Bpf, Errno, Fd, MapType, Result};
use mapemu::calls;
use mapemu::map::object::{OtherKind, Socket};
use mapemu::sys::Kernel;

use crate::common::{BPF_ANY, BPF_EXIST, BPF_NOEXIST, NOT_OPEN, keys, map};

const UDP: Socket = Socket {
    xdp: false,
    unix: false,
    stream: false,
    bound: true,
    listening: false,
    connected: false,
    reuseport: true,
};

fn open(kernel: &Kernel, socket: Socket) -> Fd {
    kernel.open(OtherKind::Socket(socket))
}

fn put(kernel: &Kernel, fd: Fd, key: u32, socket: Fd, flags: u64) -> Result<()> {
    calls::bpf_map_update_elem(kernel, fd, &key.to_ne_bytes(), &socket.to_ne_bytes(), flags)
}

fn get(kernel: &Kernel, fd: Fd, key: u32) -> Result<u64> {
    let mut value = [0; 8];
    calls::bpf_map_lookup_elem(kernel, fd, &key.to_ne_bytes(), &mut value)?;
    Ok(u64::from_ne_bytes(value))
}

fn delete(kernel: &Kernel, fd: Fd, key: u32) -> Result<()> {
    calls::bpf_map_delete_elem(kernel, fd, &key.to_ne_bytes())
}

#[test]
fn sockets_of_some_kinds_in_some_states() {
    let kernel = Kernel::new();
    let fd = map(&kernel, MapType::SOCKMAP, 4, 4, 3, 0);
    let none = Socket::default();
    let stream = Socket {
        stream: true,
        ..none
    };
    let unix = Socket { unix: true, ..none };
    let connected = |socket| Socket {
        connected: true,
        ..socket
    };
    for (socket, fits) in [
        (none, false),
        (UDP, true),
        (connected(none), true),
        (stream, false),
        (connected(stream), true),
        (
            Socket {
                listening: true,
                ..stream
            },
            true,
        ),
        (
            Socket {
                bound: true,
                ..stream
            },
            false,
        ),
        (unix, true),
        (
            Socket {
                stream: true,
                ..unix
            },
            false,
        ),
    ] {
        let expected = if fits { Ok(()) } else { Err(Errno::EOPNOTSUPP) };
        let socket_fd = open(&kernel, socket);
        assert_eq!(
            put(&kernel, fd, 0, socket_fd, BPF_ANY),
            expected,
            "{socket:?}"
        );
    }
}

#[test]
fn what_the_socket_is_comes_before_flags_and_index() {
    let kernel = Kernel::new();
    let fd = map(&kernel, MapType::SOCKMAP, 4, 4, 3, 0);
    let udp = open(&kernel, UDP);
    let new = open(&kernel, Socket::default());
    assert_eq!(
        put(&kernel, fd, 9, u32::MAX, 3),
        Err(Errno::EINVAL),
        "no fd"
    );
    assert_eq!(put(&kernel, fd, 9, NOT_OPEN, 3), Err(Errno::EBADF));
    assert_eq!(put(&kernel, fd, 9, fd, 3), Err(Errno::ENOTSOCK));
    assert_eq!(put(&kernel, fd, 9, new, 3), Err(Errno::EOPNOTSUPP));
    assert_eq!(put(&kernel, fd, 9, udp, 3), Err(Errno::EINVAL));
    assert_eq!(put(&kernel, fd, 9, udp, BPF_ANY), Err(Errno::E2BIG));
    assert_eq!(put(&kernel, fd, 0, udp, BPF_EXIST), Err(Errno::ENOENT));
    assert_eq!(put(&kernel, fd, 0, udp, BPF_NOEXIST), Ok(()));
    assert_eq!(put(&kernel, fd, 1, udp, BPF_ANY), Ok(()), "in two places");
    assert_eq!(put(&kernel, fd, 0, udp, BPF_NOEXIST), Err(Errno::EEXIST));
    assert_eq!(delete(&kernel, fd, 2), Err(Errno::EINVAL));
    assert_eq!(delete(&kernel, fd, 0), Ok(()));
}

#[test]
fn a_hash_is_full_last_of_all() {
    let kernel = Kernel::new();
    let fd = map(&kernel, MapType::SOCKHASH, 4, 4, 1, 0);
    let udp = open(&kernel, UDP);
    assert_eq!(put(&kernel, fd, 2, udp, BPF_ANY), Ok(()));
    assert_eq!(put(&kernel, fd, 3, udp, BPF_EXIST), Err(Errno::ENOENT));
    assert_eq!(put(&kernel, fd, 3, udp, BPF_ANY), Err(Errno::E2BIG));
    assert_eq!(delete(&kernel, fd, 3), Err(Errno::ENOENT));
}

#[test]
fn a_closed_socket_leaves_all_maps() {
    let kernel = Kernel::new();
    let hash = map(&kernel, MapType::SOCKHASH, 4, 8, 4, 0);
    let array = map(&kernel, MapType::REUSEPORT_SOCKARRAY, 4, 8, 4, 0);
    let (one, other) = (open(&kernel, UDP), open(&kernel, UDP));
    let put_u64 = |fd: Fd, key: u32, socket: Fd| {
        let value = u64::from(socket).to_ne_bytes();
        calls::bpf_map_update_elem(&kernel, fd, &key.to_ne_bytes(), &value, BPF_ANY)
    };
    assert_eq!(put_u64(hash, 1, one), Ok(()));
    assert_eq!(put_u64(array, 1, other), Ok(()));
    assert_eq!(get(&kernel, hash, 1), Ok(1), "the first that was asked for");
    assert_eq!(get(&kernel, array, 1), Ok(2));
    assert_eq!(get(&kernel, hash, 1), Ok(1));
    kernel.close(one).expect("it is open");
    kernel.close(other).expect("it is open");
    assert!(keys(&kernel, hash).is_empty());
    assert_eq!(get(&kernel, array, 1), Err(Errno::ENOENT));
}

#[test]
fn a_number_past_an_fd_is_einval() {
    let kernel = Kernel::new();
    for map_type in [MapType::SOCKMAP, MapType::REUSEPORT_SOCKARRAY] {
        let fd = map(&kernel, map_type, 4, 8, 3, 0);
        let value = 0x1_ffff_ffff_u64.to_ne_bytes();
        let answer = calls::bpf_map_update_elem(&kernel, fd, &[0; 4], &value, BPF_ANY);
        assert_eq!(answer, Err(Errno::EINVAL));
    }
}

#[test]
fn reuseport_checks_in_the_order_of_the_kernel() {
    let kernel = Kernel::new();
    let fd = map(&kernel, MapType::REUSEPORT_SOCKARRAY, 4, 4, 3, 0);
    let put = |key, socket, flags| put(&kernel, fd, key, socket, flags);
    let one = open(&kernel, UDP);
    let unix = open(&kernel, Socket { unix: true, ..UDP });
    let alone = open(
        &kernel,
        Socket {
            reuseport: false,
            ..UDP
        },
    );
    assert_eq!(put(3, NOT_OPEN, 3), Err(Errno::EINVAL));
    assert_eq!(put(3, NOT_OPEN, BPF_ANY), Err(Errno::E2BIG));
    assert_eq!(put(0, u32::MAX, BPF_ANY), Err(Errno::EBADF));
    assert_eq!(put(0, fd, BPF_ANY), Err(Errno::ENOTSOCK));
    assert_eq!(put(0, unix, BPF_EXIST), Err(Errno::ENOENT));
    assert_eq!(put(0, unix, BPF_ANY), Err(Errno::ENOTSUPP));
    assert_eq!(put(0, alone, BPF_ANY), Err(Errno::EINVAL));
    assert_eq!(put(0, one, BPF_ANY), Ok(()));
    assert_eq!(put(0, one, BPF_NOEXIST), Err(Errno::EEXIST));
    assert_eq!(put(0, one, BPF_EXIST), Err(Errno::EBUSY));
    assert_eq!(delete(&kernel, fd, 3), Err(Errno::E2BIG));
    assert_eq!(delete(&kernel, fd, 1), Err(Errno::ENOENT));
}

#[test]
fn a_socket_is_in_one_reuseport_array_or_in_socket_maps() {
    let kernel = Kernel::new();
    let array = map(&kernel, MapType::REUSEPORT_SOCKARRAY, 4, 4, 3, 0);
    let sockets = map(&kernel, MapType::SOCKMAP, 4, 4, 3, 0);
    let (one, other) = (open(&kernel, UDP), open(&kernel, UDP));
    assert_eq!(put(&kernel, array, 0, one, BPF_ANY), Ok(()));
    assert_eq!(put(&kernel, array, 1, one, BPF_ANY), Err(Errno::EBUSY));
    assert_eq!(put(&kernel, sockets, 9, one, BPF_ANY), Err(Errno::E2BIG));
    assert_eq!(
        put(&kernel, sockets, 0, one, BPF_EXIST),
        Err(Errno::EBUSY),
        "before the look for the key"
    );
    assert_eq!(
        put(&kernel, array, 0, other, BPF_ANY),
        Ok(()),
        "replaces it"
    );
    assert_eq!(put(&kernel, sockets, 0, one, BPF_ANY), Ok(()));
    assert_eq!(put(&kernel, array, 1, one, BPF_ANY), Err(Errno::EBUSY));
    assert_eq!(delete(&kernel, sockets, 0), Ok(()));
    assert_eq!(put(&kernel, array, 1, one, BPF_ANY), Ok(()));
    kernel.close(array).expect("it is open");
    assert_eq!(
        put(&kernel, sockets, 0, one, BPF_ANY),
        Ok(()),
        "the array is gone"
    );
}
