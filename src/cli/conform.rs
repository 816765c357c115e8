//! `mapemu conform`: random runs on the emulated kernel beside the running one, compared answer by answer.

use std::fs;
use std::io::{self, Write};
use std::panic;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::about::{About, Against, Shard, cpu_model, now, recorded_release, running_release};
use super::args::{Exit, Shared};
use super::evidence::Evidence;
use super::outcome::Outcome;
use super::{differences, in_vm, replay, report};
use crate::conform::{Case, Chance, Difference, FAMILIES, Family, Step, Worlds};

/// Arguments of `mapemu conform`.
#[derive(Debug, Args)]
pub(super) struct Conform {
    #[command(flatten)]
    pub(super) shared: Shared,
    /// Types of maps to compare, such as hash,array. Default: all that are compared.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(super) types: Vec<String>,
    /// Number of operations, over all types.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub(super) steps: usize,
    /// Number of runs that they are spread over, each with a new map. Default: one for each 400 operations.
    #[arg(long, value_name = "N")]
    pub(super) cases: Option<usize>,
    /// Only the I-th of N parts of these runs, by their seeds: all N parts together are the whole, wherever they ran.
    #[arg(long, value_name = "I/N")]
    pub(super) shard: Option<Shard>,
    /// What the emulator is compared with. Default: the recordings, then the running kernel where it may be asked.
    #[arg(long, value_name = "WHAT")]
    against: Option<Against>,
    /// Directory for what differs, each difference a trace.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(super) out: PathBuf,
    /// Only random runs, no recordings.
    #[arg(long, conflicts_with = "against")]
    no_recordings: bool,
    /// Only random runs, beside the kernel of --release, which the program `mapemu-guest` starts in a virtual machine.
    #[arg(long, requires = "release", conflicts_with_all = ["against", "no_recordings"])]
    in_vm: bool,
    /// Writes what came of it as one HTML file.
    #[arg(long, value_name = "FILE.html")]
    pub(super) report: Option<PathBuf>,
    /// Writes what came of it as JSON, for --merge.
    #[arg(long, value_name = "FILE.json")]
    pub(super) json: Option<PathBuf>,
    /// Runs nothing, and adds up what --json wrote of several shards.
    #[arg(long, value_name = "FILE.json", num_args = 1.., conflicts_with_all = ["types", "cases", "shard", "against", "no_recordings", "in_vm"])]
    merge: Vec<PathBuf>,
}

/// Operations of one run.
const STEPS_OF_A_CASE: usize = 400;

/// Differences that are shown of one type at most.
const MOST_SHOWN: usize = 3;

/// Runs the command.
pub(super) fn run(conform: &Conform) -> Exit {
    let ended = if conform.in_vm {
        in_vm::run(conform)
    } else if conform.merge.is_empty() {
        run_all(conform)
    } else {
        merge(conform)
    };
    ended.unwrap_or_else(|why| {
        let _told = writeln!(io::stderr(), "mapemu: {why}");
        Exit::CannotRun
    })
}

fn run_all(conform: &Conform) -> Result<Exit, String> {
    let families = families(&conform.types)?;
    let start = Instant::now();
    let mut outcome = Outcome::new(about(conform, &families));
    let mut exit = Exit::Holds;
    if !conform.no_recordings {
        let mut evidence = Evidence::default();
        exit = replay::run_recordings(&conform.shared, &mut evidence);
        outcome.recorded = evidence.recorded;
        outcome.about.recordings = Some(recorded_release());
    }
    let worlds = match conform.against {
        Some(Against::Recordings) => None,
        _ => match worlds(conform) {
            Ok(worlds) => Some(worlds),
            Err(why) if conform.no_recordings || conform.against.is_some() => return Err(why),
            Err(why) => {
                say(&format!("random runs skipped: {why}\n"))?;
                None
            }
        },
    };
    match worlds {
        Some((worlds, cpus)) => {
            outcome.about.kernel = Some(running_release());
            outcome.about.cpus = cpus;
            // What is not emulated panics, and is counted.
            let hook = panic::take_hook();
            panic::set_hook(Box::new(|_| {}));
            let compared = compare(conform, &families, &*worlds, &mut outcome);
            panic::set_hook(hook);
            compared?;
        }
        None => outcome
            .print_recorded(&mut io::stdout().lock())
            .map_err(|error| error.to_string())?,
    }
    outcome.about.seconds = start.elapsed().as_secs_f64();
    write_files(conform, &outcome)?;
    Ok(if outcome.differ() == 0 {
        exit
    } else {
        Exit::Fails
    })
}

