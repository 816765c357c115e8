//! BTF for keys and values of any size, with a `bpf_spin_lock` somewhere in the value.

use super::op::Op;

/// The key's and the value's type in what [`load`] loads.
pub(super) const KEY_TYPE: u64 = 3;
pub(super) const VALUE_TYPE: u64 = 4;

const KIND_INT: u32 = 1 << 24;
const KIND_STRUCT: u32 = 4 << 24;
const NAMES: &[u8] = b"\0int\0bpf_spin_lock\0val\0k\0v\0lock\0";
const NAME_INT: u32 = 1;
const NAME_SPIN_LOCK: u32 = 5;
const NAME_VAL: u32 = 19;
const NAME_KEY: u32 = 23;
const NAME_VALUE: u32 = 25;
const NAME_LOCK: u32 = 27;

/// Loads BTF under a name: a key of that many bytes, a value of that many with a lock at that offset.
pub(super) fn load(name: &str, key_size: usize, value_size: usize, lock_at: usize) -> Op {
    let mut value = vec![NAME_VALUE, KIND_STRUCT | 1, number(value_size)];
    value.extend([NAME_LOCK, 2, 8 * number(lock_at)]);
    load_types(name, key_size, &value)
}

/// Loads BTF under a name: a key and a value of that many bytes, without a field.
pub(super) fn load_plain(name: &str, key_size: usize, value_size: usize) -> Op {
    let value = [NAME_VALUE, KIND_STRUCT, number(value_size)];
    load_types(name, key_size, &value)
}

fn number(size: usize) -> u32 {
    u32::try_from(size).expect("a small map")
}

fn load_types(name: &str, key_size: usize, value: &[u32]) -> Op {
    let types = [
        [NAME_INT, KIND_INT, 4, 32].as_slice(),
        &[NAME_SPIN_LOCK, KIND_STRUCT | 1, 4, NAME_VAL, 1, 0],
        // A key of 4 bytes has to be a number for arrays.
        &match key_size {
            4 => [NAME_KEY, KIND_INT, 4, 32].to_vec(),
            size => vec![NAME_KEY, KIND_STRUCT, number(size)],
        },
        value,
    ]
    .concat();
    let types_len = number(types.len() * 4);
    let mut blob = vec![0x9f, 0xeb, 1, 0];
    let lengths = [24, 0, types_len, types_len, number(NAMES.len())];
    for word in lengths.into_iter().chain(types) {
        blob.extend(word.to_le_bytes());
    }
    blob.extend(NAMES);
    Op::new("btf_load").with("as", name).bytes("data", &blob)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_where_they_should_be() {
        let at = |offset: u32, name: &str| NAMES[offset as usize..].starts_with(name.as_bytes());
        assert!(at(NAME_INT, "int\0") && at(NAME_SPIN_LOCK, "bpf_spin_lock\0"));
        assert!(at(NAME_VAL, "val\0") && at(NAME_KEY, "k\0"));
        assert!(at(NAME_VALUE, "v\0") && at(NAME_LOCK, "lock\0"));
    }
}
