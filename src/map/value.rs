//! The value of one element, in place, as a program holds it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bitflags::bitflags;

use super::graph::Root;
use super::holdings::Holdings;
use super::lock::SpinGuard;
use super::task_work::TaskWork;
use super::timer::Timer;
use crate::abi::MapFlags;
use crate::btf::{FieldKind, Fields};
use crate::store::{AtomicU64, WORD, Words};

/// A pointer to a value: the place itself, not a copy.
///
/// It is the address of the place, not bound to the key: after a delete it shows the old bytes until the place is used
/// again, and then those of the new owner, as a pointer in a program would.
#[derive(Clone)]
pub struct Value<'m> {
    block: Block<'m>,
    /// The word where the value begins.
    at: usize,
    size: u32,
    fields: &'m Fields,
    /// What the fields hold, of maps and objects whose fields can hold something.
    holdings: Option<&'m Holdings>,
    /// What programs may not do.
    limits: Limits,
}

bitflags! {
    /// What a program may not do with a value.
    #[derive(Clone, Copy)]
    struct Limits: u8 {
        /// Read: the map is `WRONLY_PROG`.
        const READ = 1;
        /// Write: the map is `RDONLY_PROG`.
        const WRITE = 2;
        /// Use its fields: it is an object that was found by a kptr, without a reference.
        const FIELDS = 4;
    }
}

#[derive(Clone)]
enum Block<'m> {
    /// Of a map whose places are one block.
    Borrowed(&'m Words),
    /// Of a map whose elements have memory of their own, which lives on while somebody holds it.
    Shared(Arc<Words>),
    /// The same, with what the fields hold.
    Element(Arc<Element>),
}

/// The memory of one value, and what its fields hold: that goes with the memory.
#[derive(Debug)]
pub struct Element {
    /// The value begins at the first word.
    pub words: Words,
    /// What the fields hold, if they can hold something.
    pub(super) holdings: Option<Box<Holdings>>,
}

impl<'m> Value<'m> {
    /// `size` bytes from the word at `at` on.
    #[inline]
    pub fn in_block(words: &'m Words, at: usize, size: u32, fields: &'m Fields) -> Self {
        Self {
            block: Block::Borrowed(words),
            at,
            size,
            fields,
            holdings: None,
            limits: Limits::empty(),
        }
    }

    /// As [`Value::in_block`], of a block that lives as long as the value is held.
    #[inline]
    pub fn shared(words: Arc<Words>, at: usize, size: u32, fields: &'m Fields) -> Self {
        Self {
            block: Block::Shared(words),
            at,
            size,
            fields,
            holdings: None,
            limits: Limits::empty(),
        }
    }

    /// As [`Value::shared`], of an element and what its fields hold.
    pub(super) fn of_element(element: Arc<Element>, size: u32, fields: &'m Fields) -> Self {
        Self {
            block: Block::Element(element),
            at: 0,
            size,
            fields,
            holdings: None,
            limits: Limits::empty(),
        }
    }

    /// The value with what its fields hold.
    #[inline]
    #[must_use]
    pub(super) fn with_holdings(self, holdings: Option<&'m Holdings>) -> Self {
        Self { holdings, ..self }
    }

