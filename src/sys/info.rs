//! What objects tell of themselves: `BPF_OBJ_GET_INFO_BY_FD` and `/proc/PID/fdinfo`.
//!
//! Kernel: `kernel/bpf/syscall.c`, `kernel/bpf/btf.c:btf_get_info_by_fd` (v6.18).

use std::fmt::{Display, Write};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sha2::{Digest, Sha256};

use super::call::Call;
use super::fds::OpenFile;
use super::files::{Held, MapUser};
use super::link::Link;
use crate::abi::{Attr, Caps, Errno, INFO_SIZE, MapInfo, MapType, OBJ_NAME_LEN, Result, UserMem};
use crate::btf::Btf;
use crate::env::PAGE_SIZE;
use crate::map::Map;
use crate::map::object::{Object, Prog};
use crate::store::WORD;

/// Bytes of a SHA-256.
const HASH_SIZE: u32 = 32;
/// Bytes of `bpf_map_info` up to its padding.
const MAP_FIELDS: usize = 100;
/// What BTF says in it.
const MAP_BTF: Range<usize> = 64..76;
/// Bytes of `bpf_prog_info`, and up to its padding.
const PROG_SIZE: usize = 232;
const PROG_FIELDS: usize = 228;
/// Bytes of `bpf_btf_info`.
const BTF_SIZE: usize = 32;
/// Bytes of `bpf_link_info`.
const LINK_SIZE: usize = 64;
/// `BPF_LINK_TYPE_CGROUP`
const LINK_TYPE_CGROUP: u32 = 3;

/// The caller's info: what is in it, and where it goes.
struct Info<const N: usize> {
    bytes: [u8; N],
    /// Bytes that the caller has room for.
    len: usize,
    addr: u64,
}

impl<const N: usize> Info<N> {
    /// Reads what the caller has in it.
    ///
    /// # Errors
    ///
    /// `E2BIG` if it is larger than the kernel's and not zero there; `EFAULT`.
    ///
    /// Kernel: `bpf_check_uarg_tail_zero`.
    fn read(len: usize, addr: u64, mem: &dyn UserMem) -> Result<Self> {
        Self::read_known(N, len, addr, mem)
    }

    /// As [`Info::read`], of a kernel that knows only so many of the bytes.
    fn read_known(known: usize, len: usize, addr: u64, mem: &dyn UserMem) -> Result<Self> {
        if len > PAGE_SIZE {
            return Err(Errno::E2BIG);
        }
        if len > known {
            super::zero_in(mem, addr.wrapping_add(known as u64), len - known)?;
        }
        let len = len.min(known);
        let mut bytes = [0; N];
        mem.read(addr, &mut bytes[..len])?;
        Ok(Self { bytes, len, addr })
    }

    fn asked(&self) -> Attr<'_> {
        Attr(&self.bytes)
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn put_u32(&mut self, at: usize, word: u32) {
        self.put(at, &word.to_ne_bytes());
    }

    /// An array: as much of it as the caller has room for goes to the address at `addr_at`; the length at `len_at` becomes its
    /// own. `elem_size` is what the length counts.
    fn put_array(
        &mut self,
        (len_at, addr_at): (usize, usize),
        elem_size: usize,
        array: &[u8],
        mem: &mut dyn UserMem,
    ) -> Result<()> {
        let room = self.asked().u32(len_at) as usize * elem_size;
        let addr = self.asked().u64(addr_at);
        mem.write(addr, &array[..room.min(array.len())])?;
        self.put_u32(len_at, count(array.len() / elem_size));
        Ok(())
    }

    /// Writes it back; `attr` is the address of the command's attr, which learns the length.
    fn write(&self, attr: u64, mem: &mut dyn UserMem) -> Result<u32> {
        const INFO_LEN_AT: u64 = 4;
        mem.write(self.addr, &self.bytes[..self.len])?;
        let len = count(self.len).to_ne_bytes();
        mem.write(attr.wrapping_add(INFO_LEN_AT), &len)?;
        Ok(0)
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).expect("lengths of objects are small")
}

