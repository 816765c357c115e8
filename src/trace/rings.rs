//! Ring buffers: programs that write, and user space on the other side, which shares their memory.

use serde_json::{Value, json};

use super::engine::{Engine, Outcome};
use super::events::stop_return;
use super::programs::{known, number_of};
use super::request::{Broken, Request, Stop, hex};
use super::world::{Drain, RingStep};
use crate::abi::{
    MapType, MappedRing, Record, Result as AbiResult, RingMemory, header_of, next_record,
    ringbuf_record_size, write_sample,
};
use crate::map::ringbuf_user::{Consumer, Producer};

/// Records of more bytes show their length only.
const MOST_SHOWN: usize = 4096;

/// Records of one reading at most.
const MOST_RECORDS: usize = 1 << 16;

/// Samples that answers show at most.
const MOST_SAMPLES: usize = 256;

/// Bytes of the records that one program outputs.
const ROOM: usize = 4096;

impl Engine<'_> {
    pub(super) fn ringbuf(&mut self, o: Request<'_>) -> Outcome {
        let (map, facts) = self.map(o)?;
        let (mut records, mut room) = (Vec::new(), ROOM);
        let steps = o
            .list("steps")?
            .iter()
            .map(|step| ring_step(Request::of(step)?, &mut records, &mut room))
            .collect::<Result<Vec<_>, Broken>>()?;
        let results = self.world.ringbuf(map, &facts, &steps)?;
        Ok(json!({ "results": results }))
    }

    // --- user space -------------------------------------------------------------------------------------------------

    fn mapped(&self, o: Request<'_>) -> Result<MappedRing, Stop> {
        let (fd, facts) = self.map(o)?;
        let user = facts.map_type == MapType::USER_RINGBUF;
        let size = facts.max_entries as usize;
        Ok(MappedRing::new(self.world.bpf(), fd, size, user)?)
    }

    pub(super) fn ringbuf_consume(&mut self, o: Request<'_>) -> Outcome {
        let ring = self.mapped(o)?;
        let (mut at, end) = (ring.consumer()?, ring.producer()?);
        let limit = o.size("limit")?.unwrap_or(MOST_RECORDS).min(MOST_RECORDS);
        let mut records = Vec::new();
        while at < end && records.len() < limit {
            let record = Record::at(&ring, at)?;
            let Record { len, pg_off, .. } = record;
            if record.busy {
                // What it will be is not settled.
                records.push(json!({ "busy": len }));
                break;
            }
            records.push(if record.discarded {
                json!({ "discard": len, "pg_off": pg_off })
            } else if len as usize <= MOST_SHOWN {
                let mut data = Vec::new();
                record.read(&ring, &mut data)?;
                json!({ "data": hex(&data), "pg_off": pg_off })
            } else {
                json!({ "len": len, "pg_off": pg_off })
            });
            at = record.end();
        }
        if !o.flag("keep")? {
            ring.set_consumer(at)?;
        }
        Ok(json!({ "records": records, "consumer": at, "producer": end }))
    }

    pub(super) fn ringbuf_positions(&mut self, o: Request<'_>) -> Outcome {
        Ok(positions_answer(&self.mapped(o)?)?)
    }

    pub(super) fn ringbuf_set_pos(&mut self, o: Request<'_>) -> Outcome {
        let (ring, position) = (self.mapped(o)?, o.u64("pos")?);
        if self.map(o)?.1.map_type == MapType::USER_RINGBUF {
            ring.set_producer(position)?;
        } else {
            ring.set_consumer(position)?;
        }
        Ok(json!({}))
    }

    pub(super) fn ringbuf_produce(&mut self, o: Request<'_>) -> Outcome {
        let ring = self.mapped(o)?;
        let at = ring.producer()?;
        let data = o.bytes_or_none("data")?;
        let len = u32::try_from(data.len()).map_err(|_| Broken("too much data".to_owned()))?;
        let said = o.u32_or("len", len)? | o.u32("bits")?;
        ring.set_header(at, header_of(said))?;
        ring.write(at, &data)?;
        let step = match o.has("step") {
            true => o.u64("step")?,
            false => ringbuf_record_size(len),
        };
        ring.set_producer(at.wrapping_add(step))?;
        Ok(positions_answer(&ring)?)
    }

    /// Reads as a library does: what was discarded is passed over.
    pub(super) fn ringbuf_read(&mut self, o: Request<'_>) -> Outcome {
        let (ring, (fd, _)) = (self.mapped(o)?, self.map(o)?);
        let limit = o.size("limit")?.unwrap_or(MOST_RECORDS).min(MOST_RECORDS);
        let mut records = Vec::new();
        let mut note = |data: &[u8]| {
            records.push(hex(data));
            records.len() < limit
        };
        if let Some(mut consumer) = self.world.ring_map(fd).and_then(Consumer::new) {
            consumer.consume(&mut note);
        } else {
            let mut data = Vec::new();
            while let Some(record) = next_record(&ring)? {
                record.read(&ring, &mut data)?;
                let go_on = note(&data);
                ring.set_consumer(record.end())?;
                if !go_on {
                    break;
                }
            }
        }
        Ok(json!({ "records": records, "consumer": ring.consumer()? }))
    }

    /// Writes as a library does: only where there is room.
    pub(super) fn ringbuf_write(&mut self, o: Request<'_>) -> Outcome {
        let (ring, (fd, _)) = (self.mapped(o)?, self.map(o)?);
        let data = o.bytes_or_none("data")?;
        match self.world.ring_map(fd).and_then(Producer::new) {
            Some(mut producer) => producer.produce(&data)?,
            None => write_sample(&ring, &data)?,
        }
        Ok(positions_answer(&ring)?)
    }

    pub(super) fn user_ringbuf_drain(&mut self, o: Request<'_>) -> Outcome {
        let (map, _) = self.map(o)?;
        let drain = Drain {
            map,
            flags: o.u64("flags")?,
            stop_after: o.u64("stop_after")?,
            stop_return: stop_return(o)?,
            room: MOST_SAMPLES,
        };
        let (ret, samples) = self.world.user_ringbuf_drain(&drain)?;
        let samples: Vec<Value> = samples
            .into_iter()
            .map(|sample| match sample {
                Ok(bytes) => hex(&bytes),
                Err(number) => json!(number),
            })
            .collect();
        Ok(json!({ "ret": ret, "samples": samples }))
    }
}

