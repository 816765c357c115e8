//! The rule books: one file for each type of map, named after it. They say the errnos.
//!
//! [`MapOps`] is the kernel's `struct bpf_map_ops`, method for method; a default body is the kernel's answer to an empty
//! slot. [`create`] holds the only match on the map's type.

pub mod allocated;
pub mod arena;
pub mod array;
mod batch;
pub mod bloom_filter;
pub mod cgroup_array;
pub mod cgroup_storage;
mod charge;
mod checks;
pub mod cpumap;
mod create;
mod create_btf;
mod create_rules;
pub mod devmap;
mod direct;
mod fd_array;
pub mod fields;
pub mod graph;
pub mod hash;
pub mod holdings;
mod insn_array;
pub mod local_storage;
pub mod lock;
pub mod lpm_trie;
pub mod lru_hash;
pub mod map_in_map;
pub mod object;
mod owner;
pub mod percpu_array;
pub mod percpu_hash;
pub mod perf_event;
pub mod perf_event_array;
mod plain_hash;
pub mod prog_array;
pub mod prog_use;
pub mod queue_stack;
pub mod reuseport_sockarray;
pub mod ringbuf;
pub mod ringbuf_user;
mod signal;
mod slots;
pub mod sockmap;
pub mod stack_trace;
mod target;
pub mod task_work;
pub mod timer;
mod value;
pub mod writers;
pub mod xskmap;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

use crate::abi::{
    Errno, Fd, MapFlags, MapHandle, MapRequest, MapType, OBJ_NAME_LEN, PollEvents, Result,
    UpdateFlags,
};
use crate::btf::{Btf, Fields};
use crate::env::Env;
pub use batch::{Batches, BucketRequest, Token};
pub use charge::Charge;
pub use create::{CreateRequest, create, obj_name};
pub use direct::Access;
pub use target::Target;
pub use value::{Element, Value};
pub use writers::Writers;

/// What a map was made with, as `BPF_OBJ_GET_INFO_BY_FD` shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MapDef {
    /// Type.
    pub map_type: MapType,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value, of one CPU.
    pub value_size: u32,
    /// Number of elements at most.
    pub max_entries: u32,
    /// Flags, without those of the fd.
    pub map_flags: MapFlags,
    /// What the type makes of it.
    pub map_extra: u64,
    /// Name, filled up with NUL.
    pub name: [u8; OBJ_NAME_LEN],
}

impl MapDef {
    /// Bytes of one CPU's part of a value, or of an element's place: rounded up to 8.
    pub const fn elem_size(&self) -> usize {
        (self.value_size as usize).next_multiple_of(8)
    }

    /// Bytes of a value on the bpf(2) side.
    pub const fn user_value_size(&self, nr_cpus: u32) -> usize {
        if self.map_type.is_percpu() {
            self.elem_size() * nr_cpus as usize
        } else if self.map_type.is_fd_map() {
            4
        } else {
            self.value_size as usize
        }
    }
}

/// BTF of a map: the blob, and the types of key and value in it.
#[derive(Clone, Debug)]
pub struct MapBtf {
    /// The blob.
    pub btf: Arc<Btf>,
    /// The key's type, 0 if there is none.
    pub key_type_id: u32,
    /// The value's type.
    pub value_type_id: u32,
}

/// One map, whoever holds it: fds, pins, programs, other maps.
#[derive(Debug)]
pub struct Map {
    /// Id, unique in one kernel.
    pub id: u32,
    /// What it was made with.
    pub def: MapDef,
    /// [`MapDef::user_value_size`]
    pub user_value_size: usize,
    /// Types of key and value.
    pub btf: Option<MapBtf>,
    /// Special fields of the value: locks, timers, …
    pub fields: Fields,
    /// The environment of its kernel.
    pub env: Arc<Env>,
    /// The SHA-256 of the instructions of the only program that may use it.
    pub exclusive: Option<[u8; 32]>,
    /// System calls cannot write any more.
    pub frozen: AtomicBool,
    /// Writable mappings and write commands in flight.
    pub writers: Writers,
    /// A command that writes one element is one of them; else see [`MapOps::freeze`].
    pub counts_writes: bool,
    /// Open files and pins; when the last goes, [`MapOps::release_user_references`].
    pub user_references: AtomicU32,
    /// The memory it takes.
    pub charge: Charge,
    /// Calls of programs that were judged before, and may be made: bits that the program side gives a meaning.
    pub judged: AtomicU64,
    /// What its type does.
    pub ops: Box<dyn MapOps>,
}

/// Who makes a system call: the CPU it happens on, and what its fds stand for.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The CPU, below `nr_cpus`.
    pub cpu: u32,
    /// The caller's open files.
    pub files: &'a dyn Files,
}

