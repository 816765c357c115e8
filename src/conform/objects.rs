//! Maps that hold other objects, or that belong to them: programs, sockets, devices, processes, files, cgroups.

use serde_json::{Value, json};

use super::any_map::Asked;
use super::associative::MAP;
use super::family::{Facts, Operations};
use super::op::hex;
use super::samples::Samples;
use super::{Chance, Op, btf, btf::Field};
use crate::abi::{MapFlags, MapType};

/// A map, the keys that its operations use, and what can be put in.
#[derive(Debug)]
pub(super) struct Objects {
    map_type: MapType,
    keys: Vec<Value>,
    /// Fields of an update that give the value.
    values: Vec<(&'static str, Value)>,
    nr_cpus: usize,
    samples: Samples,
    /// Operations that make objects which nothing else needs: what is made again ends what it was.
    renewed: Vec<Op>,
}

/// An index and a part of the packet for a sample: this CPU's, those that there are, none, and bits that mean nothing.
const SAMPLE_FLAGS: &[u64] = &[
    u32::MAX as u64,
    0,
    1,
    2,
    8 << 32,
    1 | 64 << 32,
    65 << 32,
    1 << 52,
];

/// What else is returned, to all interfaces or all but one, and bits that mean nothing.
const REDIRECT_FLAGS: &[u64] = &[0, 1, 2, 3, 4, 8, 8 | 16, 16 | 1, 1 << 40];

/// Operations that make something, each with the name of what it made.
fn made(ops: Vec<Op>) -> (Vec<Op>, Vec<&'static str>) {
    let named = ops.into_iter().zip(["o0", "o1", "o2", "o3", "o4"]);
    named.map(|(op, name)| (op.with("as", name), name)).unzip()
}

/// What stands around a map of a type: operations that make it, and the names of what was made.
fn around(map_type: MapType) -> (Vec<Op>, Vec<&'static str>) {
    let prog = |kind: &str| Op::new("prog_load").with("kind", kind);
    let cgroup = || Op::new("cgroup_create");
    match map_type {
        MapType::PROG_ARRAY => made(vec![
            prog("socket_filter"),
            prog("sched_cls"),
            prog("socket_filter"),
            prog("xdp"),
        ]),
        _ if map_type.has_target_programs() => made(vec![
            prog("xdp_devmap"),
            prog("xdp_cpumap"),
            prog("xdp"),
            prog("sched_cls"),
        ]),
        MapType::PERF_EVENT_ARRAY => made(vec![
            Op::new("perf_event"),
            Op::new("perf_event").with("kind", "dummy"),
            Op::new("perf_event").with("cpu", 1),
            Op::new("file"),
        ]),
        MapType::CGROUP_ARRAY | MapType::CGRP_STORAGE => {
            made(vec![cgroup(), cgroup(), Op::new("file"), cgroup()])
        }
        MapType::TASK_STORAGE => made(vec![
            Op::new("pidfd"),
            Op::new("pidfd").with("of", "child"),
            Op::new("pidfd"),
            Op::new("file"),
        ]),
        MapType::INODE_STORAGE => made(vec![
            Op::new("file"),
            Op::new("file").with("kind", "memfd"),
            Op::new("file").with("kind", "path"),
            Op::new("file").with("kind", "memfd"),
        ]),
        _ => made(sockets(map_type)),
    }
}

/// What stands around a map that has to do with sockets; nothing around others.
fn sockets(map_type: MapType) -> Vec<Op> {
    let socket = |kind: &str| Op::new("socket").with("type", kind);
    match map_type {
        MapType::SOCKMAP | MapType::SOCKHASH => vec![
            socket("dgram").with("bind", true),
            socket("stream").with("listen", true),
            socket("stream").with("connect", "o1"),
            socket("stream"),
            socket("stream").with("family", "unix"),
        ],
        MapType::REUSEPORT_SOCKARRAY => vec![
            socket("dgram").with("bind", true).with("reuseport", true),
            socket("stream")
                .with("listen", true)
                .with("reuseport", true),
            socket("dgram").with("bind", true),
            socket("dgram"),
        ],
        MapType::XSKMAP => vec![
            socket("dgram").with("family", "xdp"),
            socket("dgram"),
            Op::new("file"),
            socket("dgram").with("family", "xdp"),
        ],
        MapType::SK_STORAGE => vec![
            socket("dgram"),
            socket("stream"),
            Op::new("file"),
            socket("dgram"),
        ],
        _ => Vec::new(),
    }
}

/// Its keys are fds of what the storage belongs to.
pub(super) const fn is_local_storage(map_type: MapType) -> bool {
    matches!(
        map_type,
        MapType::SK_STORAGE
            | MapType::INODE_STORAGE
            | MapType::TASK_STORAGE
            | MapType::CGRP_STORAGE
    )
}

/// Sizes of key and value, elements and flags.
fn attributes(map_type: MapType, chance: &mut Chance) -> (usize, usize, usize, MapFlags) {
    let max_entries = chance.between(1, 6);
    let none = MapFlags::empty();
    match map_type {
        MapType::CPUMAP | MapType::DEVMAP | MapType::DEVMAP_HASH => {
            (4, *chance.pick(&[4, 8]), max_entries, none)
        }
        MapType::SOCKHASH => (*chance.pick(&[4, 8, 3]), 4, max_entries, none),
        MapType::STACK_TRACE => (4, 8 * chance.between(1, 5), max_entries, none),
        _ if is_local_storage(map_type) => {
            (4, *chance.pick(&[4, 8, 12, 40]), 0, MapFlags::NO_PREALLOC)
        }
        _ => (4, 4, max_entries, none),
    }
}

/// Values that can be given: the objects, what is none, and numbers of devices.
fn values_of(
    map_type: MapType,
    value_size: usize,
    names: &[&str],
    chance: &mut Chance,
) -> Vec<(&'static str, Value)> {
    let bytes = |first: u32, second: u32| {
        let mut value = [first.to_le_bytes(), second.to_le_bytes()].concat();
        value.resize(value_size, 0);
        ("value", json!(hex(&value)))
    };
    match map_type {
        MapType::DEVMAP | MapType::DEVMAP_HASH => {
            vec![
                bytes(1, 0),
                bytes(1, u32::MAX),
                bytes(0, 0),
                bytes(77, 0),
                bytes(1, 99),
            ]
        }
        MapType::CPUMAP => vec![bytes(64, 0), bytes(0, 0), bytes(16385, 0), bytes(192, 99)],
        _ if is_local_storage(map_type) => (0..4)
            .map(|_| ("value", json!(hex(&chance.bytes(value_size)))))
            .collect(),
        _ => {
            let mut values: Vec<_> = names.iter().map(|name| ("value_fd", json!(name))).collect();
            values.extend([
                ("value_fd", json!(-1)),
                ("value_fd", json!(0)),
                ("value_fd", json!(MAP)),
            ]);
            values
        }
    }
}

impl Objects {
    pub(super) fn new(facts: &Facts, chance: &mut Chance) -> (Vec<Op>, Self) {
        let map_type = facts.map_type;
        let (mut setup, names) = around(map_type);
        let renewed = setup.iter().step_by(3).filter(|op| {
            let made = op.command();
            ["socket", "file", "perf_event"].contains(&made.as_str())
        });
        let renewed = renewed.cloned().collect();
        let (key_size, value_size, max_entries, flags) = attributes(map_type, chance);
        let nr_cpus = facts.nr_cpus as usize;
        // A map of CPUs is no larger than there are.
        let max_entries = match map_type {
            MapType::CPUMAP => max_entries.min(nr_cpus),
            _ => max_entries,
        };
        let mut create = Op::new("map_create")
            .with("as", MAP)
            .with(
                "type",
                map_type.name().unwrap_or_default().to_ascii_lowercase(),
            )
            .with("key_size", key_size)
            .with("value_size", value_size)
            .number("max_entries", max_entries as u64)
            .number("map_flags", flags.bits().into());
        if is_local_storage(map_type) {
            // Programs that trace cannot use a map with a lock.
            setup.push(match chance.one_in(4) {
                true => btf::load("b", key_size, value_size, Field::Lock, 0),
                false => btf::load_plain("b", key_size, value_size),
            });
            create = create
                .with("btf", "b")
                .with("btf_key_type_id", btf::KEY_TYPE);
            create = create.with("btf_value_type_id", btf::VALUE_TYPE);
        }
        setup.push(create);
        let keys = if is_local_storage(map_type) {
            let fds = names.iter().map(|name| json!({ "fd": name }));
            fds.chain([json!({ "fd": -1 }), json!({ "fd": MAP })])
                .collect()
        } else {
            let index = |number: u32| {
                let mut key = number.to_le_bytes().to_vec();
                key.resize(key_size, 0);
                json!(hex(&key))
            };
            let last = u32::try_from(max_entries).unwrap_or(0) + 2;
            (0..last).chain([u32::MAX]).map(index).collect()
        };
        let values = values_of(map_type, value_size, &names, chance);
        (
            setup,
            Self {
                map_type,
                keys,
                values,
                nr_cpus,
                samples: Samples::new(chance),
                renewed,
            },
        )
    }

