//! Other kernels: scenarios are recorded on them in a virtual machine, and compared with the recordings.
//!
//! One static program is three things: the command that people call, the first process of the guest, and `mapemu`, which the
//! guest calls to record. No virtualisation is needed: QEMU emulates the processor. Kernels are distribution packages, fetched
//! by apt into a folder of their own; nothing is installed.

mod archive;
mod compare;
mod init;
mod kernels;
mod machine;
mod port;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use mapemu::trace::Trace as Recording;

use crate::init::LEFT;

/// Scenarios on other kernels.
#[derive(Debug, Parser)]
#[command(name = "mapemu-guest")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Records scenarios on a release, and writes the traces to a folder.
    Trace(Trace),
    /// Records the scenarios of the recordings on their releases, and fails if an answer is another one.
    Compare(Compare),
    /// Runs `mapemu conform` in the machine: random runs on that kernel and on the emulated release that is nearest to it.
    Random(Random),
    /// Everything else is `mapemu`'s.
    #[command(external_subcommand)]
    Mapemu(Vec<OsString>),
}

/// What both commands take.
#[derive(Debug, Args)]
struct Shared {
    /// Where packages, kernels and what the guest says are kept.
    #[arg(long, value_name = "FOLDER", default_value = "target/guest")]
    work: PathBuf,
    /// Number of CPUs of the guest.
    #[arg(long, value_name = "N", default_value_t = 2)]
    cpus: u32,
    /// Only scenarios whose names begin so, such as lru or hash-order; give any number.
    #[arg(long = "only", value_name = "NAME")]
    only: Vec<String>,
}

#[derive(Debug, Args)]
struct Trace {
    #[command(flatten)]
    shared: Shared,
    /// A release of the recordings, or the package of another kernel, such as linux-image-6.1.0-56-cloud-amd64.
    #[arg(long, value_name = "R")]
    release: String,
    /// Where the traces go.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Scenarios. Without any, those of the recordings.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct Compare {
    #[command(flatten)]
    shared: Shared,
    /// A release; give any number. Default: all that packages are known of.
    #[arg(long = "release", value_name = "R")]
    releases: Vec<String>,
}

#[derive(Debug, Args)]
struct Random {
    #[command(flatten)]
    shared: Shared,
    /// A release of the recordings, or the package of another kernel.
    #[arg(long, value_name = "R")]
    release: String,
    /// Directory for what differs, each difference a trace.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Writes what came of it as one HTML file.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Writes what came of it as JSON, for `mapemu conform --merge`.
    #[arg(long, value_name = "FILE.json")]
    json: Option<PathBuf>,
    /// Arguments of `mapemu conform`, such as `--steps 10000`.
    #[arg(last = true, value_name = "ARGUMENT")]
    arguments: Vec<String>,
}

