//! `BPF_MAP_TYPE_PROG_ARRAY`: programs to jump to, by `bpf_tail_call`.
//!
//! The first program that is put in, or that uses the array, binds it: from then on others have to be of its kind, even if
//! the array is emptied. The array holds its programs until its last fd and pin are gone, even while a program uses it:
//! else a program that jumps to itself would live for ever.
//!
//! Kernel: `kernel/bpf/arraymap.c:prog_array_map_ops`, `kernel/bpf/core.c:bpf_prog_map_compatible` (v6.18).

use std::any::Any;
use std::sync::Arc;

use parking_lot::Mutex;

use super::fd_array::FdArray;
use super::object::{Object, Prog};
use super::{Caller, MapDef, MapOps};
use crate::abi::{AttachType, Errno, Fd, MapType, ProgType, Result, UpdateFlags};
use crate::env::Env;

/// See the module.
#[derive(Debug)]
pub struct ProgArray {
    progs: FdArray<Arc<Prog>>,
    owner: Mutex<Option<Owner>>,
}

/// What all programs of an array have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Owner {
    prog_type: ProgType,
    expected_attach_type: AttachType,
    /// Ids of the maps of cgroup storage that they use, one of each kind.
    storages: [Option<u32>; 2],
}

impl Owner {
    fn of(prog: &Prog) -> Self {
        let storage = |kind| {
            let of_kind = prog.maps.iter().find(|map| map.def.map_type == kind);
            of_kind.map(|map| map.id)
        };
        Self {
            prog_type: prog.prog_type,
            expected_attach_type: prog.expected_attach_type,
            storages: [
                storage(MapType::CGROUP_STORAGE),
                storage(MapType::PERCPU_CGROUP_STORAGE),
            ],
        }
    }

    /// Whether a program of the kind `other` may be with those of this one: a jump leaves the cgroup storage as it is, so it
    /// has to use the same, or none.
    fn fits(&self, other: &Self) -> bool {
        let storages_fit = self
            .storages
            .iter()
            .zip(other.storages)
            .all(|(own, other)| other.is_none() || other == *own);
        self.prog_type == other.prog_type
            && self.expected_attach_type == other.expected_attach_type
            && storages_fit
    }
}

impl ProgArray {
    /// An empty array that is not bound.
    ///
    /// # Errors
    ///
    /// None so far.
    #[expect(clippy::unnecessary_wraps, reason = "all types are made alike")]
    pub(super) fn new(def: &MapDef, _env: &Arc<Env>) -> Result<Self> {
        Ok(Self {
            progs: FdArray::new(def.max_entries),
            owner: Mutex::new(None),
        })
    }

    /// Binds the array to the kind of a program that is put in or uses it, if it is not bound yet.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is bound to another kind.
    ///
    /// Kernel: `kernel/bpf/core.c:bpf_prog_map_compatible` (v6.18).
    pub fn bind(&self, prog: &Prog) -> Result<()> {
        let kind = Owner::of(prog);
        if self.owner.lock().get_or_insert(kind).fits(&kind) {
            Ok(())
        } else {
            Err(Errno::EINVAL)
        }
    }

    /// Kernel: `kernel/bpf/arraymap.c:prog_fd_array_get_ptr`.
    fn prog(&self, caller: &Caller<'_>, fd: Fd) -> Result<Arc<Prog>> {
        let Object::Prog(prog) = caller.files.object(fd)? else {
            return Err(Errno::EINVAL);
        };
        self.bind(&prog)?;
        Ok(prog)
    }
}

impl MapOps for ProgArray {
    fn delete_elem(&self, _cpu: u32, key: &[u8]) -> Result<()> {
        self.progs.delete(key)
    }

    /// User space sees the id of a program.
    fn user_lookup_elem(
        &self,
        _caller: &Caller<'_>,
        key: &[u8],
        value: &mut [u8],
        _flags: UpdateFlags,
    ) -> Result<()> {
        self.progs.read_id(key, value, |prog| prog.id)
    }

    fn user_update_elem(
        &self,
        caller: &Caller<'_>,
        key: &[u8],
        value: &[u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        self.progs
            .update(key, value, flags, |fd| self.prog(caller, fd))
    }

    fn get_next_key(&self, key: Option<&[u8]>, next_key: &mut [u8]) -> Result<()> {
        self.progs.next_key(key, next_key)
    }

    /// Kernel: `kernel/bpf/arraymap.c:prog_array_map_clear`.
    fn release_user_references(&self) {
        self.progs.delete_if(|_| true);
    }

    fn owner_prog_type(&self) -> Option<ProgType> {
        self.owner.lock().map(|owner| owner.prog_type)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
