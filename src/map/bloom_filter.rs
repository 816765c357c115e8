//! `BPF_MAP_TYPE_BLOOM_FILTER`: a set of values that never misses one, and may find one that was never put in.
//!
//! Kernel: `kernel/bpf/bloom_filter.c` (v6.18).

use std::any::Any;
use std::sync::Arc;

use super::{MapDef, MapOps};
use crate::abi::{Errno, MapFlags, Result, UpdateFlags};
use crate::env::Env;
use crate::store::{Bits, jhash};

/// Hash functions, if `map_extra` does not say.
const DEFAULT_HASHES: u32 = 5;
/// The bits of `map_extra` that say how many.
const HASHES_MASK: u64 = 0xf;
/// Bits of the smallest filter: one word of a 64-bit kernel.
const MIN_BITS: u32 = 64;

/// See the module.
#[derive(Debug)]
pub struct BloomFilter {
    bits: Bits,
    mask: u32,
    seed: u32,
    n_hashes: u32,
}

impl BloomFilter {
    /// The empty filter. Its seed is 0 with `ZERO_SEED`, else random.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// Kernel: `bloom_map_alloc`.
    pub(super) fn new(def: &MapDef, env: &Arc<Env>) -> Result<Self> {
        let n_hashes = match u32::try_from(def.map_extra & HASHES_MASK) {
            Ok(0) | Err(_) => DEFAULT_HASHES,
            Ok(n_hashes) => n_hashes,
        };
        let mask = mask(def.max_entries, n_hashes);
        let seed = if def.map_flags.contains(MapFlags::ZERO_SEED) {
            0
        } else {
            // The high half is as random as the low one.
            (env.random() >> 32) as u32
        };
        Ok(Self {
            bits: Bits::new(u64::from(mask) + 1).map_err(|_| Errno::ENOMEM)?,
            mask,
            seed,
            n_hashes,
        })
    }

    /// The numbers of the bits that stand for a value.
    fn numbers(&self, value: &[u8]) -> impl Iterator<Item = u32> {
        (0..self.n_hashes).map(move |i| jhash(value, self.seed.wrapping_add(i)) & self.mask)
    }
}

/// The number of bits, less one: about 7/5 (near to 1/ln 2) for each element and hash, rounded up to a power of two.
fn mask(max_entries: u32, n_hashes: u32) -> u32 {
    max_entries
        .checked_mul(n_hashes)
        .and_then(|bits| (bits / 5).checked_mul(7))
        .and_then(|bits| bits.max(MIN_BITS).checked_next_power_of_two())
        .map_or(u32::MAX, |bits| bits - 1)
}

impl MapOps for BloomFilter {
    fn update_elem(&self, _: u32, _: &[u8], _: &[u8], _: UpdateFlags) -> Result<()> {
        Err(Errno::EINVAL)
    }

    fn delete_elem(&self, _cpu: u32, _key: &[u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Never full.
    fn push_elem(&self, value: &[u8], flags: UpdateFlags) -> Result<()> {
        if flags != UpdateFlags::ANY {
            return Err(Errno::EINVAL);
        }
        for number in self.numbers(value) {
            self.bits.set(number);
        }
        Ok(())
    }

    fn pop_elem(&self, _value: &mut [u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn peek_elem(&self, value: &mut [u8]) -> Result<()> {
        if self.numbers(value).all(|number| self.bits.is_set(number)) {
            Ok(())
        } else {
            Err(Errno::ENOENT)
        }
    }

    fn get_next_key(&self, _key: Option<&[u8]>, _next_key: &mut [u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn size_by_capacity() {
        assert_eq!(mask(1, 1), 63);
        assert_eq!(mask(40, 5), 511, "40 * 5 / 5 * 7 = 280 bits, rounded up");
        assert_eq!(mask(u32::MAX, 2), u32::MAX, "the product overflows");
        assert_eq!(mask(u32::MAX, 1), u32::MAX, "7/5 of it overflows");
        assert_eq!(
            mask(1_600_000_000, 1),
            u32::MAX,
            "over half of the largest: no power of two is left"
        );
        assert_eq!(mask(1_500_000_000, 1), (1 << 31) - 1);
    }
}
