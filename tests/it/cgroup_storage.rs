//! Cgroup storage: elements that are made by attaching programs.

use mapemu::abi::{AttachType, Bpf, Errno, Fd, MapType, ProgType};
use mapemu::calls;
use mapemu::helper::Prog;
use mapemu::map::object::Object;
use mapemu::sys::{Kernel, ProgDef};

use crate::common::{BPF_ANY, BPF_F_LOCK, BPF_NOEXIST, map};

const BPF_EXIST: u64 = 2;
const INGRESS: u32 = 0;
const EGRESS: u32 = 1;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// A kernel with a map, and programs that use it.
struct World {
    kernel: Kernel,
    map: Fd,
}

impl World {
    fn new(map_type: MapType, key_size: u32, value_size: u32) -> Self {
        let kernel = Kernel::new();
        let map = map(&kernel, map_type, key_size, value_size, 0, 0);
        Self { kernel, map }
    }

    /// Values of 8 bytes by cgroup and attach type.
    fn plain() -> Self {
        Self::new(MapType::CGROUP_STORAGE, 16, 8)
    }

    fn cgroup(&self, name: &str) -> (Fd, u64) {
        let fd = self.kernel.cgroup_create(name, None).expect("a new one");
        (fd, self.cgroup_id(fd))
    }

    fn cgroup_id(&self, fd: Fd) -> u64 {
        let object = self.kernel.object(fd);
        let Ok(Object::Cgroup(cgroup)) = object else {
            panic!("fd {fd} is {object:?}");
        };
        cgroup.id
    }

    fn prog(&self) -> Fd {
        let storages = [self.map];
        let def = ProgDef {
            name: "",
            prog_type: ProgType::CGROUP_SKB,
            expected_attach_type: AttachType(0),
            maps: &[],
            storages: &storages,
        };
        self.kernel.prog_load(def).expect("a program")
    }

    fn attach(&self, cgroup: Fd, attach_type: u32) -> Fd {
        let prog = self.prog();
        let flags = BPF_F_ALLOW_MULTI;
        calls::bpf_prog_attach(&self.kernel, prog, cgroup, attach_type, flags).expect("attached");
        prog
    }

    fn get(&self, key: &[u8]) -> Result<u64, Errno> {
        let mut value = [0; 8];
        calls::bpf_map_lookup_elem(&self.kernel, self.map, key, &mut value)?;
        Ok(u64::from_ne_bytes(value))
    }

    fn set(&self, key: &[u8], value: u64, flags: u64) -> Result<(), Errno> {
        let value = value.to_ne_bytes();
        calls::bpf_map_update_elem(&self.kernel, self.map, key, &value, flags)
    }

    fn next(&self, key: Option<&[u8]>) -> Result<[u8; 16], Errno> {
        let mut next = [0xff; 16];
        calls::bpf_map_get_next_key(&self.kernel, self.map, key, &mut next).map(|()| next)
    }

    /// A run of the first program that an event in the cgroup runs.
    fn run(&self, cgroup: Fd, attach_type: u32, cpu: u32) -> Prog {
        let attached = self.kernel.attached(cgroup, AttachType(attach_type));
        let attached = attached.expect("a cgroup");
        Prog::attached(&attached[0].storages, ProgType::CGROUP_SKB, cpu)
    }
}

fn key(cgroup_id: u64, attach_type: u32) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&cgroup_id.to_ne_bytes());
    key[8..12].copy_from_slice(&attach_type.to_ne_bytes());
    key
}

