//! The running kernel behind the trait [`Bpf`](crate::abi::Bpf): the only system call of this crate.
//!
//! [`Host`] is safe whatever an attr holds: its addresses reach the buffers of the call and nothing else. Each buffer is
//! copied to memory that ends where unmapped memory begins, so that a kernel that writes past its end gets `EFAULT`, as
//! it would from the emulated kernel.
//!
//! Programs are made by [`Asm`], loaded and run by [`program`]. What a loaded program does is outside of what Rust can
//! promise, as a write to `/proc/self/mem` is.

mod arena;
mod asm;
mod cpu;
mod kernel;
mod limit;
mod mapping;
pub mod os;
mod pointers;
pub mod probe;
pub mod program;
pub mod vmlinux;

pub use asm::{Asm, Label, Reg, When, Width, off};
pub use cpu::{possible_cpus, run_on};
pub use kernel::{Host, Unavailable};
pub use limit::{LARGEST_MAP, REFUSED, creation_bytes};
