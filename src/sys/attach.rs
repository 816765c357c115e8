//! Programs at cgroups: `BPF_PROG_ATTACH`, `BPF_PROG_DETACH`, and what an event runs.
//!
//! Kernel: `kernel/bpf/syscall.c:bpf_prog_attach`, `kernel/bpf/cgroup.c` (v6.18).

use std::sync::Arc;

use super::Kernel;
use super::call::Call;
use super::cgroup::{Entry, Place};
use crate::abi::{
    AttachFlags, AttachType, Attr, Caps, Errno, Fd, ProgAttachAttr, ProgType, Result,
};
use crate::map::Map;
use crate::map::cgroup_storage::{CgroupStorage, Storage};
use crate::map::object::Prog;

/// `BPF_CGROUP_MAX_PROGS`
const MAX_PROGS: usize = 64;

/// A program that an event in a cgroup runs.
#[derive(Clone, Debug)]
pub struct Attached {
    /// The program.
    pub prog: Arc<Prog>,
    /// The element of each of its cgroup storages.
    pub storages: Vec<(Arc<Map>, Storage)>,
}

/// One program on its way to a place.
#[derive(Debug)]
pub(super) struct Attach {
    pub(super) cgroup: u64,
    pub(super) attach_type: AttachType,
    pub(super) flags: AttachFlags,
    pub(super) prog: Arc<Prog>,
    pub(super) link: Option<u64>,
    pub(super) replace: Option<Arc<Prog>>,
}

/// The type of programs for a place at cgroups.
///
/// Kernel: `kernel/bpf/syscall.c:attach_type_to_prog_type`.
fn prog_type_of(attach_type: AttachType) -> Option<ProgType> {
    use AttachType as At;
    match attach_type {
        At::CGROUP_INET_INGRESS | At::CGROUP_INET_EGRESS => Some(ProgType::CGROUP_SKB),
        At::CGROUP_INET_SOCK_CREATE
        | At::CGROUP_INET_SOCK_RELEASE
        | At::CGROUP_INET4_POST_BIND
        | At::CGROUP_INET6_POST_BIND => Some(ProgType::CGROUP_SOCK),
        At::CGROUP_SOCK_OPS => Some(ProgType::SOCK_OPS),
        At::CGROUP_DEVICE => Some(ProgType::CGROUP_DEVICE),
        At::CGROUP_INET4_BIND
        | At::CGROUP_INET6_BIND
        | At::CGROUP_INET4_CONNECT
        | At::CGROUP_INET6_CONNECT
        | At::CGROUP_UNIX_CONNECT
        | At::CGROUP_UDP4_SENDMSG
        | At::CGROUP_UDP6_SENDMSG
        | At::CGROUP_UNIX_SENDMSG
        | At::CGROUP_UDP4_RECVMSG
        | At::CGROUP_UDP6_RECVMSG
        | At::CGROUP_UNIX_RECVMSG
        | At::CGROUP_INET4_GETPEERNAME
        | At::CGROUP_INET6_GETPEERNAME
        | At::CGROUP_UNIX_GETPEERNAME
        | At::CGROUP_INET4_GETSOCKNAME
        | At::CGROUP_INET6_GETSOCKNAME
        | At::CGROUP_UNIX_GETSOCKNAME => Some(ProgType::CGROUP_SOCK_ADDR),
        At::CGROUP_SYSCTL => Some(ProgType::CGROUP_SYSCTL),
        At::CGROUP_GETSOCKOPT | At::CGROUP_SETSOCKOPT => Some(ProgType::CGROUP_SOCKOPT),
        _ => None,
    }
}

/// What programs can be attached to besides cgroups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Elsewhere {
    SocketMap,
    Netns,
    Interface,
    /// The kernel was made without it: remote controls, netkit.
    Nowhere,
}

impl Elsewhere {
    pub(super) fn of(attach_type: AttachType) -> Option<Self> {
        use AttachType as A;
        match attach_type {
            A::SK_SKB_STREAM_PARSER
            | A::SK_SKB_STREAM_VERDICT
            | A::SK_MSG_VERDICT
            | A::SK_SKB_VERDICT => Some(Self::SocketMap),
            A::FLOW_DISSECTOR | A::SK_LOOKUP => Some(Self::Netns),
            A::TCX_INGRESS | A::TCX_EGRESS => Some(Self::Interface),
            A::LIRC_MODE2 | A::NETKIT_PRIMARY | A::NETKIT_PEER => Some(Self::Nowhere),
            _ => None,
        }
    }
}

