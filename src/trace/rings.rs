//! Ring buffers: programs that write, and user space on the other side, which shares their memory.

use serde_json::{Value, json};

use super::engine::{Engine, Outcome};
use super::events::stop_return;
use super::programs::{known, number_of};
use super::request::{Broken, Request, Stop, hex};
use super::world::{Drain, RingStep};
use crate::abi::{MapRequest, MapType, Mapping, Result as AbiResult};
use crate::env::PAGE_SIZE;

const BUSY: u32 = 1 << 31;
const DISCARD: u32 = 1 << 30;

/// Bytes of a record's header.
const HEADER: usize = 8;

/// Records of more bytes show their length only.
const MOST_SHOWN: usize = 4096;

/// Records of one reading at most.
const MOST_RECORDS: usize = 1 << 16;

/// Samples that answers show at most.
const MOST_SAMPLES: usize = 256;

/// Bytes of the records that one program outputs.
const ROOM: usize = 4096;

/// The memory of a ring buffer as user space has it.
struct Pages {
    consumer: Box<dyn Mapping>,
    /// The producer's page, then the data area twice.
    producer: Box<dyn Mapping>,
    size: usize,
    user: bool,
}

fn word(mapping: &dyn Mapping, at: usize) -> AbiResult<u64> {
    let mut word = [0; 8];
    mapping.read(at, &mut word)?;
    Ok(u64::from_le_bytes(word))
}

impl Pages {
    fn positions(&self) -> AbiResult<(u64, u64)> {
        Ok((word(&*self.consumer, 0)?, word(&*self.producer, 0)?))
    }

    /// Where a position lies in the producer's mapping.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "cut to the size of the data area"
    )]
    fn place(&self, position: u64) -> usize {
        PAGE_SIZE + (position as usize & self.size.wrapping_sub(1))
    }
}

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

    fn pages(&self, o: Request<'_>) -> Result<Pages, Stop> {
        let (fd, facts) = self.map(o)?;
        let user = facts.map_type == MapType::USER_RINGBUF;
        let size = facts.max_entries as usize;
        let mmap = |len, offset, write| {
            let request = MapRequest::shared(offset, len, write);
            self.world.bpf().mmap(fd, request)
        };
        let page = PAGE_SIZE as u64;
        Ok(Pages {
            consumer: mmap(PAGE_SIZE, 0, !user)?,
            producer: mmap(PAGE_SIZE + 2 * size, page, user)?,
            size,
            user,
        })
    }

    pub(super) fn ringbuf_consume(&mut self, o: Request<'_>) -> Outcome {
        let pages = self.pages(o)?;
        let (mut at, end) = pages.positions()?;
        let limit = o.size("limit")?.unwrap_or(MOST_RECORDS).min(MOST_RECORDS);
        let mut records = Vec::new();
        while at < end && records.len() < limit {
            let place = pages.place(at);
            let mut header = [0; HEADER];
            pages.producer.read(place, &mut header)?;
            let [len, pg_off] = [0, 4].map(|at| {
                let bytes = header[at..].first_chunk().expect("a header of 8 bytes");
                u32::from_le_bytes(*bytes)
            });
            let n = len & (DISCARD - 1);
            if len & BUSY != 0 {
                records.push(json!({ "busy": n }));
                break;
            }
            records.push(if len & DISCARD != 0 {
                json!({ "discard": n, "pg_off": pg_off })
            } else if n as usize <= MOST_SHOWN {
                let mut data = vec![0; n as usize];
                pages.producer.read(place + HEADER, &mut data)?;
                json!({ "data": hex(&data), "pg_off": pg_off })
            } else {
                json!({ "len": n, "pg_off": pg_off })
            });
            at = at.wrapping_add((u64::from(n) + 8).next_multiple_of(8));
        }
        if !o.flag("keep")? {
            pages.consumer.write(0, &at.to_le_bytes())?;
        }
        Ok(json!({ "records": records, "consumer": at, "producer": end }))
    }

    pub(super) fn ringbuf_positions(&mut self, o: Request<'_>) -> Outcome {
        Ok(positions_answer(&self.pages(o)?)?)
    }

    pub(super) fn ringbuf_set_pos(&mut self, o: Request<'_>) -> Outcome {
        let pages = self.pages(o)?;
        let mapping = if pages.user {
            &pages.producer
        } else {
            &pages.consumer
        };
        mapping.write(0, &o.u64("pos")?.to_le_bytes())?;
        Ok(json!({}))
    }

    pub(super) fn ringbuf_produce(&mut self, o: Request<'_>) -> Outcome {
        let pages = self.pages(o)?;
        let (_, at) = pages.positions()?;
        let data = o.bytes_or_none("data")?;
        let len = u32::try_from(data.len()).map_err(|_| Broken("too much data".to_owned()))?;
        let len = o.u32_or("len", len)? | o.u32("bits")?;
        let place = pages.place(at);
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&len.to_le_bytes());
        pages.producer.write(place, &header)?;
        pages.producer.write(place + HEADER, &data)?;
        let step = match o.has("step") {
            true => o.u64("step")?,
            false => (data.len() + HEADER).next_multiple_of(8) as u64,
        };
        let next = at.wrapping_add(step);
        pages.producer.write(0, &next.to_le_bytes())?;
        Ok(positions_answer(&pages)?)
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

fn positions_answer(pages: &Pages) -> AbiResult<Value> {
    let (consumer, producer) = pages.positions()?;
    Ok(json!({ "consumer": consumer, "producer": producer }))
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
