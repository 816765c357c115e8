//! Ids, pins, information on maps, and raw attributes.

use serde_json::{Map, Value, json};

use super::commands::{AttrBytes, BAD_ADDRESS, pointed};
use super::engine::{Engine, Outcome};
use super::names::roomy;
use super::request::{Broken, MOST_BYTES, Request, Stop, bytes, hex, number_of_32, number_of_64};
use crate::abi::{Cmd, Errno, Memory};

/// Fields of `struct bpf_map_info` that answers can have: name, offset, bytes, and whether a short answer has it.
const INFO_FIELDS: [(&str, usize, usize, bool); 16] = [
    ("type", 0, 4, true),
    ("key_size", 8, 4, true),
    ("value_size", 12, 4, true),
    ("max_entries", 16, 4, true),
    ("map_flags", 20, 4, true),
    ("name", 24, 16, true),
    ("ifindex", 40, 4, false),
    ("btf_vmlinux_value_type_id", 44, 4, false),
    ("netns_dev", 48, 8, false),
    ("netns_ino", 56, 8, false),
    ("btf_id", 64, 4, false),
    ("btf_key_type_id", 68, 4, true),
    ("btf_value_type_id", 72, 4, true),
    ("btf_vmlinux_id", 76, 4, false),
    ("map_extra", 80, 8, true),
    ("hash_size", 96, 4, false),
];

/// Bytes of the info buffer that the kernel looks at, at most: it refuses more than a page.
const MOST_INFO: u32 = 1 << 16;

/// Offset of the pointer to the hash in `struct bpf_map_info`; its size follows.
const HASH_AT: usize = 88;

/// One word of a raw attr.
enum Word {
    /// So many bytes of a number.
    Number(usize, u64),
    /// So many bytes of the address of that buffer.
    Address(usize, usize),
    Bytes(Vec<u8>),
}

/// A raw attr before its buffers have addresses.
struct RawAttr {
    words: Vec<Word>,
    buffers: Vec<Vec<u8>>,
    /// The buffers that answers show, and how many of their bytes.
    outs: Vec<(usize, usize)>,
    /// Bytes that its buffers may still take.
    room: usize,
}

