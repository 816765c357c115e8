//! Facts about the kernel's maps: each is a function of any [`Bpf`](mapemu::abi::Bpf), named after what it says.
#![allow(clippy::print_stderr, reason = "a skipped comparison is told")]

mod allocated;
mod arena;
mod array;
mod bloom_filter;
mod btf;
mod cgroup_storage;
mod commands;
mod common;
mod cpumap;
mod devmap;
#[cfg(all(feature = "conform", target_os = "linux"))]
mod faulty;
mod fd_arrays;
mod fds;
mod files;
mod handles;
mod kernel_objects;
mod lists_and_trees;
mod local_storage;
mod lpm_trie;
mod lru_hash;
mod map_in_map;
mod objects;
mod percpu_array;
mod perf_event_array;
#[cfg(all(feature = "conform", target_os = "linux"))]
mod planted;
mod playing;
mod prog_array;
mod prog_fields;
mod prog_load;
mod prog_maps;
#[cfg(all(feature = "host", target_os = "linux"))]
mod prog_random;
mod prog_records;
mod program_side;
#[cfg(all(feature = "conform", target_os = "linux"))]
mod props;
mod queue_stack;
mod releases;
mod ringbuf;
#[cfg(all(feature = "conform", target_os = "linux"))]
mod ringbuf_wait;
mod sockmap;
#[cfg(all(feature = "host", target_os = "linux"))]
mod stack_trace;
mod task_work;
mod test_run;
mod timer;
mod typed;
#[cfg(all(feature = "conform", target_os = "linux"))]
mod verifier;
