//! Timers and workqueues in values: when they run, and what stops them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use mapemu::abi::{Bpf, Errno, Fd, MapType, ProgType, UpdateFlags};
use mapemu::btf::Writer;
use mapemu::calls::{self, CreateOpts};
use mapemu::helper::Prog;
use mapemu::map::{Map, Value};
use mapemu::sys::Kernel;

const VALUE_SIZE: u32 = 32;
const MONOTONIC: u64 = 1;
const ABS: u64 = 1;
const CPU_PIN: u64 = 2;

/// A map whose values are `{bpf_timer or bpf_wq; bpf_spin_lock (not in LRU_HASH); u32; u64}`.
fn map_with(kernel: &Kernel, map_type: MapType, field: &str, max_entries: u32) -> (Fd, Arc<Map>) {
    let mut btf = Writer::new();
    let u32_id = btf.int("u32", 4);
    let u64_id = btf.int("u64", 8);
    let field_id = btf.structure(field, 16, &[("a", u64_id, 0), ("b", u64_id, 8)]);
    let lock_id = btf.structure("bpf_spin_lock", 4, &[("val", u32_id, 0)]);
    let locks = map_type != MapType::LRU_HASH;
    let lock_id = if locks { lock_id } else { u32_id };
    let members = [
        ("field", field_id, 0),
        ("lock", lock_id, 16),
        ("x", u32_id, 20),
        ("y", u64_id, 24),
    ];
    let value_id = btf.structure("v", VALUE_SIZE, &members);
    let opts = CreateOpts {
        btf_fd: calls::bpf_btf_load(kernel, &btf.finish()).expect("BTF"),
        btf_key_type_id: u32_id,
        btf_value_type_id: value_id,
        ..CreateOpts::default()
    };
    let fd = calls::bpf_map_create(kernel, map_type, "", 4, VALUE_SIZE, max_entries, &opts);
    let fd = fd.expect("a map");
    (fd, kernel.map(fd).expect("a map"))
}

fn timers(kernel: &Kernel, map_type: MapType) -> (Fd, Arc<Map>) {
    map_with(kernel, map_type, "bpf_timer", 8)
}

/// What ran: CPU, key, and the time.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(u32, u32, u64)>>>);

impl Log {
    fn note(&self, prog: &Prog, map: &Map, key: &[u8]) {
        let key = u32::from_ne_bytes(key.try_into().expect("4 bytes"));
        let now = map.env.now_ns();
        self.0.lock().expect("log").push((prog.cpu(), key, now));
    }

    fn take(&self) -> Vec<(u32, u32, u64)> {
        std::mem::take(&mut *self.0.lock().expect("log"))
    }
}

fn put(prog: &Prog, map: &Map, key: u32) {
    let value = [0xff; VALUE_SIZE as usize];
    prog.map_update_elem(map, &key.to_ne_bytes(), &value, UpdateFlags::ANY)
        .expect("update");
}

fn get<'m>(prog: &Prog, map: &'m Map, key: u32) -> Value<'m> {
    prog.map_lookup_elem(map, &key.to_ne_bytes())
        .expect("there")
}

/// Makes an element with a timer that notes when it runs.
fn make(prog: &Prog, map: &Arc<Map>, key: u32, log: &Log) {
    put(prog, map, key);
    let value = get(prog, map, key);
    prog.timer_init(map, &value, MONOTONIC).expect("init");
    let log = log.clone();
    prog.timer_set_callback(&value, move |prog, map, key, _| log.note(prog, map, key))
        .expect("callback");
}

/// Makes an element with a timer, and starts it.
fn start(prog: &Prog, map: &Arc<Map>, key: u32, ns: u64, log: &Log) {
    make(prog, map, key, log);
    prog.timer_start(&get(prog, map, key), ns, 0)
        .expect("start");
}

#[test]
fn a_timer_runs_once_when_its_time_comes() {
    for map_type in [MapType::HASH, MapType::LRU_HASH, MapType::ARRAY] {
        let kernel = Kernel::new();
        let (_, map) = timers(&kernel, map_type);
        let log = Log::default();
        start(&Prog::sched_cls(1), &map, 3, 100, &log);
        kernel.advance(99);
        assert_eq!(log.take(), []);
        kernel.advance(1);
        assert_eq!(log.take(), [(1, 3, 100)], "on the CPU that started it");
        kernel.advance(1000);
        assert_eq!(log.take(), []);
        assert_eq!(kernel.env().now_ns(), 1100);
    }
}

