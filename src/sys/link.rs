//! Links: programs that are attached as long as an fd or a pin holds them there.
//!
//! Kernel: `kernel/bpf/syscall.c:link_create`, `link_update`, `link_detach`; `kernel/bpf/cgroup.c` (v6.18).

use std::sync::Arc;

use parking_lot::Mutex;

use super::attach::{Attach, attach_type_fits};
use super::call::Call;
use super::cgroup::Cgroups;
use super::files::Held;
use super::{pin, prog};
use crate::abi::{
    AttachFlags, AttachType, Attr, Errno, Fd, LinkAttr, MapType, ProgType, Result, UserMem,
};
use crate::map::object::{Object, OtherKind, OtherObject, Prog};

/// `__MAX_BPF_ATTACH_TYPE`
const ATTACH_TYPES: u32 = 58;
/// `BPF_PERF_EVENT`
const PERF_EVENT: AttachType = AttachType(41);
/// `BPF_TRACE_UPROBE_MULTI`
const TRACE_UPROBE_MULTI: AttachType = AttachType(48);

/// A link to a cgroup. Without a user it takes its program out.
#[derive(Debug)]
pub(super) struct Link {
    /// Id, unique in one kernel.
    pub(super) id: u32,
    /// As maps see it.
    pub(super) object: Arc<OtherObject>,
    cgroups: Arc<Mutex<Cgroups>>,
    pub(super) cgroup: u64,
    pub(super) attach_type: AttachType,
    /// The program, detached or not.
    pub(super) prog: Mutex<Arc<Prog>>,
}

impl Link {
    /// The cgroup's id; none if the link was detached, or the cgroup removed.
    pub(super) fn attached_to(&self) -> Option<u64> {
        let mut cgroups = self.cgroups.lock();
        let place = cgroups.place(self.cgroup, self.attach_type).ok()?;
        let mut entries = place.entries.iter();
        entries
            .any(|entry| entry.link == Some(self.object.id))
            .then_some(self.cgroup)
    }

    /// Takes the program out of its place, if it is there yet.
    fn detach(&self) {
        let id = Some(self.object.id);
        let mut cgroups = self.cgroups.lock();
        let Ok(place) = cgroups.place(self.cgroup, self.attach_type) else {
            // The cgroup was removed, and all its programs with it.
            return;
        };
        let removed = place.remove(|entry| entry.link == id);
        drop(cgroups);
        // The program may go, and maps with it, when no lock is held.
        drop(removed);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.detach();
    }
}

