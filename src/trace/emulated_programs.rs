//! The program side of the emulated kernel: what a probe program would do, done by hand.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::emulated::{Emulated, Loaded};
use super::events::MOST_TOUCHED;
use super::request::Stop;
use super::world::{
    Atomic, AtomicOp, Deletes, ForEach, HelperAnswer, HelperCall, ProgRequest, Seen, Step,
    StepAnswer, StorageCall, Timer, Write,
};
use crate::abi::{Bpf, Errno, Fd, Helper, MapType, ProgType, Result, UpdateFlags};
use crate::helper::Prog;
use crate::helper::verifier::{
    self, LOCK_AT_EXIT, LOCK_IS_HELD, Refused, helper_allowed, load_allowed, lock_is_not_held,
    map_allowed, store_allowed, timer_allowed,
};
use crate::map::cgroup_storage::Storage;
use crate::map::local_storage::LocalStorage;
use crate::map::object::Object;
use crate::map::{Map, Value};
use crate::sys::ProgDef;

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Self {
        Self::Verifier(refused.errno)
    }
}

/// What a map and the storage of an event noted, by the map's name.
pub(super) type Saw = Vec<(String, Vec<u8>)>;

/// Bytes that `struct bpf_map` begins with: the hash of a frozen map, zeros before it was asked for.
const MAP_HASH: usize = 32;

/// Bytes of a pointer, which it begins with where it has no hash.
const POINTER: usize = 8;

/// Bytes of the packet that programs run on.
const PACKET: usize = 64;

/// Bytes of the packet's Ethernet header that a program does not see.
const fn header_before(prog_type: ProgType) -> usize {
    match prog_type {
        ProgType::SCHED_CLS | ProgType::SCHED_ACT | ProgType::XDP => 0,
        _ => 14,
    }
}

/// What a program has in hand after a lookup.
#[derive(Clone)]
enum Pointer<'m> {
    /// The value of an element.
    Value(Value<'m>),
    /// An element of a map of maps: a `struct bpf_map`.
    Map(Arc<Map>),
}

impl Pointer<'_> {
    fn read(&self, at: usize, out: &mut [u8]) -> Result<()> {
        match self {
            Pointer::Value(value) => match out.len() {
                1 => out.copy_from_slice(&value.load_u8(at).to_ne_bytes()),
                2 => out.copy_from_slice(&value.load_u16(at).to_ne_bytes()),
                4 => out.copy_from_slice(&value.load_u32(at).to_ne_bytes()),
                8 => out.copy_from_slice(&value.load_u64(at).to_ne_bytes()),
                _ => value.read(at, out),
            },
            Pointer::Map(map) if map.frozen.load(Ordering::Relaxed) => {
                let what = format_args!("the hash of a frozen map, read by a program");
                return Err(map.env.unsupported(what));
            }
            Pointer::Map(_) => out.fill(0),
        }
        Ok(())
    }

    fn write(&self, at: usize, bytes: &[u8]) {
        match self {
            Pointer::Value(value) => match *bytes {
                [byte] => value.store_u8(at, byte),
                [a, b] => value.store_u16(at, u16::from_ne_bytes([a, b])),
                [a, b, c, d] => value.store_u32(at, u32::from_ne_bytes([a, b, c, d])),
                [a, b, c, d, e, f, g, h] => {
                    value.store_u64(at, u64::from_ne_bytes([a, b, c, d, e, f, g, h]));
                }
                _ => value.write(at, bytes),
            },
            Pointer::Map(_) => unreachable!("the verifier refuses to write a struct bpf_map"),
        }
    }
}

/// What the verifier says of a load through a looked up pointer.
fn verify_load(map: &Map, at: usize, len: usize) -> Result<(), Stop> {
    if !map.def.map_type.is_map_in_map() {
        return Ok(load_allowed(map, at, len)?);
    }
    let begins_with_pointer = !map.env.release.map_begins_with_hash;
    if begins_with_pointer && at < POINTER && len < POINTER {
        // A part of a pointer.
        return Err(Stop::Verifier(Errno::EACCES));
    }
    if begins_with_pointer || at > MAP_HASH || len > MAP_HASH - at {
        return Err(Stop::ToCome("reading a struct bpf_map".to_owned()));
    }
    Ok(())
}