fn main() -> ExitCode {
    if std::process::id() == 1 {
        return init::run();
    }
    if std::env::args_os()
        .next()
        .is_some_and(|name| name == "sleep")
    {
        // Until it is killed.
        loop {
            std::thread::park();
        }
    }
    let done = match Cli::parse().command {
        Command::Trace(trace) => record(&trace).map(|()| true),
        Command::Compare(compare) => compare_all(&compare),
        Command::Random(random) => compare_random_runs(&random),
        Command::Mapemu(arguments) => {
            let name = OsString::from("mapemu");
            return mapemu::cli::run(std::iter::once(name).chain(arguments));
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(why) => {
            say(&format!("mapemu-guest: {why}"));
            ExitCode::from(2)
        }
    }
}

/// Tells people how it goes on.
fn say(text: &str) {
    let _told = writeln!(io::stderr(), "{text}");
}

/// A scenario: its name, and its text.
type Scenario = (String, Vec<u8>);

/// Those of the recordings whose names begin as asked: the ones that all releases have, with all their steps, and those of
/// that release alone. Scenarios are for so many CPUs.
fn scenarios(release: &str, shared: &Shared) -> Vec<Scenario> {
    let of = |release: &str| {
        let mut recorded = mapemu::cli::recorded().iter();
        let recorded = recorded.find(|recorded| recorded.release == release);
        let families = recorded.into_iter().flat_map(|recorded| {
            let families = recorded.families();
            families.flat_map(|family| recorded.traces(family))
        });
        families.collect::<BTreeMap<_, _>>()
    };
    let mut all = of(release);
    all.extend(of("6.18.44"));
    let asked = |name: &str| {
        shared.only.is_empty() || shared.only.iter().any(|start| name.starts_with(start))
    };
    all.into_iter()
        .filter(|(name, text)| {
            let cpus = Recording::parse(text)
                .ok()
                .and_then(|trace| trace.header.cpus);
            asked(name) && cpus.is_none_or(|cpus| cpus == shared.cpus)
        })
        .collect()
}

fn record(trace: &Trace) -> Result<(), String> {
    let scenarios = if trace.files.is_empty() {
        scenarios(&trace.release, &trace.shared)
    } else {
        let read = |file: &PathBuf| {
            let name = file.file_stem().unwrap_or_default().to_string_lossy();
            let text = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
            Ok((name.into_owned(), text))
        };
        trace
            .files
            .iter()
            .map(read)
            .collect::<Result<_, String>>()?
    };
    let kernel = kernels::fetch(&trace.shared.work, &trace.release)?;
    let recorded = machine::record(&trace.shared.work, &kernel, trace.shared.cpus, &scenarios)?;
    fs::create_dir_all(&trace.out).map_err(|error| error.to_string())?;
    for (name, text) in &recorded {
        let file = trace.out.join(format!("{name}.jsonl"));
        fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    say(&format!(
        "{}: {} of {} scenarios recorded in {}",
        trace.release,
        recorded.len(),
        scenarios.len(),
        trace.out.display()
    ));
    Ok(())
}

/// Whether all answers are the recorded ones.
fn compare_all(compare: &Compare) -> Result<bool, String> {
    let asked: Vec<&str> = if compare.releases.is_empty() {
        kernels::known().collect()
    } else {
        compare.releases.iter().map(String::as_str).collect()
    };
    let mut same = true;
    for release in asked {
        let shared = &compare.shared;
        let scenarios = scenarios(release, shared);
        let kernel = kernels::fetch(&shared.work, release)?;
        let recorded = machine::record(&shared.work, &kernel, shared.cpus, &scenarios)?;
        same &= compare::with_recordings(release, &scenarios, &recorded)?;
    }
    Ok(same)
}

/// Names of what `mapemu conform` leaves in the machine, beside what differs.
const REPORT: &str = "report.html";
const JSON: &str = "result.json";

/// Whether both answer alike; what differs is printed.
fn compare_random_runs(random: &Random) -> Result<bool, String> {
    let shared = &random.shared;
    let kernel = kernels::fetch(&shared.work, &random.release)?;
    let mut arguments = ["conform", "--no-recordings", "--out", LEFT]
        .map(str::to_owned)
        .to_vec();
    for (option, asked, name) in [
        ("--report", &random.report, REPORT),
        ("--json", &random.json, JSON),
    ] {
        if asked.is_some() {
            arguments.extend([option.to_owned(), format!("{LEFT}/{name}")]);
        }
    }
    arguments.extend(random.arguments.clone());
    let called = machine::call(&shared.work, &kernel, shared.cpus, &arguments)?;
    for (name, content) in &called.files {
        let path = match name.as_str() {
            REPORT => random.report.clone(),
            JSON => random.json.clone(),
            name => Some(random.out.join(name)),
        };
        let path = path.ok_or_else(|| format!("nobody asked for {name}"))?;
        fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let there = format!("{LEFT}/");
    let here = random.out.join("").display().to_string();
    let output = String::from_utf8_lossy(&called.output).replace(&there, &here);
    let printed = io::stdout().write_all(output.as_bytes());
    printed.map_err(|error| error.to_string())?;
    match called.status.as_str() {
        "0" => Ok(true),
        "1" => Ok(false),
        status => Err(format!("mapemu conform ended with {status}")),
    }
}