impl Call<'_> {
    /// Kernel: `bpf_obj_get_info_by_fd`.
    pub(super) fn obj_get_info_by_fd(
        &self,
        addr: u64,
        attr: Attr<'_>,
        mem: &mut dyn UserMem,
    ) -> Result<u32> {
        let (fd, len, info) = (attr.u32(0), attr.u32(4) as usize, attr.u64(8));
        let file = self.file(fd).map_err(|_| Errno::EBADFD)?;
        match &file.held {
            Held::Map(MapUser(map)) => {
                let known = map.env.release.map_info_size;
                map_info(map, Info::read_known(known, len, info, mem)?, addr, mem)
            }
            Held::Link(link) => link_info(link, Info::read(len, info, mem)?, addr, mem),
            Held::Object(Object::Btf(btf)) => btf_info(btf, Info::read(len, info, mem)?, addr, mem),
            Held::Object(Object::Prog(prog)) => {
                let insns = self.inner.caps().capable(Caps::BPF);
                prog_info(prog, insns, Info::read(len, info, mem)?, addr, mem)
            }
            Held::Object(_) => Err(Errno::EINVAL),
        }
    }
}

/// Kernel: `bpf_map_get_info_by_fd`.
fn map_info(map: &Map, mut info: Info<INFO_SIZE>, addr: u64, mem: &mut dyn UserMem) -> Result<u32> {
    if map.env.release.map_info_checks_padding && !info.asked().zero_from(MAP_FIELDS) {
        return Err(Errno::E2BIG);
    }
    let asked = info.asked();
    hash(map, asked.u64(88), asked.u32(96), mem)?;
    let btf = map.btf.as_ref();
    let told = MapInfo {
        map_type: map.def.map_type,
        id: map.id,
        key_size: map.def.key_size,
        value_size: map.def.value_size,
        max_entries: map.def.max_entries,
        map_flags: map.def.map_flags,
        name: map.def.name,
        btf_id: btf.map_or(0, |map_btf| map_btf.btf.id),
        btf_key_type_id: btf.map_or(0, |btf| btf.key_type_id),
        btf_value_type_id: btf.map_or(0, |btf| btf.value_type_id),
        map_extra: map.def.map_extra,
    };
    if !map.env.release.map_info_keeps_bytes {
        info.bytes.fill(0);
    }
    // Without BTF, what it would say is left alone.
    let of_btf = info.bytes;
    told.encode(&mut info.bytes);
    if btf.is_none() {
        info.put(MAP_BTF.start, &of_btf[MAP_BTF]);
    }
    // The type of a `struct_ops`.
    info.put_u32(44, 0);
    info.write(addr, mem)
}

