//! What a program's pointers point to.

use std::collections::BTreeMap;

use super::machine::Run;
use super::{Fault, fault};
use crate::abi::ProgType;

/// Bytes of the stack of one function.
const STACK: usize = 512;
/// Where the frame pointer is in it.
const TOP: i64 = 512;

/// Index of the interface `lo`, which a packet of a test comes from.
const LOOPBACK: u64 = 1;

/// What a register holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Val {
    Number(u64),
    Pointer(Place, i64),
}

/// What a pointer points into; the numbers are those of the run's lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Context,
    /// The packet, from its first byte on.
    Packet,
    /// Of a function: offsets are below its frame pointer.
    Stack(usize),
    /// A value of a map.
    Value(usize),
    /// A map itself.
    Map(usize),
    /// A reserved record of a ring buffer.
    Record(usize),
}

/// The stack of one function.
#[derive(Debug)]
pub(super) struct Stack {
    bytes: [u8; STACK],
    /// Pointers that were put there.
    pointers: BTreeMap<i64, Val>,
}

impl Stack {
    pub(super) fn new() -> Self {
        Self {
            bytes: [0; STACK],
            pointers: BTreeMap::new(),
        }
    }

    /// The bytes from an offset on.
    fn at(&self, offset: i64, len: usize) -> Result<std::ops::Range<usize>, Fault> {
        range(offset + TOP, len, self.bytes.len(), "the stack")
    }
}

/// Part of something that is so long.
fn range(
    offset: i64,
    len: usize,
    size: usize,
    what: &str,
) -> Result<std::ops::Range<usize>, Fault> {
    let start = usize::try_from(offset).ok().filter(|&start| start <= size);
    match start {
        Some(start) if len <= size - start => Ok(start..start + len),
        _ => Err(fault(format_args!(
            "{len} bytes at {offset} are outside of {what}"
        ))),
    }
}

/// A pointer to the stack of a function that has returned.
fn gone() -> Fault {
    fault("the function has returned")
}

