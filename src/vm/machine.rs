//! One run of one program.

use std::cell::OnceCell;
use std::sync::Arc;

use super::alu::{alu, jumps, low};
use super::insn::{Insn, class, mode};
use super::memory::{Place, Stack, Val, number};
use super::{Fault, fault};
use crate::env::Env;
use crate::helper::{self, Record};
use crate::map::object::Prog;
use crate::map::{Map, Value};
use crate::sys::TestRun;

/// Functions that call each other, at most.
const FRAMES: usize = 8;

/// How a program ends.
#[derive(Debug)]
pub(super) enum End {
    Exit(u32),
    TailCall(Arc<Prog>),
}

/// A function under way.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) stack: Stack,
    /// Where the one that called it goes on, and its registers from R6 on.
    caller: Option<(usize, [Val; 4])>,
}

/// See the module.
pub(super) struct Run<'m> {
    pub(super) env: &'m Arc<Env>,
    pub(super) run: &'m helper::Prog,
    insns: &'m [Insn],
    pub(super) regs: [Val; 11],
    pub(super) frames: Vec<Frame>,
    pub(super) maps: Vec<&'m Arc<Map>>,
    /// Room for maps that are found in maps.
    pub(super) found: &'m [OnceCell<Arc<Map>>],
    pub(super) values: Vec<Value<'m>>,
    pub(super) records: Vec<Option<Record<'m>>>,
    pub(super) input: &'m mut TestRun,
}

/// What a call of a helper leads to.
pub(super) enum Called {
    Returns(Val),
    TailCall(Arc<Prog>),
}

impl<'m> Run<'m> {
    pub(super) fn new(
        env: &'m Arc<Env>,
        run: &'m helper::Prog,
        insns: &'m [Insn],
        (maps, found): (&'m [Arc<Map>], &'m [OnceCell<Arc<Map>>]),
        input: &'m mut TestRun,
    ) -> Self {
        let mut regs = [Val::Number(0); 11];
        regs[1] = Val::Pointer(Place::Context, 0);
        regs[10] = Val::Pointer(Place::Stack(0), 0);
        Self {
            env,
            run,
            insns,
            regs,
            frames: vec![Frame {
                stack: Stack::new(),
                caller: None,
            }],
            maps: maps.iter().collect(),
            found,
            values: Vec::new(),
            records: Vec::new(),
            input,
        }
    }

    /// Runs it to its end.
    pub(super) fn go(&mut self, budget: &mut u64) -> Result<End, Fault> {
        let mut at = 0;
        loop {
            *budget = budget
                .checked_sub(1)
                .ok_or_else(|| fault("it does not end"))?;
            let insn = *self
                .insns
                .get(at)
                .ok_or_else(|| fault("it leaves itself"))?;
            at += 1;
            match insn.class() {
                class::ALU | class::ALU64 => self.compute(insn)?,
                class::LD if insn.mode() == mode::IMM => {
                    let second = self.insns.get(at).copied();
                    self.constant(insn, second.ok_or_else(|| fault("half an instruction"))?)?;
                    at += 1;
                }
                class::LD => match self.packet_load(insn)? {
                    Some(number) => self.regs[0] = Val::Number(number),
                    // Outside of the packet: the program ends.
                    None => return Ok(End::Exit(0)),
                },
                class::LDX => self.load_into(insn)?,
                class::ST => {
                    let to = self.offset(insn.dst, insn.off)?;
                    self.store(to, insn.size(), Val::Number(insn.number()))?;
                }
                class::STX if insn.mode() == mode::ATOMIC => self.atomic(insn)?,
                class::STX => {
                    let to = self.offset(insn.dst, insn.off)?;
                    self.store(to, insn.size(), self.regs[insn.src])?;
                }
                _ => match self.jump(insn, at)? {
                    Next::At(next) => at = next,
                    Next::End(end) => return Ok(end),
                },
            }
        }
    }

    fn compute(&mut self, insn: Insn) -> Result<(), Fault> {
        let swap = insn.op() == 0xd0;
        let operand = if insn.by_register() && !swap {
            self.regs[insn.src]
        } else {
            Val::Number(insn.number())
        };
        let wide = insn.class() == class::ALU64 || swap;
        self.regs[insn.dst] = alu(insn, self.regs[insn.dst], operand, wide)?;
        Ok(())
    }

    /// `ld_imm64`: a number, a map, or a place in a map's only value.
    fn constant(&mut self, insn: Insn, second: Insn) -> Result<(), Fault> {
        const MAP: usize = 1;
        const VALUE: usize = 2;
        let high = u64::from(second.imm.cast_unsigned());
        self.regs[insn.dst] = match insn.src {
            0 => Val::Number(high << 32 | u64::from(insn.imm.cast_unsigned())),
            MAP | VALUE => {
                let id = insn.imm.cast_unsigned();
                let map = self.maps.iter().position(|map| map.id == id);
                let map = map.ok_or_else(|| fault("a map that it does not hold"))?;
                if insn.src == MAP {
                    Val::Pointer(Place::Map(map), 0)
                } else {
                    let of = self.maps[map];
                    let value = of.ops.lookup_elem(self.run.cpu(), &[0; 4]);
                    let value = value.ok_or_else(|| fault("a map without a value"))?;
                    self.values.push(value.limited(of.def.map_flags));
                    let offset = i64::try_from(high).unwrap_or(0);
                    Val::Pointer(Place::Value(self.values.len() - 1), offset)
                }
            }
            kind => return Err(fault(format_args!("constants of kind {kind}"))),
        };
        Ok(())
    }

