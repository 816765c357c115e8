//! Facts about `BPF_MAP_TYPE_DEVMAP` and `BPF_MAP_TYPE_DEVMAP_HASH`.

use mapemu::abi::{AttachType, Bpf, Errno, Fd, MapType, ProgType, Result, XdpAction};
use mapemu::calls;
use mapemu::helper::Prog;
use mapemu::map::Target;
use mapemu::sys::Kernel;

use crate::common::{BPF_ANY, BPF_EXIST, BPF_NOEXIST, keys, map, on_both};
use crate::playing::{Side, on_both_sides};

/// The interface `lo`.
const LO: u32 = 1;
const NO_SUCH: u32 = 9999;

fn put(bpf: &dyn Bpf, fd: Fd, key: u32, ifindex: u32, flags: u64) -> Result<()> {
    calls::bpf_map_update_elem(bpf, fd, &key.to_ne_bytes(), &ifindex.to_ne_bytes(), flags)
}

fn get(bpf: &dyn Bpf, fd: Fd, key: u32) -> Result<u32> {
    let mut value = [0; 4];
    calls::bpf_map_lookup_elem(bpf, fd, &key.to_ne_bytes(), &mut value)?;
    Ok(u32::from_ne_bytes(value))
}

fn delete(bpf: &dyn Bpf, fd: Fd, key: u32) -> Result<()> {
    calls::bpf_map_delete_elem(bpf, fd, &key.to_ne_bytes())
}

#[test]
fn array_has_all_places_and_an_interface_in_some() {
    on_both(|bpf| {
        let fd = map(bpf, MapType::DEVMAP, 4, 4, 4, 0);
        assert_eq!(get(bpf, fd, 1), Err(Errno::ENOENT));
        assert_eq!(put(bpf, fd, 1, LO, BPF_EXIST), Ok(()));
        assert_eq!(get(bpf, fd, 1), Ok(LO));
        assert_eq!(put(bpf, fd, 2, LO, BPF_NOEXIST), Err(Errno::EEXIST));
        assert_eq!(put(bpf, fd, 4, LO, BPF_ANY), Err(Errno::E2BIG));
        assert_eq!(put(bpf, fd, 4, LO, 3), Err(Errno::EINVAL), "flags first");
        assert_eq!(put(bpf, fd, 1, NO_SUCH, BPF_ANY), Err(Errno::EINVAL));
        assert_eq!(put(bpf, fd, 1, 0, BPF_ANY), Ok(()), "0 empties the place");
        assert_eq!(get(bpf, fd, 1), Err(Errno::ENOENT));
        assert_eq!(delete(bpf, fd, 1), Ok(()), "of an empty place");
        assert_eq!(delete(bpf, fd, 4), Err(Errno::EINVAL));
        assert_eq!(keys(bpf, fd), [0, 1, 2, 3], "whatever is there");
    });
}

#[test]
fn hash_makes_keys_even_with_exist() {
    on_both(|bpf| {
        let fd = map(bpf, MapType::DEVMAP_HASH, 4, 4, 2, 0);
        assert_eq!(put(bpf, fd, 7, 0, BPF_ANY), Err(Errno::EINVAL));
        assert_eq!(put(bpf, fd, 7, LO, BPF_EXIST), Ok(()));
        assert_eq!(put(bpf, fd, 7, NO_SUCH, BPF_NOEXIST), Err(Errno::EEXIST));
        assert_eq!(put(bpf, fd, 8, LO, BPF_NOEXIST), Ok(()));
        assert_eq!(put(bpf, fd, 9, NO_SUCH, BPF_ANY), Err(Errno::EINVAL));
        assert_eq!(
            put(bpf, fd, 9, LO, BPF_ANY),
            Err(Errno::E2BIG),
            "last of all"
        );
        assert_eq!(put(bpf, fd, 8, LO, BPF_ANY), Ok(()));
        assert_eq!(delete(bpf, fd, 9), Err(Errno::ENOENT));
    });
}

#[test]
fn hash_walks_by_low_bits_of_the_key_newest_first() {
    on_both(|bpf| {
        let fd = map(bpf, MapType::DEVMAP_HASH, 4, 4, 8, 0);
        for key in [0, 8, 1, 16] {
            assert_eq!(put(bpf, fd, key, LO, BPF_ANY), Ok(()));
        }
        assert_eq!(keys(bpf, fd), [16, 8, 0, 1]);
        assert_eq!(put(bpf, fd, 0, LO, BPF_ANY), Ok(()));
        assert_eq!(keys(bpf, fd), [0, 16, 8, 1], "replaced is new");
    });
}

#[test]
fn info_shows_that_programs_only_read() {
    on_both(|bpf| {
        let fd = map(bpf, MapType::DEVMAP, 4, 4, 4, 0);
        let info = calls::bpf_map_get_info_by_fd(bpf, fd).expect("it is a map");
        assert_eq!(info.map_flags.bits(), 0x80);
    });
}

