//! Calls of helpers.

use super::machine::{Called, Run};
use super::memory::{Place, Val};
use super::{Fault, fault};
use crate::abi::{Errno, Result as Answer, UpdateFlags};
use crate::map::Map;

/// What a helper returns for a result: 0, or the negative errno.
fn returned(result: Answer<()>) -> Val {
    match result {
        Ok(()) => Val::Number(0),
        Err(errno) => Val::Number(errno.negated().cast_unsigned()),
    }
}

impl<'m> Run<'m> {
    fn map(&self, argument: usize) -> Result<(usize, &'m Map), Fault> {
        if let Val::Pointer(Place::Map(map), 0) = self.regs[argument] {
            return Ok((map, self.maps[map]));
        }
        Err(fault(format_args!("R{argument} is no map")))
    }

    fn number(&self, argument: usize) -> Result<u64, Fault> {
        match self.regs[argument] {
            Val::Number(number) => Ok(number),
            Val::Pointer(..) => Err(fault(format_args!("R{argument} is no number"))),
        }
    }

    fn size(&self, argument: usize) -> Result<usize, Fault> {
        // Nothing that a program has is larger.
        const LARGEST: usize = 1 << 29;
        let size = usize::try_from(self.number(argument)?).ok();
        let size = size.filter(|&size| size <= LARGEST);
        size.ok_or_else(|| fault(format_args!("R{argument} is no size")))
    }

    fn key(&self, map: &Map) -> Result<Vec<u8>, Fault> {
        self.bytes(self.regs[2], map.def.key_size as usize)
    }

    fn value(&self, argument: usize, map: &Map) -> Result<Vec<u8>, Fault> {
        self.bytes(self.regs[argument], map.def.value_size as usize)
    }

    fn flags(&self, argument: usize) -> Result<UpdateFlags, Fault> {
        Ok(UpdateFlags::from_bits_retain(self.number(argument)?))
    }

    /// A call of a helper.
    pub(super) fn helper(&mut self, number: i32) -> Result<Called, Fault> {
        let result = match number {
            1 => self.lookup()?,
            195 => {
                let (_, map) = self.map(1)?;
                let key = self.key(map)?;
                let cpu = u32::try_from(self.number(3)?).unwrap_or(u32::MAX);
                let value = self.run.map_lookup_percpu_elem(map, &key, cpu);
                self.pointed(value)
            }
            2 | 3 | 87..=89 => self.change(number)?,
            5 | 125 | 160 | 208 => Val::Number(self.env.now_ns()),
            // What it prints, nobody reads.
            6 | 177 => Val::Number(0),
            7 => Val::Number(super::alu::low(self.env.random())),
            8 => Val::Number(self.run.cpu().into()),
            12 => {
                let Val::Pointer(Place::Map(map), 0) = self.regs[2] else {
                    return Err(fault("R2 is no map"));
                };
                let index = u32::try_from(super::alu::low(self.number(3)?)).unwrap_or(u32::MAX);
                match self.run.tail_call(self.maps[map], index) {
                    Some(next) => return Ok(Called::TailCall(next)),
                    None => Val::Number(Errno::ENOENT.negated().cast_unsigned()),
                }
            }
            25 => self.perf_event_output()?,
            26 => self.load_bytes()?,
            130..=134 => self.ring(number)?,
            _ => return Err(fault(format_args!("helper {number}"))),
        };
        Ok(Called::Returns(result))
    }

    fn lookup(&mut self) -> Result<Val, Fault> {
        let (_, map) = self.map(1)?;
        let key = self.key(map)?;
        if !map.def.map_type.is_map_in_map() {
            let value = self.run.map_lookup_elem(map, &key);
            return Ok(self.pointed(value));
        }
        let Some(inner) = self.run.map_lookup_inner(map, &key) else {
            return Ok(Val::Number(0));
        };
        let room = self.found.iter().find(|room| room.get().is_none());
        let room = room.ok_or_else(|| fault("too many lookups in maps of maps"))?;
        self.maps.push(room.get_or_init(|| inner));
        Ok(Val::Pointer(Place::Map(self.maps.len() - 1), 0))
    }

