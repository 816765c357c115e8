//! Keys in shapes that are fast to hash and to compare: of 4, 8 and 16 bytes in registers, all others where they lie.
//!
//! What is written for any [`Probe`] is compiled for each of them, and has no code for the others.

use std::fmt;

use super::jhash::{jhash, jhash_4, jhash_8, jhash_16};
use super::last_hash;
use super::sync::Ordering;
use super::words::{WORD, Words, padded};

/// See the module.
pub trait Probe: Copy {
    /// Bytes of the key.
    fn len(self) -> usize;

    /// The hash that the kernel takes.
    fn hash(self, seed: u32) -> u32;

    /// As `hash`, where the key is most likely the last of a walk.
    fn hash_in_walk(self, seed: u32) -> u32;

    /// A walk gave that key, which is of this shape.
    fn walked(key: &[u8], seed: u32, hash: u32);

    /// Whether it is the key that begins at that word.
    fn is_at(self, words: &Words, at: usize) -> bool;

    /// Writes it to the words from `at` on; what it leaves of the last one becomes 0.
    fn write(self, words: &Words, at: usize);

    /// Copies the key of this shape that begins at that word.
    fn copy(words: &Words, at: usize, out: &mut [u8]);
}

/// The shape of all keys of a size.
pub(crate) trait Shape: fmt::Debug + Send + Sync + 'static {
    /// A key in that shape.
    type Key<'k>: Probe;

    /// The key of that size at the beginning of some bytes, if they are as many.
    fn cut(bytes: &[u8], size: usize) -> Option<Self::Key<'_>>;
}

/// Calls `$f` with the shape of keys of that size.
macro_rules! with_shape {
    ($size:expr, $shape:ident => $f:expr) => {
        match $size {
            4 => {
                type $shape = u32;
                $f
            }
            8 => {
                type $shape = u64;
                $f
            }
            16 => {
                type $shape = u128;
                $f
            }
            _ => {
                type $shape = $crate::store::OtherSize;
                $f
            }
        }
    };
}
pub(crate) use with_shape;

/// Calls `$f` with a key in its shape.
macro_rules! with_probe {
    ($key:expr, |$probe:ident| $f:expr) => {{
        let key: &[u8] = $key;
        $crate::store::with_shape!(key.len(), S => {
            let $probe = <S as $crate::store::Shape>::cut(key, key.len()).expect("all of it");
            $f
        })
    }};
}
pub(crate) use with_probe;

/// Of keys without a shape of their own.
#[derive(Debug)]
pub(crate) struct OtherSize;

impl Shape for OtherSize {
    type Key<'k> = &'k [u8];

    #[inline(always)]
    fn cut(bytes: &[u8], size: usize) -> Option<&[u8]> {
        bytes.get(..size)
    }
}

macro_rules! shapes {
    ($($int:ty),*) => {$(
        impl Shape for $int {
            type Key<'k> = Self;

            #[inline(always)]
            fn cut(bytes: &[u8], _size: usize) -> Option<Self> {
                bytes.first_chunk().map(|&bytes| Self::from_ne_bytes(bytes))
            }
        }
    )*};
}

shapes!(u32, u64, u128);

/// What all integers have in common.
macro_rules! integer {
    () => {
        #[inline(always)]
        fn len(self) -> usize {
            size_of::<Self>()
        }

        #[inline(always)]
        fn hash_in_walk(self, seed: u32) -> u32 {
            let short = (self.into(), size_of::<Self>());
            last_hash::get_short(short, seed).unwrap_or_else(|| self.hash(seed))
        }

        #[inline(always)]
        fn walked(key: &[u8], seed: u32, hash: u32) {
            let key = Self::from_ne_bytes(key.try_into().expect("a key of this shape"));
            last_hash::keep_short((key.into(), size_of::<Self>()), seed, hash);
        }
    };
}

impl Probe for u32 {
    integer!();

    #[inline(always)]
    fn hash(self, seed: u32) -> u32 {
        jhash_4(Self::from_le(self), seed)
    }

    #[inline(always)]
    fn is_at(self, words: &Words, at: usize) -> bool {
        words.word(at).load(Ordering::Relaxed) == padded(&self.to_ne_bytes())
    }