#[test]
fn timers_run_in_the_order_of_their_times() {
    let kernel = Kernel::new();
    let (_, map) = timers(&kernel, MapType::HASH);
    let log = Log::default();
    let prog = Prog::sched_cls(0);
    start(&prog, &map, 1, 300, &log);
    start(&prog, &map, 2, 100, &log);
    start(&Prog::sched_cls(1), &map, 3, 300, &log);
    start(&prog, &map, 4, 0, &log);
    kernel.advance(300);
    let ran = log.take();
    assert_eq!(ran, [(0, 4, 0), (0, 2, 100), (0, 1, 300), (1, 3, 300)]);
}

#[test]
fn the_order_of_the_calls_is_watched() {
    let kernel = Kernel::new();
    let (_, map) = timers(&kernel, MapType::HASH);
    let prog = Prog::sched_cls(0);
    put(&prog, &map, 1);
    let value = get(&prog, &map, 1);
    let set = || prog.timer_set_callback(&value, |_, _, _, _| ());
    assert_eq!(set(), Err(Errno::EINVAL), "before init");
    assert_eq!(prog.timer_start(&value, 10, 0), Err(Errno::EINVAL));
    assert_eq!(prog.timer_cancel(&value), Err(Errno::EINVAL));
    for clock in [2, 8, 17] {
        let answer = prog.timer_init(&map, &value, clock);
        assert_eq!(answer, Err(Errno::EINVAL), "clock {clock}");
    }
    assert_eq!(prog.timer_init(&map, &value, 7), Ok(()));
    assert_eq!(prog.timer_init(&map, &value, 1), Err(Errno::EBUSY));
    assert_eq!(prog.timer_init(&map, &value, 2), Err(Errno::EINVAL));
    assert_eq!(
        prog.timer_start(&value, 10, 0),
        Err(Errno::EINVAL),
        "without a callback"
    );
    assert_eq!(prog.timer_cancel(&value), Ok(false));
    assert_eq!(set(), Ok(()));
    assert_eq!(prog.timer_start(&value, 10, 4), Err(Errno::EINVAL));
    assert_eq!(prog.timer_start(&value, 10, ABS | CPU_PIN), Ok(()));
    assert_eq!(prog.timer_cancel(&value), Ok(true));
    assert_eq!(prog.timer_cancel(&value), Ok(false));
    assert_eq!(
        prog.timer_start(&value, 10, 0),
        Err(Errno::EINVAL),
        "the callback went"
    );
    assert_eq!(set(), Ok(()));
    assert_eq!(prog.timer_start(&value, 10, 0), Ok(()));
}

#[test]
fn a_start_takes_the_place_of_the_one_before() {
    let kernel = Kernel::new();
    let (_, map) = timers(&kernel, MapType::HASH);
    let log = Log::default();
    let prog = Prog::sched_cls(0);
    start(&prog, &map, 1, 100, &log);
    kernel.advance(50);
    prog.timer_start(&get(&prog, &map, 1), 100, 0)
        .expect("start");
    kernel.advance(60);
    assert_eq!(log.take(), []);
    Prog::sched_cls(1)
        .timer_start(&get(&prog, &map, 1), 120, ABS)
        .expect("start");
    kernel.advance(60);
    assert_eq!(log.take(), [(1, 1, 120)]);
    prog.timer_start(&get(&prog, &map, 1), 5, ABS)
        .expect("start");
    kernel.run_pending();
    assert_eq!(log.take(), [(0, 1, 170)], "that time has passed");
}

#[test]
fn times_past_the_end_do_not_come() {
    let kernel = Kernel::new();
    let (_, map) = timers(&kernel, MapType::HASH);
    let log = Log::default();
    let prog = Prog::sched_cls(0);
    make(&prog, &map, 1, &log);
    let value = get(&prog, &map, 1);
    for flags in [0, ABS] {
        prog.timer_start(&value, u64::MAX - 4, flags)
            .expect("start");
        kernel.advance(1_000_000);
        assert_eq!(log.take(), []);
    }
    kernel.advance(u64::MAX);
    assert_eq!(log.take(), []);
    assert_eq!(kernel.env().now_ns(), u64::MAX >> 1);
    assert_eq!(prog.timer_cancel(&value), Ok(true));
}

#[test]
fn a_callback_starts_its_timer_again() {
    let kernel = Kernel::new();
    let (_, map) = timers(&kernel, MapType::ARRAY);
    let prog = Prog::sched_cls(0);
    let value = get(&prog, &map, 2);
    prog.timer_init(&map, &value, MONOTONIC).expect("init");
    let again = |prog: &Prog, _: &Arc<Map>, _: &[u8], value: &Value<'_>| {
        value.fetch_add_u64(24, 1);
        prog.timer_start(value, 10, 0).expect("start");
    };
    prog.timer_set_callback(&value, again).expect("callback");
    prog.timer_start(&value, 10, 0).expect("start");
    kernel.advance(95);
    assert_eq!(value.load_u64(24), 9);
}

