//! `mapemu conform` as a program: shards, merging, reports, and how it ends.
#![cfg(feature = "cli")]
#![expect(clippy::print_stderr, reason = "what is skipped is told of by name")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A folder of its own for each test, empty.
fn folder(test: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(test);
    let _there_was_one = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn conform(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mapemu"))
        .arg("conform")
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("the program")
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn json(folder: &Path, file: &str) -> Value {
    let text = fs::read(folder.join(file)).expect("a file");
    serde_json::from_slice(&text).expect("JSON")
}

/// The running kernel may be asked; else it is said that the test is skipped, or it has to be there.
fn may_compare(test: &str) -> bool {
    let output = conform(
        &folder("may"),
        &["--no-recordings", "--types", "queue", "--steps", "1"],
    );
    let (code, _, err) = said(&output);
    if code == Some(0) {
        return true;
    }
    let required = std::env::var_os("MAPEMU_REQUIRE_HOST").is_some_and(|value| value == "1");
    assert!(!required, "{err}");
    eprintln!("skipped: {test}: {err}");
    false
}

const RUN: [&str; 7] = [
    "--no-recordings",
    "--types",
    "hash,queue,arena",
    "--steps",
    "3000",
    "--seed",
    "3",
];

/// Steps and differences by type and command.
fn counts(result: &Value) -> Vec<String> {
    let counts = result["counts"].as_array().expect("a list").iter();
    let line = |one: &Value| {
        let (steps, differ, refused) = (&one["steps"], &one["differ"], &one["refused"]);
        format!(
            "{} {}: {steps} {differ} {refused}",
            one["type"], one["command"]
        )
    };
    counts.map(line).collect()
}

#[test]
fn shards_together_are_the_whole_run() {
    if !may_compare("shards_together_are_the_whole_run") {
        return;
    }
    let folder = folder("shards");
    let run = |more: &[&str]| said(&conform(&folder, &[&RUN, more].concat()));
    assert_eq!(run(&["--json", "whole.json"]).0, Some(0));
    for shard in ["1", "2", "3"] {
        let (which, file) = (format!("{shard}/3"), format!("{shard}.json"));
        assert_eq!(run(&["--shard", &which, "--json", &file]).0, Some(0));
    }
    let merge = [
        "--merge", "3.json", "1.json", "2.json", "--json", "all.json", "--report", "all.html",
    ];
    let (code, out, err) = said(&conform(&folder, &merge));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let (whole, all) = (json(&folder, "whole.json"), json(&folder, "all.json"));
    assert_eq!(counts(&all), counts(&whole));
    assert!(counts(&whole).len() > 30, "{whole}");
    let steps = &whole["steps"];
    assert!(out.ends_with(&format!(
        "{steps} steps compared with the running kernel, 0 differ\n"
    )));
    // No shard is empty, and none has all.
    for file in ["1.json", "2.json", "3.json"] {
        let part = json(&folder, file)["steps"].as_u64().expect("a number");
        assert!(part > 0 && part < steps.as_u64().expect("a number"));
    }
    is_self_contained(&fs::read_to_string(folder.join("all.html")).expect("a report"));

    let (code, out, _) = said(&conform(&folder, &["--merge", "1.json", "3.json"]));
    assert_eq!(code, Some(2), "{out}");
    assert!(out.ends_with("shard 2/3 is missing\n"), "{out}");
    let (code, _, err) = said(&conform(&folder, &["--merge", "1.json", "1.json"]));
    assert_eq!(
        (code, err.as_str()),
        (Some(2), "mapemu: shard 1/3 is there twice\n")
    );
    let (code, _, err) = said(&conform(&folder, &["--merge", "1.json", "whole.json"]));
    assert_eq!(code, Some(2));
    assert!(
        err.starts_with("mapemu: these are of different runs: "),
        "{err}"
    );
}

#[test]
fn a_merged_difference_ends_with_1_and_is_told() {
    if !may_compare("a_merged_difference_ends_with_1_and_is_told") {
        return;
    }
    let folder = folder("difference");
    let (code, ..) = said(&conform(
        &folder,
        &[&RUN[..], &["--json", "a.json"]].concat(),
    ));
    assert_eq!(code, Some(0));
    let mut result = json(&folder, "a.json");
    result["counts"][0]["differ"] = 1.into();
    result["differences"] = serde_json::json!([
        { "type": "hash", "seed": 255, "text": "  1  map_create\n", "file": "f.jsonl" }
    ]);
    fs::write(folder.join("a.json"), result.to_string()).expect("a file");
    let merge = ["--merge", "a.json", "--report", "a.html"];
    let (code, out, _) = said(&conform(&folder, &merge));
    assert_eq!(code, Some(1));
    assert!(
        out.starts_with("hash, seed 0xff:\n  1  map_create\n"),
        "{out}"
    );
    let page = fs::read_to_string(folder.join("a.html")).expect("a report");
    assert!(page.contains("1 answer differs") && page.contains("1  map_create"));
}

/// A browser asks nobody for anything.
fn is_self_contained(page: &str) {
    for outside in ["http", "src=", "@import", "url(", "<script", "<link"] {
        assert!(!page.contains(outside), "the report has {outside}");
    }
    for inside in [
        "<svg",
        "<style>",
        "user_ringbuf",
        "every answer is the kernel",
    ] {
        assert!(page.contains(inside), "the report has no {inside}");
    }
}

#[test]
fn recordings_alone_say_what_they_cover() {
    let folder = folder("recordings");
    let arguments = [
        "--against",
        "recordings",
        "--json",
        "r.json",
        "--report",
        "r.html",
    ];
    let (code, out, err) = said(&conform(&folder, &arguments));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(
        out.contains(", 6.18.44, 6.19.14, 7.0.13, 7.3.4, 0 differ\nnot covered: "),
        "{out}"
    );
    let result = json(&folder, "r.json");
    let recorded = result["recorded"].as_array().expect("a list");
    let has = |of: &str, command: &str| {
        let pair = |one: &&Value| one["type"] == of && one["command"] == command;
        recorded
            .iter()
            .find(pair)
            .is_some_and(|one| one["steps"].as_u64() > Some(20))
    };
    assert!(has("hash", "map_update_elem") && has("lru_hash", "map_lookup_elem"));
    assert!(has("queue", "helper map_push_elem") && has("array", "mmap"));
    let page = fs::read_to_string(folder.join("r.html")).expect("a report");
    assert!(
        page.contains("recorded steps of Linux 5.10.262, 6.1.192") && page.contains("not asked")
    );
}

#[test]
fn what_is_no_shard_or_result_ends_with_2() {
    let folder = folder("wrong");
    fs::write(folder.join("a.json"), "{}").expect("a file");
    for (arguments, why) in [
        (
            &["--shard", "3/2"][..],
            "\"3/2\" is no shard: they are 1/N to N/N",
        ),
        (&["--types", "tree"], "no type \"tree\" is compared"),
        (&["--merge", "none.json"], "none.json: No such file"),
        (
            &["--merge", "a.json"],
            "a.json: no result of this version of mapemu conform",
        ),
        (
            &["--merge", "a.json", "--shard", "1/2"],
            "cannot be used with",
        ),
        (
            &["--against", "nothing"],
            "possible values: host, recordings",
        ),
    ] {
        let (code, _, err) = said(&conform(&folder, arguments));
        assert_eq!(code, Some(2), "{arguments:?}");
        assert!(err.contains(why), "{err}");
    }
}

/// A browser without a screen, if there is one.
fn chromium() -> Option<&'static str> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let runs = |name: &&str| Command::new(name).arg("--version").output().is_ok();
    names.into_iter().find(runs)
}

#[test]
fn a_browser_shows_the_report() {
    let Some(chromium) = chromium() else {
        eprintln!("skipped: a_browser_shows_the_report: there is no Chromium");
        return;
    };
    let folder = folder("browser");
    let (code, ..) = said(&conform(
        &folder,
        &["--against", "recordings", "--report", "r.html"],
    ));
    assert_eq!(code, Some(0));
    let page = format!("file://{}", folder.join("r.html").display());
    let shot = folder.join("r.png");
    let output = Command::new(chromium)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
        ])
        .arg(format!(
            "--user-data-dir={}",
            folder.join("profile").display()
        ))
        .args([
            "--window-size=1320,1000",
            &format!("--screenshot={}", shot.display()),
            &page,
        ])
        .output()
        .expect("a browser");
    let png =
        fs::read(&shot).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
    let word = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().expect("4 bytes"));
    assert_eq!((word(16), word(20)), (1320, 1000));
    // A page of one colour would be a tenth of this.
    assert!(png.len() > 40_000, "{} bytes", png.len());
}

