//! `mapemu diff`: one scenario on emulated kernels of several releases, and where their answers differ.

use std::fs;
use std::io::{self, Write};
use std::panic;
use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::args::Exit;
use crate::env::{RELEASES, Release};
use crate::trace::{Answer, Emulated, Engine, Options, Trace, answer_or_name};

/// Arguments of `mapemu diff`.
#[derive(Debug, Args)]
pub(super) struct Diff {
    /// A release, such as 6.1.192; give two or more. Default: all that are emulated.
    #[arg(long = "release", value_name = "R")]
    releases: Vec<String>,
    /// Number of possible CPUs. Default: the scenario's, or 2.
    #[arg(long, value_name = "N")]
    cpus: Option<u32>,
    /// Where random numbers begin.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Show the steps too that all answer alike.
    #[arg(long)]
    all: bool,
    /// The scenario, or a trace, whose answers are passed over.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Runs the command.
pub(super) fn run(diff: &Diff) -> Exit {
    // What is not emulated panics, and is an answer here.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let compared = compare(diff);
    panic::set_hook(hook);
    compared.unwrap_or_else(|why| {
        let _told = writeln!(io::stderr(), "mapemu: {why}");
        Exit::CannotRun
    })
}

/// The releases that were asked for, or all; tells of those that only others stand for.
fn releases(asked: &[String]) -> Result<Vec<&'static Release>, String> {
    if asked.is_empty() {
        return Ok(RELEASES.iter().collect());
    }
    let take = |name: &String| {
        let taken = Release::take(name).map_err(|unknown| unknown.to_string())?;
        if !taken.is_proven {
            let instead = taken.release.name;
            let _told = writeln!(io::stderr(), "{name} is not proven; {instead} is shown");
        }
        Ok(taken.release)
    };
    asked.iter().map(take).collect()
}

fn compare(diff: &Diff) -> Result<Exit, String> {
    let name = diff.file.display();
    let text = fs::read(&diff.file).map_err(|error| format!("{name}: {error}"))?;
    let trace = Trace::parse(&text).map_err(|broken| format!("{name}:{broken}"))?;
    let releases = releases(&diff.releases)?;
    let world = |release: &&Release| {
        let options = Options {
            release: Some(release.name.to_owned()),
            cpus: diff.cpus,
            seed: diff.seed,
            ..Options::default()
        };
        Emulated::new(&trace.header, &options).map_err(|unfit| format!("{name}: {unfit}"))
    };
    let mut worlds: Vec<Emulated> = releases.iter().map(world).collect::<Result<_, _>>()?;
    let mut engines: Vec<Engine<'_>> = worlds.iter_mut().map(|world| Engine::new(world)).collect();
    let mut out = io::stdout().lock();
    let mut differ = 0_usize;
    for line in &trace.lines {
        let mut answers: Vec<(Value, Vec<&str>)> = Vec::new();
        for (release, engine) in releases.iter().zip(&mut engines) {
            let answer = answer_or_name(engine, &line.request, false)
                .map_err(|broken| format!("{name}:{}: {broken}", line.number))?;
            let answer = match answer {
                Answer::Got(answer) => answer,
                Answer::Allowed => Value::Null,
                Answer::ToCome(what) => Value::String(format!("not emulated: {what}")),
            };
            match answers.iter_mut().find(|(own, _)| *own == answer) {
                Some((_, who)) => who.push(release.name),
                None => answers.push((answer, vec![release.name])),
            }
        }
        differ += usize::from(answers.len() > 1);
        if diff.all || answers.len() > 1 {
            let request = Value::Object(line.request.clone());
            show(
                &mut out,
                &format!("{name}:{}: {request}", line.number),
                &answers,
            )
            .map_err(|error| error.to_string())?;
        }
    }
    writeln!(out, "{} steps, {differ} differ", trace.lines.len())
        .map_err(|error| error.to_string())?;
    Ok(if differ == 0 {
        Exit::Holds
    } else {
        Exit::Fails
    })
}

/// A step: the request, then a line for each answer, with the releases that give it.
fn show(out: &mut dyn Write, request: &str, answers: &[(Value, Vec<&str>)]) -> io::Result<()> {
    writeln!(out, "{request}")?;
    let names: Vec<String> = answers.iter().map(|(_, who)| who.join(" ")).collect();
    let width = names.iter().map(String::len).max().unwrap_or_default();
    for (names, (answer, _)) in names.iter().zip(answers) {
        writeln!(out, "  {names:<width$}  {answer}")?;
    }
    Ok(())
}
