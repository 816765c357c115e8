//! `mapemu diff` as a program: what it prints, and how it ends.
#![cfg(feature = "cli")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

const SCENARIO: [&str; 4] = [
    r#"{"trace": 1, "name": "n", "cpus": 2}"#,
    r#"{"do": {"op": "map_create", "as": "m", "type": "array", "key_size": 4, "value_size": 4, "max_entries": 1}}"#,
    r#"{"do": {"op": "map_freeze", "map": "m"}}"#,
    r#"{"do": {"op": "map_freeze", "map": "m"}}"#,
];

fn diff(arguments: &[&str]) -> (Option<i32>, String, String) {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("diff");
    fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join(format!("{}.jsonl", arguments.join("")));
    fs::write(&file, SCENARIO.join("\n")).expect("a file");
    let output = Command::new(env!("CARGO_BIN_EXE_mapemu"))
        .arg("diff")
        .args(arguments)
        .arg(&file)
        .output()
        .expect("the program");
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
fn a_step_that_differs_is_shown_by_release() {
    let (code, out, err) = diff(&["--release", "6.1", "--release", "6.18"]);
    let shown = "FILE:4: {\"op\":\"map_freeze\",\"map\":\"m\"}\n  \
                 6.1.192  {\"err\":\"EBUSY\"}\n  \
                 6.18.44  {\"err\":\"EPERM\"}\n\
                 3 steps, 1 differ\n";
    assert_eq!((code, out.as_str(), err.as_str()), (Some(1), shown, ""));
}

#[test]
fn releases_with_the_same_answer_share_a_line() {
    let (code, out, _) = diff(&[]);
    assert_eq!(code, Some(1));
    assert!(out.contains("  5.10.262 6.1.192  "), "{out}");
}

#[test]
fn nothing_differs_and_it_ends_with_0() {
    let (code, out, _) = diff(&["--release", "6.12", "--release", "7.0.13"]);
    assert_eq!((code, out.as_str()), (Some(0), "3 steps, 0 differ\n"));
}

#[test]
fn what_is_not_proven_is_said_and_what_is_not_there_ends_with_2() {
    let (code, _, err) = diff(&["--release", "6.16.12"]);
    assert_eq!(code, Some(0));
    assert_eq!(err, "6.16.12 is not proven; 6.12.117 is shown\n");
    let (code, _, err) = diff(&["--release", "2.4"]);
    assert_eq!(code, Some(2));
    assert!(
        err.starts_with("mapemu: mapemu has no release \"2.4\""),
        "{err}"
    );
}
