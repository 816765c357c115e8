//! `SEC(".maps")`: each variable's type, a struct, says what the map is like.
//!
//! libbpf: `bpf_object__init_user_btf_map`, `parse_btf_map_def`, `bpf_object__collect_map_relos`.

use ::object::elf::SHT_REL;

use super::elf::{Elf, Section};
use super::types::{GLOBAL, Types};
use super::{BpfMapDef, MapDecl, MapKind, ObjectError};
use crate::abi::{MapFlags, MapType};
use crate::btf::raw::{Kind, Member, SecInfo, Type};

/// The section's name.
pub(super) const SECTION: &str = ".maps";
/// The member that holds inner maps.
const VALUES: &str = "values";
/// Bytes of a pointer in BPF.
const POINTER_SIZE: u64 = 8;
/// Bytes of a page, of which the size of a ring is a multiple.
const PAGE_SIZE: u32 = 4096;

/// A variable of the section, and the struct that is its type.
struct Var {
    info: SecInfo,
    def: Type,
}

/// What members say.
#[derive(Default)]
struct Members {
    def: BpfMapDef,
    pin_by_name: bool,
    inner: Option<BpfMapDef>,
}

/// The maps, in the order of their places in the section.
pub(super) fn maps(
    elf: &Elf<'_>,
    section: &Section<'_>,
    types: &Types,
) -> Result<Vec<MapDecl>, ObjectError> {
    let (_, datasec) = types
        .by_name_and_kind(SECTION, Kind::DATASEC)
        .ok_or_else(|| ObjectError::section(SECTION, "no BTF describes it"))?;
    let mut vars = Vec::new();
    let mut maps = Vec::new();
    for info in types.variables(datasec) {
        let (var, decl) = map(types, info, section)?;
        vars.push(var);
        maps.push(decl);
    }
    let is_arena = |decl: &&MapDecl| decl.def.map_type == MapType::ARENA;
    if let Some(second) = maps.iter().filter(is_arena).nth(1) {
        return Err(ObjectError::symbol(SECTION, &second.name, "a second arena"));
    }
    for relocations in &elf.sections {
        if relocations.kind == SHT_REL && relocations.info as usize == section.index {
            fill_slots(elf, section, relocations, types, &vars, &mut maps)?;
        }
    }
    Ok(maps)
}

fn map(types: &Types, info: SecInfo, section: &Section<'_>) -> Result<(Var, MapDecl), ObjectError> {
    let var = types
        .get(info.type_id)
        .filter(|t| t.kind() == Kind::VAR)
        .ok_or_else(|| ObjectError::section(SECTION, "its BTF lists what is no variable"))?;
    let name = types.name(var.name_off).into_owned();
    let error = |reason: String| ObjectError::symbol(SECTION, &name, reason);
    if name.is_empty() {
        return Err(ObjectError::section(SECTION, "a map has no name"));
    }
    if u64::from(info.offset) + u64::from(info.size) > section.data.len() as u64 {
        return Err(error("it does not lie in the section".into()));
    }
    if types.first_word(var) != GLOBAL {
        return Err(error(
            "a map has to be a global variable, not static or hidden".into(),
        ));
    }
    let def = types
        .plain(var.size_or_type)
        .filter(|t| t.kind() == Kind::STRUCT)
        .ok_or_else(|| error("its type is no struct".into()))?;
    if def.size_or_type > info.size {
        return Err(error("its type is larger than it is".into()));
    }
    let members = members(types, def, false).map_err(error)?;
    let mut decl = MapDecl::new(&name, SECTION, MapKind::Btf, members.def);
    decl.pin_by_name = members.pin_by_name;
    decl.inner = members.inner;
    Ok((Var { info, def }, decl))
}