    fn pointed(&mut self, value: Option<crate::map::Value<'m>>) -> Val {
        match value {
            None => Val::Number(0),
            Some(value) => {
                self.values.push(value);
                Val::Pointer(Place::Value(self.values.len() - 1), 0)
            }
        }
    }

    /// The helpers that change a map, and those that look into a queue.
    fn change(&mut self, number: i32) -> Result<Val, Fault> {
        let (_, map) = self.map(1)?;
        let run = self.run;
        Ok(returned(match number {
            2 => {
                let (key, value) = (self.key(map)?, self.value(3, map)?);
                run.map_update_elem(map, &key, &value, self.flags(4)?)
            }
            3 => run.map_delete_elem(map, &self.key(map)?),
            87 => run.map_push_elem(map, &self.value(2, map)?, self.flags(3)?),
            _ => {
                let mut value = self.value(2, map)?;
                let result = if number == 88 {
                    run.map_pop_elem(map, &mut value)
                } else {
                    run.map_peek_elem(map, &mut value)
                };
                self.write(self.regs[2], &value)?;
                result
            }
        }))
    }

    fn perf_event_output(&self) -> Result<Val, Fault> {
        let Val::Pointer(Place::Map(map), 0) = self.regs[2] else {
            return Err(fault("R2 is no map"));
        };
        let flags = self.number(3)?;
        let data = self.bytes(self.regs[4], self.size(5)?)?;
        let packet = &self.input.data[self.input.start..];
        let map = self.maps[map];
        let sent = if self.run.prog_type().has_packet() {
            self.run.perf_event_output_packet(map, flags, &data, packet)
        } else {
            self.run.perf_event_output(map, flags, &data)
        };
        Ok(returned(sent))
    }

    /// `bpf_skb_load_bytes`: what is not there reads as zeros.
    fn load_bytes(&mut self) -> Result<Val, Fault> {
        let len = self.size(4)?;
        let start = i64::try_from(self.input.start).unwrap_or(0);
        let at = i64::try_from(self.number(2)?).unwrap_or(i64::MAX - start);
        let from = Val::Pointer(Place::Packet, start.saturating_add(at));
        let found = self.bytes(from, len);
        let result = returned(found.as_ref().map(|_| ()).map_err(|_| Errno::EFAULT));
        let bytes = found.unwrap_or_else(|_| vec![0; len]);
        self.write(self.regs[3], &bytes)?;
        Ok(result)
    }

    /// The helpers of ring buffers.
    fn ring(&mut self, number: i32) -> Result<Val, Fault> {
        Ok(match number {
            130 => {
                let (_, map) = self.map(1)?;
                let data = self.bytes(self.regs[2], self.size(3)?)?;
                returned(self.run.ringbuf_output(map, &data, self.number(4)?))
            }
            131 => {
                let (_, map) = self.map(1)?;
                let (size, flags) = (self.number(2)?, self.number(3)?);
                match self.run.ringbuf_reserve(map, size, flags) {
                    None => Val::Number(0),
                    Some(record) => {
                        self.records.push(Some(record));
                        Val::Pointer(Place::Record(self.records.len() - 1), 0)
                    }
                }
            }
            132 | 133 => {
                let Val::Pointer(Place::Record(record), 0) = self.regs[1] else {
                    return Err(fault("R1 is no record"));
                };
                let record = self.records[record].take();
                let record = record.ok_or_else(|| fault("the record was given away"))?;
                let flags = self.number(2)?;
                if number == 132 {
                    record.submit(flags);
                } else {
                    record.discard(flags);
                }
                Val::Number(0)
            }
            _ => {
                let (_, map) = self.map(1)?;
                Val::Number(self.run.ringbuf_query(map, self.number(2)?))
            }
        })
    }
}
