//! A binary tree of bit strings, each a prefix of its descendants: finds the longest one that a key begins with.
//!
//! Nodes without a value stand where two prefixes part ("intermediate").
//!
//! Invariants: below a node, all nodes are longer and begin with its bits. An intermediate node has two children, so each
//! leaf has a value, and the shape depends on nothing but the prefixes.
//!
//! Kernel: `kernel/bpf/lpm_trie.c` (v6.18).

use std::fmt;

use super::Full;

/// The number that stands for no node.
const NONE: u32 = u32::MAX;

/// A tree with values of type `V`. Bits past a node's length are stored, and take no part in comparisons.
#[derive(Debug)]
pub struct Trie<V> {
    nodes: Vec<Node<V>>,
    /// The bytes of each node, `data_size` each.
    data: Vec<u8>,
    data_size: usize,
    /// Bits of the longest prefix.
    max_prefix_len: u32,
    /// Nodes that are not in use, linked by their first child.
    free: u32,
    root: u32,
    max_len: usize,
    len: usize,
}

/// In one cache line, with what most walks look at.
#[derive(Debug)]
#[repr(align(32))]
struct Node<V> {
    /// The first bytes, as [`head`] has them: of those bits, the ones that count.
    head: u64,
    /// Number of bits that count.
    prefix_len: u32,
    children: [u32; 2],
    value: Option<V>,
}

/// A prefix that is looked for.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    len: u32,
    data: &'a [u8],
    head: u64,
}

impl<'a> Wanted<'a> {
    fn new(len: u32, data: &'a [u8]) -> Self {
        let head = head(data);
        Self { len, data, head }
    }

    /// The bit at `index`, counted from the highest of the first byte.
    fn bit(&self, index: u32) -> usize {
        if index < u64::BITS {
            usize::from(self.head << index >> (u64::BITS - 1) != 0)
        } else {
            bit(self.data, index)
        }
    }
}

/// The first 8 bytes as a number, the first one on top; zeros behind the last.
fn head(data: &[u8]) -> u64 {
    match data.first_chunk() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => {
            let mut bytes = [0; 8];
            bytes[..data.len()].copy_from_slice(data);
            u64::from_be_bytes(bytes)
        }
    }
}

/// Where the number of a node stands.
#[derive(Clone, Copy)]
enum Slot {
    Root,
    Child { of: u32, side: usize },
}

/// Where the walk to a prefix ended.
struct Place {
    /// The slot of `node`.
    slot: Slot,
    /// The slot of the node that has `slot`.
    parent: Option<Slot>,
    /// The node where the walk ended, or `NONE`.
    node: u32,
    /// Bits that it has in common with the prefix.
    common: u32,
}

/// What is in a trie for a prefix.
#[derive(Debug)]
pub enum Entry<'a, V> {
    /// The value of this very prefix, and the bytes stored with it.
    Stored(&'a mut V, &'a mut [u8]),
    /// No value.
    Missing(Vacant<'a, V>),
}

/// Where a prefix would be that is not stored.
pub struct Vacant<'a, V> {
    trie: &'a mut Trie<V>,
    prefix_len: u32,
    data: &'a [u8],
    place: Place,
}

impl<V> fmt::Debug for Vacant<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vacant for {} bits of {:?}", self.prefix_len, self.data)
    }
}

impl<V> Vacant<'_, V> {
    /// Puts the prefix in.
    ///
    /// # Errors
    ///
    /// If there are as many as may be.
    pub fn insert(self, value: V) -> Result<(), Full> {
        let Self {
            trie,
            prefix_len,
            data,
            place: Place {
                slot, node, common, ..
            },
        } = self;
        if trie.len == trie.max_len {
            return Err(Full);
        }
        trie.len += 1;
        if node == NONE {
            let new = trie.new_node(prefix_len, data, Some(value));
            trie.put(slot, new);
            return Ok(());
        }
        let range = trie.range(node);
        if common == prefix_len && common == trie.nodes[node as usize].prefix_len {
            trie.data[range].copy_from_slice(data);
            trie.nodes[node as usize].value = Some(value);
            return Ok(());
        }
        let new = trie.new_node(prefix_len, data, Some(value));
        if common == prefix_len {
            let side = bit(&trie.data[range], common);
            trie.nodes[new as usize].children[side] = node;
            trie.put(slot, new);
        } else {
            // Its bytes begin with what both have in common.
            let fork = trie.new_node(common, data, None);
            let side = bit(data, common);
            trie.nodes[fork as usize].children[side] = new;
            trie.nodes[fork as usize].children[1 - side] = node;
            trie.put(slot, fork);
        }
        Ok(())
    }
}

