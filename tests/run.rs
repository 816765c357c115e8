//! `mapemu run`: unmodified programs on emulated maps, as an ordinary user, beside the running kernel where that can be asked.
//!
//! What needs a compiler, bpftool, libbpf or Go is passed over by name where it is missing; with `MAPEMU_REQUIRE_CLIENTS=1` it
//! fails.

#![cfg(all(feature = "cli", target_os = "linux"))]
#![allow(missing_docs, clippy::print_stderr, reason = "tests")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

#[path = "run/place.rs"]
mod place;

use mapemu::Kernel;
use mapemu::helper::Prog;
use mapemu::run::{Backend, Run};
use place::{Place, missing};

fn has(program: &str) -> Option<()> {
    let found = Command::new(program).arg("version").output();
    found.is_ok().then_some(()).or_else(|| missing(program))
}

/// The running kernel answers bpf(2), and can be compared with.
fn has_host() -> bool {
    mapemu::host::Host::new().is_ok()
}

#[track_caller]
fn output(command: &mut Command) -> (String, String, i32) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("it can be run");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (text(stdout), text(stderr), status.code().unwrap_or(-1))
}

/// The same program on the running kernel, with a bpffs of its own.
fn on_host(place: &Place, script: &str) -> String {
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c"]).current_dir(&place.0);
    command.arg(format!("mount -t bpf bpf /sys/fs/bpf && {script}"));
    command.output().map_or_else(
        |error| panic!("unshare: {error}"),
        |output| String::from_utf8(output.stdout).expect("text"),
    )
}

/// Ids and memory figures are the kernel's own business.
fn masked(text: &str) -> String {
    let mut masked = String::new();
    for line in text.lines() {
        let id = line.split_once(": ").filter(|(id, rest)| {
            !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()) && rest.contains("flags")
        });
        let line = id.map_or(line, |(_, rest)| rest);
        let line = line.split("memlock").next().unwrap_or(line);
        masked.push_str(line.trim_end());
        masked.push('\n');
    }
    masked
}

const BACKENDS: [&str; 2] = ["notify", "ptrace"];

fn backends() -> &'static [&'static str] {
    if cfg!(target_arch = "x86_64") {
        &BACKENDS
    } else {
        &BACKENDS[..1]
    }
}

#[test]
fn a_static_program_sees_what_it_sees_on_the_kernel() {
    let place = Place::new();
    for (name, line) in [
        ("elements", "value 77"),
        ("machine", "3 runs, in some time: 1"),
    ] {
        let Some(program) = place.compiled(name, &["-static"]) else {
            return;
        };
        let mut outputs = Vec::new();
        for backend in backends() {
            let (out, err, status) = output(place.mapemu(&["--backend", backend]).arg(&program));
            assert_eq!((err.as_str(), status), ("", 3), "{backend}");
            assert!(out.contains(line), "{backend}: {out}");
            outputs.push(out);
        }
        assert!(outputs.windows(2).all(|pair| pair[0] == pair[1]));
        if has_host() {
            let (host, ..) = output(Command::new(&program).current_dir(&place.0));
            assert_eq!(outputs[0], host);
        }
    }
}

/// Whatever the backend, the output is that on the kernel, which ends with that line.
#[track_caller]
fn answers_as_the_kernel(name: &str, last: &str) {
    let place = Place::new();
    let Some(program) = place.compiled(name, &["-pthread", "-no-pie"]) else {
        return;
    };
    let of = |backend: &str| output(place.mapemu(&["--backend", backend]).arg(&program)).0;
    let expected = if has_host() {
        output(&mut Command::new(&program)).0
    } else {
        of("notify")
    };
    assert_eq!(expected.lines().last(), Some(last));
    for backend in backends() {
        similar(&of(backend), &expected);
    }
}

#[test]
fn waiting_for_maps_is_as_on_the_kernel() {
    answers_as_the_kernel("waits", "until it is written: waited, epoll_wait: 1 ");
}