/// Reads the members of a definition.
fn members(types: &Types, def: Type, is_inner: bool) -> Result<Members, String> {
    let mut found = Members::default();
    for (index, member) in types.members(def).enumerate() {
        let name = types.name(member.name_off);
        let of_member = |reason: &str| format!("member `{name}`: {reason}");
        let number = || number(types, member).map_err(of_member);
        let def_of = &mut found.def;
        match &*name {
            "type" => def_of.map_type = MapType(number()?),
            "max_entries" => def_of.max_entries = number()?,
            "map_flags" => def_of.map_flags = MapFlags::from_bits_retain(number()?),
            "numa_node" => def_of.numa_node = number()?,
            "map_extra" => def_of.map_extra = long_number(types, member).map_err(of_member)?,
            "key_size" => set_size(&mut def_of.key_size, number()?).map_err(of_member)?,
            "value_size" => set_size(&mut def_of.value_size, number()?).map_err(of_member)?,
            "key" => {
                let (id, size) = pointed_at(types, member).map_err(of_member)?;
                set_size(&mut def_of.key_size, size).map_err(of_member)?;
                def_of.btf_key_type_id = id;
            }
            "value" => {
                let (id, size) = pointed_at(types, member).map_err(of_member)?;
                set_size(&mut def_of.value_size, size).map_err(of_member)?;
                def_of.btf_value_type_id = id;
            }
            VALUES | "pinning" if is_inner => return Err(of_member("not in an inner map")),
            VALUES if index + 1 != def.vlen() => return Err(of_member("it has to be the last")),
            VALUES => found
                .read_values(types, member)
                .map_err(|e| of_member(&e))?,
            "pinning" => match number()? {
                pinning @ 0..=1 => found.pin_by_name = pinning == 1,
                _ => return Err(of_member("its kind of pinning is not known")),
            },
            _ => return Err(of_member("no such member of a map's definition")),
        }
    }
    if found.def.map_type == MapType::UNSPEC {
        return Err("it has no type".into());
    }
    if matches!(found.def.map_type, MapType::RINGBUF | MapType::USER_RINGBUF) {
        found.def.max_entries = ring_size(found.def.max_entries);
    }
    Ok(found)
}

impl Members {
    /// The maps that this one holds, or the programs.
    fn read_values(&mut self, types: &Types, member: Member) -> Result<(), String> {
        let is_progs = self.def.map_type == MapType::PROG_ARRAY;
        if !is_progs && !self.def.map_type.is_map_in_map() {
            return Err("only for maps of maps and of programs".into());
        }
        set_size(&mut self.def.value_size, 4)?;
        let array = types
            .get(member.type_id)
            .filter(|t| t.kind() == Kind::ARRAY)
            .map(|t| types.array(t));
        let Some((element, 0)) = array else {
            return Err("no array without a length".into());
        };
        let target = types
            .plain(element)
            .filter(|t| t.kind() == Kind::PTR)
            .and_then(|t| types.plain(t.size_or_type))
            .ok_or("no array of pointers")?;
        if is_progs {
            return (target.kind() == Kind::FUNC_PROTO)
                .then_some(())
                .ok_or_else(|| "no array of pointers to functions".into());
        }
        if target.kind() != Kind::STRUCT {
            return Err("no array of pointers to structs".into());
        }
        self.inner = Some(members(types, target, true)?.def);
        Ok(())
    }
}

/// `__uint(name, number)`: a pointer to an array of that many elements.
fn number(types: &Types, member: Member) -> Result<u32, &'static str> {
    types
        .plain(member.type_id)
        .filter(|t| t.kind() == Kind::PTR)
        .and_then(|t| types.get(t.size_or_type))
        .filter(|t| t.kind() == Kind::ARRAY)
        .map(|t| types.array(t).1)
        .ok_or("no pointer to an array, whose length would be the number")
}

/// `__ulong(name, number)`: the only value of an enum; or as `__uint`.
fn long_number(types: &Types, member: Member) -> Result<u64, &'static str> {
    let t = types.plain(member.type_id).ok_or("its type is not there")?;
    if !matches!(t.kind(), Kind::ENUM | Kind::ENUM64) {
        return number(types, member).map(u64::from);
    }
    match types.values(t).as_slice() {
        &[value] => Ok(value),
        _ => Err("no enum of one value"),
    }
}

