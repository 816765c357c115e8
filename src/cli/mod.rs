//! The program `mapemu`: one file for each command.

mod args;
mod recordings;
mod replay;

pub use args::run;
pub use recordings::{Family, families};
