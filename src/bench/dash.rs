//! dashmap, which a mock is made of: no flags, no errnos, no capacity, no order.

use std::hint::black_box;
use std::sync::Arc;

use dashmap::DashMap;
use foldhash::fast::RandomState;

use super::column::{Column, Spec};

/// Keys and values whose sizes are known at compile time, and a fast hash.
#[derive(Clone, Debug)]
pub struct DashArr<const K: usize, const V: usize>(Arc<DashMap<[u8; K], [u8; V], RandomState>>);

fn array<const V: usize>(value: &[u8]) -> [u8; V] {
    value.try_into().expect("a value's bytes")
}

impl<const K: usize, const V: usize> Column<K> for DashArr<K, V> {
    const NAME: &'static str = "dashmap";

    fn new(spec: &Spec) -> Option<Self> {
        let map = DashMap::with_capacity_and_hasher(spec.max_entries, RandomState::default());
        (spec.user_value_size() == V).then(|| Self(Arc::new(map)))
    }

    fn on_cpu(&self, _cpu: u32) -> Self {
        self.clone()
    }

    #[inline]
    fn lookup(&self, key: &[u8; K], value: &mut [u8]) -> bool {
        let found = self.0.get(key);
        found.map(|found| value.copy_from_slice(&*found)).is_some()
    }

    #[inline]
    fn update(&self, key: &[u8; K], value: &[u8]) {
        self.0.insert(*key, array(value));
    }

    #[inline]
    fn delete(&self, key: &[u8; K]) -> bool {
        self.0.remove(key).is_some()
    }

    #[inline]
    fn take(&self, key: &[u8; K], value: &mut [u8]) -> bool {
        let found = self.0.remove(key);
        found
            .map(|(_, found)| value.copy_from_slice(&found))
            .is_some()
    }

    fn batch(&self) -> usize {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for elem in self.0.iter() {
            keys.extend_from_slice(elem.key());
            values.extend_from_slice(elem.value());
        }
        black_box(values);
        keys.len() / K
    }
}

/// As it comes, with keys and values whose sizes are known at run time.
#[derive(Clone, Debug)]
pub struct DashBox(Arc<DashMap<Bytes, Bytes>>);

type Bytes = Box<[u8]>;

impl<const K: usize> Column<K> for DashBox {
    const NAME: &'static str = "dashmap, boxed";

    fn new(spec: &Spec) -> Option<Self> {
        Some(Self(Arc::new(DashMap::with_capacity(spec.max_entries))))
    }

    fn on_cpu(&self, _cpu: u32) -> Self {
        self.clone()
    }

    #[inline]
    fn lookup(&self, key: &[u8; K], value: &mut [u8]) -> bool {
        let found = self.0.get(black_box(&key[..]));
        found.map(|found| value.copy_from_slice(&found)).is_some()
    }

    #[inline]
    fn update(&self, key: &[u8; K], value: &[u8]) {
        let key = Box::from(black_box(&key[..]));
        self.0.insert(key, Box::from(black_box(value)));
    }

    #[inline]
    fn delete(&self, key: &[u8; K]) -> bool {
        self.0.remove(black_box(&key[..])).is_some()
    }

    #[inline]
    fn take(&self, key: &[u8; K], value: &mut [u8]) -> bool {
        let found = self.0.remove(black_box(&key[..]));
        found
            .map(|(_, found)| value.copy_from_slice(&found))
            .is_some()
    }
}
