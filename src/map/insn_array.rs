//! `BPF_MAP_TYPE_INSN_ARRAY`: where instructions of a program are, for its jumps.
//!
//! An element says which instruction it means (`orig_off`); where that comes to be, the kernel fills in as it loads the
//! program, which is not emulated.
//!
//! Kernel: `kernel/bpf/bpf_insn_array.c` (v6.19).

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::checks::{index_below, next_index, u32_at};
use super::{Caller, MapDef, MapOps};
use crate::abi::{Errno, Result, UpdateFlags};
use crate::env::Env;

/// Where `xlated_off` and `jitted_off` are in an element.
const FOUND: std::ops::Range<usize> = 4..12;

/// See the module.
#[derive(Debug)]
pub(super) struct InsnArray {
    orig_offs: Vec<AtomicU32>,
}

impl InsnArray {
    #[expect(clippy::unnecessary_wraps, reason = "all types are made alike")]
    pub(super) fn new(def: &MapDef, _env: &Arc<Env>) -> Result<Self> {
        let orig_offs = (0..def.max_entries).map(|_| AtomicU32::new(0)).collect();
        Ok(Self { orig_offs })
    }

    fn max_entries(&self) -> u32 {
        u32::try_from(self.orig_offs.len()).expect("made of a u32")
    }

    fn at(&self, key: &[u8]) -> Option<&AtomicU32> {
        let index = index_below(key, self.max_entries())?;
        Some(&self.orig_offs[index as usize])
    }
}

impl MapOps for InsnArray {
    /// Flags that are not known are not looked at.
    fn update_elem(&self, _cpu: u32, key: &[u8], value: &[u8], flags: UpdateFlags) -> Result<()> {
        let orig_off = self.at(key).ok_or(Errno::E2BIG)?;
        if flags.contains(UpdateFlags::NOEXIST) {
            return Err(Errno::EEXIST);
        }
        if value[FOUND].iter().any(|&byte| byte != 0) {
            return Err(Errno::EINVAL);
        }
        orig_off.store(u32_at(value, 0), Ordering::Relaxed);
        Ok(())
    }

    fn delete_elem(&self, _cpu: u32, _key: &[u8]) -> Result<()> {
        Err(Errno::EINVAL)
    }

    fn user_lookup_elem(
        &self,
        _caller: &Caller<'_>,
        key: &[u8],
        value: &mut [u8],
        _flags: UpdateFlags,
    ) -> Result<()> {
        let orig_off = self.at(key).ok_or(Errno::ENOENT)?;
        value.fill(0);
        value[..4].copy_from_slice(&orig_off.load(Ordering::Relaxed).to_ne_bytes());
        Ok(())
    }

    fn get_next_key(&self, key: Option<&[u8]>, next_key: &mut [u8]) -> Result<()> {
        next_index(key, self.max_entries(), next_key)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
