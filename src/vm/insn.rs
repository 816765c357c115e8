//! Instructions: what their eight bytes mean.
//!
//! Source: `include/uapi/linux/bpf_common.h`, `bpf.h`.

/// One instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Insn {
    pub(super) code: u8,
    pub(super) dst: usize,
    pub(super) src: usize,
    pub(super) off: i16,
    pub(super) imm: i32,
}

/// The low three bits of an opcode.
pub(super) mod class {
    pub(in crate::vm) const LD: u8 = 0;
    pub(in crate::vm) const LDX: u8 = 1;
    pub(in crate::vm) const ST: u8 = 2;
    pub(in crate::vm) const STX: u8 = 3;
    pub(in crate::vm) const ALU: u8 = 4;
    pub(in crate::vm) const JMP: u8 = 5;
    pub(in crate::vm) const ALU64: u8 = 7;
}

/// The high three bits of a load or store.
pub(super) mod mode {
    pub(in crate::vm) const IMM: u8 = 0x00;
    pub(in crate::vm) const ABS: u8 = 0x20;
    pub(in crate::vm) const IND: u8 = 0x40;
    pub(in crate::vm) const MEM: u8 = 0x60;
    pub(in crate::vm) const MEMSX: u8 = 0x80;
    pub(in crate::vm) const ATOMIC: u8 = 0xc0;
}

impl Insn {
    pub(super) fn class(self) -> u8 {
        self.code & 7
    }

    /// Of an ALU operation or a jump.
    pub(super) fn op(self) -> u8 {
        self.code & 0xf0
    }

    /// The operand is a register.
    pub(super) fn by_register(self) -> bool {
        self.code & 8 != 0
    }

    pub(super) fn mode(self) -> u8 {
        self.code & 0xe0
    }

    /// Bytes of a load or store.
    pub(super) fn size(self) -> usize {
        match self.code & 0x18 {
            0x00 => 4,
            0x08 => 2,
            0x10 => 1,
            _ => 8,
        }
    }

    /// The number, its sign in all higher bits.
    pub(super) fn number(self) -> u64 {
        i64::from(self.imm).cast_unsigned()
    }
}

/// All instructions of a program.
pub(super) fn decode(bytes: &[u8]) -> Vec<Insn> {
    let (insns, _) = bytes.as_chunks::<8>();
    let of = |&[code, regs, a, b, c, d, e, f]: &[u8; 8]| Insn {
        code,
        dst: usize::from(regs & 15),
        src: usize::from(regs >> 4),
        off: i16::from_ne_bytes([a, b]),
        imm: i32::from_ne_bytes([c, d, e, f]),
    };
    insns.iter().map(of).collect()
}
