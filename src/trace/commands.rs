//! The commands of bpf(2) on maps: creation, elements, batches.

use serde_json::{Value, json};

use super::engine::{Engine, Outcome};
use super::names::roomy;
use super::request::{Broken, MOST_BYTES, Request, Stop, errno_name, hex, number_of_32};
use super::world::MapFacts;
use crate::abi::{
    BufferBytes, Cmd, Errno, Fd, MapHandle, MapType, Memory, OBJ_NAME_LEN, Result as AbiResult,
    UpdateFlags,
};

/// An address that is never mapped.
pub(super) const BAD_ADDRESS: u64 = 0x10;

/// Keys that a walk without a limit collects at most.
const MOST_KEYS: usize = 1 << 20;

/// The address of a buffer, unless the request asks for a bad or a null pointer.
pub(super) fn pointed(o: Request<'_>, what: &str, addr: u64) -> Result<u64, Broken> {
    match o.text(&format!("{what}_ptr"))? {
        None => Ok(addr),
        Some("bad") => Ok(BAD_ADDRESS),
        Some("null") => Ok(0),
        Some(other) => Err(Broken(format!("{what}_ptr is \"{other}\", no bad or null"))),
    }
}

/// An attr that is put together field by field.
#[derive(Default)]
pub(super) struct AttrBytes(pub(super) Vec<u8>);

impl AttrBytes {
    pub(super) fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(super) fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// The word at an offset, as the kernel left it.
    pub(super) fn u32_at(&self, at: usize) -> u32 {
        let word = self.0.get(at..).and_then(<[u8]>::first_chunk);
        word.map_or(0, |word| u32::from_le_bytes(*word))
    }

    /// Zeros up to `size`.
    pub(super) fn up_to(mut self, size: usize) -> Self {
        self.0.resize(size, 0);
        self
    }
}

/// `count` things of `size` bytes, or as many bytes as a request may ask for.
fn capped(count: u32, size: usize) -> usize {
    (count as usize).saturating_mul(size).min(MOST_BYTES)
}

/// What a batch command wrote, besides its count.
struct BatchOut {
    error: Option<Errno>,
    done: u32,
    keys: Vec<u8>,
    values: Vec<u8>,
    out_batch: Vec<u8>,
}

