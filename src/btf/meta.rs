//! Judges each type of a blob by itself, in order.
//!
//! Kernel: `kernel/bpf/btf.c:btf_check_all_metas`, and the `check_meta` of each kind.

use super::Btf;
use super::raw::{self, Kind, Type};
use crate::abi::{Errno, Result};

/// A name has at most so many bytes.
const NAME_LEN: usize = 512;

/// Judges all types in those bytes, and notes where they are.
pub(super) fn check_all(btf: &mut Btf, (start, end): (usize, usize)) -> Result<()> {
    let mut at = start;
    while at < end {
        let size = check(btf, at, end)?;
        // The kernel judges what is past the limit, and then forgets it.
        if btf.types.len() < raw::MAX_TYPE as usize {
            btf.types.push(at);
        }
        at += size;
    }
    Ok(())
}

/// Judges the type at `at`; its size.
fn check(btf: &Btf, at: usize, end: usize) -> Result<usize> {
    if end - at < raw::TYPE_SIZE {
        return Err(Errno::EINVAL);
    }
    let t = Type {
        name_off: raw::word(&btf.data, at),
        info: raw::word(&btf.data, at + 4),
        size_or_type: raw::word(&btf.data, at + 8),
        extra: at + raw::TYPE_SIZE,
    };
    let kind = t.kind();
    let size = raw::TYPE_SIZE + kind.extra_size(t.vlen());
    require(t.info & !Type::INFO_MASK == 0)?;
    require(kind != Kind::VOID && kind.0 < btf.release.btf_kinds)?;
    require(is_name(btf, t.name_off))?;
    // Of a type that is not whole nothing more is read: the answer would be the same.
    require(size <= end - at)?;
    match kind {
        Kind::INT => check_int(btf, t),
        Kind::ARRAY => check_array(btf, t),
        Kind::STRUCT | Kind::UNION => check_struct(btf, t),
        Kind::ENUM | Kind::ENUM64 => check_enum(btf, t),
        Kind::FWD => {
            require(t.vlen() == 0 && t.size_or_type == 0 && has_identifier(btf, t.name_off))
        }
        Kind::FUNC => require(t.vlen() <= 1 && !t.kflag() && has_identifier(btf, t.name_off)),
        Kind::FUNC_PROTO => require(t.name_off == 0 && !t.kflag()),
        Kind::VAR => check_var(btf, t),
        Kind::DATASEC => check_datasec(btf, t),
        Kind::FLOAT => {
            require(t.vlen() == 0 && !t.kflag() && matches!(t.size_or_type, 2 | 4 | 8 | 12 | 16))
        }
        Kind::DECL_TAG => check_decl_tag(btf, t),
        _ => check_reference(btf, t),
    }?;
    Ok(size)
}

fn require(holds: bool) -> Result<()> {
    if holds { Ok(()) } else { Err(Errno::EINVAL) }
}

fn check_int(btf: &Btf, t: Type) -> Result<()> {
    let data = btf.int_data(t);
    require(t.vlen() == 0 && !t.kflag() && data.0 >> 28 == 0)?;
    let bits = data.bits() + data.offset();
    require(bits <= 128 && bits.div_ceil(8) <= t.size_or_type)?;
    if data.encoding().count_ones() > 1 || data.encoding() > 4 {
        return Err(Errno::ENOTSUPP);
    }
    Ok(())
}

fn check_reference(btf: &Btf, t: Type) -> Result<()> {
    let is_tag = t.kind() == Kind::TYPE_TAG;
    require(t.vlen() == 0 && (!t.kflag() || is_tag) && is_type_id(t.size_or_type))?;
    match t.kind() {
        Kind::TYPEDEF => require(has_identifier(btf, t.name_off)),
        Kind::TYPE_TAG => require(!btf.name(t.name_off).is_empty()),
        _ => require(t.name_off == 0),
    }
}

