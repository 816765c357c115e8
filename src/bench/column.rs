//! What is measured beside each other: maps that do the same, each a [`Column`].

use crate::abi::MapType;

/// What the maps of all columns are made with.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Their type.
    pub map_type: MapType,
    /// Bytes of a key.
    pub key_size: usize,
    /// Bytes of a value.
    pub value_size: usize,
    /// Elements at most.
    pub max_entries: usize,
    /// Number of possible CPUs.
    pub nr_cpus: u32,
}

impl Spec {
    /// A map of that type; a number of CPUs that only per-CPU types ask for is 2.
    pub const fn new(
        map_type: MapType,
        key_size: usize,
        value_size: usize,
        max_entries: usize,
    ) -> Self {
        Self {
            map_type,
            key_size,
            value_size,
            max_entries,
            nr_cpus: 2,
        }
    }

    /// A value has a part for each CPU.
    pub fn is_percpu(&self) -> bool {
        self.map_type.is_percpu()
    }

    /// Bytes of a value as bpf(2) copies it.
    pub fn user_value_size(&self) -> usize {
        if self.is_percpu() {
            self.value_size.next_multiple_of(8) * self.nr_cpus as usize
        } else {
            self.value_size
        }
    }

    /// Bytes that such a map takes in the running kernel, at least.
    pub fn kernel_bytes(&self) -> usize {
        let parts = if self.is_percpu() { self.nr_cpus } else { 1 };
        let value = self.value_size.next_multiple_of(8) * parts as usize;
        match self.map_type {
            MapType::RINGBUF => self.max_entries,
            MapType::ARRAY | MapType::PERCPU_ARRAY | MapType::QUEUE | MapType::STACK => {
                value * self.max_entries
            }
            _ => {
                let elem = 64 + self.key_size.next_multiple_of(8) + value;
                elem * self.max_entries + 16 * self.max_entries.next_power_of_two()
            }
        }
    }
}

/// One map with keys of `K` bytes. A queue, a stack and a Bloom filter have keys of none: they push by `update`, peek by
/// `lookup`, and pop by `take`.
pub trait Column<const K: usize>: Send + Sync + Sized {
    /// What it is called.
    const NAME: &'static str;
    /// An empty map; none where this machine has no such column.
    fn new(spec: &Spec) -> Option<Self>;
    /// The same map, for a thread that runs on that CPU.
    fn on_cpu(&self, cpu: u32) -> Self;
    /// False if it is not there.
    fn lookup(&self, key: &[u8; K], value: &mut [u8]) -> bool;
    /// Inserts or replaces; there is room.
    fn update(&self, key: &[u8; K], value: &[u8]);
    /// False if it is not there.
    fn delete(&self, key: &[u8; K]) -> bool;
    /// Looks up and deletes.
    fn take(&self, key: &[u8; K], value: &mut [u8]) -> bool;
    /// The key after `key`, or the first; false at the end, and where there are no such walks.
    fn next(&self, _key: Option<&[u8; K]>, _next: &mut [u8; K]) -> bool {
        false
    }
    /// Reads the whole map by batches of 256, or as it is walked best; the number of elements, 0 where there is no such thing.
    fn batch(&self) -> usize {
        0
    }
}

/// Elements of a batch.
pub(super) const BATCH: usize = 256;

/// `n` keys in random order, the same in every run: the numbers from `from` on.
pub fn keys<const K: usize>(n: usize, from: u64) -> Vec<[u8; K]> {
    let mut keys: Vec<[u8; K]> = (from..from + n as u64)
        .map(|number| {
            let mut key = [0; K];
            let len = K.min(8);
            key[..len].copy_from_slice(&number.to_le_bytes()[..len]);
            key
        })
        .collect();
    shuffle(&mut keys, 0x1234_5678_9abc_def1);
    keys
}

/// Numbers that look random, the same in every run.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// The next, below a number.
    #[expect(clippy::cast_possible_truncation, reason = "it is below an usize")]
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end as u64) as usize
    }
}

/// Another order, the same in every run. What is looked up in the order in which it was inserted lies in memory in that
/// order, too, and the processor has it ready.
pub fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut random = Random(seed);
    for i in (1..items.len()).rev() {
        items.swap(i, random.below(i + 1));
    }
}

/// A map with all keys in it, put in in another order than they are looked up in; none where there is no such column.
pub fn filled<const K: usize, C: Column<K>>(spec: &Spec, keys: &[[u8; K]]) -> Option<C> {
    let column = C::new(spec)?;
    let mut order: Vec<&[u8; K]> = keys.iter().collect();
    shuffle(&mut order, 0x0fed_cba9_8765_4321);
    let value = vec![7; spec.user_value_size()];
    for key in order {
        column.update(key, &value);
    }
    Some(column)
}
