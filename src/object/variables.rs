//! Sections of variables: each is an array of one element.
//!
//! libbpf: `bpf_object__init_internal_map`.

use ::object::elf::{SHT_NOBITS, SHT_PROGBITS};

use super::elf::{Elf, Section};
use super::types::{STATIC, Types};
use super::{BpfMapDef, MapDecl, MapKind, ObjectError};
use crate::abi::{MapFlags, MapType, OBJ_NAME_LEN};
use crate::btf::raw::Kind;

/// Bytes that are kept for the section in a map's name, even if it is shorter.
const LEAST_SUFFIX: usize = 7;

/// The maps, in the order of the sections.
pub(super) fn maps(
    elf: &Elf<'_>,
    types: Option<&Types>,
    object: &str,
) -> Result<Vec<MapDecl>, ObjectError> {
    elf.sections
        .iter()
        .filter_map(|section| Some((section, kind(section)?)))
        .map(|(section, kind)| map(section, kind, types, object))
        .collect()
}

fn kind(section: &Section<'_>) -> Option<MapKind> {
    let is_or_under = |name: &str| {
        section
            .name
            .strip_prefix(name)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    if section.size == 0 {
        None
    } else if section.kind == SHT_PROGBITS && !section.is_code && is_or_under(".data") {
        Some(MapKind::Data)
    } else if section.kind == SHT_PROGBITS && !section.is_code && is_or_under(".rodata") {
        Some(MapKind::Rodata)
    } else if section.kind == SHT_NOBITS && is_or_under(".bss") {
        Some(MapKind::Bss)
    } else {
        None
    }
}

fn map(
    section: &Section<'_>,
    kind: MapKind,
    types: Option<&Types>,
    object: &str,
) -> Result<MapDecl, ObjectError> {
    let value_size = u32::try_from(section.size)
        .map_err(|_| ObjectError::section(&section.name, "larger than 4 GiB"))?;
    let found = types.and_then(|types| Some((types, types.by_name(&section.name)?)));
    let mut map_flags = MapFlags::empty();
    map_flags.set(MapFlags::RDONLY_PROG, kind == MapKind::Rodata);
    // Only variables that others see are for mapping.
    let is_seen = found.is_some_and(|(types, (_, t))| {
        t.kind() == Kind::DATASEC
            && types.variables(t).iter().any(|info| {
                types
                    .get(info.type_id)
                    .is_some_and(|t| t.kind() == Kind::VAR && types.first_word(t) != STATIC)
            })
    });
    map_flags.set(MapFlags::MMAPABLE, is_seen);
    let def = BpfMapDef {
        map_type: MapType::ARRAY,
        key_size: 4,
        value_size,
        max_entries: 1,
        map_flags,
        btf_value_type_id: found.map_or(0, |(_, (id, _))| id),
        ..BpfMapDef::default()
    };
    // Of a section with a name of its own the kernel gets the beginning, but here the map has the whole.
    let is_own = kind != MapKind::Bss && !matches!(&*section.name, ".data" | ".rodata");
    let name = if is_own {
        section.name.clone().into_owned()
    } else {
        map_name(object, &section.name)
    };
    let mut decl = MapDecl::new(&name, &section.name, kind, def);
    decl.contents = section.data.to_vec();
    Ok(decl)
}

/// The name of a section's map: up to 8 bytes of the object's name before it, if there is room.
///
/// libbpf: `internal_map_name`.
fn map_name(object: &str, section: &str) -> String {
    let most = OBJ_NAME_LEN - 1;
    let suffix = section.len().clamp(LEAST_SUFFIX, most);
    // A section with a name of its own keeps it.
    let has_own_name = section.bytes().skip(1).any(|byte| byte == b'.');
    let prefix = if has_own_name { 0 } else { most - suffix };
    let bytes = object.bytes().take(prefix);
    allowed(bytes.chain(section.bytes().take(suffix)))
}

/// A name with only what the kernel allows in one.
pub(super) fn allowed(bytes: impl Iterator<Item = u8>) -> String {
    let allowed = |byte: u8| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.') {
            char::from(byte)
        } else {
            '_'
        }
    };
    bytes.map(allowed).collect()
}

#[cfg(test)]
mod tests {
    use super::map_name;

    #[test]
    fn names_are_cut_as_libbpf_cuts_them() {
        for (object, section, name) in [
            ("my_object_name", ".rodata", "my_objec.rodata"),
            ("my_object_name", ".bss", "my_objec.bss"),
            ("my_object_name", ".data", "my_objec.data"),
            ("my_object_name", ".data.custom", ".data.custom"),
            ("my_object_name", ".rodata.abracadabra", ".rodata.abracad"),
            ("a-b", ".bss", "a_b.bss"),
            ("", ".bss", ".bss"),
        ] {
            assert_eq!(map_name(object, section), name);
        }
    }
}
