//! `mapemu replay` as a program: what it prints, and how it ends.
#![cfg(feature = "cli")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

const HEADER: &str = r#"{"trace": 1, "name": "n", "kernel": "6.18.44", "cpus": 2}"#;
const MAKE: &str = r#"{"do": {"op": "map_create", "as": "m", "type": "queue", "key_size": 0, "value_size": 4, "max_entries": 2}, "got": {}}"#;
const RIGHT: &str = r#"{"do": {"op": "map_lookup_elem", "map": "m"}, "got": {"err": "ENOENT"}}"#;
const WRONG: &str =
    r#"{"do": {"op": "map_lookup_elem", "map": "m"}, "got": {"value": "00000000"}}"#;

/// A file of these lines, in a folder of its own for each test.
fn trace(test: &str, lines: &[&str]) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(test);
    fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("t.jsonl");
    fs::write(&file, lines.join("\n")).expect("a file");
    file
}

fn replay(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mapemu"))
        .arg("replay")
        .args(arguments)
        .output()
        .expect("the program")
}

fn replay_lines(test: &str, lines: &[&str]) -> (Option<i32>, String, String) {
    let file = trace(test, lines);
    let output = replay(&[file.to_str().expect("UTF-8")]);
    let text = |bytes: &[u8]| {
        String::from_utf8_lossy(bytes).replace(file.to_str().expect("UTF-8"), "FILE")
    };
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn right_answers_end_with_0() {
    let (code, out, err) = replay_lines("right", &[HEADER, MAKE, RIGHT]);
    assert_eq!(out, "FILE: 2 passed, 0 failed\n2 passed, 0 failed\n");
    assert_eq!((code, err.as_str()), (Some(0), ""));
}

#[test]
fn a_wrong_answer_is_shown_with_its_line_and_ends_with_1() {
    let (code, out, err) = replay_lines("wrong", &[HEADER, MAKE, WRONG]);
    let shown = concat!(
        r#"FILE:3: {"op":"map_lookup_elem","map":"m"} / {"value":"00000000"} / {"err":"ENOENT"}"#,
        "\nFILE: 1 passed, 1 failed\n1 passed, 1 failed\n"
    );
    assert_eq!(out, shown);
    assert_eq!((code, err.as_str()), (Some(1), ""));
}

#[test]
fn what_the_verifier_refused_is_skipped() {
    let refused = r#"{"do": {"op": "helper", "helper": "map_lookup_elem", "map": "m"}, "got": {"verifier": "EACCES"}}"#;
    let (code, out, _) = replay_lines("refused", &[HEADER, MAKE, refused]);
    let shown = "FILE: 1 passed, 0 failed, 1 skipped\n\
                 1 skipped: the kernel's verifier refused the program\n\
                 1 passed, 0 failed\n";
    assert_eq!((code, out.as_str()), (Some(0), shown));
}

#[test]
fn a_line_that_is_no_request_ends_with_2_and_is_named() {
    let lines = [
        (
            "{",
            "no JSON: EOF while parsing an object at line 1 column 1",
        ),
        ("[]", "no JSON object"),
        (r#"{"got": {}}"#, "neither a header nor a step: no \"do\""),
        (r#"{"do": {}, "got": {}}"#, "the request has no op"),
        (
            r#"{"do": {"op": "fly"}, "got": {}}"#,
            "there is no operation \"fly\"",
        ),
        (
            r#"{"do": {"op": "map_freeze", "map": 1.5}, "got": {}}"#,
            "map is 1.5, no number of 32 bits",
        ),
        (
            r#"{"do": {"op": "map_freeze"}, "got": {}}"#,
            "map is missing",
        ),
        (
            r#"{"do": {"op": "map_delete_elem", "map": "m", "key": "0"}, "got": {}}"#,
            "\"0\" is no hex",
        ),
        (
            r#"{"do": {"op": "map_freeze", "map": "m"}}"#,
            "a step without a recorded answer",
        ),
    ];
    for (line, why) in lines {
        let (code, _, err) = replay_lines("broken", &[HEADER, MAKE, line]);
        assert_eq!((code, err), (Some(2), format!("FILE:3: {why}\n")), "{line}");
    }
}

#[test]
fn files_and_releases_that_are_not_there_end_with_2() {
    let output = replay(&["/nonexistent/t.jsonl"]);
    assert_eq!(output.status.code(), Some(2));
    let file = trace("release", &[HEADER, MAKE, RIGHT]);
    let output = replay(&["--release", "2.4.1", file.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(2));
    let output = replay(&["--no-such-option"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn options_win_over_the_header() {
    let per_cpu = r#"{"do": {"op": "map_create", "as": "m", "type": "percpu_array", "key_size": 4, "value_size": 8, "max_entries": 1}, "got": {}}"#;
    let lookup = r#"{"do": {"op": "map_lookup_elem", "map": "m", "key": "00000000"}, "got": {"value": "000000000000000000000000000000000000000000000000"}}"#;
    let file = trace("options", &[HEADER, per_cpu, lookup]);
    let file = file.to_str().expect("UTF-8");
    assert_eq!(replay(&[file]).status.code(), Some(1));
    assert_eq!(replay(&["--cpus", "3", file]).status.code(), Some(0));
}
