//! Maps of maps.

use serde_json::{Value, json};

use super::associative::MAP;
use super::family::{Facts, Operations};
use super::op::hex;
use super::{Chance, Op};
use crate::abi::{MapFlags, MapType};

/// Names of inner maps; the first is the template.
const INNER: [&str; 6] = ["i0", "i1", "i2", "i3", "i4", "odd"];

/// A map of maps, the keys that its operations use, and those of its inner maps.
#[derive(Debug)]
pub(super) struct MapsOfMaps {
    keys: Vec<Vec<u8>>,
    max_entries: usize,
    token: Option<String>,
}

/// Bytes of the keys and values of inner maps.
const INNER_KEY: usize = 4;
const INNER_VALUE: usize = 8;

fn inner(name: &str, map_type: &str, max_entries: u64) -> Op {
    let op = Op::new("map_create")
        .with("as", name)
        .with("type", map_type);
    let op = op
        .with("key_size", INNER_KEY)
        .with("value_size", INNER_VALUE);
    op.with("max_entries", max_entries)
}

impl MapsOfMaps {
    pub(super) fn new(facts: &Facts, chance: &mut Chance) -> (Vec<Op>, Self) {
        let array = facts.map_type == MapType::ARRAY_OF_MAPS;
        let max_entries = chance.between(1, 8);
        let key_size = if array {
            4
        } else {
            *chance.pick(&[4, 4, 8, 3])
        };
        let inner_type =
            *chance.pick(&["array", "hash", "lru_hash", "percpu_array", "percpu_hash"]);
        let mut setup: Vec<Op> = INNER[..5]
            .iter()
            .map(|name| inner(name, inner_type, 3))
            .collect();
        setup.push(inner(INNER[5], "array", 4));
        let mut flags = MapFlags::empty();
        if !array {
            flags |= MapFlags::ZERO_SEED;
            if chance.one_in(2) {
                flags |= MapFlags::NO_PREALLOC;
            }
        }
        let name = facts
            .map_type
            .name()
            .unwrap_or_default()
            .to_ascii_lowercase();
        setup.push(
            Op::new("map_create")
                .with("as", MAP)
                .with("type", name)
                .with("key_size", key_size)
                .with("value_size", 4)
                .with("max_entries", max_entries)
                .number("map_flags", flags.bits().into())
                .with("inner_map", INNER[0]),
        );
        let keys = (0..max_entries * 2)
            .map(|number| {
                let mut key = u32::try_from(number).unwrap_or(0).to_le_bytes().to_vec();
                key.resize(key_size, 0);
                key
            })
            .collect();
        (
            setup,
            Self {
                keys,
                max_entries,
                token: None,
            },
        )
    }

    fn key<'a>(&'a self, chance: &mut Chance) -> &'a [u8] {
        chance.pick::<Vec<u8>>(&self.keys)
    }

    fn elem(&self, chance: &mut Chance) -> Op {
        let commands = &[
            (8, "map_update_elem"),
            (6, "map_lookup_elem"),
            (4, "map_delete_elem"),
            (3, "map_get_next_key"),
            (1, "map_lookup_and_delete_elem"),
        ];
        let command = *chance.weighted(commands);
        let mut op = Op::new(command).with("map", MAP);
        op = op.bytes("key", self.key(chance));
        if command == "map_update_elem" {
            op = match chance.below(20) {
                0 => op.with("value_map", MAP),
                1 => op.with("value_fd", -1),
                2 => op.with("value_fd", 0),
                _ => op.with("value_map", *chance.pick(&INNER)),
            };
            op = op.number(
                "flags",
                *chance.weighted(&[(9, 0), (2, 1), (2, 2), (1, 4), (1, 3)]),
            );
        }
        op
    }

    fn batch(&self, chance: &mut Chance) -> Op {
        let commands = &[
            (3, "map_lookup_batch"),
            (1, "map_lookup_and_delete_batch"),
            (3, "map_update_batch"),
            (2, "map_delete_batch"),
        ];
        let command = *chance.weighted(commands);
        let count = chance.between(0, self.max_entries + 1);
        let mut op = Op::new(command)
            .with("map", MAP)
            .number("count", count as u64);
        if command.contains("lookup") {
            if let (Some(token), true) = (&self.token, chance.one_in(2)) {
                op = op.with("in_batch", token.as_str());
            }
            return op;
        }
        let mut keys = Vec::new();
        for _ in 0..count {
            keys.extend(self.key(chance));
        }
        op = op.bytes("keys", &keys);
        if command == "map_update_batch" {
            let names: Vec<Value> = (0..count).map(|_| json!(chance.pick(&INNER))).collect();
            op = op.with("value_maps", names);
        }
        op
    }

    /// A lookup in the map that is found under a key, or in an inner map itself.
    fn nested(&self, chance: &mut Chance) -> Op {
        let inner_key = hex(&u32::try_from(chance.below(4)).unwrap_or(0).to_le_bytes());
        if chance.one_in(3) {
            return Op::new("map_update_elem")
                .with("map", *chance.pick(&INNER))
                .with("key", inner_key)
                .bytes("value", &chance.bytes(INNER_VALUE));
        }
        let mut op = Op::new("helper")
            .with("helper", "map_lookup_elem")
            .with("map", MAP)
            .bytes("key", self.key(chance))
            .with("inner_key", inner_key);
        if chance.one_in(3) {
            op = op.bytes("store", &chance.bytes(INNER_VALUE));
        }
        op
    }
}

impl Operations for MapsOfMaps {
    fn next(&mut self, chance: &mut Chance) -> Op {
        match chance.below(100) {
            0..55 => self.elem(chance),
            55..70 => self.batch(chance),
            70..92 => self.nested(chance),
            92..95 => Op::new("set_cpu").with("cpu", chance.below(2)),
            95..99 => Op::new("walk").with("map", MAP),
            _ => Op::new("obj_get_info_by_fd").with("map", MAP),
        }
    }

    fn check(&self) -> Vec<Op> {
        let mut check = vec![Op::new("walk").with("map", MAP)];
        for key in &self.keys {
            check.push(
                Op::new("map_lookup_elem")
                    .with("map", MAP)
                    .bytes("key", key),
            );
        }
        check
    }

    fn answered(&mut self, _op: &Op, answer: &Value) {
        if let Some(token) = answer.get("out_batch").and_then(Value::as_str) {
            self.token = Some(token.to_owned());
        }
    }
}
