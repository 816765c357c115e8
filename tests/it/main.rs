//! Facts about the kernel's maps: each is a function of any [`Bpf`](mapemu::abi::Bpf), named after what it says.

mod bloom_filter;
mod btf;
mod commands;
mod common;
mod files;
mod lpm_trie;
mod program_side;
mod queue_stack;
mod ringbuf;