/// What the verifier says of a store through a looked up pointer.
fn verify_store(map: &Map, at: usize, len: usize) -> Result<(), Stop> {
    if map.def.map_type.is_map_in_map() {
        return Err(Stop::Verifier(Errno::EACCES));
    }
    Ok(store_allowed(map, at, len)?)
}

impl Emulated {
    /// A helper's return as a program sees it.
    fn ret_of(&self, answer: Result<()>) -> i64 {
        let release = self.kernel.release();
        answer.map_or_else(|errno| release.helper_failed(errno), |()| 0)
    }
}

/// The parts of `0..len` that are in none of the ranges to skip.
fn parts_to_read(len: usize, skip: &[(usize, usize)]) -> Vec<Range<usize>> {
    let skipped = |byte: usize| {
        skip.iter()
            .any(|&(start, count)| byte >= start && byte - start < count)
    };
    let mut parts: Vec<Range<usize>> = Vec::new();
    for byte in (0..len).filter(|&byte| !skipped(byte)) {
        match parts.last_mut() {
            Some(last) if last.end == byte => last.end += 1,
            _ => parts.push(byte..byte + 1),
        }
    }
    parts
}

impl Emulated {
    fn prog(&self, prog_type: ProgType) -> Prog {
        Prog::new(prog_type, self.kernel.cpu())
    }

    /// The verifier has nothing against it: goes on, unless that was the question.
    fn verified(&self) -> Result<(), Stop> {
        if self.only_verify {
            return Err(Stop::Allowed);
        }
        Ok(())
    }

    // --- one helper call --------------------------------------------------------------------------------------------

    pub(super) fn call_helper(&mut self, call: &HelperCall<'_>) -> Result<HelperAnswer, Stop> {
        let map = self.kernel.map(call.map)?;
        let helper = Helper::from_name(call.helper)
            .ok_or_else(|| Stop::ToCome(format!("the helper {}", call.helper)))?;
        helper_allowed(&map, helper, call.prog_type)?;
        self.bind(&map, call)?;
        let prog = self.prog(call.prog_type);
        let flags = UpdateFlags::from_bits_retain(call.flags);
        let mut out = vec![0; call.value.len()];
        let ret = match helper {
            Helper::MAP_LOOKUP_ELEM | Helper::MAP_LOOKUP_PERCPU_ELEM => {
                return self.call_lookup(&map, &prog, call, helper);
            }
            Helper::MAP_UPDATE_ELEM => {
                self.verified()?;
                prog.map_update_elem(&map, &call.key, &call.value, flags)
            }
            Helper::MAP_DELETE_ELEM => {
                self.verified()?;
                prog.map_delete_elem(&map, &call.key)
            }
            Helper::MAP_PUSH_ELEM => {
                self.verified()?;
                prog.map_push_elem(&map, &call.value, flags)
            }
            Helper::MAP_POP_ELEM => {
                self.verified()?;
                prog.map_pop_elem(&map, &mut out)
            }
            Helper::MAP_PEEK_ELEM => {
                self.verified()?;
                prog.map_peek_elem(&map, &mut out)
            }
            _ => {
                self.verified()?;
                let ret = self.call_elsewhere(&map, &prog, call, helper)?;
                return Ok(HelperAnswer::Ret(ret, None));
            }
        };
        let gives_value = matches!(helper, Helper::MAP_POP_ELEM | Helper::MAP_PEEK_ELEM);
        let value = (gives_value && ret.is_ok()).then_some(out);
        Ok(HelperAnswer::Ret(self.ret_of(ret), value))
    }

    /// The program of a call is loaded: the first one binds a map that holds programs to its kind.
    fn bind(&self, map: &Map, call: &HelperCall<'_>) -> Result<(), Stop> {
        let map_type = map.def.map_type;
        if map_type != MapType::PROG_ARRAY && !map_type.has_target_programs() {
            return Ok(());
        }
        let prog = self.kernel.prog_load(ProgDef {
            prog_type: call.prog_type,
            maps: &[call.map],
            ..ProgDef::default()
        });
        Ok(self.kernel.close(prog.map_err(Stop::Verifier)?)?)
    }

