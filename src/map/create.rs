//! `BPF_MAP_CREATE`: what is checked, in which order, and what each type asks for.
//!
//! A type's rules are in two parts: the early ones come before the caller's rights are looked at, the late ones after.
//! [`rules_of`] is the only match on the type.
//!
//! Kernel: `kernel/bpf/syscall.c:map_create` (v6.18), and the `map_alloc_check` and `map_alloc` of each type.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

use super::arena::Arena;
use super::array::Array;
use super::bloom_filter::BloomFilter;
use super::cgroup_array::CgroupArray;
use super::cgroup_storage::CgroupStorage;
use super::cpumap::Cpumap;
use super::create_btf::{self, BtfRule};
use super::devmap::Devmap;
use super::hash::Hash;
use super::insn_array::InsnArray;
use super::local_storage::LocalStorage;
use super::lpm_trie::LpmTrie;
use super::lru_hash::LruHash;
use super::map_in_map::{ArrayOfMaps, HashOfMaps};
use super::object::Object;
use super::percpu_array::PercpuArray;
use super::percpu_hash::PercpuHash;
use super::perf_event_array::PerfEventArray;
use super::prog_array::ProgArray;
use super::queue_stack::QueueStack;
use super::reuseport_sockarray::ReuseportSockarray;
use super::ringbuf::Ringbuf;
use super::sockmap::Sockmap;
use super::stack_trace::StackTrace;
use super::writers::Writers;
use super::xskmap::Xskmap;
use super::{Charge, Files, Map, MapDef, MapOps, create_rules as rule};
use crate::abi::{Caps, CreateAttr, Errno, MapFlags, MapType, OBJ_NAME_LEN, Result};
use crate::btf::Fields;
use crate::env::Env;

/// Who asks for a map, and for what.
#[derive(Clone, Copy, Debug)]
pub struct CreateRequest<'a> {
    /// The environment of the kernel.
    pub env: &'a Arc<Env>,
    /// What was asked for.
    pub attr: &'a CreateAttr,
    /// The caller's capabilities.
    pub caps: Caps,
    /// The sysctl `kernel.unprivileged_bpf_disabled`.
    pub unprivileged_bpf_disabled: u32,
    /// The caller's fds.
    pub files: &'a dyn Files,
    /// The CPU that the call happens on.
    pub cpu: u32,
}

/// What a type needs besides what every map needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Needs {
    Nothing,
    Cap(Caps),
}

/// What a type's `new` is given.
#[derive(Debug)]
struct Making<'a> {
    def: &'a MapDef,
    env: &'a Arc<Env>,
    cpu: u32,
    template: Option<(MapDef, Fields)>,
}

