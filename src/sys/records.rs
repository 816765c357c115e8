//! What the caller of `BPF_PROG_LOAD` tells of the program's functions and lines, in records that refer to its BTF.
//!
//! Kernel: `kernel/bpf/verifier.c:check_btf_func_early`, `check_btf_func`, `check_btf_line` (v6.18).

use super::insn::Insn;
use super::log::Log;
use crate::abi::{Errno, ProgLoadAttr, Result, UserMem};
use crate::btf::Btf;

/// Bytes of a record of the caller's at most.
const MOST: u32 = 252;

/// The beginning of a function: where, and its type.
type Function = [u8; 8];
/// The beginning of a line: where, then names and a number.
type Line = [u8; 16];

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Records {
    functions: Vec<Function>,
    lines: Vec<Line>,
}

/// The word at an index.
fn word(record: &[u8], index: usize) -> u32 {
    let at = 4 * index;
    u32::from_ne_bytes(record[at..at + 4].try_into().expect("4 bytes"))
}

/// One record of the caller's, which may be longer than the kernel's, with zeros.
///
/// # Errors
///
/// `E2BIG` for more than zeros; `EFAULT`.
fn read<const N: usize>(
    mem: &dyn UserMem,
    (addr, size): (u64, u32),
    index: u32,
    (name, log): (&str, &mut Log),
) -> Result<[u8; N]> {
    let mut bytes = vec![0; size as usize];
    let at = u64::from(index) * u64::from(size);
    mem.read(addr.wrapping_add(at), &mut bytes)?;
    let (record, rest) = bytes.split_first_chunk().expect("the size was checked");
    if rest.iter().any(|&byte| byte != 0) {
        let what = format_args!("nonzero tailing record in {name}");
        return Err(log.refuse(Errno::E2BIG, what));
    }
    Ok(*record)
}

fn fits(size: u32, least: usize) -> bool {
    size as usize >= least && size <= MOST && size.is_multiple_of(4)
}

impl Records {
    /// Reads what is told of functions, before it is known where those begin.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `E2BIG`, `EFAULT`.
    pub(super) fn of_functions(
        attr: &ProgLoadAttr,
        btf: &Btf,
        mem: &dyn UserMem,
        log: &mut Log,
    ) -> Result<Self> {
        let size = attr.func_info_rec_size;
        if attr.func_info_cnt != 0 && !fits(size, size_of::<Function>()) {
            let what = format_args!("invalid func info rec size {size}");
            return Err(log.refuse(Errno::EINVAL, what));
        }
        let mut records = Self::default();
        for index in 0..attr.func_info_cnt {
            let function: Function = read(mem, (attr.func_info, size), index, ("func info", log))?;
            let (offset, type_id) = (word(&function, 0), word(&function, 1));
            if index == 0 && offset != 0 {
                let what = format_args!("nonzero insn_off {offset} for the first func info record");
                return Err(log.refuse(Errno::EINVAL, what));
            }
            if !btf.is_function(type_id) {
                let what = format_args!("invalid type id {type_id} in func info");
                return Err(log.refuse(Errno::EINVAL, what));
            }
            records.functions.push(function);
        }
        Ok(records)
    }

    /// Holds what is told of functions against where they begin, and reads what is told of lines.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `E2BIG`, `EFAULT`.
    pub(super) fn check(
        &mut self,
        attr: &ProgLoadAttr,
        (insns, starts): (&[Insn], &[usize]),
        btf: &Btf,
        mem: &dyn UserMem,
        log: &mut Log,
    ) -> Result<()> {
        let at = |record: &[u8]| word(record, 0) as usize;
        if !self.functions.is_empty() {
            let begin: Vec<_> = self.functions.iter().map(|record| at(record)).collect();
            let what = if begin.len() != starts.len() {
                "number of funcs in func_info doesn't match number of subprogs"
            } else if begin != starts {
                "func_info BTF section doesn't match subprog layout in BPF program"
            } else {
                ""
            };
            if !what.is_empty() {
                return Err(log.refuse(Errno::EINVAL, format_args!("{what}")));
            }
        }
        if attr.line_info_cnt == 0 {
            return Ok(());
        }
        let size = attr.line_info_rec_size;
        if !fits(size, size_of::<Line>()) {
            return Err(Errno::EINVAL);
        }
        for index in 0..attr.line_info_cnt {
            let line: Line = read(mem, (attr.line_info, size), index, ("line_info", log))?;
            self.check_line(&line, insns, btf, log)?;
            self.lines.push(line);
        }
        let missing = starts.iter().position(|start| {
            self.lines
                .binary_search_by_key(start, |line| at(line))
                .is_err()
        });
        match missing {
            Some(function) => {
                let what = format_args!("missing bpf_line_info for func#{function}");
                Err(log.refuse(Errno::EINVAL, what))
            }
            None => Ok(()),
        }
    }

    /// A line begins after the one before it, at an instruction, and has names.
    fn check_line(&self, line: &Line, insns: &[Insn], btf: &Btf, log: &mut Log) -> Result<()> {
        let index = self.lines.len();
        let (offset, file, text) = (word(line, 0), word(line, 1), word(line, 2));
        let before = self.lines.last().map(|line| word(line, 0));
        let insn = insns.get(offset as usize);
        let Some(insn) = insn.filter(|_| before.is_none_or(|before| offset > before)) else {
            let (before, len) = (before.unwrap_or(0), insns.len());
            let what = format_args!(
                "Invalid line_info[{index}].insn_off:{offset} (prev_offset:{before} prog->len:{len})"
            );
            return Err(log.refuse(Errno::EINVAL, what));
        };
        if insn.code == 0 {
            let what = format_args!("Invalid insn code at line_info[{index}].insn_off");
            return Err(log.refuse(Errno::EINVAL, what));
        }
        if !btf.has_name(file) || !btf.has_name(text) {
            let what = format_args!("Invalid line_info[{index}].line_off or .file_name_off");
            return Err(log.refuse(Errno::EINVAL, what));
        }
        Ok(())
    }

    /// The kernel's records: of functions, and of lines.
    pub(super) fn into_bytes(self) -> (Vec<u8>, Vec<u8>) {
        (self.functions.concat(), self.lines.concat())
    }
}