impl Engine<'_> {
    // --- ids and pins -----------------------------------------------------------------------------------------------

    pub(super) fn map_get_fd_by_id(&mut self, o: Request<'_>) -> Outcome {
        let id = if o.has("id") {
            o.u32("id")?
        } else {
            self.names.map_id(o.need_text("map")?)?
        };
        let mut attr = AttrBytes::default().u32(id).u32(0).u32(o.u32("flags")?);
        let fd = self.call(Cmd::MAP_GET_FD_BY_ID, &mut attr, Memory::new())?;
        self.adopt(o.need_text("as")?, fd, None)
    }

    pub(super) fn map_get_next_id(&mut self, o: Request<'_>) -> Outcome {
        let mut id = match o.get("after") {
            Some(Value::String(name)) if name.is_empty() => 0,
            Some(Value::String(name)) => self.names.map_id(name)?,
            Some(number) => number_of_32("after", number)?,
            None => 0,
        };
        loop {
            let mut attr = AttrBytes::default().u32(id).u32(0).u32(0);
            self.call(Cmd::MAP_GET_NEXT_ID, &mut attr, Memory::new())?;
            id = attr.u32_at(4);
            if let Some(name) = self.names.map_named(id) {
                return Ok(json!({ "map": name }));
            }
        }
    }

    /// A request's path, in the scenario's bpffs or absolute.
    pub(super) fn path(&mut self, o: Request<'_>) -> Result<String, Stop> {
        let path = o.need_text("path")?;
        // As os.path.join has it: a path from the root stays as it is.
        if o.flag("absolute")? || path.starts_with('/') {
            return Ok(path.to_owned());
        }
        Ok(format!("{}/{path}", self.world.bpffs()?))
    }

    fn obj(&mut self, cmd: Cmd, o: Request<'_>, fd: u32) -> Result<u32, Stop> {
        let mut path = self.path(o)?.into_bytes();
        path.push(0);
        let path = roomy(&path, 1);
        let mut memory = Memory::new();
        let addr = memory.input(&path);
        let mut attr = AttrBytes::default()
            .u64(pointed(o, "path", addr)?)
            .u32(fd)
            .u32(o.u32("flags")?)
            .u32(o.u32("path_fd")?);
        Ok(self.call(cmd, &mut attr, memory)?)
    }

    pub(super) fn obj_pin(&mut self, o: Request<'_>) -> Outcome {
        let fd = self.need_fd(o, "map")?;
        self.obj(Cmd::OBJ_PIN, o, fd)?;
        Ok(json!({}))
    }

    pub(super) fn obj_get(&mut self, o: Request<'_>) -> Outcome {
        let fd = self.obj(Cmd::OBJ_GET, o, o.u32("bpf_fd")?)?;
        self.adopt(o.need_text("as")?, fd, None)
    }

    // --- information ------------------------------------------------------------------------------------------------

    pub(super) fn obj_get_info_by_fd(&mut self, o: Request<'_>) -> Outcome {
        let long = o.has("info_len");
        let asked = o.u32_or("info_len", 104)?;
        let mut buffer = vec![0; asked.clamp(256, MOST_INFO) as usize + 8];
        if let Some(tail) = o.size("tail")? {
            *buffer
                .get_mut(tail)
                .ok_or_else(|| Broken(format!("tail {tail} is behind the buffer")))? = 1;
        }
        let hash_size = o.size("hash_size")?;
        let mut hash = roomy(&[], hash_size.unwrap_or(0).max(1));
        let mut memory = Memory::new();
        let hash_addr = memory.output(&mut hash);
        if hash_size.is_some() {
            buffer[HASH_AT..HASH_AT + 8].copy_from_slice(&hash_addr.to_le_bytes());
            buffer[HASH_AT + 8..HASH_AT + 12].copy_from_slice(&o.u32("hash_size")?.to_le_bytes());
        }
        let info_addr = memory.output(&mut buffer);
        let mut attr = AttrBytes::default()
            .u32(self.need_fd(o, "map")?)
            .u32(asked)
            .u64(pointed(o, "info", info_addr)?);
        self.call(Cmd::OBJ_GET_INFO_BY_FD, &mut attr, memory)?;
        let wrote = attr.u32_at(4);
        let mut info = Map::new();
        for (field, at, size, brief) in INFO_FIELDS {
            if (!long && brief) || (long && at + size <= wrote as usize) {
                info.insert(field.to_owned(), info_field(field, &buffer[at..at + size]));
            }
        }
        let mut answer = json!({ "info": info });
        if long {
            answer["info_len"] = json!(wrote);
            if let Some(size) = hash_size {
                answer["hash"] = hex(&hash[..size]);
            }
        }
        Ok(answer)
    }

    pub(super) fn fdinfo(&mut self, o: Request<'_>) -> Outcome {
        let text = self.world.fdinfo(self.open_fd(o, "map")?)?;
        let hidden = ["pos:", "flags:", "mnt_id:", "ino:"];
        let varies = ["memlock:", "map_id:"];
        let lines: Vec<String> = text
            .lines()
            .map(|line| line.split_once('\t').unwrap_or((line, "")))
            .filter(|(name, _)| !hidden.contains(name))
            .map(|(name, value)| match value {
                _ if varies.contains(&name) => format!("{name}\t*"),
                "" => name.to_owned(),
                value => format!("{name}\t{value}"),
            })
            .collect();
        Ok(json!({ "lines": lines }))
    }

    // --- raw attributes ---------------------------------------------------------------------------------------------

    /// Any command, with an attr that is given word by word.
    pub(super) fn raw(&mut self, o: Request<'_>) -> Outcome {
        let given = o.need("cmd")?;
        let cmd = match given.as_str() {
            Some(name) => {
                Cmd::from_name(name).ok_or_else(|| Broken(format!("no command \"{name}\"")))?
            }
            None => Cmd(number_of_32("cmd", given)?),
        };
        let RawAttr {
            words,
            mut buffers,
            outs,
            ..
        } = self.raw_attr(o)?;
        let mut blob = Vec::new();
        let mut memory = Memory::new();
        let addresses: Vec<u64> = buffers
            .iter_mut()
            .map(|buffer| memory.output(buffer))
            .collect();
        for word in words {
            match word {
                Word::Number(len, number) => blob.extend(&number.to_le_bytes()[..len]),
                Word::Address(len, buffer) => blob.extend(&addresses[buffer].to_le_bytes()[..len]),
                Word::Bytes(bytes) => blob.extend(bytes),
            }
        }
        let len = u32::try_from(blob.len()).map_err(|_| Errno::E2BIG)?;
        let size = o.u32_or("size", len)?;
        if o.text("attr_ptr")? != Some("edge") {
            blob = roomy(&blob, size.min(1 << 16) as usize + 8);
        }
        let attr = memory.output(&mut blob);
        let attr = match o.text("attr_ptr")? {
            Some("edge") => attr,
            _ => pointed(o, "attr", attr)?,
        };
        let fd = self.bpf(cmd, attr, size, &mut memory)?;
        drop(memory);
        let mut answer = json!({});
        if fd > 0 {
            // The kernel has just opened it.
            let _closed = self.world.bpf().close(fd);
            answer["fd"] = json!(true);
        }
        if !outs.is_empty() {
            let shown = outs
                .iter()
                .map(|&(buffer, len)| hex(&buffers[buffer][..len]));
            answer["out"] = shown.collect();
        }
        Ok(answer)
    }

    fn raw_attr(&self, o: Request<'_>) -> Result<RawAttr, Stop> {
        let mut raw = RawAttr {
            words: Vec::new(),
            buffers: Vec::new(),
            outs: Vec::new(),
            room: MOST_BYTES,
        };
        for word in o.list("attr")? {
            let wrong = || Broken(format!("{word} is no part of an attr"));
            let [width, value] = word
                .as_array()
                .and_then(|pair| <&[Value; 2]>::try_from(pair.as_slice()).ok())
                .ok_or_else(wrong)?;
            if width == "hex" {
                let text = value.as_str().ok_or_else(wrong)?;
                raw.words.push(Word::Bytes(bytes(text)?));
                continue;
            }
            let len = match width.as_u64() {
                Some(bits @ (8 | 16 | 32 | 64)) => usize::try_from(bits / 8).expect("few bits"),
                _ => return Err(wrong().into()),
            };
            let word = match value.as_object() {
                None => Word::Number(len, number_of_64("attr", value)?),
                Some(what) => self.raw_pointer(len, what, &mut raw)?,
            };
            raw.words.push(word);
        }
        Ok(raw)
    }

    /// A word of a raw attr that is no plain number.
    fn raw_pointer(
        &self,
        len: usize,
        what: &Map<String, Value>,
        raw: &mut RawAttr,
    ) -> Result<Word, Stop> {
        let o = Request(what);
        let (name, value) = what
            .iter()
            .next()
            .ok_or_else(|| Broken("an empty object in an attr".to_owned()))?;
        let (buffer, size) = match name.as_str() {
            "fd" => return Ok(Word::Number(len, self.fd_of_value("fd", value)?.into())),
            "id" => {
                let id = self.names.map_id(o.need_text("id")?)?;
                return Ok(Word::Number(len, id.into()));
            }
            "bad" => return Ok(Word::Number(len, BAD_ADDRESS)),
            "in" => (roomy(&o.bytes_or_none("in")?, 1), None),
            "edge_in" => (o.bytes_or_none("edge_in")?, None),
            "edge_out" => (vec![0; o.size("edge_out")?.unwrap_or(0)], None),
            "out" => {
                let size = o.size("out")?.unwrap_or(0);
                (roomy(&[], size.max(1)), Some(size))
            }
            other => return Err(Broken(format!("\"{other}\" is nothing to point to")).into()),
        };
        raw.room = raw
            .room
            .checked_sub(buffer.len())
            .ok_or_else(|| Broken("too much memory in one attr".to_owned()))?;
        raw.buffers.push(buffer);
        let at = raw.buffers.len() - 1;
        raw.outs.extend(size.map(|size| (at, size)));
        Ok(Word::Address(len, at))
    }
}

/// One field of the info as answers have it.
fn info_field(field: &str, raw: &[u8]) -> Value {
    match field {
        "name" => {
            let end = raw
                .iter()
                .rposition(|&byte| byte != 0)
                .map_or(0, |at| at + 1);
            let name = raw[..end].iter().map(|&byte| char::from(byte));
            Value::String(name.collect())
        }
        "btf_id" => json!(raw.iter().any(|&byte| byte != 0)),
        _ => {
            let mut word = [0; 8];
            word[..raw.len()].copy_from_slice(raw);
            json!(u64::from_le_bytes(word))
        }
    }
}
