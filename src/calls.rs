//! bpf(2) by the names that everyone knows from libbpf, with byte slices, over any [`Bpf`].
//!
//! Lengths are the caller's: a slice that is shorter than the kernel wants is `EFAULT`, as memory that ends there would
//! be. Each call gives what the kernel answers.

use crate::abi::{
    BatchAttr, Bpf, Cmd, Errno, Fd, INFO_SIZE, MapInfo, MapType, Memory, OBJ_NAME_LEN, Result,
};

/// The rest of what `BPF_MAP_CREATE` takes. libbpf: `struct bpf_map_create_opts`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CreateOpts {
    /// Flags, `BPF_F_*`.
    pub map_flags: u32,
    /// What the type makes of it.
    pub map_extra: u64,
    /// NUMA node, with `BPF_F_NUMA_NODE`.
    pub numa_node: u32,
    /// The template of a map of maps.
    pub inner_map_fd: Fd,
    /// BTF with the types of key and value.
    pub btf_fd: Fd,
    /// The key's type.
    pub btf_key_type_id: u32,
    /// The value's type.
    pub btf_value_type_id: u32,
}

/// The words of an attr, put at their offsets.
struct AttrBytes<const N: usize>([u8; N]);

impl<const N: usize> AttrBytes<N> {
    const fn new() -> Self {
        Self([0; N])
    }

    fn u32(mut self, at: usize, word: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        self
    }

    fn u64(mut self, at: usize, word: u64) -> Self {
        self.0[at..at + 8].copy_from_slice(&word.to_ne_bytes());
        self
    }

    fn bytes(mut self, at: usize, bytes: &[u8]) -> Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Makes the call; the attr then holds what the kernel wrote back.
    fn call<'a>(&'a mut self, bpf: &dyn Bpf, cmd: Cmd, mut mem: Memory<'a>) -> Result<u32> {
        let size = u32::try_from(N).expect("attrs are small");
        let attr = mem.output(&mut self.0);
        bpf.bpf(cmd, attr, size, &mut mem)
    }

    fn u32_at(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.0[at..at + 4].try_into().expect("4 bytes"))
    }
}

/// Makes a map; its fd.
///
/// # Errors
///
/// `EINVAL` for a name of more than 15 bytes; else what `BPF_MAP_CREATE` answers.
pub fn bpf_map_create(
    bpf: &dyn Bpf,
    map_type: MapType,
    map_name: &str,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    opts: &CreateOpts,
) -> Result<Fd> {
    if map_name.len() >= OBJ_NAME_LEN {
        return Err(Errno::EINVAL);
    }
    AttrBytes::<80>::new()
        .u32(0, map_type.0)
        .u32(4, key_size)
        .u32(8, value_size)
        .u32(12, max_entries)
        .u32(16, opts.map_flags)
        .u32(20, opts.inner_map_fd)
        .u32(24, opts.numa_node)
        .bytes(28, map_name.as_bytes())
        .u32(48, opts.btf_fd)
        .u32(52, opts.btf_key_type_id)
        .u32(56, opts.btf_value_type_id)
        .u64(64, opts.map_extra)
        .call(bpf, Cmd::MAP_CREATE, Memory::new())
}

/// Makes or changes an element. `flags`: `BPF_ANY` 0, `BPF_NOEXIST` 1, `BPF_EXIST` 2, with `BPF_F_LOCK` 4.
///
/// # Errors
///
/// What `BPF_MAP_UPDATE_ELEM` answers.
pub fn bpf_map_update_elem(
    bpf: &dyn Bpf,
    fd: Fd,
    key: &[u8],
    value: &[u8],
    flags: u64,
) -> Result<()> {
    let mut mem = Memory::new();
    let (key, value) = (mem.input(key), mem.input(value));
    elem(fd, key, value, flags)
        .call(bpf, Cmd::MAP_UPDATE_ELEM, mem)
        .map(|_| ())
}

/// Copies the value of a key out.
///
/// # Errors
///
/// What `BPF_MAP_LOOKUP_ELEM` answers.
pub fn bpf_map_lookup_elem(bpf: &dyn Bpf, fd: Fd, key: &[u8], value: &mut [u8]) -> Result<()> {
    bpf_map_lookup_elem_flags(bpf, fd, key, value, 0)
}