    fn elem(&self, chance: &mut Chance) -> Op {
        let commands = &[
            (9, "map_update_elem"),
            (6, "map_lookup_elem"),
            (4, "map_delete_elem"),
            (3, "map_get_next_key"),
            (1, "map_lookup_and_delete_elem"),
        ];
        let command = *chance.weighted(commands);
        let mut op = Op::new(command).with("map", MAP);
        if command != "map_get_next_key" || !chance.one_in(3) {
            op = op.with("key", chance.pick(&self.keys).clone());
        }
        if command == "map_update_elem" {
            let (field, value) = chance.pick(&self.values);
            op = op.with(field, value.clone());
            if self.map_type.has_target_programs() && chance.one_in(3) {
                op = op
                    .with("value", *chance.pick(&["01000000", "40000000"]))
                    .with("value_prog", *chance.pick(&["o0", "o1", "o2", "o3", MAP]));
            }
        }
        if matches!(command, "map_update_elem" | "map_lookup_elem") && chance.one_in(3) {
            let flags = &[(4, 1), (4, 2), (2, 4), (1, 3), (1, 8), (1, u64::MAX)];
            op = op.number("flags", *chance.weighted(flags));
        }
        if chance.one_in(50) {
            let kind = *chance.pick(&["bad", "null"]);
            let pointer: &&str = chance.pick(&["key_ptr", "value_ptr"]);
            op = op.with(pointer, kind);
        }
        op
    }

