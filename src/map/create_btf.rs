//! `BPF_MAP_CREATE`: types of key and value, and special fields of the value.
//!
//! Kernel: `kernel/bpf/syscall.c:map_check_btf` (v6.18), and the `map_check_btf` of each type.

use std::sync::Arc;

use super::object::Object;
use super::{CreateRequest, MapBtf, MapDef, fields};
use crate::abi::{Caps, Errno, MapFlags, MapType, Result};
use crate::btf::{Btf, FieldKind, Fields};

/// What a type asks of the types of its key and value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BtfRule {
    /// Nothing; but there is a key.
    Unchecked,
    /// Nothing; there is a key, but of some releases.
    SomeKey,
    /// The key is an integer of 32 bits; an array of one element that is a data section has none.
    ArrayKey,
    /// The key is an integer of 32 bits.
    IntKey,
    /// The key is a struct.
    StructKey,
    /// The key is that of a cgroup storage.
    CgroupStorageKey,
    /// There is no key.
    NoKey,
    /// The type takes no BTF.
    NotAtAll,
}

/// The BTF of a new map, checked, and the special fields of its value.
///
/// # Errors
///
/// Of the fd: `EBADF`, `EINVAL`; of the sizes: `EINVAL`; of special fields: `EPERM`, `EACCES`, `EOPNOTSUPP`; the type's own.
pub(super) fn check(
    request: &CreateRequest<'_>,
    def: &MapDef,
    rule: BtfRule,
) -> Result<(Option<MapBtf>, Fields)> {
    let attr = request.attr;
    if attr.btf_key_type_id == 0
        && attr.btf_value_type_id == 0
        && attr.btf_vmlinux_value_type_id == 0
    {
        return Ok((None, Fields::default()));
    }
    let Object::Btf(btf) = request.files.object(attr.btf_fd)? else {
        return Err(Errno::EINVAL);
    };
    let (key, value) = (attr.btf_key_type_id, attr.btf_value_type_id);
    if key == 0 {
        let late = rule == BtfRule::SomeKey && request.env.release.btf_void_key_last;
        if !late && !key_fits(request, rule) {
            return Err(Errno::EINVAL);
        }
    } else if btf.type_size(key) != Some(def.key_size) {
        return Err(Errno::EINVAL);
    }
    if btf.type_size(value) != Some(def.value_size) {
        return Err(Errno::EINVAL);
    }
    let fields = btf.fields(value);
    if !fields.0.is_empty() {
        may_have_fields(request, def, &fields)?;
        btf.check_ownership(value)?;
    }
    of_type(request, def, rule, &btf)?;
    let btf = MapBtf {
        btf: Arc::clone(&btf),
        key_type_id: key,
        value_type_id: value,
    };
    Ok((Some(btf), fields))
}

/// `def` has the flags that the type itself adds: device maps and arrays of instructions are read-only for programs.
fn may_have_fields(request: &CreateRequest<'_>, def: &MapDef, fields: &Fields) -> Result<()> {
    let release = request.env.release;
    let has_kptr = fields
        .0
        .iter()
        .any(|field| matches!(field.kind, FieldKind::Kptr | FieldKind::KptrUntrusted));
    if (has_kptr || release.fields_need_rights) && !request.caps.capable(Caps::BPF) {
        return Err(Errno::EPERM);
    }
    let prog_access = if has_kptr || release.wronly_prog_without_fields {
        MapFlags::RDONLY_PROG | MapFlags::WRONLY_PROG
    } else {
        MapFlags::RDONLY_PROG
    };
    if def.map_flags.intersects(prog_access) {
        return Err(Errno::EACCES);
    }
    fields::allowed(def.map_type, fields, request.env.release)
}

/// The key has a type, or needs none for those rules that ask nothing else of it.
fn key_fits(request: &CreateRequest<'_>, rule: BtfRule) -> bool {
    let may_be_void = rule == BtfRule::SomeKey && request.env.release.btf_key_may_be_void;
    let asks = matches!(rule, BtfRule::Unchecked | BtfRule::SomeKey) && !may_be_void;
    request.attr.btf_key_type_id != 0 || !asks
}

/// The type's own check.
fn of_type(request: &CreateRequest<'_>, def: &MapDef, rule: BtfRule, btf: &Btf) -> Result<()> {
    let attr = request.attr;
    let (key, value) = (attr.btf_key_type_id, attr.btf_value_type_id);
    let fine = match rule {
        BtfRule::Unchecked | BtfRule::SomeKey => key_fits(request, rule),
        BtfRule::ArrayKey if key == 0 => {
            let may_be_section =
                def.map_type == MapType::ARRAY || request.env.release.percpu_array_of_sections;
            may_be_section && def.max_entries == 1 && btf.is_datasec(value)
        }
        BtfRule::ArrayKey | BtfRule::IntKey => btf.is_int(key, 32),
        BtfRule::StructKey => btf.is_struct(key),
        BtfRule::CgroupStorageKey if def.key_size == 8 => btf.is_int(key, 64),
        BtfRule::CgroupStorageKey => btf.is_cgroup_storage_key(key),
        BtfRule::NoKey => key == 0,
        BtfRule::NotAtAll => return Err(Errno::ENOTSUPP),
    };
    if fine { Ok(()) } else { Err(Errno::EINVAL) }
}