/// What the fds in keys and values stand for.
pub trait Files: fmt::Debug + Sync {
    /// The object behind an fd, whatever its kind.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open (an `O_PATH` fd counts as not open).
    fn object(&self, fd: Fd) -> Result<object::Object>;

    /// As [`Files::object`], of an `O_PATH` fd too.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open.
    fn object_raw(&self, fd: Fd) -> Result<object::Object> {
        self.object(fd)
    }

    /// The open file through which the map is called, unique in one kernel: see [`MapOps::release_file`].
    fn map_file(&self) -> u64 {
        0
    }
}

/// What a type of map does. Program side: values of `value_size` bytes, in place. System call side (the `user_` methods):
/// values as bpf(2) copies them, [`MapDef::user_value_size`] bytes.
///
/// Lengths of keys and values are checked by the caller; here they are promises.
pub trait MapOps: Send + Sync + fmt::Debug {
    // --- program side -----------------------------------------------------------------------------------------------

    /// The value of a key, in place; of a per-CPU map, that CPU's part.
    fn lookup_elem(&self, _cpu: u32, _key: &[u8]) -> Option<Value<'_>> {
        None
    }

    /// The value of a key on `of_cpu`, called on `cpu` (per-CPU maps). `None` too if there is no such CPU.
    fn lookup_percpu_elem(&self, _cpu: u32, _key: &[u8], _of_cpu: u32) -> Option<Value<'_>> {
        None
    }

    /// The inner map of a key, of maps of maps.
    fn lookup_inner(&self, _key: &[u8]) -> Option<Arc<Map>> {
        None
    }

    /// Where a key leads, of maps that packets are redirected by.
    fn target(&self, _key: &[u8]) -> Option<Target> {
        None
    }

    /// The socket of a key, of maps of sockets.
    fn socket(&self, _key: &[u8]) -> Option<Arc<object::OtherObject>> {
        None
    }

    /// Makes or changes an element.
    ///
    /// # Errors
    ///
    /// Those of the type, in its order.
    fn update_elem(
        &self,
        _cpu: u32,
        _key: &[u8],
        _value: &[u8],
        _flags: UpdateFlags,
    ) -> Result<()> {
        Err(Errno::ENOTSUPP)
    }

    /// Removes an element. Both sides.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is none; `ENOTSUPP` for every type without this operation.
    fn delete_elem(&self, _cpu: u32, _key: &[u8]) -> Result<()> {
        Err(Errno::ENOTSUPP)
    }

    /// Puts a value in (queue, stack, Bloom filter). Both sides.
    ///
    /// # Errors
    ///
    /// `EINVAL` for flags, `E2BIG` if it is full; `ENOTSUPP` for every type without this operation.
    fn push_elem(&self, _value: &[u8], _flags: UpdateFlags) -> Result<()> {
        Err(Errno::ENOTSUPP)
    }

    /// Takes a value out (queue, stack). Both sides.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is none; `ENOTSUPP` for every type without this operation.
    fn pop_elem(&self, _value: &mut [u8]) -> Result<()> {
        Err(Errno::ENOTSUPP)
    }

    /// Shows the value that would be taken out (queue, stack), or asks for `value` (Bloom filter). Both sides.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is none; `ENOTSUPP` for every type without this operation.
    fn peek_elem(&self, _value: &mut [u8]) -> Result<()> {
        Err(Errno::ENOTSUPP)
    }

    /// Calls `callback(key, value)` for each element until it answers `false`; the number of calls.
    ///
    /// # Errors
    ///
    /// `ENOTSUPP` for every type without this operation.
    fn for_each_elem(
        &self,
        _cpu: u32,
        _callback: &mut dyn FnMut(&[u8], Value<'_>) -> bool,
    ) -> Result<u64> {
        Err(Errno::ENOTSUPP)
    }

    // --- system call side -------------------------------------------------------------------------------------------

    /// Copies the value of a key out. `flags` is 0, or `LOCK` where the value has a lock. Special fields show as zeros.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such key; `ENOTSUPP` for every type without this operation.
    fn user_lookup_elem(
        &self,
        _caller: &Caller<'_>,
        _key: &[u8],
        _value: &mut [u8],
        _flags: UpdateFlags,
    ) -> Result<()> {
        Err(Errno::ENOTSUPP)
    }

    /// A handle of this map for the calls that have nothing to be judged, if the type has one that is faster than `other`, which
    /// is to get all others.
    fn handle(&self, _access: Access, other: Box<dyn MapHandle>) -> Box<dyn MapHandle> {
        other
    }

    /// Commands that write one element have to be counted while they do.
    fn counts_writes(&self) -> bool {
        true
    }

    /// The map is frozen. A type whose writes are not counted ends them itself: none is in flight afterwards.
    fn freeze(&self) {}

    /// Makes or changes an element from the bytes that user space gave.
    ///
    /// # Errors
    ///
    /// Those of the type, in its order.
    fn user_update_elem(
        &self,
        caller: &Caller<'_>,
        key: &[u8],
        value: &[u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        self.update_elem(caller.cpu, key, value, flags)
    }

    /// Removes an element (for keys that are fds: with what they stand for).
    ///
    /// # Errors
    ///
    /// As [`MapOps::delete_elem`].
    fn user_delete_elem(&self, caller: &Caller<'_>, key: &[u8]) -> Result<()> {
        self.delete_elem(caller.cpu, key)
    }

    /// Copies the value of a key out and removes the element.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such key; `ENOTSUPP` for every type without this operation.
    fn user_lookup_and_delete_elem(
        &self,
        _caller: &Caller<'_>,
        _key: &[u8],
        _value: &mut [u8],
        _flags: UpdateFlags,
    ) -> Result<()> {
        Err(Errno::ENOTSUPP)
    }

    /// The key after `key`, or the first.
    ///
    /// # Errors
    ///
    /// `ENOENT` after the last one; `ENOTSUPP` for every type without this operation.
    fn get_next_key(&self, _key: Option<&[u8]>, _next_key: &mut [u8]) -> Result<()> {
        Err(Errno::ENOTSUPP)
    }

    /// Which batch commands the type has, and how its lookups go.
    fn batches(&self) -> Batches {
        Batches::default()
    }

    /// Number of buckets, of a type whose batches go by bucket.
    fn n_buckets(&self) -> u32 {
        0
    }

    /// Reads the elements of whole buckets, from `request.bucket` on, as [`BucketRequest`] says.
    fn user_lookup_buckets(&self, _caller: &Caller<'_>, _request: &mut BucketRequest) {}

    /// Whether that map may be an element of a map of maps whose template this is. Type, sizes, flags and special fields
    /// are compared already.
    ///
    /// Kernel: `kernel/bpf/syscall.c:bpf_map_meta_equal`, `kernel/bpf/arraymap.c:array_map_meta_equal`.
    fn fits_template(&self, _template: &MapDef, _map: &MapDef) -> bool {
        true
    }

    /// The memory that can be mapped, of the types that have such.
    fn mappable(&self) -> Option<&Arc<crate::store::Words>> {
        None
    }

    /// Chooses the place of a mapping, before anything else is looked at: where it is to be, or where there is room for
    /// that many bytes.
    ///
    /// # Errors
    ///
    /// Those of the type, and of finding room.
    fn get_unmapped_area(
        &self,
        request: &MapRequest,
        room: &dyn Fn(usize) -> Result<u64>,
    ) -> Result<u64> {
        match request.addr {
            0 => room(request.len),
            addr => Ok(addr),
        }
    }

    /// Judges a mapping of that memory, beyond what holds for all maps; its place is chosen.
    ///
    /// # Errors
    ///
    /// `ENOTSUPP` for every type without this operation.
    fn mmap(&self, _request: &MapRequest) -> Result<()> {
        Err(Errno::ENOTSUPP)
    }

    /// Which page of [`MapOps::mappable`] is at a page of the file that user space maps.
    fn mapped_page(&self, page: usize) -> usize {
        page
    }

    /// The state of the map's file, as poll(2) shows it.
    fn poll(&self) -> u32 {
        PollEvents::ERR.bits()
    }

    /// The last fd and the last pin are gone: arrays of programs let go of them, timers are cancelled.
    fn release_user_references(&self) {}

    /// The last dup of one open file of this map was closed (perf events belong to the file that put them).
    fn release_file(&self, _file: u64) {}

    /// A program that uses the map is being loaded.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the map belongs to programs of another kind.
    fn used_by(&self, _prog: &object::Prog) -> Result<()> {
        Ok(())
    }

    /// The type of the programs that a map belongs to, if it holds programs.
    fn owner_prog_type(&self) -> Option<crate::abi::ProgType> {
        None
    }

    /// The object of that id is gone (a process, a socket, an inode), and its elements with it.
    fn release_owner(&self, _object_id: u64) {}

    /// That cgroup is gone, and its elements with it.
    fn release_cgroup(&self, _cgroup_id: u64) {}

    /// That network interface is gone, and its elements with it.
    fn release_interface(&self, _ifindex: u32) {}

    /// The special fields that BTF finds in the value, and the BTF; told once, before anybody else can reach the map.
    fn set_fields(&mut self, _fields: Fields, _btf: Option<&Arc<Btf>>) {}

    /// What the special fields of the values hold, of a map where they can hold something.
    fn holdings(&self) -> Option<&holdings::Holdings> {
        None
    }

    /// Key and value of the element whose value begins at that word, of a map with timers or task works.
    fn elem_at(&self, _at: usize) -> Option<(Vec<u8>, Value<'_>)> {
        None
    }

    /// This type, for those who know more about it than this trait says.
    fn as_any(&self) -> &dyn std::any::Any;
}
