//! The written facts: one function for each thing that the kernel does, over any `Bpf`.

mod commands;
mod common;
mod files;