    /// The helpers that go where the map says.
    fn call_elsewhere(
        &mut self,
        map: &Map,
        prog: &Prog,
        call: &HelperCall<'_>,
        helper: Helper,
    ) -> Result<i64, Stop> {
        let index = call
            .key
            .first_chunk()
            .map_or(0, |key| u32::from_le_bytes(*key));
        Ok(match helper {
            Helper::REDIRECT_MAP => prog.redirect_map(map, index, call.flags).0.into(),
            Helper::TAIL_CALL => i64::from(prog.tail_call(map, index).is_some()),
            Helper::SKB_UNDER_CGROUP => {
                let Object::Cgroup(root) = self.root_cgroup()? else {
                    return Err(Errno::ENOENT.into());
                };
                let under = prog.skb_under_cgroup(map, index, Some(&root));
                under.map_or_else(|errno| self.ret_of(Err(errno)), i64::from)
            }
            Helper::PERF_EVENT_OUTPUT => {
                let packet = &[0; PACKET][header_before(call.prog_type)..];
                let sent = prog.perf_event_output_packet(map, call.flags, &call.store, packet);
                self.ret_of(sent)
            }
            _ => return Err(Stop::ToCome(format!("the helper {helper}"))),
        })
    }

    fn call_lookup(
        &self,
        map: &Arc<Map>,
        prog: &Prog,
        call: &HelperCall<'_>,
        helper: Helper,
    ) -> Result<HelperAnswer, Stop> {
        let Some(inner_key) = &call.inner_key else {
            verify_touches(map, call)?;
            self.verified()?;
            let found = match helper {
                Helper::MAP_LOOKUP_ELEM => lookup(prog, map, &call.key),
                _ => prog
                    .map_lookup_percpu_elem(map, &call.key, call.cpu)
                    .map(Pointer::Value),
            };
            return Ok(read_and_store(found, call)?);
        };
        if !map.def.map_type.is_map_in_map() {
            return Err(Stop::Verifier(Errno::EINVAL));
        }
        self.verified()?;
        let Some(inner) = prog.map_lookup_inner(map, &call.key) else {
            return Ok(HelperAnswer::Null { outer: true });
        };
        helper_allowed(&inner, helper, call.prog_type)?;
        verify_touches(&inner, call)?;
        Ok(read_and_store(lookup(prog, &inner, inner_key), call)?)
    }

    // --- several helper calls in one program ------------------------------------------------------------------------

    pub(super) fn run_steps(
        &self,
        map: Fd,
        prog_type: ProgType,
        steps: &[Step],
    ) -> Result<Vec<StepAnswer>, Stop> {
        let map = self.kernel.map(map)?;
        verify_steps(&map, prog_type, steps)?;
        self.verified()?;
        let prog = self.prog(prog_type);
        let mut pointers: Vec<Option<Pointer<'_>>> = Vec::new();
        let mut answers = Vec::with_capacity(steps.len());
        let mut at = 0;
        while let Some(step) = steps.get(at) {
            at += 1;
            let there = |pointer: &usize| pointers.get(*pointer).cloned().flatten();
            answers.push(StepAnswer::Number(match step {
                Step::Lookup(key, pointer) => {
                    let found = lookup(&prog, &map, key);
                    let there = i64::from(found.is_some());
                    pointers.resize(pointers.len().max(pointer + 1), None);
                    pointers[*pointer] = found;
                    there
                }
                Step::Update(key, value, flags) => {
                    let flags = UpdateFlags::from_bits_retain(*flags);
                    self.ret_of(prog.map_update_elem(&map, key, value, flags))
                }
                Step::Delete(key) => self.ret_of(prog.map_delete_elem(&map, key)),
                Step::Call(_) => 0,
                Step::Lock(pointer, _) => {
                    let Some(Pointer::Value(value)) = there(pointer) else {
                        answers.push(StepAnswer::Number(0));
                        continue;
                    };
                    answers.push(StepAnswer::Number(1));
                    let guard = prog.spin_lock(&value);
                    while let Some(step) = steps.get(at)
                        && !matches!(step, Step::Unlock(..))
                    {
                        answers.push(touch(&pointers, step)?);
                        at += 1;
                    }
                    drop(guard);
                    continue;
                }
                Step::Unlock(pointer, _) => i64::from(there(pointer).is_some()),
                Step::Timer(pointer, _, what) => match there(pointer) {
                    Some(Pointer::Value(value)) => self.use_timer(&prog, &map, &value, *what),
                    Some(Pointer::Map(_)) | None => 0,
                },
                Step::Read(..) | Step::Write(..) | Step::Add(..) | Step::Atomic(..) => {
                    answers.push(touch(&pointers, step)?);
                    continue;
                }
            }));
        }
        Ok(answers)
    }

