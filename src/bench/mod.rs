//! What operations cost: the emulated map by its handle and by bpf(2), beside the running kernel's and dashmap.
//!
//! Absolute times are good to a third only on a shared machine, so the columns of a row take turns in short bursts, a burst
//! is the median over chunks of operations, and each ratio is one within a round: the median over the rounds is shown.
//!
//! For `mapemu bench` and for `benches/`, not a public interface.

pub mod burst;
pub mod cells;
pub mod column;
pub mod dash;
pub mod emulated;
pub mod memory;
pub mod ops;
#[cfg(target_os = "linux")]
mod programs;
pub mod row;
#[cfg(not(target_os = "linux"))]
#[path = "nowhere.rs"]
pub mod running;
#[cfg(target_os = "linux")]
pub mod running;
mod sides;
