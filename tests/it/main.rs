//! Facts about the kernel's maps: each is a function of any [`Bpf`](mapemu::abi::Bpf), named after what it says.

mod bloom_filter;
mod commands;
mod common;
mod files;
mod lpm_trie;
#[cfg(all(feature = "conform", target_os = "linux"))]
mod props;
mod queue_stack;
mod ringbuf;
