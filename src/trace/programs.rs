//! The operations of the program side.

use serde_json::{Map, Value, json};

use super::around::one_of;
use super::engine::{Engine, Outcome};
use super::events::{MOST_TOUCHED, stop_return};
use super::request::{Broken, Request, Stop, hex};
use super::world::{
    Atomic, AtomicOp, Deletes, ForEach, HelperAnswer, HelperCall, MapFacts, Step, StepAnswer,
    StorageCall, Timer,
};
use crate::abi::{Errno, MapType, ProgType};

/// Calls of a callback that answers show at most.
const MOST_SEEN: usize = 128;

/// Steps that go through a pointer.
const STEPS: [&str; 10] = [
    "read",
    "write",
    "add",
    "atomic",
    "timer_init",
    "timer_set_callback",
    "timer_start",
    "timer_cancel",
    "lock",
    "unlock",
];

/// Bytes that are cut or filled up with zeros.
fn sized(mut bytes: Vec<u8>, size: usize) -> Vec<u8> {
    bytes.resize(size, 0);
    bytes
}

impl Engine<'_> {
    pub(super) fn helper(&mut self, o: Request<'_>) -> Outcome {
        let (map, facts) = self.map(o)?;
        let inner_key = match o.bytes("inner_key")? {
            None => None,
            Some(key) => {
                let inner = facts.inner.as_ref().ok_or(Errno::EBADF)?;
                Some(sized(key, inner.key_size))
            }
        };
        let skip = o.list("skip")?.iter();
        let call = HelperCall {
            map,
            facts: &facts,
            prog_type: ProgType(o.u32_or("prog_type", ProgType::SOCKET_FILTER.0)?),
            helper: o.need_text("helper")?,
            key: sized(o.bytes_or_none("key")?, facts.key_size),
            value: sized(o.bytes_or_none("value")?, facts.value_size),
            flags: o.u64("flags")?,
            cpu: o.u32("cpu")?,
            store: o.bytes_or_none("store")?,
            inner_key,
            skip: skip
                .map(|range| Request::range("skip", range))
                .collect::<Result<_, _>>()?,
        };
        Ok(match self.world.helper(&call)? {
            HelperAnswer::Value(value) if facts.inner.is_none() => self.out_value(&facts, &value),
            HelperAnswer::Value(value) => json!({ "value": hex(&value) }),
            HelperAnswer::Null { outer: false } => json!({ "null": true }),
            HelperAnswer::Null { outer: true } => json!({ "null": true, "outer": true }),
            HelperAnswer::Ret(ret, None) => json!({ "ret": ret }),
            HelperAnswer::Ret(ret, Some(value)) => json!({ "ret": ret, "value": hex(&value) }),
        })
    }

    // --- several helper calls in one program ------------------------------------------------------------------------

    pub(super) fn program(&mut self, o: Request<'_>) -> Outcome {
        let (map, facts) = self.map(o)?;
        let mut pointers = Vec::new();
        let steps = o
            .list("steps")?
            .iter()
            .map(|step| program_step(&facts, Request::of(step)?, &mut pointers))
            .collect::<Result<Vec<_>, Broken>>()?;
        let prog_type = ProgType(o.u32_or("prog_type", ProgType::SCHED_CLS.0)?);
        let answers = self.world.program(map, &facts, prog_type, &steps)?;
        let results: Vec<Value> = answers
            .into_iter()
            .map(|answer| match answer {
                StepAnswer::Number(number) => json!(number),
                StepAnswer::Bytes(None) => Value::Null,
                StepAnswer::Bytes(Some(bytes)) => hex(&bytes),
            })
            .collect();
        Ok(json!({ "results": results }))
    }

    // --- callbacks --------------------------------------------------------------------------------------------------

    pub(super) fn for_each(&mut self, o: Request<'_>) -> Outcome {
        let (map, facts) = self.map(o)?;
        let deletes = match o.get("delete") {
            None => Deletes::Nothing,
            Some(Value::String(own)) if own == "self" => Deletes::Own,
            Some(other) => {
                let other = Request::of(other)?;
                let key = sized(other.bytes_or_none("key")?, facts.key_size);
                Deletes::At(other.u64("at")?, key)
            }
        };
        let walk = ForEach {
            map,
            facts: &facts,
            flags: o.u64("flags")?,
            stop_after: o.u64("stop_after")?,
            stop_return: stop_return(o)?,
            deletes,
            room: MOST_SEEN,
        };
        let (ret, seen) = self.world.for_each(&walk)?;
        let seen: Vec<Value> = seen
            .into_iter()
            .map(|call| {
                let mut row = Map::new();
                row.insert("key".to_owned(), hex(&call.key));
                row.insert("value".to_owned(), hex(&call.value));
                if let Some(deleted) = call.deleted {
                    row.insert("deleted".to_owned(), json!(deleted));
                }
                Value::Object(row)
            })
            .collect();
        Ok(json!({ "ret": ret, "seen": seen }))
    }

    // --- local storage ----------------------------------------------------------------------------------------------

    pub(super) fn storage_helper(&mut self, o: Request<'_>) -> Outcome {
        let (map, facts) = self.map(o)?;
        let delete = match o.need_text("call")? {
            "get" => false,
            "delete" => true,
            other => return Err(Broken(format!("call is \"{other}\"")).into()),
        };
        if !matches!(
            facts.map_type,
            MapType::TASK_STORAGE | MapType::CGRP_STORAGE
        ) {
            let what = format!("a storage helper for {}", facts.map_type);
            return Err(Stop::ToCome(what));
        }
        let touched = facts.value_size.min(MOST_TOUCHED);
        let value = o.bytes("value")?.map(|value| {
            // The program's buffer ends with the bytes that it touches; the rest of the value follows as zeros.
            sized(sized(value, touched), facts.value_size)
        });
        let call = StorageCall {
            map,
            facts: &facts,
            delete,
            flags: o.u64("flags")?,
            value,
            write: o.bytes("write")?.map(|write| sized(write, touched)),
            cgroup: o.text("cgroup")?,
        };
        Ok(match self.world.storage_helper(&call)? {
            HelperAnswer::Value(value) => json!({ "value": hex(&value) }),
            HelperAnswer::Null { .. } => json!({ "null": true }),
            HelperAnswer::Ret(ret, _) => json!({ "ret": ret }),
        })
    }
}

