//! The emulated map: by the handle that typed front ends hold, and by bpf(2).

use std::sync::Arc;

use super::column::{BATCH, Column, Spec};
use crate::Kernel;
use crate::abi::{Bpf, Fd, MapFlags, MapHandle, MapType, UpdateFlags};
use crate::calls::{self, CreateOpts};
use crate::map::Map;

const ANY: UpdateFlags = UpdateFlags::ANY;

/// By the handle.
#[derive(Debug)]
pub struct Emulated {
    handle: Box<dyn MapHandle>,
    by_bpf: EmulatedBpf,
}

impl Emulated {
    fn of(by_bpf: EmulatedBpf) -> Self {
        let handle = by_bpf.kernel.map_handle(by_bpf.fd).expect("it is open");
        Self { handle, by_bpf }
    }

    /// The map as programs have it.
    pub fn map(&self) -> Arc<Map> {
        let EmulatedBpf { kernel, fd } = &self.by_bpf;
        kernel.map(*fd).expect("it is open")
    }
}

/// By bpf(2): attr bytes, fd, copies.
#[derive(Clone, Debug)]
pub struct EmulatedBpf {
    kernel: Kernel,
    fd: Fd,
}

impl<const K: usize> Column<K> for Emulated {
    const NAME: &'static str = "emulated";

    fn new(spec: &Spec) -> Option<Self> {
        Some(Self::of(made(spec)))
    }

    fn on_cpu(&self, cpu: u32) -> Self {
        Self::of(Column::<K>::on_cpu(&self.by_bpf, cpu))
    }

    #[inline]
    fn lookup(&self, key: &[u8; K], value: &mut [u8]) -> bool {
        self.handle.lookup_elem(key, value, ANY).is_ok()
    }

    #[inline]
    fn update(&self, key: &[u8; K], value: &[u8]) {
        self.handle.update_elem(key, value, ANY).expect("room");
    }

    #[inline]
    fn delete(&self, key: &[u8; K]) -> bool {
        self.handle.delete_elem(key).is_ok()
    }

    #[inline]
    fn take(&self, key: &[u8; K], value: &mut [u8]) -> bool {
        self.handle.lookup_and_delete_elem(key, value, ANY).is_ok()
    }

    #[inline]
    fn next(&self, key: Option<&[u8; K]>, next: &mut [u8; K]) -> bool {
        self.handle
            .get_next_key(key.map(|key| &key[..]), next)
            .is_ok()
    }
}

fn made(spec: &Spec) -> EmulatedBpf {
    let kernel = Kernel::builder().cpus(spec.nr_cpus).build();
    let fd = create(&kernel, spec);
    EmulatedBpf { kernel, fd }
}

/// Makes such a map.
fn create(bpf: &dyn Bpf, spec: &Spec) -> Fd {
    let flags = if spec.map_type == MapType::LPM_TRIE {
        MapFlags::NO_PREALLOC
    } else {
        MapFlags::empty()
    };
    let opts = CreateOpts {
        map_flags: flags.bits(),
        ..CreateOpts::default()
    };
    let size = |size| u32::try_from(size).expect("sizes of maps are u32");
    let (key, value) = (size(spec.key_size), size(spec.value_size));
    let max_entries = size(spec.max_entries);
    calls::bpf_map_create(bpf, spec.map_type, "bench", key, value, max_entries, &opts)
        .expect("a map")
}

impl<const K: usize> Column<K> for EmulatedBpf {
    const NAME: &'static str = "emulated bpf(2)";

    fn new(spec: &Spec) -> Option<Self> {
        Some(made(spec))
    }

    fn on_cpu(&self, cpu: u32) -> Self {
        Self {
            kernel: self.kernel.on_cpu(cpu),
            fd: self.fd,
        }
    }

    #[inline]
    fn lookup(&self, key: &[u8; K], value: &mut [u8]) -> bool {
        let Self { kernel, fd } = self;
        if K == 0 {
            return calls::bpf_map_peek_elem(kernel, *fd, value).is_ok();
        }
        calls::bpf_map_lookup_elem(kernel, *fd, key, value).is_ok()
    }

    #[inline]
    fn update(&self, key: &[u8; K], value: &[u8]) {
        let Self { kernel, fd } = self;
        let done = if K == 0 {
            calls::bpf_map_push_elem(kernel, *fd, value, 0)
        } else {
            calls::bpf_map_update_elem(kernel, *fd, key, value, 0)
        };
        done.expect("room");
    }

    #[inline]
    fn delete(&self, key: &[u8; K]) -> bool {
        calls::bpf_map_delete_elem(&self.kernel, self.fd, key).is_ok()
    }

    #[inline]
    fn take(&self, key: &[u8; K], value: &mut [u8]) -> bool {
        let Self { kernel, fd } = self;
        if K == 0 {
            return calls::bpf_map_pop_elem(kernel, *fd, value).is_ok();
        }
        calls::bpf_map_lookup_and_delete_elem(kernel, *fd, key, value).is_ok()
    }

    #[inline]
    fn next(&self, key: Option<&[u8; K]>, next: &mut [u8; K]) -> bool {
        let key = key.map(|key| &key[..]);
        calls::bpf_map_get_next_key(&self.kernel, self.fd, key, next).is_ok()
    }

    fn batch(&self) -> usize {
        let info = self.kernel.map(self.fd).expect("it is open");
        let value = info.def.user_value_size(self.kernel.nr_cpus());
        let (mut keys, mut values) = (vec![0; BATCH * K], vec![0; BATCH * value]);
        let (mut token, mut next) = (None::<[u8; 64]>, [0_u8; 64]);
        let mut total = 0;
        loop {
            let from = token.as_ref().map(|token| &token[..]);
            let done = calls::bpf_map_lookup_batch(
                &self.kernel,
                self.fd,
                from,
                &mut next,
                &mut keys,
                &mut values,
                256,
            );
            total += done.count as usize;
            if done.result.is_err() {
                return total;
            }
            token = Some(next);
        }
    }
}
