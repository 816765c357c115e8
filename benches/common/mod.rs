//! The columns that are measured beside each other: the emulated map by its handle and by bpf(2), the running kernel,
//! dashmap, and the open-coded limit: the kernel's hash and order with sizes known at compile time and no
//! synchronisation at all.
#![allow(
    dead_code,
    unreachable_pub,
    unsafe_code,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a bench: each uses its own part; the limit is what no lock and no check costs"
)]

pub mod burst;

use std::cell::UnsafeCell;
use std::hint::black_box;

use mapemu::Kernel;
use mapemu::abi::{Bpf, Cmd, MapHandle, MapType, UpdateFlags};
use mapemu::calls::{self, CreateOpts};

/// One hash map with keys of `K` bytes and values of `V` bytes.
pub trait Column<const K: usize, const V: usize>: Sync + Sized {
    const NAME: &'static str;
    /// An empty map for that many elements; none where this machine has no such column.
    fn new(max_entries: u32) -> Option<Self>;
    fn lookup(&self, key: &[u8; K], value: &mut [u8; V]) -> bool;
    fn update(&self, key: &[u8; K], value: &[u8; V]);
    fn delete(&self, key: &[u8; K]) -> bool;
    /// Looks up and deletes.
    fn take(&self, key: &[u8; K], value: &mut [u8; V]) -> bool;
    /// The key after `key`, or the first; false at the end.
    fn next(&self, _key: Option<&[u8; K]>, _next: &mut [u8; K]) -> bool {
        false
    }
    /// Reads the whole map by batches of 256; the number of elements.
    fn batch(&self) -> usize {
        0
    }
}

/// `n` keys in random order, the same in every run.
pub fn keys<const K: usize>(n: usize, from: u64) -> Vec<[u8; K]> {
    let mut keys: Vec<[u8; K]> = (from..from + n as u64)
        .map(|number| {
            let mut key = [0; K];
            let bytes = number.to_le_bytes();
            let len = K.min(8);
            key[..len].copy_from_slice(&bytes[..len]);
            key
        })
        .collect();
    shuffle(&mut keys, 0x1234_5678_9abc_def1);
    keys
}

/// Another order, the same in every run. What is looked up in the order in which it was inserted lies in memory in that
/// order, too, and the processor has it ready.
pub fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed;
    for i in (1..items.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        items.swap(i, (state % (i as u64 + 1)) as usize);
    }
}

/// The emulated map by the handle that typed front ends hold.
pub struct Emulated {
    handle: Box<dyn MapHandle>,
    kernel: Kernel,
    fd: u32,
}

fn create<const K: usize, const V: usize>(
    kernel: &Kernel,
    map_type: MapType,
    max_entries: u32,
) -> u32 {
    calls::bpf_map_create(
        kernel,
        map_type,
        "bench",
        K as u32,
        V as u32,
        max_entries,
        &CreateOpts::default(),
    )
    .expect("a map")
}

impl<const K: usize, const V: usize> Column<K, V> for Emulated {
    const NAME: &'static str = "emulated";

    fn new(max_entries: u32) -> Option<Self> {
        let kernel = Kernel::new();
        let fd = create::<K, V>(&kernel, MapType::HASH, max_entries);
        Some(Self {
            handle: kernel.map_handle(fd).expect("a handle"),
            kernel,
            fd,
        })
    }

    #[inline]
    fn lookup(&self, key: &[u8; K], value: &mut [u8; V]) -> bool {
        self.handle
            .lookup_elem(key, value, UpdateFlags::ANY)
            .is_ok()
    }

    #[inline]
    fn update(&self, key: &[u8; K], value: &[u8; V]) {
        self.handle
            .update_elem(key, value, UpdateFlags::ANY)
            .expect("room");
    }

    #[inline]
    fn delete(&self, key: &[u8; K]) -> bool {
        self.handle.delete_elem(key).is_ok()
    }

    #[inline]
    fn take(&self, key: &[u8; K], value: &mut [u8; V]) -> bool {
        self.handle
            .lookup_and_delete_elem(key, value, UpdateFlags::ANY)
            .is_ok()
    }

    #[inline]
    fn next(&self, key: Option<&[u8; K]>, next: &mut [u8; K]) -> bool {
        self.handle
            .get_next_key(key.map(|key| &key[..]), next)
            .is_ok()
    }

    fn batch(&self) -> usize {
        batches::<K, V>(&self.kernel, self.fd)
    }
}

