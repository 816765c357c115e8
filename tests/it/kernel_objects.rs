//! Kptrs to objects of the kernel: processes and cgroups.

use std::sync::Arc;

use mapemu::abi::{MapType, UpdateFlags};
use mapemu::btf::Writer;
use mapemu::calls::{self, CreateOpts};
use mapemu::helper::Prog;
use mapemu::map::Map;
use mapemu::map::object::{Object, OtherKind};
use mapemu::sys::Kernel;

use crate::allocated::{get, refuses};

const TASK: usize = 0;
const CGROUP: usize = 8;
const CPUMASK: usize = 16;
const UNTRUSTED: usize = 24;
const VALUE_SIZE: u32 = 32;

/// A hash of kptrs to a process, a cgroup, a CPU mask, and a process without a reference.
fn kptrs(kernel: &Kernel) -> Arc<Map> {
    let mut btf = Writer::new();
    let u32_id = btf.int("u32", 4);
    let mut kptr = |tag, name| {
        let target = btf.structure(name, 8, &[]);
        btf.tagged_pointer(tag, target)
    };
    let members = [
        ("task", kptr("kptr", "task_struct"), 0),
        ("cgroup", kptr("kptr", "cgroup"), 8),
        ("cpumask", kptr("kptr", "bpf_cpumask"), 16),
        ("untrusted", kptr("kptr_untrusted", "task_struct"), 24),
    ];
    let value_id = btf.structure("v", VALUE_SIZE, &members);
    let opts = CreateOpts {
        btf_fd: calls::bpf_btf_load(kernel, &btf.finish()).expect("BTF"),
        btf_key_type_id: u32_id,
        btf_value_type_id: value_id,
        ..CreateOpts::default()
    };
    let fd = calls::bpf_map_create(kernel, MapType::HASH, "", 4, VALUE_SIZE, 8, &opts);
    let map = kernel.map(fd.expect("a map")).expect("a map");
    let value = [0; VALUE_SIZE as usize];
    let prog = Prog::sched_cls(0);
    prog.map_update_elem(&map, &1_u32.to_ne_bytes(), &value, UpdateFlags::ANY)
        .expect("update");
    map
}

fn is_same(one: &Object, two: &Object) -> bool {
    match (one, two) {
        (Object::Other(one), Object::Other(two)) => one.id == two.id,
        (Object::Cgroup(one), Object::Cgroup(two)) => one.id == two.id,
        _ => false,
    }
}

#[test]
fn a_process_is_kept_after_its_end_but_not_acquired() {
    let kernel = Kernel::new();
    let map = kptrs(&kernel);
    let prog = Prog::sched_cls(0);
    let value = get(&prog, &map, 1);
    let pidfd = kernel.open(OtherKind::Pidfd);
    let task = kernel.object(pidfd).expect("open");
    let acquired = prog.task_acquire(&task).expect("it runs");
    assert!(
        prog.kptr_xchg_acquired(&value, TASK, Some(acquired))
            .is_none()
    );
    let found = prog.kptr_load_object(&value, TASK).expect("there");
    assert!(is_same(&found, &task));
    kernel.end_owner(pidfd);
    assert!(prog.task_acquire(&found).is_none());
    let kept = prog.kptr_xchg_acquired(&value, TASK, None).expect("there");
    assert!(is_same(kept.object(), &task));
    prog.task_release(kept);
    assert!(prog.kptr_load_object(&value, TASK).is_none());
}

#[test]
fn a_cgroup_goes_with_its_element() {
    let kernel = Kernel::new();
    let map = kptrs(&kernel);
    let prog = Prog::sched_cls(0);
    let value = get(&prog, &map, 1);
    let fd = kernel.open(OtherKind::Cgroup1);
    let cgroup = kernel.object(fd).expect("open");
    let Object::Other(inside) = &cgroup else {
        panic!("a cgroup v1 is {cgroup:?}");
    };
    let before = Arc::strong_count(inside);
    let acquired = prog.cgroup_acquire(&cgroup);
    assert!(
        prog.kptr_xchg_acquired(&value, CGROUP, Some(acquired))
            .is_none()
    );
    assert_eq!(Arc::strong_count(inside), before + 1);
    prog.map_delete_elem(&map, &1_u32.to_ne_bytes())
        .expect("there");
    assert_eq!(Arc::strong_count(inside), before);
}

#[test]
fn programs_that_break_a_rule_are_refused() {
    let kernel = Kernel::new();
    let map = kptrs(&kernel);
    let prog = Prog::sched_cls(0);
    let value = get(&prog, &map, 1);
    let task = kernel.open(OtherKind::Pidfd);
    let task = kernel.object(task).expect("open");
    let acquire = || prog.task_acquire(&task).expect("it runs");
    refuses("(EINVAL): the program ends with a reference", || {
        drop(acquire())
    });
    refuses(
        "(EINVAL): this function is for objects of another type",
        || {
            prog.cgroup_release(acquire());
        },
    );
    refuses("(EACCES): the kptr is for objects of another type", || {
        drop(prog.kptr_xchg_acquired(&value, CGROUP, Some(acquire())));
    });
    refuses("(EACCES): the kptr is for objects of the kernel", || {
        drop(prog.kptr_xchg(&value, TASK, None));
    });
    refuses("does not emulate kptrs to struct bpf_cpumask", || {
        drop(prog.kptr_xchg_acquired(&value, CPUMASK, None));
    });
    refuses("does not emulate kptr_untrusted", || {
        drop(prog.kptr_load_object(&value, UNTRUSTED));
    });
}
