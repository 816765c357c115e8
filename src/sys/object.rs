//! Maps as objects: ids, `BPF_OBJ_GET_INFO_BY_FD`, `/proc/PID/fdinfo`, `BPF_MAP_FREEZE`; and `BPF_BTF_LOAD`.
//!
//! Kernel: `kernel/bpf/syscall.c` (v6.18).

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sha2::{Digest, Sha256};

use super::Kernel;
use super::files::{Held, MapUser};
use crate::abi::{
    Attr, Caps, Cmd, Errno, Fd, INFO_SIZE, MapFlags, MapInfo, MapType, Result, UserMem,
};
use crate::btf::Btf;
use crate::env::PAGE_SIZE;
use crate::map::Map;
use crate::map::object::Object;
use crate::store::WORD;

/// Ids are below this.
const MAX_ID: u32 = i32::MAX.cast_unsigned();
/// Bytes of a SHA-256.
const HASH_SIZE: u32 = 32;
/// Bytes of `bpf_map_info` up to its padding.
const INFO_FIELDS: usize = 100;
/// The largest BTF.
const BTF_MAX_SIZE: u32 = 16 << 20;

impl Kernel {
    /// Kernel: `bpf_obj_get_next_id`.
    pub(super) fn map_get_next_id(
        &self,
        addr: u64,
        attr: Attr<'_>,
        mem: &mut dyn UserMem,
    ) -> Result<u32> {
        const NEXT_ID_AT: u64 = 4;
        let start = attr.u32(0);
        if start >= MAX_ID {
            return Err(Errno::EINVAL);
        }
        self.sys_admin()?;
        let next = self.next_map_id(start).ok_or(Errno::ENOENT)?;
        mem.write(addr.wrapping_add(NEXT_ID_AT), &next.to_ne_bytes())?;
        Ok(0)
    }

    fn next_map_id(&self, after: u32) -> Option<u32> {
        let maps = self.inner.maps.read();
        maps.range(after + 1..)
            .find(|(_, map)| map.strong_count() > 0)
            .map(|(&id, _)| id)
    }