#[test]
fn a_callback_without_delay_does_not_stop_the_clock() {
    let kernel = Kernel::new();
    let (_, map) = timers(&kernel, MapType::ARRAY);
    let prog = Prog::sched_cls(0);
    let value = get(&prog, &map, 2);
    prog.timer_init(&map, &value, MONOTONIC).expect("init");
    let again = |prog: &Prog, _: &Arc<Map>, _: &[u8], value: &Value<'_>| {
        value.fetch_add_u64(24, 1);
        prog.timer_start(value, 0, 0).expect("start");
    };
    prog.timer_set_callback(&value, again).expect("callback");
    prog.timer_start(&value, 0, 0).expect("start");
    kernel.run_pending();
    assert_eq!(value.load_u64(24), 1);
    kernel.run_pending();
    assert_eq!(value.load_u64(24), 2);
    kernel.advance(5);
    assert_eq!(value.load_u64(24), 4, "at 0, and at 5");
}

#[test]
fn in_its_callback_a_timer_is_not_cancelled() {
    let kernel = Kernel::new();
    let (_, map) = timers(&kernel, MapType::HASH);
    let prog = Prog::sched_cls(0);
    let log = Log::default();
    make(&prog, &map, 1, &log);
    let value = get(&prog, &map, 1);
    let answers = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&answers);
    let callback = move |prog: &Prog, map: &Arc<Map>, key: &[u8], value: &Value<'_>| {
        let mut noted = noted.lock().expect("answers");
        noted.push(prog.timer_cancel(value).map(|_| ()));
        noted.push(prog.timer_start(value, 0, 0));
        noted.push(prog.map_delete_elem(map, key));
        noted.push(prog.timer_start(value, 0, 0));
        noted.push(prog.timer_cancel(value).map(|_| ()));
        noted.push(prog.timer_init(map, value, MONOTONIC));
    };
    prog.timer_set_callback(&value, callback).expect("callback");
    prog.timer_start(&value, 1, 0).expect("start");
    kernel.advance(10);
    let answers = std::mem::take(&mut *answers.lock().expect("answers"));
    let inval = Err(Errno::EINVAL);
    assert_eq!(
        answers,
        [Err(Errno::EDEADLK), Ok(()), Ok(()), inval, inval, Ok(())]
    );
    assert_eq!(log.take(), [], "that callback was replaced");
}

#[test]
fn an_element_that_goes_takes_its_timer_along() {
    let key = 1_u32.to_ne_bytes();
    type Goes = fn(&Kernel, Fd);
    let ways: [(&str, Goes); 4] = [
        ("delete", |kernel, fd| {
            calls::bpf_map_delete_elem(kernel, fd, &1_u32.to_ne_bytes()).expect("delete");
        }),
        ("replace", |kernel, fd| {
            let value = [0; VALUE_SIZE as usize];
            calls::bpf_map_update_elem(kernel, fd, &1_u32.to_ne_bytes(), &value, 0)
                .expect("update");
        }),
        ("lookup and delete", |kernel, fd| {
            let mut value = [0; VALUE_SIZE as usize];
            calls::bpf_map_lookup_and_delete_elem(kernel, fd, &1_u32.to_ne_bytes(), &mut value)
                .expect("take");
            assert_eq!(value[..16], [0; 16]);
        }),
        ("the last fd", |kernel, fd| kernel.close(fd).expect("close")),
    ];
    for map_type in [MapType::HASH, MapType::LRU_HASH] {
        for (way, goes) in ways {
            let kernel = Kernel::new();
            let (fd, map) = timers(&kernel, map_type);
            let (log, prog) = (Log::default(), Prog::sched_cls(0));
            start(&prog, &map, 1, 100, &log);
            start(&prog, &map, 2, 100, &log);
            let value = get(&prog, &map, 1);
            goes(&kernel, fd);
            assert_eq!(
                prog.timer_cancel(&value),
                Err(Errno::EINVAL),
                "{map_type}: {way}"
            );
            kernel.advance(200);
            let others = if way == "the last fd" {
                vec![]
            } else {
                vec![(0, 2, 100)]
            };
            assert_eq!(log.take(), others, "{map_type}: {way}");
            let _ = prog.map_lookup_elem(&map, &key);
        }
    }
}

