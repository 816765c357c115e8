//! Buckets of few elements each, the newest first, walked in the order of the buckets.

use std::collections::BTreeMap;

/// See the module. Who uses it says which bucket a key belongs to.
#[derive(Debug)]
pub struct Chains<T> {
    /// The newest last.
    buckets: BTreeMap<u32, Vec<Elem<T>>>,
    len: usize,
}

#[derive(Debug)]
struct Elem<T> {
    key: Box<[u8]>,
    value: T,
}

impl<T> Default for Chains<T> {
    fn default() -> Self {
        Self {
            buckets: BTreeMap::new(),
            len: 0,
        }
    }
}

impl<T> Chains<T> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of a key.
    pub fn get(&self, bucket: u32, key: &[u8]) -> Option<&T> {
        let elems = self.buckets.get(&bucket)?;
        let elem = elems.iter().find(|elem| *elem.key == *key)?;
        Some(&elem.value)
    }

    /// Puts an element at the front of its bucket; gives the value that it replaces.
    pub fn insert(&mut self, bucket: u32, key: &[u8], value: T) -> Option<T> {
        let old = self.remove(bucket, key);
        let elems = self.buckets.entry(bucket).or_default();
        elems.push(Elem {
            key: key.into(),
            value,
        });
        self.len += 1;
        old
    }

    /// Takes an element out.
    pub fn remove(&mut self, bucket: u32, key: &[u8]) -> Option<T> {
        let elems = self.buckets.get_mut(&bucket)?;
        let at = elems.iter().position(|elem| *elem.key == *key)?;
        let elem = elems.remove(at);
        if elems.is_empty() {
            self.buckets.remove(&bucket);
        }
        self.len -= 1;
        Some(elem.value)
    }

    /// Takes out all elements that `keep` does not want.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        let mut len = 0;
        self.buckets.retain(|_, elems| {
            elems.retain(|elem| keep(&elem.value));
            len += elems.len();
            !elems.is_empty()
        });
        self.len = len;
    }

    /// The values, in no order.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.buckets.values().flatten().map(|elem| &elem.value)
    }

    /// The first key.
    pub fn first_key(&self) -> Option<&[u8]> {
        self.first_from(0)
    }

    /// The key after one; if that is not there, the first.
    pub fn next_key(&self, bucket: u32, key: &[u8]) -> Option<&[u8]> {
        let elems = self.buckets.get(&bucket).map_or(&[][..], Vec::as_slice);
        match elems.iter().position(|elem| *elem.key == *key) {
            Some(0) => self.first_from(bucket.checked_add(1)?),
            Some(at) => Some(&elems[at - 1].key),
            None => self.first_key(),
        }
    }

    fn first_from(&self, bucket: u32) -> Option<&[u8]> {
        let (_, elems) = self.buckets.range(bucket..).next()?;
        elems.last().map(|elem| &*elem.key)
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::Chains;

    #[test]
    fn newest_first_in_the_order_of_buckets() {
        let mut chains = Chains::default();
        for (bucket, key) in [(2, b"a"), (2, b"b"), (1, b"c"), (2, b"d")] {
            assert_eq!(chains.insert(bucket, key, bucket), None);
        }
        let walk = |chains: &Chains<u32>| {
            let bucket = |key: &[u8]| if key == b"c" { 1 } else { 2 };
            let mut keys = Vec::new();
            let mut key = chains.first_key();
            while let Some(now) = key {
                keys.extend_from_slice(now);
                key = chains.next_key(bucket(now), now);
            }
            keys
        };
        assert_eq!(walk(&chains), b"cdba");
        assert_eq!(chains.insert(2, b"a", 5), Some(2), "replaced");
        assert_eq!(walk(&chains), b"cadb", "and moved to the front");
        assert_eq!(chains.remove(2, b"d"), Some(2));
        assert_eq!(walk(&chains), b"cab");
        assert_eq!(chains.next_key(2, b"d"), Some(&b"c"[..]), "not there");
        chains.retain(|&value| value != 2);
        assert_eq!((walk(&chains), chains.len()), (b"ca".to_vec(), 2));
    }
}