/// Programs are not compiled: fields of that are 0. `insns`: the caller may see the instructions.
///
/// Kernel: `bpf_prog_get_info_by_fd`, `set_info_rec_size`.
fn prog_info(
    prog: &Prog,
    insns: bool,
    mut info: Info<PROG_SIZE>,
    addr: u64,
    mem: &mut dyn UserMem,
) -> Result<u32> {
    /// Fields that only the kernel fills: they begin as 0.
    const OURS: [Range<usize>; 7] = [
        0..20,
        40..52,
        64..80,
        104..112,
        168..172,
        192..220,
        224..228,
    ];
    if !info.asked().zero_from(PROG_FIELDS) {
        return Err(Errno::E2BIG);
    }
    let code = &prog.code;
    let ids: Vec<u8> = prog
        .all_maps()
        .iter()
        .flat_map(|map| map.id.to_ne_bytes())
        .collect();
    info.put_array((52, 56), size_of::<u32>(), &ids, mem)?;
    record_sizes(&mut info)?;
    for fields in OURS {
        info.bytes[fields].fill(0);
    }
    info.put_u32(0, prog.prog_type.0);
    info.put_u32(4, prog.id);
    info.put(8, &code.tag);
    info.put(40, &code.load_time_ns.to_ne_bytes());
    info.put(64, &name_bytes(&prog.name));
    // One bit; the others are the caller's.
    let bits = info.asked().u32(84) & !1;
    info.put_u32(84, bits | u32::from(code.gpl_compatible));
    let runs = prog.run_cnt.load(Ordering::Relaxed);
    for at in [192, 200] {
        info.put(at, &runs.to_ne_bytes());
    }
    info.put_u32(216, code.verified_insns);
    if insns {
        info.put_array((20, 32), 1, &code.insns, mem)?;
        info.put_array((144, 136), 8, &code.func_info, mem)?;
        info.put_array((148, 152), 16, &code.line_info, mem)?;
        info.put_array((180, 184), code.tag.len(), &code.tag, mem)?;
    } else {
        for len_at in [20, 144, 148] {
            info.put_u32(len_at, 0);
        }
    }
    if let Some(btf) = &code.btf {
        info.put_u32(128, btf.id);
    }
    info.put_u32(224, code.attach_btf_id);
    info.write(addr, mem)
}

/// Sizes of records that the caller asks for have to be the kernel's.
fn record_sizes(info: &mut Info<PROG_SIZE>) -> Result<()> {
    /// Of functions, lines, compiled lines: where their number is, where their size, and the size.
    const RECORDS: [(usize, usize, u32); 3] = [(144, 132, 8), (148, 172, 16), (168, 176, 8)];
    for (number_at, size_at, size) in RECORDS {
        let asked = info.asked();
        if (asked.u32(number_at) != 0 || asked.u32(size_at) != 0) && asked.u32(size_at) != size {
            return Err(Errno::EINVAL);
        }
        info.put_u32(size_at, size);
    }
    Ok(())
}

/// A name as the kernel has it: bytes of Latin-1, filled up with NUL.
fn name_bytes(name: &str) -> [u8; OBJ_NAME_LEN] {
    let mut bytes = [0; OBJ_NAME_LEN];
    for (byte, char) in bytes[..OBJ_NAME_LEN - 1].iter_mut().zip(name.chars()) {
        *byte = u8::try_from(u32::from(char)).unwrap_or(b'_');
    }
    bytes
}

/// Kernel: `btf_get_info_by_fd`.
fn btf_info(btf: &Btf, mut info: Info<BTF_SIZE>, addr: u64, mem: &mut dyn UserMem) -> Result<u32> {
    info.put_u32(12, btf.id);
    info.put_array((8, 0), 1, btf.data(), mem)?;
    // Only the kernel's own BTF has a name.
    info.put_u32(28, 0);
    let (name, room) = (info.asked().u64(16), info.asked().u32(24));
    if (name != 0) != (room != 0) {
        return Err(Errno::EINVAL);
    }
    if name != 0 {
        mem.write(name, &[0])?;
    }
    info.put_u32(24, 0);
    info.write(addr, mem)
}

/// Kernel: `bpf_link_get_info_by_fd`, `bpf_cgroup_link_fill_link_info`.
fn link_info(
    link: &Link,
    mut info: Info<LINK_SIZE>,
    addr: u64,
    mem: &mut dyn UserMem,
) -> Result<u32> {
    info.put_u32(0, LINK_TYPE_CGROUP);
    info.put_u32(4, link.id);
    let prog_id = link.prog.lock().id;
    info.put_u32(8, prog_id);
    info.put(16, &link.attached_to().unwrap_or(0).to_ne_bytes());
    info.put_u32(24, link.attach_type.0);
    info.write(addr, mem)
}

