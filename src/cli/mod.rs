//! The program `mapemu`: one file for each command.

mod args;
mod conform;
mod diff;
mod record;
mod recordings;
mod replay;
mod running;

pub use args::run;
pub use recordings::{NamedTrace, Recorded, recorded};
