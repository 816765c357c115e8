//! Objects that programs allocate, and kptrs to them: who has a reference, and when the last one goes.
//!
//! What is said of a kernel that no system call shows was observed on Linux 6.18.44, with C programs of the same layouts run
//! by `BPF_PROG_TEST_RUN`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use mapemu::abi::{Bpf, Errno, Fd, MapType, ProgType, UpdateFlags};
use mapemu::btf::Writer;
use mapemu::calls::{self, CreateOpts};
use mapemu::helper::{Obj, Prog};
use mapemu::map::object::OtherKind;
use mapemu::map::{Map, Value};
use mapemu::sys::Kernel;

use crate::common::on_both;

/// Types of one BTF blob, by their ids.
#[derive(Clone, Debug)]
pub(crate) struct Types {
    pub(crate) blob: Vec<u8>,
    pub(crate) u32_id: u32,
    /// `{u64; u64}`
    pub(crate) pair: u32,
    /// See [`node`].
    pub(crate) node: u32,
    /// `{bpf_spin_lock; u32; bpf_list_head of single; kptr to pair}`
    pub(crate) owner: u32,
    /// `{u64; bpf_list_node}`
    pub(crate) single: u32,
    /// See [`stash`]; with and without a lock.
    pub(crate) stash: u32,
    pub(crate) locked_stash: u32,
    /// See [`collection`].
    pub(crate) collection: u32,
}

/// Offsets in `{u64 key; bpf_list_node; bpf_list_node; bpf_rb_node; bpf_refcount; u32 x}`.
pub(crate) mod node {
    pub(crate) const KEY: usize = 0;
    pub(crate) const LIST_NODE: usize = 8;
    pub(crate) const REFCOUNT: usize = 88;
    pub(crate) const X: usize = 92;
}

/// Offsets in `{bpf_spin_lock; u32; bpf_list_head of single; kptr to pair}`.
mod owner {
    pub(super) const LIST: usize = 8;
    pub(super) const PAIR: usize = 24;
}

/// Offsets in `{bpf_spin_lock or u32; u32; u64; kptr to node; kptr to pair; percpu_kptr to pair; kptr to owner}`.
pub(crate) mod stash {
    pub(crate) const SIZE: u32 = 48;
    pub(crate) const PLAIN: usize = 8;
    pub(crate) const NODE: usize = 16;
    pub(crate) const PAIR: usize = 24;
    pub(crate) const PERCPU_PAIR: usize = 32;
    pub(crate) const OWNER: usize = 40;
}

/// Offsets in `{bpf_spin_lock; u32; u64; bpf_list_head; bpf_rb_root; bpf_list_head}`, of nodes: the first list by their
/// first node, the second one by their second.
pub(crate) mod collection {
    pub(crate) const SIZE: u32 = 64;
    pub(crate) const LIST: usize = 16;
    pub(crate) const TREE: usize = 32;
    pub(crate) const OTHER_LIST: usize = 48;
}

