//! The operations that are timed, on any column.

use std::fmt;
use std::hint::black_box;
use std::time::Instant;

use super::burst::{BURST, ROUNDS, burst, burst_between, ns_each};
use super::column::{Column, Spec, keys};

/// Maps of so many elements fit into the caches.
const SMALL: usize = 20_000;

/// ns of one operation, in the burst that begins with operation number `at`.
pub type Timed<'a> = Box<dyn FnMut(usize) -> f64 + 'a>;

/// What is done with a map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Looks up what is there.
    Hit,
    /// Looks up what is not there.
    Miss,
    /// Replaces a value.
    Update,
    /// Inserts a key.
    Insert,
    /// Deletes a key.
    Delete,
    /// Looks up and deletes.
    Take,
    /// Deletes a key and inserts it again.
    DeleteAndInsert,
    /// Goes from a key to the next.
    Next,
    /// Reads an element of a batch.
    Batch,
    /// Inserts a key that no place is left for.
    Evict,
    /// Pushes a value.
    Push,
    /// Pops one.
    Pop,
    /// Peeks at one.
    Peek,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hit => "lookup hit",
            Self::Miss => "lookup miss",
            Self::Update => "update",
            Self::Insert => "insert",
            Self::Delete => "delete",
            Self::Take => "lookup and delete",
            Self::DeleteAndInsert => "delete and insert",
            Self::Next => "next key",
            Self::Batch => "lookup batch, each",
            Self::Evict => "insert that evicts",
            Self::Push => "push",
            Self::Pop => "pop",
            Self::Peek => "peek",
        })
    }
}

/// `BURST` of these, from one on, again and again: nothing is divided while the time runs.
pub fn burst_from<T>(of: &[T], at: usize) -> Vec<&T> {
    of.iter().cycle().skip(at % of.len()).take(BURST).collect()
}

/// The keys of a map.
#[derive(Clone, Debug)]
pub struct Keys<const K: usize> {
    /// Those that are there.
    pub present: Vec<[u8; K]>,
    /// Some that are not.
    pub absent: Vec<[u8; K]>,
    /// What is there stays there: it is no LRU map.
    pub stay: bool,
    /// Bytes of a value as bpf(2) copies it.
    pub user_value_size: usize,
}

impl<const K: usize> Keys<K> {
    /// Of a map that is full to 96 %; of an array, to the end.
    pub fn of(spec: &Spec, part: usize) -> Self {
        let n = spec.max_entries * part / 100;
        Self {
            present: keys(n, 0),
            absent: keys(n, 1 << 31),
            stay: true,
            user_value_size: spec.user_value_size(),
        }
    }

    fn is_small(&self) -> bool {
        self.present.len() <= SMALL
    }
}

/// Twice for a small map, so that it is warm the second time; a large one is cold, as the keys of each operation are its own.
fn twice<'a, const K: usize>(
    keys: &Keys<K>,
    op: Op,
    mut burst_at: impl FnMut(usize) -> f64 + 'a,
) -> Timed<'a> {
    let from = op as usize * BURST * ROUNDS;
    let small = keys.is_small();
    Box::new(move |at| {
        if small {
            burst_at(from + at);
        }
        burst_at(from + at)
    })
}

/// An operation on a column; none if it has no such operation.
pub fn timed<'a, const K: usize, C: Column<K>>(
    map: &'a C,
    keys: &'a Keys<K>,
    op: Op,
) -> Option<Timed<'a>> {
    match op {
        Op::Next => walks(map),
        Op::Batch => batches(map),
        Op::Insert | Op::Delete | Op::Take => Some(changes(map, keys, op)),
        Op::Push | Op::Pop | Op::Peek => Some(ends(map, keys, op)),
        Op::Hit | Op::Miss | Op::Update | Op::DeleteAndInsert | Op::Evict => {
            Some(single(map, keys, op))
        }
    }
}