#[test]
fn a_batch_that_takes_elements_cancels_their_timers() {
    for map_type in [MapType::HASH, MapType::LRU_HASH] {
        let kernel = Kernel::new();
        let (fd, map) = timers(&kernel, map_type);
        let (log, prog) = (Log::default(), Prog::sched_cls(0));
        for key in 0..4 {
            start(&prog, &map, key, 100, &log);
        }
        let (mut keys, mut values, mut batch) = ([0; 32], [0; 256], [0; 4]);
        let done = calls::bpf_map_lookup_and_delete_batch(
            &kernel,
            fd,
            None,
            &mut batch,
            &mut keys,
            &mut values,
            8,
        );
        assert_eq!(done.count, 4);
        kernel.advance(200);
        assert_eq!(log.take(), []);
    }
}

#[test]
fn an_element_that_is_pushed_out_takes_its_timer_along() {
    let kernel = Kernel::new();
    let (_, map) = map_with(&kernel, MapType::LRU_HASH, "bpf_timer", 1);
    let (log, prog) = (Log::default(), Prog::sched_cls(0));
    let mut made = 0;
    while prog.map_lookup_elem(&map, &0_u32.to_ne_bytes()).is_some() || made == 0 {
        start(&prog, &map, made, 100, &log);
        made += 1;
    }
    kernel.advance(100);
    let ran = log.take();
    let left = (0..made)
        .filter(|key| prog.map_lookup_elem(&map, &key.to_ne_bytes()).is_some())
        .count();
    assert_eq!(ran.len(), left);
    assert!(ran.iter().all(|(_, key, _)| *key != 0));
}

#[test]
fn a_write_in_place_cancels_in_an_array_only() {
    let kernel = Kernel::new();
    let (log, prog) = (Log::default(), Prog::sched_cls(0));
    let value = [0; VALUE_SIZE as usize];
    let key = 1_u32.to_ne_bytes();
    let (_, map) = timers(&kernel, MapType::HASH);
    start(&prog, &map, 1, 100, &log);
    prog.map_update_elem(&map, &key, &value, UpdateFlags::LOCK)
        .expect("update");
    assert_eq!(prog.timer_cancel(&get(&prog, &map, 1)), Ok(true));
    let (_, map) = timers(&kernel, MapType::ARRAY);
    for flags in [UpdateFlags::ANY, UpdateFlags::LOCK] {
        start(&prog, &map, 1, 100, &log);
        prog.map_update_elem(&map, &key, &value, flags)
            .expect("update");
        let answer = prog.timer_cancel(&get(&prog, &map, 1));
        assert_eq!(answer, Err(Errno::EINVAL));
    }
    kernel.advance(200);
    assert_eq!(log.take(), []);
}

#[test]
fn without_an_fd_or_pin_no_timer_is_made() {
    let kernel = Kernel::new();
    let (fd, map) = timers(&kernel, MapType::HASH);
    let prog = Prog::sched_cls(0);
    put(&prog, &map, 1);
    calls::bpf_obj_pin(&kernel, fd, "/sys/fs/bpf/m").expect("pin");
    kernel.close(fd).expect("close");
    let value = get(&prog, &map, 1);
    assert_eq!(prog.timer_init(&map, &value, MONOTONIC), Ok(()));
    kernel.unlink("/sys/fs/bpf/m").expect("unlink");
    let init = |clock| prog.timer_init(&map, &value, clock);
    assert_eq!(init(MONOTONIC), Err(Errno::EPERM));
    assert_eq!(init(2), Err(Errno::EINVAL));
}

#[test]
fn a_value_shows_zeros_while_its_timer_runs() {
    let kernel = Kernel::new();
    let (fd, map) = timers(&kernel, MapType::HASH);
    start(&Prog::sched_cls(0), &map, 1, 100, &Log::default());
    let mut value = [1; VALUE_SIZE as usize];
    calls::bpf_map_lookup_elem(&kernel, fd, &1_u32.to_ne_bytes(), &mut value).expect("there");
    assert_eq!(value[..20], [0; 20]);
    assert_eq!(value[20..], [0xff; 12]);
}

