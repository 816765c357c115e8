//! A hash table of slots that never move: the kernel's hash, buckets and order.
//!
//! A bucket is a list whose newest element is in front. One word holds it: the front link, a lock bit, and a bitmap of tags
//! (some bits of each element's hash), which answers most misses without a look at an element. A slot is a header word
//! (link to the next, hash), the key, and the value, each filled up to whole words.
//!
//! Lookups take no lock. A list ends in a mark that names its bucket: who was led astray, by an element that moved to
//! another bucket meanwhile, sees the wrong mark and starts again. Invariants:
//! - links and slots in lists change under the bucket's lock only;
//! - a slot that leaves a list keeps its link, so a reader who stands on it finds the way;
//! - a slot's words are written before its header, and that before the link to it (release, acquire).
//!
//! Kernel: `kernel/bpf/hashtab.c` (v6.18).

use std::io;

use super::freelist::Links;
use super::jhash::jhash;
use super::sync::{Ordering, relax};
use super::words::{WORD, Words};

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
}

/// In a bucket: somebody changes it.
const LOCK: u64 = 1 << 63;
/// In a bucket: the tags, above the link.
const TAGS: u64 = (LOCK - 1) & !LINK;
/// In a bucket and a header: the link, a slot's number and 1, or 0 in an empty bucket.
const LINK: u64 = u32::MAX as u64;
/// In a link: the mark at the end of a list, with the bucket's number.
const END: u32 = 1 << 31;

/// A key's hash, from which its bucket follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hash(u32);

impl Hash {
    const fn tag(self) -> u64 {
        // The top bits: the low ones say the bucket. 31 tags, the two highest numbers share one.
        let top = self.0 >> 27;
        let number = if top == 31 { 30 } else { top };
        1 << (32 + number)
    }
}

/// A slot in a header's or bucket's link.
const fn slot_of(link: u32) -> Option<u32> {
    if link == 0 || link & END != 0 {
        None
    } else {
        Some(link - 1)
    }
}

const fn link_to(slot: u32) -> u64 {
    slot as u64 + 1
}

