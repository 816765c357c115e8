//! Copies of whole blocks of words, by the processor's wide registers.

#![expect(
    unsafe_code,
    reason = "words that are shared without locks are copied many at a time"
)]

use super::sync::AtomicU64;
use super::words::WORD;

/// Bytes that are copied at once, where there are so many.
pub(super) const BLOCK: usize = 64;

/// This processor has such copies, and nobody watches single accesses.
const BLOCKS: bool = cfg!(all(
    target_arch = "x86_64",
    not(any(miri, shuttle, mapemu_portable))
));

/// From this many blocks on, wider registers are worth a look whether there are any.
const WIDE_FROM: usize = 4;

/// The moves of some bytes, again and again.
macro_rules! copy_loop {
    ($from:ident, $to:ident, $times:expr, $bytes:literal, $class:ident [$($register:ident),*], $($line:literal),*) => {
        std::arch::asm!(
            "2:",
            $($line,)*
            concat!("add {from}, ", $bytes),
            concat!("add {to}, ", $bytes),
            "dec {times}",
            "jnz 2b",
            from = inout(reg) $from => _,
            to = inout(reg) $to => _,
            times = inout(reg) $times => _,
            $($register = out($class) _,)*
            options(nostack)
        )
    };
}

/// Copies blocks that other threads may write or read meanwhile. The words of one register may be seen at different times, but
/// none is torn that lies at its place on the shared side: so do all processors, though no manual promises it. (`movsb` would tear
/// words, and `movsq` begins late.)
///
/// # Safety
///
/// `from` can be read and `to` written for `blocks` blocks, at least one, and they do not overlap.
#[cfg(target_arch = "x86_64")]
#[inline]
unsafe fn copy(from: *const u8, to: *mut u8, blocks: usize) {
    if blocks >= WIDE_FROM {
        // SAFETY: by the contract of this function.
        return unsafe { copy_many(from, to, blocks) };
    }
    // SAFETY: by the contract of this function.
    unsafe { copy_few(from, to, blocks) }
}

/// As [`copy`], out of the way of those that copy few.
///
/// # Safety
///
/// As there, of at least [`WIDE_FROM`] blocks.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
unsafe fn copy_many(from: *const u8, to: *mut u8, blocks: usize) {
    if is_x86_feature_detected!("avx") {
        // SAFETY: by the contract of this function, on a processor that has such registers.
        return unsafe { copy_wide(from, to, blocks) };
    }
    // SAFETY: by the contract of this function.
    unsafe { copy_few(from, to, blocks) }
}

/// As [`copy`].
///
/// # Safety
///
/// As there.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn copy_few(from: *const u8, to: *mut u8, blocks: usize) {
    // SAFETY: by the contract of this function. The compiler knows nothing of what happens in there, so a racing access is
    // not its business.
    unsafe {
        copy_loop!(
            from, to, blocks, 64, xmm_reg [a, b, c, d],
            "movups {a}, [{from}]",
            "movups {b}, [{from} + 16]",
            "movups {c}, [{from} + 32]",
            "movups {d}, [{from} + 48]",
            "movups [{to}], {a}",
            "movups [{to} + 16], {b}",
            "movups [{to} + 32], {c}",
            "movups [{to} + 48], {d}"
        );
    }
}

