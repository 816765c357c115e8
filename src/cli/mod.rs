//! The program `mapemu`: one file for each command.

mod args;
mod bench;
mod conform;
mod diff;
mod memory;
mod plot;
mod record;
mod recordings;
mod replay;
mod running;

pub use args::run;
pub use recordings::{NamedTrace, Recorded, recorded};
