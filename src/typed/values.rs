//! Values as bpf(2) copies them: plain data, or one part for each CPU.

use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, bytes_of, bytes_of_mut, pod_read_unaligned};

use crate::abi::{Bpf, Errno, Result};

/// What a value is to the callers of a typed map.
pub(super) trait ElemValue: Sized {
    /// Bytes of one on that kernel, as bpf(2) copies it.
    fn size(bpf: &dyn Bpf) -> usize;

    /// Calls `fill` with room for a value.
    fn read(bpf: &dyn Bpf, fill: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<Self>;

    /// The value of those bytes, as many as [`ElemValue::size`] says.
    fn of_bytes(bytes: &[u8]) -> Self;

    /// Calls `f` with the bytes.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the value does not fit the kernel; what `f` gives.
    fn with_bytes<R>(&self, bpf: &dyn Bpf, f: impl FnOnce(&[u8]) -> Result<R>) -> Result<R>;
}

impl<V: Pod> ElemValue for V {
    fn size(_: &dyn Bpf) -> usize {
        size_of::<V>()
    }

    #[inline]
    fn read(_: &dyn Bpf, fill: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<Self> {
        let mut value = V::zeroed();
        fill(bytes_of_mut(&mut value))?;
        Ok(value)
    }

    fn of_bytes(bytes: &[u8]) -> Self {
        pod_read_unaligned(bytes)
    }

    #[inline]
    fn with_bytes<R>(&self, _: &dyn Bpf, f: impl FnOnce(&[u8]) -> Result<R>) -> Result<R> {
        f(bytes_of(self))
    }
}

/// The values that one element of a per-CPU map has, by CPU.
///
/// There is one for each possible CPU of the kernel; maps answer `EINVAL` to any other number of them.
///
/// ```
/// use mapemu::typed::PerCpuValues;
///
/// let values = PerCpuValues::from(vec![10, 20]);
/// assert_eq!(values[1], 20);
/// assert_eq!(values.iter().sum::<u32>(), 30);
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PerCpuValues<V>(Box<[V]>);

impl<V> From<Vec<V>> for PerCpuValues<V> {
    fn from(values: Vec<V>) -> Self {
        Self(values.into())
    }
}

impl<V> Deref for PerCpuValues<V> {
    type Target = [V];

    fn deref(&self) -> &[V] {
        &self.0
    }
}

impl<V> DerefMut for PerCpuValues<V> {
    fn deref_mut(&mut self) -> &mut [V] {
        &mut self.0
    }
}

/// Bytes of one CPU's part.
const fn part_size<V>() -> usize {
    size_of::<V>().next_multiple_of(8)
}

impl<V: Pod> ElemValue for PerCpuValues<V> {
    fn size(bpf: &dyn Bpf) -> usize {
        part_size::<V>() * bpf.nr_cpus() as usize
    }

    fn read(bpf: &dyn Bpf, fill: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<Self> {
        let mut bytes = vec![0; Self::size(bpf)];
        fill(&mut bytes)?;
        Ok(Self::of_bytes(&bytes))
    }

    fn of_bytes(bytes: &[u8]) -> Self {
        let parts = bytes.chunks_exact(part_size::<V>());
        Self(
            parts
                .map(|part| V::of_bytes(&part[..size_of::<V>()]))
                .collect(),
        )
    }

    fn with_bytes<R>(&self, bpf: &dyn Bpf, f: impl FnOnce(&[u8]) -> Result<R>) -> Result<R> {
        if self.len() != bpf.nr_cpus() as usize {
            return Err(Errno::EINVAL);
        }
        let mut bytes = vec![0; Self::size(bpf)];
        let parts = bytes.chunks_exact_mut(part_size::<V>());
        for (part, value) in parts.zip(self.iter()) {
            part[..size_of::<V>()].copy_from_slice(bytes_of(value));
        }
        f(&bytes)
    }
}
