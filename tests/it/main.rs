//! Facts about the kernel's maps: each is a function of any [`Bpf`](mapemu::abi::Bpf), named after what it says.

mod arena;
mod bloom_filter;
mod commands;
mod common;
mod cpumap;
mod devmap;
mod files;
mod local_storage;
mod lpm_trie;
mod lru_hash;
mod queue_stack;
mod ringbuf;
mod sockmap;
