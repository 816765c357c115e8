//! `BPF_MAP_CREATE`: from the attr to an fd. What may be asked for is judged by [`map::create`].
//!
//! Kernel: `kernel/bpf/syscall.c:map_create` (v6.18).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Inner;
use super::call::Call;
use super::files::{Held, MapUser};
use super::handle::Through;
use crate::abi::{Attr, CreateAttr, Errno, Result, UserMem};
use crate::map::{self, CreateRequest, Map};

/// `SHA256_DIGEST_SIZE`
const HASH_SIZE: usize = 32;

impl Call<'_> {
    pub(super) fn map_create(&self, attr: Attr<'_>, mem: &mut dyn UserMem) -> Result<u32> {
        let attr = CreateAttr::decode(attr);
        let inner = self.inner;
        let map = map::create(&CreateRequest {
            env: &inner.env,
            attr: &attr,
            caps: inner.caps(),
            unprivileged_bpf_disabled: inner.unprivileged_bpf_disabled.load(Ordering::Relaxed),
            files: &Through::no_file(*self),
            cpu: self.cpu,
        })?;
        let exclusive = exclusive(&attr, mem)?;
        let map = inner.register(Map { exclusive, ..map });
        self.open_with(Held::Map(MapUser::new(map)), attr.map_flags)
    }
}

/// The hash of the only program that may use the map.
fn exclusive(attr: &CreateAttr, mem: &dyn UserMem) -> Result<Option<[u8; HASH_SIZE]>> {
    if attr.excl_prog_hash == 0 {
        return if attr.excl_prog_hash_size == 0 {
            Ok(None)
        } else {
            Err(Errno::EINVAL)
        };
    }
    if attr.excl_prog_hash_size as usize != HASH_SIZE {
        return Err(Errno::EINVAL);
    }
    let mut hash = [0; HASH_SIZE];
    mem.read(attr.excl_prog_hash, &mut hash)?;
    Ok(Some(hash))
}

impl Inner {
    /// Gives a new map its id.
    fn register(&self, mut map: Map) -> Arc<Map> {
        map.id = self.maps.reserve();
        let map = Arc::new(map);
        self.maps.add(map.id, &map);
        map
    }
}
