//! Maps without keys: queues, stacks, Bloom filters.

use super::associative::MAP;
use super::family::{Facts, Operations};
use super::{Chance, Op};
use crate::abi::{MapFlags, MapType};

/// A map, and the values that its operations use.
#[derive(Debug)]
pub(super) struct Keyless {
    filter: bool,
    values: Vec<Vec<u8>>,
}

impl Keyless {
    pub(super) fn new(facts: &Facts, chance: &mut Chance) -> (Vec<Op>, Self) {
        let map_type = facts.map_type;
        let filter = map_type == MapType::BLOOM_FILTER;
        let value_size = *chance.pick(&[1, 4, 8, 3, 12, 16, 33]);
        let max_entries = chance.between(1, 20);
        let mut flags = MapFlags::empty();
        let mut create = Op::new("map_create")
            .with("as", MAP)
            .with(
                "type",
                map_type.name().unwrap_or_default().to_ascii_lowercase(),
            )
            .number("value_size", value_size as u64)
            .number("max_entries", max_entries as u64);
        if filter {
            flags |= MapFlags::ZERO_SEED;
            create = create.number("map_extra", chance.below(16) as u64);
        }
        if chance.one_in(10) {
            flags |= *chance.pick(&[
                MapFlags::RDONLY,
                MapFlags::WRONLY,
                MapFlags::RDONLY_PROG,
                MapFlags::WRONLY_PROG,
            ]);
        }
        create = create.number("map_flags", flags.bits().into());
        let values = (0..max_entries * 3)
            .map(|_| chance.bytes(value_size))
            .collect();
        (vec![create], Self { filter, values })
    }

    fn command(&self, chance: &mut Chance) -> Op {
        let commands = &[
            (8, "map_update_elem"),
            (5, "map_lookup_elem"),
            (6, "map_lookup_and_delete_elem"),
            (1, "map_delete_elem"),
            (1, "map_get_next_key"),
        ];
        let command = *chance.weighted(commands);
        let mut op = Op::new(command).with("map", MAP);
        let gives = command == "map_update_elem" || self.filter && command == "map_lookup_elem";
        if gives {
            op = op.bytes("value", chance.pick::<Vec<u8>>(&self.values));
            if command == "map_lookup_elem" {
                op = op.with("value_in", true);
            }
        }
        if chance.one_in(4) {
            let flags = &[(6, 0), (4, 2), (1, 1), (1, 3), (1, 4), (1, u64::MAX)];
            op = op.number("flags", *chance.weighted(flags));
        }
        if chance.one_in(20) {
            op = op.with("key", "00000000");
        }
        if chance.one_in(40) {
            let kind = *chance.pick(&["bad", "null"]);
            op = op.with("value_ptr", kind);
        }
        op
    }

    fn helper(&self, chance: &mut Chance) -> Op {
        let commands = &[
            (5, "map_push_elem"),
            (4, "map_peek_elem"),
            (4, "map_pop_elem"),
        ];
        let command = *chance.weighted(commands);
        let mut op = Op::new("helper").with("helper", command).with("map", MAP);
        if self.filter || command == "map_push_elem" {
            op = op.bytes("value", chance.pick::<Vec<u8>>(&self.values));
        }
        if command == "map_push_elem" {
            op = op.number("flags", *chance.weighted(&[(6, 0), (4, 2), (1, 1), (1, 4)]));
        }
        op
    }
}

impl Operations for Keyless {
    fn next(&mut self, chance: &mut Chance) -> Op {
        match chance.below(100) {
            0..60 => self.command(chance),
            60..90 => self.helper(chance),
            90..94 => Op::new("set_cpu").with("cpu", chance.below(2)),
            94..97 => Op::new("walk").with("map", MAP),
            97..99 => Op::new("map_lookup_batch")
                .with("map", MAP)
                .with("count", chance.below(4)),
            _ => Op::new("obj_get_info_by_fd").with("map", MAP),
        }
    }

    /// A filter is asked for every value; of the others only the next value shows.
    fn check(&self) -> Vec<Op> {
        let ask = |value: &Vec<u8>| {
            let op = Op::new("map_lookup_elem").with("map", MAP);
            op.bytes("value", value).with("value_in", true)
        };
        let asked = if self.filter { self.values.len() } else { 1 };
        self.values.iter().take(asked).map(ask).collect()
    }
}
