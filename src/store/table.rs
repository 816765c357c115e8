//! Buckets of elements, each a list, in the order in which the kernel keeps them: a new element in front.
//!
//! One block holds the slots, each a head {link to the next: 32 bits, hash: 32 bits}, the key and the value, both filled
//! up to words. Another holds the buckets, a word each:
//!
//! | bits | |
//! | --- | --- |
//! | 0..28 | link to the first slot, 0 if there is none |
//! | 28 | locked |
//! | 29..45 | tags: for each element the bit that its hash selects is set; others may be |
//! | 45..64 | version: changes when an element is unlinked |
//!
//! Links are only written under the bucket's lock. Lookups take no lock. They go wrong only if an element was unlinked
//! on their way (it can be in another bucket by then), so they look at the version afterwards and begin again. This also
//! means that a replaced key is always found, and that what [`Table::read`] copies is never of two elements.
//!
//! Invariants:
//! - a slot that leaves a list keeps its link, so a reader who stands on it goes on;
//! - it is used again only after its bucket was unlocked, and [`Table::write_key`] comes first;
//! - a slot's words are written before its header, and that before the link to it (release, acquire).
//!
//! Kernel: `kernel/bpf/hashtab.c` (v6.18).

use std::io;

use super::freelist::Links;
use super::probe::{Probe, Shape, with_probe, with_shape};
use super::sync::{AtomicU64, Ordering, fence, wait};
use super::words::{WORD, Words};

const LINK_BITS: u32 = 28;
const LINK: u64 = (1 << LINK_BITS) - 1;
const LOCKED: u64 = 1 << LINK_BITS;
const TAGS_AT: u32 = LINK_BITS + 1;
const TAGS: u64 = 0xffff << TAGS_AT;
const VERSION_AT: u32 = 45;

/// The most slots that a table can have.
pub const MAX_SLOTS: u32 = (1 << LINK_BITS) - 1;

/// Words of a slot in front of the key.
const KEY_AT: usize = 1;

/// How often a lookup begins again before it takes the lock.
const TRIES: u32 = 16;

/// Buckets of which slots are asked for before a walk comes there: see [`Table::prefetch_ahead`].
const FAR: u32 = 8;
const NEAR: u32 = 4;

/// Words of the slots of a table from which on walks and batches ask for what comes next: 256 KiB.
const LARGE: usize = (1 << 18) / WORD;

/// See the module.
#[derive(Debug)]
pub struct Table {
    buckets: Words,
    slots: Words,
    seed: u32,
    key_size: usize,
    /// Words of a slot before its value.
    value_at: usize,
    /// Words of a slot.
    stride: usize,
    n_buckets: u32,
    /// Larger than a core's first cache: cold, most often.
    is_large: bool,
}

/// A key's hash, from which its bucket follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hash(u32);

impl Hash {
    /// The bit that stands for it in its bucket's word. Its high bits select it: all in a bucket have the same low ones.
    #[inline]
    const fn tag(self) -> u64 {
        1 << (TAGS_AT + (self.0 >> 28))
    }
}

/// To a slot, counted from 1, or the end of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Link(u32);

impl Link {
    #[inline]
    const fn to(slot: u32) -> Self {
        Self(slot + 1)
    }

    #[inline]
    const fn slot(self) -> Option<u32> {
        self.0.checked_sub(1)
    }

    #[inline]
    const fn is_end(self) -> bool {
        self.0 == 0
    }
}

/// To the first slot of a bucket.
#[inline]
const fn front_of(word: u64) -> Link {
    Link(low(word & LINK))
}

/// The version goes round at the end of the word.
#[inline]
const fn next_version(word: u64) -> u64 {
    word.wrapping_add(1 << VERSION_AT)
}

#[inline]
const fn same_version(word: u64, other: u64) -> bool {
    (word ^ other) >> VERSION_AT == 0
}

/// The header of a slot.
#[inline]
const fn header(next: Link, hash: Hash) -> u64 {
    next.0 as u64 | (hash.0 as u64) << 32
}