#[test]
fn attaching_makes_the_element_and_detaching_leaves_it() {
    let world = World::plain();
    let (cgroup, id) = world.cgroup("c");
    let key = key(id, EGRESS);
    let prog = world.prog();
    assert_eq!(world.get(&key), Err(Errno::ENOENT), "loaded only");
    assert_eq!(world.next(None), Err(Errno::ENOENT));
    let attach = || calls::bpf_prog_attach(&world.kernel, prog, cgroup, EGRESS, 0);
    assert_eq!(attach(), Ok(()));
    assert_eq!(world.get(&key), Ok(0));
    assert_eq!(world.set(&key, 5, BPF_ANY), Ok(()));
    let detached = calls::bpf_prog_detach2(&world.kernel, prog, cgroup, EGRESS);
    assert_eq!(detached, Ok(()));
    assert_eq!(world.get(&key), Ok(5));
    assert_eq!(attach(), Ok(()));
    assert_eq!(world.get(&key), Ok(5), "used as it is");
}

#[test]
fn padding_of_a_key_is_ignored_and_comes_out_as_zero() {
    let world = World::plain();
    let (cgroup, id) = world.cgroup("c");
    world.attach(cgroup, EGRESS);
    let mut padded = key(id, EGRESS);
    padded[12..].fill(9);
    assert_eq!(world.get(&padded), Ok(0));
    assert_eq!(world.next(None), Ok(key(id, EGRESS)));
    assert_eq!(world.get(&key(id, INGRESS)), Err(Errno::ENOENT));
}

#[test]
fn keys_of_8_bytes_share_an_element_among_attach_types() {
    let world = World::new(MapType::CGROUP_STORAGE, 8, 8);
    let (cgroup, id) = world.cgroup("c");
    world.attach(cgroup, INGRESS);
    world.attach(cgroup, EGRESS);
    let key = id.to_ne_bytes();
    assert_eq!(world.set(&key, 4, BPF_EXIST), Ok(()));
    let map = world.kernel.map(world.map).expect("a map");
    for attach_type in [INGRESS, EGRESS] {
        let run = world.run(cgroup, attach_type, 0);
        assert_eq!(run.get_local_storage(&map).load_u64(0), 4);
    }
    let mut next = [0; 8];
    let after = calls::bpf_map_get_next_key(&world.kernel, world.map, Some(&key), &mut next);
    assert_eq!(after, Err(Errno::ENOENT), "there is one");
}

#[test]
fn updates_judge_flags_first_and_make_nothing() {
    let world = World::plain();
    let (cgroup, id) = world.cgroup("c");
    world.attach(cgroup, INGRESS);
    let (there, absent) = (key(id, INGRESS), key(id, EGRESS));
    for key in [there, absent] {
        for flags in [BPF_NOEXIST, 3, BPF_F_LOCK, 8] {
            assert_eq!(world.set(&key, 1, flags), Err(Errno::EINVAL), "{flags}");
        }
    }
    assert_eq!(world.set(&absent, 1, BPF_ANY), Err(Errno::ENOENT));
    assert_eq!(world.set(&there, 1, BPF_EXIST), Ok(()));
    let deleted = calls::bpf_map_delete_elem(&world.kernel, world.map, &there);
    assert_eq!(deleted, Err(Errno::EINVAL));
    assert_eq!(world.get(&there), Ok(1));
}

#[test]
fn the_newest_element_comes_first() {
    let world = World::plain();
    let (a, a_id) = world.cgroup("a");
    let (b, b_id) = world.cgroup("b");
    world.attach(b, EGRESS);
    world.attach(a, INGRESS);
    world.attach(b, INGRESS);
    let keys = [key(b_id, INGRESS), key(a_id, INGRESS), key(b_id, EGRESS)];
    assert_eq!(world.next(None), Ok(keys[0]));
    assert_eq!(world.next(Some(&keys[0])), Ok(keys[1]));
    assert_eq!(world.next(Some(&keys[1])), Ok(keys[2]));
    assert_eq!(world.next(Some(&keys[2])), Err(Errno::ENOENT));
    let unknown = world.next(Some(&key(a_id, EGRESS)));
    assert_eq!(unknown, Err(Errno::ENOENT), "not from the start");
    let attached = world.kernel.attached(a, AttachType(INGRESS));
    assert_eq!(attached.expect("a cgroup").len(), 1);
}

