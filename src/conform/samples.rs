//! The buffer of a perf event, which programs write samples to.

use serde_json::Value;

use super::{Chance, Op};
use crate::abi::PAGE_SIZE;

/// The event whose buffer it is: the first one around the map.
const EVENT: &str = "o0";

/// The mapping.
const BUFFER: &str = "samples";

/// Where `data_head`, `data_tail`, `data_offset` and `data_size` are in the first page.
const POSITIONS: usize = 1024;
const DATA_TAIL: usize = POSITIONS + 8;

/// How the buffer of a case is mapped, and what was seen in it.
#[derive(Debug)]
pub(super) struct Samples {
    prot: &'static str,
    data_pages: usize,
    /// Records are looked at. Those of lost samples tell the event's id, which is another one on each side.
    shows_records: bool,
    /// The last `data_head`.
    head: Option<String>,
}

impl Samples {
    pub(super) fn new(chance: &mut Chance) -> Self {
        let (prot, data_pages, shows_records) =
            *chance.pick(&[("rw", 64, true), ("r", 1, true), ("rw", 1, false)]);
        Self {
            prot,
            data_pages,
            shows_records,
            head: None,
        }
    }

    fn mem(op: &str, off: usize) -> Op {
        Op::new(op).with("mem", BUFFER).with("off", off)
    }

    fn positions() -> Op {
        Self::mem("mem_read", POSITIONS).with("len", 32)
    }

    /// What user space does with it.
    pub(super) fn next(&self, chance: &mut Chance) -> Op {
        match chance.below(10) {
            0..4 => {
                let pages = *chance.weighted(&[(12, self.data_pages), (1, 0), (1, 2), (1, 3)]);
                Op::new("mmap")
                    .with("as", BUFFER)
                    .with("map", EVENT)
                    .with("len", (1 + pages) * PAGE_SIZE)
                    .with("prot", self.prot)
            }
            4 if chance.one_in(4) => Op::new("munmap").with("mem", BUFFER),
            5 => Op::new("poll").with("map", EVENT),
            // All that is there was read.
            6 | 7 => match &self.head {
                Some(head) => Self::mem("mem_write", DATA_TAIL).with("value", head.as_str()),
                None => Self::positions(),
            },
            _ => Self::positions(),
        }
    }

    /// All that is in it.
    pub(super) fn check(&self) -> Vec<Op> {
        let mut check = vec![Self::positions()];
        if self.shows_records {
            let len = self.data_pages * PAGE_SIZE;
            check.push(Self::mem("mem_read", PAGE_SIZE).with("len", len));
        }
        check
    }

    pub(super) fn answered(&mut self, op: &Op, answer: &Value) {
        if *op == Self::positions()
            && let Some(positions) = answer.get("value").and_then(Value::as_str)
        {
            self.head = positions.get(..16).map(str::to_owned);
        }
    }
}
