//! Instructions of programs.
//!
//! Source: `include/uapi/linux/bpf.h`, `struct bpf_insn`; `kernel/bpf/core.c:bpf_opcode_in_insntable` (v6.18).

/// Bytes of an instruction.
pub(super) const INSN_SIZE: usize = 8;

/// `BPF_LD | BPF_IMM | BPF_DW`: takes two places.
pub(super) const LD_IMM64: u8 = 0x18;
pub(super) const JA: u8 = 0x05;
/// A jump as far as `imm` says.
pub(super) const JA32: u8 = 0x06;
pub(super) const CALL: u8 = 0x85;
pub(super) const EXIT: u8 = 0x95;
/// `may_goto`
pub(super) const JCOND: u8 = 0xe5;

/// Classes: the low three bits of an opcode.
pub(super) mod class {
    pub(crate) const LD: u8 = 0;
    pub(crate) const LDX: u8 = 1;
    pub(crate) const ST: u8 = 2;
    pub(crate) const STX: u8 = 3;
    pub(crate) const ALU: u8 = 4;
    pub(crate) const JMP: u8 = 5;
    pub(crate) const JMP32: u8 = 6;
    pub(crate) const ALU64: u8 = 7;
}

/// What `src_reg` of [`LD_IMM64`] says of the number: `BPF_PSEUDO_*`.
pub(super) mod pseudo {
    pub(crate) const MAP_FD: u8 = 1;
    pub(crate) const MAP_VALUE: u8 = 2;
    pub(crate) const BTF_ID: u8 = 3;
    pub(crate) const FUNC: u8 = 4;
    pub(crate) const MAP_IDX: u8 = 5;
    pub(crate) const MAP_IDX_VALUE: u8 = 6;
    /// `src_reg` of a call: of a function of the program.
    pub(crate) const CALL: u8 = 1;
    /// `src_reg` of a call: of a function of the kernel.
    pub(crate) const KFUNC_CALL: u8 = 2;
}

/// One instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Insn {
    pub(super) code: u8,
    pub(super) dst: u8,
    pub(super) src: u8,
    pub(super) off: i16,
    pub(super) imm: i32,
}

impl Insn {
    pub(super) fn decode(bytes: [u8; INSN_SIZE]) -> Self {
        let [code, regs, off0, off1, imm @ ..] = bytes;
        Self {
            code,
            dst: regs & 0xf,
            src: regs >> 4,
            off: i16::from_ne_bytes([off0, off1]),
            imm: i32::from_ne_bytes(imm),
        }
    }

    pub(super) fn encode(self) -> [u8; INSN_SIZE] {
        let [off0, off1] = self.off.to_ne_bytes();
        let [a, b, c, d] = self.imm.to_ne_bytes();
        [self.code, self.src << 4 | self.dst, off0, off1, a, b, c, d]
    }

    pub(super) fn class(self) -> u8 {
        self.code & 0x07
    }

    /// The operation of arithmetic and jumps.
    pub(super) fn op(self) -> u8 {
        self.code & 0xf0
    }

    /// The second operand is a register.
    pub(super) fn has_source(self) -> bool {
        self.code & 0x08 != 0
    }

    /// Bytes that a load or a store takes.
    pub(super) fn size(self) -> i32 {
        match self.code & 0x18 {
            0x00 => 4,
            0x08 => 2,
            0x10 => 1,
            _ => 8,
        }
    }

    /// A store that is atomic.
    pub(super) fn is_atomic(self) -> bool {
        self.class() == class::STX && self.code & 0xe0 == 0xc0
    }

    /// A load from a packet, at a place that a register says.
    pub(super) fn is_indirect(self) -> bool {
        self.class() == class::LD && self.code & 0xe0 == 0x40
    }

    /// `imm` as the unsigned number that it stands for: an fd, an index, a helper.
    pub(super) fn number(self) -> u32 {
        self.imm.cast_unsigned()
    }

    /// A call of a function of the program.
    pub(super) fn is_local_call(self) -> bool {
        self.code == CALL && self.src == pseudo::CALL
    }

    /// A call of a function of the kernel.
    pub(super) fn is_kernel_call(self) -> bool {
        self.code == CALL && self.src == pseudo::KFUNC_CALL
    }

    /// The address of a function of the program.
    pub(super) fn is_function(self) -> bool {
        self.code == LD_IMM64 && self.src == pseudo::FUNC
    }

    /// A jump, conditional or not; no call and no exit.
    pub(super) fn is_jump(self) -> bool {
        matches!(self.class(), class::JMP | class::JMP32) && !matches!(self.code, CALL | EXIT)
    }

    /// It always jumps.
    pub(super) fn is_goto(self) -> bool {
        matches!(self.code, JA | JA32)
    }

    /// How far a jump goes, from the instruction after it.
    pub(super) fn jump(self) -> i64 {
        if self.code == JA32 {
            i64::from(self.imm)
        } else {
            i64::from(self.off)
        }
    }

    /// Kernel: `bpf_opcode_in_insntable`.
    pub(super) fn is_known(self) -> bool {
        const NEG: u8 = 0x80;
        const MOV: u8 = 0xb0;
        const END: u8 = 0xd0;
        let size = self.code & 0x18;
        let mode = self.code & 0xe0;
        match self.class() {
            class::ALU | class::ALU64 => match self.op() {
                NEG => !self.has_source(),
                END => self.class() == class::ALU || !self.has_source(),
                op => op < END && (op <= MOV || op == 0xc0),
            },
            class::JMP => {
                let compares = !matches!(self.op(), 0 | 0x80 | 0x90 | 0xe0 | 0xf0);
                compares || matches!(self.code, JA | CALL | EXIT | JCOND)
            }
            class::JMP32 => {
                let compares = !matches!(self.op(), 0 | 0x80 | 0x90 | 0xe0 | 0xf0);
                compares || self.code == JA32
            }
            class::ST => mode == 0x60,
            class::STX => matches!(mode, 0x60 | 0xc0),
            class::LDX => mode == 0x60 || mode == 0x80 && size != 0x18,
            _ => self.code == LD_IMM64 || matches!(mode, 0x20 | 0x40) && size != 0x18,
        }
    }
}
