//! Arenas: memory without elements, mapped once.

use super::any_map::MEMORY;
use super::associative::MAP;
use super::family::{Facts, Operations};
use super::{Chance, Op};
use crate::abi::PAGE_SIZE;

/// An arena.
#[derive(Debug)]
pub(super) struct Arena {
    pages: usize,
    place: u64,
}

/// Where nothing else is in the process.
const FREE: u64 = 0x20_0000_0000;

impl Arena {
    pub(super) fn new(_: &Facts, chance: &mut Chance) -> (Vec<Op>, Self) {
        let pages = chance.between(1, 6);
        let mut place = FREE;
        if chance.one_in(4) {
            // It would lie across a multiple of 4 GiB.
            place -= PAGE_SIZE as u64;
        }
        let extra = if chance.one_in(2) { place } else { 0 };
        let create = Op::new("map_create")
            .with("as", MAP)
            .with("type", "arena")
            .with("max_entries", pages)
            .with(
                "map_flags",
                *chance.weighted(&[(6, 1 << 10), (1, 1 << 17 | 1 << 10), (1, 1 << 18 | 1 << 10)]),
            )
            .number("map_extra", extra);
        (vec![create], Self { pages, place })
    }

    fn on(op: &str) -> Op {
        Op::new(op).with("map", MAP)
    }

    fn map(&self, chance: &mut Chance) -> Op {
        let pages = *chance.weighted(&[(8, self.pages), (1, self.pages + 1), (1, 1)]);
        let prot = *chance.weighted(&[(8, "rw"), (2, "r"), (1, "w")]);
        let op = Self::on("mmap").with("as", MEMORY).with("prot", prot);
        let op = op.with("len", pages * PAGE_SIZE);
        let page = PAGE_SIZE as u64;
        let addr = *chance.weighted(&[
            (6, self.place),
            (4, 0),
            (2, FREE),
            (1, self.place + page),
            (1, self.place + 8),
            (1, u64::MAX - page + 1),
        ]);
        op.number("addr", addr)
    }
}

impl Operations for Arena {
    fn next(&mut self, chance: &mut Chance) -> Op {
        let off = match chance.below(3) {
            0 => chance.below(self.pages * PAGE_SIZE + 8),
            _ => PAGE_SIZE * chance.below(self.pages + 1),
        };
        let mem = |op: &str| Op::new(op).with("mem", MEMORY).with("off", off);
        match chance.below(100) {
            0..30 => mem("mem_read").with("len", chance.below(40)),
            30..60 => {
                let len = chance.between(1, 40);
                mem("mem_write").bytes("value", &chance.bytes(len))
            }
            60..70 => self.map(chance),
            70..75 => Op::new("munmap").with("mem", MEMORY),
            75..80 => Op::new("mprotect")
                .with("mem", MEMORY)
                .with("prot", *chance.pick(&["r", "rw", "none"])),
            80..85 => Op::new("set_cpu").with("cpu", chance.below(2)),
            _ => self.asked().op(chance),
        }
    }

    fn check(&self) -> Vec<Op> {
        let page = |page: usize| {
            let op = Op::new("mem_read").with("mem", MEMORY);
            op.with("off", page * PAGE_SIZE).with("len", PAGE_SIZE)
        };
        (0..self.pages).map(page).collect()
    }
}
