//! `mapemu conform`: random runs on the emulated kernel beside the running one, compared answer by answer.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::panic;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::args::{Exit, Shared};
use super::replay;
use crate::conform::{Case, Chance, Difference, FAMILIES, Family, Op, Step, Worlds, shrink};

/// Arguments of `mapemu conform`.
#[derive(Debug, Args)]
pub(super) struct Conform {
    #[command(flatten)]
    shared: Shared,
    /// Types of maps to compare, such as hash,array. Default: all that are compared.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    types: Vec<String>,
    /// Number of operations, over all types.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    steps: usize,
    /// Number of runs that they are spread over, each with a new map. Default: one for each 400 operations.
    #[arg(long, value_name = "N")]
    cases: Option<usize>,
    /// Directory for what differs, each difference a scenario.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Only random runs, no recordings.
    #[arg(long)]
    no_recordings: bool,
}

/// Operations of one run.
const STEPS_OF_A_CASE: usize = 400;

/// Differences that are shown of one type at most.
const MOST_SHOWN: usize = 3;

/// How many operations of one kind there were.
#[derive(Clone, Copy, Default)]
struct Count {
    steps: u64,
    differ: u64,
    to_come: u64,
    skipped: u64,
}

/// Counts by type and command, and what differed.
#[derive(Default)]
struct Report {
    counts: BTreeMap<(usize, String), Count>,
    steps: u64,
    differ: u64,
    missing: BTreeMap<String, u64>,
    shown: Vec<(usize, String)>,
}

/// Runs the command.
pub(super) fn run(conform: &Conform) -> Exit {
    let families = match families(&conform.types) {
        Ok(families) => families,
        Err(why) => return cannot(&why),
    };
    let recordings = if conform.no_recordings {
        Exit::Holds
    } else {
        replay::run_recordings(&conform.shared)
    };
    let worlds = match worlds(conform) {
        Ok(worlds) => worlds,
        Err(why) => {
            let mut out = io::stdout().lock();
            let told = writeln!(out, "random runs skipped: {why}");
            return if told.is_err() || conform.no_recordings {
                Exit::CannotRun
            } else {
                recordings
            };
        }
    };
    // What is not emulated panics, and is counted.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let compared = compare(conform, &families, &*worlds);
    panic::set_hook(hook);
    match compared {
        Ok(Exit::Holds) => recordings,
        Ok(exit) => exit,
        Err(why) => cannot(&why),
    }
}

fn cannot(why: &str) -> Exit {
    let _told = writeln!(io::stderr(), "mapemu: {why}");
    Exit::CannotRun
}

fn families(names: &[String]) -> Result<Vec<&'static Family>, String> {
    if names.is_empty() {
        return Ok(FAMILIES.iter().collect());
    }
    let known = || {
        FAMILIES
            .iter()
            .map(|family| family.name)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let family = |name: &String| {
        Family::named(name)
            .ok_or_else(|| format!("no type \"{name}\" is compared; there are {}", known()))
    };
    names.iter().map(family).collect()
}

#[cfg(target_os = "linux")]
fn worlds(conform: &Conform) -> Result<Box<dyn Worlds>, String> {
    match crate::conform::Both::new(conform.shared.options()) {
        Ok(both) => Ok(Box::new(both)),
        Err(unavailable) => Err(unavailable.to_string()),
    }
}

#[cfg(not(target_os = "linux"))]
fn worlds(_: &Conform) -> Result<Box<dyn Worlds>, String> {
    Err("the running kernel cannot be used: it is not Linux".to_owned())
}

