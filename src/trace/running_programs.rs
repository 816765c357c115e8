//! The program side of the running kernel: each operation is a program of its own, loaded and run once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::fd::OwnedFd;

use super::request::Stop;
use super::running::Running;
use super::world::{
    Atomic, AtomicOp, Deletes, Drain, ForEach, HelperAnswer, HelperCall, MapFacts, RingStep,
    Sample, Seen, Step, StepAnswer, StorageCall, Timer,
};
use crate::abi::{AttachType, Errno, Fd, Helper, MapType, ProgType};
use crate::host::os::number;
use crate::host::probe::{self, HelperProbe, Shape, Walk, WalkProbe, with_callback};
use crate::host::program::{self, Scratch};
use crate::host::{Asm, Host, Label, Reg, When, Width, off, vmlinux};

/// Bytes of a value that a program of several steps notes at most.
const MOST_NOTED: usize = 64;

/// Bytes of a sample that are read.
const SAMPLE: usize = 8;

/// Helpers that take no map, by number: `enum bpf_func_id`.
const KTIME_GET_NS: u32 = 5;
const RINGBUF_SUBMIT: u32 = 132;
const RINGBUF_DISCARD: u32 = 133;
const GET_CURRENT_TASK_BTF: u32 = 158;
const DYNPTR_READ: u32 = 201;

/// Programs that were loaded for one map. One that was refused is asked for again: an arena may be mapped meanwhile.
#[derive(Debug, Default)]
pub(super) struct Probes {
    helpers: HashMap<probe::HelperCall, HelperProbe>,
    walks: HashMap<Walk, WalkProbe>,
}

/// What there is under a key, made if there is nothing yet.
fn cached<K: std::hash::Hash + Eq, P>(
    probes: &mut HashMap<K, P>,
    key: K,
    make: impl FnOnce(&K) -> Result<P, Errno>,
) -> Result<&P, Stop> {
    Ok(match probes.entry(key) {
        Entry::Occupied(there) => there.into_mut(),
        Entry::Vacant(place) => {
            let made = make(place.key()).map_err(Stop::Verifier)?;
            place.insert(made)
        }
    })
}

fn shape(map: Fd, facts: &MapFacts) -> Shape {
    Shape {
        map,
        key_size: facts.key_size,
        value_size: facts.value_size,
    }
}

impl Running {
    fn host(&self) -> &Host {
        &self.kernel.host
    }

    /// Loads a program; it is refused by the verifier.
    fn load(&self, prog_type: ProgType, asm: &Asm) -> Result<OwnedFd, Stop> {
        let loaded = program::load(self.host(), prog_type, AttachType(0), asm);
        let prog = loaded.map_err(Stop::Verifier)?;
        self.allowed()?;
        Ok(prog)
    }

    /// Nothing is run if only the verifier was asked.
    fn allowed(&self) -> Result<(), Stop> {
        if self.only_verify {
            Err(Stop::Allowed)
        } else {
            Ok(())
        }
    }

    fn run(&self, prog: &OwnedFd) -> Result<(), Stop> {
        Ok(program::test_run(self.host(), number(prog), true)?)
    }

    // --- one helper call --------------------------------------------------------------------------------------------

    pub(super) fn call_helper(&self, call: &HelperCall<'_>) -> Result<HelperAnswer, Stop> {
        let helper = Helper::from_name(call.helper)
            .ok_or_else(|| Stop::ToCome(format!("the helper {}", call.helper)))?;
        let inner = match (&call.inner_key, &call.facts.inner) {
            (Some(_), Some(inner)) => Some((inner.key_size, inner.value_size)),
            _ => None,
        };
        let looks_up = matches!(
            helper,
            Helper::MAP_LOOKUP_ELEM | Helper::MAP_LOOKUP_PERCPU_ELEM
        );
        let key = probe::HelperCall {
            shape: shape(call.map, call.facts),
            prog_type: call.prog_type,
            helper,
            flags: call.flags,
            cpu: call.cpu,
            store_len: call.store.len(),
            skip: call.skip.clone(),
            inner,
        };
        let host = self.host();
        let mut probes = self.kernel.probes.lock();
        let probes = &mut probes.entry(call.facts.id).or_default().helpers;
        let probe = cached(probes, key, |call| HelperProbe::new(host, call))?;
        self.allowed()?;
        let bytes = probe::Bytes {
            key: &call.key,
            inner_key: call.inner_key.as_deref().unwrap_or_default(),
            value: match helper {
                _ if looks_up => &call.store,
                Helper::PERF_EVENT_OUTPUT => &call.store,
                _ => &call.value,
            },
        };
        let came = probe.run(host, bytes)?;
        Ok(match (looks_up, came.ret) {
            (true, 1) => HelperAnswer::Value(came.value),
            (true, ret) => HelperAnswer::Null { outer: ret == 2 },
            (false, ret) => {
                let gives = matches!(helper, Helper::MAP_POP_ELEM | Helper::MAP_PEEK_ELEM);
                HelperAnswer::Ret(ret, (gives && ret == 0).then_some(came.value))
            }
        })
    }

