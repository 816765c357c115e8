//! A program under `mapemu run` that is killed at any moment. Alone in its process, whose fds are counted.
//!
//! `MAPEMU_KILLS=1000` makes more runs.

#![cfg(all(feature = "cli", target_os = "linux"))]
#![allow(missing_docs, clippy::print_stderr, reason = "tests")]

#[path = "run/place.rs"]
mod place;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mapemu::Kernel;
use mapemu::run::{Backend, Run};
use place::Place;

#[track_caller]
fn signal(process: u32, signal: rustix::process::Signal) {
    let process = rustix::process::Pid::from_raw(process.cast_signed()).expect("a process");
    rustix::process::kill_process(process, signal).expect("it is there");
}

fn open_fds() -> usize {
    fs::read_dir("/proc/self/fd").expect("it is there").count()
}

fn own_files() -> Vec<PathBuf> {
    let prefix = format!("mapemu-run-{}-", std::process::id());
    let all = fs::read_dir(std::env::temp_dir()).expect("it is there");
    let all = all.map(|file| file.expect("a file").path());
    all.filter(|path| path.to_string_lossy().contains(&prefix))
        .collect()
}

#[test]
fn a_program_that_is_killed_at_any_moment_leaves_nothing() {
    let place = Place::new();
    let Some(program) = place.compiled("corners", &["-static"]) else {
        return;
    };
    let kills = std::env::var("MAPEMU_KILLS")
        .ok()
        .and_then(|kills| kills.parse().ok());
    let kills: u64 = kills.unwrap_or(50);
    let mut fds = 0;
    for number in 0..kills {
        let kernel = Kernel::builder().doubled_rings(true).seed(number).build();
        let pause = Duration::from_micros(kernel.env().random() % 4000);
        let backend = match number % 4 {
            3 if cfg!(target_arch = "x86_64") => Backend::Ptrace,
            _ => Backend::Notify,
        };
        let mut command = Command::new(&program);
        command.arg("forever");
        let run = Run::new(kernel.clone()).backend(backend);
        let mut running = run.spawn(command).expect("it begins");
        std::thread::sleep(pause);
        let process = running.child().id();
        signal(process, rustix::process::Signal::KILL);
        let status = running.wait().expect("it ends");
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(9)
        );
        running.finish().expect("all is over");
        assert!(!Path::new(&format!("/proc/{process}")).exists());
        assert_eq!(own_files(), Vec::<PathBuf>::new());
        let left = mapemu::calls::bpf_map_get_next_id(&kernel, 0);
        assert_eq!(
            left,
            Err(mapemu::abi::Errno::ENOENT),
            "run {number}: a map is left"
        );
        drop(kernel);
        if number == 0 {
            fds = open_fds();
        }
        assert_eq!(open_fds(), fds, "run {number}");
    }
}