/// One step of a program; pointers get the numbers of their names.
fn program_step<'a>(
    facts: &MapFacts,
    o: Request<'a>,
    pointers: &mut Vec<&'a str>,
) -> Result<Step, Broken> {
    if let Some(key) = o.bytes("lookup")? {
        let pointer = number_of(o.need_text("as")?, pointers);
        return Ok(Step::Lookup(sized(key, facts.key_size), pointer));
    }
    if let Some(key) = o.bytes("update")? {
        let value = sized(o.bytes_or_none("value")?, facts.value_size);
        let key = sized(key, facts.key_size);
        return Ok(Step::Update(key, value, o.u64("flags")?));
    }
    if let Some(key) = o.bytes("delete")? {
        return Ok(Step::Delete(sized(key, facts.key_size)));
    }
    if let Some(helper) = o.text("call")? {
        return Ok(Step::Call(helper.to_owned()));
    }
    let at = o.size("at")?.unwrap_or(0);
    for what in STEPS {
        let Some(name) = o.text(what)? else {
            continue;
        };
        let pointer = known(name, pointers)?;
        return Ok(match what {
            "read" => {
                let len = o.size("len")?;
                Step::Read(
                    pointer,
                    at,
                    len.unwrap_or(facts.value_size.min(MOST_TOUCHED)),
                )
            }
            "write" => Step::Write(pointer, at, o.bytes_or_none("value")?),
            "add" => Step::Add(pointer, at),
            "atomic" => Step::Atomic(pointer, at, atomic(o)?),
            "timer_init" => Step::Timer(pointer, at, Timer::Init(o.u64("flags")?)),
            "timer_set_callback" => Step::Timer(pointer, at, Timer::SetCallback),
            "timer_start" => {
                let start = Timer::Start(o.u64("ns")?, o.u64("flags")?);
                Step::Timer(pointer, at, start)
            }
            "timer_cancel" => Step::Timer(pointer, at, Timer::Cancel),
            "lock" => Step::Lock(pointer, at),
            _ => Step::Unlock(pointer, at),
        });
    }
    Err(Broken(format!("{} is no step", Value::Object(o.0.clone()))))
}

/// What an atomic operation does.
fn atomic(o: Request<'_>) -> Result<Atomic, Broken> {
    let ops = [
        ("add", AtomicOp::Add),
        ("or", AtomicOp::Or),
        ("and", AtomicOp::And),
        ("xor", AtomicOp::Xor),
        ("exchange", AtomicOp::Exchange),
        ("compare_exchange", AtomicOp::CompareExchange),
    ];
    Ok(Atomic {
        op: one_of(o, "op", "add", &ops)?,
        wide: o.flag("wide")?,
        operand: o.u64("value")?,
        expected: o.u64("expected")?,
    })
}

/// The number of a name; a new one if it is new.
pub(super) fn number_of<'a>(name: &'a str, names: &mut Vec<&'a str>) -> usize {
    names
        .iter()
        .position(|own| *own == name)
        .unwrap_or_else(|| {
            names.push(name);
            names.len() - 1
        })
}

/// The number of a name that was given before.
pub(super) fn known(name: &str, names: &[&str]) -> Result<usize, Broken> {
    names
        .iter()
        .position(|own| *own == name)
        .ok_or_else(|| Broken(format!("no step before gives \"{name}\"")))
}
