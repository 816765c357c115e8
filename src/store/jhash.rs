//! Bob Jenkins' hash "lookup3" as Linux has it: the hash of keys, and of a Bloom filter's values.
//!
//! Kernel: `include/linux/jhash.h:jhash`, `jhash2` (v6.18). Both give the same number on a little-endian machine.

const INITVAL: u32 = 0xdead_beef;
/// Bytes of one round.
const ROUND: usize = 12;

/// The hash of some bytes.
#[inline]
pub fn jhash(bytes: &[u8], initval: u32) -> u32 {
    // The kernel counts in 32 bits too.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "values are at most a few MiB"
    )]
    let mut state = start(bytes.len() as u32, initval);
    let mut rest = bytes;
    while rest.len() > ROUND {
        state = mix(add(state, rest));
        rest = &rest[ROUND..];
    }
    if rest.is_empty() {
        return state[2];
    }
    finish(add(state, rest))
}

/// The next round, or what is left.
#[inline]
fn add([a, b, c]: [u32; 3], rest: &[u8]) -> [u32; 3] {
    [
        a.wrapping_add(word(rest, 0)),
        b.wrapping_add(word(rest, 4)),
        c.wrapping_add(word(rest, 8)),
    ]
}

/// The four bytes from `at` on, those that are not there 0.
#[inline]
fn word(bytes: &[u8], at: usize) -> u32 {
    match bytes.get(at..).unwrap_or_default() {
        &[a, b, c, d, ..] => u32::from_le_bytes([a, b, c, d]),
        few => few
            .iter()
            .rev()
            .fold(0, |word, &byte| word << 8 | u32::from(byte)),
    }
}

/// The hash of one word.
#[inline]
pub(super) fn jhash_4(key: u32, initval: u32) -> u32 {
    let [a, b, c] = start(4, initval);
    finish([a.wrapping_add(key), b, c])
}

/// The hash of two words, the first one in the low half.
#[inline]
pub(super) fn jhash_8(key: u64, initval: u32) -> u32 {
    let [a, b, c] = start(8, initval);
    let [first, second] = halves(key);
    finish([a.wrapping_add(first), b.wrapping_add(second), c])
}

/// The hash of four words, in the order of memory.
#[inline]
pub(super) fn jhash_16(key: [u64; 2], initval: u32) -> u32 {
    let [a, b, c] = start(16, initval);
    let [[w0, w1], [w2, w3]] = key.map(halves);
    let [a, b, c] = mix([a.wrapping_add(w0), b.wrapping_add(w1), c.wrapping_add(w2)]);
    finish([a.wrapping_add(w3), b, c])
}

#[inline]
fn halves(word: u64) -> [u32; 2] {
    #[expect(clippy::cast_possible_truncation, reason = "the low half")]
    [word as u32, (word >> 32) as u32]
}

#[inline]
fn start(len: u32, initval: u32) -> [u32; 3] {
    [INITVAL.wrapping_add(len).wrapping_add(initval); 3]
}

#[inline]
fn mix([mut a, mut b, mut c]: [u32; 3]) -> [u32; 3] {
    let step = |x: &mut u32, y: &mut u32, z: &mut u32, rotate: u32| {
        *x = x.wrapping_sub(*z) ^ z.rotate_left(rotate);
        *z = z.wrapping_add(*y);
    };
    step(&mut a, &mut b, &mut c, 4);
    step(&mut b, &mut c, &mut a, 6);
    step(&mut c, &mut a, &mut b, 8);
    step(&mut a, &mut b, &mut c, 16);
    step(&mut b, &mut c, &mut a, 19);
    step(&mut c, &mut a, &mut b, 4);
    [a, b, c]
}

#[inline]
fn finish([mut a, mut b, mut c]: [u32; 3]) -> u32 {
    let step = |x: &mut u32, y: u32, rotate: u32| {
        *x = (*x ^ y).wrapping_sub(y.rotate_left(rotate));
    };
    step(&mut c, b, 14);
    step(&mut a, c, 11);
    step(&mut b, a, 25);
    step(&mut c, b, 16);
    step(&mut a, c, 4);
    step(&mut b, a, 14);
    step(&mut c, b, 24);
    c
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::{jhash, jhash_4, jhash_8, jhash_16};

    #[test]
    fn known_answers() {
        // The last two are those that the author of the hash publishes.
        assert_eq!(jhash(b"", 0), 0xdead_beef);
        assert_eq!(jhash(b"Four score and seven years ago", 0), 0x1777_0551);
        assert_eq!(jhash(b"Four score and seven years ago", 1), 0xcd62_8161);
    }

    #[test]
    fn hashes_of_keys_as_recorded() {
        let rising: Vec<u8> = (0..25).collect();
        for (key, hash) in [
            (&[0][..], 0x8ba9_414b),
            (&[1], 0x04ec_883b),
            (b"abc", 0x0e39_7631),
            (&[0; 4], 0x0493_96b8),
            (&[1, 0, 0, 0], 0x72a8_2a9b),
            (&[2, 0, 0, 0], 0xee62_6cca),
            (&[3, 0, 0, 0], 0x9917_754f),
            (&[0xff; 4], 0x9b11_c75b),
            (b"hello", 0x34cb_bc6e),
            (&[1, 0, 0, 0, 0, 0, 0, 0], 0x5543_253f),
            (&rising[..12], 0x5e4a_a593),
            (&rising[..13], 0xbc9d_6816),
            (&rising[..16], 0x5e84_eafc),
            (&rising[..24], 0x9c0a_dd53),
            (&rising[..25], 0x3a88_2244),
        ] {
            assert_eq!(jhash(key, 0), hash, "{key:02x?}");
        }
    }

    #[test]
    fn short_cuts_give_the_same() {
        for seed in [0, 7, 0xffff_fff0] {
            assert_eq!(jhash_4(0x0403_0201, seed), jhash(&[1, 2, 3, 4], seed));
            let key = 0x0807_0605_0403_0201;
            assert_eq!(jhash_8(key, seed), jhash(&[1, 2, 3, 4, 5, 6, 7, 8], seed));
            let bytes: Vec<u8> = [key, !key].iter().flat_map(|w| w.to_le_bytes()).collect();
            assert_eq!(jhash_16([key, !key], seed), jhash(&bytes, seed));
        }
    }
}
