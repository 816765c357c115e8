//! The element commands, as rivals understand them.

use mapemu::conform::Op;
use serde_json::Value;

/// The answer to a command: the bytes that came, or the errno's name.
pub type Answered = Result<Vec<u8>, String>;

/// A map to be made.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its type's name, in lower case.
    pub map_type: String,
    /// Bytes of a key.
    pub key_size: usize,
    /// Bytes of a value, of one CPU.
    pub value_size: usize,
    /// Elements at most.
    pub max_entries: usize,
    /// `BPF_F_...`
    pub map_flags: u32,
}

impl Spec {
    /// What `map_create` asks for; none for another operation.
    pub fn of(op: &Op) -> Option<Self> {
        let number = |field: &str| op.0.get(field).and_then(Value::as_u64).unwrap_or(0);
        (text(op, "op")? == "map_create").then(|| Self {
            map_type: text(op, "type").unwrap_or_default().to_owned(),
            key_size: number("key_size") as usize,
            value_size: number("value_size") as usize,
            max_entries: number("max_entries") as usize,
            map_flags: number("map_flags") as u32,
        })
    }

    /// `BPF_F_RDONLY`, `WRONLY` and their kin for programs.
    pub fn limits_access(&self) -> bool {
        self.map_flags & (1 << 3 | 1 << 4 | 1 << 7 | 1 << 8) != 0
    }

    /// A queue, a stack, or a Bloom filter.
    pub fn is_keyless(&self) -> bool {
        matches!(&*self.map_type, "queue" | "stack" | "bloom_filter")
    }

    /// A queue or a stack.
    pub fn is_queue(&self) -> bool {
        self.is_keyless() && self.map_type != "bloom_filter"
    }

    /// An array, per CPU or not.
    pub fn is_array(&self) -> bool {
        matches!(&*self.map_type, "array" | "percpu_array")
    }

    /// A value has a part for each CPU.
    pub fn is_percpu(&self) -> bool {
        self.map_type.contains("percpu")
    }

    /// Bytes of a value as bpf(2) copies it.
    pub fn user_value_size(&self) -> usize {
        if self.is_percpu() {
            2 * self.value_size.next_multiple_of(8)
        } else {
            self.value_size
        }
    }
}

/// A command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// Which one.
    pub cmd: Cmd,
    /// The key; none: a null pointer.
    pub key: Option<Vec<u8>>,
    /// The value that is given.
    pub value: Vec<u8>,
    /// Its flags.
    pub flags: u64,
}

/// See [`Call`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cmd {
    Lookup,
    Update,
    Delete,
    Next,
    Take,
}

fn text<'a>(op: &'a Op, field: &str) -> Option<&'a str> {
    op.0.get(field).and_then(Value::as_str)
}

fn bytes(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
    (0..text.len()).step_by(2).map(byte).collect()
}

impl Call {
    /// The command that an operation is; none of others, with pointers that point to nothing, and on other maps.
    pub fn of(op: &Op, spec: &Spec) -> Option<Self> {
        let cmd = match text(op, "op")? {
            "map_lookup_elem" => Cmd::Lookup,
            "map_update_elem" => Cmd::Update,
            "map_delete_elem" => Cmd::Delete,
            "map_get_next_key" => Cmd::Next,
            "map_lookup_and_delete_elem" => Cmd::Take,
            _ => return None,
        };
        let known = ["op", "map", "key", "value", "flags", "value_in"];
        let plain = op.0.keys().all(|field| known.contains(&&**field));
        let flags = op.0.get("flags").and_then(Value::as_u64).unwrap_or(0);
        let call = Self {
            cmd,
            key: text(op, "key").map(bytes),
            value: text(op, "value").map(bytes).unwrap_or_default(),
            flags,
        };
        let fits = call
            .key
            .as_ref()
            .is_none_or(|key| key.len() == spec.key_size || spec.is_keyless());
        (plain && fits && text(op, "map") == Some("m")).then_some(call)
    }

    /// What each tutorial has: commands that the type has, with the flags that it is there for.
    pub fn is_everyday(&self, spec: &Spec) -> bool {
        let keyless = spec.is_keyless();
        let fits = self.key.is_some() != keyless;
        fits && match self.cmd {
            Cmd::Update if keyless => self.flags == 0,
            Cmd::Update => self.flags <= 2,
            Cmd::Lookup => self.flags == 0,
            Cmd::Delete => self.flags == 0 && !keyless && !spec.is_array(),
            Cmd::Take => self.flags == 0 && (spec.map_type.contains("hash") || spec.is_queue()),
            Cmd::Next => false,
        }
    }
}

/// The CPU that an operation goes to, if it is that one.
pub fn set_cpu(op: &Op) -> Option<u32> {
    let cpu = op.0.get("cpu").and_then(Value::as_u64)?;
    (text(op, "op")? == "set_cpu").then(|| u32::try_from(cpu).expect("a CPU"))
}

/// The kernel's answer. What a Bloom filter was asked for comes back as it was.
pub fn answered(answer: &Value, spec: &Spec) -> Answered {
    if let Some(errno) = answer.get("err") {
        return Err(errno.as_str().unwrap_or_default().to_owned());
    }
    if spec.map_type == "bloom_filter" {
        return Ok(Vec::new());
    }
    let value = answer.get("value").or_else(|| answer.get("next_key"));
    Ok(value.and_then(Value::as_str).map(bytes).unwrap_or_default())
}