fn batches<const K: usize, const V: usize>(bpf: &dyn Bpf, fd: u32) -> usize {
    const COUNT: usize = 256;
    let (mut keys, mut values) = (vec![0; COUNT * K], vec![0; COUNT * V]);
    let (mut token, mut next) = (None::<[u8; 64]>, [0_u8; 64]);
    let mut total = 0;
    loop {
        let from = token.as_ref().map(|token| &token[..]);
        let done = calls::bpf_map_lookup_batch(
            bpf,
            fd,
            from,
            &mut next,
            &mut keys,
            &mut values,
            COUNT as u32,
        );
        total += done.count as usize;
        if done.result.is_err() {
            return total;
        }
        token = Some(next);
    }
}

/// The emulated map by bpf(2): attr bytes, fd, copies.
pub struct EmulatedBpf {
    kernel: Kernel,
    fd: u32,
}

impl<const K: usize, const V: usize> Column<K, V> for EmulatedBpf {
    const NAME: &'static str = "emulated bpf(2)";

    fn new(max_entries: u32) -> Option<Self> {
        let kernel = Kernel::new();
        let fd = create::<K, V>(&kernel, MapType::HASH, max_entries);
        Some(Self { kernel, fd })
    }

    #[inline]
    fn lookup(&self, key: &[u8; K], value: &mut [u8; V]) -> bool {
        calls::bpf_map_lookup_elem(&self.kernel, self.fd, key, value).is_ok()
    }

    fn update(&self, key: &[u8; K], value: &[u8; V]) {
        calls::bpf_map_update_elem(&self.kernel, self.fd, key, value, 0).expect("room");
    }

    fn delete(&self, key: &[u8; K]) -> bool {
        calls::bpf_map_delete_elem(&self.kernel, self.fd, key).is_ok()
    }

    fn take(&self, key: &[u8; K], value: &mut [u8; V]) -> bool {
        calls::bpf_map_lookup_and_delete_elem(&self.kernel, self.fd, key, value).is_ok()
    }
}

/// Bytes of the largest map that the running kernel is asked for, unless `MAPEMU_BENCH_LARGE=1` allows up to 160 MiB.
const KERNEL_LIMIT: usize = 32 << 20;

/// The running kernel, by the system call itself.
pub struct Running {
    fd: u32,
}

#[repr(C)]
struct ElemAttr {
    fd: u64,
    key: u64,
    value: u64,
    flags: u64,
}

impl Running {
    #[inline]
    fn elem(&self, cmd: Cmd, key: *const u8, value: *const u8) -> bool {
        let attr = ElemAttr {
            fd: self.fd.into(),
            key: key as u64,
            value: value as u64,
            flags: 0,
        };
        bpf(cmd, &raw const attr as u64, 32) >= 0
    }
}

#[cfg(target_os = "linux")]
fn bpf(cmd: Cmd, attr: u64, size: u32) -> i64 {
    // SAFETY: attr holds addresses of buffers as long as the map's key and value, which outlive the call.
    unsafe { libc::syscall(libc::SYS_bpf, cmd.0, attr, size) }
}

#[cfg(not(target_os = "linux"))]
fn bpf(_cmd: Cmd, _attr: u64, _size: u32) -> i64 {
    -1
}

impl<const K: usize, const V: usize> Column<K, V> for Running {
    const NAME: &'static str = "kernel";

    fn new(max_entries: u32) -> Option<Self> {
        let bytes = (K + V + 64) * max_entries as usize;
        let large = std::env::var_os("MAPEMU_BENCH_LARGE").is_some_and(|value| value == "1");
        if bytes > KERNEL_LIMIT && !large {
            return None;
        }
        let attr = [
            MapType::HASH.0,
            K as u32,
            V as u32,
            max_entries,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        ];
        let fd = bpf(Cmd::MAP_CREATE, attr.as_ptr() as u64, 72);
        u32::try_from(fd).ok().map(|fd| Self { fd })
    }

    #[inline]
    fn lookup(&self, key: &[u8; K], value: &mut [u8; V]) -> bool {
        self.elem(Cmd::MAP_LOOKUP_ELEM, key.as_ptr(), value.as_mut_ptr())
    }

    #[inline]
    fn update(&self, key: &[u8; K], value: &[u8; V]) {
        assert!(self.elem(Cmd::MAP_UPDATE_ELEM, key.as_ptr(), value.as_ptr()));
    }

    #[inline]
    fn delete(&self, key: &[u8; K]) -> bool {
        self.elem(Cmd::MAP_DELETE_ELEM, key.as_ptr(), std::ptr::null())
    }

    #[inline]
    fn take(&self, key: &[u8; K], value: &mut [u8; V]) -> bool {
        let cmd = Cmd::MAP_LOOKUP_AND_DELETE_ELEM;
        self.elem(cmd, key.as_ptr(), value.as_mut_ptr())
    }