impl Table {
    /// An empty table of `n_buckets` buckets (a power of two) and `n_slots` slots; memory is taken as it is used.
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
        assert!(
            n_buckets.is_power_of_two() && n_slots < END,
            "the map was checked"
        );
        let value_at = 1 + key_size.div_ceil(WORD);
        // Two words at a time, so that small slots do not straddle cache lines.
        let stride = (value_at + value_words).next_multiple_of(2);
        let words = stride
            .checked_mul(n_slots as usize)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            buckets: Words::new(n_buckets as usize)?,
            slots: Words::new(words)?,
            seed,
            key_size,
            value_at,
            stride,
        })
    }

    /// Bytes of one slot.
    pub const fn slot_size(key_size: usize, value_words: usize) -> usize {
        (1 + key_size.div_ceil(WORD) + value_words).next_multiple_of(2) * WORD
    }

    /// The block that the slots lie in.
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
        u32::try_from(self.buckets.len()).expect("it was made from a u32")
    }

    /// The hash of a key.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> Hash {
        Hash(match key.len() {
            4 => jhash(&key[..4], self.seed),
            8 => jhash(&key[..8], self.seed),
            16 => jhash(&key[..16], self.seed),
            _ => jhash(key, self.seed),
        })
    }

    /// The slot of a key. Takes no lock.
    #[inline]
    pub fn find(&self, key: &[u8], hash: Hash) -> Option<u32> {
        let bucket = self.bucket_of(hash);
        loop {
            let word = self.buckets.word(bucket).load(Ordering::Acquire);
            if word & hash.tag() == 0 {
                return None;
            }
            let mut link = low(word);
            while let Some(slot) = slot_of(link) {
                let header = self
                    .slots
                    .word(self.header_at(slot))
                    .load(Ordering::Acquire);
                if high(header) == hash.0 && self.key_is(slot, key) {
                    return Some(slot);
                }
                link = low(header);
            }
            if link == 0 || link == self.end_of(bucket) {
                return None;
            }
        }
    }

    /// Copies a slot's key out.
    pub fn read_key(&self, slot: u32, out: &mut [u8]) {
        self.slots.read(self.header_at(slot) + 1, out);
    }

    /// The first slot of the first bucket from `bucket` on that has any. Takes no lock.
    pub fn first_from(&self, bucket: u32) -> Option<u32> {
        (bucket as usize..self.buckets.len())
            .find_map(|bucket| slot_of(low(self.buckets.word(bucket).load(Ordering::Acquire))))
    }

    /// The slot behind another in its bucket, or the first of the buckets behind. Takes no lock.
    pub fn next(&self, slot: u32, hash: Hash) -> Option<u32> {
        self.behind(slot)
            .or_else(|| self.first_from(u32::try_from(self.bucket_of(hash)).ok()? + 1))
    }

    /// The first slot of a bucket. Takes no lock.
    pub fn front(&self, bucket: u32) -> Option<u32> {
        slot_of(low(self
            .buckets
            .word(bucket as usize)
            .load(Ordering::Acquire)))
    }

    /// The slot behind another in its bucket. Takes no lock.
    pub fn behind(&self, slot: u32) -> Option<u32> {
        slot_of(low(self
            .slots
            .word(self.header_at(slot))
            .load(Ordering::Acquire)))
    }

    /// Locks the bucket of a hash.
    #[inline]
    pub fn lock(&self, hash: Hash) -> Bucket<'_> {
        self.lock_at(self.bucket_of(hash))
    }

    /// Locks a bucket.
    pub fn lock_bucket(&self, bucket: u32) -> Bucket<'_> {
        self.lock_at(bucket as usize)
    }

    /// Writes a free slot's key. Its value is the caller's to write, before [`Bucket::insert`].
    #[inline]
    pub fn write_key(&self, slot: u32, key: &[u8]) {
        self.slots.fill(self.header_at(slot) + 1, key);
    }

    #[inline]
    fn lock_at(&self, bucket: usize) -> Bucket<'_> {
        let place = self.buckets.word(bucket);
        let mut waited = 0;
        loop {
            let word = place.load(Ordering::Relaxed);
            let free = word & !LOCK;
            if word == free
                && place
                    .compare_exchange_weak(free, free | LOCK, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                return Bucket {
                    table: self,
                    bucket,
                    word,
                };
            }
            relax(&mut waited);
        }
    }

    #[inline]
    fn bucket_of(&self, hash: Hash) -> usize {
        hash.0 as usize & (self.buckets.len() - 1)
    }

    fn end_of(&self, bucket: usize) -> u32 {
        END | u32::try_from(bucket).expect("buckets are counted by a u32")
    }

    #[inline]
    fn header_at(&self, slot: u32) -> usize {
        slot as usize * self.stride
    }

    #[inline]
    fn key_is(&self, slot: u32, key: &[u8]) -> bool {
        let at = self.header_at(slot) + 1;
        match key.len() {
            4 => self.slots.starts_with(at, &key[..4]),
            8 => self.slots.starts_with(at, &key[..8]),
            16 => self.slots.starts_with(at, &key[..16]),
            _ => self.slots.starts_with(at, key),
        }
    }

    /// The hash that a slot was last put in with.
    pub fn hash_of(&self, slot: u32) -> Hash {
        let header = self.slots.word(self.header_at(slot));
        Hash(high(header.load(Ordering::Relaxed)))
    }

    /// Bytes of a key.
    pub fn key_size(&self) -> usize {
        self.key_size
    }
}

/// A free slot's link takes the place of its hash, so that the link to the next element stays for readers.
impl Links for Table {
    fn get(&self, slot: u32) -> u32 {
        high(
            self.slots
                .word(self.header_at(slot))
                .load(Ordering::Relaxed),
        )
    }