    /// The program side of local storage; of the other types it has another one, or none.
    fn program_side(&self, chance: &mut Chance) -> Op {
        if matches!(self.map_type, MapType::TASK_STORAGE | MapType::CGRP_STORAGE) {
            let call = *chance.weighted(&[(3, "get"), (1, "delete")]);
            let op = Op::new("storage_helper")
                .with("map", MAP)
                .with("call", call);
            return if call == "get" {
                self.storage_get(chance, op)
            } else {
                op
            };
        }
        if is_local_storage(self.map_type) {
            return self.elem(chance);
        }
        let (helper, prog_types, flags): (_, &[u32], &[u64]) = match self.map_type {
            MapType::PROG_ARRAY => ("tail_call", &[1, 3, 3, 6], &[0]),
            MapType::CGROUP_ARRAY => ("skb_under_cgroup", &[3], &[0]),
            MapType::PERF_EVENT_ARRAY => ("perf_event_output", &[1, 3, 3, 6], SAMPLE_FLAGS),
            _ => ("redirect_map", &[6], REDIRECT_FLAGS),
        };
        let others = ["map_lookup_elem", "map_update_elem", "map_delete_elem"];
        let helper = match chance.one_in(4) {
            true => *chance.pick(&others),
            false => helper,
        };
        let op = Op::new("helper")
            .with("helper", helper)
            .with("map", MAP)
            .with("prog_type", *chance.pick(prog_types))
            .number("flags", *chance.pick(flags))
            .with("key", chance.pick(&self.keys).clone());
        match helper {
            "perf_event_output" => {
                let len = *chance.pick(&[0, 4, 5, 12, 100, 700, 1500]);
                op.bytes("store", &chance.bytes(len))
            }
            _ => op,
        }
    }

    /// What a program finds or makes, and what it leaves there.
    fn storage_get(&self, chance: &mut Chance, op: Op) -> Op {
        let value = |chance: &mut Chance| chance.pick(&self.values).1.clone();
        let mut op = op.number("flags", *chance.weighted(&[(4, 0), (6, 1), (1, 2), (1, 3)]));
        if chance.one_in(2) {
            op = op.with("value", value(chance));
        }
        if chance.one_in(2) {
            op = op.with("write", value(chance));
        }
        if self.map_type == MapType::CGRP_STORAGE && chance.one_in(2) {
            op = op.with("cgroup", *chance.pick(&["o0", "o3"]));
        }
        op
    }

    fn batch(chance: &mut Chance) -> Op {
        let command = *chance.pick(&["map_lookup_batch", "map_delete_batch"]);
        let op = Op::new(command)
            .with("map", MAP)
            .with("count", chance.below(3));
        op.with("keys", "0000000001000000")
    }
}

impl Operations for Objects {
    fn next(&mut self, chance: &mut Chance) -> Op {
        let samples = self.map_type == MapType::PERF_EVENT_ARRAY;
        match chance.below(100) {
            0..30 if samples => self.program_side(chance),
            0..60 => self.elem(chance),
            // Its storage goes with a cgroup. No program runs in this one.
            60 if self.map_type == MapType::CGRP_STORAGE && chance.one_in(4) => {
                Op::new("cgroup_remove").with("cgroup", "o1")
            }
            60..70 if samples => self.samples.next(chance),
            60..76 => self.program_side(chance),
            76..80 => Self::batch(chance),
            80..86 => Op::new("set_cpu").with("cpu", chance.below(self.nr_cpus)),
            86 | 87 if !self.renewed.is_empty() => chance.pick::<Op>(&self.renewed).clone(),
            86..97 => Op::new("walk").with("map", MAP).with("limit", 40),
            97..99 => Op::new("obj_get_info_by_fd").with("map", MAP),
            _ => Op::new("fdinfo").with("map", MAP),
        }
    }

    fn asked(&self) -> Asked {
        Asked {
            map: MAP,
            keys_are_fds: is_local_storage(self.map_type),
            gone: false,
            programs: true,
        }
    }

    fn check(&self) -> Vec<Op> {
        let mut check = vec![Op::new("walk").with("map", MAP).with("limit", 40)];
        for key in &self.keys {
            check.push(
                Op::new("map_lookup_elem")
                    .with("map", MAP)
                    .with("key", key.clone()),
            );
        }
        if self.map_type == MapType::PERF_EVENT_ARRAY {
            check.extend(self.samples.check());
        }
        check
    }

    fn answered(&mut self, op: &Op, answer: &Value) {
        self.samples.answered(op, answer);
    }
}