#[test]
fn elements_go_with_their_interface() {
    let kernel = Kernel::new();
    kernel.add_interface(5);
    for map_type in [MapType::DEVMAP, MapType::DEVMAP_HASH] {
        let fd = map(&kernel, map_type, 4, 4, 4, 0);
        assert_eq!(put(&kernel, fd, 1, 5, BPF_ANY), Ok(()));
        assert_eq!(put(&kernel, fd, 2, LO, BPF_ANY), Ok(()));
        kernel.remove_interface(5);
        assert_eq!(get(&kernel, fd, 1), Err(Errno::ENOENT));
        assert_eq!(get(&kernel, fd, 2), Ok(LO));
        kernel.add_interface(5);
    }
}

#[test]
fn a_packet_goes_where_the_key_leads_else_the_flags_say() {
    on_both_sides(|side| {
        for map_type in [MapType::DEVMAP, MapType::DEVMAP_HASH] {
            let fd = map(side.bpf(), map_type, 4, 4, 4, 0);
            assert_eq!(put(side.bpf(), fd, 1, LO, BPF_ANY), Ok(()));
            let redirect = |key, flags| side.redirect_map(fd, key, flags).0;
            for action in 0..4 {
                assert_eq!(redirect(1, action), 4);
                for key in [0, 9] {
                    assert_eq!(redirect(key, action), u32::try_from(action).expect("small"));
                    assert_eq!(redirect(key, action | 0x10), redirect(key, action));
                    assert_eq!(redirect(key, action | 8), 4, "to all there are");
                    assert_eq!(redirect(key, action | 0x18), 4);
                }
            }
            for flags in [4, 0x20, 1 << 32, 1 << 32 | 2] {
                assert_eq!(redirect(1, flags), 0, "{flags:#x}");
            }
        }
    });
}

#[test]
fn a_program_can_be_told_where_a_packet_goes() {
    let kernel = Kernel::new();
    kernel.add_interface(5);
    let fd = map(&kernel, MapType::DEVMAP_HASH, 4, 4, 4, 0);
    assert_eq!(put(&kernel, fd, 70, 5, BPF_ANY), Ok(()));
    let map = kernel.map(fd).expect("a map");
    let prog = Prog::new(ProgType::XDP, 0);
    assert_eq!(prog.target(), None);
    assert_eq!(prog.redirect_map(&map, 70, 0), XdpAction::REDIRECT);
    assert_eq!(prog.target(), Some(Target::Interface(5)));
    assert_eq!(prog.redirect_map(&map, 70, 8 | 16), XdpAction::REDIRECT);
    let all = Target::Interfaces {
        map_id: map.id,
        exclude_ingress: true,
    };
    assert_eq!(prog.target(), Some(all));
    assert_eq!(prog.redirect_map(&map, 71, 2), XdpAction::PASS);
    assert_eq!(prog.target(), None);
}

/// A program that belongs into such maps.
fn xdp(side: &dyn Side, attach_type: AttachType) -> Fd {
    side.load(ProgType::XDP, attach_type, &[])
        .expect("a program")
}

fn put_prog(side: &dyn Side, fd: Fd, prog: Fd) -> Result<()> {
    let value = [LO.to_ne_bytes(), prog.to_ne_bytes()].concat();
    calls::bpf_map_update_elem(side.bpf(), fd, &1_u32.to_ne_bytes(), &value, BPF_ANY)
}

#[test]
fn it_belongs_to_the_kind_of_programs_that_used_it_first() {
    on_both_sides(|side| {
        let use_of = |fd, prog_type| {
            let prog = side.load(prog_type, AttachType(0), &[fd]);
            prog.map(|_| ())
        };
        let misfit = Err(Errno::EINVAL);
        let by_use = map(side.bpf(), MapType::DEVMAP, 4, 8, 2, 0);
        assert_eq!(side.owner(by_use), None);
        assert_eq!(use_of(by_use, ProgType::SCHED_CLS), Ok(()));
        assert_eq!(side.owner(by_use), Some(3));
        assert_eq!(use_of(by_use, ProgType::XDP), misfit);
        let prog = xdp(side, AttachType::XDP_DEVMAP);
        assert_eq!(put_prog(side, by_use, prog), misfit);
        assert_eq!(put_prog(side, by_use, 0), Ok(()), "without a program");

        let by_elem = map(side.bpf(), MapType::DEVMAP, 4, 8, 2, 0);
        assert_eq!(put_prog(side, by_elem, xdp(side, AttachType(0))), misfit);
        assert_eq!(side.owner(by_elem), None);
        assert_eq!(put_prog(side, by_elem, prog), Ok(()));
        assert_eq!(side.owner(by_elem), Some(6));
        assert_eq!(delete(side.bpf(), by_elem, 1), Ok(()));
        assert_eq!(use_of(by_elem, ProgType::SCHED_CLS), misfit, "for good");
        assert_eq!(use_of(by_elem, ProgType::XDP), Ok(()), "attached elsewhere");

        let hash = map(side.bpf(), MapType::DEVMAP_HASH, 4, 8, 2, 0);
        assert_eq!(use_of(hash, ProgType::SCHED_CLS), Ok(()));
        assert_eq!(side.owner(hash), None, "uses do not count");
        assert_eq!(put_prog(side, hash, prog), Ok(()));
        assert_eq!(side.owner(hash), Some(6));
        assert_eq!(use_of(hash, ProgType::SCHED_CLS), Ok(()));
    });
}
