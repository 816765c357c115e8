//! Maps, programs, BTF and links as objects: their ids, `BPF_MAP_FREEZE`; and `BPF_BTF_LOAD`.
//!
//! Kernel: `kernel/bpf/syscall.c` (v6.18).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::call::Call;
use super::files::{Held, MapUser};
use super::log::Log;
use crate::abi::{Attr, Caps, Cmd, Errno, Fd, MapFlags, MapType, Result, UserMem};
use crate::btf::{Btf, Field, FieldKind};
use crate::env::Release;
use crate::map::object::Object;

/// Ids are below this.
const MAX_ID: u32 = i32::MAX.cast_unsigned();
/// The largest BTF.
const BTF_MAX_SIZE: u32 = 16 << 20;

impl Call<'_> {
    /// Kernel: `bpf_obj_get_next_id`.
    pub(super) fn get_next_id(
        &self,
        cmd: Cmd,
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
        let next = match cmd {
            Cmd::PROG_GET_NEXT_ID => self.inner.progs.after(start),
            Cmd::BTF_GET_NEXT_ID => self.inner.btfs.after(start),
            Cmd::LINK_GET_NEXT_ID => self.inner.links.after(start),
            _ => self.inner.maps.after(start),
        };
        let next = next.ok_or(Errno::ENOENT)?;
        mem.write(addr.wrapping_add(NEXT_ID_AT), &next.to_ne_bytes())?;
        Ok(0)
    }

    /// # Errors
    ///
    /// `EPERM`
    pub(super) fn sys_admin(&self) -> Result<()> {
        if self.inner.caps().contains(Caps::SYS_ADMIN) {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    /// Kernel: `bpf_prog_get_fd_by_id`.
    pub(super) fn prog_get_fd_by_id(&self, attr: Attr<'_>) -> Result<u32> {
        self.sys_admin()?;
        let prog = self.inner.progs.get(attr.u32(0)).ok_or(Errno::ENOENT)?;
        self.open(Held::Object(Object::Prog(prog)))
    }

    /// Kernel: `bpf_link_get_fd_by_id`.
    pub(super) fn link_get_fd_by_id(&self, attr: Attr<'_>) -> Result<u32> {
        self.sys_admin()?;
        let link = self.inner.links.get(attr.u32(0)).ok_or(Errno::ENOENT)?;
        self.open(Held::Link(link))
    }

    /// Kernel: `bpf_btf_get_fd_by_id`.
    pub(super) fn btf_get_fd_by_id(&self, attr: Attr<'_>) -> Result<u32> {
        let (id, flags, token_fd) = (attr.u32(0), attr.u32(8), attr.u32(12));
        self.no_token(flags, token_fd)?;
        self.sys_admin()?;
        let btf = self.inner.btfs.get(id).ok_or(Errno::ENOENT)?;
        self.open_with(Held::Object(Object::Btf(btf)), MapFlags::RDONLY)
    }

    /// # Errors
    ///
    /// `EINVAL` for flags other than the token's, and for the token, as no file here is one; `EBADF` if it is not open.
    fn no_token(&self, flags: u32, fd: Fd) -> Result<()> {
        const TOKEN_FD: u32 = 1 << 16;
        if flags == TOKEN_FD {
            self.file(fd)?;
        }
        if flags == 0 {
            Ok(())
        } else {
            Err(Errno::EINVAL)
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
        let map = self.inner.maps.get(id);
        let held = Held::Map(MapUser::new(map.ok_or(Errno::ENOENT)?));
        self.open_with(held, flags)
    }

    /// Kernel: `map_freeze`.
    pub(super) fn map_freeze(&self, attr: Attr<'_>) -> Result<u32> {
        let file = self.file(attr.u32(0))?;
        let map = file.map()?;
        let release = self.inner.env.release;
        let hinders =
            |field: &Field| field.kind != FieldKind::SpinLock || release.freeze_refuses_locks;
        if map.fields.0.iter().any(hinders) || map.def.map_type == MapType::STRUCT_OPS {
            return Err(Errno::ENOTSUPP);
        }
        let _freezing = self.inner.freezing.lock();
        let frozen = map.frozen.load(Ordering::Acquire);
        if release.freeze_is_a_write && (!file.write || frozen) {
            return Err(Errno::EPERM);
        }
        if map.writers.any() || frozen {
            return Err(Errno::EBUSY);
        }
        if !release.freeze_is_a_write && !self.inner.caps().capable(Caps::BPF) {
            return Err(Errno::EPERM);
        }
        map.frozen.store(true, Ordering::SeqCst);
        map.ops.freeze();
        Ok(0)
    }

    /// Of the log that the caller may ask for only its NUL is written. `given` is how many bytes of the attr the caller has.
    ///
    /// Kernel: `bpf_btf_load`, `kernel/bpf/btf.c:btf_parse`.
    pub(super) fn btf_load(
        &self,
        addr: u64,
        given: usize,
        attr: Attr<'_>,
        mem: &mut dyn UserMem,
    ) -> Result<u32> {
        const LOG_TRUE_SIZE_AT: usize = 28;
        let (data, size) = (attr.u64(0), attr.u32(16));
        self.no_token(attr.u32(32), attr.u32(36))?;
        if !self.inner.caps().capable(Caps::BPF) {
            return Err(Errno::EPERM);
        }
        if size > BTF_MAX_SIZE {
            return Err(Errno::E2BIG);
        }
        let log = Log::new(attr.u32(24), attr.u32(20), attr.u64(8))?;
        let btf = parse_btf(data, size, self.inner.env.release, mem);
        let (true_size, written) = log.write(mem);
        if given >= LOG_TRUE_SIZE_AT + size_of::<u32>() {
            let at = addr.wrapping_add(LOG_TRUE_SIZE_AT as u64);
            mem.write(at, &true_size.to_ne_bytes())?;
        }
        written?;
        let mut btf = btf?;
        btf.id = self.inner.btfs.reserve();
        let btf = Arc::new(btf);
        self.inner.btfs.add(btf.id, &btf);
        self.open_with(Held::Object(Object::Btf(btf)), MapFlags::RDONLY)
    }

    /// No file here is the root of a bpffs that gives rights away.
    ///
    /// Kernel: `kernel/bpf/token.c:bpf_token_create`.
    pub(super) fn token_create(&self, attr: Attr<'_>) -> Result<u32> {
        let (flags, fd) = (attr.u32(0), attr.u32(4));
        if flags == 0 {
            self.any(fd)?;
        }
        Err(Errno::EINVAL)
    }

    /// The answer to what bpf(2) can do and this kernel cannot; the fd of a program is looked at.
    pub(super) fn not_emulated(&self, cmd: Cmd, attr: Attr<'_>) -> Errno {
        if cmd == Cmd::PROG_STREAM_READ_BY_FD {
            // Offset of the program's fd, and the first byte after the last field.
            const AT: (usize, usize) = (16, 20);
            if !attr.zero_from(AT.1) {
                return Errno::EINVAL;
            }
            if let Err(errno) = self.prog(attr.u32(AT.0)) {
                return errno;
            }
        }
        self.inner.env.unsupported(format_args!("BPF_{cmd}"))
    }
}

/// BTF that has no id yet.
fn parse_btf(data: u64, size: u32, release: &'static Release, mem: &dyn UserMem) -> Result<Btf> {
    let mut bytes = vec![0; size as usize];
    mem.read(data, &mut bytes)?;
    Btf::parse(&bytes, 0, release)
}
