//! The program `mapemu`: one file for each command.

mod about;
mod args;
mod bench;
mod conform;
mod diff;
mod differences;
mod evidence;
mod histogram;
mod memory;
mod outcome;
mod plot;
mod record;
mod recordings;
mod replay;
mod report;
mod report_latency;
mod report_matrix;
mod running;

pub use args::run;
pub use recordings::{NamedTrace, Recorded, recorded};