    fn use_timer(&self, prog: &Prog, map: &Arc<Map>, value: &Value<'_>, what: Timer) -> i64 {
        let answer = match what {
            Timer::Init(flags) => prog.timer_init(map, value, flags).map(|()| false),
            Timer::SetCallback => {
                let set = prog.timer_set_callback(value, |_, _, _, _| ());
                set.map(|()| false)
            }
            Timer::Start(ns, flags) => prog.timer_start(value, ns, flags).map(|()| false),
            Timer::Cancel => prog.timer_cancel(value),
        };
        answer.map_or_else(|errno| self.ret_of(Err(errno)), i64::from)
    }

    // --- callbacks --------------------------------------------------------------------------------------------------

    pub(super) fn walk_with_callback(&self, walk: &ForEach<'_>) -> Result<(i64, Vec<Seen>), Stop> {
        let map = self.kernel.map(walk.map)?;
        let prog_type = ProgType::SCHED_CLS;
        helper_allowed(&map, Helper::FOR_EACH_MAP_ELEM, prog_type)?;
        load_allowed(&map, 0, walk.facts.value_size)?;
        if walk.deletes != Deletes::Nothing {
            helper_allowed(&map, Helper::MAP_DELETE_ELEM, prog_type)?;
        }
        if !matches!(walk.stop_return, 0 | 1) {
            return Err(Stop::Verifier(Errno::EINVAL));
        }
        self.verified()?;
        let prog = self.prog(prog_type);
        let (mut seen, mut calls) = (Vec::new(), 0_u64);
        let answer = prog.for_each_map_elem(&map, walk.flags, |key, value| {
            if seen.len() < walk.room {
                let (shown_key, shown_value) = (key.to_vec(), value.to_vec());
                let delete = match &walk.deletes {
                    Deletes::Nothing => None,
                    Deletes::Own => Some(&shown_key),
                    Deletes::At(at, key) => (*at == calls).then_some(key),
                };
                let deleted = delete.map(|key| self.ret_of(prog.map_delete_elem(&map, key)));
                seen.push(Seen {
                    key: shown_key,
                    value: shown_value,
                    deleted,
                });
            }
            calls += 1;
            calls != walk.stop_after || walk.stop_return == 0
        });
        let release = self.kernel.release();
        let ret = answer.map_or_else(|errno| release.helper_failed(errno), u64::cast_signed);
        Ok((ret, seen))
    }

    // --- storages ---------------------------------------------------------------------------------------------------

    pub(super) fn call_storage_helper(
        &mut self,
        call: &StorageCall<'_>,
    ) -> Result<HelperAnswer, Stop> {
        let map = self.kernel.map(call.map)?;
        let is_of_task = call.facts.map_type == MapType::TASK_STORAGE;
        let owner = match call.cgroup {
            // The task stays the same, wherever it is.
            _ if is_of_task => {
                let this = self.this_process();
                self.kernel.object(this)?
            }
            Some(cgroup) => self.kernel.object(self.cgroup(cgroup)?)?,
            None => self.root_cgroup()?,
        };
        map_allowed(&map, ProgType::RAW_TRACEPOINT)?;
        if !call.delete {
            let touched = call.facts.value_size.min(MOST_TOUCHED);
            load_allowed(&map, 0, touched)?;
            if call.write.is_some() {
                store_allowed(&map, 0, touched)?;
            }
        }
        self.verified()?;
        let storage = map.ops.as_any().downcast_ref::<LocalStorage>();
        let storage = storage.ok_or(Stop::Verifier(Errno::EINVAL))?;
        if call.delete {
            let deleted = storage.storage_delete(&owner);
            let ret = deleted.map_or_else(Errno::negated, |()| 0);
            return Ok(HelperAnswer::Ret(ret, None));
        }
        let initial = call.value.as_deref();
        let Some(value) = storage.storage_get(&owner, call.flags, initial) else {
            return Ok(HelperAnswer::Null { outer: false });
        };
        let mut shown = vec![0; value.size().min(MOST_TOUCHED)];
        value.read(0, &mut shown);
        if let Some(write) = &call.write {
            value.write(0, write);
        }
        Ok(HelperAnswer::Value(shown))
    }

    /// What the verifier says of a program that asks for storages, reads all that it touches, and may write it.
    pub(super) fn verify_storages(&self, request: &ProgRequest<'_>) -> Result<(), Stop> {
        for (_, fd, touched) in &request.storages {
            let map = self.kernel.map(*fd)?;
            if request.helper_flags != 0 {
                return Err(Errno::EINVAL.into());
            }
            load_allowed(&map, touched.start, touched.len())
                .and_then(|()| store_allowed(&map, touched.start, touched.len()))
                .map_err(|refused| refused.errno)?;
        }
        Ok(())
    }

