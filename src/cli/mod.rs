//! The program `mapemu`: one file for each command.

mod args;
mod conform;
mod record;
mod recordings;
mod replay;
#[cfg(target_os = "linux")]
mod run;
mod running;

pub use args::run;
pub use recordings::{Family, families};