/// Copies the value of a key out. `flags`: 0 or `BPF_F_LOCK` 4.
///
/// # Errors
///
/// What `BPF_MAP_LOOKUP_ELEM` answers.
pub fn bpf_map_lookup_elem_flags(
    bpf: &dyn Bpf,
    fd: Fd,
    key: &[u8],
    value: &mut [u8],
    flags: u64,
) -> Result<()> {
    let mut mem = Memory::new();
    let (key, value) = (mem.input(key), mem.output(value));
    elem(fd, key, value, flags)
        .call(bpf, Cmd::MAP_LOOKUP_ELEM, mem)
        .map(|_| ())
}

/// Copies the value of a key out and removes the element.
///
/// # Errors
///
/// What `BPF_MAP_LOOKUP_AND_DELETE_ELEM` answers.
pub fn bpf_map_lookup_and_delete_elem(
    bpf: &dyn Bpf,
    fd: Fd,
    key: &[u8],
    value: &mut [u8],
) -> Result<()> {
    bpf_map_lookup_and_delete_elem_flags(bpf, fd, key, value, 0)
}

/// Copies the value of a key out and removes the element. `flags`: 0 or `BPF_F_LOCK` 4.
///
/// # Errors
///
/// What `BPF_MAP_LOOKUP_AND_DELETE_ELEM` answers.
pub fn bpf_map_lookup_and_delete_elem_flags(
    bpf: &dyn Bpf,
    fd: Fd,
    key: &[u8],
    value: &mut [u8],
    flags: u64,
) -> Result<()> {
    let mut mem = Memory::new();
    let (key, value) = (mem.input(key), mem.output(value));
    elem(fd, key, value, flags)
        .call(bpf, Cmd::MAP_LOOKUP_AND_DELETE_ELEM, mem)
        .map(|_| ())
}

/// Removes an element.
///
/// # Errors
///
/// What `BPF_MAP_DELETE_ELEM` answers.
pub fn bpf_map_delete_elem(bpf: &dyn Bpf, fd: Fd, key: &[u8]) -> Result<()> {
    let mut mem = Memory::new();
    let key = mem.input(key);
    elem(fd, key, 0, 0)
        .call(bpf, Cmd::MAP_DELETE_ELEM, mem)
        .map(|_| ())
}

/// The key after `key`, or the first.
///
/// # Errors
///
/// What `BPF_MAP_GET_NEXT_KEY` answers: `ENOENT` after the last key.
pub fn bpf_map_get_next_key(
    bpf: &dyn Bpf,
    fd: Fd,
    key: Option<&[u8]>,
    next_key: &mut [u8],
) -> Result<()> {
    let mut mem = Memory::new();
    let key = key.map_or(0, |key| mem.input(key));
    let next_key = mem.output(next_key);
    elem(fd, key, next_key, 0)
        .call(bpf, Cmd::MAP_GET_NEXT_KEY, mem)
        .map(|_| ())
}

/// The queue's and the stack's push, and the Bloom filter's: an update without a key.
///
/// # Errors
///
/// What `BPF_MAP_UPDATE_ELEM` answers.
pub fn bpf_map_push_elem(bpf: &dyn Bpf, fd: Fd, value: &[u8], flags: u64) -> Result<()> {
    let mut mem = Memory::new();
    let value = mem.input(value);
    elem(fd, 0, value, flags)
        .call(bpf, Cmd::MAP_UPDATE_ELEM, mem)
        .map(|_| ())
}

/// The queue's and the stack's peek, and the Bloom filter's question: a lookup without a key.
///
/// # Errors
///
/// What `BPF_MAP_LOOKUP_ELEM` answers.
pub fn bpf_map_peek_elem(bpf: &dyn Bpf, fd: Fd, value: &mut [u8]) -> Result<()> {
    let mut mem = Memory::new();
    let value = mem.output(value);
    elem(fd, 0, value, 0)
        .call(bpf, Cmd::MAP_LOOKUP_ELEM, mem)
        .map(|_| ())
}

/// The queue's and the stack's pop: a lookup-and-delete without a key.
///
/// # Errors
///
/// What `BPF_MAP_LOOKUP_AND_DELETE_ELEM` answers.
pub fn bpf_map_pop_elem(bpf: &dyn Bpf, fd: Fd, value: &mut [u8]) -> Result<()> {
    let mut mem = Memory::new();
    let value = mem.output(value);
    elem(fd, 0, value, 0)
        .call(bpf, Cmd::MAP_LOOKUP_AND_DELETE_ELEM, mem)
        .map(|_| ())
}

