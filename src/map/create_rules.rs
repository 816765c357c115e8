//! What each type asks of `BPF_MAP_CREATE`: flags and sizes, in the kernel's order; and what the map will take.
//!
//! Kernel: the `map_alloc_check` and `map_alloc` of each type (v6.18).

use super::object::Object;
use super::{CreateRequest, MapDef};
use crate::abi::{Caps, CreateAttr, Errno, MapFlags, MapType, Result};
use crate::env::PAGE_SIZE;

/// `NUMA_NO_NODE`
pub(super) const NO_NODE: u32 = u32::MAX;
/// The largest allocation of `kmalloc`.
const KMALLOC_MAX_SIZE: u32 = 1 << 22;
/// The largest allocation of a per-CPU variable.
const PCPU_MIN_UNIT_SIZE: u32 = 1 << 15;
/// Elements of hashes may take less than this, key and value together: `kmalloc`'s most without the element's header.
const HASH_ELEM_MAX: u32 = KMALLOC_MAX_SIZE - 48;
/// More buckets make a table of 4 GiB.
const MAX_BUCKETS: u32 = 1 << 27;
/// The sysctl `kernel.perf_event_max_stack`.
const PERF_EVENT_MAX_STACK: u32 = 127;
/// `sizeof(struct bpf_stack_build_id)`
const BUILD_ID_SIZE: u32 = 32;
/// `MAX_BPF_STACK`, the longest key of some types.
const MAX_BPF_STACK: u32 = 512;
/// `CONFIG_NR_CPUS`
const NR_CPUS: u32 = 256;
/// Bytes of the kernel's header of a local storage element.
pub(super) const LOCAL_STORAGE_HEADER: u32 = 128;
/// The largest value of a local storage: it has to fit in 65,535 with the header.
const LOCAL_STORAGE_MAX: u32 = 65_535 - LOCAL_STORAGE_HEADER;
/// Pages of an arena at most: 4 GiB.
const ARENA_PAGES: u32 = 1 << 20;

const NUMA: MapFlags = MapFlags::NUMA_NODE;
/// Access of the fd.
const ACCESS: MapFlags = MapFlags::RDONLY.union(MapFlags::WRONLY);
/// Access of programs.
const PROG: MapFlags = MapFlags::RDONLY_PROG.union(MapFlags::WRONLY_PROG);

/// `EINVAL` unless it holds.
fn valid(holds: bool) -> Result<()> {
    if holds { Ok(()) } else { Err(Errno::EINVAL) }
}

/// `E2BIG` if it is above.
fn at_most(size: u32, limit: u32) -> Result<()> {
    if size > limit {
        Err(Errno::E2BIG)
    } else {
        Ok(())
    }
}

/// Only those flags, and not both accesses of programs.
fn only(attr: &CreateAttr, allowed: MapFlags) -> bool {
    allowed.contains(attr.map_flags) && !attr.map_flags.contains(PROG)
}

/// The NUMA node that was asked for.
pub(super) fn numa_node(attr: &CreateAttr) -> u32 {
    if attr.map_flags.contains(NUMA) {
        attr.numa_node
    } else {
        NO_NODE
    }
}

/// No rule.
pub(super) fn none(_request: &CreateRequest<'_>) -> Result<()> {
    Ok(())
}

