//! Programs that call one helper on one map, and show what came of it.

use std::os::fd::OwnedFd;

use super::asm::{Reg, When, Width, off};
use super::os;
use super::program::{Scratch, load, test_run};
use super::{Asm, Host};
use crate::abi::{AttachType, Errno, Fd, Helper, ProgType, Result};

/// What the verifier or the kernel said when a probe was loaded.
pub type Refused = Errno;

/// A map as a program sees it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Shape {
    /// Its fd.
    pub map: Fd,
    /// Bytes of a key.
    pub key_size: usize,
    /// Bytes of a value, of one CPU.
    pub value_size: usize,
}

/// One helper call, but for the bytes of keys and values.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct HelperCall {
    /// The map.
    pub shape: Shape,
    /// Type of the program.
    pub prog_type: ProgType,
    /// The helper: one that looks up, updates, deletes, pushes, pops or peeks, or one that goes where the map says.
    pub helper: Helper,
    /// Flags, of those that take some.
    pub flags: u64,
    /// The CPU asked for, of a lookup on another CPU.
    pub cpu: u32,
    /// Bytes that are written through the pointer that was found, or sent.
    pub store_len: usize,
    /// Parts of the value that are not read: start and length.
    pub skip: Vec<(usize, usize)>,
    /// Sizes of the inner maps, if what is found is a map and a key is looked up there.
    pub inner: Option<(usize, usize)>,
}

/// The bytes of one helper call.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a> {
    /// Key.
    pub key: &'a [u8],
    /// Key in the inner map.
    pub inner_key: &'a [u8],
    /// The value that is given, or what is stored.
    pub value: &'a [u8],
}

/// What came of one helper call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Came {
    /// The helper's return. Of a lookup: 1 found, 0 not found, 2 no inner map. Of a tail call: 1 if it was made.
    pub ret: i64,
    /// The value that was read or given.
    pub value: Vec<u8>,
}

/// A loaded program that makes one helper call.
#[derive(Debug)]
pub struct HelperProbe {
    scratch: Scratch,
    prog: OwnedFd,
    places: Places,
    /// Another program may go on in its place.
    may_leave: bool,
}

/// Offsets in the memory that a probe shares: the return, whether it ran, then these.
#[derive(Clone, Copy, Debug)]
struct Places {
    key: usize,
    inner_key: usize,
    value: usize,
    out: usize,
    value_size: usize,
    len: usize,
}

const RET: usize = 0;
const RAN: usize = 8;

impl Places {
    fn new(call: &HelperCall) -> Self {
        let (inner_key_size, value_size) = call.inner.unwrap_or((0, call.shape.value_size));
        let key = 16;
        // An index is read of maps without keys too, by programs that are refused.
        let inner_key = key + call.shape.key_size.max(4).next_multiple_of(8);
        let value = inner_key + inner_key_size.next_multiple_of(8);
        let out = value + value_size.max(call.store_len).next_multiple_of(8);
        let len = out + value_size.next_multiple_of(8);
        Self {
            key,
            inner_key,
            value,
            out,
            value_size,
            len,
        }
    }
}

fn looks_up(helper: Helper) -> bool {
    matches!(
        helper,
        Helper::MAP_LOOKUP_ELEM | Helper::MAP_LOOKUP_PERCPU_ELEM
    )
}

impl HelperProbe {
    /// Loads the program.
    ///
    /// # Errors
    ///
    /// What the verifier answers.
    pub fn new(host: &Host, call: &HelperCall) -> Result<Self, Refused> {
        let places = Places::new(call);
        let scratch = Scratch::new(host, places.len)?;
        let mut asm = Asm::new();
        asm.mov_reg(Reg::R6, Reg::R1)
            .map_value(Reg::R9, scratch.fd(), 0)
            .map(Reg::R1, call.shape.map);
        arguments(&mut asm, call, &places);
        asm.call(call.helper.0);
        let done = asm.label();
        if call.inner.is_some() {
            asm.store_imm(Width::Double, Reg::R9, off(RET), 2);
            asm.jump(When::Equal, Reg::R0, 0, done)
                .mov_reg(Reg::R1, Reg::R0);
            asm.addr(Reg::R2, Reg::R9, places.inner_key)
                .call(Helper::MAP_LOOKUP_ELEM.0);
        }
        if looks_up(call.helper) {
            found(&mut asm, call, &places, done);
        } else if call.helper != Helper::TAIL_CALL {
            asm.store(Width::Double, Reg::R9, off(RET), Reg::R0);
        }
        asm.here(done)
            .store_imm(Width::Double, Reg::R9, off(RAN), 1);
        asm.mov(Reg::R0, 0).exit();
        let prog = load(host, call.prog_type, AttachType(0), &asm)?;
        Ok(Self {
            scratch,
            prog,
            places,
            may_leave: call.helper == Helper::TAIL_CALL,
        })
    }

