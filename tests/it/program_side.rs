//! What programs do with values and locks, and what the verifier refuses.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use mapemu::abi::{AttachType, Errno, Helper, MapType, ProgType, UpdateFlags};
use mapemu::btf::Writer;
use mapemu::calls::{self, CreateOpts};
use mapemu::helper::{Prog, verifier};
use mapemu::map::Map;
use mapemu::map::lock::SpinGuard;
use mapemu::sys::Kernel;

use crate::playing::{Emulated, Side, on_both_sides};

const RDONLY_PROG: u32 = 1 << 7;
const WRONLY_PROG: u32 = 1 << 8;
const KEY: [u8; 4] = [0; 4];

fn hash(kernel: &Kernel, map_flags: u32) -> Arc<Map> {
    let opts = CreateOpts {
        map_flags,
        ..CreateOpts::default()
    };
    let fd = calls::bpf_map_create(kernel, MapType::HASH, "", 4, 16, 4, &opts).expect("a map");
    calls::bpf_map_update_elem(kernel, fd, &KEY, &[0; 16], 0).expect("update");
    kernel.map(fd).expect("a map")
}

/// A lock at 4, bytes around it.
fn locked(kernel: &Kernel) -> Arc<Map> {
    let mut btf = Writer::new();
    let u32_id = btf.int("u32", 4);
    let u64_id = btf.int("u64", 8);
    let lock_id = btf.structure("bpf_spin_lock", 4, &[("val", u32_id, 0)]);
    let members = [("a", u32_id, 0), ("lock", lock_id, 4), ("b", u64_id, 8)];
    let value_id = btf.structure("v", 16, &members);
    let opts = CreateOpts {
        btf_fd: calls::bpf_btf_load(kernel, &btf.finish()).expect("BTF"),
        btf_key_type_id: u32_id,
        btf_value_type_id: value_id,
        ..CreateOpts::default()
    };
    let fd = calls::bpf_map_create(kernel, MapType::HASH, "", 4, 16, 4, &opts).expect("a map");
    calls::bpf_map_update_elem(kernel, fd, &KEY, &[0; 16], 0).expect("update");
    kernel.map(fd).expect("a map")
}

/// The rule that a program broke.
#[track_caller]
fn rule(program: impl FnOnce()) -> String {
    let broken = catch_unwind(AssertUnwindSafe(program)).expect_err("it is refused");
    let text = broken.downcast_ref::<String>().expect("words");
    text.clone()
}

#[test]
fn stores_are_seen_by_system_calls_at_once() {
    let kernel = Kernel::new();
    let map = hash(&kernel, 0);
    let value = Prog::sched_cls(0)
        .map_lookup_elem(&map, &KEY)
        .expect("there");
    value.store_u16(3, 0x0102);
    assert_eq!(value.load_u16(3), 0x0102, "not aligned");
    value.store_u32(6, 7);
    assert_eq!(value.load_u32(6), 7, "across two words");
    assert_eq!(value.fetch_add_u32(12, u32::MAX), 0);
    assert_eq!(
        value.fetch_add_u32(12, 2),
        u32::MAX,
        "wraps, and stays in its bytes"
    );
    assert_eq!(
        value.exchange_u64(8, 9),
        u64::from_ne_bytes(*b"\0\0\0\0\x01\0\0\0")
    );
    assert_eq!(value.compare_exchange_u64(8, 9, 10), 9);
    assert_eq!(
        value.compare_exchange_u64(8, 9, 11),
        10,
        "it is not 9 any more"
    );
    assert_eq!(value.fetch_or_u64(8, 5), 10);
    assert_eq!(value.fetch_and_u64(8, 6), 15);
    assert_eq!(value.fetch_xor_u64(8, 2), 6);
    assert_eq!(value.load_u64(8), 4);
}

