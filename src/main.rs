//! `mapemu`: Linux's BPF maps, emulated, on the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    mapemu::cli::run(std::env::args_os())
}