    // --- callbacks --------------------------------------------------------------------------------------------------

    pub(super) fn walk_with_callback(&self, walk: &ForEach<'_>) -> Result<(i64, Vec<Seen>), Stop> {
        let (deletes, given) = match &walk.deletes {
            Deletes::Nothing => (probe::Deletes::Nothing, None),
            Deletes::Own => (probe::Deletes::Own, None),
            Deletes::At(call, key) => (probe::Deletes::Given, Some((*call, key.as_slice()))),
        };
        let key = Walk {
            shape: shape(walk.map, walk.facts),
            flags: walk.flags,
            stop_return: walk.stop_return,
            deletes,
            room: walk.room,
        };
        let host = self.host();
        let mut probes = self.kernel.probes.lock();
        let probes = &mut probes.entry(walk.facts.id).or_default().walks;
        let probe = cached(probes, key, |walk| WalkProbe::new(host, walk))?;
        self.allowed()?;
        let (ret, seen) = probe.run(host, walk.stop_after, given)?;
        let deletes = |call: u64| match given {
            None => deletes == probe::Deletes::Own,
            Some((at, _)) => at == call,
        };
        let seen = seen.into_iter().zip(0..).map(|(seen, call)| Seen {
            key: seen.key,
            value: seen.value,
            deleted: deletes(call).then_some(seen.deleted),
        });
        Ok((ret, seen.collect()))
    }

    // --- several helper calls in one program ------------------------------------------------------------------------

    pub(super) fn run_steps(
        &self,
        map: Fd,
        facts: &MapFacts,
        prog_type: ProgType,
        steps: &[Step],
    ) -> Result<Vec<StepAnswer>, Stop> {
        let plan = Plan::new(map, facts, steps);
        let scratch = Scratch::new(self.host(), plan.end).map_err(Stop::Verifier)?;
        let mut asm = Asm::new();
        asm.map_value(Reg::R9, scratch.fd(), 0);
        let callback = asm.label();
        for (number, step) in steps.iter().enumerate() {
            plan.step(&mut asm, number, step, callback);
        }
        asm.store_imm(Width::Double, Reg::R9, 0, 1)
            .mov(Reg::R0, 0)
            .exit();
        let has_callback = |step: &Step| matches!(step, Step::Timer(_, _, Timer::SetCallback));
        if steps.iter().any(has_callback) {
            asm.here(callback).mov(Reg::R0, 0).exit();
        }
        let prog = self.load(prog_type, &asm)?;
        for (number, step) in steps.iter().enumerate() {
            plan.give(&scratch, number, step);
        }
        self.run(&prog)?;
        if scratch.number(0) != 1 {
            return Err(Errno::EIO.into());
        }
        let answer = |(number, step): (usize, &Step)| plan.answer(&scratch, number, step);
        Ok(steps.iter().enumerate().map(answer).collect())
    }

    // --- local storage ----------------------------------------------------------------------------------------------