#[test]
fn bytes_of_a_lock_are_not_loaded_or_stored() {
    let kernel = Kernel::new();
    let map = locked(&kernel);
    let prog = Prog::sched_cls(0);
    let value = prog.map_lookup_elem(&map, &KEY).expect("there");
    assert!(
        rule(|| {
            value.load_u32(4);
        })
        .contains("EACCES")
    );
    assert!(rule(|| value.store_u64(0, 1)).contains("EACCES"), "in part");
    value.store_u32(0, 1);
    value.store_u64(8, 2);
    let guard = prog.spin_lock(&value);
    assert_eq!(value.to_vec(), b"\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0");
    guard.spin_unlock();
}

#[test]
fn nothing_is_called_under_a_lock() {
    let kernel = Kernel::new();
    let map = locked(&kernel);
    let prog = Prog::sched_cls(0);
    let value = prog.map_lookup_elem(&map, &KEY).expect("there");
    let guard = prog.spin_lock(&value);
    assert!(rule(|| drop(prog.spin_lock(&value))).contains("EINVAL"));
    assert!(rule(|| drop(prog.map_lookup_elem(&map, &KEY))).contains("EINVAL"));
    drop(guard);
    prog.spin_lock(&value).spin_unlock();
    let plain = hash(&kernel, 0);
    let value = prog.map_lookup_elem(&plain, &KEY).expect("there");
    assert!(rule(|| drop(prog.spin_lock(&value))).contains("no struct bpf_spin_lock"));
}

#[test]
fn one_who_waits_for_a_lock_does_not_release_it() {
    let kernel = Kernel::new();
    let map = locked(&kernel);
    let value = Prog::sched_cls(0).map_lookup_elem(&map, &KEY);
    let value = value.expect("there");
    let (words, at) = value.place();
    let held = value.lock(4);
    assert!(SpinGuard::try_lock(words, at * 8 + 4).is_none());
    assert!(
        SpinGuard::try_lock(words, at * 8 + 4).is_none(),
        "still held"
    );
    drop(held);
    assert!(SpinGuard::try_lock(words, at * 8 + 4).is_some());
}

#[test]
fn locks_are_not_for_tracing_programs_and_socket_filters() {
    let kernel = Kernel::new();
    let map = locked(&kernel);
    for prog_type in [
        ProgType::SOCKET_FILTER,
        ProgType::KPROBE,
        ProgType::PERF_EVENT,
    ] {
        let refused = verifier::helper_allowed(&map, Helper::MAP_LOOKUP_ELEM, prog_type);
        assert_eq!(refused.map_err(|refused| refused.errno), Err(Errno::EINVAL));
    }
    for prog_type in [ProgType::SCHED_CLS, ProgType::XDP, ProgType::TRACING] {
        let allowed = verifier::helper_allowed(&map, Helper::MAP_LOOKUP_ELEM, prog_type);
        assert_eq!(allowed, Ok(()));
    }
}

#[test]
fn access_flags_bind_programs_only() {
    let kernel = Kernel::new();
    let prog = Prog::sched_cls(0);
    let map = hash(&kernel, RDONLY_PROG);
    let value = prog.map_lookup_elem(&map, &KEY).expect("there");
    assert_eq!(value.load_u8(0), 0);
    assert!(rule(|| value.store_u8(0, 1)).contains("EACCES"));
    let update = || {
        let _ = prog.map_update_elem(&map, &KEY, &[0; 16], UpdateFlags::ANY);
    };
    assert!(rule(update).contains("EACCES"));
    let map = hash(&kernel, WRONLY_PROG);
    let value = prog.map_lookup_elem(&map, &KEY).expect("there");
    value.store_u8(0, 1);
    assert!(
        rule(|| {
            value.load_u8(0);
        })
        .contains("EACCES")
    );
    assert!(rule(|| drop(value.to_vec())).contains("EACCES"));
}

