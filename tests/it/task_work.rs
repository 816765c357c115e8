//! Task works in values: when they run, and what stops them.
//!
//! What is said of a kernel was observed on Linux 6.18.44, with C programs run by `BPF_PROG_TEST_RUN` that schedule works of
//! their own process.

use std::sync::{Arc, Mutex};

use mapemu::abi::{Bpf, Errno, Fd, MapType, UpdateFlags};
use mapemu::btf::Writer;
use mapemu::calls::{self, CreateOpts};
use mapemu::helper::Prog;
use mapemu::map::object::{Object, OtherKind};
use mapemu::map::{Map, Value};
use mapemu::sys::Kernel;

use crate::allocated::refuses;

const VALUE_SIZE: u32 = 16;

/// A map whose values are `{u64; bpf_task_work}`, and a process.
struct World {
    kernel: Kernel,
    fd: Fd,
    map: Arc<Map>,
    pidfd: Fd,
    task: Object,
    /// Keys and CPUs of what ran.
    ran: Arc<Mutex<Vec<(u32, u32)>>>,
}

impl World {
    fn new(map_type: MapType) -> Self {
        let kernel = Kernel::builder().cpus(2).build();
        let mut btf = Writer::new();
        let u32_id = btf.int("u32", 4);
        let u64_id = btf.int("u64", 8);
        let work_id = btf.structure("bpf_task_work", 8, &[("a", u64_id, 0)]);
        let members = [("x", u64_id, 0), ("work", work_id, 8)];
        let value_id = btf.structure("v", VALUE_SIZE, &members);
        let opts = CreateOpts {
            btf_fd: calls::bpf_btf_load(&kernel, &btf.finish()).expect("BTF"),
            btf_key_type_id: u32_id,
            btf_value_type_id: value_id,
            ..CreateOpts::default()
        };
        let fd = calls::bpf_map_create(&kernel, map_type, "", 4, VALUE_SIZE, 8, &opts);
        let fd = fd.expect("a map");
        let pidfd = kernel.open(OtherKind::Pidfd);
        Self {
            map: kernel.map(fd).expect("a map"),
            task: kernel.object(pidfd).expect("open"),
            ran: Arc::default(),
            kernel,
            fd,
            pidfd,
        }
    }

    #[track_caller]
    fn put(&self, prog: &Prog, key: u32) -> Value<'_> {
        let key = key.to_ne_bytes();
        let value = [0xff; VALUE_SIZE as usize];
        prog.map_update_elem(&self.map, &key, &value, UpdateFlags::ANY)
            .expect("update");
        prog.map_lookup_elem(&self.map, &key).expect("there")
    }

    #[track_caller]
    fn schedule(&self, prog: &Prog, value: &Value<'_>) -> Result<(), Errno> {
        let ran = Arc::clone(&self.ran);
        prog.task_work_schedule_resume(&self.task, &self.map, value, move |prog, _, key, _| {
            let key = u32::from_ne_bytes(key.try_into().expect("4 bytes"));
            ran.lock().expect("log").push((key, prog.cpu()));
        })
    }

    fn run(&self) -> Vec<(u32, u32)> {
        self.kernel.on_cpu(1).run_task_works(self.pidfd);
        std::mem::take(&mut *self.ran.lock().expect("log"))
    }
}

/// Observed: 0, -16, -16; and the callback runs once, with key and value.
#[test]
fn a_work_runs_once_and_is_busy_until_then() {
    for map_type in [MapType::HASH, MapType::LRU_HASH, MapType::ARRAY] {
        let world = World::new(map_type);
        let prog = Prog::sched_cls(0);
        let value = world.put(&prog, 1);
        assert_eq!(world.schedule(&prog, &value), Ok(()));
        assert_eq!(world.schedule(&prog, &value), Err(Errno::EBUSY));
        let again =
            prog.task_work_schedule_signal(&world.task, &world.map, &value, |_, _, _, _| ());
        assert_eq!(again, Err(Errno::EBUSY));
        assert_eq!(world.run(), [(1, 1)], "on the CPU of the process");
        assert_eq!(world.run(), []);
        assert_eq!(world.schedule(&prog, &value), Ok(()));
        assert_eq!(world.run(), [(1, 1)]);
    }
}

