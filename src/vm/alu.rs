//! Arithmetic and comparisons.

use super::insn::Insn;
use super::memory::Val;
use super::{Fault, fault};

/// The low half.
pub(super) const fn low(number: u64) -> u64 {
    number & 0xffff_ffff
}

fn half(number: u64) -> u32 {
    u32::try_from(low(number)).unwrap_or(0)
}

/// What an ALU operation leaves in its register.
pub(super) fn alu(insn: Insn, dst: Val, src: Val, wide: bool) -> Result<Val, Fault> {
    const ADD: u8 = 0x00;
    const SUB: u8 = 0x10;
    const MOV: u8 = 0xb0;
    let op = insn.op();
    if let (true, MOV, 0) = (wide, op, insn.off) {
        return Ok(src);
    }
    match (op, dst, src) {
        (ADD, Val::Pointer(place, at), Val::Number(by))
        | (ADD, Val::Number(by), Val::Pointer(place, at))
            if wide =>
        {
            Ok(Val::Pointer(place, at.wrapping_add(by.cast_signed())))
        }
        (SUB, Val::Pointer(place, at), Val::Number(by)) if wide => {
            Ok(Val::Pointer(place, at.wrapping_sub(by.cast_signed())))
        }
        (SUB, Val::Pointer(one, a), Val::Pointer(other, b)) if wide && one == other => {
            Ok(Val::Number(a.wrapping_sub(b).cast_unsigned()))
        }
        (_, Val::Number(a), Val::Number(b)) => numbers(insn, a, b, wide).map(Val::Number),
        // What was in it does not matter.
        (MOV, _, Val::Number(b)) => numbers(insn, 0, b, wide).map(Val::Number),
        _ => Err(fault(format_args!(
            "arithmetic with a pointer: opcode {:#x}",
            insn.code
        ))),
    }
}

fn numbers(insn: Insn, a: u64, b: u64, wide: bool) -> Result<u64, Fault> {
    let signed = insn.off == 1;
    let bits = if wide { 64 } else { 32 };
    let (a, b) = if wide { (a, b) } else { (low(a), low(b)) };
    let extended = |number: u64| match (wide, insn.off) {
        (_, 8) => sign_extended(number, 8),
        (_, 16) => sign_extended(number, 16),
        (_, 32) => sign_extended(number, 32),
        _ => number,
    };
    let of = |number: u64| {
        if wide {
            number.cast_signed()
        } else {
            i64::from(half(number).cast_signed())
        }
    };
    let shift = u32::try_from(b % bits).unwrap_or(0);
    let result = match insn.op() {
        0x00 => a.wrapping_add(b),
        0x10 => a.wrapping_sub(b),
        0x20 => a.wrapping_mul(b),
        0x30 if signed => match of(b) {
            0 => 0,
            divisor => of(a).wrapping_div(divisor).cast_unsigned(),
        },
        0x30 => a.checked_div(b).unwrap_or(0),
        0x40 => a | b,
        0x50 => a & b,
        0x60 => a << shift,
        0x70 => a >> shift,
        0x80 => a.wrapping_neg(),
        0x90 if signed => match of(b) {
            0 => a,
            divisor => of(a).wrapping_rem(divisor).cast_unsigned(),
        },
        0x90 => a.checked_rem(b).unwrap_or(a),
        0xa0 => a ^ b,
        0xb0 => extended(b),
        0xc0 => (of(a) >> shift).cast_unsigned(),
        0xd0 => return swapped(insn, a),
        op => return Err(fault(format_args!("unknown operation {op:#x}"))),
    };
    Ok(if wide { result } else { low(result) })
}

fn sign_extended(number: u64, bits: u32) -> u64 {
    let unused = 64 - bits;
    ((number << unused).cast_signed() >> unused).cast_unsigned()
}

/// Byte swaps: to big-endian, to little-endian (nothing to be done), or in any case.
fn swapped(insn: Insn, number: u64) -> Result<u64, Fault> {
    let big = insn.by_register() || insn.class() == super::insn::class::ALU64;
    let swap = if cfg!(target_endian = "little") {
        big
    } else {
        !big
    };
    let bits = u32::try_from(insn.imm).unwrap_or(0);
    if ![16, 32, 64].contains(&bits) {
        return Err(fault("a swap of so many bits"));
    }
    let low = if bits == 64 {
        number
    } else {
        number & ((1 << bits) - 1)
    };
    Ok(if swap {
        low.swap_bytes() >> (64 - bits)
    } else {
        low
    })
}

/// Whether a conditional jump is taken.
pub(super) fn jumps(insn: Insn, a: Val, b: Val, wide: bool) -> Result<bool, Fault> {
    let (a, b) = match (a, b) {
        (Val::Number(a), Val::Number(b)) if wide => (a, b),
        (Val::Number(a), Val::Number(b)) => (low(a), low(b)),
        // Places in one thing are in order.
        (Val::Pointer(one, a), Val::Pointer(other, b)) if one == other => {
            const MIDDLE: u64 = 1 << 62;
            let place = |at: i64| MIDDLE.wrapping_add(at.cast_unsigned());
            (place(a), place(b))
        }
        // None is at null.
        (Val::Pointer(..), Val::Number(0)) => (1, 0),
        (Val::Number(0), Val::Pointer(..)) => (0, 1),
        _ => return Err(fault("a comparison with a pointer")),
    };
    let of = |number: u64| {
        if wide {
            number.cast_signed()
        } else {
            i64::from(half(number).cast_signed())
        }
    };
    Ok(match insn.op() {
        0x10 => a == b,
        0x20 => a > b,
        0x30 => a >= b,
        0x40 => a & b != 0,
        0x50 => a != b,
        0x60 => of(a) > of(b),
        0x70 => of(a) >= of(b),
        0xa0 => a < b,
        0xb0 => a <= b,
        0xc0 => of(a) < of(b),
        0xd0 => of(a) <= of(b),
        op => return Err(fault(format_args!("unknown jump {op:#x}"))),
    })
}