fn positions_answer(ring: &MappedRing) -> AbiResult<Value> {
    Ok(json!({ "consumer": ring.consumer()?, "producer": ring.producer()? }))
}

/// One step of a program on a ring buffer; `room` is what is left for the records that it outputs.
fn ring_step<'a>(
    o: Request<'a>,
    records: &mut Vec<&'a str>,
    room: &mut usize,
) -> Result<RingStep, Broken> {
    let flags = o.u64("flags")?;
    if let Some(mut data) = o.bytes("output")? {
        data.resize(o.size("size")?.unwrap_or(0).max(data.len()), 0);
        *room = room
            .checked_sub(data.len().next_multiple_of(8))
            .ok_or_else(|| Broken(format!("more than {ROOM} bytes to output")))?;
        return Ok(RingStep::Output(data, flags));
    }
    if o.has("query") {
        return Ok(RingStep::Query(o.u64("query")?));
    }
    if o.has("reserve") {
        let record = number_of(o.need_text("as")?, records);
        let data = o.bytes_or_none("data")?;
        return Ok(RingStep::Reserve(o.u64("reserve")?, flags, record, data));
    }
    if let Some(name) = o.text("submit")? {
        return Ok(RingStep::Submit(known(name, records)?, flags));
    }
    if let Some(name) = o.text("discard")? {
        return Ok(RingStep::Discard(known(name, records)?, flags));
    }
    Err(Broken(format!("{} is no step", Value::Object(o.0.clone()))))
}
