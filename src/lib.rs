//! Linux's BPF maps, in process and without root, for tests.

pub mod abi;
pub mod btf;
pub mod calls;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "conform")]
pub mod conform;
pub mod env;
pub mod helper;
#[cfg(all(feature = "host", target_os = "linux"))]
pub mod host;
pub mod map;
#[cfg(feature = "object")]
pub mod object;
pub mod store;
pub mod sys;
#[cfg(feature = "trace")]
pub mod trace;
pub mod typed;
pub use sys::Kernel;