/// Adds up shards.
fn merge(conform: &Conform) -> Result<Exit, String> {
    let mut shards = conform.merge.iter().map(|file| {
        let name = file.display();
        let text = fs::read(file).map_err(|error| format!("{name}: {error}"))?;
        Outcome::of_json(&text).map_err(|why| format!("{name}: {why}"))
    });
    let mut outcome = shards.next().ok_or("nothing to merge")??;
    for shard in shards {
        outcome.add(shard?)?;
    }
    for found in &outcome.found {
        say(&told(found))?;
    }
    let (recorded, wrong) = outcome.recorded_steps();
    if recorded > 0 {
        say(&format!(
            "{recorded} recorded steps replayed, {wrong} differ\n"
        ))?;
    }
    outcome
        .print(&mut io::stdout().lock())
        .map_err(|error| error.to_string())?;
    let of = outcome.about.of;
    for shard in outcome.about.missing_shards() {
        say(&format!("shard {shard}/{of} is missing\n"))?;
    }
    write_files(conform, &outcome)?;
    Ok(match outcome.differ() + wrong {
        0 if outcome.about.missing_shards().is_empty() => Exit::Holds,
        0 => Exit::CannotRun,
        _ => Exit::Fails,
    })
}

fn say(text: &str) -> Result<(), String> {
    let said = io::stdout().lock().write_all(text.as_bytes());
    said.map_err(|error| error.to_string())
}

fn told(found: &super::outcome::Found) -> String {
    let super::outcome::Found {
        family,
        seed,
        text,
        file,
    } = found;
    format!("{family}, seed {seed:#x}:\n{text}       written: {file}\n")
}

fn write_files(conform: &Conform, outcome: &Outcome) -> Result<(), String> {
    let write = |path: &Path, text: String| {
        fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    if let Some(path) = &conform.json {
        write(path, format!("{}\n", outcome.to_json()))?;
    }
    if let Some(path) = &conform.report {
        write(path, report::html(outcome))?;
    }
    Ok(())
}

fn about(conform: &Conform, families: &[&Family]) -> About {
    let shard = conform.shard.unwrap_or(Shard::WHOLE);
    About {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: None,
        recordings: None,
        cpus: conform.shared.options().cpus.unwrap_or(2),
        cpu: cpu_model(),
        seed: conform.shared.seed(),
        asked: conform.steps as u64,
        cases: number_of_cases(conform) as u64,
        types: families
            .iter()
            .map(|family| family.name.to_owned())
            .collect(),
        shards: vec![shard.which],
        of: shard.of,
        date: now(),
        seconds: 0.0,
    }
}

fn families(names: &[String]) -> Result<Vec<&'static Family>, String> {
    if names.is_empty() {
        return Ok(FAMILIES.iter().collect());
    }
    let known = || {
        let names = FAMILIES.iter().map(|family| family.name);
        names.collect::<Vec<_>>().join(", ")
    };
    let family = |name: &String| {
        Family::named(name)
            .ok_or_else(|| format!("no type \"{name}\" is compared; there are {}", known()))
    };
    names.iter().map(family).collect()
}

