//! A small assembler for BPF programs.
//!
//! Source: `Documentation/bpf/standardization/instruction-set.rst`.

use crate::abi::Fd;

/// The registers; `R10` points behind the stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "they have numbers")]
pub enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
}

/// Bytes of one access to memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// 1
    Byte,
    /// 2
    Half,
    /// 4
    Word,
    /// 8
    Double,
}

impl Width {
    const fn bits(self) -> u8 {
        match self {
            Self::Word => 0x00,
            Self::Half => 0x08,
            Self::Byte => 0x10,
            Self::Double => 0x18,
        }
    }

    /// The number of bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
            Self::Double => 8,
        }
    }
}

/// When a jump is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// Equal.
    Equal,
    /// Not equal.
    NotEqual,
    /// Above, unsigned.
    Above,
}

impl When {
    const fn bits(self) -> u8 {
        match self {
            Self::Equal => 0x10,
            Self::Above => 0x20,
            Self::NotEqual => 0x50,
        }
    }
}

/// A place in the program, set once and jumped to from anywhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Label(usize);

#[derive(Clone, Copy, Debug)]
struct Insn {
    code: u8,
    dst: u8,
    src: u8,
    off: i16,
    imm: i32,
}

/// A program that is being written.
#[derive(Clone, Debug, Default)]
pub struct Asm {
    insns: Vec<Insn>,
    labels: Vec<Option<usize>>,
    /// Instructions that wait for a label; `true`: it is the address of a function.
    waiting: Vec<(usize, Label, bool)>,
    /// Where the callback starts, if there is one.
    callback: Option<Label>,
}

impl Asm {
    /// An empty program.
    pub fn new() -> Self {
        Self::default()
    }

    fn push(&mut self, code: u8, dst: u8, src: u8, off: i16, imm: i32) -> &mut Self {
        self.insns.push(Insn {
            code,
            dst,
            src,
            off,
            imm,
        });
        self
    }

    /// `dst = imm`, the sign extended.
    pub fn mov(&mut self, dst: Reg, imm: i32) -> &mut Self {
        self.push(0xb7, dst as u8, 0, 0, imm)
    }

    /// `dst = src`
    pub fn mov_reg(&mut self, dst: Reg, src: Reg) -> &mut Self {
        self.push(0xbf, dst as u8, src as u8, 0, 0)
    }

    /// `dst += imm`
    pub fn add(&mut self, dst: Reg, imm: i32) -> &mut Self {
        self.push(0x07, dst as u8, 0, 0, imm)
    }

    /// `dst += src`
    pub fn add_reg(&mut self, dst: Reg, src: Reg) -> &mut Self {
        self.push(0x0f, dst as u8, src as u8, 0, 0)
    }

    /// `dst *= imm`
    pub fn mul(&mut self, dst: Reg, imm: i32) -> &mut Self {
        self.push(0x27, dst as u8, 0, 0, imm)
    }

    /// `dst &= imm`, the sign extended.
    pub fn and(&mut self, dst: Reg, imm: i32) -> &mut Self {
        self.push(0x57, dst as u8, 0, 0, imm)
    }

    /// `dst = src + off`
    pub fn addr(&mut self, dst: Reg, src: Reg, off: usize) -> &mut Self {
        self.mov_reg(dst, src).add(dst, imm(off))
    }

    /// `dst = value`
    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    pub fn mov64(&mut self, dst: Reg, value: u64) -> &mut Self {
        let (low, high) = (value as u32, (value >> 32) as u32);
        self.wide(dst, 0, low.cast_signed(), high.cast_signed())
    }

    /// `dst` is that map.
    pub fn map(&mut self, dst: Reg, map: Fd) -> &mut Self {
        self.wide(dst, 1, map.cast_signed(), 0)
    }

    /// `dst` points to that byte of the first value of an array.
    pub fn map_value(&mut self, dst: Reg, map: Fd, off: usize) -> &mut Self {
        self.wide(dst, 2, map.cast_signed(), imm(off))
    }

    fn wide(&mut self, dst: Reg, src: u8, low: i32, high: i32) -> &mut Self {
        self.push(0x18, dst as u8, src, 0, low)
            .push(0, 0, 0, 0, high)
    }

    /// `dst = *(src + off)`
    pub fn load(&mut self, width: Width, dst: Reg, src: Reg, off: i16) -> &mut Self {
        self.push(0x61 | width.bits(), dst as u8, src as u8, off, 0)
    }

    /// `*(dst + off) = src`
    pub fn store(&mut self, width: Width, dst: Reg, off: i16, src: Reg) -> &mut Self {
        self.push(0x63 | width.bits(), dst as u8, src as u8, off, 0)
    }

    /// `*(dst + off) = imm`
    pub fn store_imm(&mut self, width: Width, dst: Reg, off: i16, imm: i32) -> &mut Self {
        self.push(0x62 | width.bits(), dst as u8, 0, off, imm)
    }

