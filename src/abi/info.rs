//! `struct bpf_map_info`.
//!
//! Source: `include/uapi/linux/bpf.h`.

use super::{MapFlags, MapType};

/// Bytes of a name, its NUL included.
pub const OBJ_NAME_LEN: usize = 16;

/// Bytes of the whole struct on Linux 6.18, 4 bytes of padding included.
pub const INFO_SIZE: usize = 104;

/// What `BPF_OBJ_GET_INFO_BY_FD` tells of a map; the fields that user space passes in are left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapInfo {
    /// Type.
    pub map_type: MapType,
    /// Id, unique in one kernel.
    pub id: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value, of one CPU.
    pub value_size: u32,
    /// Number of elements at most.
    pub max_entries: u32,
    /// Flags of its creation, without `RDONLY` and `WRONLY`.
    pub map_flags: MapFlags,
    /// Name, filled up with NUL.
    pub name: [u8; OBJ_NAME_LEN],
    /// Id of its BTF, 0 without.
    pub btf_id: u32,
    /// The key's type in that BTF.
    pub btf_key_type_id: u32,
    /// The value's type in that BTF.
    pub btf_value_type_id: u32,
    /// What the type makes of it.
    pub map_extra: u64,
}

impl MapInfo {
    /// Reads the fields from the kernel's struct; bytes that are missing count as 0.
    pub fn decode(bytes: &[u8]) -> Self {
        let u32_at = |at: usize| u32::from_ne_bytes(array_at(bytes, at));
        Self {
            map_type: MapType(u32_at(0)),
            id: u32_at(4),
            key_size: u32_at(8),
            value_size: u32_at(12),
            max_entries: u32_at(16),
            map_flags: MapFlags::from_bits_retain(u32_at(20)),
            name: array_at(bytes, 24),
            btf_id: u32_at(64),
            btf_key_type_id: u32_at(68),
            btf_value_type_id: u32_at(72),
            map_extra: u64::from_ne_bytes(array_at(bytes, 80)),
        }
    }

    /// Writes the fields at their places; all other bytes stay as the caller had them.
    pub fn encode(&self, out: &mut [u8; INFO_SIZE]) {
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.map_type.0.to_ne_bytes());
        put(4, &self.id.to_ne_bytes());
        put(8, &self.key_size.to_ne_bytes());
        put(12, &self.value_size.to_ne_bytes());
        put(16, &self.max_entries.to_ne_bytes());
        put(20, &self.map_flags.bits().to_ne_bytes());
        put(24, &self.name);
        put(64, &self.btf_id.to_ne_bytes());
        put(68, &self.btf_key_type_id.to_ne_bytes());
        put(72, &self.btf_value_type_id.to_ne_bytes());
        put(80, &self.map_extra.to_ne_bytes());
    }
}

/// `N` bytes from `at` on; what lies past the end is 0.
#[inline]
pub(super) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let rest = bytes.get(at..).unwrap_or_default();
    rest.first_chunk().copied().unwrap_or_else(|| cut(rest))
}

/// Fewer than `N` bytes, and zeros.
#[cold]
fn cut<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out[..bytes.len()].copy_from_slice(bytes);
    out
}