/// As [`copy`].
///
/// # Safety
///
/// As there, of at least [`WIDE_FROM`] blocks; and the processor has AVX.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
unsafe fn copy_wide(from: *const u8, to: *mut u8, blocks: usize) {
    use std::arch::x86_64::_mm256_zeroupper;
    debug_assert!(blocks >= WIDE_FROM, "the loop runs at least once");
    // SAFETY: as in `copy`.
    unsafe {
        copy_loop!(
            from, to, blocks / WIDE_FROM, 256, ymm_reg [a, b, c, d, e, f, g, h],
            "vmovups {a}, [{from}]",
            "vmovups {b}, [{from} + 32]",
            "vmovups {c}, [{from} + 64]",
            "vmovups {d}, [{from} + 96]",
            "vmovups {e}, [{from} + 128]",
            "vmovups {f}, [{from} + 160]",
            "vmovups {g}, [{from} + 192]",
            "vmovups {h}, [{from} + 224]",
            "vmovups [{to}], {a}",
            "vmovups [{to} + 32], {b}",
            "vmovups [{to} + 64], {c}",
            "vmovups [{to} + 96], {d}",
            "vmovups [{to} + 128], {e}",
            "vmovups [{to} + 160], {f}",
            "vmovups [{to} + 192], {g}",
            "vmovups [{to} + 224], {h}"
        );
    }
    // What is left in the upper halves makes all that uses the lower ones slower, from here on.
    _mm256_zeroupper();
    let rest = blocks % WIDE_FROM;
    if rest > 0 {
        let done = (blocks - rest) * BLOCK;
        let (from, to) = (from.wrapping_add(done), to.wrapping_add(done));
        // SAFETY: as in `copy`: so many are left behind those that were copied.
        unsafe { copy_few(from, to, rest) };
    }
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn copy(_from: *const u8, _to: *mut u8, _blocks: usize) {
    unreachable!("no blocks here")
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn copy_few(_from: *const u8, _to: *mut u8, _blocks: usize) {
    unreachable!("no blocks here")
}

/// Copies words, which are as many bytes and [`are_blocks`], out; `FEW` where they [`are_few`].
#[inline(always)]
pub(super) fn read<const FEW: bool>(words: &[AtomicU64], out: &mut [u8]) {
    debug_assert!(are_blocks(out.len()) && words.len() * WORD == out.len());
    let blocks = out.len() / BLOCK;
    // SAFETY: so many bytes lie there, and `out` is the caller's own. The copy is the processor's: other threads that write
    // meanwhile are seen in part or not, as with single words.
    unsafe { copy_some::<FEW>(words.as_ptr().cast(), out.as_mut_ptr(), blocks) };
}

/// Copies bytes, which are as many and [`are_blocks`], to words; `FEW` where they [`are_few`].
#[inline(always)]
pub(super) fn write<const FEW: bool>(words: &[AtomicU64], bytes: &[u8]) {
    debug_assert!(are_blocks(bytes.len()) && words.len() * WORD == bytes.len());
    let (to, blocks) = (words.as_ptr().cast_mut().cast(), bytes.len() / BLOCK);
    // SAFETY: so many bytes lie there, which may be written through a shared reference as all atomics may, and `bytes` are not
    // among them. The copy is the processor's, as in `read`.
    unsafe { copy_some::<FEW>(bytes.as_ptr(), to, blocks) };
}

/// As [`copy`]; without a call if they are few.
///
/// # Safety
///
/// As there.
#[inline(always)]
unsafe fn copy_some<const FEW: bool>(from: *const u8, to: *mut u8, blocks: usize) {
    debug_assert!(!FEW || blocks < WIDE_FROM, "{blocks} blocks are not few");
    if FEW {
        // SAFETY: by the contract of this function.
        unsafe { copy_few(from, to, blocks) };
    } else {
        // SAFETY: by the contract of this function.
        unsafe { copy(from, to, blocks) };
    }
}

/// So many bytes are blocks, at least one, and nothing else.
#[inline]
pub(super) const fn are_blocks(len: usize) -> bool {
    BLOCKS && len.is_multiple_of(BLOCK) && len > 0
}

/// So many bytes are blocks, few, and nothing else.
#[inline]
pub(super) const fn are_few(len: usize) -> bool {
    are_blocks(len) && len < WIDE_FROM * BLOCK
}

/// How many of so many bytes are copied in blocks.
#[inline]
pub(super) const fn within(len: usize) -> usize {
    if BLOCKS { len / BLOCK * BLOCK } else { 0 }
}