#[cfg(target_os = "linux")]
fn worlds(conform: &Conform) -> Result<(Box<dyn Worlds>, u32), String> {
    match crate::conform::Both::new(conform.shared.options()) {
        Ok(both) => {
            let cpus = both.nr_cpus();
            Ok((Box::new(both), cpus))
        }
        Err(unavailable) => Err(unavailable.to_string()),
    }
}

#[cfg(not(target_os = "linux"))]
fn worlds(_: &Conform) -> Result<(Box<dyn Worlds>, u32), String> {
    Err("the running kernel cannot be used: it is not Linux".to_owned())
}

/// How far it is, how fast it goes, how long it will take.
fn progress(steps: u64) -> ProgressBar {
    const TEMPLATE: &str = "{bar:30} {human_pos}/{human_len} {per_sec}, {eta} left, {msg}";
    let style = ProgressStyle::with_template(TEMPLATE);
    ProgressBar::new(steps).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// All runs, then the table.
fn compare(
    conform: &Conform,
    families: &[&'static Family],
    worlds: &dyn Worlds,
    outcome: &mut Outcome,
) -> Result<(), String> {
    let shard = conform.shard.unwrap_or(Shard::WHOLE);
    let mut seeds = Chance::new(conform.shared.seed());
    let cases: Vec<Case> = turns(families)
        .take(number_of_cases(conform))
        .enumerate()
        .map(|(number, family)| Case {
            family,
            seed: seeds.number(),
            steps: steps_of(conform, number),
        })
        .filter(|case| shard.has(case.seed))
        .collect();
    let bar = progress(cases.iter().map(|case| case.steps as u64).sum());
    let mut shown = Vec::new();
    for case in cases {
        let name = case.family.name;
        let number = FAMILIES.iter().position(|family| family.name == name);
        let number = number.expect("a family is one of them");
        bar.set_message(match outcome.differ() {
            0 => name.to_owned(),
            differ => format!("{name}, {differ} differ"),
        });
        let mut wrong = None;
        let differs = case.run(worlds, &mut |op, step, took| {
            outcome.count(number, op, step, took);
            if let Step::Differs(difference) = step {
                wrong = Some((**difference).clone());
            }
        });
        bar.inc(case.steps as u64);
        let differs = differs.map_err(|stopped| stopped.to_string())?;
        if let (Some(ops), Some(difference)) = (differs, wrong)
            && is_worth_showing(&mut shown, name, &difference)
        {
            let found = differences::keep(&conform.out, &case, worlds, &ops, &difference)?;
            bar.suspend(|| say(&told(&found)))?;
            outcome.found.push(found);
        }
    }
    bar.finish_and_clear();
    let mut out = io::stdout().lock();
    outcome.print(&mut out).map_err(|error| error.to_string())
}

/// Not the same again: few of each type, and each command once.
fn is_worth_showing(
    shown: &mut Vec<(&'static str, String)>,
    name: &'static str,
    difference: &Difference,
) -> bool {
    let this = (name, difference.op.command());
    let of_family = shown.iter().filter(|(own, _)| *own == name).count();
    let worth = of_family < MOST_SHOWN && !shown.contains(&this);
    if worth {
        shown.push(this);
    }
    worth
}

fn number_of_cases(conform: &Conform) -> usize {
    let default = conform.steps.div_ceil(STEPS_OF_A_CASE);
    conform.cases.unwrap_or(default).max(1)
}

/// Operations of one run, so that all together have as many as they shall.
fn steps_of(conform: &Conform, case: usize) -> usize {
    let number = number_of_cases(conform);
    (case + 1) * conform.steps / number - case * conform.steps / number
}

/// The families of the runs in their order: they take turns, each as often as its share says.
fn turns(families: &[&'static Family]) -> impl Iterator<Item = &'static Family> {
    let most = families.iter().map(|family| family.share).max();
    (0..most.unwrap_or(1)).cycle().flat_map(move |round| {
        let in_turn = families.iter().filter(move |family| round < family.share);
        in_turn.copied().collect::<Vec<_>>()
    })
}