    /// One run of an attached program: what it notes of each storage, after which it writes.
    pub(super) fn run_attached(
        &self,
        name: &str,
        prog: &Loaded,
        storages: &[(Arc<Map>, Storage)],
        writes: &[Write<'_>],
    ) -> Result<Saw> {
        let mut saw = Saw::new();
        for (map_name, map, touched) in &prog.storages {
            let own = storages.iter().find(|(own, _)| Arc::ptr_eq(own, map));
            let (_, storage) = own.ok_or(Errno::EINVAL)?;
            let value = storage.value(self.kernel.cpu(), &map.def, &map.fields);
            let mut noted = vec![0; touched.len()];
            value.read(touched.start, &mut noted);
            saw.push((map_name.clone(), noted));
            let write = writes
                .iter()
                .find(|write| write.prog == name && write.map == map_name);
            if let Some(write) = write {
                let mut bytes = write.bytes.clone();
                bytes.resize(touched.len(), 0);
                value.write(touched.start, &bytes);
            }
        }
        Ok(saw)
    }

    /// One run by `BPF_PROG_TEST_RUN`: it has storages of its own, made of zeros.
    pub(super) fn run_tested(prog: &Loaded) -> Result<Saw> {
        let can_be_tested = matches!(
            prog.prog_type,
            ProgType::SOCKET_FILTER | ProgType::SCHED_CLS | ProgType::XDP | ProgType::CGROUP_SKB
        );
        if !can_be_tested {
            return Err(Errno::ENOTSUPP);
        }
        let zeros =
            |(name, _, touched): &(String, _, Range<usize>)| (name.clone(), vec![0; touched.len()]);
        Ok(prog.storages.iter().map(zeros).collect())
    }
}

/// What the verifier says of the bytes that a lookup's program reads and writes.
fn verify_touches(map: &Map, call: &HelperCall<'_>) -> Result<(), Stop> {
    for part in parts_to_read(map.def.value_size as usize, &call.skip) {
        verify_load(map, part.start, part.len())?;
    }
    if !call.store.is_empty() {
        verify_store(map, 0, call.store.len())?;
    }
    Ok(())
}

/// Reads a value that was found, then writes to it.
fn read_and_store(found: Option<Pointer<'_>>, call: &HelperCall<'_>) -> Result<HelperAnswer> {
    let Some(pointer) = found else {
        return Ok(HelperAnswer::Null { outer: false });
    };
    let size = match &pointer {
        Pointer::Value(value) => value.size(),
        Pointer::Map(_) => call.facts.value_size,
    };
    let mut shown = vec![0; size];
    for part in parts_to_read(size, &call.skip) {
        pointer.read(part.start, &mut shown[part])?;
    }
    if !call.store.is_empty() {
        pointer.write(0, &call.store);
    }
    Ok(HelperAnswer::Value(shown))
}

/// A lookup, by a helper that was allowed.
fn lookup<'m>(prog: &Prog, map: &'m Map, key: &[u8]) -> Option<Pointer<'m>> {
    if map.def.map_type.is_map_in_map() {
        return prog.map_lookup_inner(map, key).map(Pointer::Map);
    }
    prog.map_lookup_elem(map, key).map(Pointer::Value)
}