    /// An atomic operation on `*(dst + off)`, 4 or 8 bytes wide: `op` is its number. `src` is then what was there; of a
    /// compare and exchange, `R0` is.
    pub fn atomic(&mut self, width: Width, dst: Reg, off: i16, src: Reg, op: i32) -> &mut Self {
        self.push(0xc3 | width.bits(), dst as u8, src as u8, off, op)
    }

    /// Calls the helper of that number.
    pub fn call(&mut self, helper: u32) -> &mut Self {
        self.push(0x85, 0, 0, 0, helper.cast_signed())
    }

    /// The end; `R0` is returned.
    pub fn exit(&mut self) -> &mut Self {
        self.push(0x95, 0, 0, 0, 0)
    }

    /// A label that is set later.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// The label stands for the next instruction.
    pub fn here(&mut self, label: Label) -> &mut Self {
        self.labels[label.0] = Some(self.insns.len());
        self
    }

    /// Jumps if `reg` and `imm` are so.
    pub fn jump(&mut self, when: When, reg: Reg, imm: i32, to: Label) -> &mut Self {
        self.waiting.push((self.insns.len(), to, false));
        self.push(0x05 | when.bits(), reg as u8, 0, 0, imm)
    }

    /// Jumps if two registers are so.
    pub fn jump_reg(&mut self, when: When, a: Reg, b: Reg, to: Label) -> &mut Self {
        self.waiting.push((self.insns.len(), to, false));
        self.push(0x0d | when.bits(), a as u8, b as u8, 0, 0)
    }

    /// `dst` is the address of the callback that begins at a label. A program has one at most.
    pub fn callback(&mut self, dst: Reg, at: Label) -> &mut Self {
        self.waiting.push((self.insns.len(), at, true));
        self.callback = Some(at);
        self.wide(dst, 4, 0, 0)
    }

    /// Copies `len` bytes by way of `R5`, in the widest steps; `skip` says which offsets are left out, byte by byte.
    pub fn copy(
        &mut self,
        (dst, dst_at): (Reg, usize),
        (src, src_at): (Reg, usize),
        len: usize,
        bytewise: bool,
        skip: &dyn Fn(usize) -> bool,
    ) -> &mut Self {
        let mut at = 0;
        while at < len {
            let width = match len - at {
                _ if bytewise => Width::Byte,
                8.. => Width::Double,
                4.. => Width::Word,
                _ => Width::Byte,
            };
            if !skip(at) {
                self.load(width, Reg::R5, src, off(src_at + at));
                self.store(width, dst, off(dst_at + at), Reg::R5);
            }
            at += width.bytes();
        }
        self
    }

    /// The instruction at which the callback begins.
    pub(super) fn callback_at(&self) -> Option<usize> {
        self.callback.map(|label| self.place(label))
    }

    fn place(&self, label: Label) -> usize {
        self.labels[label.0].expect("every label was set")
    }

    /// The instructions as bytes.
    ///
    /// # Panics
    ///
    /// If a label was not set, or is too far away.
    pub fn bytes(&self) -> Vec<u8> {
        let mut insns = self.insns.clone();
        for &(at, label, is_function) in &self.waiting {
            let by = self.place(label).cast_signed() - at.cast_signed() - 1;
            if is_function {
                insns[at].imm = i32::try_from(by).expect("a short program");
            } else {
                insns[at].off = i16::try_from(by).expect("a short jump");
            }
        }
        let mut bytes = Vec::with_capacity(insns.len() * 8);
        for insn in insns {
            bytes.extend([insn.code, insn.dst | insn.src << 4]);
            bytes.extend(insn.off.to_le_bytes());
            bytes.extend(insn.imm.to_le_bytes());
        }
        bytes
    }
}

/// An offset in an instruction.
///
/// # Panics
///
/// If it does not fit: programs here touch a few KiB.
pub fn off(at: usize) -> i16 {
    i16::try_from(at).expect("an offset of less than 32 KiB")
}

/// A length or offset as an immediate.
fn imm(at: usize) -> i32 {
    i32::try_from(at).expect("an offset of less than 2 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_go_where_the_label_is() {
        let mut asm = Asm::new();
        let end = asm.label();
        asm.mov(Reg::R0, -1)
            .jump(When::Equal, Reg::R0, 0, end)
            .mov(Reg::R0, 0);
        asm.here(end).exit();
        let bytes = asm.bytes();
        assert_eq!(bytes[..8], [0xb7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(bytes[8..16], [0x15, 0, 1, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[24], 0x95);
    }

    #[test]
    fn wide_numbers_take_two_instructions() {
        let mut asm = Asm::new();
        asm.mov64(Reg::R3, 0x1122_3344_5566_7788);
        let want = [
            0x18, 3, 0, 0, 0x88, 0x77, 0x66, 0x55, 0, 0, 0, 0, 0x44, 0x33, 0x22, 0x11,
        ];
        assert_eq!(asm.bytes(), want);
    }
}