#[test]
fn work_is_done_soon_and_once() {
    let kernel = Kernel::new();
    let (_, map) = map_with(&kernel, MapType::HASH, "bpf_wq", 8);
    let (log, prog) = (Log::default(), Prog::sched_cls(1));
    put(&prog, &map, 5);
    let value = get(&prog, &map, 5);
    let set = || {
        let log = log.clone();
        prog.wq_set_callback(&value, move |prog, map, key, _| log.note(prog, map, key))
    };
    assert_eq!(prog.wq_start(&value, 0), Err(Errno::EINVAL));
    assert_eq!(set(), Err(Errno::EINVAL));
    assert_eq!(prog.wq_init(&map, &value, 1), Err(Errno::EINVAL));
    assert_eq!(prog.wq_init(&map, &value, 0), Ok(()));
    assert_eq!(prog.wq_init(&map, &value, 0), Err(Errno::EBUSY));
    assert_eq!(prog.wq_start(&value, 0), Err(Errno::EINVAL));
    assert_eq!(set(), Ok(()));
    assert_eq!(prog.wq_start(&value, 1), Err(Errno::EINVAL));
    assert_eq!(prog.wq_start(&value, 0), Ok(()));
    assert_eq!(prog.wq_start(&value, 0), Ok(()));
    assert_eq!(log.take(), []);
    kernel.run_pending();
    assert_eq!(log.take(), [(1, 5, 0)]);
    assert_eq!(prog.wq_start(&value, 0), Ok(()));
    prog.map_delete_elem(&map, &5_u32.to_ne_bytes())
        .expect("delete");
    kernel.run_pending();
    assert_eq!(log.take(), []);
}

/// The rule that a program broke.
#[track_caller]
fn rule<R>(program: impl FnOnce() -> R) -> String {
    let broken = catch_unwind(AssertUnwindSafe(program)).map(|_| ());
    let broken = broken.expect_err("it is refused");
    let text = broken.downcast_ref::<String>().cloned();
    text.unwrap_or_else(|| broken.downcast_ref::<&str>().expect("words").to_string())
}

#[test]
fn what_the_verifier_refuses() {
    let kernel = Kernel::new();
    let (_, map) = timers(&kernel, MapType::HASH);
    let (_, other) = timers(&kernel, MapType::HASH);
    let (_, work) = map_with(&kernel, MapType::HASH, "bpf_wq", 8);
    let prog = Prog::sched_cls(0);
    for map in [&map, &other, &work] {
        put(&prog, map, 1);
    }
    let value = get(&prog, &map, 1);
    assert!(rule(|| prog.timer_init(&other, &value, 0)).contains("of another map"));
    assert!(rule(|| prog.timer_init(&work, &value, 0)).contains("no struct bpf_timer"));
    assert!(rule(|| prog.wq_init(&map, &value, 0)).contains("no Workqueue"));
    let tracing = Prog::new(ProgType::KPROBE, 0);
    assert!(rule(|| tracing.timer_init(&map, &value, 0)).contains("tracing"));
    let guard = prog.spin_lock(&value);
    assert!(rule(|| prog.timer_cancel(&value)).contains("no helper is called"));
    guard.spin_unlock();
}

/// Puts its key back when it is dropped.
struct PutsBack(Arc<Map>);

impl Drop for PutsBack {
    fn drop(&mut self) {
        put(&Prog::sched_cls(0), &self.0, 77);
    }
}

#[test]
fn what_a_callback_holds_is_dropped_without_a_lock() {
    for map_type in [MapType::HASH, MapType::LRU_HASH] {
        let kernel = Kernel::new();
        let (fd, map) = timers(&kernel, map_type);
        let prog = Prog::sched_cls(0);
        let hold = || {
            put(&prog, &map, 1);
            let value = prog.map_lookup_elem(&map, &1_u32.to_ne_bytes());
            let value = value.expect("just put");
            prog.timer_init(&map, &value, MONOTONIC).expect("init");
            let held = PutsBack(Arc::clone(&map));
            let callback = move |_: &Prog, _: &Arc<Map>, _: &[u8], _: &Value<'_>| {
                let _ = &held;
            };
            prog.timer_set_callback(&value, callback).expect("set");
        };
        let has_77 = || {
            let key = 77_u32.to_ne_bytes();
            calls::bpf_map_delete_elem(&kernel, fd, &key).is_ok()
        };
        hold();
        put(&prog, &map, 1);
        assert!(has_77(), "by replacing");
        hold();
        calls::bpf_map_delete_elem(&kernel, fd, &1_u32.to_ne_bytes()).expect("it is there");
        assert!(has_77(), "by deleting");
        if map_type == MapType::LRU_HASH {
            hold();
            for key in 100..200_u32 {
                put(&prog, &map, key);
                // Used as much as the first one.
                let _ = prog.map_lookup_elem(&map, &key.to_ne_bytes());
            }
            let old = calls::bpf_map_delete_elem(&kernel, fd, &1_u32.to_ne_bytes());
            assert_eq!(old, Err(Errno::ENOENT), "evicted");
        }
    }
}