impl Call<'_> {
    /// Kernel: `link_create`, `cgroup_bpf_link_attach`.
    pub(super) fn link_create(&self, attr: Attr<'_>, mem: &dyn UserMem) -> Result<u32> {
        let fields = LinkAttr::decode(attr);
        let prog = self.prog(fields.prog_fd)?;
        if fields.attach_type.0 >= ATTACH_TYPES {
            return Err(Errno::EINVAL);
        }
        attach_type_fits(&prog, fields.attach_type, self.inner.caps())?;
        if !prog::CGROUP_TYPES.contains(&prog.prog_type) {
            return Err(self.link_elsewhere(&prog, &fields, attr, mem));
        }
        if fields.flags != 0 || !attr.zero_from(LinkAttr::END) {
            return Err(self.ordered_attach(fields.flags));
        }
        let cgroup = self.live_cgroup(fields.target_fd)?;
        let object = self.inner.other(OtherKind::Link);
        self.attach(Attach {
            cgroup: cgroup.id,
            attach_type: fields.attach_type,
            flags: AttachFlags::MULTI,
            prog: Arc::clone(&prog),
            link: Some(object.id),
            replace: None,
        })?;
        let link = Arc::new(Link {
            id: self.inner.links.reserve(),
            object,
            cgroups: Arc::clone(&self.inner.cgroups),
            cgroup: cgroup.id,
            attach_type: fields.attach_type,
            prog: Mutex::new(prog),
        });
        self.inner.links.add(link.id, &link);
        self.open(Held::Link(link))
    }

    /// The answer to a link to something else than a cgroup: that of its arguments, as far as clients ask for it.
    ///
    /// Kernel: `bpf_perf_link_attach`, `kernel/trace/bpf_trace.c:bpf_uprobe_multi_link_attach`.
    fn link_elsewhere(
        &self,
        prog: &Prog,
        fields: &LinkAttr,
        attr: Attr<'_>,
        mem: &dyn UserMem,
    ) -> Errno {
        let probe = matches!(
            prog.prog_type,
            ProgType::KPROBE | ProgType::TRACEPOINT | ProgType::PERF_EVENT
        );
        let bad = match fields.attach_type {
            PERF_EVENT if probe && fields.flags != 0 => Some(Errno::EINVAL),
            PERF_EVENT if probe => self.perf_event(fields.target_fd).err(),
            TRACE_UPROBE_MULTI if prog.prog_type == ProgType::KPROBE => {
                self.uprobe_multi(prog, fields, attr, mem).err()
            }
            PERF_EVENT | TRACE_UPROBE_MULTI => Some(Errno::EINVAL),
            _ => None,
        };
        bad.unwrap_or_else(|| {
            let prog_type = prog.prog_type;
            let what = format_args!("BPF_LINK_CREATE of programs of type {prog_type}");
            self.inner.env.unsupported(what)
        })
    }

    /// # Errors
    ///
    /// `EBADF` for anything else.
    fn perf_event(&self, fd: Fd) -> Result<()> {
        match self.object(fd)? {
            Object::Other(object) if object.perf_event().is_some() => Ok(()),
            Object::Map(_)
            | Object::Btf(_)
            | Object::Prog(_)
            | Object::Cgroup(_)
            | Object::Other(_) => Err(Errno::EBADF),
        }
    }

    fn uprobe_multi(
        &self,
        prog: &Prog,
        fields: &LinkAttr,
        attr: Attr<'_>,
        mem: &dyn UserMem,
    ) -> Result<()> {
        /// `BPF_F_UPROBE_MULTI_RETURN`
        const RETURN: u32 = 1;
        let (path, offsets) = (attr.u64(16), attr.u64(24));
        let (count, flags, pid) = (attr.u32(48), attr.u32(52), attr.u32(56));
        if fields.flags != 0
            || prog.expected_attach_type != TRACE_UPROBE_MULTI
            || flags & !RETURN != 0
            || path == 0
            || offsets == 0
            || count == 0
            || pid.cast_signed() < 0
        {
            return Err(Errno::EINVAL);
        }
        let path = self.fds.path(None, pin::read_path(mem, path)?)?;
        match std::fs::metadata(path) {
            Ok(found) if found.is_file() => Ok(()),
            Ok(_) => Err(Errno::EBADF),
            Err(_) => Err(Errno::ENOENT),
        }
    }

    fn link(&self, fd: Fd) -> Result<Arc<Link>> {
        match &self.file(fd)?.held {
            Held::Link(link) => Ok(Arc::clone(link)),
            Held::Map(_) | Held::Object(_) => Err(Errno::EINVAL),
        }
    }

    /// The new program is given the elements of cgroup storages that the link had.
    ///
    /// Kernel: `link_update`, `cgroup_bpf_replace`.
    pub(super) fn link_update(&self, attr: Attr<'_>) -> Result<u32> {
        let (link_fd, new_fd, old_fd) = (attr.u32(0), attr.u32(4), attr.u32(12));
        let flags = AttachFlags::from_bits_retain(attr.u32(8));
        if !AttachFlags::REPLACE.contains(flags) {
            return Err(Errno::EINVAL);
        }
        let link = self.link(link_fd)?;
        let new = self.prog(new_fd)?;
        let old = if flags.contains(AttachFlags::REPLACE) {
            Some(self.prog(old_fd)?)
        } else if old_fd != 0 {
            return Err(Errno::EINVAL);
        } else {
            None
        };
        let mut cgroups = self.inner.cgroups.lock();
        let place = cgroups.place(link.cgroup, link.attach_type);
        let place = place.map_err(|_| Errno::ENOLINK)?;
        let id = Some(link.object.id);
        let entry = place.entries.iter_mut().find(|entry| entry.link == id);
        let entry = entry.ok_or(Errno::ENOLINK)?;
        if old.is_some_and(|old| !Arc::ptr_eq(&old, &entry.prog)) {
            return Err(Errno::EPERM);
        }
        if entry.prog.prog_type != new.prog_type {
            return Err(Errno::EINVAL);
        }
        if self.inner.env.release.link_update_keeps_storages && !same_storages(&entry.prog, &new) {
            return Err(Errno::EINVAL);
        }
        let replaced = std::mem::replace(&mut entry.prog, Arc::clone(&new));
        place.revision += 1;
        drop(cgroups);
        *link.prog.lock() = new;
        drop(replaced);
        Ok(0)
    }

    /// Kernel: `link_detach`, `bpf_cgroup_link_detach`.
    pub(super) fn link_detach(&self, attr: Attr<'_>) -> Result<u32> {
        self.link(attr.u32(0))?.detach();
        Ok(0)
    }
}

/// Whether two programs use the same cgroup storages.
fn same_storages(old: &Prog, new: &Prog) -> bool {
    [MapType::CGROUP_STORAGE, MapType::PERCPU_CGROUP_STORAGE]
        .into_iter()
        .all(|kind| {
            let storage = |prog: &Prog| {
                let found = prog.maps.iter().find(|map| map.def.map_type == kind);
                found.map(|map| map.id)
            };
            storage(old) == storage(new)
        })
}