pub(crate) fn types() -> Types {
    let mut btf = Writer::new();
    let u32_id = btf.int("u32", 4);
    let u64_id = btf.int("u64", 8);
    let lock = btf.structure("bpf_spin_lock", 4, &[("val", u32_id, 0)]);
    let count = btf.structure("bpf_refcount", 4, &[("val", u32_id, 0)]);
    let mut of_words = |name, size| {
        let member = |at: u32| (["a", "b", "c", "d"][at as usize / 8], u64_id, at);
        let members: Vec<_> = (0..size).step_by(8).map(member).collect();
        btf.structure(name, size, &members)
    };
    let list = of_words("bpf_list_head", 16);
    let list_node = of_words("bpf_list_node", 24);
    let tree = of_words("bpf_rb_root", 16);
    let tree_node = of_words("bpf_rb_node", 32);
    let pair = of_words("of_the_program_pair", 16);
    let members = [
        ("key", u64_id, 0),
        ("l", list_node, 8),
        ("l2", list_node, 32),
        ("r", tree_node, 56),
        ("count", count, 88),
        ("x", u32_id, 92),
    ];
    let node = btf.structure("of_the_program_node", 96, &members);
    let members = [("key", u64_id, 0), ("l", list_node, 8)];
    let single = btf.structure("of_the_program_single", 32, &members);
    let pair_kptr = btf.tagged_pointer("kptr", pair);
    let members = [
        ("lock", lock, 0),
        ("x", u32_id, 4),
        ("h", list, 8),
        ("p", pair_kptr, 24),
    ];
    let owner = btf.structure("of_the_program_owner", 32, &members);
    btf.member_tag("contains:of_the_program_single:l", owner, 2);
    let mut members = [
        ("lock", u32_id, 0),
        ("pad", u32_id, 4),
        ("plain", u64_id, 8),
        ("node", btf.tagged_pointer("kptr", node), 16),
        ("pair", pair_kptr, 24),
        ("percpu", btf.tagged_pointer("percpu_kptr", pair), 32),
        ("owner", btf.tagged_pointer("kptr", owner), 40),
    ];
    let stash = btf.structure("stash", stash::SIZE, &members);
    members[0].1 = lock;
    let locked_stash = btf.structure("locked_stash", stash::SIZE, &members);
    let members = [
        ("lock", lock, 0),
        ("pad", u32_id, 4),
        ("plain", u64_id, 8),
        ("h", list, 16),
        ("t", tree, 32),
        ("h2", list, 48),
    ];
    let collection = btf.structure("collection", collection::SIZE, &members);
    btf.member_tag("contains:of_the_program_node:l", collection, 3);
    btf.member_tag("contains:of_the_program_node:r", collection, 4);
    btf.member_tag("contains:of_the_program_node:l2", collection, 5);
    Types {
        blob: btf.finish(),
        u32_id,
        pair,
        node,
        owner,
        single,
        stash,
        locked_stash,
        collection,
    }
}

/// Maps of one BTF.
pub(crate) struct World {
    pub(crate) kernel: Kernel,
    pub(crate) types: Types,
    btf_fd: Fd,
}

impl World {
    pub(crate) fn new() -> Self {
        let kernel = Kernel::builder().cpus(2).build();
        let types = types();
        let btf_fd = calls::bpf_btf_load(&kernel, &types.blob).expect("BTF");
        Self {
            kernel,
            types,
            btf_fd,
        }
    }

    pub(crate) fn map(
        &self,
        map_type: MapType,
        value_id: u32,
        size: u32,
        flags: u32,
    ) -> (Fd, Arc<Map>) {
        let is_storage = map_type == MapType::TASK_STORAGE;
        let max_entries = if is_storage { 0 } else { 8 };
        let fd = create(
            &self.kernel,
            self.btf_fd,
            &self.types,
            map_type,
            (value_id, size),
            max_entries,
            flags,
        );
        (fd, self.kernel.map(fd).expect("a map"))
    }

    pub(crate) fn stashes(&self, map_type: MapType, flags: u32) -> (Fd, Arc<Map>) {
        self.map(map_type, self.types.stash, stash::SIZE, flags)
    }

    /// Objects that are not released.
    #[track_caller]
    pub(crate) fn objects(&self) -> u64 {
        self.kernel.env().allocated_objects()
    }
}

fn create(
    bpf: &dyn Bpf,
    btf_fd: Fd,
    types: &Types,
    map_type: MapType,
    (value_id, size): (u32, u32),
    max_entries: u32,
    map_flags: u32,
) -> Fd {
    let opts = CreateOpts {
        btf_fd,
        btf_key_type_id: types.u32_id,
        btf_value_type_id: value_id,
        map_flags,
        ..CreateOpts::default()
    };
    calls::bpf_map_create(bpf, map_type, "", 4, size, max_entries, &opts).expect("a map")
}

/// The maps with kptrs, by type and flags.
const WITH_KPTRS: [(MapType, u32); 7] = [
    (MapType::HASH, 0),
    (MapType::HASH, 1),
    (MapType::ARRAY, 0),
    (MapType::LRU_HASH, 0),
    (MapType::PERCPU_HASH, 0),
    (MapType::LRU_PERCPU_HASH, 0),
    (MapType::PERCPU_ARRAY, 0),
];