/// System calls cannot write the map any more.
///
/// # Errors
///
/// What `BPF_MAP_FREEZE` answers: `EPERM` the second time.
pub fn bpf_map_freeze(bpf: &dyn Bpf, fd: Fd) -> Result<()> {
    AttrBytes::<4>::new()
        .u32(0, fd)
        .call(bpf, Cmd::MAP_FREEZE, Memory::new())
        .map(|_| ())
}

fn elem(fd: Fd, key: u64, value: u64, flags: u64) -> AttrBytes<32> {
    AttrBytes::new()
        .u32(0, fd)
        .u64(8, key)
        .u64(16, value)
        .u64(24, flags)
}

/// What a batch did: how many elements, and the errno that ended it.
///
/// A lookup batch that reaches the end of the map is an `ENOENT` with elements: both count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchDone {
    /// Number of elements done, as the kernel wrote it to `count`.
    pub count: u32,
    /// The answer of the call.
    pub result: Result<()>,
}

/// Reads up to `count` elements. `in_batch` is the last call's `out_batch`, or none for the start; `out_batch` has
/// `key_size` bytes, and 4 at least.
pub fn bpf_map_lookup_batch(
    bpf: &dyn Bpf,
    fd: Fd,
    in_batch: Option<&[u8]>,
    out_batch: &mut [u8],
    keys: &mut [u8],
    values: &mut [u8],
    count: u32,
) -> BatchDone {
    read_batch(
        bpf,
        Cmd::MAP_LOOKUP_BATCH,
        fd,
        in_batch,
        out_batch,
        keys,
        values,
        count,
    )
}

/// Reads up to `count` elements and removes them. See [`bpf_map_lookup_batch`].
pub fn bpf_map_lookup_and_delete_batch(
    bpf: &dyn Bpf,
    fd: Fd,
    in_batch: Option<&[u8]>,
    out_batch: &mut [u8],
    keys: &mut [u8],
    values: &mut [u8],
    count: u32,
) -> BatchDone {
    read_batch(
        bpf,
        Cmd::MAP_LOOKUP_AND_DELETE_BATCH,
        fd,
        in_batch,
        out_batch,
        keys,
        values,
        count,
    )
}

#[expect(
    clippy::too_many_arguments,
    reason = "they are those of the kernel's command"
)]
fn read_batch(
    bpf: &dyn Bpf,
    cmd: Cmd,
    fd: Fd,
    in_batch: Option<&[u8]>,
    out_batch: &mut [u8],
    keys: &mut [u8],
    values: &mut [u8],
    count: u32,
) -> BatchDone {
    let mut mem = Memory::new();
    let in_batch = in_batch.map_or(0, |token| mem.input(token));
    let (out_batch, keys, values) = (mem.output(out_batch), mem.output(keys), mem.output(values));
    batch(
        bpf,
        cmd,
        batch_attr(fd, keys, values, count)
            .u64(0, in_batch)
            .u64(8, out_batch),
        mem,
    )
}

/// Makes or changes `count` elements, one after the other. `elem_flags`: 0 or `BPF_F_LOCK` 4.
pub fn bpf_map_update_batch(
    bpf: &dyn Bpf,
    fd: Fd,
    keys: &[u8],
    values: &[u8],
    count: u32,
    elem_flags: u64,
) -> BatchDone {
    let mut mem = Memory::new();
    let (keys, values) = (mem.input(keys), mem.input(values));
    batch(
        bpf,
        Cmd::MAP_UPDATE_BATCH,
        batch_attr(fd, keys, values, count).u64(40, elem_flags),
        mem,
    )
}

/// Removes `count` elements, one after the other.
pub fn bpf_map_delete_batch(bpf: &dyn Bpf, fd: Fd, keys: &[u8], count: u32) -> BatchDone {
    let mut mem = Memory::new();
    let keys = mem.input(keys);
    batch(
        bpf,
        Cmd::MAP_DELETE_BATCH,
        batch_attr(fd, keys, 0, count),
        mem,
    )
}

fn batch_attr(fd: Fd, keys: u64, values: u64, count: u32) -> AttrBytes<56> {
    AttrBytes::new()
        .u64(16, keys)
        .u64(24, values)
        .u32(32, count)
        .u32(36, fd)
}

fn batch(bpf: &dyn Bpf, cmd: Cmd, mut attr: AttrBytes<56>, mem: Memory<'_>) -> BatchDone {
    let result = attr.call(bpf, cmd, mem).map(|_| ());
    BatchDone {
        count: attr.u32_at(BatchAttr::COUNT_AT),
        result,
    }
}