    /// Makes the call.
    ///
    /// # Errors
    ///
    /// What `BPF_PROG_TEST_RUN` answers; `EIO` if the program did not run to its end.
    pub fn run(&self, host: &Host, bytes: Bytes<'_>) -> Result<Came> {
        let Self {
            scratch, places, ..
        } = self;
        scratch.write(0, &vec![0; places.len]);
        scratch.write(places.key, bytes.key);
        scratch.write(places.inner_key, bytes.inner_key);
        scratch.write(places.value, bytes.value);
        test_run(host, os::number(&self.prog), true)?;
        let left = scratch.number(RAN) != 1;
        if left && !self.may_leave {
            return Err(Errno::EIO);
        }
        Ok(Came {
            ret: if left { 1 } else { scratch.number(RET) },
            value: scratch.read(places.out, places.value_size),
        })
    }
}

/// The registers from `R2` on, and those before where the map is not the first. The context is in `R6`.
fn arguments(asm: &mut Asm, call: &HelperCall, places: &Places) {
    let index = |asm: &mut Asm, reg| {
        asm.load(Width::Word, reg, Reg::R9, off(places.key));
    };
    match call.helper {
        Helper::REDIRECT_MAP => {
            index(asm, Reg::R2);
            asm.mov64(Reg::R3, call.flags);
        }
        Helper::TAIL_CALL | Helper::SKB_UNDER_CGROUP => {
            asm.mov_reg(Reg::R2, Reg::R1).mov_reg(Reg::R1, Reg::R6);
            index(asm, Reg::R3);
        }
        Helper::PERF_EVENT_OUTPUT => {
            asm.mov_reg(Reg::R2, Reg::R1).mov_reg(Reg::R1, Reg::R6);
            asm.mov64(Reg::R3, call.flags)
                .addr(Reg::R4, Reg::R9, places.value)
                .mov64(Reg::R5, call.store_len as u64);
        }
        Helper::MAP_PUSH_ELEM => {
            asm.addr(Reg::R2, Reg::R9, places.value)
                .mov64(Reg::R3, call.flags);
        }
        Helper::MAP_POP_ELEM | Helper::MAP_PEEK_ELEM => {
            asm.addr(Reg::R2, Reg::R9, places.out);
        }
        helper => {
            asm.addr(Reg::R2, Reg::R9, places.key);
            if helper == Helper::MAP_UPDATE_ELEM {
                asm.addr(Reg::R3, Reg::R9, places.value)
                    .mov64(Reg::R4, call.flags);
            }
            if helper == Helper::MAP_LOOKUP_PERCPU_ELEM {
                asm.mov(Reg::R3, call.cpu.cast_signed());
            }
        }
    }
}

/// What a lookup does with the pointer it found.
fn found(asm: &mut Asm, call: &HelperCall, places: &Places, done: super::asm::Label) {
    let skipped = |at: usize| {
        let mut ranges = call.skip.iter();
        ranges.any(|&(start, len)| at >= start && at - start < len)
    };
    let bytewise = !call.skip.is_empty() || !places.value_size.is_multiple_of(8);
    asm.store_imm(Width::Double, Reg::R9, off(RET), 0);
    asm.jump(When::Equal, Reg::R0, 0, done);
    asm.copy(
        (Reg::R9, places.out),
        (Reg::R0, 0),
        places.value_size,
        bytewise,
        &skipped,
    );
    asm.copy(
        (Reg::R0, 0),
        (Reg::R9, places.value),
        call.store_len,
        false,
        &|_| false,
    );
    asm.store_imm(Width::Double, Reg::R9, off(RET), 1);
}