/// All runs, then the table.
fn compare(
    conform: &Conform,
    families: &[&'static Family],
    worlds: &dyn Worlds,
) -> Result<Exit, String> {
    let cases = cases_of(conform, families);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {per_sec} {msg}");
    let bar = ProgressBar::new(conform.steps as u64)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut report = Report::default();
    let mut seeds = Chance::new(conform.shared.seed());
    for (which, steps) in cases {
        let case = Case {
            family: families[which],
            seed: seeds.number(),
            steps,
        };
        bar.set_message(case.family.name);
        let mut wrong = None;
        let differs = case.run(worlds, &mut |op, step| {
            report.count(which, op, step);
            if let Step::Differs(difference) = step {
                wrong = Some((**difference).clone());
            }
            bar.inc(1);
        });
        let differs = differs.map_err(|stopped| stopped.to_string())?;
        if let (Some(ops), Some(difference)) = (differs, wrong)
            && report.is_worth_showing(which, &difference)
        {
            let told = bar.suspend(|| tell(conform, &case, worlds, &ops, &difference));
            told.map_err(|error| error.to_string())?;
        }
    }
    bar.finish_and_clear();
    let mut out = io::stdout().lock();
    report
        .print(families, &mut out)
        .map_err(|error| error.to_string())?;
    Ok(if report.differ == 0 {
        Exit::Holds
    } else {
        Exit::Fails
    })
}

/// The runs in their order: which family, and how many operations. Families take turns, each as often as its share says.
fn cases_of(conform: &Conform, families: &[&Family]) -> Vec<(usize, usize)> {
    let number = conform
        .cases
        .unwrap_or(conform.steps.div_ceil(STEPS_OF_A_CASE));
    let number = number.max(1);
    let most = families
        .iter()
        .map(|family| family.share)
        .max()
        .unwrap_or(1);
    let rounds = (0..most).cycle();
    let turns = rounds.flat_map(|round| {
        let family = families.iter().enumerate();
        let in_turn = family.filter(move |(_, family)| round < family.share);
        in_turn.map(|(which, _)| which).collect::<Vec<_>>()
    });
    let steps = |case: usize| (case + 1) * conform.steps / number - case * conform.steps / number;
    turns
        .take(number)
        .enumerate()
        .map(|(case, which)| (which, steps(case)))
        .collect()
}

/// Shrinks a difference, prints it, and writes it as a scenario.
fn tell(
    conform: &Conform,
    case: &Case,
    worlds: &dyn Worlds,
    ops: &[Op],
    difference: &Difference,
) -> io::Result<()> {
    let (name, seed) = (case.family.name, case.seed);
    let shrunk = shrink(worlds, case.family, ops);
    let again = shrunk.is_some();
    let (ops, difference) = shrunk.unwrap_or_else(|| (ops.to_vec(), difference.clone()));
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{name}, seed {seed:#x}: after {} operations",
        ops.len() - 1
    )?;
    if !again {
        writeln!(out, "  (not again, when it was run again)")?;
    }
    for op in ops.iter().take(ops.len() - 1).rev().take(20).rev() {
        writeln!(out, "  {op}")?;
    }
    writeln!(out, "  {difference}")?;
    let path = conform
        .out
        .join(format!("conform-{name}-{seed:016x}.jsonl"));
    write_scenario(&path, case, &ops)?;
    writeln!(out, "  written: {}", path.display())
}

fn write_scenario(path: &Path, case: &Case, ops: &[Op]) -> io::Result<()> {
    let about = format!(
        "a run of `mapemu conform` that differed, seed {:#x}",
        case.seed
    );
    let name = format!("conform-{}", case.family.name);
    let mut text = json!({ "trace": 1, "name": name, "about": about }).to_string();
    for op in ops {
        text.push('\n');
        text.push_str(&json!({ "do": op.0 }).to_string());
    }
    text.push('\n');
    fs::write(path, text)
}

impl Report {
    fn count(&mut self, family: usize, op: &Op, step: &Step) {
        let count = self.counts.entry((family, op.command())).or_default();
        count.steps += 1;
        self.steps += 1;
        match step {
            Step::Same(_) => {}
            Step::Differs(_) => {
                count.differ += 1;
                self.differ += 1;
            }
            Step::ToCome(what) => {
                count.to_come += 1;
                *self.missing.entry(what.clone()).or_default() += 1;
            }
            Step::Refused | Step::Skipped => count.skipped += 1,
        }
    }

    /// Not the same again: few of each type, and each command once.
    fn is_worth_showing(&mut self, family: usize, difference: &Difference) -> bool {
        let command = difference.op.command();
        let of_family = self.shown.iter().filter(|(own, _)| *own == family).count();
        let new = !self.shown.contains(&(family, command.clone()));
        let worth = new && of_family < MOST_SHOWN;
        if worth {
            self.shown.push((family, command));
        }
        worth
    }

    fn print(&self, families: &[&Family], out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{:<23}{:<28}{:>9}{:>9}{:>9}{:>9}",
            "type", "command", "steps", "differ", "refused", "to come"
        )?;
        for ((family, command), count) in &self.counts {
            writeln!(
                out,
                "{:<23}{command:<28}{:>9}{:>9}{:>9}{:>9}",
                families[*family].name, count.steps, count.differ, count.skipped, count.to_come
            )?;
        }
        for (what, times) in &self.missing {
            writeln!(out, "to come, {times} times: {what}")?;
        }
        writeln!(
            out,
            "{} steps compared with the running kernel, {} differ",
            self.steps, self.differ
        )
    }
}