    #[inline]
    fn next(&self, key: Option<&[u8; K]>, next: &mut [u8; K]) -> bool {
        let key = key.map_or(std::ptr::null(), |key| key.as_ptr());
        self.elem(Cmd::MAP_GET_NEXT_KEY, key, next.as_mut_ptr())
    }

    fn batch(&self) -> usize {
        const COUNT: usize = 256;
        let (mut keys, mut values) = (vec![0_u8; COUNT * K], vec![0_u8; COUNT * V]);
        let mut token = [0_u8; 64];
        let (mut from, mut total) = (0, 0);
        loop {
            let mut attr = [0_u64; 7];
            attr[0] = from;
            attr[1] = token.as_mut_ptr() as u64;
            attr[2] = keys.as_mut_ptr() as u64;
            attr[3] = values.as_mut_ptr() as u64;
            attr[4] = COUNT as u64 | u64::from(self.fd) << 32;
            let answer = bpf(Cmd::MAP_LOOKUP_BATCH, attr.as_mut_ptr() as u64, 56);
            total += (attr[4] & 0xffff_ffff) as usize;
            if answer < 0 {
                return total;
            }
            from = token.as_ptr() as u64;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        #[cfg(target_os = "linux")]
        // SAFETY: the fd is this map's and nobody else's.
        unsafe {
            libc::close(self.fd as i32);
        }
    }
}

/// dashmap with keys and values whose sizes are known at compile time.
pub struct DashArr<const K: usize, const V: usize>(
    dashmap::DashMap<[u8; K], [u8; V], foldhash::fast::RandomState>,
);

impl<const K: usize, const V: usize> Column<K, V> for DashArr<K, V> {
    const NAME: &'static str = "dashmap";

    fn new(max_entries: u32) -> Option<Self> {
        Some(Self(dashmap::DashMap::with_capacity_and_hasher(
            max_entries as usize,
            foldhash::fast::RandomState::default(),
        )))
    }

    #[inline]
    fn lookup(&self, key: &[u8; K], value: &mut [u8; V]) -> bool {
        self.0.get(key).map(|found| *value = *found).is_some()
    }

    #[inline]
    fn update(&self, key: &[u8; K], value: &[u8; V]) {
        self.0.insert(*key, *value);
    }

    #[inline]
    fn delete(&self, key: &[u8; K]) -> bool {
        self.0.remove(key).is_some()
    }

    #[inline]
    fn take(&self, key: &[u8; K], value: &mut [u8; V]) -> bool {
        self.0
            .remove(key)
            .map(|(_, found)| *value = found)
            .is_some()
    }
}

/// dashmap as it comes, with keys and values whose sizes are known at run time: what a mock is made of.
pub struct DashBox(dashmap::DashMap<Box<[u8]>, Box<[u8]>>);

impl<const K: usize, const V: usize> Column<K, V> for DashBox {
    const NAME: &'static str = "dashmap, boxed";

    fn new(max_entries: u32) -> Option<Self> {
        Some(Self(dashmap::DashMap::with_capacity(max_entries as usize)))
    }

    #[inline]
    fn lookup(&self, key: &[u8; K], value: &mut [u8; V]) -> bool {
        self.0
            .get(black_box(&key[..]))
            .map(|found| value.copy_from_slice(&found))
            .is_some()
    }

    #[inline]
    fn update(&self, key: &[u8; K], value: &[u8; V]) {
        self.0.insert(
            Box::from(black_box(&key[..])),
            Box::from(black_box(&value[..])),
        );
    }

    #[inline]
    fn delete(&self, key: &[u8; K]) -> bool {
        self.0.remove(black_box(&key[..])).is_some()
    }

