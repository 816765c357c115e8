//! The program `mapemu`: one file for each command.

mod args;
mod conform;
mod diff;
mod record;
mod recordings;
mod replay;
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(shuttle)
))]
mod run;
mod running;

pub use args::run;
pub use recordings::{NamedTrace, Recorded, recorded};
