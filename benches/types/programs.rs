//! Programs in the running kernel that do one operation again and again: what a helper costs there, without a system call.
//!
//! Each does [`UNROLLED`] operations on keys that come in a scrambled order; what the same program takes without the calls is
//! subtracted.

use std::os::fd::{AsRawFd, OwnedFd};

use mapemu::abi::{AttachType, Helper, MapRequest, Mapping, ProgType, Prot};
use mapemu::host::program::{self, Scratch};
use mapemu::host::{Asm, Host, Reg, When, Width};

use super::common::burst::BURST;
use super::pair::Running;

/// Operations of one run.
const UNROLLED: u32 = 16;
/// Keys are numbers below this.
pub const KEYS: usize = 8192;
/// Where the key lies on the stack, and behind it the value.
const KEY: i16 = -128;
const VALUE: i16 = -112;
/// Bytes of them.
pub const KEY_SIZE: usize = 16;
pub const VALUE_SIZE: usize = 64;

/// The key's number behind `number`: each below [`KEYS`] comes up once before the first comes again.
pub const fn scrambled(number: u32) -> u32 {
    number.wrapping_mul(1_664_525).wrapping_add(101_390_421) & (KEYS as u32 - 1)
}

/// What a program does with a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Lookup,
    DeleteAndUpdate,
    Update,
    Output,
}

/// A program, and the same one without the operation.
pub struct Timed {
    host: Host,
    _scratch: Scratch,
    with: OwnedFd,
    without: OwnedFd,
}

impl Timed {
    pub fn new(host: &Host, map: Running, op: Op) -> Self {
        let scratch = Scratch::new(host, 16).expect("an array");
        let load = |op| {
            let asm = looping(&scratch, map, op);
            program::load(host, ProgType::SCHED_CLS, AttachType(0), &asm).expect("a program")
        };
        Self {
            host: host.clone(),
            with: load(Some(op)),
            without: load(None),
            _scratch: scratch,
        }
    }

    /// ns of one operation.
    pub fn run(&self) -> f64 {
        let run = |prog: &OwnedFd| {
            let prog = u32::try_from(prog.as_raw_fd()).expect("an fd");
            let repeat = BURST as u32 / UNROLLED;
            program::time_run(&self.host, prog, repeat).expect("it runs")
        };
        let (with, without) = (run(&self.with), run(&self.without));
        f64::from(with.saturating_sub(without)) / f64::from(UNROLLED)
    }
}

fn looping(scratch: &Scratch, map: Running, op: Option<Op>) -> Asm {
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
            .and(Reg::R7, KEYS as i32 - 1)
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

fn call(asm: &mut Asm, map: Running, op: Op) {
    let key = |asm: &mut Asm| {
        asm.map(Reg::R1, map.fd)
            .mov_reg(Reg::R2, Reg::R10)
            .add(Reg::R2, KEY.into());
    };
    match op {
        Op::Lookup => {
            let missing = asm.label();
            key(asm);
            asm.call(Helper::MAP_LOOKUP_ELEM.0)
                .jump(When::Equal, Reg::R0, 0, missing)
                .load(Width::Double, Reg::R1, Reg::R0, 0)
                .add_reg(Reg::R8, Reg::R1)
                .here(missing);
        }
        Op::DeleteAndUpdate => {
            key(asm);
            asm.call(Helper::MAP_DELETE_ELEM.0);
            call(asm, map, Op::Update);
        }
        Op::Update => {
            key(asm);
            asm.mov_reg(Reg::R3, Reg::R10)
                .add(Reg::R3, VALUE.into())
                .mov(Reg::R4, 0)
                .call(Helper::MAP_UPDATE_ELEM.0);
        }
        Op::Output => {
            asm.map(Reg::R1, map.fd)
                .mov_reg(Reg::R2, Reg::R10)
                .add(Reg::R2, VALUE.into())
                .mov(Reg::R3, VALUE_SIZE as i32)
                .mov(Reg::R4, 0)
                .call(Helper::RINGBUF_OUTPUT.0);
        }
    }
}

/// The positions of a ring of the running kernel.
pub struct Positions {
    consumer: Box<dyn Mapping>,
    producer: Box<dyn Mapping>,
}

impl Positions {
    pub fn of(host: &Host, map: Running) -> Self {
        use mapemu::abi::Bpf;
        let page = |offset, write| {
            let prot = Prot {
                read: true,
                write,
                exec: false,
            };
            let request = MapRequest {
                addr: 0,
                len: 4096,
                offset,
                prot,
                shared: true,
            };
            host.mmap(map.fd, request).expect("a mapping")
        };
        Self {
            consumer: page(0, true),
            producer: page(4096, false),
        }
    }

    /// All records are read: the number of bytes that they took.
    pub fn consume(&self) -> u64 {
        let mut bytes = [0; 8];
        self.consumer.read(0, &mut bytes).expect("a position");
        let before = u64::from_ne_bytes(bytes);
        self.producer.read(0, &mut bytes).expect("a position");
        self.consumer.write(0, &bytes).expect("a position");
        u64::from_ne_bytes(bytes) - before
    }
}