    pub(super) fn call_storage_helper(
        &mut self,
        call: &StorageCall<'_>,
    ) -> Result<HelperAnswer, Stop> {
        let len = call.facts.value_size.min(MOST_NOTED);
        let room = len.next_multiple_of(8);
        let (first, out, write) = (16, 16 + room, 16 + 2 * room);
        let scratch = Scratch::new(self.host(), 16 + 3 * room).map_err(Stop::Verifier)?;
        let asm = storage_helper(call, &scratch, len, (first, out, write))?;
        let prog = self.load(ProgType::RAW_TRACEPOINT, &asm)?;
        let give = |at, bytes: &Option<Vec<u8>>| {
            let bytes = bytes.as_deref().unwrap_or_default();
            scratch.write(at, &bytes[..bytes.len().min(len)]);
        };
        give(first, &call.value);
        give(write, &call.write);
        let run = || program::test_run(self.host(), number(&prog), false);
        match call.cgroup {
            None => run()?,
            Some(cgroup) => self.cgroups.inside(cgroup, run)??,
        }
        if scratch.number(8) != 1 {
            return Err(Errno::EIO.into());
        }
        Ok(match (call.delete, scratch.number(0)) {
            (true, ret) => HelperAnswer::Ret(ret, None),
            (false, 0) => HelperAnswer::Null { outer: false },
            (false, _) => HelperAnswer::Value(scratch.read(out, len)),
        })
    }

    // --- ring buffers -----------------------------------------------------------------------------------------------

    pub(super) fn run_ring_steps(&self, map: Fd, steps: &[RingStep]) -> Result<Vec<i64>, Stop> {
        let data_at = 8 * steps.len() + 8;
        let outputs = steps.iter().map(|step| match step {
            RingStep::Output(data, _) => data.as_slice(),
            RingStep::Query(_)
            | RingStep::Reserve(..)
            | RingStep::Submit(..)
            | RingStep::Discard(..) => &[],
        });
        let mut ends = vec![data_at];
        for data in outputs.clone() {
            let end = ends.last().copied().unwrap_or(0);
            ends.push(end + data.len().next_multiple_of(8));
        }
        let len = ends.last().copied().unwrap_or(data_at);
        let scratch = Scratch::new(self.host(), len).map_err(Stop::Verifier)?;
        let mut asm = Asm::new();
        asm.map_value(Reg::R9, scratch.fd(), 0);
        for (number, step) in steps.iter().enumerate() {
            ring_step(&mut asm, map, number, step, ends[number]);
        }
        asm.store_imm(Width::Double, Reg::R9, off(8 * steps.len()), 1)
            .mov(Reg::R0, 0)
            .exit();
        let prog = self.load(ProgType::SCHED_CLS, &asm)?;
        for (data, at) in outputs.zip(&ends) {
            scratch.write(*at, data);
        }
        self.run(&prog)?;
        if scratch.number(8 * steps.len()) != 1 {
            return Err(Errno::EIO.into());
        }
        Ok((0..steps.len())
            .map(|number| scratch.number(8 * number))
            .collect())
    }

    pub(super) fn drain_ring(&self, drain: &Drain) -> Result<(i64, Vec<Sample>), Stop> {
        const ONE: usize = 8 + SAMPLE;
        let scratch = Scratch::new(self.host(), 16 + ONE * drain.room).map_err(Stop::Verifier)?;
        let fd = scratch.fd();
        let element = |asm: &mut Asm, full| {
            let last = i32::try_from(drain.room - 1).unwrap_or(0);
            asm.jump(When::Above, Reg::R8, last, full)
                .mov_reg(Reg::R1, Reg::R8)
                .mul(Reg::R1, 16);
            asm.map_value(Reg::R9, fd, 16).add_reg(Reg::R9, Reg::R1);
            asm.addr(Reg::R1, Reg::R9, 8)
                .mov(Reg::R2, 8)
                .mov_reg(Reg::R3, Reg::R6);
            asm.mov(Reg::R4, 0).mov(Reg::R5, 0).call(DYNPTR_READ);
            asm.store(Width::Double, Reg::R9, 0, Reg::R0);
        };
        let helper = (drain.map, Helper::USER_RINGBUF_DRAIN, drain.flags);
        let asm = with_callback(&scratch, helper, drain.stop_return, Reg::R2, &element);
        let prog = self.load(ProgType::SCHED_CLS, &asm)?;
        scratch.write(8, &drain.stop_after.to_ne_bytes());
        self.run(&prog)?;
        let calls = usize::try_from(scratch.number(8)).map_err(|_| Errno::EIO)?;
        let samples = (0..calls.min(drain.room)).map(|call| {
            let at = 16 + ONE * call;
            match scratch.number(at) {
                0 => Ok(scratch.number(at + 8).to_ne_bytes()),
                errno => Err(errno),
            }
        });
        Ok((scratch.number(0), samples.collect()))
    }
}

