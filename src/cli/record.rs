//! `mapemu record`: a scenario on the running kernel; the trace goes to standard output.

use std::fs;
use std::io::{self, Write};
use std::panic;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value, json};

use super::args::Exit;
use super::running::running_world;
use crate::trace::{Answer, Engine, Trace, World, answer_or_name};

/// Arguments of `mapemu record`.
#[derive(Debug, Args)]
pub(super) struct Record {
    /// Asks for maps of any size, in a virtual machine with 1 GiB of memory at most: it may not outlive that.
    #[arg(long)]
    any_size: bool,
    /// The scenario, or a trace, whose answers are passed over.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Runs the command.
pub(super) fn run(record: &Record) -> Exit {
    // A request that is not made is told of by name.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let recorded = record_file(record);
    panic::set_hook(hook);
    recorded.unwrap_or_else(|why| {
        let _told = writeln!(io::stderr(), "mapemu: {why}");
        Exit::CannotRun
    })
}

fn record_file(record: &Record) -> Result<Exit, String> {
    let name = record.file.display();
    let text = fs::read(&record.file).map_err(|error| format!("{name}: {error}"))?;
    let trace = Trace::parse(&text).map_err(|broken| format!("{name}:{broken}"))?;
    let mut world = running_world(record.any_size)?;
    let mut out = io::stdout().lock();
    let header = header(&trace, &*world);
    writeln!(out, "{}", Value::Object(header)).map_err(|error| error.to_string())?;
    let mut engine = Engine::new(&mut *world);
    let mut left_out = 0;
    for line in &trace.lines {
        let number = line.number;
        let answer = answer_or_name(&mut engine, &line.request, false)
            .map_err(|broken| format!("{name}:{number}: {broken}"))?;
        let got = match answer {
            Answer::Got(got) => got,
            Answer::Allowed => json!({}),
            Answer::ToCome(why) => {
                left_out += 1;
                let _told = writeln!(io::stderr(), "{name}:{number}: left out: {why}");
                continue;
            }
        };
        let line = json!({ "do": line.request, "got": got });
        writeln!(out, "{line}").map_err(|error| error.to_string())?;
    }
    Ok(if left_out == 0 {
        Exit::Holds
    } else {
        Exit::CannotRun
    })
}

/// The scenario's header, and what records it.
fn header(trace: &Trace, world: &dyn World) -> Map<String, Value> {
    let mut header = trace.header.json.clone();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    header.insert("trace".to_owned(), json!(1));
    header.insert("kernel".to_owned(), json!(release.trim()));
    let version = fs::read_to_string("/proc/version").unwrap_or_default();
    if let Some(release) = point_release(&version) {
        header.insert("release".to_owned(), json!(release));
    }
    header.insert("arch".to_owned(), json!(std::env::consts::ARCH));
    header.insert("cpus".to_owned(), json!(world.bpf().nr_cpus()));
    header
}

/// The point release of a kernel of Debian, whose own name has none: it is in `/proc/version`, as `Debian 6.1.192-2`.
fn point_release(version: &str) -> Option<&str> {
    let (_, package) = version.rsplit_once(" Debian ")?;
    let (release, _) = package.split_once('-')?;
    let is_release = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    release.bytes().all(is_release).then_some(release)
}

#[cfg(test)]
mod tests {
    use super::point_release;

    #[test]
    fn debian_tells_the_point_release() {
        let version = "Linux version 6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14) 12.2.0, \
                       GNU ld (GNU Binutils for Debian) 2.40) #1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-03)";
        assert_eq!(point_release(version), Some("6.1.192"));
        assert_eq!(
            point_release("Linux version 6.18.44 (root@host) #1 SMP"),
            None
        );
    }
}
