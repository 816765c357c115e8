//! The program side of ring buffers, emulated.

use super::emulated::Emulated;
use super::request::Stop;
use super::world::{Drain, RingStep, Sample};
use crate::abi::{Errno, Fd};
use crate::map::ringbuf::{Reservation, Ringbuf};

/// Bytes of a sample that answers show.
const SHOWN: usize = 8;

impl Emulated {
    /// What a ring buffer's helpers are refused for.
    fn verify_ring(&self, ring: Option<&Ringbuf>, user_produces: bool) -> Result<(), Stop> {
        if ring.is_none_or(|ring| ring.user_produces() != user_produces) {
            return Err(Stop::Verifier(Errno::EINVAL));
        }
        if self.only_verify {
            return Err(Stop::Allowed);
        }
        Ok(())
    }

    pub(super) fn run_ring_steps(&self, map: Fd, steps: &[RingStep]) -> Result<Vec<i64>, Stop> {
        let map = self.kernel.map(map)?;
        let ring = map.ops.as_any().downcast_ref::<Ringbuf>();
        let keeps = steps
            .iter()
            .any(|step| matches!(step, RingStep::Reserve(..)));
        let may_keep = self.kernel.release().ringbuf_record_in_stack;
        if !records_are_well_used(steps) || keeps && !may_keep {
            return Err(Stop::Verifier(Errno::EINVAL));
        }
        self.verify_ring(ring, false)?;
        let ring = ring.expect("the verifier looked at it");
        let mut records: Vec<Option<Reservation>> = Vec::new();
        let results = steps
            .iter()
            .map(|step| run_ring_step(ring, step, &mut records))
            .collect();
        Ok(results)
    }

    pub(super) fn drain(&self, drain: &Drain) -> Result<(i64, Vec<Sample>), Stop> {
        let map = self.kernel.map(drain.map)?;
        let ring = map.ops.as_any().downcast_ref::<Ringbuf>();
        if !matches!(drain.stop_return, 0 | 1) {
            return Err(Stop::Verifier(Errno::EINVAL));
        }
        self.verify_ring(ring, true)?;
        let ring = ring.expect("the verifier looked at it");
        let (mut samples, mut calls) = (Vec::new(), 0_u64);
        let answer = ring.drain(drain.flags, &mut |sample| {
            if samples.len() < drain.room {
                let mut shown = [0; SHOWN];
                let read = sample.read(0, &mut shown);
                samples.push(read.map(|()| shown).map_err(Errno::negated));
            }
            calls += 1;
            calls != drain.stop_after || drain.stop_return == 0
        });
        let ret = answer.map_or_else(Errno::negated, u64::cast_signed);
        Ok((ret, samples))
    }
}

/// Every record is submitted or discarded once, after it was reserved, and not reserved again before that.
fn records_are_well_used(steps: &[RingStep]) -> bool {
    let mut in_hand: Vec<usize> = Vec::new();
    for step in steps {
        match step {
            RingStep::Reserve(size, _, record, data) => {
                if in_hand.contains(record) || data.len() as u64 > *size {
                    return false;
                }
                in_hand.push(*record);
            }
            RingStep::Submit(record, _) | RingStep::Discard(record, _) => {
                let Some(at) = in_hand.iter().position(|own| own == record) else {
                    return false;
                };
                in_hand.remove(at);
            }
            RingStep::Output(..) | RingStep::Query(_) => {}
        }
    }
    in_hand.is_empty()
}

fn run_ring_step(ring: &Ringbuf, step: &RingStep, records: &mut Vec<Option<Reservation>>) -> i64 {
    let take = |records: &mut Vec<Option<Reservation>>, record: usize| {
        records.get_mut(record).and_then(Option::take)
    };
    match step {
        RingStep::Output(data, flags) => ring
            .output(data, *flags)
            .map_or_else(Errno::negated, |()| 0),
        RingStep::Query(what) => ring.query(*what).cast_signed(),
        RingStep::Reserve(size, flags, record, data) => {
            let reserved = ring.reserve(*size, *flags);
            if let Some(reserved) = &reserved {
                ring.write(reserved, 0, data);
            }
            let there = i64::from(reserved.is_some());
            if records.len() <= *record {
                records.resize_with(record + 1, || None);
            }
            records[*record] = reserved;
            there
        }
        RingStep::Submit(record, flags) => take(records, *record).map_or(0, |record| {
            ring.submit(record, *flags);
            1
        }),
        RingStep::Discard(record, flags) => take(records, *record).map_or(0, |record| {
            ring.discard(record, *flags);
            1
        }),
    }
}