/// One step on a ring buffer: its result goes to its place, its data is at `data_at`.
fn ring_step(asm: &mut Asm, map: Fd, number: usize, step: &RingStep, data_at: usize) {
    // Records in hand lie on the stack.
    let slot = |record: usize| -> i16 { -off(8 * (record + 1)) };
    let result = off(8 * number);
    let null = asm.label();
    match step {
        RingStep::Output(data, flags) => {
            asm.map(Reg::R1, map).addr(Reg::R2, Reg::R9, data_at);
            asm.mov(Reg::R3, i32::try_from(data.len()).unwrap_or(i32::MAX));
            asm.mov64(Reg::R4, *flags).call(Helper::RINGBUF_OUTPUT.0);
            asm.store(Width::Double, Reg::R9, result, Reg::R0);
        }
        RingStep::Query(what) => {
            asm.map(Reg::R1, map)
                .mov64(Reg::R2, *what)
                .call(Helper::RINGBUF_QUERY.0);
            asm.store(Width::Double, Reg::R9, result, Reg::R0);
        }
        RingStep::Reserve(size, flags, record, data) => {
            asm.map(Reg::R1, map)
                .mov64(Reg::R2, *size)
                .mov64(Reg::R3, *flags);
            asm.call(Helper::RINGBUF_RESERVE.0);
            asm.store(Width::Double, Reg::R10, slot(*record), Reg::R0);
            asm.jump(When::Equal, Reg::R0, 0, null);
            asm.store_imm(Width::Double, Reg::R9, result, 1);
            for (at, byte) in data.iter().enumerate() {
                asm.store_imm(Width::Byte, Reg::R0, off(at), i32::from(*byte));
            }
        }
        RingStep::Submit(record, flags) | RingStep::Discard(record, flags) => {
            let submits = matches!(step, RingStep::Submit(..));
            asm.load(Width::Double, Reg::R1, Reg::R10, slot(*record));
            asm.jump(When::Equal, Reg::R1, 0, null);
            asm.store_imm(Width::Double, Reg::R9, result, 1)
                .mov64(Reg::R2, *flags);
            asm.call(if submits {
                RINGBUF_SUBMIT
            } else {
                RINGBUF_DISCARD
            });
        }
    }
    asm.here(null);
}

/// Calls a local storage helper on the running task, or on its cgroup.
fn storage_helper(
    call: &StorageCall<'_>,
    scratch: &Scratch,
    len: usize,
    (first, out, write): (usize, usize, usize),
) -> Result<Asm, Stop> {
    let of_cgroup = call.facts.map_type == MapType::CGRP_STORAGE;
    let mut asm = Asm::new();
    asm.map_value(Reg::R9, scratch.fd(), 0)
        .call(GET_CURRENT_TASK_BTF)
        .mov_reg(Reg::R2, Reg::R0);
    if of_cgroup {
        for (of, member) in [("task_struct", "cgroups"), ("css_set", "dfl_cgrp")] {
            let at = vmlinux::offset_of(of, member)?;
            asm.load(Width::Double, Reg::R2, Reg::R2, off(at));
        }
    }
    asm.map(Reg::R1, call.map);
    if call.delete {
        let helper = if of_cgroup {
            Helper::CGRP_STORAGE_DELETE
        } else {
            Helper::TASK_STORAGE_DELETE
        };
        asm.call(helper.0).store(Width::Double, Reg::R9, 0, Reg::R0);
    } else {
        match call.value {
            Some(_) => asm.addr(Reg::R3, Reg::R9, first),
            None => asm.mov(Reg::R3, 0),
        };
        let helper = if of_cgroup {
            Helper::CGRP_STORAGE_GET
        } else {
            Helper::TASK_STORAGE_GET
        };
        let none = asm.label();
        asm.mov64(Reg::R4, call.flags)
            .call(helper.0)
            .jump(When::Equal, Reg::R0, 0, none);
        asm.store_imm(Width::Double, Reg::R9, 0, 1);
        asm.copy((Reg::R9, out), (Reg::R0, 0), len, false, &|_| false);
        if call.write.is_some() {
            asm.copy((Reg::R0, 0), (Reg::R9, write), len, false, &|_| false);
        }
        asm.here(none);
    }
    asm.store_imm(Width::Double, Reg::R9, 8, 1)
        .mov(Reg::R0, 0)
        .exit();
    Ok(asm)
}