impl Engine<'_> {
    /// One call of bpf(2); the attr is then as the kernel left it.
    pub(super) fn call<'a>(
        &self,
        cmd: Cmd,
        attr: &'a mut AttrBytes,
        mut memory: Memory<'a>,
    ) -> AbiResult<u32> {
        let size = u32::try_from(attr.0.len()).map_err(|_| Errno::E2BIG)?;
        let addr = memory.output(&mut attr.0);
        let answer = self.bpf(cmd, addr, size, &mut memory);
        if is_on_elements(cmd) {
            let mut sum = self.buffers.get();
            for (own, buffer) in memory.buffers() {
                // The attr holds fds, which each world has its own of.
                if let BufferBytes::Out(bytes) = buffer
                    && own != addr
                {
                    sum = sum_of(sum, bytes);
                }
            }
            self.buffers.set(sum);
        }
        answer
    }

    // --- maps -------------------------------------------------------------------------------------------------------

    pub(super) fn map_create(&mut self, o: Request<'_>) -> Outcome {
        let hash = o.bytes("excl_prog_hash")?.map(|hash| roomy(&hash, 1));
        let mut memory = Memory::new();
        let mut attr = AttrBytes::default()
            .u32(map_type(o)?.0)
            .u32(o.u32("key_size")?)
            .u32(o.u32("value_size")?)
            .u32(o.u32("max_entries")?)
            .u32(o.u32("map_flags")?)
            .u32(self.fd(o, "inner_map")?.unwrap_or(0))
            .u32(o.u32("numa_node")?)
            .bytes(&map_name(o)?)
            .u32(o.u32("map_ifindex")?)
            .u32(self.fd(o, "btf")?.unwrap_or(0))
            .u32(o.u32("btf_key_type_id")?)
            .u32(o.u32("btf_value_type_id")?)
            .u32(o.u32("btf_vmlinux_value_type_id")?)
            .u64(o.u64("map_extra")?)
            .u32(o.u32("value_type_btf_obj_fd")?)
            .u32(self.fd(o, "map_token_fd")?.unwrap_or(0));
        if hash.is_some() || o.has("excl_prog_hash_size") {
            let addr = hash.as_ref().map_or(0, |hash| memory.input(hash));
            attr = attr.u64(addr).u32(o.u32("excl_prog_hash_size")?);
        }
        let fd = self.call(Cmd::MAP_CREATE, &mut attr, memory)?;
        let inner = o.get("inner_map").and_then(Value::as_str);
        let inner = inner.and_then(|name| self.names.map_of(name)).cloned();
        self.adopt(o.need_text("as")?, fd, inner)
    }

    pub(super) fn map_freeze(&mut self, o: Request<'_>) -> Outcome {
        let mut attr = AttrBytes::default().u32(self.need_fd(o, "map")?);
        self.call(Cmd::MAP_FREEZE, &mut attr, Memory::new())?;
        Ok(json!({}))
    }

    pub(super) fn btf_load(&mut self, o: Request<'_>) -> Outcome {
        let data = o.bytes_or_none("data")?;
        let size = u32::try_from(data.len()).map_err(|_| Errno::E2BIG)?;
        let data = roomy(&data, 1);
        let mut memory = Memory::new();
        let mut attr = AttrBytes::default()
            .u64(memory.input(&data))
            .u64(0)
            .u32(size)
            .up_to(28);
        let fd = self.call(Cmd::BTF_LOAD, &mut attr, memory)?;
        self.adopt(o.need_text("as")?, fd, None)
    }

    // --- elements ---------------------------------------------------------------------------------------------------

    /// One of the element commands; `out` is the value's or next key's buffer.
    fn elem(
        &self,
        cmd: Cmd,
        o: Request<'_>,
        out_name: &str,
        out: Option<&mut Vec<u8>>,
        flags: u64,
    ) -> Result<(), Stop> {
        let key = self.key(o)?.map(|key| roomy(&key, 1));
        let points = o.has("key_ptr") || o.has(&format!("{out_name}_ptr"));
        let fits = !points && (cmd != Cmd::MAP_DELETE_ELEM || flags == 0);
        if o.flag("handle")?
            && fits
            && let Some(handle) = self.world.bpf().map_handle(self.need_fd(o, "map")?)
        {
            return self.by_handle(&*handle, cmd, key.as_deref(), out, flags);
        }
        let mut memory = Memory::new();
        let key = key.as_ref().map_or(0, |key| memory.input(key));
        let out = out.map_or(0, |out| memory.output(out));
        let mut attr = AttrBytes::default()
            .u32(self.need_fd(o, "map")?)
            .u32(0)
            .u64(pointed(o, "key", key)?)
            .u64(pointed(o, out_name, out)?)
            .u64(flags);
        self.call(cmd, &mut attr, memory)?;
        Ok(())
    }

    /// The same without bpf(2), on a kernel that can be called so. What fails leaves the buffer as it is.
    fn by_handle(
        &self,
        handle: &dyn MapHandle,
        cmd: Cmd,
        key: Option<&[u8]>,
        out: Option<&mut Vec<u8>>,
        flags: u64,
    ) -> Result<(), Stop> {
        let given = key.unwrap_or_default();
        let flags = UpdateFlags::from_bits_retain(flags);
        let mut bytes = out.as_ref().map_or(Vec::new(), |out| out.to_vec());
        let answer = match cmd {
            Cmd::MAP_UPDATE_ELEM => handle.update_elem(given, &bytes, flags),
            Cmd::MAP_LOOKUP_ELEM => handle.lookup_elem(given, &mut bytes, flags),
            Cmd::MAP_DELETE_ELEM => handle.delete_elem(given),
            Cmd::MAP_GET_NEXT_KEY => handle.get_next_key(key, &mut bytes),
            _ => handle.lookup_and_delete_elem(given, &mut bytes, flags),
        };
        if let Some(out) = out {
            if answer.is_ok() {
                *out = bytes;
            }
            self.buffers.set(sum_of(self.buffers.get(), out));
        }
        Ok(answer?)
    }

    pub(super) fn map_update_elem(&mut self, o: Request<'_>) -> Outcome {
        let mut value = self.value(o)?.map(|value| roomy(&value, 1));
        let flags = o.u64("flags")?;
        self.elem(Cmd::MAP_UPDATE_ELEM, o, "value", value.as_mut(), flags)?;
        Ok(json!({}))
    }

    pub(super) fn map_lookup_elem(&mut self, op: &str, o: Request<'_>) -> Outcome {
        let cmd = match op {
            "map_lookup_elem" => Cmd::MAP_LOOKUP_ELEM,
            _ => Cmd::MAP_LOOKUP_AND_DELETE_ELEM,
        };
        let facts = self.sizes(o);
        let mut out = if o.flag("value_in")? {
            self.value(o)?.map(|value| roomy(&value, 1))
        } else {
            Some(roomy(&[], self.value_len(&facts).max(8)))
        };
        self.elem(cmd, o, "value", out.as_mut(), o.u64("flags")?)?;
        Ok(self.out_value(&facts, &out.unwrap_or_default()))
    }

    pub(super) fn map_delete_elem(&mut self, o: Request<'_>) -> Outcome {
        let flags = o.u64("flags")?;
        self.elem(Cmd::MAP_DELETE_ELEM, o, "value", None, flags)?;
        Ok(json!({}))
    }

    pub(super) fn map_get_next_key(&mut self, o: Request<'_>) -> Outcome {
        let facts = self.sizes(o);
        let mut out = roomy(&[], facts.key_size);
        self.elem(Cmd::MAP_GET_NEXT_KEY, o, "next_key", Some(&mut out), 0)?;
        Ok(json!({ "next_key": self.out_key(&facts, &out[..facts.key_size]) }))
    }

    pub(super) fn walk(&mut self, o: Request<'_>) -> Outcome {
        let (fd, facts) = self.map(o)?;
        let limit = o.size("limit")?.unwrap_or(MOST_KEYS).min(MOST_KEYS);
        let (mut keys, mut key, mut next) = (Vec::new(), None, roomy(&[], facts.key_size));
        while keys.len() < limit {
            let answer = self.next_key(fd, key.as_ref(), &mut next);
            if let Err(errno) = answer {
                return Ok(json!({ "keys": keys, "end": errno_name(errno) }));
            }
            keys.push(self.out_key(&facts, &next[..facts.key_size]));
            key = Some(next.clone());
        }
        Ok(json!({ "keys": keys, "end": "limit" }))
    }

    fn next_key(&self, map: Fd, key: Option<&Vec<u8>>, next: &mut [u8]) -> AbiResult<u32> {
        let mut memory = Memory::new();
        let key = key.map_or(0, |key| memory.input(key));
        let next = memory.output(next);
        let mut attr = AttrBytes::default().u32(map).u32(0).u64(key).u64(next);
        attr = attr.up_to(32);
        self.call(Cmd::MAP_GET_NEXT_KEY, &mut attr, memory)
    }

    // --- batches ----------------------------------------------------------------------------------------------------

    pub(super) fn batch(&mut self, op: &str, o: Request<'_>) -> Outcome {
        let facts = self.sizes(o);
        let reading = matches!(op, "map_lookup_batch" | "map_lookup_and_delete_batch");
        let out = self.batch_call(op, o, &facts, reading)?;
        let mut answer = json!({ "done": out.done });
        if let Some(errno) = out.error {
            answer["err"] = Value::String(errno_name(errno));
        }
        if !reading || !matches!(out.error, None | Some(Errno::ENOENT)) {
            return Ok(answer);
        }
        let given = |what: &str| !o.has(&format!("{what}_ptr")) && !o.has(&format!("{what}_edge"));
        // What the kernel says is done lies in the buffers, if it is right.
        let part = |buffer: &[u8], size: usize| {
            buffer[..capped(out.done, size).min(buffer.len())].to_vec()
        };
        if given("keys") {
            answer["keys"] = hex(&part(&out.keys, facts.key_size));
        }
        if given("values") && facts.map_type.is_map_in_map() {
            let ids = part(&out.values, 4);
            answer["value_maps"] = ids
                .as_chunks::<4>()
                .0
                .iter()
                .map(|id| json!(self.names.map_named(u32::from_le_bytes(*id))))
                .collect();
        } else if given("values") {
            answer["values"] = hex(&part(&out.values, self.value_len(&facts)));
        }
        if out.done > 0 && out.error.is_none() {
            let len = if token_is_number(facts.map_type) {
                4
            } else {
                facts.key_size
            };
            answer["out_batch"] = hex(&out.out_batch[..len]);
        }
        Ok(answer)
    }

    fn batch_call(
        &self,
        op: &str,
        o: Request<'_>,
        facts: &MapFacts,
        reading: bool,
    ) -> Result<BatchOut, Stop> {
        let count = o.u32("count")?;
        let token = facts.key_size.max(4);
        let in_batch = o.bytes_or_none("in_batch")?;
        let in_batch = (!in_batch.is_empty()).then(|| roomy(&in_batch, token));
        let mut out_batch = roomy(&[], token);
        let (keys, values) = if reading {
            let value_len = self.value_len(facts);
            (
                vec![0; capped(count, facts.key_size)],
                vec![0; capped(count, value_len)],
            )
        } else if o.has("value_maps") {
            (
                o.bytes_or_none("keys")?,
                self.fds_of_names(o, "value_maps")?,
            )
        } else {
            (o.bytes_or_none("keys")?, o.bytes_or_none("values")?)
        };
        let mut keys = with_edge(o, "keys_edge", &keys)?;
        let mut values = with_edge(o, "values_edge", &values)?;
        let mut memory = Memory::new();
        let in_batch = in_batch.as_ref().map_or(0, |token| memory.input(token));
        let out_addr = memory.output(&mut out_batch);
        let only_if = |cond: bool, addr: u64| if cond { addr } else { 0 };
        let mut attr = AttrBytes::default()
            .u64(only_if(reading, pointed(o, "in_batch", in_batch)?))
            .u64(only_if(reading, pointed(o, "out_batch", out_addr)?))
            .u64(pointed(o, "keys", memory.output(&mut keys))?);
        let values_addr = pointed(o, "values", memory.output(&mut values))?;
        attr = attr
            .u64(only_if(op != "map_delete_batch", values_addr))
            .u32(count)
            .u32(self.need_fd(o, "map")?)
            .u64(o.u64("elem_flags")?)
            .u64(o.u64("flags")?);
        let cmd = Cmd::from_name(op).ok_or_else(|| Broken(format!("no command {op}")))?;
        let error = self.call(cmd, &mut attr, memory).err();
        let done = attr.u32_at(32);
        Ok(BatchOut {
            error,
            done,
            keys,
            values,
            out_batch,
        })
    }
}