/// To the next slot, as a header has it.
#[inline]
const fn next_of(header: u64) -> Link {
    Link(low(header))
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the low half is asked for")]
const fn low(word: u64) -> u32 {
    word as u32
}

#[inline]
const fn high(word: u64) -> u32 {
    low(word >> 32)
}

/// An element left the bucket while it was read.
#[derive(Debug)]
pub struct Unlinked;

impl Table {
    /// An empty table of `n_buckets` buckets (a power of two) and `n_slots` slots (at most [`MAX_SLOTS`]); memory is taken
    /// as it is used.
    ///
    /// # Errors
    ///
    /// Those of the system: there is no such room.
    pub fn new(
        n_buckets: u32,
        n_slots: u32,
        key_size: usize,
        value_words: usize,
        seed: u32,
    ) -> io::Result<Self> {
        assert!(n_buckets.is_power_of_two(), "the map was checked");
        assert!(n_slots <= MAX_SLOTS, "the map was checked");
        let stride = Self::slot_size(key_size, value_words) / WORD;
        let words = stride
            .checked_mul(n_slots as usize)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            buckets: Words::new(n_buckets as usize)?,
            slots: Words::new(words)?,
            seed,
            key_size,
            value_at: KEY_AT + key_size.div_ceil(WORD),
            stride,
            n_buckets,
            is_large: words >= LARGE,
        })
    }

    /// Bytes of one slot: of a larger one an even number of words, so that it lies in as few cache lines as it can.
    pub const fn slot_size(key_size: usize, value_words: usize) -> usize {
        let words = KEY_AT + key_size.div_ceil(WORD) + value_words;
        if words > 3 {
            words.next_multiple_of(2) * WORD
        } else {
            words * WORD
        }
    }

    /// The block that the slots lie in.
    #[inline]
    pub fn words(&self) -> &Words {
        &self.slots
    }

    /// The word where a slot's value begins.
    #[inline]
    pub fn value_at(&self, slot: u32) -> usize {
        self.header_at(slot) + self.value_at
    }

    /// Number of buckets.
    pub fn n_buckets(&self) -> u32 {
        self.n_buckets
    }

    /// Bytes of a key.
    pub fn key_size(&self) -> usize {
        self.key_size
    }

    /// The hash of a key.
    #[inline(always)]
    pub fn hash(&self, key: impl Probe) -> Hash {
        self.check_size(key);
        Hash(key.hash(self.seed))
    }

    /// A key of another size would be compared with, and written over, part of a value.
    #[inline(always)]
    fn check_size(&self, key: impl Probe) {
        assert_eq!(key.len(), self.key_size, "bytes of a key");
    }

    /// As [`Table::find`], of a key in no shape yet.
    #[inline]
    pub fn find_key(&self, key: &[u8]) -> Option<u32> {
        with_probe!(key, |key| self.find(key, self.hash(key)))
    }

    /// The slot of a key. Takes no lock, so it can be another key's by the time the caller looks.
    #[inline]
    pub fn find(&self, key: impl Probe, hash: Hash) -> Option<u32> {
        self.read_hashed(key, hash, |slot| slot)
    }

    /// What `f` reads from the slot of a key. Takes no lock; `f` is called again if the slot did not have that key all the
    /// while.
    #[inline(always)]
    pub fn read<R>(&self, key: impl Probe, f: impl FnMut(u32) -> R) -> Option<R> {
        self.read_hashed(key, self.hash(key), f)
    }

    #[inline(always)]
    fn read_hashed<R>(
        &self,
        key: impl Probe,
        hash: Hash,
        mut f: impl FnMut(u32) -> R,
    ) -> Option<R> {
        match self.try_read(key, hash, &mut f) {
            Ok(answer) => answer,
            Err(Unlinked) => self.read_again(key, hash, f),
        }
    }

    /// What `f` reads from the slot of a key. Takes no lock.
    ///
    /// # Errors
    ///
    /// An element left the bucket meanwhile, so it may not be what the key has.
    #[inline(always)]
    pub fn try_read<R>(
        &self,
        key: impl Probe,
        hash: Hash,
        f: impl FnMut(u32) -> R,
    ) -> Result<Option<R>, Unlinked> {
        let bucket = self.place(self.bucket_of(hash));
        let word = bucket.load(Ordering::Acquire);
        if word & hash.tag() == 0 {
            return Ok(None);
        }
        let place = self.walk(front_of(word), key, hash);
        let answer = place.map(|place| place.slot).map(f);
        fence(Ordering::Acquire);
        if same_version(bucket.load(Ordering::Relaxed), word) {
            Ok(answer)
        } else {
            Err(Unlinked)
        }
    }

    /// As [`Table::read`], for a bucket where elements come and go: after some more tries it is locked.
    #[cold]
    #[inline(never)]
    fn read_again<R>(&self, key: impl Probe, hash: Hash, mut f: impl FnMut(u32) -> R) -> Option<R> {
        for _ in 1..TRIES {
            if let Ok(answer) = self.try_read(key, hash, &mut f) {
                return answer;
            }
        }
        let bucket = self.lock(hash);
        bucket.find(key, hash).map(|place| place.slot).map(f)
    }

    /// The element with that key, from the front of a bucket on.
    #[inline(always)]
    fn walk(&self, front: Link, key: impl Probe, hash: Hash) -> Option<Place> {
        let (mut before, mut at) = (None, front);
        while let Some(slot) = at.slot() {
            let word = self.header_at(slot);
            let header = self.slots.word(word).load(Ordering::Acquire);
            let behind = next_of(header);
            if high(header) == hash.0 && key.is_at(&self.slots, word + KEY_AT) {
                return Some(Place {
                    slot,
                    before,
                    behind,
                });
            }
            (before, at) = (Some(slot), behind);
        }
        None
    }

    /// The slot that has a value at that word.
    pub fn slot_of_value(&self, value_at: usize) -> u32 {
        u32::try_from(value_at / self.stride).expect("slots are counted in 32 bits")
    }

    /// Copies a slot's key out.
    #[inline]
    pub fn read_key(&self, slot: u32, out: &mut [u8]) {
        self.slots.read(self.header_at(slot) + KEY_AT, out);
    }

    /// What `f` reads of a bucket's elements, given its first slot. Takes no lock; `f` is called again if an element left the
    /// bucket meanwhile.
    #[inline]
    pub fn read_bucket<R>(&self, bucket: u32, mut f: impl FnMut(Option<u32>) -> R) -> R {
        let place = self.place(bucket);
        for _ in 0..TRIES {
            let word = place.load(Ordering::Acquire);
            if word & LOCKED != 0 {
                // An element and the one that replaces it may both be in the list.
                std::hint::spin_loop();
                continue;
            }
            let answer = f(front_of(word).slot());
            fence(Ordering::Acquire);
            if same_version(place.load(Ordering::Relaxed), word) {
                return answer;
            }
        }
        f(self.lock_bucket(bucket).front())
    }

    /// Tells the processor what one who goes from bucket to bucket, and is at this one, will read soon: the first slot of a bucket
    /// far ahead, and the second of a nearer one, whose first is there by now; keys, and values too if so. A small table is near
    /// enough.
    #[inline(always)]
    pub fn prefetch_ahead(&self, bucket: u32, values: bool) {
        if self.is_large && bucket + FAR < self.n_buckets {
            // Any slot will do where there is none: a branch would be guessed wrong as often as right.
            let front = |bucket| self.front(bucket).unwrap_or(0);
            self.prefetch_slot(front(bucket + FAR), values);
            self.prefetch_slot(self.behind(front(bucket + NEAR)).unwrap_or(0), values);
        }
    }

    #[inline]
    fn prefetch_slot(&self, slot: u32, value: bool) {
        let at = self.header_at(slot);
        self.slots.prefetch(at);
        if value {
            self.slots.prefetch(at + self.value_at);
        }
    }

    /// Tells the processor that the elements of these slots will be looked for soon.
    pub fn prefetch_chains(&self, slots: &[u32]) {
        let buckets = || slots.iter().map(|&slot| self.bucket_of(self.hash_of(slot)));
        for bucket in buckets() {
            self.buckets.prefetch(bucket as usize);
        }
        for bucket in buckets() {
            if let Some(front) = front_of(self.place(bucket).load(Ordering::Relaxed)).slot() {
                self.slots.prefetch(self.header_at(front));
            }
        }
    }

    /// Tells the processor that the bucket of a hash will be locked soon.
    #[inline]
    pub fn prefetch_bucket(&self, hash: Hash) {
        self.buckets.prefetch(self.bucket_of(hash) as usize);
    }

    /// Copies the key behind `key` out: the next of its bucket, or the first of the buckets behind; the first of all if
    /// there is no such key. False if there is none. Takes no lock.
    pub fn next_key(&self, key: Option<&[u8]>, next_key: &mut [u8]) -> bool {
        match key {
            Some(key) => with_probe!(key, |key| self.key_after(key, next_key)),
            None => with_shape!(self.key_size, S => {
                self.first_key::<<S as Shape>::Key<'_>>(0, next_key)
            }),
        }
    }

    /// As [`Table::next_key`], behind a key.
    pub fn key_after<P: Probe>(&self, key: P, next_key: &mut [u8]) -> bool {
        self.check_size(key);
        let hash = Hash(key.hash_in_walk(self.seed));
        let in_bucket = self.read_hashed(key, hash, |slot| {
            let behind = self.behind(slot);
            behind.map(|behind| self.read_elem_key::<P>(behind, next_key))
        });
        match in_bucket {
            Some(Some(hash)) => self.walked::<P>(next_key, hash),
            Some(None) => self.first_key::<P>(self.bucket_of(hash) + 1, next_key),
            None => self.first_key::<P>(0, next_key),
        }
    }

    /// Copies the first key of the buckets from one on out.
    fn first_key<P: Probe>(&self, from: u32, next_key: &mut [u8]) -> bool {
        for bucket in from..self.n_buckets {
            self.prefetch_ahead(bucket, false);
            if let Some(hash) = self.read_front_key::<P>(bucket, next_key) {
                return self.walked::<P>(next_key, hash);
            }
        }
        false
    }

    #[inline(always)]
    fn walked<P: Probe>(&self, key: &[u8], hash: Hash) -> bool {
        P::walked(key, self.seed, hash.0);
        true
    }

    #[inline(always)]
    fn read_front_key<P: Probe>(&self, bucket: u32, key: &mut [u8]) -> Option<Hash> {
        let bucket = self.place(bucket);
        loop {
            let word = bucket.load(Ordering::Acquire);
            let hash = self.read_elem_key::<P>(front_of(word).slot()?, key);
            fence(Ordering::Acquire);
            if same_version(bucket.load(Ordering::Relaxed), word) {
                return Some(hash);
            }
        }
    }

    /// Copies an element's key out; its hash.
    #[inline(always)]
    fn read_elem_key<P: Probe>(&self, slot: u32, key: &mut [u8]) -> Hash {
        P::copy(&self.slots, self.header_at(slot) + KEY_AT, key);
        self.hash_of(slot)
    }

    /// The first slot of a bucket. Takes no lock.
    #[inline]
    pub fn front(&self, bucket: u32) -> Option<u32> {
        front_of(self.place(bucket).load(Ordering::Acquire)).slot()
    }

    /// The slot behind another in its bucket. Takes no lock: of a slot that left its list, the one that was behind it.
    #[inline]
    pub fn behind(&self, slot: u32) -> Option<u32> {
        next_of(self.header(slot).load(Ordering::Acquire)).slot()
    }

    /// The hash of an element's key.
    #[inline]
    pub fn hash_of(&self, slot: u32) -> Hash {
        Hash(high(self.header(slot).load(Ordering::Relaxed)))
    }

    /// Locks the bucket of a hash.
    #[inline]
    pub fn lock(&self, hash: Hash) -> Bucket<'_> {
        self.lock_bucket(self.bucket_of(hash))
    }

    /// Locks a bucket.
    #[inline]
    pub fn lock_bucket(&self, bucket: u32) -> Bucket<'_> {
        let place = self.place(bucket);
        let word = try_lock(place).unwrap_or_else(|| wait(|| try_lock(place)));
        Bucket {
            table: self,
            place,
            word,
        }
    }

    /// Waits for each lock that is held: all that was done under one until now is done. Who locks a bucket afterwards sees
    /// what this thread stored before, if both the store and that look at it are sequentially consistent.
    pub fn pass_locks(&self) {
        for bucket in 0..self.n_buckets {
            let place = self.place(bucket);
            let unlocked = || (place.load(Ordering::SeqCst) & LOCKED == 0).then_some(());
            unlocked().unwrap_or_else(|| wait(unlocked));
        }
    }

    /// Writes a free slot's key. Its value is the caller's to write, after this and before [`Bucket::insert`].
    #[inline]
    pub fn write_key(&self, slot: u32, key: impl Probe) {
        // Readers who still stand on the slot and see what is written from now on see the version that unlinked it, too.
        fence(Ordering::Release);
        key.write(&self.slots, self.header_at(slot) + KEY_AT);
    }

    #[inline]
    pub(super) fn bucket_of(&self, hash: Hash) -> u32 {
        hash.0 & (self.n_buckets - 1)
    }

    /// The word of a bucket.
    #[inline]
    fn place(&self, bucket: u32) -> &AtomicU64 {
        self.buckets.word(bucket as usize)
    }

    #[inline]
    fn header_at(&self, slot: u32) -> usize {
        slot as usize * self.stride
    }

    #[inline]
    fn header(&self, slot: u32) -> &AtomicU64 {
        self.slots.word(self.header_at(slot))
    }
}

