//! Lists and trees of objects: their order, who is in which, and when they go.
//!
//! What is said of a kernel was observed on Linux 6.18.44, with C programs of the same layouts run by `BPF_PROG_TEST_RUN`.

use std::fmt::Write;
use std::sync::Arc;

use mapemu::abi::{Bpf, Errno, Fd, MapType, UpdateFlags};
use mapemu::calls;
use mapemu::helper::{Obj, ObjRef, Prog, Reference, SpinLockGuard};
use mapemu::map::{Map, Value};

use crate::allocated::{World, collection, get, node, refuses, stash};

const LIST: usize = collection::LIST;
const OTHER_LIST: usize = collection::OTHER_LIST;
const TREE: usize = collection::TREE;

fn collections(world: &World, map_type: MapType) -> (Fd, Arc<Map>) {
    world.map(map_type, world.types.collection, collection::SIZE, 0)
}

#[track_caller]
fn put(prog: &Prog, map: &Map, key: u32) {
    let value = [0; collection::SIZE as usize];
    prog.map_update_elem(map, &key.to_ne_bytes(), &value, UpdateFlags::ANY)
        .expect("update");
}

#[track_caller]
fn new(prog: &Prog, world: &World, map: &Map, key: u64) -> Obj {
    let object = prog.obj_new(map, world.types.node).expect("memory");
    object.value().store_u64(node::KEY, key);
    object
}

fn less(a: &ObjRef<'_>, b: &ObjRef<'_>) -> bool {
    key_of(a) < key_of(b)
}

fn key_of(object: &ObjRef<'_>) -> u64 {
    object.value().load_u64(node::KEY)
}

/// Drops an object; its key.
#[track_caller]
fn key_of_dropped(prog: &Prog, object: Option<Obj>) -> Option<u64> {
    let object = object?;
    let key = object.value().load_u64(node::KEY);
    prog.obj_drop(object);
    Some(key)
}

#[track_caller]
fn push_back(prog: &Prog, value: &Value<'_>, object: Obj) -> Result<(), Errno> {
    prog.spin_lock(value).list_push_back(LIST, object)
}

#[track_caller]
fn pop_front(prog: &Prog, value: &Value<'_>) -> Option<u64> {
    let object = prog.spin_lock(value).list_pop_front(LIST);
    key_of_dropped(prog, object)
}

#[test]
fn a_list_has_two_ends() {
    for map_type in [MapType::HASH, MapType::ARRAY] {
        let world = World::new();
        let (_, map) = collections(&world, map_type);
        let prog = Prog::sched_cls(0);
        put(&prog, &map, 0);
        let value = get(&prog, &map, 0);
        let (one, two) = (new(&prog, &world, &map, 1), new(&prog, &world, &map, 2));
        let lock = prog.spin_lock(&value);
        assert!(lock.list_front(LIST).is_none());
        assert!(lock.list_back(LIST).is_none());
        assert!(lock.list_pop_back(LIST).is_none());
        assert_eq!(lock.list_push_front(LIST, one), Ok(()));
        assert_eq!(lock.list_push_front(LIST, two), Ok(()));
        assert_eq!(lock.list_front(LIST).as_ref().map(key_of), Some(2));
        let back = lock.list_back(LIST).expect("there");
        assert_eq!(key_of(&back), 1);
        back.value().store_u32(node::X, 77);
        assert!(lock.rbtree_root(TREE).is_none());
        let popped = lock.list_pop_back(LIST).expect("there");
        lock.spin_unlock();
        assert_eq!(popped.value().load_u32(node::X), 77);
        prog.obj_drop(popped);
        assert_eq!(pop_front(&prog, &value), Some(2));
        assert_eq!(pop_front(&prog, &value), None);
        assert_eq!(world.objects(), 0);
    }
}

#[test]
fn lists_are_first_in_first_out_and_do_not_meet() {
    let world = World::new();
    let (_, map) = collections(&world, MapType::ARRAY);
    let prog = Prog::sched_cls(0);
    let (one, two) = (get(&prog, &map, 0), get(&prog, &map, 1));
    for key in 1..4 {
        assert_eq!(
            push_back(&prog, &one, new(&prog, &world, &map, key)),
            Ok(())
        );
    }
    assert_eq!(push_back(&prog, &two, new(&prog, &world, &map, 9)), Ok(()));
    assert!(prog.spin_lock(&one).list_pop_front(OTHER_LIST).is_none());
    for key in 1..4 {
        assert_eq!(pop_front(&prog, &one), Some(key));
    }
    assert_eq!(pop_front(&prog, &two), Some(9));
}

