//! What came of a run of `mapemu conform`: counts and times by type and command. Shards are written as JSON and added up.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::about::About;
use super::histogram::Histogram;
use crate::conform::{FAMILIES, Op, Step, Took};

/// A type of map, by its place in [`FAMILIES`], and a command.
pub(super) type Key = (usize, String);

/// How many operations of one kind there were, and how long they took.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Count {
    /// All.
    pub(super) steps: u64,
    /// Answered differently.
    pub(super) differ: u64,
    /// Not emulated.
    pub(super) to_come: u64,
    /// Refused by both verifiers, or not asked.
    pub(super) refused: u64,
    /// Times of the running kernel.
    pub(super) kernel: Histogram,
    /// Times of the emulated kernel.
    pub(super) emulated: Histogram,
}

/// Recorded steps of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Recorded {
    /// All.
    pub(super) steps: u64,
    /// Answered differently.
    pub(super) differ: u64,
}

/// A difference, as it is told of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    /// Type.
    pub(super) family: String,
    /// The seed of its run.
    pub(super) seed: u64,
    /// The shortest scenario, in words.
    pub(super) text: String,
    /// Where the scenario was written.
    pub(super) file: String,
}

/// What came of a run.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Outcome {
    /// What it was made with and on.
    pub(super) about: About,
    /// Random runs.
    pub(super) counts: BTreeMap<Key, Count>,
    /// Recordings.
    pub(super) recorded: BTreeMap<Key, Recorded>,
    /// What is not emulated, and how often that was met.
    pub(super) missing: BTreeMap<String, u64>,
    /// Those that were told of.
    pub(super) found: Vec<Found>,
}

impl Count {
    fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.differ += other.differ;
        self.to_come += other.to_come;
        self.refused += other.refused;
        self.kernel.add(&other.kernel);
        self.emulated.add(&other.emulated);
    }

    fn to_json(&self) -> Value {
        json!({
            "steps": self.steps,
            "differ": self.differ,
            "to_come": self.to_come,
            "refused": self.refused,
            "kernel_ns": self.kernel.to_json(),
            "emulated_ns": self.emulated.to_json(),
        })
    }

    fn of_json(json: &Value) -> Option<Self> {
        let number = |field: &str| json.get(field)?.as_u64();
        Some(Self {
            steps: number("steps")?,
            differ: number("differ")?,
            to_come: number("to_come")?,
            refused: number("refused")?,
            kernel: Histogram::of_json(json.get("kernel_ns")?)?,
            emulated: Histogram::of_json(json.get("emulated_ns")?)?,
        })
    }
}

impl Outcome {
    /// Nothing yet.
    pub(super) fn new(about: About) -> Self {
        Self {
            about,
            counts: BTreeMap::new(),
            recorded: BTreeMap::new(),
            missing: BTreeMap::new(),
            found: Vec::new(),
        }
    }

    /// Counts one operation of a random run.
    pub(super) fn count(&mut self, family: usize, op: &Op, step: &Step, took: Took) {
        let count = self.counts.entry((family, op.command())).or_default();
        count.steps += 1;
        match step {
            Step::Same(_) => {
                count.kernel.count(took.right);
                count.emulated.count(took.wrong);
            }
            Step::Differs(_) => count.differ += 1,
            Step::ToCome(what) => {
                count.to_come += 1;
                *self.missing.entry(what.clone()).or_default() += 1;
            }
            Step::Refused | Step::Skipped => count.refused += 1,
        }
    }

    /// Operations of random runs.
    pub(super) fn steps(&self) -> u64 {
        self.counts.values().map(|count| count.steps).sum()
    }

    /// Operations of random runs that were answered differently.
    pub(super) fn differ(&self) -> u64 {
        self.counts.values().map(|count| count.differ).sum()
    }

    /// Recorded steps, and those that were answered differently.
    pub(super) fn recorded_steps(&self) -> (u64, u64) {
        let all = self.recorded.values();
        all.fold((0, 0), |(steps, differ), one| {
            (steps + one.steps, differ + one.differ)
        })
    }

    /// Adds other shards of the same run.
    ///
    /// # Errors
    ///
    /// Why they are none, in words.
    pub(super) fn add(&mut self, other: Self) -> Result<(), String> {
        self.about.add(&other.about)?;
        for (key, count) in other.counts {
            self.counts.entry(key).or_default().add(&count);
        }
        for (what, times) in other.missing {
            *self.missing.entry(what).or_default() += times;
        }
        // Each shard replays all recordings.
        if self.recorded.is_empty() {
            self.recorded = other.recorded;
        }
        self.found.extend(other.found);
        Ok(())
    }