fn check_array(btf: &Btf, t: Type) -> Result<()> {
    let is_element = |id: u32| id != 0 && is_type_id(id);
    require(t.name_off == 0 && t.vlen() == 0 && !t.kflag() && t.size_or_type == 0)?;
    require(is_element(btf.array(t).0) && is_element(btf.array_index_type(t)))
}

fn check_struct(btf: &Btf, t: Type) -> Result<()> {
    require(t.name_off == 0 || has_identifier(btf, t.name_off))?;
    let mut last_offset = 0;
    for index in 0..t.vlen() {
        let member = btf.member(t, index);
        require(is_name(btf, member.name_off))?;
        require(member.name_off == 0 || has_identifier(btf, member.name_off))?;
        require(member.type_id != 0 && is_type_id(member.type_id))?;
        let offset = member.bit_offset(t);
        require(t.kind() == Kind::STRUCT || offset == 0)?;
        require(last_offset <= offset && offset.div_ceil(8) <= t.size_or_type)?;
        last_offset = offset;
    }
    Ok(())
}

fn check_enum(btf: &Btf, t: Type) -> Result<()> {
    require(t.size_or_type <= 8 && t.size_or_type.is_power_of_two())?;
    require(t.name_off == 0 || has_identifier(btf, t.name_off))?;
    let stride = if t.kind() == Kind::ENUM { 8 } else { 12 };
    for index in 0..t.vlen() {
        let name_off = raw::word(&btf.data, t.extra + stride * index);
        require(is_name(btf, name_off) && has_identifier(btf, name_off))?;
    }
    Ok(())
}

fn check_var(btf: &Btf, t: Type) -> Result<()> {
    require(t.vlen() == 0 && !t.kflag() && has_identifier(btf, t.name_off))?;
    require(t.size_or_type != 0 && is_type_id(t.size_or_type))?;
    // Static or global.
    require(raw::word(&btf.data, t.extra) <= 1)
}

fn check_datasec(btf: &Btf, t: Type) -> Result<()> {
    let size = u64::from(t.size_or_type);
    require(size != 0 && !t.kflag() && has_section_name(btf, t.name_off))?;
    let mut end = 0;
    let mut sum = 0;
    for index in 0..t.vlen() {
        let var = btf.sec_info(t, index);
        let (offset, len) = (u64::from(var.offset), u64::from(var.size));
        require(var.type_id != 0 && is_type_id(var.type_id))?;
        require(end <= offset && offset < size && len != 0 && len <= size)?;
        end = offset + len;
        sum += len;
        require(end <= size)?;
    }
    require(sum <= size)
}

fn check_decl_tag(btf: &Btf, t: Type) -> Result<()> {
    require(!btf.name(t.name_off).is_empty() && t.vlen() == 0)?;
    let member = raw::word(&btf.data, t.extra);
    // -1 is the declaration as a whole.
    require(member == u32::MAX || member >> 31 == 0)
}

fn is_type_id(id: u32) -> bool {
    id <= raw::MAX_TYPE
}

fn is_name(btf: &Btf, offset: u32) -> bool {
    (offset as usize) < btf.strings.1 - btf.strings.0
}

/// There is a name, and it could be an identifier.
pub(super) fn has_identifier(btf: &Btf, offset: u32) -> bool {
    // The kernel's letters are those of Latin-1.
    let is_letter = |c: u8| c.is_ascii_alphabetic() || (c >= 0xc0 && c != 0xd7 && c != 0xf7);
    let is_first = |c: u8| is_letter(c) || matches!(c, b'_' | b'.');
    let name = btf.name(offset);
    offset != 0
        && name.len() <= NAME_LEN
        && name.first().is_some_and(|&c| is_first(c))
        && name.iter().all(|&c| is_first(c) || c.is_ascii_digit())
}

/// There is a name, of letters that can be printed.
fn has_section_name(btf: &Btf, offset: u32) -> bool {
    let is_printed = |c: u8| matches!(c, 0x20..=0x7e | 0xa0..);
    let name = btf.name(offset);
    offset != 0 && !name.is_empty() && name.len() <= NAME_LEN && name.iter().all(|&c| is_printed(c))
}
