//! What batch commands ask of a type: which it has, and what its lookups go by.
//!
//! Kernel: `kernel/bpf/syscall.c:generic_map_lookup_batch`, `kernel/bpf/hashtab.c:__htab_map_lookup_and_delete_batch` (v6.18).

use crate::abi::UpdateFlags;

/// Which batch commands a type has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Batches {
    /// `BPF_MAP_LOOKUP_BATCH`
    pub lookup: bool,
    /// `BPF_MAP_LOOKUP_AND_DELETE_BATCH`
    pub lookup_and_delete: bool,
    /// `BPF_MAP_UPDATE_BATCH`
    pub update: bool,
    /// `BPF_MAP_DELETE_BATCH`
    pub delete: bool,
    /// What lookups go by.
    pub token: Token,
}

/// What a lookup batch goes on with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Token {
    /// The last key that was read.
    #[default]
    LastKey,
    /// The next key to be read.
    NextKey,
    /// The number of the next bucket.
    Bucket,
}

/// A part of a lookup batch that goes by bucket.
#[derive(Debug)]
pub struct BucketRequest {
    /// The bucket to go on with. It stays where it is if its elements are more than there is room for.
    pub bucket: u32,
    /// How many elements there is room for.
    pub room: usize,
    /// Read one bucket that has elements, not more.
    pub one: bool,
    /// Remove what was read; of one bucket.
    pub delete: bool,
    /// 0, or `LOCK` where the value has a lock.
    pub elem_flags: UpdateFlags,
    /// How many elements were read.
    pub read: usize,
    /// Their keys, one behind the other, and room for more.
    keys: Vec<u8>,
    /// Their values, as bpf(2) copies them, and room for more.
    values: Vec<u8>,
    key_size: usize,
    value_size: usize,
}

impl BucketRequest {
    /// Bytes of keys and values that are read before user space is given them.
    const READ_AT_ONCE: usize = 1 << 14;

    /// Asks for elements with keys and values of so many bytes, `room` at most, from a bucket on.
    pub fn new(bucket: u32, room: usize, key_size: usize, value_size: usize) -> Self {
        Self {
            bucket,
            room,
            one: false,
            delete: false,
            elem_flags: UpdateFlags::empty(),
            read: 0,
            keys: Vec::new(),
            values: Vec::new(),
            key_size,
            value_size,
        }
    }

    /// The keys that were read.
    pub fn keys(&self) -> &[u8] {
        &self.keys[..self.read * self.key_size]
    }

    /// The values that were read.
    pub fn values(&self) -> &[u8] {
        &self.values[..self.read * self.value_size]
    }

    /// Where key and value of the element of that number go.
    #[inline]
    pub(super) fn elem(&mut self, number: usize) -> (&mut [u8], &mut [u8]) {
        let (key, value) = (number * self.key_size, number * self.value_size);
        if value + self.value_size > self.values.len() {
            self.grow();
        }
        let key = &mut self.keys[key..][..self.key_size];
        (key, &mut self.values[value..][..self.value_size])
    }

    /// Makes room for twice as many elements: at first for all that are read at once, most often.
    #[cold]
    fn grow(&mut self) {
        let at_once = Self::READ_AT_ONCE / self.elem_size() + 1;
        let has = self.values.len() / self.value_size;
        let elems = (has * 2).max(at_once.min(self.room));
        self.keys.resize(elems * self.key_size, 0);
        self.values.resize(elems * self.value_size, 0);
    }

    /// Another bucket is to be read.
    pub(super) fn wants_more(&self) -> bool {
        let enough = if self.one { 1 } else { Self::READ_AT_ONCE };
        self.read * self.elem_size() < enough
    }

    /// Bytes of a key and a value.
    fn elem_size(&self) -> usize {
        self.key_size + self.value_size
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::BucketRequest;

    #[test]
    fn room_for_many_elements_is_made_as_they_come() {
        for (key_size, value_size) in [(1, 1), (4096, 1), (1, 4096)] {
            let mut request = BucketRequest::new(0, usize::MAX, key_size, value_size);
            request.elem(0);
            let bytes = request.keys.len() + request.values.len();
            assert!(bytes <= BucketRequest::READ_AT_ONCE + key_size + value_size);
        }
    }
}