/// A batch's array: as long as it takes and more, unless it ends at an edge.
fn with_edge(o: Request<'_>, field: &str, data: &[u8]) -> Result<Vec<u8>, Broken> {
    Ok(match o.size(field)? {
        None => roomy(data, 1),
        Some(edge) => {
            let mut exact = data[..edge.min(data.len())].to_vec();
            exact.resize(edge, 0);
            exact
        }
    })
}

/// Element and batch commands: their buffers hold keys, values and tokens.
const fn is_on_elements(cmd: Cmd) -> bool {
    matches!(
        cmd,
        Cmd::MAP_LOOKUP_ELEM
            | Cmd::MAP_UPDATE_ELEM
            | Cmd::MAP_DELETE_ELEM
            | Cmd::MAP_GET_NEXT_KEY
            | Cmd::MAP_LOOKUP_AND_DELETE_ELEM
            | Cmd::MAP_LOOKUP_BATCH
            | Cmd::MAP_LOOKUP_AND_DELETE_BATCH
            | Cmd::MAP_UPDATE_BATCH
            | Cmd::MAP_DELETE_BATCH
    )
}

/// A sum over bytes that tells different ones apart, most likely.
fn sum_of(sum: u64, bytes: &[u8]) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    let rest = rest.iter().copied().map(u64::from);
    words
        .chain(rest)
        .fold(sum ^ bytes.len() as u64, |sum, word| {
            (sum.rotate_left(5) ^ word).wrapping_mul(ODD)
        })
}

/// Batches of this type go on from a bucket's number, not from a key.
fn token_is_number(map_type: MapType) -> bool {
    map_type != MapType::RHASH && map_type.name().is_some_and(|name| name.contains("HASH"))
}

/// The type of a map, by name or number.
pub(super) fn map_type(o: Request<'_>) -> Result<MapType, Broken> {
    let given = o.need("type")?;
    match given.as_str() {
        Some(name) => {
            MapType::from_name(name).ok_or_else(|| Broken(format!("no type of map \"{name}\"")))
        }
        None => number_of_32("type", given).map(MapType),
    }
}

/// The name of a map as the attr has it: cut, and filled up with NUL.
fn map_name(o: Request<'_>) -> Result<[u8; OBJ_NAME_LEN], Broken> {
    let given = match o.bytes("map_name_hex")? {
        Some(bytes) => bytes,
        None => o.text("map_name")?.unwrap_or_default().as_bytes().to_vec(),
    };
    let mut name = [0; OBJ_NAME_LEN];
    for (place, byte) in name.iter_mut().zip(given) {
        *place = byte;
    }
    Ok(name)
}