/// A program of several steps: where things are in the memory that it shares.
struct Plan {
    map: Fd,
    key_room: usize,
    value_room: usize,
    /// Bytes of a step's result: a number, and what was read.
    result_len: usize,
    /// Where the keys and values begin.
    given_at: usize,
    end: usize,
}

impl Plan {
    fn new(map: Fd, facts: &MapFacts, steps: &[Step]) -> Self {
        let (key_room, value_room) = (
            facts.key_size.next_multiple_of(8),
            facts.value_size.next_multiple_of(8),
        );
        let read = steps.iter().map(|step| match step {
            Step::Read(_, _, len) => *len,
            Step::Lookup(..)
            | Step::Write(..)
            | Step::Add(..)
            | Step::Atomic(..)
            | Step::Timer(..)
            | Step::Lock(..)
            | Step::Unlock(..)
            | Step::Update(..)
            | Step::Delete(_)
            | Step::Call(_) => 0,
        });
        let result_len = 8 + read.max().unwrap_or(0).next_multiple_of(8);
        let given_at = 8 + result_len * steps.len();
        let end = given_at + (key_room + value_room) * steps.len();
        Self {
            map,
            key_room,
            value_room,
            result_len,
            given_at,
            end,
        }
    }

    fn result(&self, number: usize) -> usize {
        8 + self.result_len * number
    }

    fn key(&self, number: usize) -> usize {
        self.given_at + (self.key_room + self.value_room) * number
    }

    fn value(&self, number: usize) -> usize {
        self.key(number) + self.key_room
    }

    /// The keys and values of a step.
    fn give(&self, scratch: &Scratch, number: usize, step: &Step) {
        match step {
            Step::Lookup(key, _) | Step::Delete(key) => scratch.write(self.key(number), key),
            Step::Update(key, value, _) => {
                scratch.write(self.key(number), key);
                scratch.write(self.value(number), value);
            }
            Step::Read(..)
            | Step::Write(..)
            | Step::Add(..)
            | Step::Atomic(..)
            | Step::Timer(..)
            | Step::Lock(..)
            | Step::Unlock(..)
            | Step::Call(_) => {}
        }
    }

    fn answer(&self, scratch: &Scratch, number: usize, step: &Step) -> StepAnswer {
        let result = self.result(number);
        match step {
            Step::Read(_, _, len) => {
                let there = scratch.number(result) != 0;
                StepAnswer::Bytes(there.then(|| scratch.read(result + 8, *len)))
            }
            Step::Lookup(..)
            | Step::Write(..)
            | Step::Add(..)
            | Step::Atomic(..)
            | Step::Timer(..)
            | Step::Lock(..)
            | Step::Unlock(..)
            | Step::Update(..)
            | Step::Delete(_)
            | Step::Call(_) => StepAnswer::Number(scratch.number(result)),
        }
    }

