//! A block of 64-bit words at an address that stays, all zero at first, that many threads read and write at once.
//!
//! Every access is atomic and a whole word wide (relaxed, unless it says otherwise), or the processor's own copy of many words
//! ([`super::blocks`]), so a racing copy can be torn between words, as in the kernel, and is never undefined behaviour. Smaller
//! stores exchange their bytes in the word.
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

use super::blocks;
use super::room::{Blocks, Room};
use super::sync::{AtomicU64, Ordering};

/// Bytes of a word.
pub const WORD: usize = 8;

/// From this many bytes on, huge pages are asked for.
const HUGE_PAGES_FROM: usize = 1 << 22;

/// From this many bytes on, the words have a mapping of their own: whole pages, which are taken when they are used.
const MAPPING_FROM: usize = 1 << 14;

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
        } else if let Some(mut blocks) = Blocks::<true>::of(out) {
            blocks.fill(self, from);
        } else {
            self.read_some(from, out);
        }
    }

    fn read_some(&self, from: usize, out: &mut [u8]) {
        let words = self.slice(from, out.len().div_ceil(WORD));
        let (blocks, out) = out.split_at_mut(blocks::within(out.len()));
        let (of_blocks, words) = words.split_at(blocks.len() / WORD);
        if !blocks.is_empty() {
            blocks::read::<false>(of_blocks, blocks);
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
        let (blocks, bytes) = bytes.split_at(blocks::within(bytes.len()));
        if !blocks.is_empty() {
            blocks::write::<false>(self.slice(from, blocks.len() / WORD), blocks);
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
        } else if blocks::are_few(bytes.len()) {
            blocks::write::<true>(self.slice(from, bytes.len() / WORD), bytes);
        } else if blocks::are_blocks(bytes.len()) {
            blocks::write::<false>(self.slice(from, bytes.len() / WORD), bytes);
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