/// A free slot's link takes the place of its hash, so that the link to the next element stays for readers.
impl Links for Table {
    #[inline]
    fn get(&self, slot: u32) -> u32 {
        high(self.header(slot).load(Ordering::Relaxed))
    }

    #[inline]
    fn set(&self, slot: u32, under: u32) {
        let header = self.header(slot);
        let next = low(header.load(Ordering::Relaxed));
        // Who reads it where the hash was, sees the version that unlinked the slot.
        fence(Ordering::Release);
        header.store(u64::from(next) | u64::from(under) << 32, Ordering::Relaxed);
    }
}

/// A bucket that is locked; unlocked at the end of its life.
#[derive(Debug)]
pub struct Bucket<'t> {
    table: &'t Table,
    place: &'t AtomicU64,
    /// The bucket's word as it is to be when it is unlocked.
    word: u64,
}

/// An element in a locked bucket: its slot, and those in front of it and behind it.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Its slot.
    pub slot: u32,
    before: Option<u32>,
    behind: Link,
}

/// Locks a bucket's word, unless it is locked.
#[inline(always)]
fn try_lock(place: &AtomicU64) -> Option<u64> {
    let word = place.load(Ordering::Relaxed) & !LOCKED;
    place
        .compare_exchange_weak(word, word | LOCKED, Ordering::SeqCst, Ordering::Relaxed)
        .ok()
}