fn single<'a, const K: usize, C: Column<K>>(map: &'a C, keys: &'a Keys<K>, op: Op) -> Timed<'a> {
    let mut value = vec![1; keys.user_value_size];
    let stay = keys.stay;
    match op {
        Op::Hit => twice(keys, op, move |at| {
            let keys = burst_from(&keys.present, at);
            burst(|i| assert!(map.lookup(black_box(keys[i]), &mut value) || !stay, "a hit"))
        }),
        Op::Miss => twice(keys, op, move |at| {
            let keys = burst_from(&keys.absent, at);
            burst(|i| assert!(!map.lookup(black_box(keys[i]), &mut value), "a miss"))
        }),
        Op::Update => twice(keys, op, move |at| {
            let keys = burst_from(&keys.present, at);
            burst(|i| map.update(black_box(keys[i]), &value))
        }),
        Op::DeleteAndInsert => twice(keys, op, move |at| {
            let keys = burst_from(&keys.present, at);
            burst(|i| {
                let key = black_box(keys[i]);
                assert!(map.delete(key) || !stay, "it is there");
                map.update(key, &value);
            })
        }),
        Op::Evict => {
            let mut number = 1_u32 << 24;
            Box::new(move |_| {
                let mut fresh = || {
                    number += 1;
                    let mut key = [0; K];
                    key[..4].copy_from_slice(&number.to_le_bytes());
                    key
                };
                burst(|_| map.update(&fresh(), &value));
                burst(|_| map.update(&fresh(), &value))
            })
        }
        Op::Insert
        | Op::Delete
        | Op::Take
        | Op::Next
        | Op::Batch
        | Op::Push
        | Op::Pop
        | Op::Peek => unreachable!("{op} is made elsewhere"),
    }
}

/// A chunk of keys is taken out, and put in again.
fn changes<'a, const K: usize, C: Column<K>>(map: &'a C, keys: &'a Keys<K>, op: Op) -> Timed<'a> {
    let value = vec![1; keys.user_value_size];
    let mut taken = value.clone();
    let stay = keys.stay;
    twice(keys, op, move |at| {
        let keys = burst_from(&keys.present, at);
        let key = |i: usize| black_box(keys[i]);
        let insert = |i| map.update(key(i), &value);
        let delete = |i| assert!(map.delete(key(i)) || !stay, "it is there");
        if op == Op::Insert {
            burst_between(delete, insert, |_| {})
        } else if op == Op::Delete {
            burst_between(|_| {}, delete, insert)
        } else {
            let take = |i| assert!(map.take(key(i), &mut taken) || !stay, "it is there");
            burst_between(|_| {}, take, insert)
        }
    })
}

/// The ends of a queue or a stack, which is half full.
fn ends<'a, const K: usize, C: Column<K>>(map: &'a C, keys: &'a Keys<K>, op: Op) -> Timed<'a> {
    let value = vec![1; keys.user_value_size];
    let (mut popped, mut seen) = (value.clone(), value.clone());
    Box::new(move |_| {
        let push = |_| map.update(&[0; K], &value);
        let mut pop = |_| assert!(map.take(&[0; K], &mut popped), "it is not empty");
        let mut once = || {
            if op == Op::Push {
                burst_between(|_| {}, push, &mut pop)
            } else if op == Op::Pop {
                burst_between(push, &mut pop, |_| {})
            } else {
                burst(|_| assert!(map.lookup(&[0; K], &mut seen), "it is not empty"))
            }
        };
        once();
        once()
    })
}

fn walks<const K: usize, C: Column<K>>(map: &C) -> Option<Timed<'_>> {
    let mut next = [0; K];
    map.next(None, &mut next).then(|| {
        Box::new(move |_| {
            let mut once = || {
                burst(|_| {
                    let key = next;
                    if !map.next(Some(black_box(&key)), &mut next) {
                        map.next(None, &mut next);
                    }
                })
            };
            once();
            once()
        }) as Timed<'_>
    })
}

fn batches<const K: usize, C: Column<K>>(map: &C) -> Option<Timed<'_>> {
    (map.batch() > 0).then(|| {
        Box::new(|_| {
            let start = Instant::now();
            let read = map.batch();
            ns_each(start.elapsed(), read)
        }) as Timed<'_>
    })
}

/// A burst of a thread that has those keys for itself: hits, updates, or deletions each followed by an insertion.
pub fn burst_of_thread<const K: usize, C: Column<K>>(
    map: &C,
    keys: &[[u8; K]],
    user_value_size: usize,
    op: Op,
    part: usize,
) -> f64 {
    let mut value = vec![1; user_value_size];
    let keys = burst_from(keys, part * BURST);
    let key = |i: usize| black_box(keys[i]);
    if op == Op::Hit {
        return burst(|i| {
            black_box(map.lookup(key(i), &mut value));
        });
    }
    burst(|i| {
        if op == Op::DeleteAndInsert {
            map.delete(key(i));
        }
        map.update(key(i), &value);
    })
}
