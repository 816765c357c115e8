//! The straight path: what every run of a program does up to its first branch.
//!
//! A program is not verified. But what it does before anything is decided it does for certain, so what the verifier refuses
//! there is refused here: reading a register that was never written, calling a helper that is not for it, … Programs that
//! ask whether the kernel knows something have nothing else. Past the first branch all is allowed; one that compares a known
//! number with another is none.
//!
//! What is left out even there: which bytes of a context can be read or written, but for its end where that is known; what is
//! done by a pointer that was moved, or found; arguments of helpers but the first and the addresses of keys and values, and
//! which helper goes with which type of map; what functions of the kernel do.
//!
//! Kernel: `kernel/bpf/verifier.c:do_check` (v6.18).

use std::fmt;

use super::helpers::{Helper, Returns};
use super::insn::{CALL, EXIT, Insn, LD_IMM64, class, pseudo};
use super::log::Log;
use super::reserved::{self, atomic, op};
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
    /// Where it is.
    at: usize,
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
        at: 0,
        log,
    };
    path.regs[1] = Reg::Context;
    path.regs[R10 as usize] = Reg::Frame;
    let (mut at, mut count, mut branched) = (0, 0, false);
    while count < insns.len() {
        let insn = insns[at];
        let high = insns.get(at + 1).map_or(0, |second| second.imm);
        count += 1;
        path.at = at;
        if let Err(errno) = path.step(insn, high) {
            return (count, Err(errno));
        }
        at = match insn.code {
            EXIT => return (count, Ok(())),
            LD_IMM64 => at + 2,
            _ if insn.is_goto() => target(at, insn).expect("jumps stay in their function"),
            CALL if insn.src != 0 => return (count, Ok(())),
            _ if insn.is_jump() => {
                branched = true;
                match path.decided(insn) {
                    Some(true) => target(at, insn).expect("jumps stay in their function"),
                    Some(false) => at + 1,
                    None => return (count, Ok(())),
                }
            }
            _ => at + 1,
        };
    }
    if branched {
        return (count, Ok(()));
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
        let is_load_of_packet = insn.class() == class::LD && insn.code != LD_IMM64;
        if is_load_of_packet && !has_packet(self.kind.prog_type) {
            let what = "BPF_LD_[ABS|IND] instructions not allowed for this program type";
            return Err(self.log.refuse(Errno::EINVAL, format_args!("{what}")));
        }
        if let Some(what) = reserved::misused(insn) {
            return Err(self.log.refuse(Errno::EINVAL, format_args!("{what}")));
        }
        match insn.class() {
            class::ALU | class::ALU64 => self.arithmetic(insn),
            class::LDX => self.load(insn),
            class::STX if insn.is_atomic() => self.atomic(insn),
            class::STX => {
                self.read(insn.src)?;
                self.store(insn)
            }
            class::ST => self.store(insn),
            class::LD if insn.code == LD_IMM64 => {
                let value = immediate(insn, high);
                if let (R10, Reg::Number(number, _)) = (insn.dst, value) {
                    self.show(insn, format_args!("r10 = {number:#x}"));
                }
                self.write(insn.dst, value)
            }
            class::LD => self.load_of_packet(insn),
            _ if insn.code == EXIT => self.exit(),
            _ if insn.code == CALL && insn.src == 0 => self.call(insn),
            _ if insn.is_kernel_call() && (insn.imm, insn.off) == (0, 0) => {
                let what = "invalid kernel function call not eliminated in verifier pass";
                Err(self.log.refuse(Errno::EINVAL, format_args!("{what}")))
            }
            _ if insn.is_goto() || insn.code == CALL => Ok(()),
            _ => self.branch(insn),
        }
    }

    /// The instruction, in the log: clients know by it what they put where a type is missing.
    fn show(&mut self, insn: Insn, text: fmt::Arguments<'_>) {
        let at = self.at;
        self.log
            .line(format_args!("{at}: ({:02x}) {text}", insn.code));
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

    fn load(&mut self, insn: Insn) -> Result<()> {
        match self.pointer(insn.src)? {
            Reg::Frame => self.stack("read from", insn.src, insn)?,
            Reg::Context => self.context(insn, context_size(self.kind.prog_type))?,
            Reg::Unwritten | Reg::Map | Reg::Number(..) | Reg::AnyPointer | Reg::Unknown => {}
        }
        self.write(insn.dst, Reg::Unknown)
    }

    fn store(&mut self, insn: Insn) -> Result<()> {
        match self.pointer(insn.dst)? {
            Reg::Frame => self.stack("write to", insn.dst, insn),
            Reg::Context if only_reads(self.kind.prog_type) => self.context(insn, Some(0)),
            Reg::Unwritten
            | Reg::Context
            | Reg::Map
            | Reg::Number(..)
            | Reg::AnyPointer
            | Reg::Unknown => Ok(()),
        }
    }

    /// An access of the stack.
    fn stack(&mut self, does: &str, reg: u8, insn: Insn) -> Result<()> {
        let (off, size) = (i32::from(insn.off), insn.size());
        if off % size != 0 {
            let what = format_args!("misaligned stack access off 0+0+{off} size {size}");
            return Err(self.log.refuse(Errno::EACCES, what));
        }
        if !(-STACK..=-size).contains(&off) {
            let what = format_args!("invalid {does} stack R{reg} off={off} size={size}");
            return Err(self.log.refuse(Errno::EACCES, what));
        }
        Ok(())
    }

    /// An access of the context, of which so many bytes are there, if that is known.
    fn context(&mut self, insn: Insn, bytes: Option<i32>) -> Result<()> {
        let (off, size) = (i32::from(insn.off), insn.size());
        if bytes.is_some_and(|bytes| off < 0 || off + size > bytes) {
            let what = format_args!("invalid bpf_context access off={off} size={size}");
            return Err(self.log.refuse(Errno::EACCES, what));
        }
        Ok(())
    }

    fn atomic(&mut self, insn: Insn) -> Result<()> {
        if insn.imm == atomic::LOAD_ACQUIRE {
            return self.load(insn);
        }
        self.read(insn.src)?;
        if insn.imm == atomic::CMPXCHG {
            self.read(0)?;
        }
        if self.pointer(insn.dst)? == Reg::Context {
            let reg = insn.dst;
            let what = format_args!("BPF_ATOMIC stores into R{reg} ctx is not allowed");
            return Err(self.log.refuse(Errno::EACCES, what));
        }
        self.store(insn)?;
        // An exchange leaves something in the source, or in R0.
        for reg in [insn.src, 0] {
            self.forget(reg);
        }
        Ok(())
    }

    fn load_of_packet(&mut self, insn: Insn) -> Result<()> {
        /// It has the context.
        const R6: u8 = 6;
        if matches!(self.read(R6)?, Reg::Number(..) | Reg::Frame | Reg::Map) {
            let what = format_args!("at the time of BPF_LD_ABS|IND R6 != pointer to skb");
            return Err(self.log.refuse(Errno::EINVAL, what));
        }
        if insn.is_indirect() {
            self.read(insn.src)?;
        }
        self.clobber(Reg::Unknown);
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
        let wide = insn.class() == class::ALU64;
        let has_source = insn.has_source() && insn.op() != op::END;
        let source = has_source.then(|| self.read(insn.src)).transpose()?;
        if insn.op() == op::MOV {
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
        let before = self.read(insn.dst)?;
        if source.is_none() {
            self.constant(insn, wide)?;
            self.pointer_arithmetic(before, insn, wide)?;
        }
        self.write(insn.dst, Reg::Unknown)
    }

    /// Numbers that some operations do not take.
    fn constant(&mut self, insn: Insn, wide: bool) -> Result<()> {
        let imm = insn.imm;
        let bits = if wide { 64 } else { 32 };
        match insn.op() {
            op::DIV | op::MOD if imm == 0 => {
                Err(self.log.refuse(Errno::EINVAL, format_args!("div by zero")))
            }
            op::LSH | op::RSH | op::ARSH if !(0..bits).contains(&imm) => {
                let what = format_args!("invalid shift {imm}");
                Err(self.log.refuse(Errno::EINVAL, what))
            }
            _ => Ok(()),
        }
    }

    /// What cannot be done to a pointer, with a number.
    fn pointer_arithmetic(&mut self, pointer: Reg, insn: Insn, wide: bool) -> Result<()> {
        let is_moved = match insn.op() {
            // It is a number from here on.
            op::NEG | op::END => true,
            // Nothing is added to a map but nothing.
            op::ADD => wide && (pointer != Reg::Map || insn.imm == 0),
            op::SUB => !wide || pointer == Reg::Context,
            _ => false,
        };
        let is_pointer = matches!(pointer, Reg::Context | Reg::Frame | Reg::Map);
        if is_pointer && !is_moved {
            let reg = insn.dst;
            let what = format_args!("R{reg} pointer arithmetic prohibited");
            return Err(self.log.refuse(Errno::EACCES, what));
        }
        Ok(())
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

    /// Whether a number that is known jumps if it is equal to another, or not equal.
    fn decided(&self, insn: Insn) -> Option<bool> {
        const JEQ: u8 = 0x10;
        const JNE: u8 = 0x50;
        let Reg::Number(number, last) = self.regs[insn.dst as usize] else {
            return None;
        };
        if number != last || insn.has_source() || insn.class() != class::JMP {
            return None;
        }
        let equal = number == i64::from(insn.imm);
        match insn.op() {
            JEQ => Some(equal),
            JNE => Some(!equal),
            _ => None,
        }
    }

    /// A call leaves nothing in the registers of its arguments.
    fn clobber(&mut self, answer: Reg) {
        self.regs[0] = answer;
        self.regs[1..=5].fill(Reg::Unwritten);
    }

    /// Kernel: `check_helper_call`.
    fn call(&mut self, insn: Insn) -> Result<()> {
        let number = insn.number();
        let helper = Helper::of(number).filter(|_| number < self.kind.helpers);
        let Some(helper) = helper else {
            self.show(insn, format_args!("call unknown#{number}"));
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
            let given = self.read(reg)?;
            if matches!(given, Reg::Number(..)) && takes_bytes(number).contains(&reg) {
                let what = format_args!("R{reg} type=scalar expected=fp, pkt, map_key, map_value");
                return Err(self.log.refuse(Errno::EACCES, what));
            }
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

/// The arguments that are the address of a key or a value, of helpers for maps.
const fn takes_bytes(number: u32) -> &'static [u8] {
    match number {
        1 | 3 | 87..=89 | 195 => &[2],
        2 => &[2, 3],
        _ => &[],
    }
}

/// Programs of that type load from packets by [`class::LD`].
///
/// Kernel: `may_access_skb`.
const fn has_packet(prog_type: ProgType) -> bool {
    matches!(
        prog_type,
        ProgType::SOCKET_FILTER | ProgType::SCHED_CLS | ProgType::SCHED_ACT
    )
}

/// Bytes of a context: of the largest, where the program may not read all of them.
///
/// Kernel: `include/uapi/linux/bpf.h:struct __sk_buff`, `struct xdp_md`; `struct pt_regs`.
const fn context_size(prog_type: ProgType) -> Option<i32> {
    match prog_type {
        ProgType::SOCKET_FILTER
        | ProgType::SCHED_CLS
        | ProgType::SCHED_ACT
        | ProgType::CGROUP_SKB => Some(192),
        ProgType::XDP => Some(24),
        ProgType::KPROBE => Some(168),
        ProgType::RAW_TRACEPOINT => Some(96),
        _ => None,
    }
}

/// Programs of that type store nothing in their context.
const fn only_reads(prog_type: ProgType) -> bool {
    matches!(
        prog_type,
        ProgType::XDP
            | ProgType::KPROBE
            | ProgType::TRACEPOINT
            | ProgType::PERF_EVENT
            | ProgType::RAW_TRACEPOINT
    )
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
