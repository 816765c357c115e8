//! Ring buffers: programs that write, user space that reads.

use serde_json::{Value, json};

use super::associative::MAP;
use super::family::{Facts, Operations};
use super::op::hex;
use super::{Chance, Op};
use crate::abi::MapFlags;

/// A ring buffer.
#[derive(Debug)]
pub(super) struct Ringbuf {
    size: usize,
    /// Old records go where there is no room: a reader finds what is there by chance.
    overwrites: bool,
}

impl Ringbuf {
    pub(super) fn new(facts: &Facts, chance: &mut Chance) -> (Vec<Op>, Self) {
        let size = *chance.pick(&[4096, 8192]);
        let name = facts
            .map_type
            .name()
            .unwrap_or_default()
            .to_ascii_lowercase();
        let overwrites = chance.one_in(8);
        let flags = match overwrites {
            true => MapFlags::RB_OVERWRITE,
            false => MapFlags::empty(),
        };
        let create = Op::new("map_create").with("as", MAP).with("type", name);
        let create = create
            .with("max_entries", size)
            .number("map_flags", flags.bits().into());
        (vec![create], Self { size, overwrites })
    }

    /// A program: records are reserved, then submitted or discarded.
    fn program(&self, chance: &mut Chance) -> Op {
        let mut steps: Vec<Value> = Vec::new();
        let mut in_hand = Vec::new();
        for number in 0..chance.between(1, 4) {
            let len = *chance.weighted(&[(4, 8), (3, 20), (2, 100), (2, 700), (1, 3000)]);
            let flags = *chance.weighted(&[(6, 0), (1, 1), (1, 2), (1, 4)]);
            match chance.below(4) {
                0 => steps.push(json!({ "query": chance.below(5) })),
                1 => {
                    let len = len.min(400);
                    steps.push(json!({ "output": hex(&chance.bytes(len)), "flags": flags }));
                }
                _ => {
                    let name = format!("r{number}");
                    let data = hex(&chance.bytes(len.min(16)));
                    steps.push(json!({ "reserve": len, "as": name, "data": data }));
                    in_hand.push((name, flags));
                }
            }
        }
        if chance.one_in(2) {
            in_hand.reverse();
        }
        for (name, flags) in in_hand {
            let what = if chance.one_in(4) {
                "discard"
            } else {
                "submit"
            };
            steps.push(json!({ what: name, "flags": flags }));
        }
        Op::new("ringbuf").with("map", MAP).with("steps", steps)
    }
}

impl Operations for Ringbuf {
    fn next(&mut self, chance: &mut Chance) -> Op {
        match chance.below(100) {
            0..40 => self.program(chance),
            40..70 if self.overwrites => {
                let op = Op::new("ringbuf_set_pos").with("map", MAP);
                op.with("pos", 8 * chance.below(self.size))
            }
            40..50 => {
                let op = Op::new("ringbuf_read").with("map", MAP);
                op.with("limit", chance.between(1, 5))
            }
            50..70 => {
                let op = Op::new("ringbuf_consume").with("map", MAP);
                if chance.one_in(2) {
                    return op;
                }
                op.with("limit", chance.below(4))
                    .with("keep", chance.one_in(4))
            }
            70..80 => Op::new("ringbuf_positions").with("map", MAP),
            80..85 => readiness(chance),
            85..90 => Op::new("set_cpu").with("cpu", chance.below(2)),
            90..95 => {
                let command = *chance.pick(&["map_lookup_elem", "map_update_elem"]);
                let op = Op::new(command).with("map", MAP).with("key", "00000000");
                op.with("value", "00000000")
            }
            _ => {
                let len = *chance.pick(&[4096, 8192, self.size * 2 + 4096]);
                let offset = *chance.pick(&[0, 4096, 8192]);
                let prot = *chance.pick(&["r", "rw", "w"]);
                let op = Op::new("mmap").with("map", MAP).with("len", len);
                op.with("offset", offset).with("prot", prot)
            }
        }
    }

    fn check(&self) -> Vec<Op> {
        if self.overwrites {
            return vec![Op::new("ringbuf_positions").with("map", MAP)];
        }
        vec![
            Op::new("ringbuf_consume")
                .with("map", MAP)
                .with("keep", true),
        ]
    }
}

/// Whether there is something to do, as either call says it.
fn readiness(chance: &mut Chance) -> Op {
    let call: &&str = chance.pick(&["poll", "epoll"]);
    Op::new(call).with("map", MAP)
}

/// A ring buffer that user space writes.
#[derive(Debug)]
pub(super) struct UserRingbuf;

impl UserRingbuf {
    pub(super) fn new(facts: &Facts, _: &mut Chance) -> (Vec<Op>, Self) {
        let name = facts
            .map_type
            .name()
            .unwrap_or_default()
            .to_ascii_lowercase();
        let create = Op::new("map_create").with("as", MAP).with("type", name);
        (vec![create.with("max_entries", 4096)], Self)
    }
}

impl Operations for UserRingbuf {
    fn next(&mut self, chance: &mut Chance) -> Op {
        match chance.below(100) {
            0..20 => {
                let len = *chance.pick(&[8, 16, 3, 0, 100, 700, 4080, 4096]);
                let op = Op::new("ringbuf_write").with("map", MAP);
                op.bytes("data", &chance.bytes(len))
            }
            20..60 => {
                let len = *chance.pick(&[8, 8, 16, 3, 0, 100]);
                let mut op = Op::new("ringbuf_produce").with("map", MAP);
                op = op.bytes("data", &chance.bytes(len));
                match chance.below(12) {
                    0 => op = op.with("bits", 1_u32 << 30),
                    1 => op = op.with("bits", 1_u32 << 31),
                    2 => op = op.with("len", *chance.pick(&[0, 4, 4088, 5000])),
                    3 => op = op.with("step", *chance.pick(&[0, 8, 12, 4096])),
                    _ => {}
                }
                op
            }
            60..82 => {
                let mut op = Op::new("user_ringbuf_drain").with("map", MAP);
                if chance.one_in(3) {
                    op = op.with("stop_after", chance.between(1, 3));
                }
                op.number("flags", *chance.weighted(&[(4, 0), (1, 1), (1, 2), (1, 4)]))
            }
            82..85 => Op::new("set_cpu").with("cpu", chance.below(2)),
            // Both positions at one place: the buffer is empty and whole again.
            85..92 => Op::new("ringbuf_set_pos")
                .with("map", MAP)
                .with("pos", 8 * chance.below(4)),
            92..97 => Op::new("ringbuf_positions").with("map", MAP),
            _ => readiness(chance),
        }
    }

    fn check(&self) -> Vec<Op> {
        vec![Op::new("ringbuf_positions").with("map", MAP)]
    }
}
