//! Facts about what the verifier refuses that depend on what happened to the map.

use mapemu::conform::{Both, Worlds};
use mapemu::trace::{Answer, Engine, Options};
use serde_json::{Value, json};

use crate::common::running_kernel;

/// Does the requests on both kernels, each after the other; gives the answers to the last one.
#[track_caller]
fn last_answers(requests: &[Value]) -> Vec<Value> {
    if running_kernel().is_none() {
        return Vec::new();
    }
    let both = Both::new(Options::default()).expect("it was there just now");
    let (mut running, mut emulated) = both.worlds().expect("two kernels");
    let answers = [&mut running, &mut emulated].map(|world| {
        let mut engine = Engine::new(&mut **world);
        let mut last = Value::Null;
        for request in requests {
            let fields = request.as_object().expect("an object");
            last = match engine.answer(fields, false).expect("a request") {
                Answer::Got(answer) => answer,
                other @ (Answer::Allowed | Answer::ToCome(_)) => panic!("{request}: {other:?}"),
            };
        }
        last
    });
    answers.to_vec()
}

fn array(max_entries: u32) -> Value {
    const RDONLY_PROG: u32 = 1 << 7;
    json!({ "op": "map_create", "as": "m", "type": "array", "key_size": 4, "value_size": 8,
        "max_entries": max_entries, "map_flags": RDONLY_PROG })
}

fn lookup() -> Value {
    json!({ "op": "helper", "helper": "map_lookup_elem", "map": "m", "key": "00000000", "prog_type": 3 })
}

fn freeze() -> Value {
    json!({ "op": "map_freeze", "map": "m" })
}

#[test]
fn a_constant_array_of_several_elements_is_not_read() {
    let refused = json!({ "verifier": "ENOTSUPP" });
    for answer in last_answers(&[array(2), freeze(), lookup()]) {
        assert_eq!(answer, refused);
    }
    let zero = json!({ "value": "0000000000000000" });
    for answer in last_answers(&[array(2), lookup()]) {
        assert_eq!(answer, zero, "not frozen");
    }
    for answer in last_answers(&[array(1), freeze(), lookup()]) {
        assert_eq!(answer, zero, "one element");
    }
}

#[test]
fn an_arena_has_no_programs_before_it_has_an_address() {
    let arena = json!({ "op": "map_create", "as": "m", "type": "arena", "max_entries": 1, "map_flags": 1024 });
    let mapped = json!({ "op": "mmap", "map": "m", "as": "mem", "len": 4096 });
    for answer in last_answers(&[arena.clone(), lookup()]) {
        assert_eq!(answer, json!({ "verifier": "EINVAL" }));
    }
    for answer in last_answers(&[arena, mapped, lookup()]) {
        assert_eq!(answer, json!({ "verifier": "EACCES" }), "it has no keys");
    }
}
