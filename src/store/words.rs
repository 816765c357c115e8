//! A block of 64-bit words at an address that stays, all zero at first, that many threads read and write at once.
//!
//! Every access is atomic and a whole word wide (relaxed, unless it says otherwise), so a racing copy can be torn between
//! words, as in the kernel, and is never undefined behaviour. Smaller stores exchange their bytes in the word.
//!
//! Invariant: `words` points at `len` words of `memory`, which lives and stays where it is as long as this value.

#![expect(
    unsafe_code,
    reason = "one block of memory that is shared without locks; pages are only touched when used"
)]

use std::fmt;
use std::io;
use std::ptr::NonNull;

use memmap2::{MmapMut, MmapOptions};

use super::sync::{AtomicU64, Ordering};

/// Bytes of a word.
pub const WORD: usize = 8;

/// From this many bytes on, huge pages are asked for.
const HUGE_PAGES_FROM: usize = 1 << 22;

/// From this many bytes on, the words have a mapping of their own: whole pages, which are taken when they are used.
const MAPPING_FROM: usize = 1 << 14;

/// Bytes that are copied at once, where there are so many.
const BLOCK: usize = 64;

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

/// Copies blocks that other threads may write or read meanwhile. A word is never torn where it lies at its place on the
/// shared side: those in one register of the processor may be. (`movsb` would tear words, and `movsq` begins late.)
///
/// # Safety
///
/// `from` can be read and `to` written for `blocks` blocks, at least one, and they do not overlap.
#[cfg(target_arch = "x86_64")]
#[inline]
unsafe fn copy_blocks(from: *const u8, to: *mut u8, blocks: usize) {
    if blocks >= WIDE_FROM {
        // SAFETY: by the contract of this function.
        return unsafe { copy_many_blocks(from, to, blocks) };
    }
    // SAFETY: by the contract of this function.
    unsafe { copy_few_blocks(from, to, blocks) }
}

/// As [`copy_blocks`], out of the way of those that copy few.
///
/// # Safety
///
/// As there.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
unsafe fn copy_many_blocks(from: *const u8, to: *mut u8, blocks: usize) {
    if is_x86_feature_detected!("avx") {
        // SAFETY: by the contract of this function, on a processor that has such registers.
        return unsafe { copy_wide_blocks(from, to, blocks) };
    }
    // SAFETY: by the contract of this function.
    unsafe { copy_few_blocks(from, to, blocks) }
}

/// As [`copy_blocks`].
///
/// # Safety
///
/// As there.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn copy_few_blocks(from: *const u8, to: *mut u8, blocks: usize) {
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

/// As [`copy_blocks`].
///
/// # Safety
///
/// As there; and the processor has AVX.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
unsafe fn copy_wide_blocks(from: *const u8, to: *mut u8, blocks: usize) {
    // SAFETY: as in `copy_blocks`.
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
    let rest = blocks % WIDE_FROM;
    if rest > 0 {
        let done = (blocks - rest) * BLOCK;
        // SAFETY: as in `copy_blocks`: so many are left behind those that were copied.
        unsafe { copy_few_blocks(from.add(done), to.add(done), rest) };
    }
}

/// Copies these words, which are `out.len()` bytes, whole blocks.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn read_blocks(words: &[AtomicU64], out: &mut [u8]) {
    debug_assert_eq!(words.len() * WORD, out.len());
    // SAFETY: so many bytes lie there, and `out` is the caller's own. The copy is the processor's: other threads that write
    // meanwhile are seen in part or not, as with single words.
    unsafe { copy_blocks(words.as_ptr().cast(), out.as_mut_ptr(), out.len() / BLOCK) };
}

#[cfg(not(target_arch = "x86_64"))]
fn read_blocks(_words: &[AtomicU64], _out: &mut [u8]) {
    unreachable!("no blocks here")
}