/// `__type(name, type)`: a pointer to it.
fn pointed_at(types: &Types, member: Member) -> Result<(u32, u32), &'static str> {
    let pointer = types
        .get(member.type_id)
        .filter(|t| t.kind() == Kind::PTR)
        .ok_or("no pointer")?;
    let id = pointer.size_or_type;
    let size = types.size(id).ok_or("its type has no size")?;
    Ok((id, size))
}

/// A size that is said twice has to be the same.
fn set_size(size: &mut u32, new: u32) -> Result<(), &'static str> {
    if *size != 0 && *size != new {
        return Err("another size than was said before");
    }
    *size = new;
    Ok(())
}

/// Bytes of a ring: a power of two of pages, larger than was asked for if that is none.
///
/// libbpf: `adjust_ringbuf_sz`.
pub(super) fn ring_size(asked: u32) -> u32 {
    let is_right = asked.is_multiple_of(PAGE_SIZE) && (asked / PAGE_SIZE).is_power_of_two();
    if asked == 0 || is_right {
        return asked;
    }
    // Where nothing is larger, the kernel has to refuse it.
    let sizes = (PAGE_SIZE.trailing_zeros()..u32::BITS).map(|bit| 1 << bit);
    sizes
        .into_iter()
        .find(|&size| size > asked)
        .unwrap_or(asked)
}

/// Reads which places of maps of maps are filled from the start.
fn fill_slots(
    elf: &Elf<'_>,
    section: &Section<'_>,
    relocations: &Section<'_>,
    types: &Types,
    vars: &[Var],
    maps: &mut [MapDecl],
) -> Result<(), ObjectError> {
    for &(offset, symbol) in &relocations.relocations {
        let of_section = |reason: &str| ObjectError::section(&relocations.name, reason);
        let symbol = elf
            .symbols
            .get(symbol)
            .ok_or_else(|| of_section("a relocation is for a symbol that is not there"))?;
        let place = offset.checked_add(POINTER_SIZE).and_then(|end| {
            vars.iter().position(|var| {
                let start = u64::from(var.info.offset);
                start <= offset && end <= start + u64::from(var.info.size)
            })
        });
        let index = place.ok_or_else(|| of_section("a relocation lies in no map"))?;
        let error = |reason: &str| ObjectError::symbol(SECTION, &maps[index].name, reason);
        let map_type = maps[index].def.map_type;
        if map_type.is_map_in_map() {
            if symbol.section != Some(section.index) {
                return Err(error(
                    "a place is filled with what is no map of this section",
                ));
            }
            if !maps.iter().any(|decl| decl.name == symbol.name) {
                return Err(error("a place is filled with what is no map"));
            }
            if map_type == MapType::HASH_OF_MAPS && maps[index].def.key_size != 4 {
                return Err(error("places are filled, but keys have not 4 bytes"));
            }
        } else if map_type != MapType::PROG_ARRAY {
            return Err(error("places are filled, but it holds no maps or programs"));
        }
        let var = &vars[index];
        let values = types
            .members(var.def)
            .last()
            .filter(|member| types.name(member.name_off) == VALUES)
            .ok_or_else(|| error("places are filled, but `values` is not its last member"))?;
        let start = u64::from(var.info.offset) + u64::from(values.bit_offset(var.def) / 8);
        let slot = offset
            .checked_sub(start)
            .filter(|offset| offset.is_multiple_of(POINTER_SIZE))
            .and_then(|offset| u32::try_from(offset / POINTER_SIZE).ok())
            .ok_or_else(|| error("a place is filled that is none"))?;
        let name = symbol.name.clone().into_owned();
        let slots = &mut maps[index].slots;
        match slots.binary_search_by_key(&slot, |(slot, _)| *slot) {
            Ok(at) => slots[at].1 = name,
            Err(at) => slots.insert(at, (slot, name)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::ring_size;

    #[test]
    fn rings_get_a_power_of_two_of_pages() {
        for (asked, size) in [
            (0, 0),
            (1, 4096),
            (4096, 4096),
            (4097, 8192),
            (12288, 16384),
            (1 << 31, 1 << 31),
            ((1 << 31) + 1, (1 << 31) + 1),
        ] {
            assert_eq!(ring_size(asked), size);
        }
    }
}
