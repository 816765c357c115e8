//! What the verifier asks of a program before it follows it: opcodes, jumps, functions, what its numbers stand for.
//!
//! Kernel: `kernel/bpf/verifier.c:check_subprogs`, `resolve_pseudo_ldimm64`, `check_cfg` (v6.18).

use std::collections::BTreeSet;

use super::insn::{EXIT, Insn, LD_IMM64, class};
use super::log::Log;
use crate::abi::{Errno, Result};

/// Where the functions of a program begin, the first at 0.
///
/// # Errors
///
/// `EINVAL` for a call out of the program, `E2BIG` for too many.
///
/// Kernel: `add_subprog_and_kfunc`.
pub(super) fn functions(insns: &[Insn], log: &mut Log) -> Result<Vec<usize>> {
    /// `BPF_MAX_SUBPROGS`
    const MAX_FUNCTIONS: usize = 256;
    let mut starts = BTreeSet::from([0]);
    for (at, insn) in insns.iter().enumerate() {
        if insn.is_local_call() || insn.is_function() {
            let start = callee(at, *insn).filter(|&start| start < insns.len());
            starts.insert(start.ok_or_else(|| {
                let what = format_args!("call to invalid destination");
                log.refuse(Errno::EINVAL, what)
            })?);
            if starts.len() > MAX_FUNCTIONS {
                return Err(log.refuse(Errno::E2BIG, format_args!("too many subprograms")));
            }
        }
    }
    Ok(starts.into_iter().collect())
}

/// The function that a call or an address leads to.
fn callee(at: usize, insn: Insn) -> Option<usize> {
    at.checked_add_signed(isize::try_from(insn.imm).ok()? + 1)
}

/// Where a jump goes.
pub(super) fn target(at: usize, insn: Insn) -> Option<usize> {
    at.checked_add_signed(isize::try_from(insn.jump()).ok()? + 1)
}

/// Jumps stay in their function, and functions end with an exit or a jump.
///
/// # Errors
///
/// `EINVAL`.
///
/// Kernel: `check_subprogs`.
pub(super) fn check_functions(insns: &[Insn], starts: &[usize], log: &mut Log) -> Result<()> {
    let ends = starts.iter().skip(1).copied().chain([insns.len()]);
    for (start, end) in starts.iter().copied().zip(ends) {
        for (at, &insn) in insns.iter().enumerate().take(end).skip(start) {
            if insn.is_jump() && !target(at, insn).is_some_and(|to| (start..end).contains(&to)) {
                let to = i64::try_from(at).unwrap_or(i64::MAX) + insn.jump() + 1;
                let what = format_args!("jump out of range from insn {at} to {to}");
                return Err(log.refuse(Errno::EINVAL, what));
            }
        }
        let last = insns[end - 1];
        if last.code != EXIT && !last.is_goto() {
            let what = format_args!("last insn is not an exit or jmp");
            return Err(log.refuse(Errno::EINVAL, what));
        }
    }
    Ok(())
}

/// The form of the instruction at a place, whatever its numbers stand for.
///
/// # Errors
///
/// `EINVAL`.
///
/// Kernel: `resolve_pseudo_ldimm64`.
pub(super) fn check_form(insns: &[Insn], at: usize, log: &mut Log) -> Result<()> {
    /// `BPF_MEM`, `BPF_MEMSX`
    const MODES: [u8; 2] = [0x60, 0x80];
    let insn = insns[at];
    let refusal = if insn.code == LD_IMM64 {
        let second = insns.get(at + 1).filter(|second| {
            let Insn { code, dst, src, .. } = **second;
            (code, dst, src, second.off) == (0, 0, 0, 0)
        });
        second.is_none().then_some("invalid bpf_ld_imm64 insn")
    } else if insn.class() == class::LDX && (!MODES.contains(&(insn.code & 0xe0)) || insn.imm != 0)
    {
        Some("BPF_LDX uses reserved fields")
    } else if !insn.is_known() {
        let what = format_args!("unknown opcode {:02x}", insn.code);
        return Err(log.refuse(Errno::EINVAL, what));
    } else {
        None
    };
    match refusal {
        Some(what) => Err(log.refuse(Errno::EINVAL, format_args!("{what}"))),
        None => Ok(()),
    }
}

/// Every instruction can be reached, and no jump leads into the middle of one.
///
/// # Errors
///
/// `EINVAL`.
///
/// Kernel: `check_cfg`.
pub(super) fn check_reach(insns: &[Insn], log: &mut Log) -> Result<()> {
    let mut seen = vec![false; insns.len()];
    let mut to_do = vec![0];
    while let Some(at) = to_do.pop() {
        if std::mem::replace(&mut seen[at], true) {
            continue;
        }
        let insn = insns[at];
        if insn.is_local_call() || insn.is_function() {
            to_do.extend(callee(at, insn));
        }
        if insn.is_jump() {
            to_do.extend(target(at, insn));
        }
        if insn.code != EXIT && !insn.is_goto() {
            let places = if insn.code == LD_IMM64 { 2 } else { 1 };
            to_do.extend(Some(at + places).filter(|&next| next < insns.len()));
        }
    }
    let mut at = 0;
    while at < insns.len() {
        if !seen[at] {
            let what = format_args!("unreachable insn {at}");
            return Err(log.refuse(Errno::EINVAL, what));
        }
        if insns[at].code == LD_IMM64 {
            at += 1;
            if seen[at] {
                let what = format_args!("jump into the middle of ldimm64 insn {}", at - 1);
                return Err(log.refuse(Errno::EINVAL, what));
            }
        }
        at += 1;
    }
    Ok(())
}

/// Calls of functions, of the program or the kernel, and their addresses: not for everybody.
pub(super) fn has_calls(insns: &[Insn]) -> bool {
    insns
        .iter()
        .any(|insn| insn.is_local_call() || insn.is_kernel_call() || insn.is_function())
}