fn is_array(map_type: MapType) -> bool {
    matches!(map_type, MapType::ARRAY | MapType::PERCPU_ARRAY)
}

const VALUE: [u8; stash::SIZE as usize] = [0xff; stash::SIZE as usize];

#[track_caller]
fn put(prog: &Prog, map: &Map, key: u32) {
    prog.map_update_elem(map, &key.to_ne_bytes(), &VALUE, UpdateFlags::ANY)
        .expect("update");
}

#[track_caller]
pub(crate) fn get<'m>(prog: &Prog, map: &'m Map, key: u32) -> Value<'m> {
    prog.map_lookup_elem(map, &key.to_ne_bytes())
        .expect("there")
}

fn user_put(world: &World, fd: Fd, map: &Map, key: u32, flags: u64) {
    let value = vec![0xff; map.def.user_value_size(2)];
    calls::bpf_map_update_elem(&world.kernel, fd, &key.to_ne_bytes(), &value, flags)
        .expect("update");
}

/// An object of two numbers, the first one `a`.
#[track_caller]
fn pair(prog: &Prog, map: &Map, types: &Types, a: u64) -> Obj {
    let object = prog.obj_new(map, types.pair).expect("memory");
    object.value().store_u64(0, a);
    object
}

/// Puts an object into the kptr of an element; was there one?
#[track_caller]
fn fill(prog: &Prog, map: &Map, types: &Types, value: &Value<'_>) -> bool {
    let object = pair(prog, map, types, 5);
    match prog.kptr_xchg(value, stash::PAIR, Some(object)) {
        Some(old) => {
            prog.obj_drop(old);
            true
        }
        None => false,
    }
}

/// Takes the object out of the kptr of an element; was there one?
#[track_caller]
fn empty(prog: &Prog, value: &Value<'_>) -> bool {
    let object = prog.kptr_xchg(value, stash::PAIR, None);
    object.map(|object| prog.obj_drop(object)).is_some()
}

#[track_caller]
pub(crate) fn refuses(rule: &str, program: impl FnOnce()) {
    let refused = catch_unwind(AssertUnwindSafe(program)).expect_err("it is refused");
    let said = match refused.downcast_ref::<&str>() {
        Some(said) => said,
        None => refused.downcast_ref::<String>().expect("a text").as_str(),
    };
    assert!(said.contains(rule), "{said}");
}

#[test]
fn fields_show_as_zeros_and_stop_freezing() {
    on_both(|bpf| {
        let types = types();
        let btf_fd = calls::bpf_btf_load(bpf, &types.blob).expect("BTF");
        for (value_id, size) in [
            (types.stash, stash::SIZE),
            (types.locked_stash, stash::SIZE),
            (types.collection, collection::SIZE),
        ] {
            let fd = create(bpf, btf_fd, &types, MapType::HASH, (value_id, size), 8, 0);
            let key = 1_u32.to_ne_bytes();
            let given = vec![0xff; size as usize];
            calls::bpf_map_update_elem(bpf, fd, &key, &given, 0).expect("update");
            let mut seen = vec![1; size as usize];
            calls::bpf_map_lookup_elem(bpf, fd, &key, &mut seen).expect("there");
            assert_eq!(seen[stash::PLAIN..16], [0xff; 8]);
            if value_id == types.collection {
                // A list head shows as an empty one: twice its own address, in a buffer of the kernel. Here that is 0.
                for list in [collection::LIST, collection::OTHER_LIST] {
                    let (one, two) = seen[list..list + 16].split_at_mut(8);
                    assert_eq!(one, two);
                    one.fill(0);
                    two.fill(0);
                }
            }
            assert_eq!(seen[16..], vec![0; size as usize - 16]);
            assert_eq!(calls::bpf_map_freeze(bpf, fd), Err(Errno::ENOTSUPP));
        }
    });
}

