//! Facts about the kernel's maps: each is a function of any [`Bpf`](mapemu::abi::Bpf), named after what it says.

mod array;
mod bloom_filter;
mod btf;
mod cgroup_storage;
mod commands;
mod common;
mod fd_arrays;
mod files;
mod lpm_trie;
mod map_in_map;
mod percpu_array;
mod prog_array;
mod program_side;
mod queue_stack;
mod ringbuf;
