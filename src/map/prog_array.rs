//! `BPF_MAP_TYPE_PROG_ARRAY`: programs to jump to, by `bpf_tail_call`.
//!
//! All its programs are of one kind: see `owner.rs`. The array holds its programs until its last fd and pin are gone, even
//! while a program uses it: else a program that jumps to itself would live for ever.
//!
//! Kernel: `kernel/bpf/arraymap.c:prog_array_map_ops` (v6.18).

use std::any::Any;
use std::sync::Arc;

use super::fd_array::FdArray;
use super::object::{Object, Prog};
use super::owner::Owner;
use super::{Caller, MapDef, MapOps};
use crate::abi::{Errno, Fd, ProgType, Result, UpdateFlags};
use crate::env::Env;

/// See the module.
#[derive(Debug)]
pub struct ProgArray {
    progs: FdArray<Arc<Prog>>,
    owner: Owner,
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
            owner: Owner::default(),
        })
    }

    /// The program at an index, if there is one.
    pub fn prog_at(&self, index: u32) -> Option<Arc<Prog>> {
        self.progs.at(index).ok()
    }

    /// Kernel: `kernel/bpf/arraymap.c:prog_fd_array_get_ptr`.
    fn prog(&self, caller: &Caller<'_>, fd: Fd) -> Result<Arc<Prog>> {
        let Object::Prog(prog) = caller.files.object(fd)? else {
            return Err(Errno::EINVAL);
        };
        self.owner.bind_attached(&prog)?;
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
        self.owner.prog_type()
    }

    fn used_by(&self, prog: &Prog) -> Result<()> {
        self.owner.bind_attached(prog)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