#[test]
fn an_inner_map_with_kptrs_has_the_blob_of_the_template() {
    on_both(|bpf| {
        let types = types();
        let [one, two] = [0; 2].map(|_| calls::bpf_btf_load(bpf, &types.blob).expect("BTF"));
        let new = |btf_fd, id, size| create(bpf, btf_fd, &types, MapType::ARRAY, (id, size), 2, 0);
        for (id, size) in [
            (types.stash, stash::SIZE),
            (types.collection, collection::SIZE),
        ] {
            let opts = CreateOpts {
                inner_map_fd: new(one, id, size),
                ..CreateOpts::default()
            };
            let outer = calls::bpf_map_create(bpf, MapType::ARRAY_OF_MAPS, "", 4, 4, 1, &opts);
            let outer = outer.expect("a map");
            let put = |inner: Fd| {
                calls::bpf_map_update_elem(bpf, outer, &[0; 4], &inner.to_ne_bytes(), 0)
            };
            assert_eq!(put(new(one, id, size)), Ok(()));
            assert_eq!(put(new(two, id, size)), Err(Errno::EINVAL));
        }
    });
}

#[test]
fn an_object_is_there_until_it_is_dropped() {
    let world = World::new();
    let (_, map) = world.stashes(MapType::HASH, 0);
    let prog = Prog::sched_cls(0);
    let object = pair(&prog, &map, &world.types, 7);
    assert_eq!(object.value().size(), 16);
    assert_eq!(object.value().load_u64(0), 7);
    assert_eq!(object.value().load_u64(8), 0);
    assert_eq!(world.objects(), 1);
    prog.obj_drop(object);
    assert_eq!(world.objects(), 0);
}

#[test]
fn xchg_gives_the_old_object_back() {
    for (map_type, flags) in WITH_KPTRS {
        let world = World::new();
        let (_, map) = world.stashes(map_type, flags);
        let prog = Prog::sched_cls(1);
        put(&prog, &map, 1);
        let value = get(&prog, &map, 1);
        assert!(!fill(&prog, &map, &world.types, &value));
        let object = pair(&prog, &map, &world.types, 6);
        assert_eq!(world.objects(), 2);
        let old = prog
            .kptr_xchg(&value, stash::PAIR, Some(object))
            .expect("the first");
        assert_eq!(old.value().load_u64(0), 5);
        prog.obj_drop(old);
        let new = prog
            .kptr_xchg(&value, stash::PAIR, None)
            .expect("the second");
        assert_eq!(new.value().load_u64(0), 6);
        prog.obj_drop(new);
        assert!(!empty(&prog, &value));
        assert_eq!(world.objects(), 0);
    }
}

#[test]
fn a_loaded_kptr_is_read_and_written_even_after_the_object_was_released() {
    let world = World::new();
    let (_, map) = world.stashes(MapType::ARRAY, 0);
    let prog = Prog::sched_cls(0);
    let value = get(&prog, &map, 0);
    assert!(prog.kptr_load(&value, stash::PAIR).is_none());
    fill(&prog, &map, &world.types, &value);
    let found = prog.kptr_load(&value, stash::PAIR).expect("there");
    assert_eq!(found.value().load_u64(0), 5);
    found.value().store_u64(0, 9);
    assert!(empty(&prog, &value));
    assert_eq!(world.objects(), 0);
    assert_eq!(found.value().load_u64(0), 9);
}

#[test]
fn lookups_show_no_pointer() {
    for (map_type, flags) in WITH_KPTRS {
        let world = World::new();
        let (fd, map) = world.stashes(map_type, flags);
        let prog = Prog::sched_cls(0);
        user_put(&world, fd, &map, 1, 0);
        fill(&prog, &map, &world.types, &get(&prog, &map, 1));
        let mut seen = vec![1; map.def.user_value_size(2)];
        calls::bpf_map_lookup_elem(&world.kernel, fd, &1_u32.to_ne_bytes(), &mut seen)
            .expect("there");
        for part in seen.chunks(stash::SIZE as usize) {
            assert_eq!(part[..stash::NODE], [0xff; stash::NODE]);
            assert_eq!(part[stash::NODE..], [0; 32]);
        }
        assert_eq!(world.objects(), 1, "a look takes nothing");
    }
}

