//! Makes a run that differs as short as it can.

use serde_json::Value;

use super::pair::{Pair, Step, Worlds};
use super::{Difference, Family, Op};
use crate::trace::{Answer, Engine, answer_or_name};

/// Fields that stay: without them an operation says nothing, or (without the flag for a seed of 0) the order is random.
const NEEDED: [&str; 11] = [
    "op",
    "as",
    "map",
    "type",
    "key",
    "value",
    "keys",
    "values",
    "helper",
    "map_flags",
    "data",
];

/// Runs at most, of one shrinking.
const MOST_RUNS: usize = 600;

/// The first difference of a run, and the number of operations up to it.
fn first_difference(
    worlds: &dyn Worlds,
    family: &Family,
    ops: &[Op],
) -> Option<(usize, Difference)> {
    let (mut right, mut wrong) = worlds.worlds().ok()?;
    let mut pair = Pair::new(&mut *right, &mut *wrong, family);
    for (number, op) in ops.iter().enumerate() {
        // What is no request any more, without what was before it, is no difference.
        if let Ok(Step::Differs(difference)) = pair.step(op) {
            return Some((number + 1, *difference));
        }
    }
    None
}

/// What is left of a run that differs: operations, the last of which is answered differently; nothing if it does not differ.
pub fn shrink(worlds: &dyn Worlds, family: &Family, ops: &[Op]) -> Option<(Vec<Op>, Difference)> {
    let (len, difference) = first_difference(worlds, family, ops)?;
    let mut shrinking = Shrinking {
        worlds,
        family,
        ops: ops[..len].to_vec(),
        difference,
        runs: 0,
    };
    shrinking.leave_out_operations();
    while shrinking.runs < MOST_RUNS && shrinking.simplify(without_a_field) {}
    shrinking.runs = 0;
    while shrinking.runs < MOST_RUNS && shrinking.simplify(with_a_smaller_number) {}
    while shrinking.runs < MOST_RUNS && shrinking.simplify(with_fewer_bytes) {}
    shrinking.runs = 0;
    shrinking.leave_out_operations();
    Some((shrinking.ops, shrinking.difference))
}

/// A run that becomes shorter.
struct Shrinking<'w> {
    worlds: &'w dyn Worlds,
    family: &'w Family,
    ops: Vec<Op>,
    difference: Difference,
    runs: usize,
}

impl Shrinking<'_> {
    /// Goes on with these operations if they differ still.
    fn takes(&mut self, mut fewer: Vec<Op>) -> bool {
        self.runs += 1;
        let Some((len, found)) = first_difference(self.worlds, self.family, &fewer) else {
            return false;
        };
        fewer.truncate(len);
        (self.ops, self.difference) = (fewer, found);
        true
    }

    /// The last one stays: halves of the others are left out, then quarters, at last single ones.
    fn leave_out_operations(&mut self) {
        let mut chunk = self.ops.len() / 2;
        while chunk > 0 && self.runs < MOST_RUNS {
            let mut end = self.ops.len() - 1;
            let mut shorter = false;
            while end > 0 && self.runs < MOST_RUNS {
                let start = end.saturating_sub(chunk);
                let mut fewer = self.ops.clone();
                fewer.drain(start..end);
                shorter |= self.takes(fewer);
                end = start.min(self.ops.len() - 1);
            }
            if chunk == 1 && !shorter {
                break;
            }
            chunk = (chunk / 2).max(1);
        }
    }

    /// One field of one operation becomes simpler, if the run differs still.
    fn simplify(&mut self, simpler: fn(&Op, &str) -> Vec<Op>) -> bool {
        // On the running kernel a program reads past the end of an inner per-CPU array that is smaller than the template.
        let inner = self.ops.iter().any(|op| op.0.contains_key("inner_map"));
        for number in 0..self.ops.len() {
            let fields: Vec<String> = self.ops[number].0.keys().cloned().collect();
            for field in fields {
                if inner && field == "max_entries" {
                    continue;
                }
                for op in simpler(&self.ops[number], &field) {
                    if self.runs >= MOST_RUNS {
                        return false;
                    }
                    let mut ops = self.ops.clone();
                    ops[number] = op;
                    if self.takes(ops) {
                        return true;
                    }
                }
            }
        }
        false
    }
}

/// The operation without that field.
fn without_a_field(op: &Op, field: &str) -> Vec<Op> {
    if NEEDED.contains(&field) {
        return Vec::new();
    }
    let mut fewer = op.clone();
    fewer.0.shift_remove(field);
    vec![fewer]
}

/// Fields with sizes: other numbers have meanings, and a smaller one is another operation.
const SIZES: [&str; 8] = [
    "max_entries",
    "key_size",
    "value_size",
    "count",
    "len",
    "off",
    "stop_after",
    "limit",
];

/// The operation with a smaller number in that field.
fn with_a_smaller_number(op: &Op, field: &str) -> Vec<Op> {
    let number = op.0.get(field).and_then(Value::as_u64);
    let Some(number) = number.filter(|&number| number > 1 && SIZES.contains(&field)) else {
        return Vec::new();
    };
    let with = |smaller| op.clone().with(field, smaller);
    let mut smaller = vec![1, number / 2, number - 1];
    smaller.dedup();
    smaller.into_iter().map(with).collect()
}

/// The operation with zeros in place of that field's bytes.
fn with_fewer_bytes(op: &Op, field: &str) -> Vec<Op> {
    let bytes = op.0.get(field).and_then(Value::as_str).unwrap_or_default();
    let has_bytes = ["key", "value", "keys", "values", "store", "data"].contains(&field);
    if !has_bytes || bytes.bytes().all(|digit| digit == b'0') {
        return Vec::new();
    }
    vec![op.clone().with(field, "0".repeat(bytes.len()))]
}

/// What the first kernel, which is right, answers to these operations: a trace of them.
///
/// # Errors
///
/// Why there is no such kernel, or what is no request.
pub fn recorded(worlds: &dyn Worlds, ops: &[Op]) -> Result<Vec<(Op, Value)>, String> {
    let (mut right, _) = worlds.worlds()?;
    let mut engine = Engine::new(&mut *right);
    let mut trace = Vec::with_capacity(ops.len());
    for op in ops {
        match answer_or_name(&mut engine, &op.0, false) {
            Ok(Answer::Got(got)) => trace.push((op.clone(), got)),
            // It was not asked, in the run that differed neither.
            Ok(Answer::Allowed | Answer::ToCome(_)) => {}
            Err(broken) => return Err(format!("{op}: {broken}")),
        }
    }
    Ok(trace)
}