/// Observed: 0, -22, and one object in the list.
#[test]
fn an_object_that_is_in_a_list_is_einval_and_the_reference_is_gone() {
    let world = World::new();
    let (_, map) = collections(&world, MapType::ARRAY);
    let prog = Prog::sched_cls(0);
    let (value, other) = (get(&prog, &map, 0), get(&prog, &map, 1));
    let one = new(&prog, &world, &map, 7);
    let [two, three] = [0; 2].map(|_| prog.refcount_acquire(&one).expect("there"));
    assert_eq!(push_back(&prog, &value, one), Ok(()));
    assert_eq!(push_back(&prog, &value, two), Err(Errno::EINVAL));
    assert_eq!(
        push_back(&prog, &other, three),
        Err(Errno::EINVAL),
        "another list"
    );
    assert_eq!(world.objects(), 1);
    assert_eq!(pop_front(&prog, &value), Some(7));
    assert_eq!(pop_front(&prog, &value), None);
    assert_eq!(world.objects(), 0);
}

#[test]
fn an_object_is_in_as_many_collections_as_it_has_nodes() {
    let world = World::new();
    let (_, map) = collections(&world, MapType::ARRAY);
    let prog = Prog::sched_cls(0);
    let value = get(&prog, &map, 0);
    let one = new(&prog, &world, &map, 9);
    let [two, three] = [0; 2].map(|_| prog.refcount_acquire(&one).expect("there"));
    let lock = prog.spin_lock(&value);
    assert_eq!(lock.list_push_back(LIST, one), Ok(()));
    assert_eq!(lock.rbtree_add(TREE, two, less), Ok(()));
    assert_eq!(lock.list_push_back(OTHER_LIST, three), Ok(()));
    let of_list = lock.list_pop_front(LIST);
    let first = lock.rbtree_first(TREE).expect("there");
    let of_tree = lock.rbtree_remove(TREE, &first);
    lock.spin_unlock();
    assert_eq!(key_of_dropped(&prog, of_list), Some(9));
    assert_eq!(key_of_dropped(&prog, of_tree), Some(9));
    assert_eq!(world.objects(), 1);
    let of_other = prog.spin_lock(&value).list_pop_back(OTHER_LIST);
    assert_eq!(key_of_dropped(&prog, of_other), Some(9));
    assert_eq!(world.objects(), 0);
}

/// Observed, for a node that is in no tree, or in another collection only.
#[test]
fn what_is_not_in_the_tree_is_not_found_there() {
    let world = World::new();
    let (_, map) = collections(&world, MapType::ARRAY);
    let prog = Prog::sched_cls(0);
    let (value, other) = (get(&prog, &map, 0), get(&prog, &map, 1));
    let (listed, added) = (new(&prog, &world, &map, 1), new(&prog, &world, &map, 2));
    let outside = new(&prog, &world, &map, 3);
    let lock = prog.spin_lock(&value);
    let node = lock.non_owning(&listed);
    assert_eq!(lock.list_push_back(LIST, listed), Ok(()));
    assert!(lock.rbtree_remove(TREE, &node).is_none());
    assert!(lock.rbtree_left(TREE, &node).is_none());
    assert!(lock.rbtree_remove(TREE, &outside).is_none());
    let node = lock.non_owning(&added);
    assert_eq!(lock.rbtree_add(TREE, added, less), Ok(()));
    let removed = lock.rbtree_remove(TREE, &node);
    assert!(lock.rbtree_remove(TREE, &node).is_none(), "once");
    lock.spin_unlock();
    let removed = removed.expect("it was there");
    let lock = prog.spin_lock(&other);
    let node = lock.non_owning(&removed);
    assert_eq!(lock.rbtree_add(TREE, removed, less), Ok(()));
    assert_eq!(key_of(&node), 2);
    lock.spin_unlock();
    let lock = prog.spin_lock(&value);
    assert!(lock.rbtree_remove(TREE, &outside).is_none());
    lock.spin_unlock();
    prog.obj_drop(outside);
    assert_eq!(world.objects(), 2);
}

