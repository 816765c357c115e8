//! Programs in the running kernel that do one operation again and again: what a helper costs there, without a system call.
//!
//! Each does so many operations on keys that come in a scrambled order; what the same program takes without the calls is
//! subtracted.

use std::os::fd::{AsRawFd, OwnedFd};

use crate::abi::{AttachType, Bpf, Helper, MapRequest, Mapping, ProgType};
use crate::host::program::{self, Scratch};
use crate::host::{Asm, Host, Reg, When, Width};

use super::burst::BURST;
use super::running::Running;
use super::sides::{KEYS, ProgOp, RECORD};

/// Operations of one run.
const UNROLLED: u32 = 16;
/// Where the key lies on the stack, and behind it the value.
const KEY: i16 = -128;
const VALUE: i16 = -112;

/// A program, and the same one without the operation.
pub(super) struct Timed {
    host: Host,
    _scratch: Scratch,
    with: OwnedFd,
    without: OwnedFd,
}

impl Timed {
    /// None where such programs may not be loaded.
    pub(super) fn new(map: &Running, op: ProgOp) -> Option<Self> {
        let host = Host::new().ok()?;
        let scratch = Scratch::new(&host, 16).ok()?;
        let load = |op| {
            let asm = looping(&scratch, map, op);
            program::load(&host, ProgType::SCHED_CLS, AttachType(0), &asm).ok()
        };
        let (with, without) = (load(Some(op))?, load(None)?);
        Some(Self {
            host,
            with,
            without,
            _scratch: scratch,
        })
    }

    /// ns of one operation.
    pub(super) fn run(&self) -> f64 {
        let run = |prog: &OwnedFd| {
            let prog = u32::try_from(prog.as_raw_fd()).expect("an fd");
            let repeat = u32::try_from(BURST).expect("a small number") / UNROLLED;
            program::time_run(&self.host, prog, repeat).expect("it runs")
        };
        let (with, without) = (run(&self.with), run(&self.without));
        f64::from(with.saturating_sub(without)) / f64::from(UNROLLED)
    }
}

fn looping(scratch: &Scratch, map: &Running, op: Option<ProgOp>) -> Asm {
    let mut asm = Asm::new();
    for at in (KEY..0).step_by(8) {
        asm.store_imm(Width::Double, Reg::R10, at, 7);
    }
    asm.store_imm(Width::Double, Reg::R10, KEY, 0)
        .store_imm(Width::Double, Reg::R10, KEY + 8, 0)
        .map_value(Reg::R6, scratch.fd(), 0)
        .load(Width::Double, Reg::R7, Reg::R6, 0)
        .mov(Reg::R8, 0);
    for _ in 0..UNROLLED {
        // As `scrambled`.
        asm.mul(Reg::R7, 1_664_525)
            .add(Reg::R7, 101_390_421)
            .and(Reg::R7, KEYS.cast_signed() - 1)
            .store(Width::Word, Reg::R10, KEY, Reg::R7);
        if let Some(op) = op {
            call(&mut asm, map, op);
        }
    }
    asm.store(Width::Double, Reg::R6, 0, Reg::R7)
        .store(Width::Double, Reg::R6, 8, Reg::R8)
        .mov(Reg::R0, 0)
        .exit();
    asm
}

fn call(asm: &mut Asm, map: &Running, op: ProgOp) {
    let key = |asm: &mut Asm| {
        asm.map(Reg::R1, map.fd())
            .mov_reg(Reg::R2, Reg::R10)
            .add(Reg::R2, KEY.into());
    };
    match op {
        ProgOp::Lookup => {
            let missing = asm.label();
            key(asm);
            asm.call(Helper::MAP_LOOKUP_ELEM.0)
                .jump(When::Equal, Reg::R0, 0, missing)
                .load(Width::Double, Reg::R1, Reg::R0, 0)
                .add_reg(Reg::R8, Reg::R1)
                .here(missing);
        }
        ProgOp::DeleteAndUpdate => {
            key(asm);
            asm.call(Helper::MAP_DELETE_ELEM.0);
            call(asm, map, ProgOp::Update);
        }
        ProgOp::Update => {
            key(asm);
            asm.mov_reg(Reg::R3, Reg::R10)
                .add(Reg::R3, VALUE.into())
                .mov(Reg::R4, 0)
                .call(Helper::MAP_UPDATE_ELEM.0);
        }
        ProgOp::Output => {
            asm.map(Reg::R1, map.fd())
                .mov_reg(Reg::R2, Reg::R10)
                .add(Reg::R2, VALUE.into())
                .mov(Reg::R3, i32::try_from(RECORD).expect("a small number"))
                .mov(Reg::R4, 0)
                .call(Helper::RINGBUF_OUTPUT.0);
        }
    }
}

/// The positions of a ring of the running kernel.
pub(super) struct Positions {
    consumer: Box<dyn Mapping>,
    producer: Box<dyn Mapping>,
}

impl Positions {
    pub(super) fn of(timed: &Timed, map: &Running) -> Option<Self> {
        let fd = timed.host.adopt(map.dup().ok()?);
        let page = |offset, write| {
            let request = MapRequest::shared(offset, 4096, write);
            timed.host.mmap(fd, request).ok()
        };
        Some(Self {
            consumer: page(0, true)?,
            producer: page(4096, false)?,
        })
    }

    /// All records are read: the number of bytes that they took.
    pub(super) fn consume(&self) -> u64 {
        let mut bytes = [0; 8];
        self.consumer.read(0, &mut bytes).expect("a position");
        let before = u64::from_ne_bytes(bytes);
        self.producer.read(0, &mut bytes).expect("a position");
        self.consumer.write(0, &bytes).expect("a position");
        u64::from_ne_bytes(bytes) - before
    }
}