#[test]
fn signals_and_stops_while_a_map_is_waited_for_are_as_on_the_kernel() {
    answers_as_the_kernel("stops", "  after its time");
}

#[test]
fn tasks_of_all_kinds_have_maps_as_on_the_kernel() {
    answers_as_the_kernel("tasks", "exec of a thread: 0, 1");
}

#[test]
fn programs_in_namespaces_and_on_their_own_file_systems_are_answered() {
    let place = Place::new();
    let (Some(program), Some(fuse)) = (
        place.compiled("elements", &["-static"]),
        place.compiled("fuse", &["-pthread"]),
    ) else {
        return;
    };
    let (_, refused, _) = output(place.ordinary("unshare").args(["-rm", "true"]));
    if !refused.is_empty() {
        return missing("a user namespace").unwrap_or_default();
    }
    let (expected, ..) = output(place.mapemu(&[]).arg(&program));
    for backend in backends() {
        for namespaces in [["-r", "--"], ["-rpf", "--mount-proc"]] {
            let mut command = place.mapemu(&["--backend", backend]);
            let (out, ..) = output(command.arg("unshare").args(namespaces).arg(&program));
            similar(&out, &expected);
        }
        // It is served by the program itself, which waits for mapemu while it serves.
        let mut command = place.mapemu(&["--backend", backend]);
        let (out, err, status) = output(command.args(["unshare", "-rm"]).arg(&fuse));
        if status == 77 {
            return missing(&err).unwrap_or_default();
        }
        assert!(
            out.contains("poll: 2 \n") && out.ends_with("openat: 0 \n"),
            "{backend}: {out}"
        );
        fs::remove_dir(place.path("mounted")).expect("it is there");
    }
}

#[test]
fn each_call_happens_once_in_a_storm_of_signals() {
    let place = Place::new();
    let Some(program) = place.compiled("storm", &["-static"]) else {
        return;
    };
    for backend in backends() {
        let (out, ..) = output(place.mapemu(&["--backend", backend]).arg(&program));
        assert_eq!(
            out, "3000 popped, 0 failed, 0 wrong, a storm\n",
            "{backend}"
        );
    }
}

#[test]
fn maps_are_shared_by_processes_threads_and_sockets_and_end_with_the_last_fd() {
    let place = Place::new();
    let Some(program) = place.compiled("forks", &["-pthread"]) else {
        return;
    };
    let expected = "0 processes failed, 1600 of 1600 found\n2 maps\nlookup in a map from a socket: 0 \n\
                    value 42, 2 maps\n1 maps\n1 maps\n";
    for backend in backends() {
        let (out, ..) = output(place.mapemu(&["--backend", backend]).arg(&program));
        assert_eq!(out, expected, "{backend}");
    }
}

#[test]
fn sockets_have_their_own_numbers_and_what_ends_leaves_maps() {
    let place = Place::new();
    let Some(program) = place.compiled("owners", &[]) else {
        return;
    };
    let mut outputs = Vec::new();
    for backend in backends() {
        let (out, err, _) = output(place.mapemu(&["--backend", backend]).arg(&program));
        assert_eq!(err, "", "{backend}");
        assert!(out.contains("it has ended: -1 No such"), "{backend}: {out}");
        assert!(out.contains("closed: -1 No such"), "{backend}: {out}");
        outputs.push(out);
    }
    if has_host() {
        outputs.push(output(Command::new(&program).current_dir(&place.0)).0);
    }
    let (out, ..) = output(place.mapemu(&["--trace", "trace.jsonl"]).arg(&program));
    outputs.push(out);
    assert!(
        outputs.windows(2).all(|pair| pair[0] == pair[1]),
        "{outputs:#?}"
    );
    let mut replay = Command::new(place.path("mapemu"));
    let (out, _, status) = output(replay.arg("replay").arg(place.path("trace.jsonl")));
    assert!(status == 0 && !out.starts_with("0 passed"), "{out}");
}

