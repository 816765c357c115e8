//! Checks on the source itself: layers, sizes, words, dependencies, the README's support table.

use std::fs;
use std::path::{Path, PathBuf};

/// Who may use whom, of ours. A new line here is a design change.
const LAYERS: &[(&str, &[&str])] = &[
    ("abi", &[]),
    ("store", &[]),
    ("btf", &["abi", "store", "env"]),
    ("env", &["abi"]),
    ("host", &["abi"]),
    ("map", &["abi", "store", "btf", "env"]),
    ("sys", &["abi", "map", "env", "btf", "store"]),
    ("helper", &["abi", "map", "env", "btf"]),
    // Instructions call helpers; `sys` is given it as a machine.
    ("vm", &["abi", "map", "env", "helper", "sys"]),
    ("calls", &["abi"]),
    ("typed", &["abi", "calls"]),
    ("object", &["abi", "calls", "btf"]),
    // It answers system calls: files and mappings by `sys`; whom a perf event's memory waits for by `map`; a program that is
    // played by `helper`, and one that is run by `vm`; what cannot be done is refused by `env`.
    ("interpose", &["abi", "sys", "map", "env", "helper", "vm"]),
    (
        "trace",
        &["abi", "calls", "sys", "helper", "map", "env", "host"],
    ),
    (
        "conform",
        &[
            "abi", "calls", "sys", "helper", "host", "trace", "map", "env",
        ],
    ),
    ("bench", &["abi", "calls", "sys", "helper", "host", "map"]),
    // What maps know of files, sockets and perf events is told by `map`; how a recording is written, by `trace`.
    // `BPF_PROG_TEST_RUN` runs programs on it.
    ("run", &["abi", "sys", "map", "vm"]),
    (
        "cli",
        &[
            "abi", "bench", "calls", "sys", "helper", "host", "trace", "conform", "map", "env",
            "run",
        ],
    ),
];

/// What we depend on, and why.
const DEPENDENCIES: &[(&str, &str)] = &[
    ("bitflags", "flags that hold any bits"),
    ("bytemuck", "plain data as bytes, for typed keys and values"),
    ("clap", "the command line"),
    (
        "crossbeam-utils",
        "a lock whose readers do not meet; dashmap has it too",
    ),
    ("dashmap", "tables of ids"),
    (
        "foldhash",
        "what dashmap is fast with, where it is measured",
    ),
    ("indicatif", "progress"),
    ("libc", "system calls that rustix lacks"),
    (
        "memmap2",
        "memory that is only taken when used, and that can be mapped",
    ),
    ("object", "reading ELF"),
    ("parking_lot", "locks"),
    ("ruzstd", "recordings, unpacked in Rust alone"),
    ("rustix", "files without a name; the running kernel"),
    ("serde", "traces"),
    ("serde_json", "traces"),
    ("sha2", "the hash of a frozen array"),
    ("thiserror", "errors"),
];

/// Lines of a file at most.
const MAX_LINES: usize = 800;

fn sources(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a folder of the source") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            let text = fs::read_to_string(&path).expect("UTF-8 source");
            found.push((path, text));
        }
    }
    found
}

/// Files of a layer: `src/LAYER/*.rs` or `src/LAYER.rs`.
fn layer_sources(layer: &str) -> Vec<(PathBuf, String)> {
    let dir = Path::new("src").join(layer);
    if dir.is_dir() {
        return sources(&dir);
    }
    let file = dir.with_extension("rs");
    match fs::read_to_string(&file) {
        Ok(text) => vec![(file, text)],
        Err(_) => Vec::new(),
    }
}

#[test]
fn layers_use_only_what_lies_below() {
    for (layer, may_use) in LAYERS {
        for (path, text) in layer_sources(layer) {
            for line in text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
            {
                for rest in line.split("crate::").skip(1) {
                    let used = rest
                        .split(|c: char| !c.is_ascii_lowercase())
                        .next()
                        .expect("a split has a part");
                    let known = LAYERS.iter().any(|(name, _)| *name == used);
                    let may = !known || used == *layer || may_use.contains(&used);
                    assert!(may, "{}: `{layer}` may not use `{used}`", path.display());
                }
            }
        }
    }
}

#[test]
fn every_folder_is_a_layer() {
    for entry in fs::read_dir("src").expect("src") {
        let path = entry.expect("entry").path();
        let name = path
            .file_stem()
            .expect("name")
            .to_string_lossy()
            .into_owned();
        let known = ["lib", "main"].contains(&name.as_str())
            || LAYERS.iter().any(|(layer, _)| *layer == name);
        assert!(known, "{} is in no layer", path.display());
    }
}

#[test]
fn files_are_short_and_say_what_they_are() {
    for (path, text) in sources(Path::new("src")) {
        assert!(
            text.lines().count() <= MAX_LINES,
            "{} is over {MAX_LINES} lines",
            path.display()
        );
        assert!(
            text.starts_with("//!"),
            "{} does not say what it is",
            path.display()
        );
    }
}

#[test]
fn no_words_that_we_do_not_use() {
    for (path, text) in sources(Path::new("src")) {
        for word in [
            "FIXME",
            "TODO",
            "XXX",
            "todo!(",
            "unimplemented!(",
            "#[ignore",
        ] {
            assert!(!text.contains(word), "{} has {word}", path.display());
        }
        // Lines of the kernel's source move: name the function.
        let number_of_a_line = text
            .split(".c:")
            .skip(1)
            .any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        assert!(
            !number_of_a_line,
            "{} names a line of the kernel",
            path.display()
        );
    }
}

#[test]
fn every_dependency_has_a_reason() {
    let manifest = fs::read_to_string("Cargo.toml").expect("Cargo.toml");
    let mut in_dependencies = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            in_dependencies = line == "[dependencies]"
                || line == "[target.'cfg(target_os = \"linux\")'.dependencies]";
        } else if in_dependencies && let Some((name, _)) = line.split_once([' ', '=', '.']) {
            assert!(
                DEPENDENCIES.iter().any(|(known, _)| *known == name),
                "{name} has no line in {}",
                file!()
            );
        }
    }
}

#[test]
fn the_support_table_has_every_type() {
    let readme = fs::read_to_string("README.md").expect("README.md");
    let rows: Vec<&str> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
        .collect();
    let create = fs::read_to_string("src/map/create.rs").expect("the rules of creation");
    for map_type in mapemu::abi::MapType::ALL
        .iter()
        .filter(|map_type| map_type.0 != 0)
    {
        let name = map_type.name().expect("it is in the list");
        assert!(rows.contains(&name), "README has no row for {name}");
        let has_rules = create
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .any(|word| word == name);
        let exists = readme.lines().any(|line| {
            line.starts_with(&format!("| {name} |")) && !line.contains("does not exist")
        });
        assert_eq!(
            has_rules, exists,
            "README and the rules of creation differ about {name}"
        );
    }
}
