//! `mapemu replay`: traces on emulated maps, and each wrong answer.

use std::fs;
use std::io::{self, Write};
use std::panic;
use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::args::{Exit, Shared};
use super::recordings::{Recorded, recorded};
use crate::env::{Release, Taken};
use crate::trace::{Emulated, Options, Tally, Trace, Verdict, replay};

/// Arguments of `mapemu replay`.
#[derive(Debug, Args)]
pub(super) struct Replay {
    #[command(flatten)]
    shared: Shared,
    /// Traces. Without any, the recordings that mapemu carries.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Why a trace could not be replayed, with the file and, where it is known, the line.
struct CannotRun(String);

/// Runs the command. Nothing is left to do if its output cannot be written.
pub(super) fn run(replay: &Replay) -> Exit {
    // What is not emulated panics, and is counted: nobody wants to read of each.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let mut out = io::stdout().lock();
    let options = replay.shared.options();
    let ended = if replay.files.is_empty() {
        replay_recordings(&options, &mut out)
    } else {
        replay_files(&replay.files, &options, &mut out)
    };
    drop(out);
    panic::set_hook(hook);
    match ended {
        Ok(exit) => exit,
        // As with `| head`: the reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::CannotRun,
        Err(error) => {
            let _told = writeln!(io::stderr(), "mapemu: {error}");
            Exit::CannotRun
        }
    }
}

/// The recordings that mapemu carries, for a command that does more than that.
pub(super) fn run_recordings(shared: &Shared) -> Exit {
    run(&Replay {
        shared: shared.clone(),
        files: Vec::new(),
    })
}

/// Replays one trace; prints each wrong answer.
fn replay_one(
    name: &str,
    text: &[u8],
    options: &Options,
    out: &mut dyn Write,
) -> io::Result<Result<Tally, CannotRun>> {
    let trace = match Trace::parse(text) {
        Ok(trace) => trace,
        Err(broken) => return Ok(Err(CannotRun(format!("{name}:{broken}")))),
    };
    let mut world = match Emulated::new(&trace.header, options) {
        Ok(world) => world,
        Err(unfit) => return Ok(Err(CannotRun(format!("{name}: {unfit}")))),
    };
    let asked = options.release.as_ref().or(trace.header.release.as_ref());
    if let Some(Ok(Taken {
        release,
        is_proven: false,
    })) = asked.map(|asked| Release::take(asked))
    {
        let asked = asked.expect("it is there");
        writeln!(
            io::stderr(),
            "{name}: {asked} is not proven; replayed as {}",
            release.name
        )?;
    }
    let mut wrong = Vec::new();
    let tally = replay(&trace, &mut world, &mut |number, verdict| {
        if let Verdict::Failed {
            request,
            recorded,
            emulated,
        } = verdict
        {
            let request = serde_json::Value::Object(request.clone());
            wrong.push(format!(
                "{name}:{number}: {request} / {recorded} / {emulated}"
            ));
        }
    });
    for line in wrong {
        writeln!(out, "{line}")?;
    }
    Ok(tally.map_err(|broken| CannotRun(format!("{name}:{broken}"))))
}

/// One line of a file.
fn summary(name: &str, tally: &Tally) -> String {
    let failed = tally.failed + tally.to_come;
    let mut text = format!("{name}: {} passed, {failed} failed", tally.passed);
    if tally.to_come > 0 {
        text.push_str(&format!(" ({} of them to come)", tally.to_come));
    }
    if tally.skipped > 0 {
        text.push_str(&format!(", {} skipped", tally.skipped));
    }
    text
}

fn replay_files(files: &[PathBuf], options: &Options, out: &mut dyn Write) -> io::Result<Exit> {
    let mut all = Tally::default();
    let mut per_file = Vec::new();
    let mut cannot = Vec::new();
    for file in files {
        let name = file.display().to_string();
        let replayed = match fs::read(file) {
            Ok(text) => replay_one(&name, &text, options, out)?,
            Err(error) => Err(CannotRun(format!("{name}: {error}"))),
        };
        match replayed {
            Ok(tally) => {
                per_file.push(summary(&name, &tally));
                all.add(&tally);
            }
            Err(CannotRun(why)) => cannot.push(why),
        }
    }
    for line in per_file {
        writeln!(out, "{line}")?;
    }
    let exit = end(&all, out)?;
    out.flush()?;
    for why in &cannot {
        writeln!(io::stderr(), "{why}")?;
    }
    Ok(if cannot.is_empty() {
        exit
    } else {
        Exit::CannotRun
    })
}

/// The closing lines.
fn end(all: &Tally, out: &mut dyn Write) -> io::Result<Exit> {
    if all.skipped > 0 {
        writeln!(
            out,
            "{} skipped: the kernel's verifier refused the program",
            all.skipped
        )?;
    }
    if all.to_come > 0 {
        writeln!(
            out,
            "{} to come: not emulated yet, counted as failed",
            all.to_come
        )?;
    }
    let failed = all.failed + all.to_come;
    writeln!(out, "{} passed, {failed} failed", all.passed)?;
    Ok(if failed == 0 {
        Exit::Holds
    } else {
        Exit::Fails
    })
}

/// A row of the table: what was replayed, how many traces, how they ended.
type Row = (String, usize, Tally);

/// The recordings that the program carries: all releases, with a row for each, or one, with a row for each family.
fn replay_recordings(options: &Options, out: &mut dyn Write) -> io::Result<Exit> {
    let only = match options.release.as_deref().map(Release::take) {
        None => None,
        Some(Ok(taken)) => Some(taken.release.name),
        Some(Err(unknown)) => {
            writeln!(io::stderr(), "mapemu: {unknown}")?;
            return Ok(Exit::CannotRun);
        }
    };
    let asked: Vec<&Recorded> = recorded()
        .iter()
        .filter(|recorded| only.is_none_or(|only| recorded.release == only))
        .collect();
    // It draws on a terminal only.
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}");
    let steps = asked
        .iter()
        .map(|recorded| recorded.families().count() as u64);
    let bar = ProgressBar::new(steps.sum())
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut all = Tally::default();
    let mut rows: Vec<Row> = Vec::new();
    for recorded in asked {
        let mut of_release = (recorded.release.to_owned(), 0, Tally::default());
        for family in recorded.families() {
            bar.set_message(format!("{} {family}", recorded.release));
            let mut wrong = Vec::new();
            let replayed = replay_family(recorded, family, options, &mut wrong)?;
            bar.suspend(|| out.write_all(&wrong))?;
            let (files, tally) = match replayed {
                Ok(replayed) => replayed,
                Err(CannotRun(why)) => {
                    bar.finish_and_clear();
                    writeln!(io::stderr(), "{why}")?;
                    return Ok(Exit::CannotRun);
                }
            };
            all.add(&tally);
            if only.is_some() {
                rows.push((family.to_owned(), files, tally));
            } else {
                of_release.1 += files;
                of_release.2.add(&tally);
            }
            bar.inc(1);
        }
        if only.is_none() {
            rows.push(of_release);
        }
    }
    bar.finish_and_clear();
    let what = if only.is_some() { "family" } else { "release" };
    table(what, &rows, out)?;
    end(&all, out)
}

/// One family of one release: how many traces, and how they ended.
fn replay_family(
    recorded: &Recorded,
    family: &str,
    options: &Options,
    out: &mut dyn Write,
) -> io::Result<Result<(usize, Tally), CannotRun>> {
    let options = Options {
        release: Some(recorded.release.to_owned()),
        ..options.clone()
    };
    let mut tally = Tally::default();
    let traces = recorded.traces(family);
    for (name, text) in &traces {
        let name = format!("{}/{name}", recorded.release);
        match replay_one(&name, text, &options, out)? {
            Ok(one) => tally.add(&one),
            Err(cannot) => return Ok(Err(cannot)),
        }
    }
    Ok(Ok((traces.len(), tally)))
}

fn table(what: &str, rows: &[Row], out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "{what:<18}{:>6}{:>8}{:>8}{:>9}{:>9}",
        "files", "passed", "failed", "skipped", "to come"
    )?;
    for (name, files, tally) in rows {
        writeln!(
            out,
            "{name:<18}{files:>6}{:>8}{:>8}{:>9}{:>9}",
            tally.passed, tally.failed, tally.skipped, tally.to_come
        )?;
    }
    Ok(())
}
