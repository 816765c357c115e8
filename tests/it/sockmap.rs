//! Facts about `BPF_MAP_TYPE_SOCKMAP`, `BPF_MAP_TYPE_SOCKHASH` and `BPF_MAP_TYPE_REUSEPORT_SOCKARRAY`.

use mapemu::abi::{Bpf, Errno, Fd, MapType, ProgType, Result, SkAction, UpdateFlags};
use mapemu::calls;
use mapemu::helper::Prog;
use mapemu::map::Target;
use mapemu::map::object::{Object, OtherKind, Socket};
use mapemu::sys::Kernel;

use crate::common::{BPF_ANY, BPF_EXIST, BPF_NOEXIST, NOT_OPEN, keys, map};

const UDP: Socket = Socket {
    xdp: false,
    unix: false,
    other: false,
    stream: false,
    bound: true,
    listening: false,
    connected: false,
    reuseport: true,
    cookie: 0,
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

const fn established(stream: bool, unix: bool) -> Socket {
    Socket {
        stream,
        unix,
        connected: true,
        reuseport: false,
        ..UDP
    }
}

/// What `sk_redirect_map` answers of a socket, without flags and into its queue; then what `msg_redirect_map` does.
const REDIRECTS: [(Socket, [u32; 4]); 6] = [
    (established(true, false), [1, 1, 1, 1]),
    (
        Socket {
            stream: true,
            listening: true,
            reuseport: false,
            ..UDP
        },
        [0, 0, 0, 0],
    ),
    (
        Socket {
            reuseport: false,
            ..UDP
        },
        [0, 0, 0, 0],
    ),
    (established(false, false), [1, 1, 0, 1]),
    (established(true, true), [1, 1, 0, 1]),
    (established(false, true), [1, 1, 0, 1]),
];

#[test]
fn data_goes_to_connected_sockets_and_messages_out_of_tcp_only() {
    let kernel = Kernel::new();
    let fd = map(&kernel, MapType::SOCKMAP, 4, 4, 6, 0);
    let sockets = kernel.map(fd).expect("a map");
    let skb = Prog::new(ProgType::SK_SKB, 0);
    let msg = Prog::new(ProgType::SK_MSG, 0);
    for (key, (socket, answers)) in (0..).zip(REDIRECTS) {
        let socket_fd = open(&kernel, socket);
        assert_eq!(put(&kernel, fd, key, socket_fd, BPF_ANY), Ok(()));
        let given = [
            skb.sk_redirect_map(&sockets, key, 0),
            skb.sk_redirect_map(&sockets, key, 1),
            msg.msg_redirect_map(&sockets, key, 0),
            msg.msg_redirect_map(&sockets, key, 1),
        ];
        assert_eq!(given.map(|action| action.0), answers, "{socket:?}");
        assert_eq!(skb.sk_redirect_map(&sockets, key, 2), SkAction::DROP);
        assert_eq!(msg.msg_redirect_map(&sockets, key, 2), SkAction::DROP);
    }
    for key in [9, 100] {
        assert_eq!(skb.sk_redirect_map(&sockets, key, 1), SkAction::DROP);
    }
}

/// The same on the running kernel, with data that real sockets receive and send.
#[cfg(all(feature = "host", target_os = "linux"))]
mod running {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::{UnixDatagram, UnixStream};
    use std::time::{Duration, Instant};

    use mapemu::abi::{AttachType, Helper};
    use mapemu::host::program::{self, Scratch};
    use mapemu::host::{Asm, Host, Reg, Width, os};

    use super::*;
    use crate::common::running_kernel;

    const STREAM_VERDICT: u32 = 5;
    const MSG_VERDICT: u32 = 7;
    /// Nothing that a helper answers.
    const NOT_RUN: i64 = 99;

    fn put(host: &Host, map: Fd, key: u32, socket: &impl AsRawFd) {
        let fd = os::number(socket);
        calls::bpf_map_update_elem(host, map, &key.to_ne_bytes(), &fd.to_ne_bytes(), 0)
            .expect("a socket for such maps");
    }

    /// The two ends of a connection.
    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let one = TcpStream::connect(address).expect("it listens");
        let (other, _) = listener.accept().expect("a connection");
        (one, other)
    }

    /// What a helper answers, called for a byte that a socket receives (`sk_skb`) or sends (`sk_msg`), and that is dropped.
    fn answer(host: &Host, helper: Helper, map: Fd, key: u32, flags: u64) -> i64 {
        let (prog_type, attach_type) = if helper == Helper::SK_REDIRECT_MAP {
            (ProgType::SK_SKB, STREAM_VERDICT)
        } else {
            (ProgType::SK_MSG, MSG_VERDICT)
        };
        let scratch = Scratch::new(host, 8).expect("memory");
        scratch.write(0, &NOT_RUN.to_ne_bytes());
        let mut asm = Asm::new();
        asm.map(Reg::R2, map)
            .mov64(Reg::R3, u64::from(key))
            .mov64(Reg::R4, flags)
            .call(helper.0)
            .map_value(Reg::R1, scratch.fd(), 0)
            .store(Width::Double, Reg::R1, 0, Reg::R0)
            .mov(Reg::R0, 0)
            .exit();
        let prog = program::load(host, prog_type, AttachType(0), &asm).expect("a program");
        let source = crate::common::map(host, MapType::SOCKMAP, 4, 4, 1, 0);
        let prog = os::number(&prog);
        calls::bpf_prog_attach(host, prog, source, attach_type, 0).expect("it fits");
        let (mut one, mut other) = connection();
        put(host, source, 0, &other);
        if attach_type == MSG_VERDICT {
            // The answer to a message that is dropped.
            assert!(other.write(b"x").is_err());
        } else {
            one.write_all(b"x").expect("it is connected");
        }
        let end = Instant::now() + Duration::from_secs(5);
        while scratch.number(0) == NOT_RUN && Instant::now() < end {
            std::thread::yield_now();
        }
        calls::bpf_prog_detach2(host, prog, source, attach_type).expect("it is attached");
        host.close(source).expect("it is open");
        scratch.number(0)
    }

    #[test]
    fn data_goes_to_connected_sockets_and_messages_out_of_tcp_only() {
        if running_kernel().is_none() {
            return;
        }
        let host = Host::new().expect("it was there just now");
        let map = map(&host, MapType::SOCKMAP, 4, 4, 6, 0);
        let tcp = connection();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let bound = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
        udp.connect(bound.local_addr().expect("it is bound"))
            .expect("it is bound");
        let stream = UnixStream::pair().expect("a pair");
        let datagram = UnixDatagram::pair().expect("a pair");
        put(&host, map, 0, &tcp.0);
        put(&host, map, 1, &listener);
        put(&host, map, 2, &bound);
        put(&host, map, 3, &udp);
        put(&host, map, 4, &stream.0);
        put(&host, map, 5, &datagram.0);
        for (key, (socket, answers)) in (0..).zip(REDIRECTS) {
            let given = [
                answer(&host, Helper::SK_REDIRECT_MAP, map, key, 0),
                answer(&host, Helper::SK_REDIRECT_MAP, map, key, 1),
                answer(&host, Helper::MSG_REDIRECT_MAP, map, key, 0),
                answer(&host, Helper::MSG_REDIRECT_MAP, map, key, 1),
            ];
            assert_eq!(given, answers.map(i64::from), "{socket:?}");
        }
        for helper in [Helper::SK_REDIRECT_MAP, Helper::MSG_REDIRECT_MAP] {
            assert_eq!(answer(&host, helper, map, 0, 2), 0);
            for key in [9, 100] {
                assert_eq!(answer(&host, helper, map, key, 1), 0);
            }
        }
    }
}

