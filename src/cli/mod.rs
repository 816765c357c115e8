//! The program `mapemu`: one file for each command.

mod about;
mod args;
mod conform;
mod differences;
mod evidence;
mod histogram;
mod outcome;
mod record;
mod recordings;
mod replay;
mod report;
mod report_latency;
mod report_matrix;
mod running;

pub use args::run;
pub use recordings::{Family, families};