impl<V> Trie<V> {
    /// An empty trie of at most `max_len` prefixes of at most `data_size` bytes.
    pub fn new(max_len: usize, data_size: usize) -> Self {
        Self {
            nodes: Vec::new(),
            data: Vec::new(),
            data_size,
            // At most a few hundred bytes.
            max_prefix_len: u32::try_from(data_size * 8).expect("prefixes are short"),
            free: NONE,
            root: NONE,
            max_len,
            len: 0,
        }
    }

    /// There is no room for another entry.
    pub fn is_full(&self) -> bool {
        self.len == self.max_len
    }

    /// Number of prefixes stored.
    pub fn len(&self) -> usize {
        self.len
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bits of the longest prefix.
    pub fn max_prefix_len(&self) -> u32 {
        self.max_prefix_len
    }

    /// The value of the longest stored prefix that the `prefix_len` first bits of `data` begin with.
    pub fn longest_match(&self, prefix_len: u32, data: &[u8]) -> Option<&V> {
        let wanted = Wanted::new(prefix_len, data);
        let mut found = None;
        let mut at = self.root;
        while at != NONE {
            let node = &self.nodes[at as usize];
            if self.common(at, node, &wanted) < node.prefix_len {
                break;
            }
            if let Some(value) = &node.value {
                found = Some(value);
            }
            if node.prefix_len == self.max_prefix_len {
                break;
            }
            at = node.children[wanted.bit(node.prefix_len)];
        }
        found
    }

    /// What is stored for exactly this prefix.
    pub fn entry<'a>(&'a mut self, prefix_len: u32, data: &'a [u8]) -> Entry<'a, V> {
        let place = self.walk(prefix_len, data);
        let node = self.nodes.get(place.node as usize);
        if !node.is_some_and(|node| node.prefix_len == prefix_len && node.value.is_some())
            || place.common != prefix_len
        {
            return Entry::Missing(Vacant {
                trie: self,
                prefix_len,
                data,
                place,
            });
        }
        let range = self.range(place.node);
        let value = self.nodes[place.node as usize].value.as_mut();
        Entry::Stored(value.expect("looked at above"), &mut self.data[range])
    }

    /// Takes a prefix out.
    pub fn remove(&mut self, prefix_len: u32, data: &[u8]) -> Option<V> {
        let place = self.walk(prefix_len, data);
        if place.node == NONE || place.common != prefix_len {
            return None;
        }
        let node = &mut self.nodes[place.node as usize];
        if node.prefix_len != prefix_len {
            return None;
        }
        let value = node.value.take()?;
        self.len -= 1;
        match node.children {
            [NONE, NONE] => self.remove_leaf(&place),
            [child, NONE] | [NONE, child] => {
                self.put(place.slot, child);
                self.release(place.node);
            }
            // It is intermediate from now on.
            _ => {}
        }
        Some(value)
    }

    /// Takes a leaf out, and the intermediate node above it, which would have only one child left.
    fn remove_leaf(&mut self, place: &Place) {
        self.put(place.slot, NONE);
        self.release(place.node);
        let (Slot::Child { of, side }, Some(parent_slot)) = (place.slot, place.parent) else {
            return;
        };
        let parent = &self.nodes[of as usize];
        if parent.value.is_none() {
            let sibling = parent.children[1 - side];
            self.put(parent_slot, sibling);
            self.release(of);
        }
    }

    /// The prefix after this one, and its bytes, in the order of a trie: children before parents, side 0 before side 1. The
    /// first one if `after` is not stored.
    pub fn next(&self, after: Option<(u32, &[u8])>) -> Option<(u32, &[u8])> {
        let next = after
            .and_then(|(prefix_len, data)| self.successor(prefix_len, data))
            .unwrap_or_else(|| self.first_below(self.root));
        if next == NONE {
            return None;
        }
        Some((
            self.nodes[next as usize].prefix_len,
            &self.data[self.range(next)],
        ))
    }

    /// The node after the one of a prefix, `NONE` after the last; nothing if the prefix is not stored.
    fn successor(&self, prefix_len: u32, data: &[u8]) -> Option<u32> {
        let wanted = Wanted::new(prefix_len, data);
        let mut at = self.root;
        // What comes after the subtree that the walk is in: all below a node, or the node itself.
        let (mut subtree, mut next) = (NONE, NONE);
        while at != NONE {
            let node = &self.nodes[at as usize];
            if self.common(at, node, &wanted) < node.prefix_len {
                return None;
            }
            if node.prefix_len == prefix_len {
                node.value.as_ref()?;
                return Some(if subtree == NONE {
                    next
                } else {
                    self.first_below(subtree)
                });
            }
            let side = wanted.bit(node.prefix_len);
            if side == 0 && node.children[1] != NONE {
                (subtree, next) = (node.children[1], NONE);
            } else if node.value.is_some() {
                (subtree, next) = (NONE, at);
            }
            at = node.children[side];
        }
        None
    }

    /// The first node of a subtree, `NONE` if it is empty.
    fn first_below(&self, mut at: u32) -> u32 {
        while at != NONE {
            let [left, right] = self.nodes[at as usize].children;
            let below = if left == NONE { right } else { left };
            if below == NONE {
                break;
            }
            at = below;
        }
        at
    }

    /// Walks towards a prefix as far as nodes begin it.
    fn walk(&self, prefix_len: u32, data: &[u8]) -> Place {
        let wanted = Wanted::new(prefix_len, data);
        let mut place = Place {
            slot: Slot::Root,
            parent: None,
            node: self.root,
            common: 0,
        };
        while place.node != NONE {
            let node = &self.nodes[place.node as usize];
            place.common = self.common(place.node, node, &wanted);
            if place.common != node.prefix_len || node.prefix_len == prefix_len {
                break;
            }
            let side = wanted.bit(node.prefix_len);
            place.parent = Some(place.slot);
            place.slot = Slot::Child {
                of: place.node,
                side,
            };
            place.node = node.children[side];
        }
        place
    }

    /// Number of leading bits that a node has in common with a prefix. Most often the first 8 bytes tell.
    #[inline(always)]
    fn common(&self, number: u32, node: &Node<V>, wanted: &Wanted<'_>) -> u32 {
        let limit = node.prefix_len.min(wanted.len);
        let common = (node.head ^ wanted.head).leading_zeros();
        if common == u64::BITS && limit > u64::BITS {
            self.common_behind(number, wanted.data, limit)
        } else {
            common.min(limit)
        }
    }

    #[inline(never)]
    fn common_behind(&self, number: u32, data: &[u8], limit: u32) -> u32 {
        common_bits(&self.data[self.range(number)], data, limit).min(limit)
    }

    fn range(&self, node: u32) -> std::ops::Range<usize> {
        let start = node as usize * self.data_size;
        start..start + self.data_size
    }

    fn put(&mut self, slot: Slot, node: u32) {
        match slot {
            Slot::Root => self.root = node,
            Slot::Child { of, side } => self.nodes[of as usize].children[side] = node,
        }
    }

    fn new_node(&mut self, prefix_len: u32, data: &[u8], value: Option<V>) -> u32 {
        let node = Node {
            head: head(data),
            prefix_len,
            children: [NONE; 2],
            value,
        };
        let number = self.free;
        if number == NONE {
            let number = u32::try_from(self.nodes.len())
                .ok()
                .filter(|&number| number != NONE)
                .expect("no memory holds so many nodes");
            self.nodes.push(node);
            self.data.extend_from_slice(data);
            return number;
        }
        self.free = self.nodes[number as usize].children[0];
        self.nodes[number as usize] = node;
        let range = self.range(number);
        self.data[range].copy_from_slice(data);
        number
    }

    fn release(&mut self, node: u32) {
        self.nodes[node as usize].children = [self.free, NONE];
        self.free = node;
    }
}

/// Number of leading bits that are equal; it need not be exact past `limit`.
fn common_bits(mut a: &[u8], mut b: &[u8], limit: u32) -> u32 {
    let mut common = 0;
    while let (Some((x, rest_a)), Some((y, rest_b))) =
        (a.split_first_chunk(), b.split_first_chunk())
    {
        let equal = (u64::from_be_bytes(*x) ^ u64::from_be_bytes(*y)).leading_zeros();
        common += equal;
        if equal < u64::BITS || common >= limit {
            return common;
        }
        (a, b) = (rest_a, rest_b);
    }
    if let (Some((x, rest_a)), Some((y, rest_b))) = (a.split_first_chunk(), b.split_first_chunk()) {
        let equal = (u32::from_be_bytes(*x) ^ u32::from_be_bytes(*y)).leading_zeros();
        common += equal;
        if equal < u32::BITS {
            return common;
        }
        (a, b) = (rest_a, rest_b);
    }
    for (x, y) in a.iter().zip(b) {
        let equal = (x ^ y).leading_zeros();
        common += equal;
        if equal < u8::BITS {
            break;
        }
    }
    common
}

/// The bit at `index`, counted from the highest of the first byte.
fn bit(data: &[u8], index: u32) -> usize {
    usize::from(data[index as usize / 8] >> (7 - index % 8) & 1)
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::collections::BTreeMap;

    use super::{Entry, Full, Trie, bit, common_bits};
    use proptest::prelude::*;

    /// A prefix of at most 16 bits, that ends often at the ends of bytes, and has bits past its end.
    type Prefix = (u32, [u8; 2]);

    #[derive(Clone, Debug)]
    enum Op {
        Insert(Prefix),
        Remove(Prefix),
    }

    fn prefix() -> impl Strategy<Value = Prefix> {
        let byte = prop_oneof![Just(0), Just(0x80), Just(0xc0), Just(0xff), any::<u8>()];
        let len = prop_oneof![Just(0), Just(8), Just(16), 0..=16_u32];
        (len, [byte.clone(), byte]).prop_map(|(len, data)| (len, data))
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => prefix().prop_map(Op::Insert),
            2 => prefix().prop_map(Op::Remove),
        ]
    }

