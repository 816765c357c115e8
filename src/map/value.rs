//! The value of one element, in place, as a program holds it.

use std::fmt;
use std::sync::Arc;

use crate::btf::Fields;
use crate::store::{WORD, Words};

/// A pointer to a value: the place itself, not a copy.
///
/// It is the address of the place, not bound to the key: after a delete it shows the old bytes until the place is used
/// again, and then those of the new owner, as a pointer in a program would.
#[derive(Clone)]
pub struct Value<'m> {
    block: Block<'m>,
    /// The word where the value begins.
    at: usize,
    size: usize,
    fields: &'m Fields,
}

#[derive(Clone)]
enum Block<'m> {
    /// Of a map whose places are one block.
    Borrowed(&'m Words),
    /// Of a map whose elements have memory of their own, which lives on while somebody holds it.
    Shared(Arc<Words>),
}

impl<'m> Value<'m> {
    /// `size` bytes from the word at `at` on.
    pub fn in_block(words: &'m Words, at: usize, size: u32, fields: &'m Fields) -> Self {
        Self {
            block: Block::Borrowed(words),
            at,
            size: size as usize,
            fields,
        }
    }

    /// As [`Value::in_block`], of a block that lives as long as the value is held.
    pub fn shared(words: Arc<Words>, at: usize, size: u32, fields: &'m Fields) -> Self {
        Self {
            block: Block::Shared(words),
            at,
            size: size as usize,
            fields,
        }
    }

    /// The block and the word in it where the value begins.
    pub fn place(&self) -> (&Words, usize) {
        match &self.block {
            Block::Borrowed(words) => (words, self.at),
            Block::Shared(words) => (words, self.at),
        }
    }

    /// Bytes of the value.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Special fields of the value.
    pub fn fields(&self) -> &'m Fields {
        self.fields
    }

    /// Copies bytes out, from `offset` on.
    ///
    /// # Panics
    ///
    /// If they do not lie in the value: the verifier refuses such a load.
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        self.check(offset, out.len());
        let (words, at) = self.place();
        if offset == 0 {
            words.read(at, out);
        } else {
            words.read_bytes(at * WORD + offset, out);
        }
    }

    /// Copies bytes in, from `offset` on.
    ///
    /// # Panics
    ///
    /// If they do not lie in the value: the verifier refuses such a store.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        self.check(offset, bytes.len());
        let (words, at) = self.place();
        words.write_bytes(at * WORD + offset, bytes);
    }

    /// A copy of all bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = vec![0; self.size];
        self.read(0, &mut out);
        out
    }

    fn check(&self, offset: usize, len: usize) {
        assert!(
            offset <= self.size && len <= self.size - offset,
            "the verifier refuses: {len} bytes at {offset} are outside of a value of {} bytes",
            self.size
        );
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "value of {} bytes", self.size)
    }
}