type Check = fn(&CreateRequest<'_>) -> Result<()>;
type Make = fn(Making<'_>) -> Result<Box<dyn MapOps>>;

/// One type's part of the creation.
struct Rules {
    early: Check,
    needs: Needs,
    late: Check,
    /// Bytes that the kernel would allocate.
    memory: fn(&MapDef, u32) -> u64,
    btf: BtfRule,
    make: Make,
}

const BPF: Needs = Needs::Cap(Caps::BPF);
const NET_ADMIN: Needs = Needs::Cap(Caps::NET_ADMIN);

/// No map of this type is ever made: its late rules refuse each.
fn never(making: Making<'_>) -> Result<Box<dyn MapOps>> {
    let map_type = making.def.map_type;
    let what = format_args!("maps of type {map_type}");
    Err(making.env.unsupported(what))
}

/// `new` of a type, boxed.
macro_rules! new {
    ($type:path) => {
        |making| Ok(Box::new(<$type>::new(making.def, making.env)?))
    };
}

/// `new` of a type whose first slots depend on the CPU, boxed.
macro_rules! new_on_cpu {
    ($type:path) => {
        |making| Ok(Box::new(<$type>::new(making.def, making.env, making.cpu)?))
    };
}

/// `new` of a map of maps, boxed.
macro_rules! new_outer {
    ($type:path) => {
        |making| {
            let (template, fields) = making.template.expect("looked up for these types");
            Ok(Box::new(<$type>::new(
                making.def, making.env, making.cpu, template, fields,
            )?))
        }
    };
}

/// The rules of a type; none if there is no such type.
#[rustfmt::skip] // A table.
fn rules_of(map_type: MapType) -> Option<Rules> {
    use BtfRule::{ArrayKey, CgroupStorageKey, IntKey, NoKey, NotAtAll, SomeKey, StructKey, Unchecked};
    use MapType as T;
    use Needs::Nothing;
    use rule as r;
    let rules = |early, needs, late, memory, btf, make: Make| Some(Rules { early, needs, late, memory, btf, make });
    match map_type {
        T::HASH => rules(r::hash, Nothing, r::hash_buckets, r::hash_memory, SomeKey, new_on_cpu!(Hash)),
        T::PERCPU_HASH => rules(r::hash, Nothing, r::hash_buckets, r::hash_memory, SomeKey, new!(PercpuHash)),
        T::LRU_HASH | T::LRU_PERCPU_HASH =>
            rules(r::hash, BPF, r::hash_buckets, r::hash_memory, SomeKey, new!(LruHash)),
        T::HASH_OF_MAPS =>
            rules(r::hash_of_maps, Nothing, r::hash_of_maps_late, r::hash_memory, NotAtAll, new_outer!(HashOfMaps)),
        T::ARRAY => rules(r::array, Nothing, r::none, r::array_memory, ArrayKey, new!(Array)),
        T::PERCPU_ARRAY => rules(r::array, Nothing, r::none, r::array_memory, ArrayKey, new!(PercpuArray)),
        T::PROG_ARRAY => rules(r::fd_array, Nothing, r::none, r::array_memory, Unchecked, new!(ProgArray)),
        T::PERF_EVENT_ARRAY => rules(r::fd_array, Nothing, r::none, r::array_memory, NotAtAll, new!(PerfEventArray)),
        T::CGROUP_ARRAY => rules(r::fd_array, Nothing, r::none, r::array_memory, NotAtAll, new!(CgroupArray)),
        T::ARRAY_OF_MAPS =>
            rules(r::fd_array, Nothing, r::inner_map, r::array_memory, NotAtAll, new_outer!(ArrayOfMaps)),
        T::STACK_TRACE => rules(r::none, BPF, r::stack_trace, r::hash_memory, NotAtAll, new!(StackTrace)),
        T::LPM_TRIE => rules(r::none, BPF, r::lpm_trie, r::small_memory, StructKey, new!(LpmTrie)),
        T::CGROUP_STORAGE | T::PERCPU_CGROUP_STORAGE =>
            rules(r::none, Nothing, r::cgroup_storage, r::small_memory, CgroupStorageKey, new!(CgroupStorage)),
        T::QUEUE | T::STACK =>
            rules(r::queue_stack, BPF, r::none, r::array_memory, Unchecked, new!(QueueStack)),
        T::BLOOM_FILTER =>
            rules(r::bloom_size, BPF, r::bloom_filter, r::bloom_memory, NoKey, new!(BloomFilter)),
        T::DEVMAP | T::DEVMAP_HASH =>
            rules(r::devmap, NET_ADMIN, r::none, r::array_memory, NotAtAll, new!(Devmap)),
        T::SOCKMAP => rules(r::none, NET_ADMIN, r::sockmap, r::array_memory, NotAtAll, new!(Sockmap)),
        T::SOCKHASH => rules(r::none, NET_ADMIN, r::sockhash, r::small_memory, NotAtAll, new!(Sockmap)),
        T::CPUMAP => rules(r::none, BPF, r::cpumap, r::array_memory, NotAtAll, new!(Cpumap)),
        T::XSKMAP => rules(r::none, NET_ADMIN, r::xskmap, r::array_memory, NotAtAll, new!(Xskmap)),
        T::REUSEPORT_SOCKARRAY =>
            rules(r::reuseport_sockarray, BPF, r::none, r::array_memory, Unchecked, new!(ReuseportSockarray)),
        T::SK_STORAGE | T::INODE_STORAGE | T::TASK_STORAGE | T::CGRP_STORAGE =>
            rules(r::local_storage, BPF, r::none, r::small_memory, IntKey, new!(LocalStorage)),
        T::STRUCT_OPS => rules(r::struct_ops, BPF, r::struct_ops_value, r::small_memory, Unchecked, never),
        T::RINGBUF | T::USER_RINGBUF =>
            rules(r::none, Nothing, r::ringbuf, r::ringbuf_memory, Unchecked, new!(Ringbuf)),
        T::ARENA => rules(r::none, BPF, r::arena, r::small_memory, Unchecked, |making| Ok(Box::new(Arena::new(making.def)))),
        T::INSN_ARRAY => rules(r::insn_array, BPF, r::none, r::array_memory, IntKey, new!(InsnArray)),
        T::RHASH => rules(r::rhash, BPF, r::none, r::small_memory, SomeKey, new_on_cpu!(Hash)),
        _ => None,
    }
}

/// Makes a map; its id is 0, for the caller to set.
///
/// # Errors
///
/// In this order: `EINVAL` for what no type takes; the early rules of the type; the token's fd; `EPERM`; the late rules;
/// `ENOMEM`; `EINVAL` for the name; those of the BTF.
///
/// Kernel: `kernel/bpf/syscall.c:map_create` (v6.18).
pub fn create(request: &CreateRequest<'_>) -> Result<Map> {
    let flags = request.attr.map_flags;
    let token = match request.env.release.map_tokens {
        true => flags & MapFlags::TOKEN_FD,
        false => MapFlags::empty(),
    };
    let attr = &CreateAttr {
        map_flags: flags - token,
        ..*request.attr
    };
    let request = &CreateRequest { attr, ..*request };
    let rights_first = request.env.release.create_rights_first;
    common(request)?;
    let rules = if attr.map_type.0 < request.env.release.map_types {
        rules_of(attr.map_type)
    } else {
        None
    };
    let rules = rules.ok_or(Errno::EINVAL)?;
    if rights_first {
        has(request, rules.needs)?;
    }
    (rules.early)(request)?;
    if !token.is_empty() {
        // No file here is a token.
        request.files.object(attr.map_token_fd)?;
        return Err(Errno::EINVAL);
    }
    may_create(request)?;
    if !rights_first {
        has(request, rules.needs)?;
    }
    if attr.map_ifindex != 0 {
        return Err(offload(request));
    }
    (rules.late)(request)?;

    let def = stored(request);
    let template = template(request)?;
    let charge = Charge::new(request.env, (rules.memory)(&def, request.env.nr_cpus))?;
    let mut ops = (rules.make)(Making {
        def: &def,
        env: request.env,
        cpu: request.cpu,
        template,
    })?;
    obj_name(&attr.map_name)?;
    let (btf, fields) = create_btf::check(request, &def, rules.btf)?;
    file_access(attr)?;
    if !fields.0.is_empty() {
        ops.set_fields(fields.clone(), btf.as_ref().map(|btf| &btf.btf));
    }
    Ok(Map {
        id: 0,
        user_value_size: def.user_value_size(request.env.nr_cpus),
        def,
        btf,
        fields,
        env: Arc::clone(request.env),
        exclusive: None,
        frozen: AtomicBool::new(false),
        writers: Writers::new(request.env.nr_cpus),
        counts_writes: ops.counts_writes(),
        user_references: AtomicU32::new(0),
        charge,
        judged: AtomicU64::new(0),
        ops,
    })
}

/// What is checked before the type is known.
fn common(request: &CreateRequest<'_>) -> Result<()> {
    let attr = request.attr;
    let no_btf = attr.btf_key_type_id == 0 && attr.btf_value_type_id == 0;
    if attr.btf_vmlinux_value_type_id != 0 {
        if attr.map_type != MapType::STRUCT_OPS || !no_btf {
            return Err(Errno::EINVAL);
        }
    } else if attr.btf_key_type_id != 0 && attr.btf_value_type_id == 0 {
        return Err(Errno::EINVAL);
    }
    let takes_extra = matches!(
        attr.map_type,
        MapType::BLOOM_FILTER | MapType::ARENA | MapType::RHASH
    );
    if attr.map_extra != 0 && !takes_extra {
        return Err(Errno::EINVAL);
    }
    if !request.env.release.create_both_accesses_last {
        file_access(attr)?;
    }
    // Node 0 is the only one.
    if !matches!(rule::numa_node(attr), rule::NO_NODE | 0) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// The map's file can be for reading only, or for writing only, not both.
///
/// Kernel: `kernel/bpf/syscall.c:bpf_get_file_flag`.
fn file_access(attr: &CreateAttr) -> Result<()> {
    if attr.map_flags.contains(MapFlags::RDONLY | MapFlags::WRONLY) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// Kernel: `kernel/bpf/syscall.c:map_create`, its part about tokens and capabilities.
fn may_create(request: &CreateRequest<'_>) -> Result<()> {
    if request.unprivileged_bpf_disabled != 0 && !request.caps.capable(Caps::BPF) {
        return Err(Errno::EPERM);
    }
    Ok(())
}

/// What the type needs.
fn has(request: &CreateRequest<'_>, needs: Needs) -> Result<()> {
    let has = match needs {
        Needs::Nothing => true,
        Needs::Cap(cap @ Caps::NET_ADMIN) if !request.env.release.sys_admin_is_net_admin => {
            request.caps.contains(cap)
        }
        Needs::Cap(cap) => request.caps.capable(cap),
    };
    if has { Ok(()) } else { Err(Errno::EPERM) }
}

/// The answer to a map on a network device: none here holds maps.
///
/// Kernel: `kernel/bpf/offload.c:bpf_map_offload_map_alloc`.
fn offload(request: &CreateRequest<'_>) -> Errno {
    if !request.caps.contains(Caps::SYS_ADMIN) {
        Errno::EPERM
    } else if !matches!(request.attr.map_type, MapType::ARRAY | MapType::HASH)
        || !request.env.has_interface(request.attr.map_ifindex)
    {
        Errno::EINVAL
    } else {
        Errno::EOPNOTSUPP
    }
}

/// What the map remembers of what was asked for.
fn stored(request: &CreateRequest<'_>) -> MapDef {
    let attr = request.attr;
    let mut map_flags = attr.map_flags - (MapFlags::RDONLY | MapFlags::WRONLY);
    if matches!(
        attr.map_type,
        MapType::DEVMAP | MapType::DEVMAP_HASH | MapType::INSN_ARRAY
    ) {
        map_flags |= MapFlags::RDONLY_PROG;
    }
    MapDef {
        map_type: attr.map_type,
        key_size: attr.key_size,
        value_size: attr.value_size,
        max_entries: rule::max_entries(request),
        map_flags,
        map_extra: attr.map_extra,
        name: obj_name(&attr.map_name).unwrap_or_default(),
    }
}

/// The template of a map of maps; the late rules have found it fit.
fn template(request: &CreateRequest<'_>) -> Result<Option<(MapDef, Fields)>> {
    if !request.attr.map_type.is_map_in_map() {
        return Ok(None);
    }
    match request.files.object(request.attr.inner_map_fd)? {
        Object::Map(map) => Ok(Some((map.def.clone(), map.fields.clone()))),
        Object::Btf(_) | Object::Prog(_) | Object::Cgroup(_) | Object::Other(_) => {
            Err(Errno::EINVAL)
        }
    }
}

/// The name of a map or program, filled up with NUL: of letters (those of Latin-1 too), digits, `_` and `.`.
///
/// # Errors
///
/// `EINVAL` for other bytes, and for a name without a NUL.
///
/// Kernel: `kernel/bpf/syscall.c:bpf_obj_name_cpy`.
pub fn obj_name(name: &[u8; OBJ_NAME_LEN]) -> Result<[u8; OBJ_NAME_LEN]> {
    let end = name.iter().position(|&byte| byte == 0);
    let end = end.ok_or(Errno::EINVAL)?;
    let fine = name[..end].iter().all(|&byte| match byte {
        b'_' | b'.' => true,
        0xd7 | 0xf7 => false,
        0xc0.. => true,
        byte => byte.is_ascii_alphanumeric(),
    });
    if !fine {
        return Err(Errno::EINVAL);
    }
    let mut out = [0; OBJ_NAME_LEN];
    out[..end].copy_from_slice(&name[..end]);
    Ok(out)
}