    /// The timer or workqueue in it.
    pub fn timer(&self, kind: FieldKind) -> Option<Timer<'m>> {
        let timers = self.holdings?.timers.as_ref()?;
        timers.of_value(self.at, kind)
    }

    /// The task work in it.
    pub fn task_work(&self) -> Option<TaskWork<'m>> {
        let works = self.holdings?.works.as_ref()?;
        Some(TaskWork::new(works, self.at))
    }

    /// The kptr, list or tree that is at that byte of it.
    pub fn root(&self, offset: usize, kind: FieldKind) -> Option<Root<'_>> {
        let holdings = match &self.block {
            Block::Element(element) => element.holdings.as_deref(),
            Block::Borrowed(_) | Block::Shared(_) => self.holdings,
        };
        let graph = holdings?.graph.as_ref()?;
        graph.root(self.place(), offset, kind)
    }

    /// The value with its fields out of reach: neither can its lock be taken, nor what they hold be changed.
    #[must_use]
    pub fn without_fields(self) -> Self {
        let limits = self.limits | Limits::FIELDS;
        Self { limits, ..self }
    }

    /// Its fields are in reach.
    pub const fn has_fields(&self) -> bool {
        !self.limits.contains(Limits::FIELDS)
    }

    /// What tells it from other values while it is there.
    pub fn address(&self) -> usize {
        let (words, at) = self.place();
        std::ptr::from_ref(words.word(at)) as usize
    }

    /// The value as programs have it that use a map with these flags: they may not read it if it is `WRONLY_PROG`, and not
    /// write it if it is `RDONLY_PROG`.
    #[must_use]
    #[inline]
    pub fn limited(self, map_flags: MapFlags) -> Self {
        let mut limits = self.limits;
        limits.set(Limits::READ, map_flags.contains(MapFlags::WRONLY_PROG));
        limits.set(Limits::WRITE, map_flags.contains(MapFlags::RDONLY_PROG));
        Self { limits, ..self }
    }

    /// The block and the word in it where the value begins.
    #[inline]
    pub fn place(&self) -> (&Words, usize) {
        match &self.block {
            Block::Borrowed(words) => (words, self.at),
            Block::Shared(words) => (words, self.at),
            Block::Element(element) => (&element.words, self.at),
        }
    }

    /// Bytes of the value.
    #[inline]
    pub fn size(&self) -> usize {
        self.size as usize
    }

    /// Special fields of the value.
    #[inline]
    pub fn fields(&self) -> &'m Fields {
        self.fields
    }

    /// Waits for the `bpf_spin_lock` at that byte of the value, and takes it.
    pub fn lock(&self, offset: usize) -> SpinGuard<'_> {
        let (words, at) = self.place();
        SpinGuard::lock(words, at * WORD + offset)
    }

    /// Copies bytes out, from `offset` on.
    ///
    /// # Panics
    ///
    /// If they do not lie in the value, or are of a special field: the verifier refuses such a load.
    #[track_caller]
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        self.check(offset, out.len(), Limits::READ);
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
    /// If they do not lie in the value, or are of a special field: the verifier refuses such a store.
    #[track_caller]
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        self.check(offset, bytes.len(), Limits::WRITE);
        let (words, at) = self.place();
        words.write_bytes(at * WORD + offset, bytes);
    }

    /// A copy of all bytes; special fields show as user space sees them.
    ///
    /// # Panics
    ///
    /// If programs may not read the map.
    #[track_caller]
    pub fn to_vec(&self) -> Vec<u8> {
        self.check(0, 0, Limits::READ);
        let mut out = vec![0; self.size()];
        let (words, at) = self.place();
        words.read(at, &mut out);
        self.fields.hide(&mut out);
        out
    }

    /// Judges an access; `limit` is what it may not be limited by.
    ///
    /// Kernel: `kernel/bpf/verifier.c:check_map_access`, `check_map_access_type`.
    #[inline]
    #[track_caller]
    fn check(&self, offset: usize, len: usize, limit: Limits) {
        let rule = if offset > self.size() || len > self.size() - offset {
            "they are outside of the value"
        } else if self.fields.touched_by(offset, len).is_some() {
            "a special field is not loaded or stored"
        } else if self.limits.intersects(limit) {
            "the map's flags do not let programs do this"
        } else {
            return;
        };
        panic!(
            "the verifier refuses {len} bytes at {offset} of a value of {} bytes (EACCES): {rule}",
            self.size
        );
    }

    /// What an atomic operation works on: the word, and the shift of its bytes in there.
    #[track_caller]
    fn atomic(&self, offset: usize, len: usize) -> (&AtomicU64, u32) {
        self.check(offset, len, Limits::READ | Limits::WRITE);
        assert!(
            offset.is_multiple_of(len),
            "the verifier refuses an atomic operation at {offset}, which is no multiple of {len} (EACCES)"
        );
        let (words, at) = self.place();
        let in_word = offset % WORD;
        let bytes_before = if cfg!(target_endian = "little") {
            in_word
        } else {
            WORD - in_word - len
        };
        let shift = u32::try_from(bytes_before * 8).expect("less than 64");
        (words.word(at + offset / WORD), shift)
    }
}