/// The SHA-256 of a frozen array's elements, if it was asked for.
///
/// Kernel: `kernel/bpf/arraymap.c:array_map_get_hash`.
fn hash(map: &Map, addr: u64, size: u32, mem: &mut dyn UserMem) -> Result<()> {
    if addr == 0 {
        return if size == 0 {
            Ok(())
        } else {
            Err(Errno::EINVAL)
        };
    }
    if map.def.map_type != MapType::ARRAY || size != HASH_SIZE {
        return Err(Errno::EINVAL);
    }
    if !map.frozen.load(Ordering::Acquire) {
        return Err(Errno::EPERM);
    }
    let mut hash = Sha256::new();
    for index in 0..map.def.max_entries {
        let value = map.ops.lookup_elem(0, &index.to_ne_bytes());
        let value = value.expect("arrays have all their elements");
        let (words, at) = value.place();
        let mut word = [0; WORD];
        for at in at..at + map.def.elem_size() / WORD {
            words.read(at, &mut word);
            hash.update(word);
        }
    }
    mem.write(addr, &hash.finalize())
}

impl OpenFile {
    /// The lines of `/proc/PID/fdinfo/FD` that the file of a BPF object adds: `name:\tvalue`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is no BPF object.
    ///
    /// Kernel: `bpf_map_show_fdinfo`, `bpf_prog_show_fdinfo`, `bpf_link_show_fdinfo`, `bpf_btf_show_fdinfo`.
    pub fn fdinfo(&self) -> Result<String> {
        let mut lines = Lines(String::new());
        match &self.0.held {
            Held::Map(MapUser(map)) => lines.map(map),
            Held::Link(link) => lines.link(link),
            Held::Object(Object::Prog(prog)) => lines.prog(prog),
            Held::Object(Object::Btf(btf)) => lines.add("btf_id", btf.id),
            Held::Object(_) => return Err(Errno::EINVAL),
        }
        Ok(lines.0)
    }
}

struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, value: impl Display) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{name}:\t{value}");
    }

    fn map(&mut self, map: &Map) {
        let def = &map.def;
        self.add("map_type", def.map_type.0);
        self.add("key_size", def.key_size);
        self.add("value_size", def.value_size);
        self.add("max_entries", def.max_entries);
        self.add("map_flags", format_args!("{:#x}", def.map_flags.bits()));
        if map.env.release.fdinfo_has_map_extra {
            self.add("map_extra", format_args!("{:#x}", def.map_extra));
        }
        self.add("memlock", map.charge.bytes());
        self.add("map_id", map.id);
        self.add("frozen", u32::from(map.frozen.load(Ordering::Acquire)));
        if let Some(owner) = map.ops.owner_prog_type() {
            self.add("owner_prog_type", owner.0);
            self.add("owner_jited", 1);
        }
    }

    fn prog(&mut self, prog: &Prog) {
        /// Bytes of the kernel's own, before the instructions.
        const HEAD: usize = 72;
        let code = &prog.code;
        let memory = (HEAD + code.insns.len()).next_multiple_of(PAGE_SIZE);
        self.add("prog_type", prog.prog_type.0);
        self.add("prog_jited", 0);
        self.tag(prog);
        self.add("memlock", memory);
        self.add("prog_id", prog.id);
        // Each run takes 1 ns.
        for name in ["run_time_ns", "run_cnt"] {
            self.add(name, prog.run_cnt.load(Ordering::Relaxed));
        }
        self.add("recursion_misses", 0);
        self.add("verified_insns", code.verified_insns);
    }

    fn tag(&mut self, prog: &Prog) {
        let tag = u64::from_be_bytes(prog.code.tag);
        self.add("prog_tag", format_args!("{tag:016x}"));
    }

    fn link(&mut self, link: &Link) {
        let prog = Arc::clone(&*link.prog.lock());
        self.add("link_type", "cgroup");
        self.add("link_id", link.id);
        self.tag(&prog);
        self.add("prog_id", prog.id);
        self.add("cgroup_id", link.attached_to().unwrap_or(0));
        self.add("attach_type", link.attach_type.0);
    }
}
