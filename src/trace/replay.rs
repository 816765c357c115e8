//! Replays a trace in a world, and judges each answer.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Map, Value, json};

use super::engine::{Answer, Engine};
use super::line::{BrokenLine, Line, Trace};
use super::request::Broken;
use super::world::World;

/// How a step ended.
#[derive(Clone, PartialEq, Debug)]
pub enum Verdict {
    /// The answer is the recorded one.
    Passed,
    /// The answer is another one.
    Failed {
        /// What was asked.
        request: Map<String, Value>,
        /// What the kernel had answered.
        recorded: Value,
        /// What this world answers.
        emulated: Value,
    },
    /// The kernel's verifier refused the program of this step.
    Skipped {
        /// So it is here, and with the same errno.
        same: bool,
    },
    /// What is missing here.
    ToCome(String),
}

/// Steps by how they ended.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Same answer.
    pub passed: u64,
    /// Another answer.
    pub failed: u64,
    /// Refused by the kernel's verifier.
    pub skipped: u64,
    /// Of those, the ones that would run here, or are refused with another errno.
    pub refused_otherwise: u64,
    /// Not emulated yet.
    pub to_come: u64,
}

impl Tally {
    /// Counts one step.
    pub fn count(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Failed { .. } => self.failed += 1,
            Verdict::Skipped { same } => {
                self.skipped += 1;
                self.refused_otherwise += u64::from(!same);
            }
            Verdict::ToCome(_) => self.to_come += 1,
        }
    }

    /// Adds another count.
    pub fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.refused_otherwise += other.refused_otherwise;
        self.to_come += other.to_come;
    }
}

/// Whether an answer is the recorded one. `*` in the recorded one stands for anything, alone or in a text.
pub fn answers_match(recorded: &Value, answer: &Value) -> bool {
    match (recorded, answer) {
        (Value::String(pattern), _) if pattern == "*" => true,
        (Value::String(pattern), Value::String(text)) => {
            pattern == text
                || pattern
                    .strip_suffix('*')
                    .is_some_and(|start| text.starts_with(start))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| answers_match(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(field, a)| b.get(field).is_some_and(|b| answers_match(a, b)))
        }
        _ => recorded == answer,
    }
}

/// The words of a panic.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without words".to_owned())
}

/// What an unsupported request's panic begins and ends with; between them is its name.
const NOT_EMULATED: (&str, &str) = ("mapemu does not emulate ", " yet");

/// What the panic begins with of a request that a running kernel is not asked.
const REFUSED: &str = "the running kernel is not asked for";

/// Answers one request; what is not emulated, or not asked, panics, and is named by that.
///
/// # Errors
///
/// [`Broken`] if it is no request.
pub fn answer_or_name(
    engine: &mut Engine<'_>,
    request: &Map<String, Value>,
    only_verify: bool,
) -> Result<Answer, Broken> {
    let answered = catch_unwind(AssertUnwindSafe(|| engine.answer(request, only_verify)));
    answered.unwrap_or_else(|panic| {
        let text = panic_text(&*panic);
        let (start, end) = NOT_EMULATED;
        let missing = text
            .strip_prefix(start)
            .and_then(|rest| rest.strip_suffix(end));
        Ok(match missing {
            Some(missing) => Answer::ToCome(missing.to_owned()),
            None if text.starts_with(REFUSED) => Answer::ToCome(text),
            None => Answer::Got(json!({ "panic": text })),
        })
    })
}

/// Whether a request uses a name: in any of its fields but `as`.
fn uses(request: &Map<String, Value>, name: &str) -> bool {
    fn is_in(value: &Value, name: &str) -> bool {
        match value {
            Value::String(text) => text == name,
            Value::Array(values) => values.iter().any(|value| is_in(value, name)),
            Value::Object(fields) => {
                fields.contains_key(name) || fields.values().any(|value| is_in(value, name))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }
    request
        .iter()
        .any(|(field, value)| field != "as" && field != "op" && is_in(value, name))
}

/// A replay that goes on where something is missing.
struct Replay<'w> {
    engine: Engine<'w>,
    /// Names whose objects are to come, and what that needs.
    missing: Vec<(String, String)>,
}

impl Replay<'_> {
    fn judge(&mut self, line: &Line) -> Result<Verdict, Broken> {
        let recorded = line
            .recorded
            .as_ref()
            .ok_or_else(|| Broken("a step without a recorded answer".to_owned()))?;
        let refused = recorded.get("verifier").is_some();
        let named = line.request.get("as").and_then(Value::as_str);
        self.missing
            .retain(|(name, _)| Some(name.as_str()) != named);
        let user_of = |(name, _): &&(String, String)| uses(&line.request, name);
        let answer = match self.missing.iter().find(user_of) {
            Some((_, what)) => Answer::ToCome(what.clone()),
            None => answer_or_name(&mut self.engine, &line.request, refused)?,
        };
        if let (Answer::ToCome(what), Some(name)) = (&answer, named) {
            self.missing.push((name.to_owned(), what.clone()));
        }
        Ok(match answer {
            Answer::Got(emulated) if refused => Verdict::Skipped {
                same: answers_match(recorded, &emulated),
            },
            Answer::Allowed | Answer::ToCome(_) if refused => Verdict::Skipped { same: false },
            Answer::Allowed => unreachable!("only steps that were refused ask for no more"),
            Answer::ToCome(what) => Verdict::ToCome(what),
            Answer::Got(emulated) if answers_match(recorded, &emulated) => Verdict::Passed,
            Answer::Got(emulated) => Verdict::Failed {
                request: line.request.clone(),
                recorded: recorded.clone(),
                emulated,
            },
        })
    }
}

/// Replays a trace from its start; tells of each step by the number of its line.
///
/// # Errors
///
/// [`BrokenLine`] for the first line that is no request.
pub fn replay(
    trace: &Trace,
    world: &mut dyn World,
    tell: &mut dyn FnMut(usize, &Verdict),
) -> Result<Tally, BrokenLine> {
    let mut replay = Replay {
        engine: Engine::new(world),
        missing: Vec::new(),
    };
    let mut tally = Tally::default();
    for line in &trace.lines {
        let number = line.number;
        let verdict = replay
            .judge(line)
            .map_err(|broken| BrokenLine { number, broken })?;
        tally.count(&verdict);
        tell(number, &verdict);
    }
    Ok(tally)
}