#[test]
fn bpftool_shows_what_it_shows_on_the_kernel() {
    let place = Place::new();
    if has("bpftool").is_none() {
        return;
    }
    let mut command = place.mapemu(&[]);
    let (out, err, status) = output(command.args(["sh", "bpftool.sh", "/sys/fs/bpf"]));
    assert_eq!((err.as_str(), status), ("", 0));
    assert!(out.contains("lpm_trie") && out.contains("Found 2 elements"));
    if has_host() {
        let host = on_host(&place, "sh bpftool.sh /sys/fs/bpf");
        similar(&masked(&out), &masked(&host));
    }
    // A directory of one's own is as good.
    let pins = place.path("pins");
    fs::create_dir(&pins).expect("a directory");
    place.open();
    let mut command = place.mapemu(&["--pin-root", "pins"]);
    let (there, _, status) = output(command.args(["sh", "bpftool.sh"]).arg(&pins));
    assert_eq!(status, 0);
    let there = there.replace(pins.to_str().expect("text"), "/sys/fs/bpf");
    similar(&masked(&there), &masked(&out));
    let left = fs::read_dir(&pins).expect("it is there").count();
    assert_eq!(left, 0, "no pin is left");
}

/// Fails at the first line that differs, with what is around it.
#[track_caller]
fn similar(one: &str, other: &str) {
    let pairs = one.lines().zip(other.lines());
    for (number, (a, b)) in pairs.enumerate() {
        let around: Vec<&str> = one.lines().skip(number.saturating_sub(6)).take(9).collect();
        assert_eq!(a, b, "line {number}:\n{}", around.join("\n"));
    }
    assert_eq!(one.lines().count(), other.lines().count());
}

#[test]
fn libbpf_loads_an_object_and_reads_its_buffers() {
    let place = Place::new();
    let (Some(program), Some(object)) = (place.compiled("object", &["-lbpf"]), place.object())
    else {
        return;
    };
    for backend in backends() {
        let mut command = place.mapemu(&["--backend", backend]);
        let (out, err, status) = output(command.arg(&program).arg(&object));
        assert_eq!((err.as_str(), status), ("", 0), "{backend}");
        for line in ["counted to 24", "3 runs, 3 records"] {
            assert!(out.lines().any(|found| found == line), "{out}");
        }
        if has_host() {
            let (host, ..) = output(Command::new(&program).arg(&object));
            similar(&out, &host);
        }
    }
}

/// The map of that name, for who plays its programs.
fn map_named(kernel: &Kernel, name: &str) -> std::sync::Arc<mapemu::map::Map> {
    let mut id = 0;
    loop {
        id = mapemu::calls::bpf_map_get_next_id(kernel, id).expect("it is there");
        let fd = mapemu::calls::bpf_map_get_fd_by_id(kernel, id).expect("it is there");
        let map = kernel.map(fd).expect("a map");
        mapemu::abi::Bpf::close(kernel, fd).expect("it is open");
        if map.def.name.starts_with(name.as_bytes()) {
            return map;
        }
    }
}

