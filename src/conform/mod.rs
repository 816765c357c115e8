//! Random runs on two kernels, compared answer by answer: on the emulated one and on the running one.
//!
//! An [`Op`] is a request of the trace format, so that what differs is a scenario that can be recorded and replayed. A
//! [`Generator`] makes the operations of one [`Family`] of maps from numbers; the same numbers give the same operations,
//! and each operation comes from one number, so that a run can be made shorter by leaving some out. A [`Pair`] runs them on
//! both sides. [`shrink`] makes a run that differs as short as it can.

mod any_map;
mod arena;
mod associative;
#[cfg(target_os = "linux")]
mod both;
mod btf;
mod case;
mod cgroup_storage;
mod chance;
mod create;
mod family;
mod keyless;
mod maps_of_maps;
mod objects;
mod op;
mod pair;
mod ringbuf;
mod samples;
mod shrink;

#[cfg(target_os = "linux")]
pub use both::Both;
pub use case::{Case, Stopped, run_numbers};
pub use chance::Chance;
pub use family::{FAMILIES, Family, Generator};
pub use op::Op;
pub use pair::{Difference, Pair, Step, Took, TwoWorlds, Worlds};
pub use shrink::{recorded, shrink};