    fn set(&self, slot: u32, under: u32) {
        let header = self.slots.word(self.header_at(slot));
        let word = header.load(Ordering::Relaxed) & LINK | u64::from(under) << 32;
        header.store(word, Ordering::Relaxed);
    }
}

/// A bucket that is locked; unlocked at the end of its life.
#[derive(Debug)]
pub struct Bucket<'t> {
    table: &'t Table,
    bucket: usize,
    /// The bucket's word as it is to be when it is unlocked.
    word: u64,
}

/// An element in a locked bucket: its slot, and the one in front of it.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Its slot.
    pub slot: u32,
    before: Option<u32>,
}

impl Bucket<'_> {
    /// The element with that key.
    #[inline]
    pub fn find(&self, key: &[u8], hash: Hash) -> Option<Place> {
        if self.word & hash.tag() == 0 {
            return None;
        }
        self.places()
            .find(|place| self.hash_of(place.slot) == hash && self.table.key_is(place.slot, key))
    }

    /// All elements, front to back.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        let mut before = None;
        let mut link = low(self.word);
        std::iter::from_fn(move || {
            let slot = slot_of(link)?;
            link = low(self.header(slot));
            let place = Place { slot, before };
            before = Some(slot);
            Some(place)
        })
    }

    /// Puts a slot, whose key and value are written, in front. Others may see it at once, at the latest when the bucket is
    /// unlocked.
    #[inline]
    pub fn insert(&mut self, slot: u32, hash: Hash) {
        let front = low(self.word);
        let next = if front == 0 {
            self.table.end_of(self.bucket)
        } else {
            front
        };
        let header = u64::from(hash.0) << 32 | u64::from(next);
        self.table
            .slots
            .word(self.table.header_at(slot))
            .store(header, Ordering::Release);
        self.word = self.word & TAGS | hash.tag() | link_to(slot);
    }

    /// Puts `new` in front and takes an element with the same key out, which is never absent to others.
    #[inline]
    pub fn replace(&mut self, old: Place, new: u32, hash: Hash) {
        self.insert(new, hash);
        let before = match old.before {
            // Others go from the old front to the new one at once, when the bucket is unlocked.
            None => new,
            Some(before) => {
                self.publish();
                before
            }
        };
        self.unlink(old.slot, before);
    }

    /// Takes an element out.
    #[inline]
    pub fn remove(&mut self, place: Place) {
        match place.before {
            Some(before) => self.unlink(place.slot, before),
            None => {
                let next = slot_of(low(self.header(place.slot))).map_or(0, link_to);
                self.word = self.word & TAGS | next;
            }
        }
        self.count_tags();
    }

    /// Takes all elements out.
    pub fn clear(&mut self) {
        self.word = 0;
    }

    /// Lets others see what was done so far.
    fn publish(&self) {
        self.table
            .buckets
            .word(self.bucket)
            .store(self.word | LOCK, Ordering::Release);
    }

    fn unlink(&self, slot: u32, before: u32) {
        let next = self.header(slot) & LINK;
        let header = self.header(before) & !LINK | next;
        self.table
            .slots
            .word(self.table.header_at(before))
            .store(header, Ordering::Release);
    }

    fn count_tags(&mut self) {
        let tags = self
            .places()
            .fold(0, |tags, place| tags | self.hash_of(place.slot).tag());
        self.word = self.word & LINK | tags;
    }

    fn header(&self, slot: u32) -> u64 {
        self.table
            .slots
            .word(self.table.header_at(slot))
            .load(Ordering::Relaxed)
    }

    fn hash_of(&self, slot: u32) -> Hash {
        Hash(high(self.header(slot)))
    }
}

impl Drop for Bucket<'_> {
    fn drop(&mut self) {
        self.table
            .buckets
            .word(self.bucket)
            .store(self.word & !LOCK, Ordering::Release);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is asked for")]
const fn low(word: u64) -> u32 {
    word as u32
}

const fn high(word: u64) -> u32 {
    low(word >> 32)
}