#[test]
fn an_object_that_is_in_a_tree_is_einval_and_the_reference_is_gone() {
    let world = World::new();
    let (_, map) = collections(&world, MapType::ARRAY);
    let prog = Prog::sched_cls(0);
    let (value, other) = (get(&prog, &map, 0), get(&prog, &map, 1));
    let one = new(&prog, &world, &map, 7);
    let two = prog.refcount_acquire(&one).expect("there");
    assert_eq!(prog.spin_lock(&value).rbtree_add(TREE, one, less), Ok(()));
    let again = prog.spin_lock(&other).rbtree_add(TREE, two, less);
    assert_eq!(again, Err(Errno::EINVAL));
    let lock = prog.spin_lock(&other);
    assert!(lock.rbtree_first(TREE).is_none());
    lock.spin_unlock();
    assert_eq!(world.objects(), 1);
}

#[test]
fn collections_go_with_their_element() {
    for map_type in [MapType::HASH, MapType::ARRAY] {
        let world = World::new();
        let (fd, map) = collections(&world, map_type);
        let prog = Prog::sched_cls(0);
        let fill = || {
            put(&prog, &map, 1);
            let value = get(&prog, &map, 1);
            for key in 0..5 {
                assert_eq!(
                    push_back(&prog, &value, new(&prog, &world, &map, key)),
                    Ok(())
                );
                let object = new(&prog, &world, &map, key);
                assert_eq!(
                    prog.spin_lock(&value).rbtree_add(TREE, object, less),
                    Ok(())
                );
            }
            assert_eq!(world.objects(), 10);
        };
        fill();
        put(&prog, &map, 1);
        assert_eq!(world.objects(), 0, "{map_type}: overwritten");
        fill();
        if map_type == MapType::HASH {
            calls::bpf_map_delete_elem(&world.kernel, fd, &1_u32.to_ne_bytes()).expect("there");
            assert_eq!(world.objects(), 0, "deleted");
            fill();
        }
        world.kernel.close(fd).expect("open");
        drop(map);
        assert_eq!(world.objects(), 0, "{map_type}: with the map");
    }
}

/// Observed: pushed again, -22; added to a tree again, 0.
#[test]
fn what_was_in_a_list_that_went_with_its_element_is_in_no_list_any_more() {
    let world = World::new();
    let (fd, map) = collections(&world, MapType::HASH);
    let (_, stashes) = world.stashes(MapType::ARRAY, 0);
    let prog = Prog::sched_cls(0);
    put(&prog, &map, 1);
    put(&prog, &map, 2);
    let one = new(&prog, &world, &map, 11);
    let [two, three] = [0; 2].map(|_| prog.refcount_acquire(&one).expect("there"));
    let kept = get(&prog, &stashes, 0);
    assert!(prog.kptr_xchg(&kept, stash::NODE, Some(three)).is_none());
    let value = get(&prog, &map, 1);
    assert_eq!(push_back(&prog, &value, one), Ok(()));
    assert_eq!(prog.spin_lock(&value).rbtree_add(TREE, two, less), Ok(()));
    calls::bpf_map_delete_elem(&world.kernel, fd, &1_u32.to_ne_bytes()).expect("there");
    assert_eq!(world.objects(), 1);
    let one = prog.kptr_xchg(&kept, stash::NODE, None).expect("there");
    let two = prog.refcount_acquire(&one).expect("there");
    let value = get(&prog, &map, 2);
    assert_eq!(push_back(&prog, &value, one), Err(Errno::EINVAL));
    assert_eq!(prog.spin_lock(&value).rbtree_add(TREE, two, less), Ok(()));
    assert_eq!(world.objects(), 1);
}