impl Bucket<'_> {
    /// The element with that key.
    #[inline(always)]
    pub fn find(&self, key: impl Probe, hash: Hash) -> Option<Place> {
        if self.word & hash.tag() == 0 {
            return None;
        }
        self.table.walk(front_of(self.word), key, hash)
    }

    /// The element in that slot, if this bucket has it.
    pub fn find_slot(&self, slot: u32) -> Option<Place> {
        self.places().find(|place| place.slot == slot)
    }

    /// The first slot.
    pub fn front(&self) -> Option<u32> {
        front_of(self.word).slot()
    }

    /// All elements, front to back.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        let mut before = None;
        let mut at = front_of(self.word);
        std::iter::from_fn(move || {
            let slot = at.slot()?;
            at = next_of(self.table.header(slot).load(Ordering::Acquire));
            let place = Place {
                slot,
                before,
                behind: at,
            };
            before = Some(slot);
            Some(place)
        })
    }

    /// Puts a slot, whose key and value are written, in front. Others may see it at once, at the latest when the bucket is
    /// unlocked.
    #[inline]
    pub fn insert(&mut self, slot: u32, hash: Hash) {
        self.link(slot, front_of(self.word), hash);
        self.word |= hash.tag();
    }

    /// Puts `new` in front and takes an element with the same key out, which is never absent to others.
    #[inline(always)]
    pub fn replace(&mut self, old: Place, new: u32, hash: Hash) {
        match old.before {
            // Others go from the old front to the new one at once, when the bucket is unlocked.
            None => self.link(new, old.behind, hash),
            Some(before) => {
                self.link(new, front_of(self.word), hash);
                // Readers who were past the front already, and miss the old one too, see a new version afterwards.
                self.word = next_version(self.word);
                self.place.store(self.word | LOCKED, Ordering::Release);
                self.set_behind(before, old.behind);
            }
        }
        self.word = next_version(self.word);
    }

    /// Takes an element out.
    #[inline(always)]
    pub fn remove(&mut self, place: Place) {
        match place.before {
            None => self.set_front(place.behind),
            Some(before) => self.set_behind(before, place.behind),
        }
        // A tag too many is cheaper than a look at who else has it. An empty bucket has none, and most are empty now and then.
        if front_of(self.word).is_end() {
            self.word &= !TAGS;
        }
        self.word = next_version(self.word);
    }

    /// Takes all elements out.
    pub fn clear(&mut self) {
        self.word = next_version(self.word & !LINK & !TAGS);
    }

    #[inline(always)]
    fn link(&mut self, slot: u32, behind: Link, hash: Hash) {
        self.table
            .header(slot)
            .store(header(behind, hash), Ordering::Release);
        self.set_front(Link::to(slot));
    }

    #[inline]
    fn set_front(&mut self, front: Link) {
        self.word = self.word & !LINK | u64::from(front.0);
    }

    #[inline]
    fn set_behind(&self, slot: u32, behind: Link) {
        let hash = self.table.hash_of(slot);
        self.table
            .header(slot)
            .store(header(behind, hash), Ordering::Release);
    }
}

impl Drop for Bucket<'_> {
    #[inline]
    fn drop(&mut self) {
        self.place.store(self.word, Ordering::Release);
    }
}

#[cfg(all(test, not(shuttle)))]
#[path = "table_tests.rs"]
mod tests;
