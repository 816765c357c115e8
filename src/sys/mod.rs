//! bpf(2): [`Kernel`], and the table of commands.
//!
//! Attrs come in as addresses and leave `sys` as slices; the maps judge what is in them. The order of the checks is part
//! of the behaviour, and is the kernel's.
//!
//! Kernel: `kernel/bpf/syscall.c` (v6.18).

mod attach;
mod batch;
mod builder;
mod call;
mod cgroup;
mod create;
mod elem;
mod fds;
mod files;
mod handle;
mod helpers;
mod ids;
mod info;
mod insn;
mod kernel;
mod link;
mod log;
mod mmap;
mod object;
mod perf;
mod pin;
mod prog;
mod prog_load;
mod query;
mod records;
mod reserved;
#[cfg(all(target_os = "linux", any(feature = "interpose", feature = "run")))]
pub(crate) mod socket;
mod space;
mod straight;
mod structure;
mod test_run;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use crate::abi::{
    Attr, BatchAttr, Bpf, Caps, Cmd, ElemAttr, Errno, Fd, LinkAttr, MapHandle, MapRequest, Mapping,
    Memory, ObjAttr, PerfEvent, PollEvents, ProgAttachAttr, ProgLoadAttr, Result, UserMem,
};
use crate::btf::Btf;
use crate::env::Env;
use crate::map::Map;
use crate::map::object::{OtherKind, OtherObject, Prog};
pub use attach::Attached;
pub use builder::Builder;
use call::Call;
use cgroup::Cgroups;
pub use fds::{Fds, FileKind, OpenFile};
use files::{FdTable, File, Held};
use handle::Handle;
use ids::Ids;
pub use kernel::ProgDef;
use link::Link;
pub use mmap::Granted;
use pin::Bpffs;
pub use test_run::{Machine, TestRun};

/// An emulated kernel, as one process uses it from one CPU.
///
/// Cloned like an `Arc`: all clones are the same kernel with the same fds.
#[derive(Clone)]
pub struct Kernel {
    inner: Arc<Inner>,
    cpu: u32,
}

/// What all handles of one kernel share.
#[derive(Debug)]
struct Inner {
    env: Arc<Env>,
    files: FdTable,
    caps: AtomicU64,
    unprivileged_bpf_disabled: AtomicU32,
    maps: Ids<Map>,
    progs: Ids<Prog>,
    btfs: Ids<Btf>,
    links: Ids<Link>,
    next_file: AtomicU64,
    next_object: AtomicU64,
    bpffs: Mutex<Bpffs>,
    cgroups: Arc<Mutex<Cgroups>>,
    /// Sockets that were made in a cgroup: their object's id, and the cgroup's.
    sockets: Mutex<BTreeMap<u64, u64>>,
    /// Where mappings are.
    space: Arc<space::Space>,
    /// Freezing a map and mapping its memory exclude each other.
    freezing: Mutex<()>,
    /// The open files that have runs counted.
    counting: Mutex<Vec<Weak<OtherObject>>>,
    /// What runs programs, if anything does.
    machine: OnceLock<Arc<dyn Machine>>,
}

impl Inner {
    /// Somebody has runs of programs counted.
    fn counts_runs(&self) -> bool {
        let mut counting = self.counting.lock();
        counting.retain(|file| file.strong_count() > 0);
        !counting.is_empty()
    }

    fn caps(&self) -> Caps {
        Caps::from_bits_retain(self.caps.load(Ordering::Relaxed))
    }

    /// A new open file; a number for it that no other has.
    fn file(&self, held: Held, read: bool, write: bool, path_only: bool) -> Arc<File> {
        Arc::new(File {
            id: self.next_file.fetch_add(1, Ordering::Relaxed),
            held,
            read,
            write,
            path_only,
        })
    }

    fn other(&self, kind: OtherKind) -> Arc<OtherObject> {
        let id = self.next_object.fetch_add(1, Ordering::Relaxed);
        Arc::new(OtherObject::new(id, kind))
    }
}

/// Room for an attr of any release.
const ATTR_ROOM: usize = 256;

/// Room for the attr of all commands that are called often.
const SMALL_ATTR: usize = 64;

/// An attr is never larger.
const ATTR_MAX: usize = crate::env::PAGE_SIZE;

impl Kernel {
    /// One call of bpf(2), with the caller's memory of any kind.
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    ///
    /// Kernel: `kernel/bpf/syscall.c:__sys_bpf` (v6.18).
    pub fn bpf_with(&self, cmd: Cmd, attr: u64, size: u32, mem: &mut dyn UserMem) -> Result<u32> {
        self.bpf_in(&self.inner.files, cmd, attr, size, mem)
    }

