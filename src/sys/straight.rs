//! The straight path: what every run of a program does up to its first branch.
//!
//! A program is not verified. But what it does before anything is decided it does for certain, so what the verifier refuses
//! there is refused here: reading a register that was never written, calling a helper that is not for it, … Programs that
//! ask whether the kernel knows something have nothing else. Past the first branch all is allowed.
//!
//! Kernel: `kernel/bpf/verifier.c:do_check` (v6.18).

use super::helpers::{Helper, Returns};
use super::insn::{CALL, EXIT, Insn, LD_IMM64, class, pseudo};
use super::log::Log;
use super::structure::target;
use crate::abi::{AttachType, Errno, ProgType, Result};

/// Bytes of a program's stack.
const STACK: i32 = 512;
/// The frame pointer.
const R10: u8 = 10;
/// Functions that sleep.
const SLEEPING: [u32; 2] = [148, 191];
/// Functions that are only for programs at certain functions of the kernel.
const PROBES: [u32; 3] = [107, 108, 147];
const GET_SMP_PROCESSOR_ID: u32 = 8;
const GET_FUNC_IP: u32 = 173;

/// What is known of a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reg {
    Unwritten,
    Context,
    Frame,
    Map,
    /// A number from the one to the other.
    Number(i64, i64),
    /// A pointer that a helper gave.
    AnyPointer,
    Unknown,
}

/// What the checks ask of a program besides its instructions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) prog_type: ProgType,
    pub(super) attach_type: AttachType,
    pub(super) gpl_compatible: bool,
    pub(super) sleepable: bool,
    pub(super) nr_cpus: u32,
    /// The first number that is no helper.
    pub(super) helpers: u32,
}

/// The path under way.
struct Path<'a> {
    kind: Kind,
    regs: [Reg; 11],
    log: &'a mut Log,
}

/// Follows the path; the number of instructions on it.
///
/// # Errors
///
/// `EACCES`, `EINVAL`, `ENOTSUPP`.
pub(super) fn follow(insns: &[Insn], kind: Kind, log: &mut Log) -> (usize, Result<()>) {
    let mut path = Path {
        kind,
        regs: [Reg::Unwritten; 11],
        log,
    };
    path.regs[1] = Reg::Context;
    path.regs[R10 as usize] = Reg::Frame;
    let (mut at, mut count) = (0, 0);
    while count < insns.len() {
        let insn = insns[at];
        let high = insns.get(at + 1).map_or(0, |second| second.imm);
        count += 1;
        if let Err(errno) = path.step(insn, high) {
            return (count, Err(errno));
        }
        at = match insn.code {
            EXIT => return (count, Ok(())),
            LD_IMM64 => at + 2,
            _ if insn.is_goto() => target(at, insn).expect("jumps stay in their function"),
            CALL if insn.src != 0 => return (count, Ok(())),
            _ if insn.is_jump() => return (count, Ok(())),
            _ => at + 1,
        };
    }
    // It came back to where it was, without a branch: it does so for ever.
    let what = format_args!("infinite loop detected at insn {at}");
    (count, Err(path.log.refuse(Errno::EINVAL, what)))
}