/// An update by a system call releases what all CPUs' parts hold, one by a program what its own part holds.
#[test]
fn an_update_releases_what_it_overwrites() {
    for (map_type, flags) in WITH_KPTRS {
        let world = World::new();
        let (fd, map) = world.stashes(map_type, flags);
        let progs = [0, 1].map(Prog::sched_cls);
        let fill_all = || {
            for prog in &progs {
                fill(prog, &map, &world.types, &get(prog, &map, 1));
            }
        };
        let filled = if map_type.is_percpu() { 2 } else { 1 };
        user_put(&world, fd, &map, 1, 0);
        fill_all();
        assert_eq!(world.objects(), filled);
        user_put(&world, fd, &map, 1, 0);
        assert_eq!(world.objects(), 0, "{map_type}");
        fill_all();
        put(&progs[0], &map, 1);
        assert_eq!(world.objects(), filled - 1, "{map_type}");
    }
}

/// Observed: in a hash the kptr is there afterwards, in an array it is not.
#[test]
fn an_update_under_the_lock_releases_in_arrays_only() {
    for (map_type, flags, left) in [
        (MapType::HASH, 0, 1),
        (MapType::HASH, 1, 1),
        (MapType::ARRAY, 0, 0),
    ] {
        let world = World::new();
        let (fd, map) = world.map(map_type, world.types.locked_stash, stash::SIZE, flags);
        let prog = Prog::sched_cls(0);
        put(&prog, &map, 1);
        fill(&prog, &map, &world.types, &get(&prog, &map, 1));
        user_put(&world, fd, &map, 1, 4);
        assert_eq!(world.objects(), left, "{map_type}");
        assert_eq!(empty(&prog, &get(&prog, &map, 1)), left == 1);
    }
}

#[test]
fn an_element_that_goes_releases_its_objects() {
    for (map_type, flags) in WITH_KPTRS
        .into_iter()
        .filter(|(map_type, _)| !is_array(*map_type))
    {
        let world = World::new();
        let (fd, map) = world.stashes(map_type, flags);
        let prog = Prog::sched_cls(0);
        let kernel = &world.kernel;
        let key = 1_u32.to_ne_bytes();
        let make = || {
            put(&prog, &map, 1);
            fill(&prog, &map, &world.types, &get(&prog, &map, 1));
            assert_eq!(world.objects(), 1);
        };
        let mut value = vec![0; map.def.user_value_size(2)];
        make();
        calls::bpf_map_delete_elem(kernel, fd, &key).expect("delete");
        assert_eq!(world.objects(), 0, "{map_type}: by a system call");
        make();
        prog.map_delete_elem(&map, &key).expect("delete");
        assert_eq!(world.objects(), 0, "{map_type}: by a program");
        make();
        calls::bpf_map_lookup_and_delete_elem(kernel, fd, &key, &mut value).expect("there");
        assert_eq!(world.objects(), 0, "{map_type}: looked at");
        make();
        assert_eq!(calls::bpf_map_delete_batch(kernel, fd, &key, 1).count, 1);
        assert_eq!(world.objects(), 0, "{map_type}: by a batch");
        make();
        let (mut keys, mut values) = (vec![0; 4 * 8], vec![0; 8 * value.len()]);
        let mut token = [0; 4];
        let done = calls::bpf_map_lookup_and_delete_batch(
            kernel,
            fd,
            None,
            &mut token,
            &mut keys,
            &mut values,
            8,
        );
        assert_eq!(done.count, 1);
        assert_eq!(world.objects(), 0, "{map_type}: by a batch that looks");
    }
}

#[test]
fn an_evicted_element_releases_its_objects() {
    for map_type in [MapType::LRU_HASH, MapType::LRU_PERCPU_HASH] {
        let world = World::new();
        let (_, map) = world.stashes(map_type, 0);
        let prog = Prog::sched_cls(0);
        for key in 0..100 {
            put(&prog, &map, key);
            fill(&prog, &map, &world.types, &get(&prog, &map, key));
            assert!(world.objects() <= 8, "{map_type}");
        }
        assert!(world.objects() > 0);
    }
}