#[test]
fn a_c_program_reads_what_a_program_in_rust_writes() {
    let place = Place::new();
    let (Some(program), Some(object)) = (place.compiled("object", &["-lbpf"]), place.object())
    else {
        return;
    };
    for backend in [Backend::Notify, Backend::Ptrace] {
        let kernel = Kernel::builder()
            .doubled_rings(true)
            .cpus(mapemu::run::possible_cpus())
            .build();
        let mut command = Command::new(&program);
        command.arg(&object).arg("303").stdout(Stdio::piped());
        let run = Run::new(kernel.clone()).backend(backend);
        let mut running = run.spawn(command).expect("it begins");
        let stdout = running.child().stdout.take().expect("a pipe");
        let mut lines = BufReader::new(stdout).lines();
        let mut line = || lines.next().expect("a line").expect("text");
        while line() != "ready" {}
        let ring = map_named(&kernel, "ring");
        let prog = Prog::sched_cls(0);
        // Many times around the ring, as fast as the reader lets us.
        for number in 0..300 {
            let text = format!("{number:0width$}", width = 20 + number % 200);
            let end = Instant::now() + Duration::from_secs(10);
            while prog.ringbuf_output(&ring, text.as_bytes(), 0).is_err() {
                assert!(Instant::now() < end, "the reader does not read");
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        let events = map_named(&kernel, "events");
        for text in ["first!", "second", "third!"] {
            let current = mapemu::abi::PERF_CURRENT_CPU;
            let sent = prog.perf_event_output(&events, current, text.as_bytes());
            assert_eq!(sent, Ok(()), "{text}");
        }
        let mut read = Vec::new();
        loop {
            let next = line();
            if next == "303 records" {
                break;
            }
            read.push(next);
        }
        let (samples, records): (Vec<_>, Vec<_>) = read
            .into_iter()
            .partition(|line| line.starts_with("sample"));
        assert_eq!(records.len(), 300);
        for (number, record) in records.iter().enumerate() {
            let text = format!("{number:0width$}", width = 20 + number % 200);
            let shown = &text[..text.len().min(40)];
            let expected = format!("record of {} bytes: {shown}", text.len());
            assert_eq!(*record, expected);
        }
        let expected =
            ["first!", "second", "third!"].map(|text| format!("sample on CPU 0: {text}"));
        assert_eq!(samples, expected);
        running.finish().expect("it ends");
    }
}

/// The tests of a package of cilium/ebpf, as Debian has it: built, and where to run them.
fn cilium(place: &Place, package: &str) -> Option<(PathBuf, PathBuf)> {
    let source = Path::new("/usr/share/gocode/src/github.com/cilium/ebpf").join(package);
    if !source.exists() {
        return missing("golang-github-cilium-ebpf-dev");
    }
    let program = place.path("cilium.test");
    let mut go = Command::new("go");
    go.args(["test", "-c", "-o"]).arg(&program);
    go.arg(Path::new("github.com/cilium/ebpf").join(package));
    go.env("GOPATH", "/usr/share/gocode")
        .env("GO111MODULE", "off");
    go.env("GOCACHE", place.path("cache"));
    Some((place.built(&mut go, program)?, source))
}

/// The names of tests that passed, and of those that did not.
fn go_results(text: &str) -> (Vec<String>, Vec<String>) {
    let named = |prefix: &str| {
        let lines = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix(prefix));
        let names = lines.map(|line| line.split(' ').next().unwrap_or_default().to_owned());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    };
    (named("--- PASS: "), named("--- FAIL: "))
}

/// The tests of those names that pass on the kernel pass; at least so many.
#[track_caller]
fn cilium_passes(package: &str, names: &str, least: usize) {
    let place = Place::new();
    let Some((program, source)) = cilium(&place, package) else {
        return;
    };
    let mut command = place.mapemu(&[]);
    command
        .arg(&program)
        .args(["-test.v", "-test.run", names])
        .current_dir(&source)
        .env("TMPDIR", &place.0);
    let (out, err, _) = output(&mut command);
    let (passed, failed) = go_results(&out);
    assert!(passed.len() >= least, "{out}\n{err}");
    if has_host() {
        let script = format!(
            "cd {} && {} -test.v -test.run '{names}'",
            source.display(),
            program.display()
        );
        let (host, _) = go_results(&on_host(&place, &script));
        let worse: Vec<_> = host.iter().filter(|name| !passed.contains(name)).collect();
        assert!(
            worse.is_empty(),
            "these pass on the kernel: {worse:?}\n{out}"
        );
    } else {
        assert!(failed.is_empty(), "{out}");
    }
}

#[test]
fn the_tests_of_cilium_ebpf_pass() {
    let names = "Map|Batch|Iterate|PerCPU|Queue|Pin|Collection|Have";
    cilium_passes("", names, 90);
}

#[test]
fn the_tests_of_ring_buffers_of_cilium_ebpf_pass() {
    cilium_passes("ringbuf", ".", 3);
}

#[test]
fn the_tests_of_perf_buffers_of_cilium_ebpf_pass() {
    cilium_passes("perf", ".", 8);
}

#[test]
fn a_trace_is_replayed_without_a_difference() {
    let place = Place::new();
    if has("bpftool").is_none() {
        return;
    }
    let trace = place.path("trace.jsonl");
    let mut command = place.mapemu(&["--trace", "trace.jsonl", "--cpus", "3"]);
    let (.., status) = output(command.args(["sh", "bpftool.sh", "/sys/fs/bpf"]));
    assert_eq!(status, 0);
    let mut replay = Command::new(place.path("mapemu"));
    let (out, _, status) = output(replay.arg("replay").arg(&trace));
    let last = out.lines().last().unwrap_or_default();
    assert_eq!(status, 0, "{out}");
    let steps: u32 = last
        .split(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .expect("a number");
    assert!(steps > 300, "{out}");
}

#[test]
fn the_status_is_that_of_the_program() {
    let place = Place::new();
    for backend in backends() {
        let run = |script: &str| {
            let mut command = place.mapemu(&["--backend", backend]);
            output(command.args(["sh", "-c", script]))
        };
        assert_eq!(run("exit 7").2, 7);
        assert_eq!(run("kill -KILL $$").2, 128 + 9);
        assert_eq!(run("kill -SEGV $$").2, 128 + 11);
        let (out, ..) = run("echo to stdout; cat >&2");
        assert_eq!(out, "to stdout\n");
        let (_, err, status) = output(place.mapemu(&["--backend", backend]).arg("/nonexistent"));
        assert_eq!(status, 127, "{err}");
        let (_, err, status) = output(place.mapemu(&["--backend", backend]).arg("/etc/passwd"));
        assert_eq!(status, 126, "{err}");
        let (_, err, status) = output(place.mapemu(&["--bogus"]).arg("true"));
        assert_eq!((status, err.contains("--bogus")), (125, true), "{err}");
        let (_, err, status) = output(place.mapemu(&["--release", "2.6.39"]).arg("true"));
        assert_eq!((status, err.contains("no release")), (125, true), "{err}");
    }
}

#[test]
fn signals_reach_the_program() {
    let place = Place::new();
    for backend in backends() {
        let mut command = place.mapemu(&["--backend", backend]);
        command.args([
            "sh",
            "-c",
            "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.01; done",
        ]);
        let (mut child, mut out, line) = begun(&mut command);
        assert_eq!(line, "ready\n");
        signal(child.id(), rustix::process::Signal::TERM);
        let mut rest = String::new();
        out.read_to_string(&mut rest).expect("text");
        assert_eq!(rest, "caught\n");
        assert_eq!(child.wait().expect("it ends").code(), Some(9));
    }
}

#[test]
fn a_program_that_stops_is_seen_to_stop() {
    let place = Place::new();
    for backend in backends() {
        let mut command = place.mapemu(&["--backend", backend]);
        command.args(["sh", "-c", "kill -STOP $$; echo on; exit 4"]);
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("it can be run");
        wait_for_stop(child.id());
        signal(child.id(), rustix::process::Signal::CONT);
        assert_eq!(child.wait().expect("it ends").code(), Some(4), "{backend}");
    }
}

#[test]
fn the_end_of_a_program_that_had_stopped_is_seen() {
    use rustix::process::Signal;
    let place = Place::new();
    for backend in backends() {
        let mut command = place.mapemu(&["--backend", backend]);
        command.args(["sh", "-c", "echo $$; exec sleep 100"]);
        let (mut child, _out, line) = begun(&mut command);
        let program = line.trim().parse().expect("a number");
        signal(program, Signal::STOP);
        wait_for_stop(child.id());
        signal(program, Signal::KILL);
        let ended = || child.try_wait().expect("it is our child");
        let status = wait_for(ended, "its end is seen");
        assert_eq!(status.code(), Some(137), "{backend}");
    }
}

/// The program, what it writes, and its first line.
#[track_caller]
fn begun(command: &mut Command) -> (Child, BufReader<ChildStdout>, String) {
    let child = command.stdout(Stdio::piped()).spawn();
    let mut child = child.expect("it can be run");
    let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    out.read_line(&mut line).expect("a line");
    (child, out, line)
}

/// What `f` gives at last.
#[track_caller]
fn wait_for<T>(mut f: impl FnMut() -> Option<T>, what: &str) -> T {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = f() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within 10 s");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[track_caller]
fn wait_for_stop(process: u32) {
    let stat = format!("/proc/{process}/stat");
    let stopped = || {
        let stat = fs::read_to_string(&stat).expect("it is there");
        stat.contains(") T ").then_some(())
    };
    wait_for(stopped, "it stops");
}

#[track_caller]
fn signal(process: u32, signal: rustix::process::Signal) {
    let process = rustix::process::Pid::from_raw(process.cast_signed()).expect("a process");
    rustix::process::kill_process(process, signal).expect("it is there");
}

#[test]
fn a_daemon_is_answered_and_not_waited_for() {
    let place = Place::new();
    let Some(program) = place.compiled("elements", &["-static"]) else {
        return;
    };
    for backend in backends() {
        let script = format!(
            "(sleep 0.5; {} > daemon.txt) > /dev/null 2>&1 & exit 5",
            program.display()
        );
        let mut command = place.mapemu(&["--backend", backend]);
        let start = Instant::now();
        let (.., status) = output(command.args(["sh", "-c", &script]));
        assert_eq!(status, 5);
        assert!(start.elapsed() < Duration::from_millis(450), "{backend}");
        let end = Instant::now() + Duration::from_secs(10);
        let told = || fs::read_to_string(place.path("daemon.txt")).unwrap_or_default();
        while !told().contains("no such command") {
            assert!(Instant::now() < end, "{backend}: {}", told());
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(told().contains("value 77"), "{backend}: {}", told());
        fs::remove_file(place.path("daemon.txt")).expect("it is there");
    }
}

#[test]
fn limits_names_and_counters_are_as_on_the_kernel() {
    let place = Place::new();
    let Some(corners) = place.compiled("corners", &["-static"]) else {
        return;
    };
    for corner in ["memlock", "reopen", "mapped", "perf"] {
        let outputs = backends().iter().map(|backend| {
            // Under ptrace, an event that counts is refused, and named.
            let (out, err, _) = output(
                place
                    .mapemu(&["--backend", backend])
                    .arg(&corners)
                    .arg(corner),
            );
            assert!(
                err.is_empty() || *backend == "ptrace" && corner == "perf",
                "{err}"
            );
            (out, err.is_empty())
        });
        let outputs: Vec<_> = outputs.filter(|(_, silent)| *silent).collect();
        for (out, _) in &outputs {
            let expected = if has_host() {
                output(Command::new(&corners).arg(corner)).0
            } else {
                outputs[0].0.clone()
            };
            similar(out, &expected);
        }
    }
}

#[test]
fn the_file_system_of_pins_answers_as_the_kernel_s() {
    let place = Place::new();
    if has("bpftool").is_none() {
        return;
    }
    for (backend, all) in [("notify", ""), ("ptrace", "all")] {
        if !backends().contains(&backend) {
            continue;
        }
        let mut command = place.mapemu(&["--backend", backend]);
        let (out, err, _) = output(command.args(["sh", "bpffs.sh", all]));
        assert_eq!(err, "");
        if has_host() {
            // The kernel's own has two files in it.
            let host = on_host(&place, &format!("sh bpffs.sh {all}"));
            let lines = host.lines().filter(|line| !line.ends_with("s.debug"));
            let host: Vec<&str> = lines.collect();
            similar(&out, &host.join("\n"));
        }
    }
}

#[test]
fn what_cannot_be_done_is_said() {
    let place = Place::new();
    let Some(corners) = place.compiled("corners", &["-static"]) else {
        return;
    };
    let corner =
        |options: &[&str], which: &str| output(place.mapemu(options).arg(&corners).arg(which));
    let (out, err, _) = corner(&[], "tracepoint");
    assert_eq!(out, "loaded: 1\nattach: -1 Operation not supported\n");
    assert_eq!(
        err,
        "mapemu: BPF_RAW_TRACEPOINT_OPEN of programs of type RAW_TRACEPOINT is not emulated: EOPNOTSUPP\n"
    );
    let (out, err, _) = corner(&[], "socket");
    assert_eq!(
        out,
        "another program: -1 Invalid argument\nno socket: -1 Socket operation on non-socket\nno length: -1 Invalid argument\nfilter: -1 Operation not supported\n"
    );
    assert!(err.contains("attaching a program to a socket"), "{err}");
    let (.., status) = corner(&["--strict"], "tracepoint");
    assert_eq!(status, 125);
    let (out, err, _) = corner(&[], "few-fds");
    assert_eq!(
        out,
        "16 open, then Too many open files, then 5\nno more maps than fds\n"
    );
    assert_eq!(err, "");
    let mut command = place.ordinary("sh");
    command.args([
        "-c",
        "ulimit -n 32; exec ./mapemu run -- ./corners many-polled",
    ]);
    let (out, err, _) = output(&mut command);
    assert_eq!(out, "poll: -1 Cannot allocate memory\n0 closed\n");
    assert!(err.contains("no free file descriptor"), "{err}");
    let (_, err, _) = corner(&[], "not-dumpable");
    assert!(err.contains("cannot be looked into"), "{err}");
    if cfg!(target_arch = "x86_64") {
        let (out, err, _) = corner(&[], "32-bit");
        assert_eq!(out, "Function not implemented\n");
        assert!(err.contains("another architecture"), "{err}");
    }
}

#[test]
fn a_supervisor_or_a_filter_around_is_said() {
    let place = Place::new();
    let Some(refuse) = place.compiled("refuse", &["-static"]) else {
        return;
    };
    // A run in a run.
    let mut command = place.mapemu(&[]);
    let (_, err, status) = output(
        command
            .arg(place.path("mapemu"))
            .args(["run", "--", "true"]),
    );
    assert_eq!(
        (status, err.contains("another supervisor")),
        (125, true),
        "{err}"
    );
    // Processes whose /proc is not there.
    let mut command = place.ordinary("unshare");
    let mapemu = place.path("mapemu");
    let (_, err, status) = output(command.arg("-Urpf").arg(mapemu).args(["run", "--", "true"]));
    if !err.contains("unshare") {
        assert_eq!((status, err.contains("mount it")), (125, true), "{err}");
    }
    // A container.
    let mut command = place.ordinary(&refuse);
    let (_, err, status) = output(
        command
            .arg(place.path("mapemu"))
            .args(["run", "--", "true"]),
    );
    assert_eq!(
        (status, err.contains("--cap-add BPF")),
        (125, true),
        "{err}"
    );
    if cfg!(target_arch = "x86_64") {
        let Some(program) = place.compiled("elements", &["-static"]) else {
            return;
        };
        let mut command = place.ordinary(&refuse);
        command.arg(place.path("mapemu"));
        let (out, err, status) = output(
            command
                .args(["run", "--backend", "ptrace", "--"])
                .arg(program),
        );
        assert_eq!(
            (status, err.as_str(), out.contains("value 77")),
            (3, "", true),
            "{out}"
        );
        let mut command = place.mapemu(&["--backend", "ptrace"]);
        command.arg(place.path("mapemu"));
        let (_, err, status) = output(command.args(["run", "--backend", "ptrace", "--", "true"]));
        assert_eq!(
            (status, err.contains("traced already")),
            (125, true),
            "{err}"
        );
    }
}
