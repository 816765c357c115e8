//! What the caller of `BPF_PROG_LOAD` tells of the program's functions and lines, in records that refer to its BTF.
//!
//! Kernel: `kernel/bpf/verifier.c:check_btf_func_early`, `check_btf_func`, `check_btf_line` (v6.18).

use super::insn::{INSN_SIZE, Insn};
use super::log::Log;
use crate::abi::{Errno, ProgLoadAttr, Result, UserMem};
use crate::btf::Btf;

/// Bytes of a record of the caller's at most.
const MOST: u32 = 252;

/// The beginning of a function: where, and its type.
type Function = [u8; 8];
/// The beginning of a line: where, then names and a number.
type Line = [u8; 16];

/// A relocation: of which instruction, a type, a name and a kind.
type Relocation = [u8; 16];

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

/// Where the caller has its records of one kind.
struct Told {
    name: &'static str,
    addr: u64,
    /// Bytes of one.
    size: u32,
    /// The address of that in the attr.
    size_at: u64,
}

/// One record of the caller's, which may be longer than the kernel's, with zeros.
///
/// # Errors
///
/// `E2BIG` for more than zeros, and the caller learns the size that fits; `EFAULT`.
fn read<const N: usize>(
    mem: &mut dyn UserMem,
    of: &Told,
    index: u32,
    log: &mut Log,
) -> Result<[u8; N]> {
    let size = of.size;
    let mut bytes = vec![0; size as usize];
    let at = u64::from(index) * u64::from(size);
    mem.read(of.addr.wrapping_add(at), &mut bytes)?;
    let (record, rest) = bytes.split_first_chunk().expect("the size was checked");
    if rest.iter().any(|&byte| byte != 0) {
        let own = u32::try_from(N).expect("records are small");
        mem.write(of.size_at, &own.to_ne_bytes())?;
        let what = format_args!("nonzero tailing record in {}", of.name);
        return Err(log.refuse(Errno::E2BIG, what));
    }
    Ok(*record)
}

/// So many records of the kernel's are there at most.
const fn most<T>() -> usize {
    i32::MAX.cast_unsigned() as usize / size_of::<T>()
}

fn fits(size: u32, least: usize) -> bool {
    size as usize >= least && size <= MOST && size.is_multiple_of(4)
}

impl Records {
    /// Reads what is told of functions, before it is known where those begin.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `E2BIG`, `EFAULT`, `ENOMEM`.
    pub(super) fn of_functions(
        (attr, attr_addr): (&ProgLoadAttr, u64),
        btf: &Btf,
        mem: &mut dyn UserMem,
        log: &mut Log,
    ) -> Result<Self> {
        const SIZE_AT: u64 = 76;
        let size = attr.func_info_rec_size;
        if attr.func_info_cnt != 0 && !fits(size, size_of::<Function>()) {
            let what = format_args!("invalid func info rec size {size}");
            return Err(log.refuse(Errno::EINVAL, what));
        }
        // As many as the kernel allocates no room for.
        if attr.func_info_cnt as usize > most::<Function>() {
            return Err(Errno::ENOMEM);
        }
        let told = Told {
            name: "func info",
            addr: attr.func_info,
            size,
            size_at: attr_addr.wrapping_add(SIZE_AT),
        };
        let mut records = Self::default();
        for index in 0..attr.func_info_cnt {
            let function: Function = read(mem, &told, index, log)?;
            let (offset, type_id) = (word(&function, 0), word(&function, 1));
            let before = records.functions.last().map(|before| word(before, 0));
            if let Some(before) = before
                && offset <= before
            {
                let what = format_args!(
                    "same or smaller insn offset ({offset}) than previous func info record ({before})"
                );
                return Err(log.refuse(Errno::EINVAL, what));
            }
            if before.is_none() && offset != 0 {
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
        (attr, attr_addr): (&ProgLoadAttr, u64),
        (insns, starts): (&[Insn], &[usize]),
        btf: &Btf,
        mem: &mut dyn UserMem,
        log: &mut Log,
    ) -> Result<()> {
        const SIZE_AT: u64 = 92;
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
        if attr.line_info_cnt as usize > most::<Line>() || !fits(size, size_of::<Line>()) {
            return Err(Errno::EINVAL);
        }
        let told = Told {
            name: "line_info",
            addr: attr.line_info,
            size,
            size_at: attr_addr.wrapping_add(SIZE_AT),
        };
        for index in 0..attr.line_info_cnt {
            let line: Line = read(mem, &told, index, log)?;
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

/// Whether the kernel is to relocate instructions of a program of `len`. What it does then is not looked at, nor are the
/// relocations after the first.
///
/// # Errors
///
/// `EINVAL`, `E2BIG`, `EFAULT`.
///
/// Kernel: `check_core_relo`.
pub(super) fn are_relocations(
    (attr, attr_addr): (&ProgLoadAttr, u64),
    len: usize,
    mem: &mut dyn UserMem,
    log: &mut Log,
) -> Result<bool> {
    const SIZE_AT: u64 = 136;
    if attr.core_relo_cnt == 0 {
        return Ok(false);
    }
    let size = attr.core_relo_rec_size;
    if attr.core_relo_cnt as usize > most::<Relocation>() || !fits(size, size_of::<Relocation>()) {
        return Err(Errno::EINVAL);
    }
    let told = Told {
        name: "core_relo",
        addr: attr.core_relos,
        size,
        size_at: attr_addr.wrapping_add(SIZE_AT),
    };
    let relocation: Relocation = read(mem, &told, 0, log)?;
    let offset = word(&relocation, 0);
    if !(offset as usize).is_multiple_of(INSN_SIZE) || offset as usize / INSN_SIZE >= len {
        let what = format_args!("Invalid core_relo[0].insn_off:{offset} prog->len:{len}");
        return Err(log.refuse(Errno::EINVAL, what));
    }
    Ok(true)
}
