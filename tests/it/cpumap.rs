//! Facts about `BPF_MAP_TYPE_CPUMAP` and `BPF_MAP_TYPE_XSKMAP`.

use mapemu::abi::{Bpf, Errno, Fd, MapType, Result};
use mapemu::calls;
use mapemu::map::object::{OtherKind, Socket};
use mapemu::sys::Kernel;

use crate::common::{BPF_ANY, BPF_EXIST, BPF_NOEXIST, NOT_OPEN, keys, map, on_both};

fn put(bpf: &dyn Bpf, fd: Fd, key: u32, value: &[u32], flags: u64) -> Result<()> {
    let value: Vec<u8> = value.iter().flat_map(|word| word.to_ne_bytes()).collect();
    calls::bpf_map_update_elem(bpf, fd, &key.to_ne_bytes(), &value, flags)
}

fn get(bpf: &dyn Bpf, fd: Fd, key: u32) -> Result<u32> {
    let mut value = [0; 4];
    calls::bpf_map_lookup_elem(bpf, fd, &key.to_ne_bytes(), &mut value)?;
    Ok(u32::from_ne_bytes(value))
}

#[test]
fn cpumap_checks_in_the_order_of_the_kernel() {
    on_both(|bpf| {
        let fd = map(bpf, MapType::CPUMAP, 4, 4, 4, 0);
        assert_eq!(put(bpf, fd, 4, &[8], 3), Err(Errno::EINVAL));
        assert_eq!(put(bpf, fd, 4, &[8], BPF_NOEXIST), Err(Errno::E2BIG));
        assert_eq!(put(bpf, fd, 3, &[16385], BPF_NOEXIST), Err(Errno::EEXIST));
        assert_eq!(put(bpf, fd, 3, &[16385], BPF_ANY), Err(Errno::EOVERFLOW));
        assert_eq!(put(bpf, fd, 3, &[0], BPF_ANY), Err(Errno::ENODEV));
        assert_eq!(put(bpf, fd, 1, &[16384], BPF_EXIST), Ok(()));
        assert_eq!(get(bpf, fd, 1), Ok(16384));
        assert_eq!(
            put(bpf, fd, 1, &[0], BPF_ANY),
            Ok(()),
            "0 empties the place"
        );
        assert_eq!(get(bpf, fd, 1), Err(Errno::ENOENT));
        assert_eq!(keys(bpf, fd), [0, 1, 2, 3]);
    });
}

#[test]
fn cpumap_looks_at_the_program_last() {
    on_both(|bpf| {
        let fd = map(bpf, MapType::CPUMAP, 4, 8, 4, 0);
        assert_eq!(put(bpf, fd, 1, &[0, NOT_OPEN], BPF_ANY), Ok(()));
        assert_eq!(put(bpf, fd, 1, &[1, NOT_OPEN], BPF_ANY), Err(Errno::ENOMEM));
        assert_eq!(put(bpf, fd, 1, &[1, u32::MAX], BPF_ANY), Ok(()), "none");
    });
}

#[test]
fn xskmap_takes_only_xdp_sockets() {
    let kernel = Kernel::new();
    let fd = map(&kernel, MapType::XSKMAP, 4, 4, 3, 0);
    let xdp = || {
        kernel.open(OtherKind::Socket(Socket {
            xdp: true,
            ..Socket::default()
        }))
    };
    let (one, other) = (xdp(), xdp());
    let udp = kernel.open(OtherKind::Socket(Socket::default()));
    let put = |key, socket, flags| put(&kernel, fd, key, &[socket], flags);
    assert_eq!(put(3, udp, 3), Err(Errno::EINVAL));
    assert_eq!(put(3, udp, BPF_ANY), Err(Errno::E2BIG));
    assert_eq!(put(0, NOT_OPEN, BPF_ANY), Err(Errno::EBADF));
    assert_eq!(put(0, fd, BPF_ANY), Err(Errno::ENOTSOCK));
    assert_eq!(put(0, udp, BPF_ANY), Err(Errno::EOPNOTSUPP));
    assert_eq!(put(0, one, BPF_EXIST), Err(Errno::ENOENT));
    assert_eq!(put(0, one, BPF_ANY), Ok(()));
    assert_eq!(put(0, one, BPF_NOEXIST), Ok(()), "the same one again");
    assert_eq!(put(0, other, BPF_NOEXIST), Err(Errno::EEXIST));
    assert_eq!(put(0, other, BPF_EXIST), Ok(()));
    assert_eq!(get(&kernel, fd, 0), Err(Errno::EOPNOTSUPP), "never shown");
}
