//! Facts about `BPF_MAP_TYPE_CPUMAP` and `BPF_MAP_TYPE_XSKMAP`.

use mapemu::abi::{AttachType, Bpf, Errno, Fd, MapType, ProgType, Result, XdpAction};
use mapemu::calls;
use mapemu::helper::Prog;
use mapemu::map::Target;
use mapemu::map::object::{Object, OtherKind, Socket};
use mapemu::sys::Kernel;

use crate::common::{BPF_ANY, BPF_EXIST, BPF_NOEXIST, NOT_OPEN, keys, map, on_both};
use crate::playing::on_both_sides;

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

#[test]
fn a_packet_goes_where_the_key_leads_else_the_flags_say() {
    on_both_sides(|side| {
        let cpus = map(side.bpf(), MapType::CPUMAP, 4, 4, 4, 0);
        assert_eq!(put(side.bpf(), cpus, 1, &[192], BPF_ANY), Ok(()));
        let sockets = map(side.bpf(), MapType::XSKMAP, 4, 4, 4, 0);
        for action in 0..4 {
            let if_not = u32::try_from(action).expect("small");
            assert_eq!(side.redirect_map(cpus, 1, action).0, 4);
            for fd in [cpus, sockets] {
                assert_eq!(side.redirect_map(fd, 0, action).0, if_not);
                assert_eq!(side.redirect_map(fd, 9, action).0, if_not);
                for flags in [4, 8, 0x10, 0x20, 1 << 32] {
                    let refused = side.redirect_map(fd, 1, flags | action);
                    assert_eq!(refused, XdpAction::ABORTED, "{flags:#x}: for interfaces");
                }
            }
        }
    });
}

#[test]
fn a_program_can_be_told_where_a_packet_goes() {
    let kernel = Kernel::new();
    let cpus = map(&kernel, MapType::CPUMAP, 4, 4, 4, 0);
    assert_eq!(put(&kernel, cpus, 1, &[192], BPF_ANY), Ok(()));
    let sockets = map(&kernel, MapType::XSKMAP, 4, 4, 4, 0);
    let socket = kernel.open(OtherKind::Socket(Socket {
        xdp: true,
        bound: true,
        ..Socket::default()
    }));
    assert_eq!(put(&kernel, sockets, 3, &[socket], BPF_ANY), Ok(()));
    let Ok(Object::Other(object)) = kernel.object(socket) else {
        panic!("fd {socket} is a socket");
    };
    let prog = Prog::new(ProgType::XDP, 0);
    let redirect = |fd, key| prog.redirect_map(&kernel.map(fd).expect("a map"), key, 0);
    assert_eq!(redirect(cpus, 1), XdpAction::REDIRECT);
    assert_eq!(prog.target(), Some(Target::Cpu(1)));
    assert_eq!(redirect(sockets, 3), XdpAction::REDIRECT);
    assert_eq!(prog.target(), Some(Target::Socket(object.id)));
}

#[test]
fn it_belongs_to_the_kind_of_programs_that_used_it_first() {
    on_both_sides(|side| {
        let load = |prog_type, attach_type, maps: &[Fd]| side.load(prog_type, attach_type, maps);
        let prog = load(ProgType::XDP, AttachType::XDP_CPUMAP, &[]).expect("a program");
        let other = load(ProgType::XDP, AttachType(0), &[]).expect("a program");
        let by_elem = map(side.bpf(), MapType::CPUMAP, 4, 8, 2, 0);
        let with = |fd, prog| put(side.bpf(), fd, 1, &[192, prog], BPF_ANY);
        assert_eq!(with(by_elem, other), Err(Errno::ENOMEM));
        assert_eq!(side.owner(by_elem), None);
        assert_eq!(with(by_elem, prog), Ok(()));
        assert_eq!(side.owner(by_elem), Some(6));
        let use_of = |fd, prog_type| load(prog_type, AttachType(0), &[fd]).map(|_| ());
        assert_eq!(use_of(by_elem, ProgType::XDP), Ok(()));
        assert_eq!(use_of(by_elem, ProgType::SCHED_CLS), Err(Errno::EINVAL));
        let by_use = map(side.bpf(), MapType::CPUMAP, 4, 8, 2, 0);
        assert_eq!(use_of(by_use, ProgType::SCHED_CLS), Ok(()));
        assert_eq!(side.owner(by_use), Some(3));
        assert_eq!(with(by_use, prog), Err(Errno::ENOMEM));
        assert_eq!(with(by_use, 0), Ok(()));
    });
}
