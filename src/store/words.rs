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
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapMut, MmapOptions};

/// Bytes of a word.
pub const WORD: usize = 8;

/// From this many bytes on, huge pages are asked for.
const HUGE_PAGES_FROM: usize = 1 << 22;

/// From this many bytes on, the words have a mapping of their own: whole pages, which are taken when they are used.
const MAPPING_FROM: usize = 1 << 14;

/// See the module.
pub struct Words {
    words: NonNull<AtomicU64>,
    len: usize,
    _memory: Memory,
    file: Option<std::fs::File>,
}

/// What keeps the words.
enum Memory {
    Mapped { _mapping: MmapMut },
    Heap { words: NonNull<[AtomicU64]> },
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
        if bytes < MAPPING_FROM {
            return Ok(Self::on_heap(len));
        }
        let memory = MmapOptions::new().len(bytes).no_reserve_swap().map_anon()?;
        #[cfg(target_os = "linux")]
        if bytes >= HUGE_PAGES_FROM {
            // A refusal costs speed, nothing else.
            let _ = memory.advise(memmap2::Advice::HugePage);
        }
        Ok(Self::of(memory, len, None))
    }

    /// `len` zero words that lie in a file without a name, where the system has such, so that they can be mapped.
    ///
    /// # Errors
    ///
    /// Those of the system.
    #[cfg(target_os = "linux")]
    pub fn in_file(len: usize) -> io::Result<Self> {
        use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
        let bytes = len.checked_mul(WORD).ok_or(io::ErrorKind::OutOfMemory)?;
        let fd = memfd_create("bpf-map", MemfdFlags::CLOEXEC)?;
        ftruncate(&fd, bytes as u64)?;
        let file = std::fs::File::from(fd);
        // SAFETY: the file has no name and its only handle is kept here; nobody makes it shorter. What others write
        // to it through mappings of their own are races as between threads, and every access here is atomic.
        let memory = unsafe { MmapOptions::new().len(bytes).map_mut(&file) }?;
        Ok(Self::of(memory, len, Some(file)))
    }

    /// `len` zero words; this system has no files without a name.
    ///
    /// # Errors
    ///
    /// Those of the system.
    #[cfg(not(target_os = "linux"))]
    pub fn in_file(len: usize) -> io::Result<Self> {
        Self::new(len)
    }

    fn on_heap(len: usize) -> Self {
        let words: Box<[AtomicU64]> = (0..len).map(|_| AtomicU64::new(0)).collect();
        let words = NonNull::new(Box::into_raw(words)).expect("a box is not at 0");
        Self {
            words: words.cast(),
            len,
            _memory: Memory::Heap { words },
            file: None,
        }
    }

    fn of(mut memory: MmapMut, len: usize, file: Option<std::fs::File>) -> Self {
        let words =
            NonNull::new(memory.as_mut_ptr().cast::<AtomicU64>()).expect("a mapping is not at 0");
        Self {
            words,
            len,
            _memory: Memory::Mapped { _mapping: memory },
            file,
        }
    }

    /// The file that the words lie in.
    pub fn file(&self) -> Option<&std::fs::File> {
        self.file.as_ref()
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
        assert!(index < self.len, "word {index} of {}", self.len);
        // SAFETY: `index < len`, so it lies in the block, by the invariant of the struct.
        let at = unsafe { self.words.add(index) };
        // SAFETY: the word is initialised (all are zero at first), aligned (so is a box of words; mappings begin at pages), lives as long as
        // `self`, and is only ever accessed as an `AtomicU64`.
        unsafe { at.as_ref() }
    }

    /// Copies `out.len()` bytes from the word at `from` on.
    #[inline]
    pub fn read(&self, from: usize, out: &mut [u8]) {
        let mut chunks = out.chunks_exact_mut(WORD);
        let mut index = from;
        for chunk in &mut chunks {
            chunk.copy_from_slice(&self.word(index).load(Ordering::Relaxed).to_ne_bytes());
            index += 1;
        }
        let rest = chunks.into_remainder();
        if !rest.is_empty() {
            rest.copy_from_slice(
                &self.word(index).load(Ordering::Relaxed).to_ne_bytes()[..rest.len()],
            );
        }
    }

    /// Copies `bytes` to the word at `from` on; of a last word that they fill in part, the other bytes stay.
    #[inline]
    pub fn write(&self, from: usize, bytes: &[u8]) {
        let chunks = bytes.chunks_exact(WORD);
        let rest = chunks.remainder();
        let mut index = from;
        for chunk in chunks {
            let word = u64::from_ne_bytes(chunk.try_into().expect("chunks are words"));
            self.word(index).store(word, Ordering::Relaxed);
            index += 1;
        }
        if !rest.is_empty() {
            self.write_bytes(index * WORD, rest);
        }
    }

    /// Copies bytes out, from any byte on.
    pub fn read_bytes(&self, from: usize, out: &mut [u8]) {
        for (at, byte) in (from..).zip(out) {
            *byte = self.word(at / WORD).load(Ordering::Relaxed).to_ne_bytes()[at % WORD];
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

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} words", self.len)
    }
}
