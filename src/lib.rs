//! Linux's BPF maps, in process and without root, for tests.

pub mod abi;
pub mod btf;
pub mod calls;
pub mod env;
pub mod helper;
pub mod map;
pub mod store;
pub mod sys;
pub mod typed;
pub use sys::Kernel;
