//! `BPF_MAP_TYPE_CGROUP_ARRAY`: cgroups of the unified hierarchy, for programs to compare with.
//!
//! Kernel: `kernel/bpf/arraymap.c:cgroup_array_map_ops` (v6.18).

use std::any::Any;
use std::sync::Arc;

use super::fd_array::FdArray;
use super::object::{Cgroup, Object};
use super::{Caller, MapDef, MapOps};
use crate::abi::{Errno, Fd, Result, UpdateFlags};
use crate::env::Env;

/// See the module.
#[derive(Debug)]
pub struct CgroupArray {
    cgroups: FdArray<Arc<Cgroup>>,
}

impl CgroupArray {
    /// An empty array.
    ///
    /// # Errors
    ///
    /// None so far.
    #[expect(clippy::unnecessary_wraps, reason = "all types are made alike")]
    pub(super) fn new(def: &MapDef, _env: &Arc<Env>) -> Result<Self> {
        Ok(Self {
            cgroups: FdArray::new(def.max_entries),
        })
    }

    /// The cgroup at an index.
    ///
    /// # Errors
    ///
    /// `E2BIG` if there is no such index; `EAGAIN` if nothing is there.
    ///
    /// Kernel: `bpf_current_task_under_cgroup`.
    pub fn cgroup_at(&self, index: u32) -> Result<Arc<Cgroup>> {
        let cgroup = self.cgroups.at(index);
        cgroup.map_err(|errno| match errno {
            Errno::ENOENT => Errno::EAGAIN,
            past_the_end => past_the_end,
        })
    }
}

/// Kernel: `kernel/cgroup/cgroup.c:cgroup_get_from_fd`.
fn cgroup(caller: &Caller<'_>, fd: Fd) -> Result<Arc<Cgroup>> {
    match caller.files.object(fd)? {
        Object::Cgroup(cgroup) => Ok(cgroup),
        Object::Map(_) | Object::Btf(_) | Object::Prog(_) | Object::Other(_) => Err(Errno::EBADF),
    }
}

/// User space cannot look a cgroup up: `ENOTSUPP`, whatever the key.
impl MapOps for CgroupArray {
    fn delete_elem(&self, _cpu: u32, key: &[u8]) -> Result<()> {
        self.cgroups.delete(key)
    }

    fn user_update_elem(
        &self,
        caller: &Caller<'_>,
        key: &[u8],
        value: &[u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        self.cgroups
            .update(key, value, flags, |fd| cgroup(caller, fd))
    }

    fn get_next_key(&self, key: Option<&[u8]>, next_key: &mut [u8]) -> Result<()> {
        self.cgroups.next_key(key, next_key)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