    /// `LD_ABS`, `LD_IND`: a number of the packet, big-endian.
    fn packet_load(&self, insn: Insn) -> Result<Option<u64>, Fault> {
        let by = match (insn.mode(), self.regs[insn.src]) {
            (mode::ABS, _) => 0,
            (mode::IND, Val::Number(by)) => by.cast_signed(),
            _ => return Err(fault(format_args!("opcode {:#x}", insn.code))),
        };
        let start = i64::try_from(self.input.start).unwrap_or(0);
        let at = start + i64::from(insn.imm) + by;
        let bytes = self.bytes(Val::Pointer(Place::Packet, at), insn.size());
        Ok(bytes.ok().map(|mut bytes| {
            bytes.reverse();
            number(&bytes)
        }))
    }

    fn load_into(&mut self, insn: Insn) -> Result<(), Fault> {
        let from = self.offset(insn.src, insn.off)?;
        let loaded = self.load(from, insn.size())?;
        self.regs[insn.dst] = match (insn.mode(), loaded) {
            (mode::MEM, loaded) => loaded,
            (mode::MEMSX, Val::Number(loaded)) => {
                let unused = 64 - 8 * insn.size();
                Val::Number(((loaded << unused).cast_signed() >> unused).cast_unsigned())
            }
            _ => return Err(fault(format_args!("opcode {:#x}", insn.code))),
        };
        Ok(())
    }

    /// Nobody else runs at the same time on this CPU, and user space makes no atomic changes: one step after the other is the
    /// same.
    fn atomic(&mut self, insn: Insn) -> Result<(), Fault> {
        const FETCH: i32 = 1;
        let to = self.offset(insn.dst, insn.off)?;
        let size = insn.size();
        let (Val::Number(old), Val::Number(operand)) = (self.load(to, size)?, self.regs[insn.src])
        else {
            return Err(fault("an atomic operation with a pointer"));
        };
        let cut = |number: u64| if size == 4 { low(number) } else { number };
        let new = match insn.imm & !FETCH {
            0x00 => old.wrapping_add(operand),
            0x40 => old | operand,
            0x50 => old & operand,
            0xa0 => old ^ operand,
            0xe0 => operand,
            0xf0 => {
                let expected = std::mem::replace(&mut self.regs[0], Val::Number(old));
                if !matches!(expected, Val::Number(number) if cut(number) == old) {
                    return Ok(());
                }
                return self.store(to, size, Val::Number(cut(operand)));
            }
            op => return Err(fault(format_args!("atomic operation {op:#x}"))),
        };
        self.store(to, size, Val::Number(cut(new)))?;
        if insn.imm & FETCH != 0 {
            self.regs[insn.src] = Val::Number(old);
        }
        Ok(())
    }

    /// A register as a pointer, and so much further.
    fn offset(&self, register: usize, by: i16) -> Result<Val, Fault> {
        match self.regs[register] {
            Val::Pointer(place, at) => Ok(Val::Pointer(place, at.wrapping_add(by.into()))),
            Val::Number(number) => Err(fault(format_args!(
                "R{register} is no pointer: it is {number:#x}"
            ))),
        }
    }

    fn jump(&mut self, insn: Insn, at: usize) -> Result<Next, Fault> {
        const JA: u8 = 0x00;
        const CALL: u8 = 0x80;
        const EXIT: u8 = 0x90;
        let wide = insn.class() == class::JMP;
        let by = match (insn.op(), wide) {
            (JA, true) => i64::from(insn.off),
            (JA, false) => i64::from(insn.imm),
            (CALL, true) => return self.call(insn, at),
            (EXIT, true) => return self.exit(),
            _ => {
                let operand = if insn.by_register() {
                    self.regs[insn.src]
                } else {
                    Val::Number(insn.number())
                };
                if jumps(insn, self.regs[insn.dst], operand, wide)? {
                    i64::from(insn.off)
                } else {
                    0
                }
            }
        };
        Ok(Next::At(target(at, by)?))
    }

    fn call(&mut self, insn: Insn, at: usize) -> Result<Next, Fault> {
        match insn.src {
            0 => match self.helper(insn.imm)? {
                Called::Returns(result) => {
                    self.regs[0] = result;
                    Ok(Next::At(at))
                }
                Called::TailCall(next) => Ok(Next::End(End::TailCall(next))),
            },
            1 => {
                if self.frames.len() == FRAMES {
                    return Err(fault("too many functions call each other"));
                }
                let [.., a, b, c, d, _] = self.regs;
                self.frames.push(Frame {
                    stack: Stack::new(),
                    caller: Some((at, [a, b, c, d])),
                });
                self.regs[10] = Val::Pointer(Place::Stack(self.frames.len() - 1), 0);
                Ok(Next::At(target(at, i64::from(insn.imm))?))
            }
            _ => Err(fault("functions of the kernel")),
        }
    }

    fn exit(&mut self) -> Result<Next, Fault> {
        let frame = self.frames.pop().ok_or_else(|| fault("no function"))?;
        let Some((at, saved)) = frame.caller else {
            return match self.regs[0] {
                Val::Number(result) => Ok(Next::End(End::Exit(
                    u32::try_from(low(result)).unwrap_or(0),
                ))),
                Val::Pointer(..) => Err(fault("it returns a pointer")),
            };
        };
        self.regs[6..10].copy_from_slice(&saved);
        self.regs[10] = Val::Pointer(Place::Stack(self.frames.len() - 1), 0);
        Ok(Next::At(at))
    }
}

/// Where the program goes on.
enum Next {
    At(usize),
    End(End),
}

fn target(at: usize, by: i64) -> Result<usize, Fault> {
    let target = i64::try_from(at).ok().and_then(|at| at.checked_add(by));
    let target = target.and_then(|target| usize::try_from(target).ok());
    target.ok_or_else(|| fault("a jump out of the program"))
}