    #[inline]
    fn take(&self, key: &[u8; K], value: &mut [u8; V]) -> bool {
        self.0
            .remove(black_box(&key[..]))
            .map(|(_, found)| value.copy_from_slice(&found))
            .is_some()
    }
}

/// The open-coded limit. Two threads may only read it.
pub struct Limit<const K: usize, const V: usize> {
    table: UnsafeCell<LimitTable<K, V>>,
}

struct LimitTable<const K: usize, const V: usize> {
    heads: Vec<u32>,
    elems: Vec<LimitElem<K, V>>,
    free: Vec<u32>,
}

#[repr(C, align(8))]
#[derive(Clone)]
struct LimitElem<const K: usize, const V: usize> {
    next: u32,
    hash: u32,
    key: [u8; K],
    value: [u8; V],
}

// SAFETY: the benches write it from one thread only, while no other reads.
unsafe impl<const K: usize, const V: usize> Sync for Limit<K, V> {}

const END: u32 = u32::MAX;

/// Bob Jenkins' lookup3 over the key, its length known at compile time.
#[inline]
fn lookup3<const K: usize>(key: &[u8; K]) -> u32 {
    let start = 0xdead_beef_u32.wrapping_add(K as u32);
    let (mut a, mut b, mut c) = (start, start, start);
    let word = |at: usize| {
        let mut bytes = [0; 4];
        let end = K.min(at + 4);
        if at < end {
            bytes[..end - at].copy_from_slice(&key[at..end]);
        }
        u32::from_le_bytes(bytes)
    };
    let mut at = 0;
    while K - at > 12 {
        a = a.wrapping_add(word(at));
        b = b.wrapping_add(word(at + 4));
        c = c.wrapping_add(word(at + 8));
        a = a.wrapping_sub(c) ^ c.rotate_left(4);
        c = c.wrapping_add(b);
        b = b.wrapping_sub(a) ^ a.rotate_left(6);
        a = a.wrapping_add(c);
        c = c.wrapping_sub(b) ^ b.rotate_left(8);
        b = b.wrapping_add(a);
        a = a.wrapping_sub(c) ^ c.rotate_left(16);
        c = c.wrapping_add(b);
        b = b.wrapping_sub(a) ^ a.rotate_left(19);
        a = a.wrapping_add(c);
        c = c.wrapping_sub(b) ^ b.rotate_left(4);
        b = b.wrapping_add(a);
        at += 12;
    }
    a = a.wrapping_add(word(at));
    b = b.wrapping_add(word(at + 4));
    c = c.wrapping_add(word(at + 8));
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

impl<const K: usize, const V: usize> LimitTable<K, V> {
    #[inline]
    fn find(&self, key: &[u8; K], hash: u32) -> Option<u32> {
        let mut at = self.heads[hash as usize & (self.heads.len() - 1)];
        while at != END {
            let elem = &self.elems[at as usize];
            if elem.hash == hash && elem.key == *key {
                return Some(at);
            }
            at = elem.next;
        }
        None
    }
}

impl<const K: usize, const V: usize> Column<K, V> for Limit<K, V> {
    const NAME: &'static str = "limit";

    fn new(max_entries: u32) -> Option<Self> {
        let elem = LimitElem {
            next: END,
            hash: 0,
            key: [0; K],
            value: [0; V],
        };
        Some(Self {
            table: UnsafeCell::new(LimitTable {
                heads: vec![END; (max_entries as usize).next_power_of_two()],
                elems: vec![elem; max_entries as usize],
                free: (0..max_entries).collect(),
            }),
        })
    }

    #[inline]
    fn lookup(&self, key: &[u8; K], value: &mut [u8; V]) -> bool {
        // SAFETY: no thread writes while threads read (see `Sync`).
        let table = unsafe { &*self.table.get() };
        match table.find(key, lookup3(key)) {
            Some(at) => {
                *value = table.elems[at as usize].value;
                true
            }
            None => false,
        }
    }

    #[inline]
    fn update(&self, key: &[u8; K], value: &[u8; V]) {
        // SAFETY: one thread writes (see `Sync`).
        let table = unsafe { &mut *self.table.get() };
        let hash = lookup3(key);
        if let Some(at) = table.find(key, hash) {
            table.elems[at as usize].value = *value;
            return;
        }
        let at = table.free.pop().expect("room");
        let bucket = hash as usize & (table.heads.len() - 1);
        let next = table.heads[bucket];
        table.elems[at as usize] = LimitElem {
            next,
            hash,
            key: *key,
            value: *value,
        };
        table.heads[bucket] = at;
    }

    #[inline]
    fn delete(&self, key: &[u8; K]) -> bool {
        // SAFETY: one thread writes (see `Sync`).
        let table = unsafe { &mut *self.table.get() };
        let hash = lookup3(key);
        let bucket = hash as usize & (table.heads.len() - 1);
        let (mut before, mut at) = (END, table.heads[bucket]);
        while at != END {
            let elem = &table.elems[at as usize];
            let next = elem.next;
            if elem.hash == hash && elem.key == *key {
                if before == END {
                    table.heads[bucket] = next;
                } else {
                    table.elems[before as usize].next = next;
                }
                table.free.push(at);
                return true;
            }
            (before, at) = (at, next);
        }
        false
    }

    #[inline]
    fn take(&self, key: &[u8; K], value: &mut [u8; V]) -> bool {
        self.lookup(key, value) && self.delete(key)
    }
}
