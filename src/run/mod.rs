//! Unmodified programs on emulated maps: any program, as an ordinary user.
//!
//! The program runs under a seccomp filter. bpf(2), and a few calls around it, wait until they are answered here; all others
//! cost nothing. What it holds for a map is a real fd, so that fork(2), exec(2), dup(2), threads and sockets that pass fds on
//! work without any help; its memory can be mapped where the map's can.
//!
//! ```no_run
//! use mapemu::Kernel;
//! use mapemu::run::Run;
//!
//! let kernel = Kernel::builder().doubled_rings(true).build();
//! let mut bpftool = std::process::Command::new("bpftool");
//! bpftool.args(["map", "show"]);
//! let mut running = Run::new(kernel.clone()).spawn(bpftool)?;
//! // Meanwhile this process can play the programs, on `kernel`.
//! let status = running.wait()?;
//! # Ok::<(), mapemu::run::Error>(())
//! ```
//!
//! It is a way to run programs, not to confine them: nothing here keeps a program from anything.
//!
//! Kernel: `kernel/seccomp.c` (v6.18).

mod bpffs;
mod caller;
mod cgroups;
mod child;
mod epoll;
mod filter;
mod foreign;
mod front;
mod machine;
mod mapping;
mod memlock;
mod memory;
mod notice;
mod notify;
mod paths;
mod perf;
mod placeholder;
mod poll;
mod port;
#[cfg(target_arch = "x86_64")]
mod ptrace;
mod record;
mod record_asked;
mod server;
mod signals;
mod sockets;
mod spawn;
mod table;
mod task;

pub use filter::Backend;
pub use front::in_foreground;
pub use spawn::{Error, Run, Running};

/// The number of possible CPUs of this machine, as programs read it.
pub fn possible_cpus() -> u32 {
    let list = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    let last = list.trim().rsplit(['-', ',']).next();
    last.and_then(|last| last.parse::<u32>().ok())
        .map_or(1, |last| last + 1)
}
