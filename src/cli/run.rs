//! `mapemu run`: an unmodified program on emulated maps.

use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::{Args, ValueEnum};

use crate::Kernel;
use crate::run::{self, in_foreground};

/// What the command does, for `--help`.
pub(super) const ABOUT: &str = "\
Runs CMD, any program, unmodified, on Linux's BPF maps as mapemu emulates them: as an ordinary user, without root,
capabilities or a user namespace.

bpf(2) and a few calls around it (mmap, epoll_ctl, perf_event_open, statfs, opens and other calls with a path below
/sys/fs/bpf and /proc/PID/fd) wait until mapemu has answered; all others go to the running kernel at no cost. Maps, BTF,
programs, links, ids and pins are those of one emulated kernel, which begins empty and ends with the last process of CMD.
Fork, exec, threads, daemons and fds that are passed over sockets work. Memory of maps is mapped for real; ring buffers and
perf buffers are read as ever. Programs run for BPF_PROG_TEST_RUN. Attaching them to what is not there fails with EOPNOTSUPP
and one line on standard error that names it.";

/// What follows the options, for `--help`.
pub(super) const MORE: &str = "\
EXIT STATUS
  that of CMD; 128+N if signal N ended it; 125 if mapemu itself failed; 126 if CMD cannot be executed; 127 if it was not found.
  Signals, stops and the terminal are as if CMD ran by itself.

EXAMPLES
  mapemu run -- bpftool map create /sys/fs/bpf/m type hash key 4 value 8 entries 16 name m
  mapemu run --pin-root ./pins -- ./collector collector.bpf.o
  mapemu run --trace run.jsonl -- ./service.test && mapemu replay run.jsonl
  mapemu run --backend ptrace -- ./service.test        # in a container whose seccomp profile refuses bpf(2)

LIMITS
  poll(2) and select(2) see a ring buffer ready at all times; epoll is told of each wakeup. 32-bit programs, programs that cannot
  be looked into (not dumpable, unreadable) and a run in a run are refused with a line that says why. It confines nothing. The
  guide, docs/run.md, has all limits, and a section each for bpftool, C, Go, Rust and Python.";

/// Arguments of `mapemu run`.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// Release of the kernel, such as 6.18 or 6.18.44.
    #[arg(long, value_name = "R")]
    release: Option<String>,
    /// Number of possible CPUs. Default: that of this machine.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    cpus: Option<u32>,
    /// Where random numbers begin.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Writes every call that has to do with maps to FILE, as a trace that `mapemu replay` reads.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Directory that stands for /sys/fs/bpf: each pin is a file in it while the program runs. Default: one that is removed in
    /// the end.
    #[arg(long, value_name = "DIR")]
    pin_root: Option<PathBuf>,
    /// How calls come to mapemu.
    #[arg(long, value_enum, default_value_t = Backend::Notify)]
    backend: Backend,
    /// Kills a program that asks for something that is not emulated; the exit status is 125.
    #[arg(long)]
    strict: bool,
    /// The program, and its arguments.
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true)]
    command: Vec<OsString>,
}

/// How calls come to mapemu.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Backend {
    /// Notifications of seccomp: the fast way, which Linux has since 5.19.
    Notify,
    /// ptrace(2): slower, and works in containers whose seccomp profile refuses bpf(2).
    Ptrace,
}

/// Runs the command.
pub(super) fn run(run: Run) -> ExitCode {
    match prepared(run) {
        Ok((run, command)) => {
            // What is not emulated panics, and is told of in one line.
            std::panic::set_hook(Box::new(|_| {}));
            ExitCode::from(in_foreground(run, command))
        }
        Err(why) => {
            use std::io::Write as _;
            let _told = writeln!(std::io::stderr(), "mapemu: {why}");
            ExitCode::from(125)
        }
    }
}

fn prepared(run: Run) -> Result<(run::Run, Command), String> {
    let mut kernel = Kernel::builder()
        .cpus(run.cpus.unwrap_or_else(run::possible_cpus))
        .seed(run.seed)
        .doubled_rings(true);
    if let Some(release) = &run.release {
        kernel = kernel.release(release).map_err(|error| error.to_string())?;
    }
    let mut prepared =
        run::Run::new(kernel.build())
            .strict(run.strict)
            .backend(match run.backend {
                Backend::Notify => run::Backend::Notify,
                Backend::Ptrace => run::Backend::Ptrace,
            });
    if let Some(dir) = run.pin_root {
        prepared = prepared.pin_root(dir);
    }
    if let Some(path) = run.trace {
        let file = File::create(&path);
        prepared = prepared.trace(file.map_err(|error| format!("{}: {error}", path.display()))?);
    }
    let mut words = run.command.into_iter();
    let mut command = Command::new(words.next().ok_or("no program")?);
    command.args(words);
    Ok((prepared, command))
}
