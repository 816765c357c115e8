//! What a loader does to an object's BTF before the kernel sees it: sizes and places of variables from the symbol table,
//! and variables of the kernel made ordinary ones.
//!
//! libbpf: `btf_fixup_datasec`, `bpf_object__collect_externs`, `bpf_object__sanitize_and_load_btf`.

use std::collections::HashSet;

use ::object::elf;

use super::ObjectError;
use super::elf::Elf;
use super::types::{GLOBAL, STATIC, Types};
use crate::btf::raw::{Kind, Type};

/// Names the kernel's variables and functions that the object refers to.
const KSYMS: &str = ".ksyms";
/// Names the options of the kernel's build that the object refers to.
const KCONFIG: &str = ".kconfig";
/// What is said of a variable of the kernel.
const INT_SIZE: u32 = 4;

/// Makes BTF loadable.
///
/// # Errors
///
/// For options of the kernel's build, which are not emulated; for a section or variable that the object lacks.
pub(super) fn fix(types: &mut Types, elf: &Elf<'_>) -> Result<(), ObjectError> {
    if types.by_name_and_kind(KCONFIG, Kind::DATASEC).is_some() {
        return Err(ObjectError::section(
            KCONFIG,
            "the kernel's build options are not emulated",
        ));
    }
    if let Some((_, section)) = types.by_name_and_kind(KSYMS, Kind::DATASEC) {
        fix_ksyms(types, section)?;
    }
    let hidden = hidden_functions(elf);
    for id in types.ids() {
        let t = types.get(id).expect("ids are of types");
        if t.kind() == Kind::DATASEC {
            fix_section(types, t, elf)?;
        } else if t.kind() == Kind::FUNC {
            fix_function(types, t, &hidden);
        }
    }
    Ok(())
}

/// Sizes and offsets are 0 as the compiler writes them.
fn fix_section(types: &mut Types, t: Type, elf: &Elf<'_>) -> Result<(), ObjectError> {
    let name = types.name(t.name_off).into_owned();
    let mut variables = types.variables(t);
    if name != KSYMS {
        let has_places = t.size_or_type != 0;
        if !has_places {
            let size = elf.section(&name).map_or(0, |section| section.size);
            let size = u32::try_from(size)
                .map_err(|_| ObjectError::section(&name, "larger than 4 GiB"))?;
            if size == 0 {
                return Err(ObjectError::section(
                    &name,
                    "BTF names it, but it is not there or empty",
                ));
            }
            types.set_size_or_type(t, size);
        }
        for info in &mut variables {
            let var = types
                .get(info.type_id)
                .filter(|t| t.kind() == Kind::VAR)
                .ok_or_else(|| ObjectError::section(&name, "its BTF lists what is no variable"))?;
            // Those that only this object sees have their places already; those of others have none.
            if types.first_word(var) != GLOBAL {
                continue;
            }
            let var_name = types.name(var.name_off).into_owned();
            let symbol = elf.variable(&var_name).ok_or_else(|| {
                ObjectError::symbol(&name, &var_name, "BTF names it, but no symbol does")
            })?;
            if !has_places {
                info.offset = u32::try_from(symbol.value)
                    .map_err(|_| ObjectError::symbol(&name, &var_name, "it lies past 4 GiB"))?;
            }
            if symbol.is_hidden {
                types.set_variable_linkage(var, STATIC);
            }
        }
    }
    variables.sort_by_key(|info| info.offset);
    types.set_variables(t, &variables);
    Ok(())
}

/// The functions that programs call and that are hidden from other objects.
fn hidden_functions<'a>(elf: &'a Elf<'_>) -> HashSet<&'a str> {
    let Some(text) = elf.section(".text") else {
        return HashSet::new();
    };
    elf.symbols
        .iter()
        .filter(|symbol| symbol.kind == elf::STT_FUNC && symbol.section == Some(text.index))
        .filter(|symbol| symbol.is_global && symbol.is_hidden)
        .map(|symbol| &*symbol.name)
        .collect()
}

/// A function that is hidden from others counts as one of this object alone.
fn fix_function(types: &mut Types, t: Type, hidden: &HashSet<&str>) {
    if t.vlen() != GLOBAL as usize {
        return;
    }
    if hidden.contains(&*types.name(t.name_off)) {
        types.set_function_linkage(t, STATIC);
    }
}

/// The kernel takes no variables of others: they become integers of this object, and functions one dummy variable.
fn fix_ksyms(types: &mut Types, section: Type) -> Result<(), ObjectError> {
    let broken = || ObjectError::section(KSYMS, "its BTF lists what is no variable or function");
    let int = types.ids().find(|&id| {
        types
            .get(id)
            .is_some_and(|t| t.kind() == Kind::INT && types.first_word(t) & 0xff == 32)
    });
    let int = int.unwrap_or(0);
    let mut variables = types.variables(section);
    let mut dummy = None;
    let mut offset = 0;
    for info in &mut variables {
        let t = types.get(info.type_id).ok_or_else(broken)?;
        if t.kind() == Kind::FUNC {
            let id = *dummy.get_or_insert_with(|| types.add_variable("dummy_ksym", int));
            let dummy_name = types.get(id).expect("it was added").name_off;
            let prototype = types.get(t.size_or_type).ok_or_else(broken)?;
            if prototype.kind() != Kind::FUNC_PROTO {
                return Err(broken());
            }
            types.name_parameters(prototype, dummy_name);
            types.set_function_linkage(t, GLOBAL);
            info.type_id = id;
        } else if t.kind() == Kind::VAR {
            types.set_variable_linkage(t, GLOBAL);
            types.set_size_or_type(t, int);
        } else {
            return Err(broken());
        }
        info.offset = offset;
        info.size = INT_SIZE;
        offset += INT_SIZE;
    }
    types.set_variables(section, &variables);
    types.set_size_or_type(section, offset);
    Ok(())
}