/// Loads and stores of one size. Aligned, they are one access; else as [`Value::read`] and [`Value::write`].
macro_rules! loads_and_stores {
    ($($int:ident: $load:ident, $store:ident;)*) => {
        impl Value<'_> {
            $(
                #[doc = concat!("Loads a `", stringify!($int), "`.")]
                ///
                /// # Panics
                ///
                /// As [`Value::read`].
                #[inline]
                #[track_caller]
                pub fn $load(&self, offset: usize) -> $int {
                    let mut bytes = [0; size_of::<$int>()];
                    self.check(offset, bytes.len(), Limits::READ);
                    let (words, at) = self.place();
                    if offset % WORD + bytes.len() <= WORD {
                        let word = words.word(at + offset / WORD).load(Ordering::Relaxed);
                        bytes.copy_from_slice(&word.to_ne_bytes()[offset % WORD..][..size_of::<$int>()]);
                    } else {
                        words.read_bytes(at * WORD + offset, &mut bytes);
                    }
                    $int::from_ne_bytes(bytes)
                }

                #[doc = concat!("Stores a `", stringify!($int), "`.")]
                ///
                /// # Panics
                ///
                /// As [`Value::write`].
                #[inline]
                #[track_caller]
                pub fn $store(&self, offset: usize, value: $int) {
                    self.check(offset, size_of::<$int>(), Limits::WRITE);
                    let (words, at) = self.place();
                    let bytes = value.to_ne_bytes();
                    if bytes.len() == WORD && offset.is_multiple_of(WORD) {
                        words.write(at + offset / WORD, &bytes);
                    } else {
                        words.write_bytes(at * WORD + offset, &bytes);
                    }
                }
            )*
        }
    };
}

loads_and_stores! {
    u8: load_u8, store_u8;
    u16: load_u16, store_u16;
    u32: load_u32, store_u32;
    u64: load_u64, store_u64;
}

/// The atomic operations of BPF, on the word that the bytes lie in.
macro_rules! atomics {
    ($int:ident: $update:ident, $compare_exchange:ident; $($name:ident = $op:expr, $what:literal;)*) => {
        impl Value<'_> {
                #[track_caller]
                fn $update(&self, offset: usize, new: impl Fn($int) -> Option<$int>) -> Result<$int, $int> {
                    let (word, shift) = self.atomic(offset, size_of::<$int>());
                    let mask = u64::from($int::MAX);
                    // The cut-off is what picks the bytes.
                    let part = |word: u64| $int::try_from((word >> shift) & mask).expect("masked");
                    word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| {
                        let new = u64::from(new(part(old))?);
                        Some(old & !(mask << shift) | new << shift)
                    })
                    .map(part)
                    .map_err(part)
                }

                #[doc = concat!("Stores `new` in a `", stringify!($int), "` if it is `expected`; what it was (`BPF_CMPXCHG`).")]
                ///
                /// # Panics
                ///
                /// As [`Value::write`], and if `offset` is no multiple of the size.
                #[track_caller]
                pub fn $compare_exchange(&self, offset: usize, expected: $int, new: $int) -> $int {
                    match self.$update(offset, |old| (old == expected).then_some(new)) {
                        Ok(old) | Err(old) => old,
                    }
                }

                $(
                    #[doc = concat!($what, " a `", stringify!($int), "`; what it was.")]
                    ///
                    /// # Panics
                    ///
                    /// As [`Value::write`], and if `offset` is no multiple of the size.
                    #[track_caller]
                    pub fn $name(&self, offset: usize, operand: $int) -> $int {
                        let op: fn($int, $int) -> $int = $op;
                        match self.$update(offset, |old| Some(op(old, operand))) {
                            Ok(old) | Err(old) => old,
                        }
                    }
                )*
        }
    };
}

atomics! {
    u32: update_u32, compare_exchange_u32;
        fetch_add_u32 = u32::wrapping_add, "Adds to (`BPF_ADD | BPF_FETCH`)";
        fetch_and_u32 = |old, new| old & new, "Ands with (`BPF_AND | BPF_FETCH`)";
        fetch_or_u32 = |old, new| old | new, "Ors with (`BPF_OR | BPF_FETCH`)";
        fetch_xor_u32 = |old, new| old ^ new, "Exclusive-ors with (`BPF_XOR | BPF_FETCH`)";
        exchange_u32 = |_, new| new, "Exchanges (`BPF_XCHG`)";
}

atomics! {
    u64: update_u64, compare_exchange_u64;
        fetch_add_u64 = u64::wrapping_add, "Adds to (`BPF_ADD | BPF_FETCH`)";
        fetch_and_u64 = |old, new| old & new, "Ands with (`BPF_AND | BPF_FETCH`)";
        fetch_or_u64 = |old, new| old | new, "Ors with (`BPF_OR | BPF_FETCH`)";
        fetch_xor_u64 = |old, new| old ^ new, "Exclusive-ors with (`BPF_XOR | BPF_FETCH`)";
        exchange_u64 = |_, new| new, "Exchanges (`BPF_XCHG`)";
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "value of {} bytes", self.size)
    }
}