    /// As JSON.
    pub(super) fn to_json(&self) -> Value {
        let named = |(family, command): &Key, json: Value| {
            let mut named = Map::new();
            named.insert("type".to_owned(), FAMILIES[*family].name.into());
            named.insert("command".to_owned(), command.as_str().into());
            named.extend(json.as_object().cloned().unwrap_or_default());
            Value::Object(named)
        };
        let counts = self.counts.iter();
        let counts: Value = counts
            .map(|(key, count)| named(key, count.to_json()))
            .collect();
        let recorded = self.recorded.iter();
        let recorded: Value = recorded
            .map(|(key, one)| named(key, json!({ "steps": one.steps, "differ": one.differ })))
            .collect();
        let found = self.found.iter().map(|found| {
            json!({
                "type": found.family,
                "seed": found.seed,
                "text": found.text,
                "file": found.file,
            })
        });
        json!({
            "conform": 1,
            "about": self.about.to_json(),
            "steps": self.steps(),
            "differ": self.differ(),
            "counts": counts,
            "recorded": recorded,
            "missing": self.missing,
            "differences": found.collect::<Value>(),
        })
    }

    /// From JSON.
    ///
    /// # Errors
    ///
    /// That it is none.
    pub(super) fn of_json(text: &[u8]) -> Result<Self, String> {
        let json: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let none = || "no result of this version of mapemu conform".to_owned();
        Self::of_value(&json).ok_or_else(none)
    }

    fn of_value(json: &Value) -> Option<Self> {
        let key = |json: &Value| {
            let name = json.get("type")?.as_str()?;
            let family = FAMILIES.iter().position(|family| family.name == name)?;
            Some((family, json.get("command")?.as_str()?.to_owned()))
        };
        let list = |field: &str| json.get(field)?.as_array();
        if json.get("conform")?.as_u64()? != 1 {
            return None;
        }
        let mut own = Self::new(About::of_json(json.get("about")?)?);
        for count in list("counts")? {
            own.counts.insert(key(count)?, Count::of_json(count)?);
        }
        for one in list("recorded")? {
            let recorded = Recorded {
                steps: one.get("steps")?.as_u64()?,
                differ: one.get("differ")?.as_u64()?,
            };
            own.recorded.insert(key(one)?, recorded);
        }
        for (what, times) in json.get("missing")?.as_object()? {
            own.missing.insert(what.clone(), times.as_u64()?);
        }
        for one in list("differences")? {
            let text = |field: &str| Some(one.get(field)?.as_str()?.to_owned());
            own.found.push(Found {
                family: text("type")?,
                seed: one.get("seed")?.as_u64()?,
                text: text("text")?,
                file: text("file")?,
            });
        }
        Some(own)
    }

    /// The table: a line for each type and command.
    pub(super) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{:<23}{:<28}{:>9}{:>9}{:>9}{:>9}",
            "type", "command", "steps", "differ", "refused", "to come"
        )?;
        for ((family, command), count) in &self.counts {
            writeln!(
                out,
                "{:<23}{command:<28}{:>9}{:>9}{:>9}{:>9}",
                FAMILIES[*family].name, count.steps, count.differ, count.refused, count.to_come
            )?;
        }
        for (what, times) in &self.missing {
            writeln!(out, "to come, {times} times: {what}")?;
        }
        let (steps, differ) = (self.steps(), self.differ());
        writeln!(
            out,
            "{steps} steps compared with the running kernel, {differ} differ"
        )
    }

    /// The table of what was recorded, where that is all there is.
    pub(super) fn print_recorded(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{:<23}{:<28}{:>9}{:>9}",
            "type", "command", "steps", "differ"
        )?;
        for ((family, command), one) in &self.recorded {
            writeln!(
                out,
                "{:<23}{command:<28}{:>9}{:>9}",
                FAMILIES[*family].name, one.steps, one.differ
            )?;
        }
        let has = |family: usize| self.recorded.keys().any(|(own, _)| *own == family);
        let families = FAMILIES.iter().enumerate();
        let without: Vec<&str> = families
            .filter(|(number, _)| !has(*number))
            .map(|(_, family)| family.name)
            .collect();
        let (steps, differ) = self.recorded_steps();
        writeln!(
            out,
            "{steps} steps compared with recordings of Linux {}, {differ} differ",
            self.about.recordings.as_deref().unwrap_or("none")
        )?;
        writeln!(
            out,
            "not covered: what no scenario asks, which is all but what the table lists{}{}",
            if without.is_empty() {
                ""
            } else {
                "; of these types nothing: "
            },
            without.join(", ")
        )
    }
}