impl Path<'_> {
    /// `high` is the number of the next place: the upper half of a number of 64 bits.
    fn step(&mut self, insn: Insn, high: i32) -> Result<()> {
        if insn.dst > R10 || insn.src > R10 {
            let reg = if insn.src > R10 { insn.src } else { insn.dst };
            let what = format_args!("R{reg} is invalid");
            return Err(self.log.refuse(Errno::EINVAL, what));
        }
        match insn.class() {
            class::ALU | class::ALU64 => self.arithmetic(insn),
            class::LDX => {
                self.pointer(insn.src)?;
                self.write(insn.dst, Reg::Unknown)
            }
            class::ST | class::STX => self.store(insn),
            class::LD if insn.code == LD_IMM64 => self.write(insn.dst, immediate(insn, high)),
            class::LD => {
                self.clobber(Reg::Unknown);
                Ok(())
            }
            _ if insn.code == EXIT => self.exit(),
            _ if insn.code == CALL && insn.src == 0 => self.call(insn.number()),
            _ if insn.is_goto() || insn.code == CALL => Ok(()),
            _ => self.branch(insn),
        }
    }

    /// # Errors
    ///
    /// `EACCES` if it was never written.
    fn read(&mut self, reg: u8) -> Result<Reg> {
        let known = self.regs[reg as usize];
        if known == Reg::Unwritten {
            let what = format_args!("R{reg} !read_ok");
            return Err(self.log.refuse(Errno::EACCES, what));
        }
        Ok(known)
    }

    fn write(&mut self, reg: u8, value: Reg) -> Result<()> {
        if reg == R10 {
            let what = format_args!("frame pointer is read only");
            return Err(self.log.refuse(Errno::EACCES, what));
        }
        self.regs[reg as usize] = value;
        Ok(())
    }

    /// # Errors
    ///
    /// `EACCES` if it is no pointer.
    fn pointer(&mut self, reg: u8) -> Result<Reg> {
        let pointer = self.read(reg)?;
        if matches!(pointer, Reg::Number(..)) {
            let what = format_args!("R{reg} invalid mem access 'scalar'");
            return Err(self.log.refuse(Errno::EACCES, what));
        }
        Ok(pointer)
    }

    fn store(&mut self, insn: Insn) -> Result<()> {
        const ATOMIC: u8 = 0xc0;
        if insn.class() == class::STX {
            self.read(insn.src)?;
        }
        let pointer = self.pointer(insn.dst)?;
        let size = match insn.code & 0x18 {
            0x00 => 4,
            0x08 => 2,
            0x10 => 1,
            _ => 8,
        };
        let off = i32::from(insn.off);
        if pointer == Reg::Frame && !(-STACK..=-size).contains(&off) {
            let reg = insn.dst;
            let what = format_args!("invalid write to stack R{reg} off={off} size={size}");
            return Err(self.log.refuse(Errno::EACCES, what));
        }
        if insn.class() == class::STX && insn.code & 0xe0 == ATOMIC {
            // An exchange leaves something in the source, or in R0.
            for reg in [insn.src, 0] {
                self.forget(reg);
            }
        }
        Ok(())
    }

    /// From here on anything may be in a register that was written.
    fn forget(&mut self, reg: u8) {
        let reg = &mut self.regs[reg as usize];
        if !matches!(reg, Reg::Unwritten | Reg::Frame) {
            *reg = Reg::Unknown;
        }
    }

    fn arithmetic(&mut self, insn: Insn) -> Result<()> {
        const MOV: u8 = 0xb0;
        const DIV: u8 = 0x30;
        const MOD: u8 = 0x90;
        let wide = insn.class() == class::ALU64;
        let source = insn.has_source().then(|| self.read(insn.src)).transpose()?;
        if insn.op() == MOV {
            let value = match source {
                None if wide || insn.imm >= 0 => {
                    Reg::Number(i64::from(insn.imm), i64::from(insn.imm))
                }
                Some(value) if wide && insn.off == 0 => value,
                _ => Reg::Unknown,
            };
            // A second frame pointer is as good as the first, but can be moved.
            return self.write(insn.dst, value);
        }
        self.read(insn.dst)?;
        if matches!(insn.op(), DIV | MOD) && source.is_none() && insn.imm == 0 {
            let what = format_args!("div by zero");
            return Err(self.log.refuse(Errno::EINVAL, what));
        }
        self.write(insn.dst, Reg::Unknown)
    }

    fn branch(&mut self, insn: Insn) -> Result<()> {
        if insn.code == super::insn::JCOND {
            return Ok(());
        }
        if insn.has_source() {
            self.read(insn.src)?;
        }
        self.read(insn.dst).map(drop)
    }

    /// A call leaves nothing in the registers of its arguments.
    fn clobber(&mut self, answer: Reg) {
        self.regs[0] = answer;
        self.regs[1..=5].fill(Reg::Unwritten);
    }

    /// Kernel: `check_helper_call`.
    fn call(&mut self, number: u32) -> Result<()> {
        let helper = Helper::of(number).filter(|_| number < self.kind.helpers);
        let Some(helper) = helper else {
            let what = format_args!("invalid func unknown#{number}");
            return Err(self.log.refuse(Errno::EINVAL, what));
        };
        let Kind {
            prog_type,
            attach_type,
            ..
        } = self.kind;
        let name = helper.name;
        let refusal = if number == 0 || !helper.is_for(prog_type, attach_type) {
            Some(format!(
                "program of this type cannot use helper bpf_{name}#{number}"
            ))
        } else if helper.gpl_only && !self.kind.gpl_compatible {
            Some("cannot call GPL-restricted function from non-GPL compatible program".to_owned())
        } else if PROBES.contains(&number) && prog_type == ProgType::SYSCALL {
            Some("helper call is not allowed in probe".to_owned())
        } else if SLEEPING.contains(&number) && !self.kind.sleepable {
            Some("helper call might sleep in a non-sleepable prog".to_owned())
        } else {
            None
        };
        if let Some(what) = refusal {
            return Err(self.log.refuse(Errno::EINVAL, format_args!("{what}")));
        }
        self.first_argument(number, helper)?;
        for reg in 2..=helper.args {
            self.read(reg)?;
        }
        if number == GET_FUNC_IP && !matches!(prog_type, ProgType::KPROBE | ProgType::TRACING) {
            let prog_type = prog_type.0;
            let what =
                format_args!("func bpf_{name}#{number} not supported for program type {prog_type}");
            return Err(self.log.refuse(Errno::ENOTSUPP, what));
        }
        self.clobber(match helper.returns {
            Returns::Nothing => Reg::Unwritten,
            Returns::Scalar if number == GET_SMP_PROCESSOR_ID => {
                Reg::Number(0, i64::from(self.kind.nr_cpus) - 1)
            }
            Returns::Scalar => Reg::Number(i64::MIN, i64::MAX),
            Returns::Pointer => Reg::AnyPointer,
        });
        Ok(())
    }

    /// Kernel: `check_func_arg`, `check_reg_type`.
    fn first_argument(&mut self, number: u32, helper: &Helper) -> Result<()> {
        if helper.args == 0 {
            return Ok(());
        }
        let expected = first_of(number, helper, self.kind);
        let is = match self.read(1)? {
            Reg::Context if !expected.is_empty() => "ctx",
            Reg::Number(..) if expected == "map_ptr" => "scalar",
            Reg::Frame if expected == "map_ptr" => "fp",
            Reg::Unwritten
            | Reg::Context
            | Reg::Frame
            | Reg::Map
            | Reg::Number(..)
            | Reg::AnyPointer
            | Reg::Unknown => return Ok(()),
        };
        let what = format_args!("R1 type={is} expected={expected}");
        Err(self.log.refuse(Errno::EACCES, what))
    }

    /// Kernel: `check_return_code`.
    fn exit(&mut self) -> Result<()> {
        let value = self.read(0)?;
        let Some((least, most)) = exit_range(self.kind) else {
            return Ok(());
        };
        let should = format_args!("should have been in [{least}, {most}]");
        let what = match value {
            Reg::Number(i64::MIN, i64::MAX) => {
                format!("At program exit the register R0 has unknown scalar value {should}")
            }
            Reg::Number(smin, smax) if smin < least || smax > most => {
                format!("At program exit the register R0 has smin={smin} smax={smax} {should}")
            }
            Reg::Context | Reg::Frame | Reg::Map | Reg::AnyPointer => {
                "At program exit the register R0 is not a known value".to_owned()
            }
            Reg::Unwritten | Reg::Number(..) | Reg::Unknown => return Ok(()),
        };
        Err(self.log.refuse(Errno::EINVAL, format_args!("{what}")))
    }
}