/// Gives a map, program or link a path in a bpf file system.
///
/// # Errors
///
/// What `BPF_OBJ_PIN` answers.
pub fn bpf_obj_pin(bpf: &dyn Bpf, fd: Fd, pathname: &str) -> Result<()> {
    let path = c_string(pathname);
    let mut mem = Memory::new();
    let path = mem.input(&path);
    AttrBytes::<20>::new()
        .u64(0, path)
        .u32(8, fd)
        .call(bpf, Cmd::OBJ_PIN, mem)
        .map(|_| ())
}

/// A new fd of what has that path.
///
/// # Errors
///
/// What `BPF_OBJ_GET` answers.
pub fn bpf_obj_get(bpf: &dyn Bpf, pathname: &str) -> Result<Fd> {
    let path = c_string(pathname);
    let mut mem = Memory::new();
    let path = mem.input(&path);
    AttrBytes::<20>::new()
        .u64(0, path)
        .call(bpf, Cmd::OBJ_GET, mem)
}

fn c_string(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// The lowest id of a map that is above `start_id`.
///
/// # Errors
///
/// What `BPF_MAP_GET_NEXT_ID` answers: `ENOENT` after the last.
pub fn bpf_map_get_next_id(bpf: &dyn Bpf, start_id: u32) -> Result<u32> {
    let mut attr = AttrBytes::<12>::new().u32(0, start_id);
    attr.call(bpf, Cmd::MAP_GET_NEXT_ID, Memory::new())?;
    Ok(attr.u32_at(4))
}

/// A new fd of the map with that id.
///
/// # Errors
///
/// What `BPF_MAP_GET_FD_BY_ID` answers: `ENOENT` if there is none.
pub fn bpf_map_get_fd_by_id(bpf: &dyn Bpf, id: u32) -> Result<Fd> {
    AttrBytes::<12>::new()
        .u32(0, id)
        .call(bpf, Cmd::MAP_GET_FD_BY_ID, Memory::new())
}

/// What the kernel tells of a map.
///
/// # Errors
///
/// What `BPF_OBJ_GET_INFO_BY_FD` answers.
pub fn bpf_map_get_info_by_fd(bpf: &dyn Bpf, fd: Fd) -> Result<MapInfo> {
    let mut info = [0; INFO_SIZE];
    let mut mem = Memory::new();
    let addr = mem.output(&mut info);
    let len = u32::try_from(INFO_SIZE).expect("it is small");
    AttrBytes::<16>::new()
        .u32(0, fd)
        .u32(4, len)
        .u64(8, addr)
        .call(bpf, Cmd::OBJ_GET_INFO_BY_FD, mem)?;
    Ok(MapInfo::decode(&info))
}

/// Loads BTF; its fd.
///
/// # Errors
///
/// What `BPF_BTF_LOAD` answers.
pub fn bpf_btf_load(bpf: &dyn Bpf, btf_data: &[u8]) -> Result<Fd> {
    let size = u32::try_from(btf_data.len()).map_err(|_| Errno::E2BIG)?;
    let mut mem = Memory::new();
    let data = mem.input(btf_data);
    AttrBytes::<32>::new()
        .u64(0, data)
        .u32(16, size)
        .call(bpf, Cmd::BTF_LOAD, mem)
}

/// Attaches a program to a cgroup.
///
/// # Errors
///
/// What `BPF_PROG_ATTACH` answers.
pub fn bpf_prog_attach(
    bpf: &dyn Bpf,
    prog_fd: Fd,
    target_fd: Fd,
    attach_type: u32,
    flags: u32,
) -> Result<()> {
    AttrBytes::<32>::new()
        .u32(0, target_fd)
        .u32(4, prog_fd)
        .u32(8, attach_type)
        .u32(12, flags)
        .call(bpf, Cmd::PROG_ATTACH, Memory::new())
        .map(|_| ())
}

/// Detaches that program from a cgroup. libbpf: `bpf_prog_detach2`.
///
/// # Errors
///
/// What `BPF_PROG_DETACH` answers.
pub fn bpf_prog_detach2(bpf: &dyn Bpf, prog_fd: Fd, target_fd: Fd, attach_type: u32) -> Result<()> {
    AttrBytes::<32>::new()
        .u32(0, target_fd)
        .u32(4, prog_fd)
        .u32(8, attach_type)
        .call(bpf, Cmd::PROG_DETACH, Memory::new())
        .map(|_| ())
}