/// # Errors
///
/// `EPERM`; `EINVAL` if the program is for another place.
///
/// Kernel: `kernel/bpf/syscall.c:bpf_prog_attach_check_attach_type`.
pub(super) fn attach_type_fits(prog: &Prog, attach_type: AttachType, caps: Caps) -> Result<()> {
    let fits = match prog.prog_type {
        ProgType::CGROUP_SOCK | ProgType::CGROUP_SOCK_ADDR | ProgType::CGROUP_SOCKOPT => {
            prog.expected_attach_type == attach_type
        }
        ProgType::CGROUP_SKB if !caps.capable(Caps::NET_ADMIN) => return Err(Errno::EPERM),
        _ => prog_type_of(attach_type).is_none_or(|prog_type| prog_type == prog.prog_type),
    };
    if fits { Ok(()) } else { Err(Errno::EINVAL) }
}

/// The elements of the program's cgroup storages at that place; those that are missing are made.
fn storages(attach: &Attach) -> Result<Vec<(Arc<Map>, Storage)>> {
    let of_prog = attach.prog.maps.iter();
    of_prog
        .filter_map(|map| Some((map, map.ops.as_any().downcast_ref::<CgroupStorage>()?)))
        .map(|(map, storage)| {
            let storage = storage.attach(attach.cgroup, attach.attach_type)?;
            Ok((Arc::clone(map), storage))
        })
        .collect()
}

impl Entry {
    /// The program with its elements. A program that took a link's place has its own maps, and the elements of the kind
    /// that the link had.
    fn attached(&self) -> Attached {
        let of_kind = |map: &Arc<Map>| {
            let kind = map.def.map_type;
            let own = self.storages.iter().find(|(of, _)| of.def.map_type == kind);
            own.map(|(_, storage)| (Arc::clone(map), storage.clone()))
        };
        Attached {
            prog: Arc::clone(&self.prog),
            storages: self.prog.maps.iter().filter_map(of_kind).collect(),
        }
    }
}

impl Place {
    /// Takes one entry out; the flags go with the last.
    pub(super) fn remove(&mut self, which: impl Fn(&Entry) -> bool) -> Option<Entry> {
        let at = self.entries.iter().position(which)?;
        let entry = self.entries.remove(at);
        self.revision += 1;
        if self.entries.is_empty() {
            self.flags = AttachFlags::empty();
        }
        Some(entry)
    }

    pub(super) fn is_multi(&self) -> bool {
        self.flags.contains(AttachFlags::MULTI)
    }

    /// The entry that a new one takes the place of.
    ///
    /// Kernel: `kernel/bpf/cgroup.c:find_attach_entry`.
    fn replaced_by(&self, attach: &Attach) -> Result<Option<usize>> {
        if !attach.flags.contains(AttachFlags::MULTI) {
            return Ok((!self.entries.is_empty()).then_some(0));
        }
        let direct = |entry: &Entry, prog: &Arc<Prog>| {
            entry.link.is_none() && Arc::ptr_eq(&entry.prog, prog)
        };
        let replaces_itself = attach
            .replace
            .as_ref()
            .is_some_and(|replace| Arc::ptr_eq(replace, &attach.prog));
        if attach.link.is_none()
            && !replaces_itself
            && self.entries.iter().any(|entry| direct(entry, &attach.prog))
        {
            return Err(Errno::EINVAL);
        }
        let Some(replace) = &attach.replace else {
            return Ok(None);
        };
        let at = self.entries.iter().position(|entry| direct(entry, replace));
        at.map(Some).ok_or(Errno::ENOENT)
    }
}