    fn step(&self, asm: &mut Asm, number: usize, step: &Step, callback: Label) {
        // Pointers in hand lie on the stack.
        let slot = |pointer: usize| -> i16 { -off(8 * (pointer + 1)) };
        let result = self.result(number);
        let null = asm.label();
        match step {
            Step::Lookup(_, pointer) => {
                asm.map(Reg::R1, self.map)
                    .addr(Reg::R2, Reg::R9, self.key(number));
                asm.call(Helper::MAP_LOOKUP_ELEM.0);
                asm.store(Width::Double, Reg::R10, slot(*pointer), Reg::R0);
                asm.jump(When::Equal, Reg::R0, 0, null);
                asm.store_imm(Width::Double, Reg::R9, off(result), 1);
            }
            Step::Update(_, _, flags) => {
                asm.map(Reg::R1, self.map)
                    .addr(Reg::R2, Reg::R9, self.key(number));
                asm.addr(Reg::R3, Reg::R9, self.value(number))
                    .mov64(Reg::R4, *flags);
                asm.call(Helper::MAP_UPDATE_ELEM.0);
                asm.store(Width::Double, Reg::R9, off(result), Reg::R0);
            }
            Step::Delete(_) => {
                asm.map(Reg::R1, self.map)
                    .addr(Reg::R2, Reg::R9, self.key(number));
                asm.call(Helper::MAP_DELETE_ELEM.0);
                asm.store(Width::Double, Reg::R9, off(result), Reg::R0);
            }
            Step::Call(_) => {
                asm.call(KTIME_GET_NS);
            }
            Step::Atomic(pointer, at, atomic) => {
                asm.load(Width::Double, Reg::R7, Reg::R10, slot(*pointer));
                asm.jump(When::Equal, Reg::R7, 0, null);
                let old = do_atomic(asm, off(*at), *atomic);
                asm.store(Width::Double, Reg::R9, off(result), old);
            }
            Step::Timer(pointer, at, what) => {
                asm.load(Width::Double, Reg::R7, Reg::R10, slot(*pointer));
                asm.jump(When::Equal, Reg::R7, 0, null);
                asm.addr(Reg::R1, Reg::R7, *at);
                self.use_timer(asm, *what, callback);
                asm.store(Width::Double, Reg::R9, off(result), Reg::R0);
            }
            Step::Read(pointer, ..)
            | Step::Write(pointer, ..)
            | Step::Add(pointer, _)
            | Step::Lock(pointer, _)
            | Step::Unlock(pointer, _) => {
                asm.load(Width::Double, Reg::R7, Reg::R10, slot(*pointer));
                asm.jump(When::Equal, Reg::R7, 0, null);
                touch(asm, step, result + 8);
                asm.store_imm(Width::Double, Reg::R9, off(result), 1);
            }
        }
        asm.here(null);
    }

    /// A helper of timers on the one that `R1` points to.
    fn use_timer(&self, asm: &mut Asm, what: Timer, callback: Label) {
        match what {
            Timer::Init(flags) => {
                asm.map(Reg::R2, self.map).mov64(Reg::R3, flags);
            }
            Timer::SetCallback => {
                asm.callback(Reg::R2, callback);
            }
            Timer::Start(ns, flags) => {
                asm.mov64(Reg::R2, ns).mov64(Reg::R3, flags);
            }
            Timer::Cancel => {}
        }
        asm.call(what.helper().0);
    }
}

/// An atomic operation through the pointer in `R7`; the register that has what was there.
fn do_atomic(asm: &mut Asm, at: i16, atomic: Atomic) -> Reg {
    let width = match atomic.wide {
        true => Width::Double,
        false => Width::Word,
    };
    let (op, old) = match atomic.op {
        AtomicOp::Add => (0x01, Reg::R1),
        AtomicOp::Or => (0x41, Reg::R1),
        AtomicOp::And => (0x51, Reg::R1),
        AtomicOp::Xor => (0xa1, Reg::R1),
        AtomicOp::Exchange => (0xe1, Reg::R1),
        AtomicOp::CompareExchange => (0xf1, Reg::R0),
    };
    asm.mov64(Reg::R0, atomic.expected)
        .mov64(Reg::R1, atomic.operand)
        .atomic(width, Reg::R7, at, Reg::R1, op);
    old
}

/// What is done through the pointer in `R7`.
fn touch(asm: &mut Asm, step: &Step, out: usize) {
    match step {
        Step::Read(_, at, len) => {
            asm.copy((Reg::R9, out), (Reg::R7, *at), *len, false, &|_| false);
        }
        Step::Write(_, at, bytes) => {
            for (index, byte) in bytes.iter().enumerate() {
                asm.store_imm(Width::Byte, Reg::R7, off(at + index), i32::from(*byte));
            }
        }
        Step::Add(_, at) => {
            asm.load(Width::Double, Reg::R2, Reg::R7, off(*at))
                .add(Reg::R2, 1);
            asm.store(Width::Double, Reg::R7, off(*at), Reg::R2);
        }
        Step::Lock(_, at) => {
            asm.addr(Reg::R1, Reg::R7, *at).call(Helper::SPIN_LOCK.0);
        }
        Step::Unlock(_, at) => {
            asm.addr(Reg::R1, Reg::R7, *at).call(Helper::SPIN_UNLOCK.0);
        }
        Step::Atomic(..)
        | Step::Timer(..)
        | Step::Lookup(..)
        | Step::Update(..)
        | Step::Delete(_)
        | Step::Call(_) => {}
    }
}