/// Adds or removes keys; the tree afterwards, each node as `(key left,right)`. Equal keys are in it more than once, and the
/// first on the way down is the one that is removed.
const SHAPES: &[(bool, &[u64], &str)] = &[
    (
        true,
        &[14, 33, 36, 30, 34, 35, 10, 22],
        "(33 (14 (10),(30 (22),)),(35 (34),(36)))",
    ),
    (
        false,
        &[9, 26, 3, 2, 12, 0],
        "(33 (14 (10),(30 (22),)),(35 (34),(36)))",
    ),
    (
        true,
        &[34, 12, 10, 15, 12, 5, 27, 37],
        "(33 (14 (10 (10 (5),),(12 ,(12))),(22 (15),(30 (27),))),(35 (34 ,(34)),(36 ,(37))))",
    ),
    (
        false,
        &[6, 10, 29, 8, 4, 32],
        "(33 (14 (12 (10 (5),),(12)),(22 (15),(30 (27),))),(35 (34 ,(34)),(36 ,(37))))",
    ),
    (
        true,
        &[1, 8, 7, 18, 28, 5, 14, 2],
        "(33 (14 (8 (5 (1 ,(2)),(7 (5),)),(12 (10),(12))),(22 (15 (14),(18)),(28 (27),(30)))),(35 (34 ,(34)),(36 ,(37))))",
    ),
    (
        false,
        &[26, 18, 36, 29, 15, 12],
        "(33 (14 (8 (5 (1 ,(2)),(7 (5),)),(12 (10),)),(22 (14),(28 (27),(30)))),(35 (34 ,(34)),(37)))",
    ),
    (
        true,
        &[10, 0, 21, 14, 28, 21, 23, 34],
        "(33 (14 (8 (5 (1 (0),(2)),(7 (5),)),(10 (10),(12))),(22 (14 (14),(21 ,(21))),(28 (27 (23),),(30 (28),)))),(35 (34 (34),(34)),(37)))",
    ),
    (
        false,
        &[2, 24, 36, 34, 21, 0],
        "(33 (14 (8 (5 (1),(7 (5),)),(10 (10),(12))),(22 (14 (14),(21)),(28 (27 (23),),(30 (28),)))),(35 (34 (34),),(37)))",
    ),
    (
        true,
        &[38, 35, 7, 30, 33, 22, 28, 21],
        "(22 (14 (8 (5 (1),(7 (5),(7))),(10 (10),(12))),(14 (14),(21 ,(21)))),(33 (28 (23 (22),(27)),(30 (28 ,(28)),(30))),(35 (34 (33),(34)),(37 (35),(38)))))",
    ),
    (
        false,
        &[31, 15, 3, 16, 2, 39],
        "(22 (14 (8 (5 (1),(7 (5),(7))),(10 (10),(12))),(14 (14),(21 ,(21)))),(33 (28 (23 (22),(27)),(30 (28 ,(28)),(30))),(35 (34 (33),(34)),(37 (35),(38)))))",
    ),
    (
        true,
        &[2, 21, 9, 28, 15, 28, 9, 14],
        "(22 (14 (8 (5 (1 ,(2)),(7 (5),(7))),(10 (9 (9),(10)),(12))),(14 (14),(21 (15 (14),(21)),(21)))),(33 (28 (28 (23 (22),(27)),(28)),(30 (28 ,(28)),(30))),(35 (34 (33),(34)),(37 (35),(38)))))",
    ),
    (
        false,
        &[15, 5, 1, 27, 39, 18],
        "(22 (14 (8 (5 (2),(7 ,(7))),(10 (9 (9),(10)),(12))),(14 (14),(21 (21 (14),),(21)))),(33 (28 (28 (23 (22),),(28)),(30 (28 ,(28)),(30))),(35 (34 (33),(34)),(37 (35),(38)))))",
    ),
    (
        true,
        &[2, 17, 0, 11, 8, 22, 22, 8],
        "(22 (14 (8 (5 (2 (0),(2)),(7 ,(7))),(10 (9 (8 (8),(9)),(10)),(12 (11),))),(14 (14),(21 (17 (14),(21)),(21)))),(33 (28 (28 (22 (22),(23 (22),)),(28)),(30 (28 ,(28)),(30))),(35 (34 (33),(34)),(37 (35),(38)))))",
    ),
    (
        false,
        &[7, 14, 9, 18, 21, 4],
        "(22 (14 (8 (5 (2 (0),(2)),(7)),(10 (8 (8),(10 (9),)),(12 (11),))),(17 (14 ,(14)),(21 (21),))),(33 (28 (28 (22 (22),(23 (22),)),(28)),(30 (28 ,(28)),(30))),(35 (34 (33),(34)),(37 (35),(38)))))",
    ),
    (
        true,
        &[19, 0, 9, 24, 30, 26, 38, 13],
        "(22 (14 (8 (5 (2 (0 ,(0)),(2)),(7)),(10 (8 (8),(9 (9),(10))),(12 (11),(13)))),(17 (14 ,(14)),(21 (19),(21)))),(33 (28 (23 (22 (22),(22)),(28 (24 ,(26)),(28))),(30 (28 ,(28)),(30 ,(30)))),(35 (34 (33),(34)),(37 (35),(38 ,(38))))))",
    ),
    (
        false,
        &[36, 19, 38, 12, 34, 8],
        "(22 (14 (8 (5 (2 (0 ,(0)),(2)),(7)),(10 (9 (8 ,(9)),(10)),(13 (11),))),(17 (14 ,(14)),(21 ,(21)))),(33 (28 (23 (22 (22),(22)),(28 (24 ,(26)),(28))),(30 (28 ,(28)),(30 ,(30)))),(35 (34 (33),),(37 (35),(38)))))",
    ),
];

