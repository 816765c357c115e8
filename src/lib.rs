//! Linux's BPF maps, in process and without root, for tests: every answer that the kernel would give.
//!
//! A [`Kernel`] is a value: make one in each test. Maps are reached in three ways, which end in the same code:
//!
//! - [`typed`]: maps with Rust types, `HashMap<K, V>` and its kin;
//! - [`calls`]: bpf(2) by libbpf's names, with byte slices, over any [`abi::Bpf`];
//! - [`helper`]: what a program calls, on a CPU, on values in place.
//!
//! ```
//! use mapemu::Kernel;
//! use mapemu::helper::Prog;
//! use mapemu::typed::HashMap;
//!
//! let kernel = Kernel::new();
//! let packets: HashMap<u32, u64> = HashMap::builder().max_entries(16).create(&kernel)?;
//! packets.insert(7, 0, 0)?;
//!
//! // The program counts, in place; user space reads.
//! let map = kernel.map(packets.map().fd()).expect("it is open");
//! let prog = Prog::sched_cls(0);
//! let value = prog.map_lookup_elem(&map, &7_u32.to_ne_bytes()).expect("it was inserted");
//! value.fetch_add_u64(0, 1);
//! assert_eq!(packets.get(&7, 0)?, 1);
//! # Ok::<(), mapemu::typed::Error>(())
//! ```
//!
//! With the feature `interpose`, unmodified crates of this process reach them by bpf(2) itself.
//!
//! Below them: [`sys`] is bpf(2) itself, [`map`] the rules of each type, [`store`] the containers of bytes, [`btf`] reads
//! types, [`mod@env`] is all that comes from outside, and [`abi`] the numbers and layouts that all share.

pub mod abi;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod bench;
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
#[cfg(all(
    feature = "interpose",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(any(miri, shuttle))
))]
pub mod interpose;
pub mod map;
#[cfg(feature = "object")]
pub mod object;
#[cfg(all(
    feature = "run",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(shuttle)
))]
pub mod run;
pub mod store;
pub mod sys;
#[cfg(feature = "trace")]
pub mod trace;
pub mod typed;
pub mod vm;

pub use sys::Kernel;

/// The examples of the README are compiled too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