#[test]
fn objects_stay_as_long_as_the_map() {
    for (map_type, flags) in WITH_KPTRS {
        let world = World::new();
        let (fd, map) = world.stashes(map_type, flags);
        let prog = Prog::sched_cls(0);
        put(&prog, &map, 1);
        fill(&prog, &map, &world.types, &get(&prog, &map, 1));
        world.kernel.close(fd).expect("open");
        assert_eq!(world.objects(), 1, "the program has the map");
        drop(map);
        assert_eq!(world.objects(), 0, "{map_type}");
    }
}

/// Observed: what is put into an element that is gone is found in the next one that gets its place.
#[test]
fn a_kptr_stays_with_the_place() {
    let world = World::new();
    let (_, map) = world.stashes(MapType::HASH, 0);
    let prog = Prog::sched_cls(0);
    put(&prog, &map, 3);
    let gone = get(&prog, &map, 3);
    prog.map_delete_elem(&map, &3_u32.to_ne_bytes())
        .expect("there");
    assert!(!fill(&prog, &map, &world.types, &gone));
    put(&prog, &map, 4);
    assert!(empty(&prog, &get(&prog, &map, 4)));
    assert_eq!(world.objects(), 0);
}

#[test]
fn a_process_that_ends_releases_what_its_storage_holds() {
    let world = World::new();
    let (fd, map) = world.map(MapType::TASK_STORAGE, world.types.stash, stash::SIZE, 1);
    let prog = Prog::sched_cls(0);
    let process = world.kernel.open(OtherKind::Pidfd);
    let object = world.kernel.object(process).expect("open");
    let make = || {
        let value = prog.storage_get(&map, &object, None, 1).expect("made");
        fill(&prog, &map, &world.types, &value);
        assert_eq!(world.objects(), 1);
    };
    make();
    calls::bpf_map_update_elem(&world.kernel, fd, &process.to_ne_bytes(), &VALUE, 0)
        .expect("update");
    assert_eq!(world.objects(), 0, "another value is in its place");
    make();
    prog.storage_delete(&map, &object).expect("there");
    assert_eq!(world.objects(), 0);
    make();
    world.kernel.end_owner(process);
    assert_eq!(world.objects(), 0);
}

/// Observed: within a run the object is there after the delete. In the other maps it is not.
#[test]
fn a_storage_keeps_its_objects_while_a_program_has_it() {
    let world = World::new();
    let (_, storages) = world.map(MapType::TASK_STORAGE, world.types.stash, stash::SIZE, 1);
    let prog = Prog::sched_cls(0);
    let process = world.kernel.open(OtherKind::Pidfd);
    let process = world.kernel.object(process).expect("open");
    let value = prog
        .storage_get(&storages, &process, None, 1)
        .expect("made");
    fill(&prog, &storages, &world.types, &value);
    prog.storage_delete(&storages, &process).expect("there");
    assert!(empty(&prog, &value));
    fill(&prog, &storages, &world.types, &value);
    drop(value);
    assert_eq!(world.objects(), 0);
    for (map_type, flags) in WITH_KPTRS {
        let (_, map) = world.stashes(map_type, flags);
        put(&prog, &map, 1);
        let value = get(&prog, &map, 1);
        fill(&prog, &map, &world.types, &value);
        if !is_array(map_type) {
            let deleted = prog.map_delete_elem(&map, &1_u32.to_ne_bytes());
            assert_eq!(deleted, Ok(()));
            assert!(!empty(&prog, &value), "{map_type}");
        }
    }
}

#[test]
fn references_are_counted() {
    let world = World::new();
    let (_, map) = world.stashes(MapType::ARRAY, 0);
    let prog = Prog::sched_cls(0);
    let value = get(&prog, &map, 0);
    let one = prog.obj_new(&map, world.types.node).expect("memory");
    one.value().store_u64(node::KEY, 11);
    let two = prog.refcount_acquire(&one).expect("it is there");
    assert!(prog.kptr_xchg(&value, stash::NODE, Some(one)).is_none());
    prog.obj_drop(two);
    assert_eq!(world.objects(), 1);
    let found = prog.kptr_load(&value, stash::NODE).expect("there");
    let three = prog.refcount_acquire(&found).expect("it is there");
    let one = prog.kptr_xchg(&value, stash::NODE, None).expect("there");
    prog.obj_drop(one);
    assert_eq!(three.value().load_u64(node::KEY), 11);
    prog.obj_drop(three);
    assert_eq!(world.objects(), 0);
    assert!(
        prog.refcount_acquire(&found).is_none(),
        "the last one is gone"
    );
}