/// What `mapemu-guest` is told, and that its end is this program's: here a script stands for it.
#[cfg(unix)]
#[test]
fn another_kernel_is_asked_by_the_program_that_starts_the_machine() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder("in_vm");
    let guest = folder.join("mapemu-guest");
    fs::write(&guest, "#!/bin/sh\necho \"$@\"\nexit 1\n").expect("a script");
    fs::set_permissions(&guest, fs::Permissions::from_mode(0o755)).expect("its mode");
    let run = |path: &Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_mapemu"))
            .args(["conform", "--in-vm", "--release", "6.1.192"])
            .args(["--types", "hash,queue", "--steps", "7", "--shard", "1/2"])
            .args(["--json", "r.json"])
            .env("PATH", path)
            .current_dir(&folder)
            .output();
        said(&output.expect("the program"))
    };
    let (code, out, _) = run(&folder);
    assert_eq!(code, Some(1));
    assert_eq!(
        out,
        "random --release 6.1.192 --out . --json r.json -- --steps=7 --seed=0 --types=hash,queue --shard=1/2\n"
    );
    let (code, _, err) = run(Path::new("/nowhere"));
    assert_eq!(code, Some(2));
    assert!(err.contains("cargo install --path guest"), "{err}");
    let without = conform(&folder, &["--in-vm"]);
    assert_eq!(said(&without).0, Some(2), "the release has to be named");
}
