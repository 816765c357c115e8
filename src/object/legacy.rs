//! `SEC("maps")`: each symbol is a `struct bpf_map_def`.
//!
//! libbpf up to 0.8: `bpf_object__init_user_maps`; aya: `parse_map_def`, which knows two more fields.

use ::object::elf::{STT_FILE, STT_SECTION};

use super::elf::{Elf, Section, Symbol};
use super::types::Types;
use super::{BpfMapDef, MapDecl, MapKind, ObjectError};
use crate::abi::{MapFlags, MapType};
use crate::btf::raw::Kind;

/// Type, sizes of key and value, number, flags; then the loader's own: a number that only tc(8) uses, and pinning.
const N_WORDS: usize = 7;

/// All maps of the sections, in the symbol table's order.
pub(super) fn maps(elf: &Elf<'_>, types: Option<&Types>) -> Result<Vec<MapDecl>, ObjectError> {
    let mut maps = Vec::new();
    for section in &elf.sections {
        let is_maps = section.name == "maps" || section.name.starts_with("maps/");
        if is_maps && section.size > 0 {
            maps.extend(maps_of(elf, section, types)?);
        }
    }
    Ok(maps)
}

fn maps_of(
    elf: &Elf<'_>,
    section: &Section<'_>,
    types: Option<&Types>,
) -> Result<Vec<MapDecl>, ObjectError> {
    let symbols: Vec<&Symbol<'_>> = elf
        .symbols
        .iter()
        .filter(|symbol| symbol.section == Some(section.index))
        .filter(|symbol| !matches!(symbol.kind, STT_SECTION | STT_FILE) && !symbol.name.is_empty())
        .collect();
    if symbols.is_empty() {
        return Err(ObjectError::section(
            &section.name,
            "no symbol names a map in it",
        ));
    }
    // Where a symbol does not say: all are of one size.
    let size_of_each = section.data.len() / symbols.len();
    symbols
        .into_iter()
        .map(|symbol| map(section, symbol, size_of_each, types))
        .collect()
}

fn map(
    section: &Section<'_>,
    symbol: &Symbol<'_>,
    size_of_each: usize,
    types: Option<&Types>,
) -> Result<MapDecl, ObjectError> {
    let error = |reason: &str| ObjectError::symbol(&section.name, &symbol.name, reason);
    let start = usize::try_from(symbol.value).ok();
    let size = match usize::try_from(symbol.size) {
        Ok(0) => Some(size_of_each),
        size => size.ok(),
    };
    let def = start
        .zip(size)
        .and_then(|(start, size)| section.data.get(start..start.checked_add(size)?))
        .ok_or_else(|| error("it does not lie in the section"))?;
    // A shorter struct is one whose last fields are 0.
    let mut words = [0; N_WORDS];
    let (known, unknown) = def.split_at(def.len().min(N_WORDS * 4));
    for (word, bytes) in words.iter_mut().zip(known.chunks(4)) {
        let mut whole = [0; 4];
        whole[..bytes.len()].copy_from_slice(bytes);
        *word = u32::from_le_bytes(whole);
    }
    if unknown.iter().any(|&byte| byte != 0) {
        return Err(error(
            "its struct has fields that are not known, and they are not 0",
        ));
    }
    let [
        map_type,
        key_size,
        value_size,
        max_entries,
        map_flags,
        _,
        pinning,
    ] = words;
    let (btf_key_type_id, btf_value_type_id) = types
        .and_then(|types| key_and_value(types, &symbol.name, key_size, value_size))
        .unwrap_or_default();
    let def = BpfMapDef {
        map_type: MapType(map_type),
        key_size,
        value_size,
        max_entries,
        map_flags: MapFlags::from_bits_retain(map_flags),
        btf_key_type_id,
        btf_value_type_id,
        ..BpfMapDef::default()
    };
    let mut decl = MapDecl::new(&symbol.name, &section.name, MapKind::Legacy, def);
    decl.pin_by_name = match pinning {
        0 => false,
        1 => true,
        _ => return Err(error("its kind of pinning is not known")),
    };
    Ok(decl)
}

/// The types of key and value, where `BPF_ANNOTATE_KV_PAIR` tells them.
///
/// libbpf up to 0.8: `btf__get_map_kv_tids`.
fn key_and_value(types: &Types, name: &str, key_size: u32, value_size: u32) -> Option<(u32, u32)> {
    let (_, pair) = types.by_name_and_kind(&format!("____btf_map_{name}"), Kind::STRUCT)?;
    let ids: Vec<u32> = types.members(pair).map(|member| member.type_id).collect();
    let &[key, value] = ids.as_slice() else {
        return None;
    };
    let fits = types.size(key) == Some(key_size) && types.size(value) == Some(value_size);
    fits.then_some((key, value))
}