/// Which elements the callback of a walk deletes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Deletes {
    /// None.
    Nothing,
    /// Each its own.
    Own,
    /// One call deletes a key that is given for each run.
    Given,
}

/// A walk over a map, but for what is given for each run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Walk {
    /// The map.
    pub shape: Shape,
    /// Flags.
    pub flags: u64,
    /// What the callback answers to stop.
    pub stop_return: i32,
    /// What it deletes.
    pub deletes: Deletes,
    /// Number of calls that are noted at most.
    pub room: usize,
}

/// One call of the callback.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Key, on entry.
    pub key: Vec<u8>,
    /// Value, on entry.
    pub value: Vec<u8>,
    /// The return of the delete, if this call deleted.
    pub deleted: i64,
}

/// A loaded program that walks over a map.
#[derive(Debug)]
pub struct WalkProbe {
    scratch: Scratch,
    prog: OwnedFd,
    walk: Walk,
}

/// Memory of a walk: the return, whether and when to stop and which call deletes, the key that it deletes, the calls.
const STOP_AFTER: usize = 8;
const DELETES_AT: usize = 16;
const GIVEN_KEY: usize = 32;

impl Walk {
    fn key_room(&self) -> usize {
        self.shape.key_size.next_multiple_of(8)
    }

    /// Bytes of what is noted of one call: the delete's return, key, value.
    fn noted(&self) -> usize {
        8 + self.key_room() + self.shape.value_size.next_multiple_of(8)
    }

    fn calls_at(&self) -> usize {
        GIVEN_KEY + self.key_room()
    }
}

/// A program that calls `helper(map, callback, state, flags)`. The state is on the stack: the number of calls, and at
/// which to stop. `element` writes what call number `R8` does; it may go on at the label it is given. `state` is the
/// register in which the callback gets the state. The memory begins with: return, `stop_after`.
pub fn with_callback(
    scratch: &Scratch,
    (map, helper, flags): (Fd, Helper, u64),
    stop_return: i32,
    state: Reg,
    element: &dyn Fn(&mut Asm, super::asm::Label),
) -> Asm {
    let (count, stop) = (-16, -8);
    let mut asm = Asm::new();
    let [callback, full, stops] = [asm.label(), asm.label(), asm.label()];
    asm.map_value(Reg::R9, scratch.fd(), 0);
    // The count begins with a 0 that the verifier does not know: else it would not take the loop.
    asm.load(Width::Double, Reg::R1, Reg::R9, 0)
        .store(Width::Double, Reg::R10, count, Reg::R1);
    asm.load(Width::Double, Reg::R1, Reg::R9, off(STOP_AFTER));
    asm.store(Width::Double, Reg::R10, stop, Reg::R1);
    asm.map(Reg::R1, map).callback(Reg::R2, callback);
    asm.mov_reg(Reg::R3, Reg::R10).add(Reg::R3, count.into());
    asm.mov64(Reg::R4, flags).call(helper.0);
    asm.map_value(Reg::R9, scratch.fd(), 0)
        .store(Width::Double, Reg::R9, off(RET), Reg::R0);
    asm.load(Width::Double, Reg::R1, Reg::R10, count);
    asm.store(Width::Double, Reg::R9, off(STOP_AFTER), Reg::R1);
    asm.mov(Reg::R0, 0).exit();
    asm.here(callback)
        .mov_reg(Reg::R6, Reg::R1)
        .mov_reg(Reg::R7, state);
    asm.load(Width::Double, Reg::R8, Reg::R7, 0);
    element(&mut asm, full);
    asm.here(full)
        .add(Reg::R8, 1)
        .store(Width::Double, Reg::R7, 0, Reg::R8);
    asm.load(Width::Double, Reg::R1, Reg::R7, 8);
    asm.jump_reg(When::Equal, Reg::R8, Reg::R1, stops)
        .mov(Reg::R0, 0)
        .exit();
    asm.here(stops).mov(Reg::R0, stop_return).exit();
    asm
}