#[test]
fn a_tree_has_the_shape_that_it_has_in_the_kernel() {
    let world = World::new();
    let (_, map) = collections(&world, MapType::ARRAY);
    let prog = Prog::sched_cls(0);
    let value = get(&prog, &map, 1);
    for (adds, keys, shape) in SHAPES {
        for &key in *keys {
            if *adds {
                let object = new(&prog, &world, &map, key);
                assert_eq!(
                    prog.spin_lock(&value).rbtree_add(TREE, object, less),
                    Ok(())
                );
            } else {
                let lock = prog.spin_lock(&value);
                let found = find(&lock, key);
                let removed = found.and_then(|found| lock.rbtree_remove(TREE, &found));
                lock.spin_unlock();
                key_of_dropped(&prog, removed);
            }
        }
        let lock = prog.spin_lock(&value);
        let mut text = String::new();
        draw(&lock, lock.rbtree_root(TREE), &mut text);
        assert_eq!(text, *shape);
    }
}

fn find<'l>(lock: &'l SpinLockGuard<'_>, key: u64) -> Option<ObjRef<'l>> {
    let mut at = lock.rbtree_root(TREE)?;
    while key_of(&at) != key {
        at = if key < key_of(&at) {
            lock.rbtree_left(TREE, &at)?
        } else {
            lock.rbtree_right(TREE, &at)?
        };
    }
    Some(at)
}

fn draw(lock: &SpinLockGuard<'_>, at: Option<ObjRef<'_>>, text: &mut String) {
    let Some(at) = at else {
        return;
    };
    write!(text, "({}", key_of(&at)).expect("it is a string");
    let below = [lock.rbtree_left(TREE, &at), lock.rbtree_right(TREE, &at)];
    if below.iter().any(Option::is_some) {
        let [left, right] = below;
        text.push(' ');
        draw(lock, left, text);
        text.push(',');
        draw(lock, right, text);
    }
    text.push(')');
}

#[test]
fn programs_that_break_a_rule_are_refused() {
    let world = World::new();
    let (_, map) = collections(&world, MapType::ARRAY);
    let prog = Prog::sched_cls(0);
    let value = get(&prog, &map, 0);
    refuses(
        "(EINVAL): this is not where the value that is locked",
        || {
            drop(prog.spin_lock(&value).list_pop_front(TREE));
        },
    );
    refuses(
        "(EINVAL): the list or tree is of objects of another type",
        || {
            let single = prog.obj_new(&map, world.types.single).expect("memory");
            let _refused = push_back(&prog, &value, single);
        },
    );
    let one = new(&prog, &world, &map, 1);
    assert_eq!(prog.spin_lock(&value).rbtree_add(TREE, one, less), Ok(()));
    let two = new(&prog, &world, &map, 2);
    let lock = prog.spin_lock(&value);
    refuses("while a bpf_spin_lock is held", || {
        let answer = lock.rbtree_add(TREE, two, |_, _| lock.rbtree_first(TREE).is_some());
        assert_eq!(answer, Ok(()));
    });
    lock.spin_unlock();
    refuses("(EINVAL): the program ends with a reference", || {
        let lock = prog.spin_lock(&value);
        let first = lock.rbtree_first(TREE).expect("there");
        drop(lock.rbtree_remove(TREE, &first));
    });
}

/// Two programs move an object back and forth; the lock keeps them apart.
#[test]
fn programs_on_two_cpus_share_a_list() {
    let world = World::new();
    let (_, map) = collections(&world, MapType::ARRAY);
    let setup = Prog::sched_cls(0);
    for key in 0..4 {
        let value = get(&setup, &map, 0);
        assert_eq!(
            push_back(&setup, &value, new(&setup, &world, &map, key)),
            Ok(())
        );
    }
    std::thread::scope(|scope| {
        for cpu in 0..2 {
            let map = &map;
            scope.spawn(move || {
                let prog = Prog::sched_cls(cpu);
                let value = get(&prog, map, 0);
                for _ in 0..1000 {
                    let object = prog.spin_lock(&value).list_pop_front(LIST).expect("four");
                    assert!(object.object().membership(8).is_none());
                    assert_eq!(push_back(&prog, &value, object), Ok(()));
                }
            });
        }
    });
    let value = get(&setup, &map, 0);
    let mut keys: Vec<_> = std::iter::from_fn(|| pop_front(&setup, &value)).collect();
    keys.sort_unstable();
    assert_eq!(keys, [0, 1, 2, 3]);
    assert_eq!(world.objects(), 0);
}
