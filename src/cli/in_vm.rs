//! `mapemu conform --in-vm`: the same random runs beside the kernel of another release, in a virtual machine.
//!
//! The machine is started by `mapemu-guest`, a program of its own (in `guest/`): what runs in there has to be linked statically,
//! and fetches kernels, which this library does not.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use super::args::Exit;
use super::conform::Conform;

/// The program that starts the machine.
const GUEST: &str = "mapemu-guest";

/// Runs it, with the options of this command.
///
/// # Errors
///
/// Why it could not be started, in words.
pub(super) fn run(conform: &Conform) -> Result<Exit, String> {
    let options = conform.shared.options();
    let mut guest = Command::new(program());
    guest.args(["random", "--release"]).args(options.release);
    guest.arg("--out").arg(&conform.out);
    for (option, file) in [("--report", &conform.report), ("--json", &conform.json)] {
        if let Some(file) = file {
            guest.arg(option).arg(file);
        }
    }
    if let Some(cpus) = options.cpus {
        guest.arg("--cpus").arg(cpus.to_string());
    }
    guest.arg("--");
    guest.arg(format!("--steps={}", conform.steps));
    guest.arg(format!("--seed={}", options.seed));
    if !conform.types.is_empty() {
        guest.arg(format!("--types={}", conform.types.join(",")));
    }
    if let Some(cases) = conform.cases {
        guest.arg(format!("--cases={cases}"));
    }
    if let Some(shard) = conform.shard {
        guest.arg(format!("--shard={}/{}", shard.which, shard.of));
    }
    let ended = guest.status().map_err(|error| {
        format!("{GUEST}: {error}; `cargo install --path guest` installs it, from mapemu's sources")
    })?;
    Ok(match ended.code() {
        Some(0) => Exit::Holds,
        Some(1) => Exit::Fails,
        _ => Exit::CannotRun,
    })
}

/// The program beside this one, else that on the path.
fn program() -> PathBuf {
    let beside = env::current_exe().map(|own| own.with_file_name(GUEST));
    beside
        .ok()
        .filter(|path| path.exists())
        .unwrap_or_else(|| GUEST.into())
}
