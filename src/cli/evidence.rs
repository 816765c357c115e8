//! What recordings show: which commands of which types of maps they ask for.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use super::outcome::{Key, Recorded};
use crate::abi::MapType;
use crate::conform::{FAMILIES, Op};
use crate::trace::{Trace, Verdict};

/// Recorded steps by type and command.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// What was counted.
    pub(super) recorded: BTreeMap<Key, Recorded>,
}

/// The place of a type's family, by the type as requests name it.
fn family_of(named: &Value) -> Option<usize> {
    let map_type = match named.as_str() {
        Some(name) => MapType::from_name(name)?,
        None => MapType(u32::try_from(named.as_u64()?).ok()?),
    };
    let name = map_type.name().map(str::to_ascii_lowercase);
    let family = |name: &str| FAMILIES.iter().position(|family| family.name == name);
    // What is no type shows what creation refuses.
    name.and_then(|name| family(&name))
        .or_else(|| family("create"))
}

/// The name of the map that a request is about.
fn map_of(request: &Map<String, Value>) -> Option<&str> {
    let text = |field: &str| request.get(field).and_then(Value::as_str);
    let in_attr = || {
        let words = request.get("attr")?.as_array()?.iter();
        words
            .filter_map(|word| word.get(1)?.get("fd")?.as_str())
            .next()
    };
    text("map").or_else(|| text("mem")).or_else(in_attr)
}

impl Evidence {
    /// Counts the steps of one trace; for each, whether it was answered differently.
    pub(super) fn count(&mut self, trace: &Trace, differ: &[bool]) {
        let mut types: HashMap<&str, usize> = HashMap::new();
        for (line, &differs) in trace.lines.iter().zip(differ) {
            let request = &line.request;
            let family = match request.get("type") {
                Some(named) if request["op"] == "map_create" => family_of(named),
                _ => map_of(request).and_then(|name| types.get(name).copied()),
            };
            let Some(family) = family else { continue };
            if let Some(name) = request.get("as").and_then(Value::as_str) {
                types.insert(name, family);
            }
            let key = (family, Op(request.clone()).command());
            let recorded = self.recorded.entry(key).or_default();
            recorded.steps += 1;
            recorded.differ += u64::from(differs);
        }
    }
}

/// Whether an answer was another one.
pub(super) const fn differs(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Failed { .. } | Verdict::ToCome(_))
}
