//! Where members of the kernel's own structs are, from its BTF.
//!
//! Source: `include/uapi/linux/btf.h`.

use std::fs;

use crate::abi::{Errno, Result};

/// Kinds of types: struct, union.
const COMPOSITE: [u32; 2] = [4, 5];

/// The offset of a member of a struct, in bytes.
///
/// # Errors
///
/// `ENOENT` if the kernel has no BTF, or that has no such member.
pub fn offset_of(of: &str, member: &str) -> Result<usize> {
    let raw = fs::read("/sys/kernel/btf/vmlinux").map_err(|_| Errno::ENOENT)?;
    find(&raw, of, member).ok_or(Errno::ENOENT)
}

fn word(raw: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*raw.get(at..)?.first_chunk()?))
}

/// The name at an offset in the names is this one.
fn is_named(names: &[u8], at: u32, name: &str) -> bool {
    let rest = names.get(at as usize..).unwrap_or_default();
    rest.strip_prefix(name.as_bytes())
        .is_some_and(|rest| rest.first() == Some(&0))
}

/// Bytes of what follows a type of that kind.
fn length_behind(kind: u32, count: usize) -> usize {
    match kind {
        1 | 14 | 17 => 4,
        3 => 12,
        4 | 5 | 15 | 19 => 12 * count,
        6 | 13 => 8 * count,
        _ => 0,
    }
}

fn find(raw: &[u8], of: &str, member: &str) -> Option<usize> {
    let header = word(raw, 4)? as usize;
    let (types, types_len) = (word(raw, 8)? as usize, word(raw, 12)? as usize);
    let names = raw.get(header + word(raw, 16)? as usize..)?;
    let (mut at, end) = (header + types, header + types + types_len);
    while at < end {
        let info = word(raw, at + 4)?;
        let (kind, count, bitfields) = (info >> 24 & 31, (info & 0xffff) as usize, info >> 31 == 1);
        let behind = at + 12;
        if COMPOSITE.contains(&kind) && is_named(names, word(raw, at)?, of) {
            for place in (0..count).map(|number| behind + 12 * number) {
                if is_named(names, word(raw, place)?, member) {
                    let bits = word(raw, place + 8)?;
                    return Some((if bitfields { bits & 0xff_ffff } else { bits }) as usize / 8);
                }
            }
        }
        at = behind + length_behind(kind, count);
    }
    None
}
