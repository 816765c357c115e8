//! Values in shapes that are fast to copy, as [`super::probe`] has keys.

use super::blocks::{self, BLOCK};
use super::sync::Ordering;
use super::words::{WORD, Words};

/// Bytes to be written to whole words: what a last one is not filled by becomes 0.
pub trait Stored: Copy {
    /// Writes them to the words from `from` on.
    fn write(self, words: &Words, from: usize);
}

impl Stored for u64 {
    #[inline(always)]
    fn write(self, words: &Words, from: usize) {
        words.word(from).store(self, Ordering::Relaxed);
    }
}

impl Stored for &[u8] {
    #[inline(always)]
    fn write(self, words: &Words, from: usize) {
        words.fill(from, self);
    }
}

/// Room for words that are copied without a call.
pub trait Room {
    /// Copies the words from `from` on.
    fn fill(&mut self, words: &Words, from: usize);

    /// All of it.
    fn bytes(&mut self) -> &mut [u8];
}

impl Room for &mut [u8; WORD] {
    #[inline(always)]
    fn fill(&mut self, words: &Words, from: usize) {
        **self = words.word(from).load(Ordering::Relaxed).to_ne_bytes();
    }

    #[inline(always)]
    fn bytes(&mut self) -> &mut [u8] {
        &mut self[..]
    }
}

/// Room for less than a block of words.
#[derive(Debug)]
pub struct FewWords<'a>(&'a mut [[u8; WORD]]);

impl<'a> FewWords<'a> {
    /// Those bytes, if they are so many words and nothing else.
    #[inline(always)]
    pub fn of(bytes: &'a mut [u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks_mut();
        (rest.is_empty() && words.len() < BLOCK / WORD).then_some(Self(words))
    }
}

impl Room for FewWords<'_> {
    #[inline(always)]
    fn fill(&mut self, words: &Words, from: usize) {
        let words = words.slice(from, self.0.len());
        for (out, word) in self.0.iter_mut().zip(words) {
            *out = word.load(Ordering::Relaxed).to_ne_bytes();
        }
    }

    #[inline(always)]
    fn bytes(&mut self) -> &mut [u8] {
        self.0.as_flattened_mut()
    }
}

/// Room for blocks: a few, or any number, which a call copies.
#[derive(Debug)]
pub struct Blocks<'a, const FEW: bool>(&'a mut [u8]);

impl<'a, const FEW: bool> Blocks<'a, FEW> {
    /// Those bytes, if they are so many blocks and nothing else.
    #[inline(always)]
    pub fn of(bytes: &'a mut [u8]) -> Option<Self> {
        let are = if FEW {
            blocks::are_few(bytes.len())
        } else {
            blocks::are_blocks(bytes.len())
        };
        are.then_some(Self(bytes))
    }
}

impl<const FEW: bool> Room for Blocks<'_, FEW> {
    #[inline(always)]
    fn fill(&mut self, words: &Words, from: usize) {
        blocks::read::<FEW>(words.slice(from, self.0.len() / WORD), self.0);
    }

    #[inline(always)]
    fn bytes(&mut self) -> &mut [u8] {
        self.0
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    /// Words that are all ones but those from `from` on, which `bytes` were filled into.
    fn filled(from: usize, bytes: &[u8]) -> Words {
        let words = Words::new(from + bytes.len() / WORD + 3).expect("memory");
        for at in 0..words.len() {
            words.word(at).store(u64::MAX, Ordering::Relaxed);
        }
        words.fill(from, bytes);
        words
    }

    #[test]
    fn bytes_of_any_length_are_written_and_read_and_nothing_beside_them() {
        for len in (0_usize..=1100).chain([4096, 4100]) {
            let bytes: Vec<u8> = (0..len)
                .map(|at| (at * 7 + at / 251).to_le_bytes()[0])
                .collect();
            let (from, end) = (len % 3, len % 3 + len.div_ceil(WORD));
            let words = filled(from, &bytes);
            for at in (0..from).chain(end..words.len()) {
                let word = words.word(at).load(Ordering::Relaxed);
                assert_eq!(word, u64::MAX, "word {at} beside {len} bytes");
            }
            let mut out = vec![0xee; len + 9];
            words.read(from, &mut out[..len]);
            assert_eq!(&out[..len], &bytes, "{len} bytes");
            assert_eq!(out[len..], [0xee; 9], "behind {len} bytes");
            if !len.is_multiple_of(WORD) && len > 0 {
                let last = words.word(end - 1).load(Ordering::Relaxed).to_ne_bytes();
                assert!(
                    last[len % WORD..].iter().all(|byte| *byte == 0),
                    "{len} bytes"
                );
            }
        }
    }

    #[test]
    fn each_room_takes_what_it_says() {
        for len in 0_usize..=1100 {
            let bytes: Vec<u8> = (0..len).map(|at| at.to_le_bytes()[0]).collect();
            let words = filled(1, &bytes);
            let mut rooms = Vec::new();
            let mut out = vec![0xee; len];
            if let Ok(mut word) = <&mut [u8; WORD]>::try_from(&mut out[..]) {
                word.fill(&words, 1);
                assert_eq!(word.bytes(), bytes);
                rooms.push("word");
            }
            if let Some(mut room) = FewWords::of(&mut out) {
                room.fill(&words, 1);
                assert_eq!(room.bytes(), bytes);
                rooms.push("few words");
            }
            if let Some(mut room) = Blocks::<true>::of(&mut out) {
                room.fill(&words, 1);
                assert_eq!(room.bytes(), bytes);
                rooms.push("few blocks");
            }
            if let Some(mut room) = Blocks::<false>::of(&mut out) {
                room.fill(&words, 1);
                assert_eq!(room.bytes(), bytes);
                rooms.push("blocks");
            }
            assert!(
                rooms.is_empty() || len.is_multiple_of(WORD),
                "{len} bytes in {rooms:?}"
            );
        }
    }
}