/// Kernel: `kernel/bpf/hashtab.c:htab_map_alloc_check`.
pub(super) fn hash(request: &CreateRequest<'_>) -> Result<()> {
    let attr = request.attr;
    let flags = attr.map_flags;
    let no_common_lru = flags.contains(MapFlags::NO_COMMON_LRU);
    let lru = matches!(attr.map_type, MapType::LRU_HASH | MapType::LRU_PERCPU_HASH);
    let percpu = attr.map_type.is_percpu();
    if flags.contains(MapFlags::ZERO_SEED) && !request.caps.contains(Caps::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let allowed = MapFlags::NO_PREALLOC | MapFlags::NO_COMMON_LRU | MapFlags::ZERO_SEED;
    valid(only(attr, allowed | NUMA | ACCESS | PROG))?;
    valid(lru || !no_common_lru)?;
    if lru && flags.contains(MapFlags::NO_PREALLOC) {
        return Err(Errno::ENOTSUPP);
    }
    valid(numa_node(attr) == NO_NODE || !(percpu || no_common_lru))?;
    valid(attr.max_entries != 0 && attr.key_size != 0 && attr.value_size != 0)?;
    let mut key_size = attr.key_size;
    if request.env.release.hash_key_of_512 {
        at_most(key_size, MAX_BPF_STACK)?;
        key_size = MAX_BPF_STACK;
    }
    if u64::from(key_size) + u64::from(attr.value_size) >= u64::from(HASH_ELEM_MAX) {
        return Err(Errno::E2BIG);
    }
    if percpu {
        at_most(attr.value_size, PCPU_MIN_UNIT_SIZE)?;
    }
    Ok(())
}

/// Kernel: `kernel/bpf/hashtab.c:htab_map_alloc`.
pub(super) fn hash_buckets(request: &CreateRequest<'_>) -> Result<()> {
    at_most(max_entries(request), MAX_BUCKETS)
}

/// The number of elements that the map will take: with lists for each CPU, each gets as many.
///
/// Kernel: `kernel/bpf/hashtab.c:htab_map_alloc`.
pub(super) fn max_entries(request: &CreateRequest<'_>) -> u32 {
    let asked = request.attr.max_entries;
    if !request.attr.map_flags.contains(MapFlags::NO_COMMON_LRU) {
        return asked;
    }
    // Down where up would overflow.
    let nr_cpus = request.env.nr_cpus;
    asked
        .checked_next_multiple_of(nr_cpus)
        .unwrap_or(asked / nr_cpus * nr_cpus)
}

/// Kernel: `kernel/bpf/hashtab.c:fd_htab_map_alloc_check`.
pub(super) fn hash_of_maps(request: &CreateRequest<'_>) -> Result<()> {
    valid(request.attr.value_size == 4)?;
    hash(request)
}

/// Kernel: `kernel/bpf/hashtab.c:htab_of_map_alloc`.
pub(super) fn hash_of_maps_late(request: &CreateRequest<'_>) -> Result<()> {
    inner_map(request)?;
    hash_buckets(request)
}

/// Kernel: `kernel/bpf/arraymap.c:array_map_alloc_check`.
pub(super) fn array(request: &CreateRequest<'_>) -> Result<()> {
    let attr = request.attr;
    let percpu = attr.map_type == MapType::PERCPU_ARRAY;
    valid(attr.max_entries != 0 && attr.key_size == 4 && attr.value_size != 0)?;
    let of_type = match attr.map_type {
        MapType::ARRAY => MapFlags::MMAPABLE | MapFlags::INNER_MAP,
        MapType::PERF_EVENT_ARRAY => MapFlags::PRESERVE_ELEMS,
        _ => MapFlags::empty(),
    };
    valid(only(attr, NUMA | ACCESS | PROG | of_type))?;
    valid(!percpu || numa_node(attr) == NO_NODE)?;
    at_most(attr.value_size, request.env.release.array_value_max)?;
    if percpu {
        at_most(attr.value_size, PCPU_MIN_UNIT_SIZE)?;
    }
    Ok(())
}

/// Kernel: `kernel/bpf/arraymap.c:fd_array_map_alloc_check`.
pub(super) fn fd_array(request: &CreateRequest<'_>) -> Result<()> {
    valid(request.attr.value_size == 4)?;
    valid(!request.attr.map_flags.intersects(PROG))?;
    array(request)
}

/// Kernel: `net/core/sock_reuseport.c`, `kernel/bpf/reuseport_array.c:reuseport_array_alloc_check`.
pub(super) fn reuseport_sockarray(request: &CreateRequest<'_>) -> Result<()> {
    valid(matches!(request.attr.value_size, 4 | 8))?;
    array(request)
}

/// The template of a map of maps.
///
/// Kernel: `kernel/bpf/map_in_map.c:bpf_map_meta_alloc`.
pub(super) fn inner_map(request: &CreateRequest<'_>) -> Result<()> {
    let object = request.files.object(request.attr.inner_map_fd)?;
    let Object::Map(inner) = object else {
        return Err(Errno::EINVAL);
    };
    let map_type = inner.def.map_type;
    valid(!map_type.is_map_in_map())?;
    match map_type {
        _ if inner.exclusive.is_some() => Err(Errno::ENOTSUPP),
        MapType::PROG_ARRAY
        | MapType::CGROUP_STORAGE
        | MapType::PERCPU_CGROUP_STORAGE
        | MapType::STRUCT_OPS
        | MapType::INSN_ARRAY => Err(Errno::ENOTSUPP),
        _ if inner.fields.spin_lock().is_some() && !request.env.release.inner_map_with_lock => {
            Err(Errno::ENOTSUPP)
        }
        _ => Ok(()),
    }
}

/// Kernel: `kernel/bpf/stackmap.c:stack_map_alloc`.
pub(super) fn stack_trace(request: &CreateRequest<'_>) -> Result<()> {
    let attr = request.attr;
    valid(only(attr, NUMA | ACCESS | MapFlags::STACK_BUILD_ID))?;
    valid(attr.max_entries != 0 && attr.key_size == 4)?;
    valid(attr.value_size >= 8 && attr.value_size.is_multiple_of(8))?;
    let frame_size = if attr.map_flags.contains(MapFlags::STACK_BUILD_ID) {
        BUILD_ID_SIZE
    } else {
        8
    };
    valid(attr.value_size.is_multiple_of(frame_size))?;
    valid(attr.value_size / frame_size <= PERF_EVENT_MAX_STACK)?;
    at_most(attr.max_entries, 1 << 31)
}

/// Kernel: `kernel/bpf/lpm_trie.c:trie_alloc`.
pub(super) fn lpm_trie(request: &CreateRequest<'_>) -> Result<()> {
    let node_size = request.env.release.lpm_node_size;
    let attr = request.attr;
    let flags = MapFlags::NO_PREALLOC;
    valid(attr.max_entries != 0 && attr.map_flags.contains(flags))?;
    valid(only(attr, flags | NUMA | ACCESS | PROG))?;
    valid((5..=260).contains(&attr.key_size))?;
    valid((1..=KMALLOC_MAX_SIZE - node_size).contains(&attr.value_size))?;
    if request.env.release.lpm_counts_memory {
        /// Bytes of the part of a node that has the longest key.
        const LONGEST: u32 = 256;
        let elem = u64::from(node_size - LONGEST + attr.key_size - 4 + attr.value_size);
        if elem * u64::from(attr.max_entries) >= u64::from(u32::MAX) - PAGE_SIZE as u64 {
            return Err(Errno::E2BIG);
        }
    }
    Ok(())
}

/// Kernel: `kernel/bpf/local_storage.c:cgroup_storage_map_alloc`.
pub(super) fn cgroup_storage(request: &CreateRequest<'_>) -> Result<()> {
    let attr = request.attr;
    valid(matches!(attr.key_size, 8 | 16) && attr.value_size != 0)?;
    let limit = if request.env.release.cgroup_storage_of_a_page {
        u32::try_from(PAGE_SIZE).expect("a page is small")
    } else if attr.map_type.is_percpu() {
        PCPU_MIN_UNIT_SIZE
    } else {
        LOCAL_STORAGE_MAX
    };
    at_most(attr.value_size, limit)?;
    valid(only(attr, NUMA | ACCESS | PROG) && attr.max_entries == 0)
}

/// Kernel: `kernel/bpf/bpf_local_storage.c:bpf_local_storage_map_alloc_check`.
pub(super) fn local_storage(request: &CreateRequest<'_>) -> Result<()> {
    let attr = request.attr;
    let flags = MapFlags::NO_PREALLOC;
    valid(only(attr, flags | MapFlags::CLONE) && attr.map_flags.contains(flags))?;
    valid(attr.max_entries == 0 && attr.key_size == 4 && attr.value_size != 0)?;
    valid(attr.btf_key_type_id != 0 && attr.btf_value_type_id != 0)?;
    at_most(attr.value_size, LOCAL_STORAGE_MAX)
}

/// Kernel: `kernel/bpf/queue_stack_maps.c:queue_stack_map_alloc_check`.
pub(super) fn queue_stack(request: &CreateRequest<'_>) -> Result<()> {
    let attr = request.attr;
    valid(attr.max_entries != 0 && attr.key_size == 0 && attr.value_size != 0)?;
    valid(only(attr, NUMA | ACCESS | PROG))?;
    at_most(attr.value_size, KMALLOC_MAX_SIZE)
}

/// Kernel: `kernel/bpf/bloom_filter.c:bloom_map_alloc_check`.
pub(super) fn bloom_size(request: &CreateRequest<'_>) -> Result<()> {
    at_most(request.attr.value_size, KMALLOC_MAX_SIZE)
}

/// Kernel: `kernel/bpf/bloom_filter.c:bloom_map_alloc`.
pub(super) fn bloom_filter(request: &CreateRequest<'_>) -> Result<()> {
    let attr = request.attr;
    valid(attr.key_size == 0 && attr.value_size != 0 && attr.max_entries != 0)?;
    valid(only(attr, NUMA | ACCESS | PROG | MapFlags::ZERO_SEED))?;
    valid(attr.map_extra <= 15)
}

/// Sizes that maps of devices, CPUs and sockets share: indices, and values of 4 or 8 bytes.
fn index_and_word(attr: &CreateAttr) -> bool {
    attr.max_entries != 0 && attr.key_size == 4 && matches!(attr.value_size, 4 | 8)
}

/// Kernel: `kernel/bpf/devmap.c:dev_map_alloc_check`, `dev_map_init_map`.
pub(super) fn devmap(request: &CreateRequest<'_>) -> Result<()> {
    let attr = request.attr;
    valid(index_and_word(attr) && only(attr, NUMA | ACCESS))?;
    valid(attr.map_type == MapType::DEVMAP || attr.max_entries <= 1 << 31)
}

/// Kernel: `net/core/sock_map.c:sock_map_alloc`.
pub(super) fn sockmap(request: &CreateRequest<'_>) -> Result<()> {
    valid(index_and_word(request.attr) && only(request.attr, NUMA | ACCESS))
}

/// Kernel: `net/core/sock_map.c:sock_hash_alloc`.
pub(super) fn sockhash(request: &CreateRequest<'_>) -> Result<()> {
    let attr = request.attr;
    valid(attr.max_entries != 0 && attr.key_size != 0 && matches!(attr.value_size, 4 | 8))?;
    valid(only(attr, NUMA | ACCESS))?;
    at_most(attr.key_size, MAX_BPF_STACK)?;
    valid(attr.max_entries <= MAX_BUCKETS)
}

/// Kernel: `kernel/bpf/cpumap.c:cpu_map_alloc`.
pub(super) fn cpumap(request: &CreateRequest<'_>) -> Result<()> {
    valid(index_and_word(request.attr) && only(request.attr, NUMA))?;
    at_most(request.attr.max_entries, NR_CPUS)
}

/// Kernel: `net/xdp/xskmap.c:xsk_map_alloc`.
pub(super) fn xskmap(request: &CreateRequest<'_>) -> Result<()> {
    let attr = request.attr;
    valid(index_and_word(attr) && attr.value_size == 4)?;
    valid(only(attr, NUMA | ACCESS))
}

/// Kernel: `kernel/bpf/bpf_struct_ops.c:bpf_struct_ops_map_alloc_check`.
pub(super) fn struct_ops(request: &CreateRequest<'_>) -> Result<()> {
    let attr = request.attr;
    valid(attr.key_size == 4 && attr.max_entries == 1)?;
    let flags = if request.env.release.struct_ops_has_flags {
        MapFlags::LINK | MapFlags::VTYPE_BTF_OBJ_FD
    } else {
        MapFlags::empty()
    };
    valid(only(attr, flags))?;
    valid(attr.btf_vmlinux_value_type_id != 0)
}

/// This kernel has no type that a `struct_ops` map could be of, and no BTF of a module.
///
/// Kernel: `kernel/bpf/bpf_struct_ops.c:bpf_struct_ops_map_alloc`.
pub(super) fn struct_ops_value(request: &CreateRequest<'_>) -> Result<()> {
    let attr = request.attr;
    if attr.map_flags.contains(MapFlags::VTYPE_BTF_OBJ_FD) {
        request.files.object(attr.value_type_btf_obj_fd)?;
        return Err(Errno::EINVAL);
    }
    Err(Errno::ENOTSUPP)
}

/// Kernel: `kernel/bpf/ringbuf.c:ringbuf_map_alloc`.
pub(super) fn ringbuf(request: &CreateRequest<'_>) -> Result<()> {
    let attr = request.attr;
    let overwrites = attr.map_type == MapType::RINGBUF && request.env.release.ringbuf_overwrite;
    let mode = if overwrites {
        MapFlags::RB_OVERWRITE
    } else {
        MapFlags::empty()
    };
    valid(only(attr, NUMA | mode) && attr.key_size == 0 && attr.value_size == 0)?;
    valid(attr.max_entries.is_power_of_two())?;
    valid((attr.max_entries as usize).is_multiple_of(PAGE_SIZE))
}

/// Kernel: `kernel/bpf/bpf_insn_array.c:insn_array_alloc_check`.
pub(super) fn insn_array(request: &CreateRequest<'_>) -> Result<()> {
    let attr = request.attr;
    valid(attr.key_size == 4 && attr.value_size == 16 && attr.max_entries != 0)?;
    valid(attr.map_flags.is_empty())
}

/// A hash that grows: it is never preallocated. `map_extra` is the number of elements that it begins with room for.
pub(super) fn rhash(request: &CreateRequest<'_>) -> Result<()> {
    let attr = request.attr;
    valid(only(attr, MapFlags::NO_PREALLOC | NUMA | ACCESS | PROG))?;
    valid(attr.map_flags.contains(MapFlags::NO_PREALLOC))?;
    valid(attr.max_entries != 0 && attr.key_size != 0 && attr.value_size != 0)?;
    let room = u32::try_from(attr.map_extra).map_err(|_| Errno::EINVAL)?;
    at_most(room, u16::MAX.into())?;
    valid(room <= attr.max_entries)?;
    at_most(attr.key_size, u16::MAX.into())?;
    at_most(attr.max_entries, 1 << 31)?;
    if u64::from(attr.key_size) + u64::from(attr.value_size) >= u64::from(HASH_ELEM_MAX) {
        return Err(Errno::E2BIG);
    }
    Ok(())
}

/// Kernel: `kernel/bpf/arena.c:arena_map_alloc`.
pub(super) fn arena(request: &CreateRequest<'_>) -> Result<()> {
    let attr = request.attr;
    let flags = MapFlags::SEGV_ON_FAULT | MapFlags::MMAPABLE | MapFlags::NO_USER_CONV;
    let page = PAGE_SIZE as u64;
    valid(attr.key_size == 0 && attr.value_size == 0 && attr.max_entries != 0)?;
    valid(attr.map_flags.contains(MapFlags::MMAPABLE) && only(attr, flags))?;
    valid(attr.map_extra.is_multiple_of(page))?;
    at_most(attr.max_entries, ARENA_PAGES)?;
    let last = attr
        .map_extra
        .wrapping_add(u64::from(attr.max_entries) * page - 1);
    if attr.map_extra >> 32 == last >> 32 {
        Ok(())
    } else {
        Err(Errno::ERANGE)
    }
}

/// Bytes of a map without its elements.
const HEADER: u64 = 512;

/// Bytes of `max_entries` elements of that size, and of one part for each CPU if the type is such.
fn elems(def: &MapDef, nr_cpus: u32, overhead: u64) -> u64 {
    let parts = if def.map_type.is_percpu() { nr_cpus } else { 1 };
    (def.elem_size() as u64)
        .saturating_mul(u64::from(parts))
        .saturating_add(overhead)
        .saturating_mul(u64::from(def.max_entries))
        .saturating_add(HEADER)
}

/// Values in a row.
pub(super) fn array_memory(def: &MapDef, nr_cpus: u32) -> u64 {
    elems(def, nr_cpus, 0)
}

/// Buckets, and elements with a header, key and value, all made at once or not.
pub(super) fn hash_memory(def: &MapDef, nr_cpus: u32) -> u64 {
    let buckets = 16 * u64::from(def.max_entries).next_power_of_two();
    if def.map_flags.contains(MapFlags::NO_PREALLOC) {
        return buckets + HEADER;
    }
    let overhead = 48 + u64::from(def.key_size).next_multiple_of(8);
    elems(def, nr_cpus, overhead).saturating_add(buckets)
}

/// Bits.
pub(super) fn bloom_memory(def: &MapDef, _nr_cpus: u32) -> u64 {
    let hashes = if def.map_extra == 0 { 5 } else { def.map_extra };
    // The number of bits is that of entries times hashes by ln 2, rounded up; it is a u32.
    let bits = (u64::from(def.max_entries) * hashes * 7 / 5).next_power_of_two();
    bits.min(1 << 32) / 8 + HEADER
}

/// Data, and the pages before it.
pub(super) fn ringbuf_memory(def: &MapDef, _nr_cpus: u32) -> u64 {
    u64::from(def.max_entries) + 3 * PAGE_SIZE as u64 + HEADER
}

/// No element at first.
pub(super) fn small_memory(_def: &MapDef, _nr_cpus: u32) -> u64 {
    HEADER
}
