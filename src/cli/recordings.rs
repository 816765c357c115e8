//! The recordings that the project carries: what real kernels answered, packed by family.
//!
//! The script `recordings/pack` makes the files from traces. Each holds the traces of one family, one after another, each with
//! its header; the name of a trace is that of its file.

use std::io::Read;

use ruzstd::decoding::StreamingDecoder;

/// One family of recordings, packed.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Series of the release that was recorded, such as `6.18`.
    pub release: &'static str,
    /// Name, such as `hash-batch`.
    pub name: &'static str,
    packed: &'static [u8],
}

impl Family {
    /// The traces of this family, each with its name.
    ///
    /// # Panics
    ///
    /// If the program was built from a broken file.
    pub fn traces(&self) -> Vec<(String, Vec<u8>)> {
        let mut text = Vec::new();
        let mut decoder = StreamingDecoder::new(self.packed).expect("a zstd file");
        decoder.read_to_end(&mut text).expect("a whole zstd file");
        let mut traces: Vec<(String, Vec<u8>)> = Vec::new();
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            if let Some(name) = line.strip_prefix(b"# ") {
                let name = String::from_utf8_lossy(name.trim_ascii_end());
                traces.push((name.into_owned(), Vec::new()));
            }
            // The line with the name stays, so that lines have their numbers.
            let (_, trace) = traces.last_mut().expect("the first line names a trace");
            if !line.starts_with(b"# ") {
                trace.extend_from_slice(line);
            }
        }
        traces
    }
}

/// All families.
pub fn families() -> &'static [Family] {
    FAMILIES
}

macro_rules! families {
    ($release:literal: $($name:literal)*) => {
        const FAMILIES: &[Family] = &[$(Family {
            release: $release,
            name: $name,
            packed: include_bytes!(concat!("../../recordings/", $release, "/", $name, ".zst")),
        }),*];
    };
}

families! {
    "6.18":
    "array"
    "array-of-maps"
    "bloom"
    "cgroup-storage"
    "command"
    "command-attr"
    "command-batch"
    "command-flags"
    "create"
    "create-order"
    "hash"
    "hash-batch"
    "hash-ext"
    "hash-of-maps"
    "helper"
    "helper-for-each"
    "local-storage"
    "lock"
    "lpm"
    "lru"
    "lru-percpu"
    "other"
    "other-create"
    "percpu-hash"
    "queue"
    "ringbuf"
    "stack"
}