#[test]
fn an_object_owns_what_its_fields_hold() {
    let world = World::new();
    let (fd, map) = world.stashes(MapType::HASH, 0);
    let prog = Prog::sched_cls(0);
    put(&prog, &map, 1);
    let owner = prog.obj_new(&map, world.types.owner).expect("memory");
    let inside = owner.value();
    let object = pair(&prog, &map, &world.types, 77);
    assert!(prog.kptr_xchg(&inside, owner::PAIR, Some(object)).is_none());
    let single = prog.obj_new(&map, world.types.single).expect("memory");
    let lock = prog.spin_lock(&inside);
    assert_eq!(lock.list_push_back(owner::LIST, single), Ok(()));
    lock.spin_unlock();
    assert_eq!(world.objects(), 3);
    let value = get(&prog, &map, 1);
    assert!(prog.kptr_xchg(&value, stash::OWNER, Some(owner)).is_none());
    calls::bpf_map_delete_elem(&world.kernel, fd, &1_u32.to_ne_bytes()).expect("there");
    assert_eq!(world.objects(), 0);
}

/// Observed: zeros at first; a part for each CPU; no part of a CPU that there is not.
#[test]
fn a_percpu_object_has_a_part_for_each_cpu() {
    let world = World::new();
    let (_, map) = world.stashes(MapType::ARRAY, 0);
    let (prog, other) = (Prog::sched_cls(1), Prog::sched_cls(0));
    let value = get(&prog, &map, 0);
    let object = prog.percpu_obj_new(&map, world.types.pair).expect("memory");
    assert_eq!(world.objects(), 1);
    assert!(
        prog.kptr_xchg(&value, stash::PERCPU_PAIR, Some(object))
            .is_none()
    );
    let found = prog.kptr_load(&value, stash::PERCPU_PAIR).expect("there");
    prog.this_cpu_ptr(&found).fetch_add_u64(0, 4);
    assert_eq!(other.this_cpu_ptr(&found).load_u64(0), 0);
    assert_eq!(other.per_cpu_ptr(&found, 1).expect("a CPU").load_u64(0), 4);
    assert!(prog.per_cpu_ptr(&found, 2).is_none());
    let object = prog
        .kptr_xchg(&value, stash::PERCPU_PAIR, None)
        .expect("there");
    prog.percpu_obj_drop(object);
    assert_eq!(world.objects(), 0);
}

#[test]
fn the_types_of_programs_that_have_objects_are_known() {
    let world = World::new();
    let (_, map) = world.stashes(MapType::ARRAY, 0);
    let may = |prog_type| {
        let prog = Prog::new(prog_type, 0);
        catch_unwind(AssertUnwindSafe(|| {
            let object = prog.obj_new(&map, world.types.pair).expect("memory");
            prog.obj_drop(object);
        }))
        .is_ok()
    };
    for prog_type in [
        ProgType::SCHED_CLS,
        ProgType::XDP,
        ProgType::TRACEPOINT,
        ProgType::PERF_EVENT,
        ProgType::CGROUP_SKB,
        ProgType::CGROUP_SOCK,
        ProgType::CGROUP_DEVICE,
        ProgType::SOCK_OPS,
    ] {
        assert!(may(prog_type), "{prog_type}");
    }
    for prog_type in [
        ProgType::SOCKET_FILTER,
        ProgType::KPROBE,
        ProgType::SCHED_ACT,
        ProgType::LWT_IN,
        ProgType::SK_SKB,
        ProgType::SK_MSG,
        ProgType::RAW_TRACEPOINT,
        ProgType::SK_REUSEPORT,
        ProgType::FLOW_DISSECTOR,
    ] {
        assert!(!may(prog_type), "{prog_type}");
    }
}