    /// The bits of a prefix, as a string that sorts in the order of a walk: `2` after the last bit comes after both.
    fn key((len, data): Prefix) -> String {
        let bits = (0..len).map(|i| if bit(&data, i) == 0 { '0' } else { '1' });
        bits.chain(['2']).collect()
    }

    fn walk(trie: &Trie<u32>) -> Vec<(u32, Vec<u8>)> {
        let mut seen: Vec<(u32, Vec<u8>)> = Vec::new();
        let mut next = trie.next(None);
        while let Some((len, data)) = next {
            seen.push((len, data.to_vec()));
            assert!(seen.len() < 1000, "a walk ends");
            next = trie.next(Some((len, data)));
            // The trie answers with the first prefix for what it lacks; here it has all.
        }
        seen
    }

    proptest! {
        #[test]
        fn common_bits_are_counted(a in prop::collection::vec(any::<u8>(), 1..40), flip in any::<u32>()) {
            let flip = flip % (u32::try_from(a.len()).expect("short") * 8);
            let mut b = a.clone();
            b[flip as usize / 8] ^= 0x80 >> (flip % 8);
            prop_assert_eq!(common_bits(&a, &b, u32::MAX), flip);
        }

        /// Against a sorted list of prefixes; all of them begin with `lead` bytes, so that they differ in the first 8 bytes or
        /// behind them.
        #[test]
        fn is_a_set_of_prefixes(
            lead in prop_oneof![Just(0), Just(7), Just(9)],
            ops in prop::collection::vec(op(), 0..60),
            asked in prop::collection::vec(prefix(), 8),
        ) {
            let max_len = 12;
            let mut trie = Trie::new(max_len, lead + 2);
            let longer = |(len, data): Prefix| {
                let bits = u32::try_from(lead * 8).expect("short");
                (bits + len, [vec![0xa5; lead], data.to_vec()].concat())
            };
            let mut model: BTreeMap<String, (Prefix, u32)> = BTreeMap::new();
            for (number, op) in (0..).zip(ops) {
                match op {
                    Op::Insert(prefix) => {
                        let (len, data) = longer(prefix);
                        match trie.entry(len, &data) {
                            Entry::Stored(value, stored) => {
                                *value = number;
                                stored.copy_from_slice(&data);
                                prop_assert!(model.insert(key(prefix), (prefix, number)).is_some());
                            }
                            Entry::Missing(vacant) => {
                                prop_assert!(!model.contains_key(&key(prefix)));
                                let full = model.len() == max_len;
                                let inserted = vacant.insert(number);
                                prop_assert_eq!(inserted, if full { Err(Full) } else { Ok(()) });
                                if !full {
                                    model.insert(key(prefix), (prefix, number));
                                }
                            }
                        }
                    }
                    Op::Remove(prefix) => {
                        let removed = model.remove(&key(prefix)).map(|(_, value)| value);
                        let (len, data) = longer(prefix);
                        prop_assert_eq!(trie.remove(len, &data), removed);
                    }
                }
                prop_assert_eq!(trie.len(), model.len());
                let order: Vec<_> = model.values().map(|(prefix, _)| longer(*prefix)).collect();
                prop_assert_eq!(walk(&trie), order);
            }
            for prefix in asked {
                let whole = key(prefix);
                let (len, data) = longer(prefix);
                let longest = (0..=prefix.0 as usize).rev().find_map(|n| model.get(&format!("{}2", &whole[..n])));
                prop_assert_eq!(trie.longest_match(len, &data), longest.map(|(_, value)| value));
            }
        }
    }
}
