//! Fields of instructions that have to be 0, or one of a few numbers.
//!
//! Kernel: `kernel/bpf/verifier.c:do_check`, `check_alu_op`, `check_atomic` (v6.18).

use super::insn::{CALL, EXIT, Insn, JA, JA32, JCOND, LD_IMM64, class, pseudo};

/// Operations of arithmetic.
pub(super) mod op {
    pub(crate) const SUB: u8 = 0x10;
    pub(crate) const ADD: u8 = 0x00;
    pub(crate) const DIV: u8 = 0x30;
    pub(crate) const LSH: u8 = 0x60;
    pub(crate) const RSH: u8 = 0x70;
    pub(crate) const NEG: u8 = 0x80;
    pub(crate) const MOD: u8 = 0x90;
    pub(crate) const MOV: u8 = 0xb0;
    pub(crate) const ARSH: u8 = 0xc0;
    pub(crate) const END: u8 = 0xd0;
}

/// `imm` of atomic operations.
pub(super) mod atomic {
    pub(crate) const CMPXCHG: i32 = 0xf1;
    pub(crate) const LOAD_ACQUIRE: i32 = 0x100;
    pub(crate) const STORE_RELEASE: i32 = 0x110;
    /// The others, with and without giving back what was there.
    pub(crate) const CHANGES: [i32; 9] = [0, 0x01, 0x40, 0x41, 0x50, 0x51, 0xa0, 0xa1, 0xe1];
}

/// What is wrong with the fields of an instruction, in the kernel's words.
pub(super) fn misused(insn: Insn) -> Option<String> {
    let Insn {
        code,
        dst,
        src,
        off,
        imm,
    } = insn;
    let (right, name) = match insn.class() {
        class::ALU | class::ALU64 => return arithmetic(insn),
        class::LDX => (imm == 0, "BPF_LDX"),
        class::ST => (src == 0, "BPF_ST"),
        class::STX if insn.is_atomic() => return atomic(insn),
        class::STX => (imm == 0, "BPF_STX"),
        class::LD if code == LD_IMM64 => (off == 0, "BPF_LD_IMM64"),
        class::LD => {
            let right = (dst, off) == (0, 0) && (insn.is_indirect() || src == 0);
            (right, "BPF_LD_[ABS|IND]")
        }
        _ => match code {
            CALL => {
                let of_kernel = src == pseudo::KFUNC_CALL;
                let right = dst == 0 && src <= pseudo::KFUNC_CALL && (off == 0 || of_kernel);
                (right, "BPF_CALL")
            }
            EXIT => ((dst, src, imm) == (0, 0, 0), "BPF_EXIT"),
            JA => ((dst, src, imm) == (0, 0, 0), "BPF_JA"),
            JA32 => ((dst, src, off) == (0, 0, 0), "BPF_JA"),
            JCOND if (dst, src, imm) != (0, 0, 0) => {
                return Some(format!("invalid may_goto imm {imm}"));
            }
            JCOND => return None,
            _ if insn.has_source() => (imm == 0, "BPF_JMP/JMP32"),
            _ => (src == 0, "BPF_JMP/JMP32"),
        },
    };
    (!right).then(|| uses_reserved(name))
}

fn uses_reserved(name: &str) -> String {
    format!("{name} uses reserved fields")
}

fn arithmetic(insn: Insn) -> Option<String> {
    let Insn { src, off, imm, .. } = insn;
    let wide = insn.class() == class::ALU64;
    let operand = if insn.has_source() {
        imm == 0
    } else {
        src == 0
    };
    let (right, name) = match insn.op() {
        op::NEG => ((src, off, imm) == (0, 0, 0), "BPF_NEG"),
        op::END => {
            let right = (src, off) == (0, 0) && matches!(imm, 16 | 32 | 64);
            (right, "BPF_END")
        }
        // From one address space to the other.
        op::MOV if insn.has_source() && wide && off == 1 => {
            let what = "addr_space_cast insn can only convert between address space 1 and 0";
            return (!matches!(imm, 1 | 0x1_0000)).then(|| what.to_owned());
        }
        op::MOV => {
            let signs = insn.has_source() && (matches!(off, 8 | 16) || off == 32 && wide);
            (operand && (off == 0 || signs), "BPF_MOV")
        }
        op::DIV | op::MOD => (operand && matches!(off, 0 | 1), "BPF_ALU"),
        _ => (operand && off == 0, "BPF_ALU"),
    };
    (!right).then(|| uses_reserved(name))
}

fn atomic(insn: Insn) -> Option<String> {
    let changes = atomic::CHANGES.contains(&insn.imm) || insn.imm == atomic::CMPXCHG;
    match insn.imm {
        atomic::LOAD_ACQUIRE | atomic::STORE_RELEASE => None,
        _ if !changes => Some(format!(
            "BPF_ATOMIC uses invalid atomic opcode {:02x}",
            insn.imm
        )),
        _ if insn.size() < 4 => Some("invalid atomic operand size".to_owned()),
        _ => None,
    }
}
