//! What differs: made as short as it can, told in words, and written as a trace that `replay` and `record` take.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::about::running_release;
use super::outcome::Found;
use crate::conform::{Case, Difference, Op, Worlds, recorded, shrink};

/// Operations that are told of at most; the trace has all.
const MOST_TOLD: usize = 20;

/// Bytes of a field that are told of at most.
const MOST_OF_A_FIELD: usize = 40;

/// Shrinks a difference, and writes it into that directory.
///
/// # Errors
///
/// Why it could not be written, or run again, in words.
pub(super) fn keep(
    dir: &Path,
    case: &Case,
    worlds: &dyn Worlds,
    ops: &[Op],
    difference: &Difference,
) -> Result<Found, String> {
    let (name, seed) = (case.family.name, case.seed);
    let shrunk = shrink(worlds, case.family, ops);
    let again = shrunk.is_some();
    let (ops, difference) = shrunk.unwrap_or_else(|| (ops.to_vec(), difference.clone()));
    let path = dir.join(format!("conform-{name}-{seed:016x}.jsonl"));
    let trace = trace(case, worlds, &ops)?;
    fs::write(&path, trace).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut text = words(&ops, &difference);
    if !again {
        text.push_str("  (not again, when it was run again)\n");
    }
    Ok(Found {
        family: name.to_owned(),
        seed,
        text,
        file: path.display().to_string(),
    })
}

/// The trace: each operation with the answer of the kernel that is right.
fn trace(case: &Case, worlds: &dyn Worlds, ops: &[Op]) -> Result<String, String> {
    let cpus = {
        let (right, _) = worlds.worlds()?;
        right.bpf().nr_cpus()
    };
    let mut header = json!({
        "trace": 1,
        "name": format!("conform-{}", case.family.name),
        "about": format!("a run of `mapemu conform` that differed, seed {:#x}", case.seed),
        "kernel": running_release(),
        "cpus": cpus,
    })
    .to_string();
    for (op, got) in recorded(worlds, ops)? {
        header.push('\n');
        header.push_str(&json!({ "do": op.0, "got": got }).to_string());
    }
    header.push('\n');
    Ok(header)
}

/// A scenario, one operation a line, and both answers to the last.
pub(super) fn words(ops: &[Op], difference: &Difference) -> String {
    let mut text = String::new();
    let left_out = ops.len().saturating_sub(MOST_TOLD);
    if left_out > 0 {
        let _written = writeln!(text, "  ({left_out} operations before)");
    }
    for (op, number) in ops.iter().zip(1..).skip(left_out) {
        let _written = writeln!(text, "  {number:>3}  {}", line(op));
    }
    let Difference { right, wrong, .. } = difference;
    let _written = writeln!(text, "       kernel:   {}", answer(right));
    let _written = writeln!(text, "       emulated: {}", answer(wrong));
    text
}

/// An operation as `map_update_elem m, key 00000000, value 01`.
fn line(op: &Op) -> String {
    let text = |field: &str| op.0.get(field).and_then(Value::as_str);
    let mut line = op.command();
    let mut separator = " ";
    if let Some(map) = text("map").or_else(|| text("mem")) {
        let _written = write!(line, " {map}");
        separator = ", ";
    }
    let rest = op.0.iter().filter(|(field, value)| {
        let said = match field.as_str() {
            "op" | "helper" | "mem" => true,
            "map" => value.is_string(),
            _ => false,
        };
        !said
    });
    for (field, value) in rest {
        let _written = match field.as_str() {
            "as" => write!(line, " as {}", plain(value)),
            _ => write!(line, "{separator}{field} {}", plain(value)),
        };
        separator = ", ";
    }
    line
}

/// An answer: its errno alone, or its fields.
fn answer(answer: &Value) -> String {
    match answer.as_object() {
        Some(fields) if fields.is_empty() => "0".to_owned(),
        Some(fields) => fields_of(fields),
        None => answer.to_string(),
    }
}