/// A step that reads or writes through a pointer.
fn touch(pointers: &[Option<Pointer<'_>>], step: &Step) -> Result<StepAnswer> {
    let there = |pointer: &usize| pointers.get(*pointer).and_then(Option::as_ref);
    let number = |there: bool| Ok(StepAnswer::Number(i64::from(there)));
    match step {
        Step::Read(pointer, at, len) => {
            let Some(pointer) = there(pointer) else {
                return Ok(StepAnswer::Bytes(None));
            };
            let mut bytes = vec![0; *len];
            pointer.read(*at, &mut bytes)?;
            Ok(StepAnswer::Bytes(Some(bytes)))
        }
        Step::Write(pointer, at, bytes) => {
            let Some(pointer) = there(pointer) else {
                return number(false);
            };
            pointer.write(*at, bytes);
            number(true)
        }
        Step::Add(pointer, at) => {
            let Some(pointer) = there(pointer) else {
                return number(false);
            };
            let mut word = [0; 8];
            pointer.read(*at, &mut word)?;
            let next = u64::from_le_bytes(word).wrapping_add(1);
            pointer.write(*at, &next.to_le_bytes());
            number(true)
        }
        Step::Atomic(pointer, at, atomic) => Ok(StepAnswer::Number(match there(pointer) {
            Some(Pointer::Value(value)) => do_atomic(value, *at, *atomic).cast_signed(),
            Some(Pointer::Map(_)) | None => 0,
        })),
        Step::Timer(..)
        | Step::Lookup(..)
        | Step::Update(..)
        | Step::Delete(_)
        | Step::Call(_)
        | Step::Lock(..)
        | Step::Unlock(..) => unreachable!("the verifier refuses helpers while a lock is held"),
    }
}

/// What was there before.
#[expect(
    clippy::cast_possible_truncation,
    reason = "half of the bytes are meant"
)]
fn do_atomic(value: &Value<'_>, at: usize, atomic: Atomic) -> u64 {
    let Atomic {
        op,
        wide,
        operand,
        expected,
    } = atomic;
    let half = operand as u32;
    match (op, wide) {
        (AtomicOp::Add, true) => value.fetch_add_u64(at, operand),
        (AtomicOp::Add, false) => value.fetch_add_u32(at, half).into(),
        (AtomicOp::Or, true) => value.fetch_or_u64(at, operand),
        (AtomicOp::Or, false) => value.fetch_or_u32(at, half).into(),
        (AtomicOp::And, true) => value.fetch_and_u64(at, operand),
        (AtomicOp::And, false) => value.fetch_and_u32(at, half).into(),
        (AtomicOp::Xor, true) => value.fetch_xor_u64(at, operand),
        (AtomicOp::Xor, false) => value.fetch_xor_u32(at, half).into(),
        (AtomicOp::Exchange, true) => value.exchange_u64(at, operand),
        (AtomicOp::Exchange, false) => value.exchange_u32(at, half).into(),
        (AtomicOp::CompareExchange, true) => value.compare_exchange_u64(at, expected, operand),
        (AtomicOp::CompareExchange, false) => {
            let old = value.compare_exchange_u32(at, expected as u32, half);
            old.into()
        }
    }
}

/// What the verifier says of the steps, each pointer found.
fn verify_steps(map: &Map, prog_type: ProgType, steps: &[Step]) -> Result<(), Stop> {
    let mut held: Option<(usize, usize)> = None;
    let no_lock = |held: Option<_>| match held {
        Some(_) => Err(LOCK_IS_HELD),
        None => Ok(()),
    };
    let called = |helper, held| {
        helper_allowed(map, helper, prog_type)?;
        no_lock(held)
    };
    for step in steps {
        match step {
            Step::Lookup(..) => called(Helper::MAP_LOOKUP_ELEM, held)?,
            Step::Update(..) => called(Helper::MAP_UPDATE_ELEM, held)?,
            Step::Delete(_) => called(Helper::MAP_DELETE_ELEM, held)?,
            Step::Call(_) => no_lock(held)?,
            Step::Lock(pointer, at) => {
                verifier::lock_allowed(map, *at, prog_type)?;
                no_lock(held)?;
                held = Some((*pointer, *at));
            }
            Step::Unlock(pointer, at) => {
                verifier::lock_allowed(map, *at, prog_type)?;
                if held.take() != Some((*pointer, *at)) {
                    return Err(lock_is_not_held(map.env.release).into());
                }
            }
            Step::Read(_, at, len) => verify_load(map, *at, *len)?,
            Step::Write(_, at, bytes) => verify_store(map, *at, bytes.len())?,
            Step::Add(_, at) => {
                verify_load(map, *at, 8)?;
                verify_store(map, *at, 8)?;
            }
            Step::Atomic(_, at, atomic) => {
                let len = if atomic.wide { 8 } else { 4 };
                if !at.is_multiple_of(len) {
                    return Err(Stop::Verifier(Errno::EACCES));
                }
                verify_load(map, *at, len)?;
                verify_store(map, *at, len)?;
            }
            Step::Timer(_, at, what) => {
                timer_allowed(map, *at, prog_type, what.helper())?;
                no_lock(held)?;
            }
        }
    }
    match held {
        Some(_) => Err(LOCK_AT_EXIT.into()),
        None => Ok(()),
    }
}
