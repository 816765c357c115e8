//! `mapemu bench` as a program: what its lines hold. What they say of the machine is not judged.
#![cfg(feature = "cli")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

fn bench(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_mapemu"))
        .arg("bench")
        .args(arguments)
        .output()
        .expect("the program");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn lines_have_the_promised_fields() {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("bench.jsonl");
    let path = file.to_str().expect("UTF-8");
    let (code, table, _) = bench(&["--quick", "--types", "queue,stack", "--json", path]);
    assert_eq!(code, Some(0));
    for op in ["push", "pop", "peek"] {
        assert!(table.contains(&format!("\n  {op} ")), "{op}: {table}");
    }
    let text = fs::read_to_string(&file).expect("lines");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    // Two types, three operations, by the handle and by bpf(2).
    assert_eq!(lines.len(), 12, "{text}");
    for line in &lines {
        let fields: Vec<&str> = line
            .as_object()
            .expect("an object")
            .keys()
            .map(|field| &**field)
            .collect();
        let promised = [
            "type",
            "op",
            "key_size",
            "value_size",
            "entries",
            "threads",
            "emulated_ns",
            "kernel_ns",
            "dashmap_ns",
        ];
        assert_eq!(fields, promised);
        assert!(["QUEUE", "STACK"].contains(&line["type"].as_str().expect("a name")));
        assert!(line["emulated_ns"].as_f64().expect("a figure") > 0.0);
        assert!(line["kernel_ns"].is_null() || line["kernel_ns"].as_f64() > Some(0.0));
        assert_eq!(line["dashmap_ns"], Value::Null, "it has no queues");
    }
}

#[test]
fn a_type_that_is_not_measured_is_named() {
    let (code, _, told) = bench(&["--types", "hush"]);
    assert_eq!(code, Some(2));
    assert!(told.contains("no type \"hush\" is measured; there are hash, array"));
}