/// As [`read_blocks`], where they are few.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn read_few_blocks(words: &[AtomicU64], out: &mut [u8]) {
    debug_assert_eq!(words.len() * WORD, out.len());
    // SAFETY: as in `read_blocks`.
    unsafe { copy_few_blocks(words.as_ptr().cast(), out.as_mut_ptr(), out.len() / BLOCK) };
}

#[cfg(not(target_arch = "x86_64"))]
fn read_few_blocks(_words: &[AtomicU64], _out: &mut [u8]) {
    unreachable!("no blocks here")
}

/// So many bytes are blocks, at least one, and nothing else.
#[inline]
const fn is_blocks(len: usize) -> bool {
    BLOCKS && len.is_multiple_of(BLOCK) && len > 0
}

/// So many bytes are blocks, few, and nothing else.
#[inline]
const fn is_few_blocks(len: usize) -> bool {
    is_blocks(len) && len < WIDE_FROM * BLOCK
}

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

/// Room for a few blocks.
#[derive(Debug)]
pub struct FewBlocks<'a>(&'a mut [u8]);

impl<'a> FewBlocks<'a> {
    /// Those bytes, if they are so many blocks and nothing else.
    #[inline(always)]
    pub fn of(bytes: &'a mut [u8]) -> Option<Self> {
        is_few_blocks(bytes.len()).then_some(Self(bytes))
    }
}

impl Room for FewBlocks<'_> {
    #[inline(always)]
    fn fill(&mut self, words: &Words, from: usize) {
        read_few_blocks(words.slice(from, self.0.len() / WORD), self.0);
    }

    #[inline(always)]
    fn bytes(&mut self) -> &mut [u8] {
        self.0
    }
}

/// Room for any number of blocks; they are copied by a call.
#[derive(Debug)]
pub struct Blocks<'a>(&'a mut [u8]);

impl<'a> Blocks<'a> {
    /// Those bytes, if they are blocks and nothing else.
    #[inline(always)]
    pub fn of(bytes: &'a mut [u8]) -> Option<Self> {
        is_blocks(bytes.len()).then_some(Self(bytes))
    }
}

impl Room for Blocks<'_> {
    #[inline(always)]
    fn fill(&mut self, words: &Words, from: usize) {
        read_blocks(words.slice(from, self.0.len() / WORD), self.0);
    }

    #[inline(always)]
    fn bytes(&mut self) -> &mut [u8] {
        self.0
    }
}

/// How many of so many bytes are copied in blocks.
#[inline]
const fn in_blocks(len: usize) -> usize {
    if BLOCKS { len / BLOCK * BLOCK } else { 0 }
}

/// Up to 7 bytes as a word, filled up with 0.
#[inline]
pub(super) fn padded(bytes: &[u8]) -> u64 {
    let mut word = [0; WORD];
    if let &[a, b, c, d] = bytes {
        // The most common by far, and no call then.
        word = [a, b, c, d, 0, 0, 0, 0];
    } else {
        word[..bytes.len()].copy_from_slice(bytes);
    }
    u64::from_ne_bytes(word)
}

/// See the module.
pub struct Words {
    words: NonNull<AtomicU64>,
    len: usize,
    #[cfg_attr(
        any(not(target_os = "linux"), shuttle),
        expect(dead_code, reason = "kept, not read")
    )]
    memory: Memory,
}

/// What keeps the words.
enum Memory {
    Mapped {
        _mapping: MmapMut,
        /// The file that is mapped, if it is one.
        #[cfg(all(target_os = "linux", not(shuttle)))]
        file: Option<std::os::fd::OwnedFd>,
    },
    Heap {
        words: NonNull<[AtomicU64]>,
    },
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Self::Heap { words } = *self {
            // SAFETY: `words` came from `Box::into_raw` in `Words::on_heap`, and this is the only place that gives it back.
            drop(unsafe { Box::from_raw(words.as_ptr()) });
        }
    }
}

// SAFETY: the words are only reached through `&AtomicU64`, and the memory is private to this value.
unsafe impl Send for Words {}
// SAFETY: as for `Send`: all access is atomic.
unsafe impl Sync for Words {}