#[test]
fn a_removed_cgroup_takes_its_elements_with_it() {
    let world = World::plain();
    let (a, a_id) = world.cgroup("a");
    let (b, b_id) = world.cgroup("b");
    world.attach(a, INGRESS);
    world.attach(b, INGRESS);
    world.attach(a, EGRESS);
    assert_eq!(world.kernel.cgroup_remove(a), Ok(()));
    assert_eq!(world.get(&key(a_id, INGRESS)), Err(Errno::ENOENT));
    assert_eq!(world.next(None), Ok(key(b_id, INGRESS)));
    assert_eq!(world.next(Some(&key(b_id, INGRESS))), Err(Errno::ENOENT));
    let (again, again_id) = world.cgroup("a");
    assert_ne!(again_id, a_id, "another inode");
    world.attach(again, INGRESS);
    assert_eq!(world.get(&key(again_id, INGRESS)), Ok(0));
}

#[test]
fn a_pointer_from_before_an_update_shows_the_old_bytes() {
    let world = World::plain();
    let (cgroup, id) = world.cgroup("c");
    world.attach(cgroup, EGRESS);
    let map = world.kernel.map(world.map).expect("a map");
    let run = world.run(cgroup, EGRESS, 0);
    let value = run.get_local_storage(&map);
    value.store_u64(0, 3);
    assert_eq!(world.get(&key(id, EGRESS)), Ok(3), "written in place");
    assert_eq!(world.set(&key(id, EGRESS), 4, BPF_ANY), Ok(()));
    assert_eq!(value.load_u64(0), 3, "an update brings a new buffer");
    value.store_u64(0, 9);
    assert_eq!(world.get(&key(id, EGRESS)), Ok(4));
    assert_eq!(
        world
            .run(cgroup, EGRESS, 0)
            .get_local_storage(&map)
            .load_u64(0),
        4
    );
}

#[test]
fn the_percpu_kind_has_a_part_for_each_cpu() {
    let world = World::new(MapType::PERCPU_CGROUP_STORAGE, 16, 5);
    let (cgroup, id) = world.cgroup("c");
    world.attach(cgroup, EGRESS);
    let key = key(id, EGRESS);
    let map = world.kernel.map(world.map).expect("a map");
    let run = world.run(cgroup, EGRESS, 1);
    let value = run.get_local_storage(&map);
    let set = |flags| calls::bpf_map_update_elem(&world.kernel, world.map, &key, &[7; 16], flags);
    assert_eq!(set(BPF_ANY), Ok(()));
    assert_eq!(value.to_vec(), [7; 5], "updates are in place");
    value.store_u8(4, 1);
    let mut told = [0; 16];
    let found = calls::bpf_map_lookup_elem(&world.kernel, world.map, &key, &mut told);
    let mut expected = [7; 16];
    expected[12] = 1;
    assert_eq!(
        (found, told),
        (Ok(()), expected),
        "what fills it up is kept"
    );
    assert_eq!(set(BPF_NOEXIST), Err(Errno::EINVAL));
    assert_eq!(set(BPF_F_LOCK), Err(Errno::EINVAL));
}

#[test]
fn an_element_that_a_program_runs_with_outlives_its_cgroup() {
    let world = World::plain();
    let (cgroup, _) = world.cgroup("c");
    world.attach(cgroup, EGRESS);
    let map = world.kernel.map(world.map).expect("a map");
    let run = world.run(cgroup, EGRESS, 0);
    let value = run.get_local_storage(&map);
    assert_eq!(world.kernel.cgroup_remove(cgroup), Ok(()));
    value.store_u64(0, 6);
    assert_eq!(run.get_local_storage(&map).load_u64(0), 6);
    assert_eq!(world.next(None), Err(Errno::ENOENT));
    world.kernel.close(cgroup).expect("it is open");
}
