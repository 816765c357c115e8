//! The recordings that the project carries: what real kernels answered, packed by release and family.
//!
//! The script `recordings/pack` makes the files from traces. Each holds the traces of one family, one after another, each with
//! its header; the name of a trace is that of its file. Traces whose answers are those of 6.18.44 are not there twice: the
//! file `same` of a release names them.

use std::io::Read;

use ruzstd::decoding::StreamingDecoder;

/// What one release answered.
#[derive(Clone, Copy, Debug)]
pub struct Recorded {
    /// Point release, such as `6.18.44`.
    pub release: &'static str,
    /// Families with answers of its own.
    own: &'static [Packed],
    /// Names of the traces of 6.18.44 that it answers alike, a line each.
    same: &'static str,
}

/// One family of recordings, in a file.
#[derive(Clone, Copy, Debug)]
struct Packed {
    name: &'static str,
    bytes: &'static [u8],
}

/// A trace, by the name of its file, and its text.
pub type NamedTrace = (String, Vec<u8>);

impl Recorded {
    /// Names of the families, such as `hash-batch`.
    pub fn families(&self) -> impl Iterator<Item = &'static str> {
        let all = LINUX_6_18_44.own.iter();
        all.map(|family| family.name)
    }

    /// The traces of a family that this release has answers to, by name.
    ///
    /// # Panics
    ///
    /// If the program was built from a broken file.
    pub fn traces(&self, family: &str) -> Vec<NamedTrace> {
        let of = |recorded: &Self| {
            let found = recorded.own.iter().find(|packed| packed.name == family);
            found.map(Packed::traces).unwrap_or_default()
        };
        let mut traces = of(self);
        if !self.same.is_empty() {
            let same: Vec<&str> = self.same.lines().collect();
            let shared = of(&LINUX_6_18_44).into_iter();
            traces.extend(shared.filter(|(name, _)| same.contains(&name.as_str())));
            traces.sort_unstable();
        }
        traces
    }
}

impl Packed {
    fn traces(&self) -> Vec<NamedTrace> {
        let mut text = Vec::new();
        let mut decoder = StreamingDecoder::new(self.bytes).expect("a zstd file");
        decoder.read_to_end(&mut text).expect("a whole zstd file");
        let mut traces: Vec<NamedTrace> = Vec::new();
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

/// What each release answered, in order.
pub fn recorded() -> &'static [Recorded] {
    RECORDED
}

macro_rules! recorded {
    ($name:ident, $release:literal, $same:expr, $($family:literal)*) => {
        const $name: Recorded = Recorded {
            release: $release,
            own: &[$(Packed {
                name: $family,
                bytes: include_bytes!(concat!("../../recordings/", $release, "/", $family, ".zst")),
            }),*],
            same: $same,
        };
    };
    ($name:ident, $release:literal, $($family:literal)*) => {
        recorded! {
            $name, $release, include_str!(concat!("../../recordings/", $release, "/same")), $($family)*
        }
    };
}

recorded! {
    LINUX_5_10_262, "5.10.262",
    "array" "array-of-maps" "bloom" "cgroup-storage" "command" "command-attr" "command-batch" "command-flags"
    "create" "create-order" "hash" "hash-ext" "hash-of-maps" "helper" "helper-for-each" "local-storage" "lock"
    "lpm" "lru" "lru-percpu" "other" "other-create" "percpu-hash" "queue" "ringbuf" "stack"
}

recorded! {
    LINUX_6_1_192, "6.1.192",
    "array" "array-of-maps" "bloom" "cgroup-storage" "command" "command-attr" "command-flags" "create" "create-order" "hash" "hash-ext" "hash-of-maps" "helper" "helper-for-each" "local-storage" "lock" "lpm" "lru" "lru-percpu" "other" "other-create" "percpu-hash" "queue" "ringbuf" "stack"
}

recorded! {
    LINUX_6_12_117, "6.12.117",
    "array" "cgroup-storage" "command" "command-attr" "create" "create-order" "hash-of-maps" "helper" "lock" "lru" "other"
    "ringbuf"
}

recorded! {
    LINUX_6_18_15, "6.18.15",
    "cgroup-storage" "command" "lru" "lru-percpu" "percpu-hash"
}

recorded! {
    LINUX_6_18_44, "6.18.44", "",
    "array" "array-of-maps" "bloom" "cgroup-storage" "command" "command-attr" "command-batch" "command-flags"
    "create" "create-order" "hash" "hash-batch" "hash-ext" "hash-of-maps" "helper" "helper-for-each" "local-storage" "lock" "lpm" "lru" "lru-percpu" "other" "other-create" "percpu-hash" "queue" "ringbuf" "stack"
}

recorded! {
    LINUX_6_19_14, "6.19.14",
    "array" "cgroup-storage" "command" "create" "lru" "lru-percpu" "other-create" "percpu-hash" "ringbuf"
}

recorded! {
    LINUX_7_0_13, "7.0.13",
    "array" "cgroup-storage" "command" "command-batch" "command-flags" "create" "hash" "lru" "lru-percpu" "other"
    "other-create" "percpu-hash" "ringbuf"
}

recorded! {
    LINUX_7_3_4, "7.3.4",
    "array" "cgroup-storage" "command" "command-batch" "command-flags" "create" "create-order" "hash" "helper" "lock" "lru" "lru-percpu" "other" "other-create" "percpu-hash" "ringbuf"
}

const RECORDED: &[Recorded] = &[
    LINUX_5_10_262,
    LINUX_6_1_192,
    LINUX_6_12_117,
    LINUX_6_18_15,
    LINUX_6_18_44,
    LINUX_6_19_14,
    LINUX_7_0_13,
    LINUX_7_3_4,
];