    #[inline(always)]
    fn write(self, words: &Words, at: usize) {
        words
            .word(at)
            .store(padded(&self.to_ne_bytes()), Ordering::Relaxed);
    }

    #[inline(always)]
    fn copy(words: &Words, at: usize, out: &mut [u8]) {
        let [a, b, c, d, ..] = words.word(at).load(Ordering::Relaxed).to_ne_bytes();
        out.copy_from_slice(&[a, b, c, d]);
    }
}

impl Probe for u64 {
    integer!();

    #[inline(always)]
    fn hash(self, seed: u32) -> u32 {
        jhash_8(Self::from_le(self), seed)
    }

    #[inline(always)]
    fn is_at(self, words: &Words, at: usize) -> bool {
        words.word(at).load(Ordering::Relaxed) == self
    }

    #[inline(always)]
    fn write(self, words: &Words, at: usize) {
        words.word(at).store(self, Ordering::Relaxed);
    }

    #[inline(always)]
    fn copy(words: &Words, at: usize, out: &mut [u8]) {
        out.copy_from_slice(&words.word(at).load(Ordering::Relaxed).to_ne_bytes());
    }
}

/// The words of 16 bytes, in their order.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "each half is asked for")]
const fn halves(key: u128) -> [u64; 2] {
    if cfg!(target_endian = "little") {
        [key as u64, (key >> 64) as u64]
    } else {
        [(key >> 64) as u64, key as u64]
    }
}

impl Probe for u128 {
    integer!();

    #[inline(always)]
    fn hash(self, seed: u32) -> u32 {
        jhash_16(halves(self).map(u64::from_le), seed)
    }

    #[inline(always)]
    fn is_at(self, words: &Words, at: usize) -> bool {
        let (words, [first, second]) = (words.slice(at, 2), halves(self));
        let first = words[0].load(Ordering::Relaxed) ^ first;
        let second = words[1].load(Ordering::Relaxed) ^ second;
        first | second == 0
    }

    #[inline(always)]
    fn write(self, words: &Words, at: usize) {
        let (words, [first, second]) = (words.slice(at, 2), halves(self));
        words[0].store(first, Ordering::Relaxed);
        words[1].store(second, Ordering::Relaxed);
    }

    #[inline(always)]
    fn copy(words: &Words, at: usize, out: &mut [u8]) {
        let words = words.slice(at, 2);
        let (first, second) = out.split_at_mut(WORD);
        first.copy_from_slice(&words[0].load(Ordering::Relaxed).to_ne_bytes());
        second.copy_from_slice(&words[1].load(Ordering::Relaxed).to_ne_bytes());
    }
}

impl Probe for &[u8] {
    #[inline(always)]
    fn len(self) -> usize {
        <[u8]>::len(self)
    }

    #[inline]
    fn hash(self, seed: u32) -> u32 {
        jhash(self, seed)
    }

    #[inline]
    fn hash_in_walk(self, seed: u32) -> u32 {
        last_hash::get(self, seed).unwrap_or_else(|| self.hash(seed))
    }

    #[inline]
    fn walked(key: &[u8], seed: u32, hash: u32) {
        last_hash::keep(key, seed, hash);
    }

    #[inline]
    fn is_at(self, words: &Words, at: usize) -> bool {
        let words = words.slice(at, self.len().div_ceil(WORD));
        let chunks = self.chunks_exact(WORD);
        let (rest, at) = (chunks.remainder(), self.len() / WORD);
        // The hash is the same, so the keys most likely are, and no word is worth a branch.
        let differ = chunks.zip(words).fold(0, |differ, (chunk, word)| {
            let chunk = chunk.try_into().expect("8 bytes");
            differ | word.load(Ordering::Relaxed) ^ u64::from_ne_bytes(chunk)
        });
        differ == 0 && (rest.is_empty() || words[at].load(Ordering::Relaxed) == padded(rest))
    }

    #[inline]
    fn write(self, words: &Words, at: usize) {
        words.fill(at, self);
    }

    #[inline]
    fn copy(words: &Words, at: usize, out: &mut [u8]) {
        words.read(at, out);
    }
}