#[test]
fn helpers_go_with_types_of_maps() {
    let kernel = Kernel::new();
    let errno = |map: &Map, helper| {
        let refused = verifier::helper_allowed(map, helper, ProgType::SCHED_CLS);
        refused.err().map(|refused| refused.errno)
    };
    let map = hash(&kernel, 0);
    assert_eq!(errno(&map, Helper::FOR_EACH_MAP_ELEM), None);
    assert_eq!(errno(&map, Helper::MAP_PUSH_ELEM), Some(Errno::EINVAL));
    assert_eq!(errno(&map, Helper::GET_LOCAL_STORAGE), Some(Errno::EINVAL));
    let opts = CreateOpts::default();
    let fd = calls::bpf_map_create(&kernel, MapType::QUEUE, "", 0, 4, 4, &opts).expect("a map");
    let map = kernel.map(fd).expect("a map");
    assert_eq!(errno(&map, Helper::MAP_PUSH_ELEM), None);
    assert_eq!(errno(&map, Helper::MAP_LOOKUP_ELEM), Some(Errno::EACCES));
    assert_eq!(
        errno(&map, Helper::FOR_EACH_MAP_ELEM),
        Some(Errno::ENOTSUPP)
    );
}

#[test]
fn a_record_is_submitted_or_discarded() {
    let kernel = Kernel::new();
    let opts = CreateOpts::default();
    let fd =
        calls::bpf_map_create(&kernel, MapType::RINGBUF, "", 0, 0, 4096, &opts).expect("a map");
    let map = kernel.map(fd).expect("a map");
    let prog = Prog::sched_cls(0);
    let record = prog.ringbuf_reserve(&map, 8, 0).expect("room");
    record.write(0, &[1; 8]);
    record.submit(0);
    let forgotten = || drop(prog.ringbuf_reserve(&map, 8, 0).expect("room"));
    assert!(rule(forgotten).contains("neither submitted nor discarded"));
    assert_eq!(prog.ringbuf_output(&map, &[0; 8], 4), Err(Errno::EINVAL));
}

#[test]
fn helpers_go_with_types_of_programs() {
    on_both_sides(|side| {
        use {Helper as H, ProgType as P};
        let helpers = [
            H::TAIL_CALL,
            H::PERF_EVENT_READ,
            H::PERF_EVENT_OUTPUT,
            H::GET_STACKID,
            H::SKB_UNDER_CGROUP,
            H::CURRENT_TASK_UNDER_CGROUP,
            H::REDIRECT_MAP,
            H::SK_REDIRECT_MAP,
            H::SOCK_MAP_UPDATE,
            H::PERF_EVENT_READ_VALUE,
            H::MSG_REDIRECT_MAP,
            H::SOCK_HASH_UPDATE,
            H::MSG_REDIRECT_HASH,
            H::SK_REDIRECT_HASH,
            H::SK_SELECT_REUSEPORT,
        ];
        let kinds = [
            (P::SOCKET_FILTER, 0),
            (P::KPROBE, 0),
            (P::SCHED_CLS, 0),
            (P::SCHED_ACT, 0),
            (P::TRACEPOINT, 0),
            (P::XDP, 0),
            (P::PERF_EVENT, 0),
            (P::CGROUP_SKB, 0),
            (P::CGROUP_SOCK, 2),
            (P::LWT_IN, 0),
            (P::LWT_OUT, 0),
            (P::LWT_XMIT, 0),
            (P::SOCK_OPS, 0),
            (P::SK_SKB, 0),
            (P::CGROUP_DEVICE, 0),
            (P::SK_MSG, 0),
            (P::RAW_TRACEPOINT, 0),
            (P::CGROUP_SOCK_ADDR, 10),
            (P::LWT_SEG6LOCAL, 0),
            (P::SK_REUSEPORT, 0),
            (P::FLOW_DISSECTOR, 0),
            (P::CGROUP_SYSCTL, 0),
            (P::RAW_TRACEPOINT_WRITABLE, 0),
            (P::CGROUP_SOCKOPT, 21),
            (P::SK_LOOKUP, 36),
            (P::NETFILTER, 45),
        ];
        let here = Emulated(Kernel::new());
        for (prog_type, attach_type) in kinds {
            let attach_type = AttachType(attach_type);
            for helper in helpers {
                let expected = here.has_helper(prog_type, attach_type, helper);
                let found = side.has_helper(prog_type, attach_type, helper);
                assert_eq!(found, expected, "{prog_type}, {helper}");
            }
        }
    });
}