#[test]
fn a_hash_of_sockets_redirects_too_and_programs_fill_it() {
    let kernel = Kernel::new();
    let fd = map(&kernel, MapType::SOCKHASH, 4, 4, 2, 0);
    let sockets = kernel.map(fd).expect("a map");
    let socket = |socket| kernel.object(open(&kernel, socket)).expect("it is open");
    let tcp = socket(Socket {
        stream: true,
        connected: true,
        ..Socket::default()
    });
    let Object::Other(object) = &tcp else {
        panic!("{tcp:?} is a socket");
    };
    let ops = Prog::new(ProgType::SOCK_OPS, 0);
    let update = |key: &[u8], socket, flags| {
        let flags = UpdateFlags::from_bits_retain(flags);
        ops.sock_hash_update(&sockets, key, socket, flags)
    };
    let fresh = socket(Socket {
        stream: true,
        ..Socket::default()
    });
    assert_eq!(update(b"aaaa", &fresh, 0), Err(Errno::EOPNOTSUPP));
    assert_eq!(update(b"aaaa", &tcp, 3), Err(Errno::EINVAL));
    assert_eq!(update(b"aaaa", &tcp, BPF_EXIST), Err(Errno::ENOENT));
    assert_eq!(update(b"aaaa", &tcp, BPF_NOEXIST), Ok(()));
    assert_eq!(update(b"bbbb", &tcp, BPF_ANY), Ok(()));
    assert_eq!(update(b"cccc", &tcp, BPF_ANY), Err(Errno::E2BIG));
    let skb = Prog::new(ProgType::SK_SKB, 0);
    assert_eq!(skb.sk_redirect_hash(&sockets, b"cccc", 0), SkAction::DROP);
    assert_eq!(skb.target(), None);
    assert_eq!(skb.sk_redirect_hash(&sockets, b"bbbb", 0), SkAction::PASS);
    assert_eq!(skb.target(), Some(Target::Socket(object.id)));
}

/// What the running kernel answered to a program on real sockets.
#[test]
fn a_socket_that_shares_a_port_is_selected_whatever_the_flags() {
    let kernel = Kernel::new();
    let array = map(&kernel, MapType::REUSEPORT_SOCKARRAY, 4, 4, 3, 0);
    let sockets = map(&kernel, MapType::SOCKMAP, 4, 4, 3, 0);
    let alone = Socket {
        reuseport: false,
        ..UDP
    };
    assert_eq!(put(&kernel, array, 0, open(&kernel, UDP), BPF_ANY), Ok(()));
    assert_eq!(
        put(&kernel, sockets, 0, open(&kernel, UDP), BPF_ANY),
        Ok(())
    );
    assert_eq!(
        put(&kernel, sockets, 1, open(&kernel, alone), BPF_ANY),
        Ok(())
    );
    let prog = Prog::new(ProgType::SK_REUSEPORT, 0);
    let select = |fd, key: u32, flags| {
        let map = kernel.map(fd).expect("a map");
        prog.sk_select_reuseport(&map, &key.to_ne_bytes(), flags)
    };
    assert_eq!(select(array, 0, 0), Ok(()));
    assert_eq!(select(array, 0, 1), Ok(()));
    assert_eq!(select(array, 1, 1), Err(Errno::ENOENT));
    assert_eq!(select(array, 9, 0), Err(Errno::ENOENT));
    assert_eq!(select(sockets, 0, 1), Ok(()));
    assert_eq!(select(sockets, 1, 0), Err(Errno::EINVAL));
    assert_eq!(select(sockets, 2, 0), Err(Errno::ENOENT));
}