    /// One call of bpf(2) of a caller with fds of its own: all fds in the attr, in keys and in values are looked up there, and
    /// new ones are made there.
    ///
    /// # Errors
    ///
    /// What the kernel answers, and what `fds` does.
    pub fn bpf_in(
        &self,
        fds: &dyn Fds,
        cmd: Cmd,
        attr: u64,
        size: u32,
        mem: &mut dyn UserMem,
    ) -> Result<u32> {
        let call = self.call(fds);
        let size = size as usize;
        let release = self.inner.env.release;
        let known = release.attr_size;
        let makes = matches!(cmd, Cmd::MAP_CREATE | Cmd::PROG_LOAD);
        if release.commands_need_rights || release.create_rights_first && makes {
            call.may_call()?;
        }
        if size > ATTR_MAX {
            return Err(Errno::E2BIG);
        }
        if size > known {
            zero_in(mem, attr.wrapping_add(known as u64), size - known)?;
        }
        // What lies past the bytes that were given counts as zero.
        let given = size.min(known);
        if given <= SMALL_ATTR {
            let mut room = [0; SMALL_ATTR];
            if given > 0 {
                mem.read(attr, &mut room[..given])?;
            }
            return call.command(cmd, attr, given, Attr(&room[..]), mem);
        }
        let mut room = [0; ATTR_ROOM];
        mem.read(attr, &mut room[..given])?;
        call.command(cmd, attr, given, Attr(&room[..given]), mem)
    }
}