impl Call<'_> {
    /// Attaches a program; elements of cgroup storages are made if they are missing.
    ///
    /// Kernel: `kernel/bpf/cgroup.c:__cgroup_bpf_attach`.
    pub(super) fn attach(&self, attach: Attach) -> Result<()> {
        let flags = attach.flags;
        let multi = flags.contains(AttachFlags::MULTI);
        let saved = flags & (AttachFlags::OVERRIDE | AttachFlags::MULTI);
        if saved.contains(AttachFlags::OVERRIDE | AttachFlags::MULTI)
            || flags.contains(AttachFlags::REPLACE) && !multi
        {
            return Err(Errno::EINVAL);
        }
        let mut cgroups = self.inner.cgroups.lock();
        // The nearest cgroup above that has programs decides, unless there may be several.
        let parent = cgroups.parent(attach.cgroup);
        let above = parent.and_then(|parent| {
            cgroups
                .upwards(parent, attach.attach_type)
                .find(|place| !place.entries.is_empty())
        });
        let allowed = AttachFlags::OVERRIDE | AttachFlags::MULTI;
        if above.is_some_and(|place| !place.flags.intersects(allowed)) {
            return Err(Errno::EPERM);
        }
        let place = cgroups.place(attach.cgroup, attach.attach_type)?;
        if !place.entries.is_empty() && place.flags != saved {
            return Err(Errno::EPERM);
        }
        if place.entries.len() >= MAX_PROGS {
            return Err(Errno::E2BIG);
        }
        let at = place.replaced_by(&attach)?;
        let storages = storages(&attach)?;
        let entry = Entry {
            prog: attach.prog,
            link: attach.link,
            storages,
        };
        place.flags = saved;
        place.revision += 1;
        let replaced = match at {
            Some(at) => Some(std::mem::replace(&mut place.entries[at], entry)),
            None => {
                place.entries.push(entry);
                None
            }
        };
        drop(cgroups);
        // The program may go, and maps with it, when no lock is held.
        drop(replaced);
        Ok(())
    }

    /// Flags about the order of programs, which are not emulated.
    pub(super) fn ordered_attach(&self, flags: u32) -> Errno {
        /// `BPF_F_BEFORE`, `_AFTER`, `_ID`, `_PREORDER`, `_LINK`.
        const ORDER: u32 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 13;
        if flags & !ORDER != 0 {
            return Errno::EINVAL;
        }
        let what = format_args!("the order of attached programs, flags {flags:#x}");
        self.inner.env.unsupported(what)
    }

    /// The program type of a place, or the answer.
    pub(super) fn prog_type_at(&self, attach_type: AttachType) -> Result<ProgType> {
        prog_type_of(attach_type).ok_or_else(|| {
            if Elsewhere::of(attach_type).is_some() || attach_type == AttachType::LSM_CGROUP {
                let what = format_args!("programs at attach type {}", attach_type.0);
                self.inner.env.unsupported(what)
            } else {
                Errno::EINVAL
            }
        })
    }

    /// Kernel: `bpf_prog_attach`, `cgroup_bpf_prog_attach`.
    pub(super) fn prog_attach(&self, attr: Attr<'_>) -> Result<u32> {
        let fields = ProgAttachAttr::decode(attr);
        let prog_type = self.prog_type_at(fields.attach_type)?;
        let known = AttachFlags::OVERRIDE | AttachFlags::MULTI | AttachFlags::REPLACE;
        let order = (fields.attach_flags - known).bits();
        if order != 0 || !attr.zero_from(ProgAttachAttr::ORDER_AT) {
            return Err(self.ordered_attach(order));
        }
        let prog = self.prog_of_type(fields.attach_bpf_fd, prog_type)?;
        attach_type_fits(&prog, fields.attach_type, self.inner.caps())?;
        let cgroup = self.live_cgroup(fields.target_fd)?;
        let with_replaced = AttachFlags::MULTI | AttachFlags::REPLACE;
        let replace = if fields.attach_flags.contains(with_replaced) {
            Some(self.prog_of_type(fields.replace_bpf_fd, prog_type)?)
        } else {
            None
        };
        self.attach(Attach {
            cgroup: cgroup.id,
            attach_type: fields.attach_type,
            flags: fields.attach_flags,
            prog,
            link: None,
            replace,
        })?;
        Ok(0)
    }

    /// Where there is only one program, it goes whichever was named.
    ///
    /// Kernel: `bpf_prog_detach`, `cgroup_bpf_prog_detach`, `__cgroup_bpf_detach`.
    pub(super) fn prog_detach(&self, attr: Attr<'_>) -> Result<u32> {
        let fields = ProgAttachAttr::decode(attr);
        let prog_type = self.prog_type_at(fields.attach_type)?;
        let cgroup = self.live_cgroup(fields.target_fd)?;
        let prog = self.prog_of_type(fields.attach_bpf_fd, prog_type).ok();
        let mut cgroups = self.inner.cgroups.lock();
        let place = cgroups.place(cgroup.id, fields.attach_type)?;
        let removed = if !place.is_multi() {
            place.remove(|_| true)
        } else {
            let prog = prog.as_ref().ok_or(Errno::EINVAL)?;
            place.remove(|entry| entry.link.is_none() && Arc::ptr_eq(&entry.prog, prog))
        };
        drop(cgroups);
        // The program may go, and maps with it, when no lock is held.
        removed.map(|_| 0).ok_or(Errno::ENOENT)
    }
}

impl Kernel {
    /// What an event in that cgroup runs, in order: its own programs first, then those of the cgroups above.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is no cgroup, `ENOENT` if it was removed.
    pub fn attached(&self, cgroup: Fd, attach_type: AttachType) -> Result<Vec<Attached>> {
        let cgroup = self.own().live_cgroup(cgroup)?;
        let cgroups = self.inner.cgroups.lock();
        let run = cgroups.effective(cgroup.id, attach_type);
        Ok(run.map(Entry::attached).collect())
    }
}