#[test]
fn programs_that_break_a_rule_are_refused() {
    let world = World::new();
    let (_, map) = world.map(MapType::ARRAY, world.types.locked_stash, stash::SIZE, 0);
    let prog = Prog::sched_cls(0);
    let value = get(&prog, &map, 0);
    let types = &world.types;
    let new = |type_id| prog.obj_new(&map, type_id).expect("memory");
    refuses("(EINVAL): the program ends with a reference", || {
        drop(new(types.pair))
    });
    refuses("(EACCES): the kptr is for objects of another type", || {
        prog.kptr_xchg(&value, stash::NODE, Some(new(types.pair)));
    });
    refuses("takes an object for a per-CPU one", || {
        prog.kptr_xchg(&value, stash::PERCPU_PAIR, Some(new(types.pair)));
    });
    refuses("(EACCES): the kptr is for objects of another type", || {
        let percpu = prog.percpu_obj_new(&map, types.pair).expect("memory");
        prog.kptr_xchg(&value, stash::PAIR, Some(percpu));
    });
    refuses("(EINVAL): this is not where the value has a kptr", || {
        prog.kptr_xchg(&value, stash::PLAIN, None);
    });
    refuses("(EFAULT): the object has no struct bpf_refcount", || {
        prog.refcount_acquire(&new(types.pair));
    });
    refuses("(EINVAL): an object is a struct", || {
        drop(prog.obj_new(&map, types.u32_id))
    });
    refuses("(EINVAL): a per-CPU object has numbers only", || {
        drop(prog.percpu_obj_new(&map, types.node));
    });
    refuses("(EINVAL): obj_drop is for objects", || {
        prog.obj_drop(prog.percpu_obj_new(&map, types.pair).expect("memory"));
    });
    refuses("(EACCES)", || {
        new(types.pair).value().load_u64(16);
    });
    refuses("a special field is not loaded or stored", || {
        new(types.node).value().load_u32(node::REFCOUNT);
    });
    refuses("a special field is not loaded or stored", || {
        new(types.node).value().store_u64(node::LIST_NODE, 0);
    });
    assert_eq!(world.objects(), 0, "who is refused keeps nothing");
}

#[test]
fn under_a_lock_nothing_is_allocated_released_or_exchanged() {
    let world = World::new();
    let (_, map) = world.map(MapType::ARRAY, world.types.locked_stash, stash::SIZE, 0);
    let prog = Prog::sched_cls(0);
    let value = get(&prog, &map, 0);
    let locked = |program: &dyn Fn()| {
        refuses("while a bpf_spin_lock is held", || {
            let _lock = prog.spin_lock(&value);
            program();
        });
    };
    locked(&|| drop(prog.obj_new(&map, world.types.pair)));
    locked(&|| drop(prog.kptr_xchg(&value, stash::PAIR, None)));
    let object = prog.obj_new(&map, world.types.node).expect("memory");
    let lock = prog.spin_lock(&value);
    let again = prog.refcount_acquire(&object).expect("this may be done");
    lock.spin_unlock();
    prog.obj_drop(again);
    let kept = std::cell::Cell::new(Some(object));
    locked(&|| prog.obj_drop(kept.take().expect("once")));
    assert_eq!(world.objects(), 0);
}

#[test]
fn fields_of_a_loaded_object_are_out_of_reach() {
    let world = World::new();
    let (_, map) = world.stashes(MapType::ARRAY, 0);
    let prog = Prog::sched_cls(0);
    let value = get(&prog, &map, 0);
    let owner = prog.obj_new(&map, world.types.owner).expect("memory");
    prog.kptr_xchg(&value, stash::OWNER, Some(owner));
    let found = prog.kptr_load(&value, stash::OWNER).expect("there");
    let rule = "(EACCES): the fields of an object are used by who has a reference";
    refuses(rule, || drop(prog.spin_lock(&found.value())));
    refuses(rule, || {
        drop(prog.kptr_xchg(&found.value(), owner::PAIR, None))
    });
    let percpu = prog.percpu_obj_new(&map, world.types.pair).expect("memory");
    prog.kptr_xchg(&value, stash::PERCPU_PAIR, Some(percpu));
    let found = prog.kptr_load(&value, stash::PERCPU_PAIR).expect("there");
    refuses("(EACCES): of a per-CPU object, this_cpu_ptr", || {
        found.value();
    });
}