/// What [`LD_IMM64`] gives.
fn immediate(insn: Insn, high: i32) -> Reg {
    match insn.src {
        0 => {
            let value = i64::from(high) << 32 | i64::from(insn.number());
            Reg::Number(value, value)
        }
        pseudo::MAP_FD => Reg::Map,
        _ => Reg::Unknown,
    }
}

/// What a helper wants as its first argument, of programs of that kind: a few differ.
fn first_of(number: u32, helper: &Helper, kind: Kind) -> &'static str {
    use super::helpers::{PTR, SOCKET_OR_PTR};
    match (number, kind.prog_type, kind.attach_type.0) {
        (46, ProgType::SK_REUSEPORT | ProgType::SYSCALL, _)
        | (49 | 57, ProgType::CGROUP_SOCKOPT, 22) => SOCKET_OR_PTR,
        (188, ProgType::SYSCALL, _) => PTR,
        _ => helper.first,
    }
}

/// What a program of that kind may answer; none if it may answer anything.
///
/// Kernel: `return_retval_range`.
fn exit_range(kind: Kind) -> Option<(i64, i64)> {
    Some(match (kind.prog_type, kind.attach_type.0) {
        (ProgType::CGROUP_SKB, 1) | (ProgType::CGROUP_SOCK_ADDR, 8 | 9) => (0, 3),
        (ProgType::CGROUP_SOCK_ADDR, 19 | 20 | 29..=32 | 51..=53) => (1, 1),
        (
            ProgType::CGROUP_SKB
            | ProgType::CGROUP_SOCK
            | ProgType::CGROUP_SOCK_ADDR
            | ProgType::CGROUP_DEVICE
            | ProgType::CGROUP_SYSCTL
            | ProgType::CGROUP_SOCKOPT
            | ProgType::SOCK_OPS
            | ProgType::SK_LOOKUP
            | ProgType::NETFILTER,
            _,
        ) => (0, 1),
        _ => return None,
    })
}
