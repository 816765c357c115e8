//! Bob Jenkins' hash "lookup3" as Linux has it: the hash of keys, and of a Bloom filter's values.
//!
//! Kernel: `include/linux/jhash.h:jhash`, `jhash2` (v6.18). Both give the same number on a little-endian machine.

const INITVAL: u32 = 0xdead_beef;
/// Bytes of one round.
const ROUND: usize = 12;

/// The hash of some bytes.
pub fn jhash(bytes: &[u8], initval: u32) -> u32 {
    // The kernel counts in 32 bits too.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "values are at most a few MiB"
    )]
    let start = INITVAL
        .wrapping_add(bytes.len() as u32)
        .wrapping_add(initval);
    let mut state = [start; 3];
    let mut rest = bytes;
    while rest.len() > ROUND {
        let (round, later) = rest.split_at(ROUND);
        add(&mut state, round);
        mix(&mut state);
        rest = later;
    }
    if !rest.is_empty() {
        let mut last = [0; ROUND];
        last[..rest.len()].copy_from_slice(rest);
        add(&mut state, &last);
        finish(&mut state);
    }
    state[2]
}

fn add(state: &mut [u32; 3], round: &[u8]) {
    for (sum, word) in state.iter_mut().zip(round.chunks_exact(4)) {
        *sum = sum.wrapping_add(u32::from_le_bytes(
            word.try_into().expect("chunks have 4 bytes"),
        ));
    }
}

fn mix([a, b, c]: &mut [u32; 3]) {
    let step = |x: &mut u32, y: &mut u32, z: &mut u32, rotate: u32| {
        *x = x.wrapping_sub(*z) ^ z.rotate_left(rotate);
        *z = z.wrapping_add(*y);
    };
    step(a, b, c, 4);
    step(b, c, a, 6);
    step(c, a, b, 8);
    step(a, b, c, 16);
    step(b, c, a, 19);
    step(c, a, b, 4);
}

fn finish([a, b, c]: &mut [u32; 3]) {
    let step = |x: &mut u32, y: u32, rotate: u32| {
        *x = (*x ^ y).wrapping_sub(y.rotate_left(rotate));
    };
    step(c, *b, 14);
    step(a, *c, 11);
    step(b, *a, 25);
    step(c, *b, 16);
    step(a, *c, 4);
    step(b, *a, 14);
    step(c, *b, 24);
}

#[cfg(test)]
mod tests {
    use super::jhash;

    #[test]
    fn known_answers() {
        // The last two are those that the author of the hash publishes.
        assert_eq!(jhash(b"", 0), 0xdead_beef);
        assert_eq!(jhash(b"Four score and seven years ago", 0), 0x1777_0551);
        assert_eq!(jhash(b"Four score and seven years ago", 1), 0xcd62_8161);
    }
}