/// A number of up to 8 bytes.
pub(super) fn number(bytes: &[u8]) -> u64 {
    let mut all = [0; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(all)
}

impl Run<'_> {
    /// Bytes behind a pointer.
    pub(super) fn bytes(&self, from: Val, len: usize) -> Result<Vec<u8>, Fault> {
        let mut out = vec![0; len];
        self.read(from, &mut out)?;
        Ok(out)
    }

    pub(super) fn read(&self, from: Val, out: &mut [u8]) -> Result<(), Fault> {
        let Val::Pointer(place, at) = from else {
            return Err(fault("a number is used as a pointer"));
        };
        let len = out.len();
        match place {
            Place::Context => {
                let bytes = &self.input.ctx;
                out.copy_from_slice(&bytes[range(at, len, bytes.len(), "the context")?]);
            }
            Place::Packet => {
                let bytes = &self.input.data;
                out.copy_from_slice(&bytes[range(at, len, bytes.len(), "the packet")?]);
            }
            Place::Stack(frame) => {
                let stack = &self.frames.get(frame).ok_or_else(gone)?.stack;
                out.copy_from_slice(&stack.bytes[stack.at(at, len)?]);
            }
            Place::Value(value) => {
                let value = &self.values[value];
                let range = range(at, len, value.size(), "the value")?;
                value.read(range.start, out);
            }
            Place::Record(record) => {
                let record = self.records[record].as_ref();
                let record = record.ok_or_else(|| fault("the record was given away"))?;
                let range = range(at, len, record.size(), "the record")?;
                record.read(range.start, out);
            }
            Place::Map(_) => return Err(fault("a map itself is read")),
        }
        Ok(())
    }

    pub(super) fn write(&mut self, to: Val, bytes: &[u8]) -> Result<(), Fault> {
        let Val::Pointer(place, at) = to else {
            return Err(fault("a number is used as a pointer"));
        };
        let len = bytes.len();
        match place {
            Place::Context => {
                let ctx = &mut self.input.ctx;
                let range = range(at, len, ctx.len(), "the context")?;
                ctx[range].copy_from_slice(bytes);
            }
            Place::Packet => {
                let data = &mut self.input.data;
                let range = range(at, len, data.len(), "the packet")?;
                data[range].copy_from_slice(bytes);
            }
            Place::Stack(frame) => {
                let stack = &mut self.frames.get_mut(frame).ok_or_else(gone)?.stack;
                let range = stack.at(at, len)?;
                stack.bytes[range].copy_from_slice(bytes);
                let end = at + i64::try_from(len).unwrap_or(0);
                stack.pointers.retain(|&old, _| old + 8 <= at || old >= end);
            }
            Place::Value(value) => {
                let value = &self.values[value];
                let range = range(at, len, value.size(), "the value")?;
                value.write(range.start, bytes);
            }
            Place::Record(record) => {
                let record = self.records[record].as_mut();
                let record = record.ok_or_else(|| fault("the record was given away"))?;
                let range = range(at, len, record.size(), "the record")?;
                record.write(range.start, bytes);
            }
            Place::Map(_) => return Err(fault("a map itself is written")),
        }
        Ok(())
    }

    /// A load into a register.
    pub(super) fn load(&self, from: Val, size: usize) -> Result<Val, Fault> {
        if let (Val::Pointer(Place::Context, at), 4) = (from, size)
            && let Some(field) = self.context_field(at)
        {
            return Ok(field);
        }
        if let (Val::Pointer(Place::Stack(frame), at), 8) = (from, size)
            && let Some(in_frame) = self.frames.get(frame)
            && let Some(pointer) = in_frame.stack.pointers.get(&at)
        {
            return Ok(*pointer);
        }
        let mut bytes = [0; 8];
        self.read(from, &mut bytes[..size])?;
        Ok(Val::Number(number(&bytes[..size])))
    }

    /// A store of a register.
    pub(super) fn store(&mut self, to: Val, size: usize, value: Val) -> Result<(), Fault> {
        match (to, value) {
            (_, Val::Number(number)) => self.write(to, &number.to_le_bytes()[..size]),
            (Val::Pointer(Place::Stack(frame), at), Val::Pointer(..)) if size == 8 => {
                self.write(to, &[0; 8])?;
                self.frames[frame].stack.pointers.insert(at, value);
                Ok(())
            }
            _ => Err(fault("a pointer is stored elsewhere than on the stack")),
        }
    }

    /// What a field of the context is made of, if it is not just bytes.
    fn context_field(&self, at: i64) -> Option<Val> {
        let (data, start) = (&self.input.data, self.input.start);
        let place = |at: usize| Some(Val::Pointer(Place::Packet, i64::try_from(at).ok()?));
        let prog_type = self.run.prog_type();
        if prog_type == ProgType::XDP {
            return match at {
                0 | 8 => place(start),
                4 => place(data.len()),
                12 => Some(Val::Number(LOOPBACK)),
                _ => None,
            };
        }
        if !prog_type.has_packet() {
            return None;
        }
        match at {
            0 => Some(Val::Number((data.len() - start) as u64)),
            16 => Some(Val::Number(number(data.get(12..14)?))),
            4 => Some(Val::Number(packet_type(data))),
            40 => Some(Val::Number(LOOPBACK)),
            76 => place(start),
            80 => place(data.len()),
            _ => None,
        }
    }
}

/// Whom a packet is for, by the address in its Ethernet header; that of `lo` is zero,
/// and it has none for broadcasts.
///
/// Kernel: `net/ethernet/eth.c:eth_type_trans` (v6.18).
fn packet_type(data: &[u8]) -> u64 {
    const HOST: u64 = 0;
    const MULTICAST: u64 = 2;
    const OTHER_HOST: u64 = 3;
    match data.first_chunk() {
        Some([0, 0, 0, 0, 0, 0]) | None => HOST,
        Some([first, ..]) if first & 1 != 0 => MULTICAST,
        Some(_) => OTHER_HOST,
    }
}
