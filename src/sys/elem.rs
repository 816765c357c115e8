//! The element commands: `BPF_MAP_LOOKUP_ELEM`, `_UPDATE_`, `_DELETE_`, `_LOOKUP_AND_DELETE_`, `BPF_MAP_GET_NEXT_KEY`.
//!
//! The order of the checks is part of the behaviour. Kernel: `kernel/bpf/syscall.c` (v6.18).

use super::call::Call;
use super::handle::{Target, Through, lookup_flags, with_bytes};
use crate::abi::{Attr, ElemAttr, Errno, Result, UserMem};

/// The caller's key, in `key`.
///
/// # Errors
///
/// `EINVAL` for a key where the type has none; `EFAULT`.
#[inline]
fn read_key(mem: &dyn UserMem, addr: u64, key: &mut [u8]) -> Result<()> {
    if key.is_empty() {
        return if addr == 0 {
            Ok(())
        } else {
            Err(Errno::EINVAL)
        };
    }
    mem.read(addr, key)
}

impl Call<'_> {
    /// Kernel: `map_lookup_elem`.
    pub(super) fn map_lookup_elem(&self, attr: Attr<'_>, mem: &mut dyn UserMem) -> Result<u32> {
        let attr = ElemAttr::decode(attr);
        self.early_lookup_flags(attr.flags)?;
        let file = self.lent(attr.map_fd)?;
        let through = Through::file(*self, file.file());
        let target = Target::new(&through, file.file())?;
        target.may_read()?;
        target.lookup_flags(attr.flags)?;
        with_bytes(target.key_size(), |key| {
            read_key(mem, attr.key, key)?;
            with_bytes(target.value_size(attr.flags), |value| {
                if target.lookup_takes_value() {
                    mem.read(attr.value, value)?;
                    return target.lookup(key, value, attr.flags);
                }
                target.lookup(key, value, attr.flags)?;
                mem.write(attr.value, value)
            })
        })?;
        Ok(0)
    }

    /// Kernel: `map_update_elem`.
    pub(super) fn map_update_elem(&self, attr: Attr<'_>, mem: &mut dyn UserMem) -> Result<u32> {
        let attr = ElemAttr::decode(attr);
        let file = self.lent(attr.map_fd)?;
        let through = Through::file(*self, file.file());
        let target = Target::new(&through, file.file())?;
        let _writing = target.may_write()?;
        target.update_flags(attr.flags)?;
        with_bytes(target.key_size(), |key| {
            read_key(mem, attr.key, key)?;
            with_bytes(target.value_size(attr.flags), |value| {
                mem.read(attr.value, value)?;
                target.update(key, value, attr.flags)
            })
        })?;
        Ok(0)
    }

    /// Kernel: `map_delete_elem`.
    pub(super) fn map_delete_elem(&self, attr: Attr<'_>, mem: &mut dyn UserMem) -> Result<u32> {
        let attr = ElemAttr::decode(attr);
        let file = self.lent(attr.map_fd)?;
        let through = Through::file(*self, file.file());
        let target = Target::new(&through, file.file())?;
        let _writing = target.may_write()?;
        with_bytes(target.key_size(), |key| {
            read_key(mem, attr.key, key)?;
            target.delete(key)
        })?;
        Ok(0)
    }

    /// Kernel: `map_get_next_key`.
    pub(super) fn map_get_next_key(&self, attr: Attr<'_>, mem: &mut dyn UserMem) -> Result<u32> {
        let attr = ElemAttr::decode(attr);
        let file = self.lent(attr.map_fd)?;
        let through = Through::file(*self, file.file());
        let target = Target::new(&through, file.file())?;
        target.may_read()?;
        with_bytes(target.key_size(), |key| {
            let from = if attr.key == 0 {
                None
            } else {
                read_key(mem, attr.key, key)?;
                Some(&*key)
            };
            with_bytes(target.key_size(), |next| {
                target.next_key(from, next)?;
                mem.write(attr.value, next)
            })
        })?;
        Ok(0)
    }

    /// The element is gone even if its value cannot be copied out.
    ///
    /// Kernel: `map_lookup_and_delete_elem`.
    pub(super) fn map_lookup_and_delete_elem(
        &self,
        attr: Attr<'_>,
        mem: &mut dyn UserMem,
    ) -> Result<u32> {
        let attr = ElemAttr::decode(attr);
        lookup_flags(attr.flags)?;
        let file = self.lent(attr.map_fd)?;
        let through = Through::file(*self, file.file());
        let target = Target::new(&through, file.file())?;
        let _writing = target.may_take(attr.flags)?;
        with_bytes(target.key_size(), |key| {
            read_key(mem, attr.key, key)?;
            with_bytes(target.value_size(attr.flags), |value| {
                target.take(key, value, attr.flags)?;
                mem.write(attr.value, value)
            })
        })?;
        Ok(0)
    }
}