    fn sys_admin(&self) -> Result<()> {
        if self.inner.caps().contains(Caps::SYS_ADMIN) {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    /// Kernel: `bpf_map_get_fd_by_id`.
    pub(super) fn map_get_fd_by_id(&self, attr: Attr<'_>) -> Result<u32> {
        let id = attr.u32(0);
        let flags = MapFlags::from_bits_retain(attr.u32(8));
        let known = MapFlags::RDONLY | MapFlags::WRONLY;
        if !known.contains(flags) {
            return Err(Errno::EINVAL);
        }
        self.sys_admin()?;
        if flags == known {
            return Err(Errno::EINVAL);
        }
        let map = self
            .inner
            .maps
            .read()
            .get(&id)
            .and_then(|map| map.upgrade());
        let held = Held::Map(MapUser::new(map.ok_or(Errno::ENOENT)?));
        self.open_with(held, flags)
    }

    /// A new fd, with the access that flags leave.
    pub(super) fn open_with(&self, held: Held, flags: MapFlags) -> Result<Fd> {
        let read = !flags.contains(MapFlags::WRONLY);
        let write = !flags.contains(MapFlags::RDONLY);
        let file = self.inner.file(held, read, write, false);
        self.inner.files.install(file)
    }

    /// Kernel: `bpf_obj_get_info_by_fd`.
    pub(super) fn obj_get_info_by_fd(
        &self,
        addr: u64,
        attr: Attr<'_>,
        mem: &mut dyn UserMem,
    ) -> Result<u32> {
        let (fd, len, info) = (attr.u32(0), attr.u32(4) as usize, attr.u64(8));
        let file = self.inner.files.get(fd).map_err(|_| Errno::EBADFD)?;
        match file.held.object() {
            Object::Map(map) => map_info(&map, addr, len, info, mem),
            // Nothing of the info is asked for, and no byte of it written.
            Object::Btf(_) | Object::Prog(_) if len == 0 => Ok(0),
            Object::Btf(_) => Err(self.no_info("BTF")),
            Object::Prog(_) => Err(self.no_info("programs")),
            Object::Cgroup(_) | Object::Other(_) => Err(Errno::EINVAL),
        }
    }

    fn no_info(&self, kind: &str) -> Errno {
        let what = format_args!("BPF_OBJ_GET_INFO_BY_FD of {kind}");
        self.inner.env.unsupported(what)
    }

    /// The map's lines of `/proc/PID/fdinfo/FD`: `name:\tvalue`.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open, `EINVAL` if it is no map.
    ///
    /// Kernel: `bpf_map_show_fdinfo`.
    pub fn fdinfo(&self, fd: Fd) -> Result<String> {
        let map = self.map(fd)?;
        let def = &map.def;
        let mut out = String::new();
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            // Writing to a string does not fail.
            let _ = writeln!(out, "{name}:\t{value}");
        };
        line("map_type", &def.map_type.0);
        line("key_size", &def.key_size);
        line("value_size", &def.value_size);
        line("max_entries", &def.max_entries);
        line("map_flags", &format_args!("{:#x}", def.map_flags.bits()));
        line("map_extra", &format_args!("{:#x}", def.map_extra));
        line("memlock", &map.charge.bytes());
        line("map_id", &map.id);
        line("frozen", &u32::from(map.frozen.load(Ordering::Acquire)));
        if let Some(owner) = map.ops.owner_prog_type() {
            line("owner_prog_type", &owner.0);
            line("owner_jited", &1);
        }
        Ok(out)
    }

    /// Kernel: `map_freeze`.
    pub(super) fn map_freeze(&self, attr: Attr<'_>) -> Result<u32> {
        let file = self.inner.files.get(attr.u32(0))?;
        let map = file.map()?;
        if !map.fields.0.is_empty() || map.def.map_type == MapType::STRUCT_OPS {
            return Err(Errno::ENOTSUPP);
        }
        let _freezing = self.inner.freezing.lock();
        if !file.write || map.frozen.load(Ordering::Acquire) {
            return Err(Errno::EPERM);
        }
        if map.writers.load(Ordering::Acquire) > 0 {
            return Err(Errno::EBUSY);
        }
        map.frozen.store(true, Ordering::Release);
        if let Some(table) = map.ops.table() {
            table.pass_locks();
        }
        Ok(0)
    }

    /// The log that the caller may ask for stays empty.
    ///
    /// Kernel: `bpf_btf_load`, `kernel/bpf/btf.c:btf_parse`.
    pub(super) fn btf_load(&self, attr: Attr<'_>, mem: &mut dyn UserMem) -> Result<u32> {
        const TOKEN_FD: u32 = 1 << 16;
        let (data, size, flags) = (attr.u64(0), attr.u32(16), attr.u32(32));
        if flags & !TOKEN_FD != 0 {
            return Err(Errno::EINVAL);
        }
        if flags & TOKEN_FD != 0 {
            // No file here is a token.
            self.inner.files.get(attr.u32(36))?;
            return Err(Errno::EINVAL);
        }
        if !self.inner.caps().capable(Caps::BPF) {
            return Err(Errno::EPERM);
        }
        if size > BTF_MAX_SIZE {
            return Err(Errno::E2BIG);
        }
        btf_log(attr, mem)?;
        let mut bytes = vec![0; size as usize];
        mem.read(data, &mut bytes)?;
        let id = self.inner.next_ids.btf.fetch_add(1, Ordering::Relaxed);
        let btf = Arc::new(Btf::parse(&bytes, id)?);
        self.inner.open(Held::Object(Object::Btf(btf)))
    }

    /// No file here is the root of a bpffs that gives rights away.
    ///
    /// Kernel: `kernel/bpf/token.c:bpf_token_create`.
    pub(super) fn token_create(&self, attr: Attr<'_>) -> Result<u32> {
        let (flags, fd) = (attr.u32(0), attr.u32(4));
        if flags == 0 {
            self.inner.files.any(fd)?;
        }
        Err(Errno::EINVAL)
    }

    /// The caller may load no program of any type.
    fn may_not_load(&self) -> bool {
        let disabled = self.inner.unprivileged_bpf_disabled.load(Ordering::Relaxed) != 0;
        disabled && !self.inner.caps().capable(Caps::BPF)
    }

    /// The answer to what bpf(2) can do and this kernel cannot; the fd of a program is looked at.
    pub(super) fn not_emulated(&self, cmd: Cmd, attr: Attr<'_>) -> Errno {
        // Offset of the program's fd, and the first byte after the last field.
        let prog_fd = match cmd {
            Cmd::PROG_TEST_RUN => Some((0, 76)),
            Cmd::PROG_BIND_MAP => Some((0, 12)),
            Cmd::PROG_STREAM_READ_BY_FD => Some((16, 20)),
            Cmd::PROG_LOAD if self.may_not_load() => return Errno::EPERM,
            _ => None,
        };
        if let Some((at, end)) = prog_fd {
            if !attr.zero_from(end) {
                return Errno::EINVAL;
            }
            if let Err(errno) = self.prog(attr.u32(at)) {
                return errno;
            }
        }
        self.inner.env.unsupported(format_args!("BPF_{cmd}"))
    }
}

/// Kernel: `bpf_map_get_info_by_fd`.
fn map_info(map: &Map, addr: u64, len: usize, info: u64, mem: &mut dyn UserMem) -> Result<u32> {
    const INFO_LEN_AT: u64 = 4;
    if len > PAGE_SIZE {
        return Err(Errno::E2BIG);
    }
    if len > INFO_SIZE {
        super::zero_in(mem, info.wrapping_add(INFO_SIZE as u64), len - INFO_SIZE)?;
    }
    let len = len.min(INFO_SIZE);
    let mut bytes = [0; INFO_SIZE];
    if len > 0 {
        mem.read(info, &mut bytes[..len])?;
    }
    if bytes[INFO_FIELDS..].iter().any(|&byte| byte != 0) {
        return Err(Errno::E2BIG);
    }
    let asked = Attr(&bytes);
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
    told.encode(&mut bytes);
    if len > 0 {
        mem.write(info, &bytes[..len])?;
    }
    let len = u32::try_from(len).expect("at most a page");
    mem.write(addr.wrapping_add(INFO_LEN_AT), &len.to_ne_bytes())?;
    Ok(0)
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

/// # Errors
///
/// `EINVAL` for a log that is no log; `EFAULT` if it cannot be written.
///
/// Kernel: `kernel/bpf/log.c:bpf_verifier_log_attr_valid`.
fn btf_log(attr: Attr<'_>, mem: &mut dyn UserMem) -> Result<()> {
    const LEVELS: u32 = 0xf;
    let (log, size, level) = (attr.u64(8), attr.u32(20), attr.u32(24));
    let valid = (log != 0) == (size != 0)
        && (log == 0 || level != 0)
        && level & !LEVELS == 0
        && size <= u32::MAX >> 2;
    if !valid {
        return Err(Errno::EINVAL);
    }
    if log != 0 {
        mem.write(log, &[0])?;
    }
    Ok(())
}
