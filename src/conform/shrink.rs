//! Makes a run that differs as short as it can.

use super::pair::{Pair, Step, Worlds};
use super::{Difference, Family, Op};

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
    let (len, mut difference) = first_difference(worlds, family, ops)?;
    let mut ops = ops[..len].to_vec();
    let mut runs = 0;
    // The last one stays: halves of the others are left out, then quarters, at last single ones.
    let mut chunk = ops.len() / 2;
    while chunk > 0 && runs < MOST_RUNS {
        let mut end = ops.len() - 1;
        let mut shorter = false;
        while end > 0 && runs < MOST_RUNS {
            let start = end.saturating_sub(chunk);
            let mut fewer = ops.clone();
            fewer.drain(start..end);
            runs += 1;
            if let Some((len, found)) = first_difference(worlds, family, &fewer) {
                fewer.truncate(len);
                shorter = true;
                (ops, difference) = (fewer, found);
            }
            end = start.min(ops.len() - 1);
        }
        if chunk == 1 && !shorter {
            break;
        }
        chunk = (chunk / 2).max(1);
    }
    while runs < MOST_RUNS {
        let Some((fewer, found)) = without_a_field(worlds, family, &ops, &mut runs) else {
            break;
        };
        (ops, difference) = (fewer, found);
    }
    Some((ops, difference))
}

/// The run without one field of one operation, if it differs still.
fn without_a_field(
    worlds: &dyn Worlds,
    family: &Family,
    ops: &[Op],
    runs: &mut usize,
) -> Option<(Vec<Op>, Difference)> {
    for (number, op) in ops.iter().enumerate() {
        for field in op.0.keys() {
            if NEEDED.contains(&field.as_str()) || *runs >= MOST_RUNS {
                continue;
            }
            let mut fewer = ops.to_vec();
            fewer[number].0.shift_remove(field);
            *runs += 1;
            if let Some((len, found)) = first_difference(worlds, family, &fewer) {
                fewer.truncate(len);
                return Some((fewer, found));
            }
        }
    }
    None
}
