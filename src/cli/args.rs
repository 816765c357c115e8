//! What the commands are, and what they share.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use super::{bench, conform, diff, record, replay};
use crate::trace::Options;

/// Linux's BPF maps, emulated: exact answers, checked by recordings of real kernels.
#[derive(Debug, Parser)]
#[command(name = "mapemu", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Replays traces on emulated maps; without a FILE, the recordings that mapemu carries.
    Replay(replay::Replay),
    /// Replays the recordings, then compares random runs with the running kernel where it may.
    Conform(conform::Conform),
    /// Runs a scenario on emulated kernels of several releases, and shows where their answers differ.
    Diff(diff::Diff),
    /// Runs a scenario on the running kernel; the trace goes to standard output.
    Record(record::Record),
    /// Measures operations on emulated maps, in the running kernel where it may, and on dashmap.
    Bench(bench::Bench),
    /// Runs an unmodified program on emulated maps, as an ordinary user.
    #[cfg(all(
        target_os = "linux",
        any(target_arch = "x86_64", target_arch = "aarch64"),
        not(shuttle)
    ))]
    #[command(long_about = super::run::ABOUT, after_long_help = super::run::MORE)]
    Run(super::run::Run),
}

/// Options that all commands share.
#[derive(Clone, Debug, Args)]
pub(super) struct Shared {
    /// Release of the kernel, such as 6.1.192, or the nearest that is proven. Default: the trace's.
    #[arg(long, value_name = "R")]
    release: Option<String>,
    /// Number of possible CPUs. Default: the trace's, or 2.
    #[arg(long, value_name = "N")]
    cpus: Option<u32>,
    /// Where random numbers begin.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

impl Shared {
    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    pub(super) fn options(&self) -> Options {
        Options {
            release: self.release.clone(),
            cpus: self.cpus,
            seed: self.seed,
            ..Options::default()
        }
    }
}

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Exit {
    /// Everything holds.
    Holds,
    /// Something does not.
    Fails,
    /// It could not be run.
    CannotRun,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Holds => 0,
            Exit::Fails => 1,
            Exit::CannotRun => 2,
        })
    }
}

/// Runs the program with these arguments, its own name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let runs_program = arguments.get(1).is_some_and(|command| command == "run");
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // If nobody reads it, nobody misses it.
            let _printed = error.print();
            let wrong = error.use_stderr();
            if wrong && runs_program {
                // No status of a program.
                return ExitCode::from(125);
            }
            return if wrong { Exit::CannotRun } else { Exit::Holds }.into();
        }
    };
    match cli.command {
        Command::Replay(replay) => replay::run(&replay).into(),
        Command::Conform(conform) => conform::run(&conform).into(),
        Command::Diff(diff) => diff::run(&diff).into(),
        Command::Record(record) => record::run(&record).into(),
        Command::Bench(bench) => bench::run(&bench).into(),
        #[cfg(all(
            target_os = "linux",
            any(target_arch = "x86_64", target_arch = "aarch64"),
            not(shuttle)
        ))]
        Command::Run(run) => super::run::run(run),
    }
}
