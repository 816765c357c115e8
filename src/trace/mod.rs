//! Traces: what a real kernel was asked and what it answered, one JSON object a line; replay of them in any [`World`].
//!
//! A [`Trace`] is text that was read. The [`Engine`] knows what each request means: names, keys, values, the shape of
//! answers. A [`World`] is a kernel with all that is around its maps: [`Emulated`] is the emulated one.

mod around;
mod commands;
mod emulated;
mod emulated_programs;
mod emulated_rings;
mod engine;
mod events;
mod line;
mod names;
mod objects;
mod programs;
mod replay;
mod request;
mod rings;
#[cfg(all(feature = "host", target_os = "linux"))]
mod running;
#[cfg(all(feature = "host", target_os = "linux"))]
mod running_cgroups;
#[cfg(all(feature = "host", target_os = "linux"))]
mod running_programs;
mod to_come;
pub mod world;

pub use emulated::{Emulated, Options, Unfit};
pub use engine::{Answer, Engine};
pub use line::{BrokenLine, Header, Line, Trace};
pub use replay::{Tally, Verdict, answer_or_name, answers_match, replay};
pub use request::{Broken, Stop};
#[cfg(all(feature = "host", target_os = "linux"))]
pub use running::Running;
pub use to_come::TO_COME;
pub use world::{RingStep, World};