impl Call<'_> {
    /// # Errors
    ///
    /// `EPERM` without `CAP_BPF`, while unprivileged users may not call.
    fn may_call(&self) -> Result<()> {
        let disabled = self.inner.unprivileged_bpf_disabled.load(Ordering::Relaxed) != 0;
        if disabled && !self.inner.caps().capable(Caps::BPF) {
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    /// The table of commands. `addr` is the attr's address, for what is written back, and `given` its size.
    fn command(
        &self,
        cmd: Cmd,
        addr: u64,
        given: usize,
        attr: Attr<'_>,
        mem: &mut dyn UserMem,
    ) -> Result<u32> {
        /// The bytes after the command's last field have to be zero.
        fn tail(attr: Attr<'_>, end: usize) -> Result<Attr<'_>> {
            if attr.zero_from(end) {
                Ok(attr)
            } else {
                Err(Errno::EINVAL)
            }
        }
        let release = self.inner.env.release;
        if cmd.0 >= release.commands {
            return Err(Errno::EINVAL);
        }
        match cmd {
            Cmd::MAP_LOOKUP_ELEM => self.map_lookup_elem(tail(attr, ElemAttr::END)?, mem),
            Cmd::MAP_UPDATE_ELEM => self.map_update_elem(tail(attr, ElemAttr::END)?, mem),
            Cmd::MAP_DELETE_ELEM => self.map_delete_elem(tail(attr, 16)?, mem),
            Cmd::MAP_GET_NEXT_KEY => self.map_get_next_key(tail(attr, 24)?, mem),
            Cmd::MAP_LOOKUP_AND_DELETE_ELEM => {
                let end = release.lookup_and_delete_end;
                self.map_lookup_and_delete_elem(tail(attr, end)?, mem)
            }
            Cmd::MAP_LOOKUP_BATCH
            | Cmd::MAP_LOOKUP_AND_DELETE_BATCH
            | Cmd::MAP_UPDATE_BATCH
            | Cmd::MAP_DELETE_BATCH => self.batch(cmd, addr, tail(attr, BatchAttr::END)?, mem),
            Cmd::MAP_CREATE => self.map_create(tail(attr, release.map_create_end)?, mem),
            Cmd::MAP_FREEZE => self.map_freeze(tail(attr, 4)?),
            Cmd::PROG_GET_NEXT_ID
            | Cmd::MAP_GET_NEXT_ID
            | Cmd::BTF_GET_NEXT_ID
            | Cmd::LINK_GET_NEXT_ID => self.get_next_id(cmd, addr, tail(attr, 8)?, mem),
            Cmd::MAP_GET_FD_BY_ID => self.map_get_fd_by_id(tail(attr, 12)?),
            Cmd::PROG_GET_FD_BY_ID => self.prog_get_fd_by_id(tail(attr, 4)?),
            Cmd::BTF_GET_FD_BY_ID => self.btf_get_fd_by_id(tail(attr, 16)?),
            Cmd::LINK_GET_FD_BY_ID => self.link_get_fd_by_id(tail(attr, 4)?),
            Cmd::OBJ_GET_INFO_BY_FD => self.obj_get_info_by_fd(addr, tail(attr, 16)?, mem),
            Cmd::OBJ_PIN => self.obj_pin(tail(attr, ObjAttr::END)?, mem),
            Cmd::OBJ_GET => self.obj_get(tail(attr, ObjAttr::END)?, mem),
            Cmd::BTF_LOAD => self.btf_load(addr, given, tail(attr, 40)?, mem),
            Cmd::PROG_LOAD => self.prog_load(addr, given, tail(attr, ProgLoadAttr::END)?, mem),
            Cmd::PROG_BIND_MAP => self.prog_bind_map(tail(attr, 12)?),
            Cmd::PROG_QUERY => self.prog_query(addr, given, attr, mem),
            Cmd::PROG_TEST_RUN => self.prog_test_run(addr, tail(attr, 76)?, mem),
            Cmd::RAW_TRACEPOINT_OPEN => self.raw_tracepoint_open(tail(attr, 24)?, mem),
            Cmd::ENABLE_STATS => self.enable_stats(tail(attr, 4)?),
            Cmd::ITER_CREATE => self.iter_create(tail(attr, 8)?),
            Cmd::TASK_FD_QUERY => self.task_fd_query(tail(attr, 48)?),
            Cmd::PROG_ATTACH => self.prog_attach(tail(attr, ProgAttachAttr::END)?),
            Cmd::PROG_DETACH => self.prog_detach(tail(attr, ProgAttachAttr::END)?),
            Cmd::LINK_CREATE => self.link_create(tail(attr, LinkAttr::CREATE_END)?, mem),
            Cmd::LINK_UPDATE => self.link_update(tail(attr, LinkAttr::END)?),
            Cmd::LINK_DETACH => self.link_detach(tail(attr, 4)?),
            Cmd::TOKEN_CREATE => self.token_create(tail(attr, 8)?),
            cmd => Err(self.not_emulated(cmd, attr)),
        }
    }
}

/// Memory past the attr that the kernel knows has to be readable and zero.
///
/// # Errors
///
/// `EFAULT` or `E2BIG`, whichever comes first.
///
/// Kernel: `bpf_check_uarg_tail_zero`.
fn zero_in(mem: &dyn UserMem, addr: u64, len: usize) -> Result<()> {
    let mut bytes = vec![0; len];
    if mem.read(addr, &mut bytes).is_ok() {
        let zero = bytes.iter().all(|&byte| byte == 0);
        return if zero { Ok(()) } else { Err(Errno::E2BIG) };
    }
    for at in 0..len as u64 {
        let mut byte = [0];
        mem.read(addr.wrapping_add(at), &mut byte)?;
        if byte != [0] {
            return Err(Errno::E2BIG);
        }
    }
    Ok(())
}

/// Bytes up to a NUL, at most so many.
///
/// # Errors
///
/// `EFAULT` if one of them is not readable.
///
/// Kernel: `lib/strncpy_from_user.c`.
fn user_string(mem: &dyn UserMem, addr: u64, most: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while bytes.len() < most {
        let at = addr.checked_add(bytes.len() as u64);
        mem.read(at.ok_or(Errno::EFAULT)?, &mut byte)?;
        if byte == [0] {
            break;
        }
        bytes.push(byte[0]);
    }
    Ok(bytes)
}

impl Bpf for Kernel {
    fn bpf(&self, cmd: Cmd, attr: u64, size: u32, mem: &mut Memory<'_>) -> Result<u32> {
        self.bpf_with(cmd, attr, size, mem)
    }

    fn mmap(&self, fd: Fd, request: MapRequest) -> Result<Box<dyn Mapping>> {
        self.mmap_in(&self.inner.files, fd, request)
    }

    fn close(&self, fd: Fd) -> Result<()> {
        let (file, socket) = self.inner.files.remove(fd)?;
        // Outside of the table's lock: a map may go with it, and others with that.
        drop(file);
        if let Some(id) = socket {
            // A socket ends with its last fd; other objects live on without one.
            self.owner_ended(id);
        }
        Ok(())
    }

    fn perf_event_open(&self, event: PerfEvent) -> Result<Fd> {
        self.open_perf_event(event)
    }

    /// # Errors
    ///
    /// `EBADF` if it is not open; `EINVAL` if it is no map and no perf event: other files are declared, and have no state.
    fn poll(&self, fd: Fd, timeout: Option<Duration>) -> Result<PollEvents> {
        OpenFile(self.own().file(fd)?).wait(timeout)
    }

    fn map_handle(&self, fd: Fd) -> Option<Box<dyn MapHandle>> {
        Handle::fastest(self, fd).ok()
    }

    fn nr_cpus(&self) -> u32 {
        self.inner.env.nr_cpus
    }

    fn on_cpu(&self, cpu: u32) -> Box<dyn Bpf> {
        Box::new(Self::on_cpu(self, cpu))
    }
}

impl Default for Kernel {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let release = self.inner.env.release.name;
        write!(f, "Kernel {release} on CPU {}", self.cpu)
    }
}
