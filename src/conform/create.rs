//! Maps with any attributes: most of what can be asked for is refused.

use serde_json::{Value, json};

use super::any_map::Asked;
use super::family::{Facts, Operations};
use super::objects::is_local_storage;
use super::{Chance, Op, btf, btf::Field};
use crate::abi::MapType;

/// The name of the last map that was made.
const MADE: &str = "x";

/// Creations, one after another.
#[derive(Debug)]
pub(super) struct Create {
    /// The only type that is asked for; none: all of them, and one that does not exist.
    only: MapType,
    /// Of the last map that was to be made.
    map_type: MapType,
    /// It was made.
    made: bool,
}

impl Create {
    pub(super) fn new(facts: &Facts, _: &mut Chance) -> (Vec<Op>, Self) {
        let inner = Op::new("map_create")
            .with("as", "inner")
            .with("type", "array");
        let inner = inner
            .with("key_size", 4)
            .with("value_size", 8)
            .with("max_entries", 2);
        (
            vec![
                btf::load("b", 4, 8, Field::Lock, 0),
                btf::load("t", 4, 16, Field::Timer, 0),
                btf::load_plain("p", 16, 8),
                inner,
                Op::new("file").with("as", "file"),
            ],
            Self {
                only: facts.map_type,
                map_type: facts.map_type,
                made: false,
            },
        )
    }
}

/// Sizes that some type asks for, and sizes that none has.
const KEY_SIZES: &[(usize, u64)] = &[
    (9, 4),
    (5, 0),
    (4, 8),
    (3, 16),
    (1, 1),
    (1, 7),
    (1, 5),
    (1, 260),
    (1, 600),
];
const VALUE_SIZES: &[(usize, u64)] = &[
    (5, 0),
    (9, 4),
    (9, 8),
    (2, 1),
    (2, 12),
    (1, 16),
    (1, 24),
    (1, 4096),
    (1, 65_000),
];
const MAX_ENTRIES: &[(usize, u64)] = &[
    (4, 0),
    (5, 1),
    (5, 2),
    (3, 7),
    (2, 64),
    (2, 4096),
    (1, 8192),
    (1, 4000),
];

fn map_flags(chance: &mut Chance) -> u64 {
    match chance.below(6) {
        0 => 0,
        1 => 1,
        2..=4 => (1 << chance.below(20)) | u64::from(chance.one_in(2)),
        _ => (1 << chance.below(32)) | (1 << chance.below(20)),
    }
}

/// What the process may do from here on.
fn caps(chance: &mut Chance) -> Op {
    let op = Op::new("caps");
    match chance.below(6) {
        0 => op.with("effective", json!([])),
        1 => op.with("effective", json!(["bpf"])),
        2 => op.with("effective", json!(["net_admin"])),
        _ => op.with("effective", "all"),
    }
}

/// A map whose sizes are those of its BTF: what is refused is refused for the type's sake.
fn with_btf(map_type: MapType, chance: &mut Chance) -> Op {
    let (name, sizes): (_, [u64; 2]) =
        *chance.pick(&[("b", [4, 8]), ("t", [4, 16]), ("p", [16, 8])]);
    let (key_type, key_size) = match chance.below(4) {
        0 => (0, *chance.pick(&[0, sizes[0]])),
        1 => (btf::LONG_TYPE, 8),
        _ => (btf::KEY_TYPE, sizes[0]),
    };
    let max_entries = match *chance.pick(&[0, 1, 2, 4096]) {
        4096 if map_type == MapType::CPUMAP => 64,
        other => other,
    };
    let op = Op::new("map_create")
        .with("as", MADE)
        .with("type", map_type.0)
        .number("key_size", key_size)
        .number("value_size", sizes[1])
        .number("max_entries", max_entries)
        .number("map_flags", *chance.pick(&[0, 1, 1 << 7, 1 << 10]))
        .with("btf", name)
        .number("btf_key_type_id", key_type)
        .number("btf_value_type_id", btf::VALUE_TYPE);
    match chance.one_in(10) {
        true => op.number("map_ifindex", *chance.pick(&[1, 99])),
        false => op,
    }
}

impl Operations for Create {
    fn next(&mut self, chance: &mut Chance) -> Op {
        // All that can be asked of any map is asked of these too.
        if chance.one_in(2) {
            return self.asked().op(chance);
        }
        if chance.one_in(50) {
            return caps(chance);
        }
        self.map_type = match self.only {
            MapType::UNSPEC => {
                let number = chance.below(MapType::ALL.len() + 1);
                MapType(u32::try_from(number).expect("a small number"))
            }
            only => only,
        };
        if chance.one_in(5) {
            return with_btf(self.map_type, chance);
        }
        let value_size = *chance.weighted(VALUE_SIZES);
        let max_entries = *chance.weighted(MAX_ENTRIES);
        // The running kernel is asked for small maps only; how many CPUs it was built for is no matter of its release.
        let max_entries = if value_size >= 1024 || self.map_type == MapType::CPUMAP {
            max_entries.min(64)
        } else {
            max_entries
        };
        let mut op = Op::new("map_create")
            .with("as", MADE)
            .with("type", self.map_type.0)
            .number("key_size", *chance.weighted(KEY_SIZES))
            .number("value_size", value_size)
            .number("max_entries", max_entries)
            .number("map_flags", map_flags(chance));
        if chance.one_in(4) {
            let inner = *chance.pick(&["inner", "file", "b", "no"]);
            op = op.with("inner_map", inner);
        }
        if chance.one_in(4) {
            let btf = *chance.pick(&["b", "b", "b", "inner", "no"]);
            op = op
                .with("btf", btf)
                .number("btf_key_type_id", chance.below(6) as u64);
            op = op.number("btf_value_type_id", chance.below(6) as u64);
        }
        if chance.one_in(20) {
            op = op.number("btf_vmlinux_value_type_id", chance.below(200) as u64);
        }
        if chance.one_in(6) {
            op = op.number("map_extra", chance.below(18) as u64);
        }
        if chance.one_in(12) {
            op = op.number("numa_node", *chance.pick(&[0, 1, 64, u32::MAX.into()]));
        }
        if chance.one_in(8) {
            op = op.with(
                "map_name",
                *chance.pick(&["name", "a_b.c", "not this", "0123456789abcdefg"]),
            );
        } else if chance.one_in(16) {
            op = op.with(
                "map_name_hex",
                *chance.pick(&["61c1", "d7", "61f7", "0061"]),
            );
        }
        if chance.one_in(30) {
            op = op.number("map_ifindex", *chance.pick(&[1, 99]));
        }
        op
    }

    fn check(&self) -> Vec<Op> {
        Vec::new()
    }

    fn answered(&mut self, op: &Op, answer: &Value) {
        if op.command() == "map_create" {
            self.made = answer.get("err").is_none();
        }
    }

    fn asked(&self) -> Asked {
        Asked {
            map: MADE,
            keys_are_fds: is_local_storage(self.map_type),
            gone: !self.made,
            programs: false,
        }
    }
}
