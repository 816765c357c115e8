//! The program `mapemu`: one file for each command.

mod about;
mod args;
mod bench;
mod conform;
mod diff;
mod differences;
mod evidence;
mod histogram;
mod in_vm;
mod memory;
mod outcome;
mod plot;
mod record;
mod recordings;
mod replay;
mod report;
mod report_latency;
mod report_matrix;
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(shuttle)
))]
mod run;
mod running;

pub use args::run;
pub use recordings::{NamedTrace, Recorded, recorded};