impl WalkProbe {
    /// Loads the program.
    ///
    /// # Errors
    ///
    /// What the verifier answers.
    pub fn new(host: &Host, walk: &Walk) -> Result<Self, Refused> {
        let calls_at = walk.calls_at();
        let scratch = Scratch::new(host, calls_at + walk.noted() * walk.room)?;
        let fd = scratch.fd();
        let helper = (walk.shape.map, Helper::FOR_EACH_MAP_ELEM, walk.flags);
        let element = |asm: &mut Asm, full| {
            let last = i32::try_from(walk.room - 1).expect("a few calls");
            asm.jump(When::Above, Reg::R8, last, full)
                .mov_reg(Reg::R0, Reg::R8);
            asm.mul(
                Reg::R0,
                i32::try_from(walk.noted()).expect("a short element"),
            );
            asm.map_value(Reg::R9, fd, calls_at)
                .add_reg(Reg::R9, Reg::R0);
            let every = |_| false;
            asm.copy(
                (Reg::R9, 8),
                (Reg::R2, 0),
                walk.shape.key_size,
                false,
                &every,
            );
            let value_at = 8 + walk.key_room();
            asm.copy(
                (Reg::R9, value_at),
                (Reg::R3, 0),
                walk.shape.value_size,
                false,
                &every,
            );
            match walk.deletes {
                Deletes::Nothing => return,
                Deletes::Own => {}
                Deletes::Given => {
                    asm.map_value(Reg::R1, fd, 0);
                    asm.load(Width::Double, Reg::R1, Reg::R1, off(DELETES_AT));
                    asm.jump_reg(When::NotEqual, Reg::R8, Reg::R1, full);
                    asm.map_value(Reg::R2, fd, GIVEN_KEY);
                }
            }
            asm.mov_reg(Reg::R1, Reg::R6)
                .call(Helper::MAP_DELETE_ELEM.0);
            asm.store(Width::Double, Reg::R9, 0, Reg::R0);
        };
        let asm = with_callback(&scratch, helper, walk.stop_return, Reg::R4, &element);
        let prog = load(host, ProgType::SCHED_CLS, AttachType(0), &asm)?;
        Ok(Self {
            scratch,
            prog,
            walk: *walk,
        })
    }

    /// Walks; `given` is the number of the call that deletes, from 0, and the key. Gives the helper's return and the calls.
    ///
    /// # Errors
    ///
    /// What `BPF_PROG_TEST_RUN` answers.
    pub fn run(
        &self,
        host: &Host,
        stop_after: u64,
        given: Option<(u64, &[u8])>,
    ) -> Result<(i64, Vec<Seen>)> {
        let Self { scratch, walk, .. } = self;
        scratch.write(0, &vec![0; scratch.len()]);
        scratch.write(STOP_AFTER, &stop_after.to_ne_bytes());
        let (at, key) = given.unwrap_or((u64::MAX, &[]));
        scratch.write(DELETES_AT, &at.to_ne_bytes());
        scratch.write(GIVEN_KEY, key);
        test_run(host, os::number(&self.prog), true)?;
        let calls = usize::try_from(scratch.number(STOP_AFTER)).map_err(|_| Errno::EIO)?;
        let seen = (0..calls.min(walk.room)).map(|call| {
            let at = walk.calls_at() + call * walk.noted();
            Seen {
                key: scratch.read(at + 8, walk.shape.key_size),
                value: scratch.read(at + 8 + walk.key_room(), walk.shape.value_size),
                deleted: scratch.number(at),
            }
        });
        Ok((scratch.number(RET), seen.collect()))
    }
}

/// The smallest thing that takes all rights: a map, and a program that is loaded and run.
pub(super) fn smallest(host: &Host) -> Result<(), (&'static str, Errno)> {
    let scratch = Scratch::new(host, 8).map_err(|errno| ("BPF_MAP_CREATE", errno))?;
    let mut asm = Asm::new();
    asm.map_value(Reg::R9, scratch.fd(), 0)
        .mov(Reg::R0, 0)
        .exit();
    let prog = load(host, ProgType::SCHED_CLS, AttachType(0), &asm)
        .map_err(|errno| ("BPF_PROG_LOAD", errno))?;
    test_run(host, os::number(&prog), true).map_err(|errno| ("BPF_PROG_TEST_RUN", errno))
}