/// Observed: -16.
#[test]
fn a_callback_does_not_schedule_itself() {
    let world = World::new(MapType::ARRAY);
    let prog = Prog::sched_cls(0);
    let value = world.put(&prog, 1);
    let answers = Arc::new(Mutex::new(Vec::new()));
    let (task, noted) = (world.task.clone(), Arc::clone(&answers));
    let answer = prog.task_work_schedule_signal(
        &world.task,
        &world.map,
        &value,
        move |prog, map, _, value| {
            let answer = prog.task_work_schedule_signal(&task, map, value, |_, _, _, _| ());
            noted.lock().expect("log").push(answer);
        },
    );
    assert_eq!(answer, Ok(()));
    world.run();
    assert_eq!(*answers.lock().expect("log"), [Err(Errno::EBUSY)]);
}

/// Observed, of four.
#[test]
fn what_was_scheduled_last_runs_first() {
    let world = World::new(MapType::ARRAY);
    let prog = Prog::sched_cls(0);
    for key in 0..4 {
        let value = world.put(&prog, key);
        assert_eq!(world.schedule(&prog, &value), Ok(()));
    }
    assert_eq!(world.run(), [(3, 1), (2, 1), (1, 1), (0, 1)]);
}

/// Observed: a deleted element's work does not run; scheduled through a pointer that is left, it is the work of the next
/// element that gets the place, which is busy then.
#[test]
fn a_work_goes_with_its_element() {
    let world = World::new(MapType::HASH);
    let prog = Prog::sched_cls(0);
    let value = world.put(&prog, 2);
    assert_eq!(world.schedule(&prog, &value), Ok(()));
    let delete = |key: u32| calls::bpf_map_delete_elem(&world.kernel, world.fd, &key.to_ne_bytes());
    assert_eq!(delete(2), Ok(()));
    assert_eq!(world.schedule(&prog, &value), Ok(()));
    let next = world.put(&prog, 3);
    assert_eq!(world.schedule(&prog, &next), Err(Errno::EBUSY));
    let next = world.put(&prog, 3);
    assert_eq!(world.schedule(&prog, &next), Ok(()), "in another place");
    assert_eq!(world.run(), [(3, 1)]);
}

/// Observed: -16.
#[test]
fn a_map_without_fd_runs_and_schedules_nothing() {
    let world = World::new(MapType::ARRAY);
    let prog = Prog::sched_cls(0);
    let value = world.put(&prog, 1);
    assert_eq!(world.schedule(&prog, &value), Ok(()));
    world.kernel.close(world.fd).expect("open");
    assert_eq!(world.schedule(&prog, &value), Err(Errno::EBUSY));
    assert_eq!(world.run(), []);
}

#[test]
fn a_process_that_ends_runs_its_works_before() {
    let world = World::new(MapType::ARRAY);
    let prog = Prog::sched_cls(0);
    let value = world.put(&prog, 1);
    assert_eq!(world.schedule(&prog, &value), Ok(()));
    world.kernel.end_owner(world.pidfd);
    assert_eq!(world.run(), [(1, 0)]);
    assert_eq!(
        world.schedule(&prog, &value),
        Ok(()),
        "too late, but nobody is told"
    );
    assert_eq!(world.run(), []);
}

#[test]
fn programs_that_break_a_rule_are_refused() {
    let (world, other) = (World::new(MapType::ARRAY), World::new(MapType::ARRAY));
    let prog = Prog::sched_cls(0);
    let value = world.put(&prog, 1);
    let schedule = |task, map| {
        let answer = prog.task_work_schedule_signal(task, map, &value, |_, _, _, _| ());
        assert_eq!(answer, Ok(()));
    };
    refuses("(EINVAL): the value is of another map", || {
        schedule(&world.task, &other.map)
    });
    let socket = world.kernel.open(OtherKind::File);
    let socket = world.kernel.object(socket).expect("open");
    refuses("(EINVAL): the object is no process", || {
        schedule(&socket, &world.map)
    });
}