impl Words {
    /// `len` zero words; if they are many, memory is taken from the system as they are used.
    ///
    /// # Errors
    ///
    /// Those of the system: there is no such room.
    pub fn new(len: usize) -> io::Result<Self> {
        let bytes = len.checked_mul(WORD).ok_or(io::ErrorKind::OutOfMemory)?;
        if bytes < MAPPING_FROM || cfg!(shuttle) {
            return Ok(Self::on_heap(len));
        }
        let memory = MmapOptions::new().len(bytes).no_reserve_swap().map_anon()?;
        #[cfg(target_os = "linux")]
        if bytes >= HUGE_PAGES_FROM {
            // A refusal costs speed, nothing else.
            let _ = memory.advise(memmap2::Advice::HugePage);
        }
        Ok(Self::of(memory, len))
    }

    /// `len` zero words that lie in a file without a name, where the system has such, so that they can be mapped. The file is
    /// open as long as they live: one fd of this process.
    ///
    /// # Errors
    ///
    /// Those of the system.
    #[cfg(all(target_os = "linux", not(shuttle)))]
    pub fn in_file(len: usize) -> io::Result<Self> {
        use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
        let bytes = len.checked_mul(WORD).ok_or(io::ErrorKind::OutOfMemory)?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = memfd_create("bpf-map", flags)?;
        ftruncate(&fd, bytes as u64)?;
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW)?;
        Self::map_file(fd, len)
    }

    /// `len` words in a file without a name that is there already, and that nobody may make shorter from here on. They have
    /// what it has; it is made longer if it is too short.
    ///
    /// # Errors
    ///
    /// Those of the system.
    #[cfg(all(target_os = "linux", not(shuttle)))]
    pub fn in_this(file: std::os::fd::OwnedFd, len: usize) -> io::Result<Self> {
        use rustix::fs::{SealFlags, fcntl_add_seals, fstat, ftruncate};
        let bytes = len.checked_mul(WORD).ok_or(io::ErrorKind::OutOfMemory)?;
        fcntl_add_seals(&file, SealFlags::SHRINK)?;
        let size = u64::try_from(fstat(&file)?.st_size).unwrap_or(0);
        if size < bytes as u64 {
            ftruncate(&file, bytes as u64)?;
        }
        Self::map_file(file, len)
    }

    /// The first `len` words of a file that is sealed: it does not get shorter.
    #[cfg(all(target_os = "linux", not(shuttle)))]
    fn map_file(fd: std::os::fd::OwnedFd, len: usize) -> io::Result<Self> {
        let bytes = len * WORD;
        // SAFETY: the file has no name and is sealed at its size: nobody who reaches it, by this handle or one made from it, can
        // make it shorter. Who maps it too changes bytes, which are only ever accessed as atomics here.
        let memory = unsafe { MmapOptions::new().len(bytes).map_mut(&fd) }?;
        let mut words = Self::of(memory, len);
        if let Memory::Mapped { file, .. } = &mut words.memory {
            *file = Some(fd);
        }
        Ok(words)
    }

    /// The file that they lie in: see [`Words::in_file`].
    #[cfg(all(target_os = "linux", not(shuttle)))]
    pub fn file(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        use std::os::fd::AsFd;
        match &self.memory {
            Memory::Mapped { file, .. } => file.as_ref().map(AsFd::as_fd),
            Memory::Heap { .. } => None,
        }
    }

    /// `len` zero words; this system has no files without a name.
    ///
    /// # Errors
    ///
    /// Those of the system.
    #[cfg(any(not(target_os = "linux"), shuttle))]
    pub fn in_file(len: usize) -> io::Result<Self> {
        Self::new(len)
    }

    fn on_heap(len: usize) -> Self {
        let words: Box<[AtomicU64]> = (0..len).map(|_| AtomicU64::new(0)).collect();
        let words = NonNull::new(Box::into_raw(words)).expect("a box is not at 0");
        Self {
            words: words.cast(),
            len,
            memory: Memory::Heap { words },
        }
    }

    fn of(mut memory: MmapMut, len: usize) -> Self {
        let words =
            NonNull::new(memory.as_mut_ptr().cast::<AtomicU64>()).expect("a mapping is not at 0");
        Self {
            words,
            len,
            memory: Memory::Mapped {
                _mapping: memory,
                #[cfg(all(target_os = "linux", not(shuttle)))]
                file: None,
            },
        }
    }

    /// Number of words.
    pub fn len(&self) -> usize {
        self.len
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The word at `index`.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[inline]
    pub fn word(&self, index: usize) -> &AtomicU64 {
        if index >= self.len {
            outside(index, self.len);
        }
        // SAFETY: `index < len`, so it lies in the block, by the invariant of the struct.
        let at = unsafe { self.words.add(index) };
        // SAFETY: the word is initialised (all are zero at first), aligned (so is a box of words; mappings begin at pages), lives
        // as long as `self`, and is only ever accessed as an `AtomicU64`.
        unsafe { at.as_ref() }
    }

    /// `len` words from `from` on.
    ///
    /// # Panics
    ///
    /// If there are not as many.
    #[inline]
    pub fn slice(&self, from: usize, len: usize) -> &[AtomicU64] {
        // SAFETY: by the invariant of the struct there are so many words. They are initialised, aligned, live as long as
        // `self`, and are only ever accessed as `AtomicU64`s (see `word`).
        let all = unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.len) };
        &all[from..from + len]
    }

    /// Copies `out.len()` bytes from the word at `from` on.
    #[inline(always)]
    pub fn read(&self, from: usize, out: &mut [u8]) {
        // A counter, most often.
        if let Ok(mut word) = <&mut [u8; WORD]>::try_from(&mut *out) {
            word.fill(self, from);
        } else if let Some(mut blocks) = FewBlocks::of(out) {
            blocks.fill(self, from);
        } else {
            self.read_some(from, out);
        }
    }

    fn read_some(&self, from: usize, out: &mut [u8]) {
        let words = self.slice(from, out.len().div_ceil(WORD));
        let (blocks, out) = out.split_at_mut(in_blocks(out.len()));
        let (of_blocks, words) = words.split_at(blocks.len() / WORD);
        if !blocks.is_empty() {
            read_blocks(of_blocks, blocks);
        }
        let mut chunks = out.chunks_exact_mut(WORD);
        for (chunk, word) in (&mut chunks).zip(words) {
            chunk.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        let rest = chunks.into_remainder();
        if !rest.is_empty() {
            let word = words[words.len() - 1].load(Ordering::Relaxed).to_ne_bytes();
            rest.copy_from_slice(&word[..rest.len()]);
        }
    }

    /// Tells the processor that the words from `from` on will be read soon; nothing if there are none.
    #[inline]
    pub fn prefetch(&self, from: usize) {
        #[cfg(all(target_arch = "x86_64", not(any(miri, shuttle))))]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let at = self.words.as_ptr().wrapping_add(from);
            // SAFETY: a prefetch reads nothing that the program sees, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast::<i8>()) };
        }
        #[cfg(not(all(target_arch = "x86_64", not(any(miri, shuttle)))))]
        let _ = from;
    }

    /// Copies `bytes` to the word at `from` on; of a last word that they fill in part, the other bytes stay.
    #[inline(always)]
    pub fn write(&self, from: usize, bytes: &[u8]) {
        let (blocks, bytes) = bytes.split_at(in_blocks(bytes.len()));
        if !blocks.is_empty() {
            self.write_blocks(from, blocks);
        }
        let from = from + blocks.len() / WORD;
        let whole = bytes.len() / WORD;
        let (bytes, rest) = bytes.split_at(whole * WORD);
        for (word, chunk) in self.slice(from, whole).iter().zip(bytes.chunks_exact(WORD)) {
            let bytes = chunk.try_into().expect("chunks are words");
            word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        }
        if !rest.is_empty() {
            self.write_bytes((from + whole) * WORD, rest);
        }
    }

    /// Copies `bytes` to the word at `from` on; of a last word that they fill in part, the other bytes become 0.
    #[inline(always)]
    pub fn fill(&self, from: usize, bytes: &[u8]) {
        if let Ok(&bytes) = <&[u8; WORD]>::try_from(bytes) {
            self.word(from)
                .store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        } else if is_few_blocks(bytes.len()) {
            self.write_few_blocks(from, bytes);
        } else if is_blocks(bytes.len()) {
            self.write_blocks(from, bytes);
        } else {
            self.fill_some(from, bytes);
        }
    }

    fn fill_some(&self, from: usize, bytes: &[u8]) {
        let whole = bytes.len() / WORD * WORD;
        let (words, rest) = bytes.split_at(whole);
        self.write(from, words);
        if !rest.is_empty() {
            self.word(from + whole / WORD)
                .store(padded(rest), Ordering::Relaxed);
        }
    }

    /// The address of `len` bytes from the word at `from` on.
    ///
    /// # Panics
    ///
    /// If they do not lie in the block.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn block(&self, from: usize, len: usize) -> *mut u8 {
        let words = len.div_ceil(WORD);
        if words > self.len || from > self.len - words {
            outside(from, self.len);
        }
        // SAFETY: `from <= len` of the block, so it is in or one past it, by the invariant of the struct.
        unsafe { self.words.add(from) }.as_ptr().cast::<u8>()
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn write_blocks(&self, from: usize, bytes: &[u8]) {
        let at = self.block(from, bytes.len());
        // SAFETY: `block` checked that so many bytes lie there, and `bytes` are not among them. The copy is the processor's, as in
        // `read_blocks`.
        unsafe { copy_blocks(bytes.as_ptr(), at, bytes.len() / BLOCK) };
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn write_few_blocks(&self, from: usize, bytes: &[u8]) {
        let at = self.block(from, bytes.len());
        // SAFETY: as in `write_blocks`.
        unsafe { copy_few_blocks(bytes.as_ptr(), at, bytes.len() / BLOCK) };
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn write_few_blocks(&self, _from: usize, _bytes: &[u8]) {
        unreachable!("no blocks here")
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn write_blocks(&self, _from: usize, _bytes: &[u8]) {
        unreachable!("no blocks here")
    }

    /// Copies bytes out, from any byte on; those of one word are read at once.
    pub fn read_bytes(&self, from: usize, out: &mut [u8]) {
        let mut rest = out;
        let mut at = from;
        while !rest.is_empty() {
            let start = at % WORD;
            let len = rest.len().min(WORD - start);
            let (now, later) = rest.split_at_mut(len);
            let word = self.word(at / WORD).load(Ordering::Relaxed).to_ne_bytes();
            now.copy_from_slice(&word[start..start + len]);
            rest = later;
            at += len;
        }
    }

    /// Copies bytes in, from any byte on; the other bytes of the words they lie in stay, even those that another thread
    /// writes meanwhile.
    pub fn write_bytes(&self, from: usize, bytes: &[u8]) {
        let mut rest = bytes;
        let mut at = from;
        while !rest.is_empty() {
            let start = at % WORD;
            let len = rest.len().min(WORD - start);
            let (now, later) = rest.split_at(len);
            let exchange = |old: u64| {
                let mut word = old.to_ne_bytes();
                word[start..start + len].copy_from_slice(now);
                Some(u64::from_ne_bytes(word))
            };
            // The closure always gives a word, so this cannot fail.
            let _ =
                self.word(at / WORD)
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, exchange);
            rest = later;
            at += len;
        }
    }
}

/// Not inlined: nothing of it is prepared where it is not called.
#[cold]
#[inline(never)]
#[track_caller]
fn outside(index: usize, len: usize) -> ! {
    panic!("word {index} of {len}")
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} words", self.len)
    }
}