fn fields_of(fields: &Map<String, Value>) -> String {
    let field = |(name, value): (&String, &Value)| match name.as_str() {
        "err" => plain(value),
        _ => format!("{name} {}", plain(value)),
    };
    fields.iter().map(field).collect::<Vec<_>>().join(", ")
}

/// A value without quotes, cut in the middle if it is long.
fn plain(value: &Value) -> String {
    let text = match value.as_str() {
        Some("") => "\"\"".to_owned(),
        Some(text) => text.to_owned(),
        None => value.to_string(),
    };
    if text.len() <= MOST_OF_A_FIELD || !text.is_ascii() || value.is_object() || value.is_array() {
        return text;
    }
    let half = MOST_OF_A_FIELD / 2;
    let (start, end) = (&text[..half], &text[text.len() - half..]);
    format!("{start}..{end} ({} bytes)", text.len() / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conform::{Family, Step, TwoWorlds};
    use crate::trace::{Emulated, Header, Options, Tally, Trace, replay};

    /// A kernel with two CPUs, and one that has three.
    struct OneMore;

    impl Worlds for OneMore {
        fn worlds(&self) -> Result<TwoWorlds, String> {
            let with = |cpus| {
                let header = Header {
                    name: String::new(),
                    about: String::new(),
                    release: None,
                    cpus: Some(cpus),
                    json: Map::new(),
                };
                Emulated::new(&header, &Options::default()).map_err(|unfit| unfit.to_string())
            };
            Ok((Box::new(with(2)?), Box::new(with(3)?)))
        }
    }

    #[test]
    fn what_differs_is_kept_as_a_trace_with_the_right_answers() {
        let family = Family::named("percpu_array").expect("a family");
        let case = Case {
            family,
            seed: 2,
            steps: 100,
        };
        let mut difference = None;
        let ops = case.run(&OneMore, &mut |_, step, _| {
            if let Step::Differs(found) = step {
                difference = Some((**found).clone());
            }
        });
        let ops = ops.expect("two kernels").expect("they differ");
        let dir = std::env::temp_dir().join(format!("mapemu-kept-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a folder");
        let difference = difference.expect("it was told");
        let found = keep(&dir, &case, &OneMore, &ops, &difference).expect("it is kept");
        let text = fs::read(&found.file).expect("a trace");
        fs::remove_dir_all(&dir).expect("it was made");
        assert!(
            found
                .text
                .starts_with("    1  map_create as m, type percpu_array")
        );
        let trace = Trace::parse(&text).expect("a trace");
        assert!(trace.lines.len() <= 3, "{}", found.text);
        let replayed = |cpus| {
            let options = Options {
                cpus,
                release: Some("6.18.44".to_owned()),
                ..Options::default()
            };
            let mut world = Emulated::new(&trace.header, &options).expect("a kernel");
            replay(&trace, &mut world, &mut |_, _| {}).expect("a trace")
        };
        let passed = trace.lines.len() as u64;
        let right = Tally {
            passed,
            ..Tally::default()
        };
        assert_eq!(replayed(None), right);
        assert_eq!(replayed(Some(3)).failed, 1);
    }

    #[test]
    fn a_scenario_reads_like_calls() {
        let create = Op::new("map_create")
            .with("as", "m")
            .with("type", "queue")
            .with("max_entries", 1);
        let push = Op::new("helper")
            .with("helper", "map_push_elem")
            .with("map", "m")
            .with("value", "07".repeat(30));
        let difference = Difference {
            op: push.clone(),
            right: json!({ "err": "E2BIG" }),
            wrong: json!({}),
        };
        assert_eq!(
            words(&[create, push], &difference),
            "    1  map_create as m, type queue, max_entries 1\n    \
             2  helper map_push_elem m, value 07070707070707070707..07070707070707070707 (30 bytes)\n       \
             kernel:   E2BIG\n       emulated: 0\n"
        );
    }
}
