//! The first process of the guest: mounts what there is to mount, and records one scenario after another, each in a process
//! of its own with a limit of time.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, mount};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::port::Port;

/// What is mounted: source, target, type. All are in the kernel.
const MOUNTS: &[(&str, &str, &str)] = &[
    ("proc", "/proc", "proc"),
    ("sysfs", "/sys", "sysfs"),
    ("devtmpfs", "/dev", "devtmpfs"),
    ("tmpfs", "/tmp", "tmpfs"),
    ("bpf", "/sys/fs/bpf", "bpf"),
    ("cgroup2", "/sys/fs/cgroup", "cgroup2"),
];

const CGROUP1: &str = "/tmp/cgroup1";

/// Where the scenarios are.
pub const SCENARIOS: &str = "/scenarios";

/// Arguments of `mapemu`, a line each: that is run then, and no scenario.
pub const ARGUMENTS: &str = "/arguments";

/// Where it leaves files.
pub const LEFT: &str = "/out";

/// A scenario that takes longer is ended; the processor is emulated, and slow.
const LIMIT: Duration = Duration::from_secs(120);

/// How often it is told that a program without a limit goes on.
const ALIVE: Duration = Duration::from_secs(20);

/// Does everything; the machine ends with it.
pub fn run() -> ExitCode {
    if let Err(error) = record_all() {
        // The kernel's console has it, and the end of this process is a panic.
        crate::say(&format!("mapemu-guest: {error}"));
    }
    ExitCode::FAILURE
}

fn record_all() -> io::Result<()> {
    for (source, target, fs_type) in MOUNTS {
        mount(*source, *target, *fs_type, MountFlags::empty(), None)
            .map_err(|errno| at(target, errno.into()))?;
    }
    mount_cgroup1().map_err(|error| at(CGROUP1, error))?;
    set_up()?;
    let port = Port::open().map_err(|error| at("ports", error))?;
    if let Ok(arguments) = fs::read_to_string(ARGUMENTS) {
        port.begin("mapemu");
        let (status, output) = call(arguments.lines(), None, &port)?;
        for file in fs::read_dir(LEFT)?.flatten() {
            port.file(&file.file_name().to_string_lossy(), &fs::read(file.path())?);
        }
        port.got("mapemu", &status, &output);
    }
    let mut files: Vec<_> = fs::read_dir(SCENARIOS)?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.sort_unstable();
    for file in files {
        let name = file
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        port.begin(&name);
        let arguments = [Path::new("record"), Path::new("--any-size"), &file];
        let (status, output) = call(arguments, Some(LIMIT), &port)?;
        port.got(&name, &status, &output);
    }
    port.end();
    // The machine ends a moment later.
    thread::sleep(LIMIT);
    Ok(())
}

/// A hierarchy of the old kind, for scenarios that want to see it refused.
fn mount_cgroup1() -> io::Result<()> {
    fs::create_dir(CGROUP1)?;
    mount(
        "cgroup",
        CGROUP1,
        "cgroup",
        MountFlags::empty(),
        Some(c"none,name=old"),
    )?;
    Ok(())
}

/// What the recordings were made with: the interface `lo`, no use by others, no limit of memory.
fn set_up() -> io::Result<()> {
    const UP_AND_LOOPBACK: &str = "0x9";
    for (path, value) in [
        ("/sys/class/net/lo/flags", UP_AND_LOOPBACK),
        ("/proc/sys/kernel/unprivileged_bpf_disabled", "2"),
    ] {
        fs::write(path, value).map_err(|error| at(path, error))?;
    }
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    setrlimit(Resource::Memlock, unlimited)?;
    Ok(())
}

/// An error, with the place.
fn at(path: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{path}: {error}"))
}

/// Runs `mapemu`; how it ended, and its output. Without a limit the host is told again and again that it goes on.
fn call<A: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = A>,
    limit: Option<Duration>,
    port: &Port,
) -> io::Result<(String, Vec<u8>)> {
    let mut child = Command::new("/init")
        .args(arguments)
        // Nobody looks at how far it is, and each byte to the console takes its time.
        .env("TERM", "dumb")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut pipe = child.stdout.take().expect("it is piped");
    let reader = thread::spawn(move || {
        let mut output = Vec::new();
        pipe.read_to_end(&mut output).map(|_| output)
    });
    let pause = Duration::from_millis(limit.map_or(50, |_| 2));
    let (begun, mut told) = (Instant::now(), Instant::now());
    let status = loop {
        if limit.is_none() && told.elapsed() > ALIVE {
            port.alive();
            told = Instant::now();
        }
        match child.try_wait()? {
            Some(status) => {
                break status
                    .code()
                    .map_or("signal".to_owned(), |code| code.to_string());
            }
            None if limit.is_some_and(|limit| begun.elapsed() > limit) => {
                child.kill()?;
                child.wait()?;
                break "time".to_owned();
            }
            None => thread::sleep(pause),
        }
    };
    let output = reader
        .join()
        .map_err(|_| io::Error::other("the reader failed"))??;
    Ok((status, output))
}
