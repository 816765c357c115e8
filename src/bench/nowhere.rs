//! The running kernel's map, where the running kernel has no bpf(2): there is none.

use super::column::{Column, Spec};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub enum Running {}

impl Running {
    /// Bytes that the kernel charges for it.
    ///
    /// # Errors
    ///
    /// None.
    pub fn memlock(&self) -> std::io::Result<u64> {
        match *self {}
    }
}

impl<const K: usize> Column<K> for Running {
    const NAME: &'static str = "kernel";

    fn new(_spec: &Spec) -> Option<Self> {
        None
    }

    fn on_cpu(&self, _cpu: u32) -> Self {
        match *self {}
    }

    fn lookup(&self, _key: &[u8; K], _value: &mut [u8]) -> bool {
        match *self {}
    }

    fn update(&self, _key: &[u8; K], _value: &[u8]) {
        match *self {}
    }

    fn delete(&self, _key: &[u8; K]) -> bool {
        match *self {}
    }

    fn take(&self, _key: &[u8; K], _value: &mut [u8]) -> bool {
        match *self {}
    }
}
