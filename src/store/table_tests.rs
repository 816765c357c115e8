//! Tests of [`Table`] and [`FreeLists`] by one thread: order, buckets, tags.

use super::super::{FreeLists, WORD};
use super::*;

fn table(n_buckets: u32, n_slots: u32, key_size: usize) -> Table {
    Table::new(n_buckets, n_slots, key_size, 1, 0).expect("memory")
}

fn insert(table: &Table, slot: u32, key: &[u8]) {
    with_probe!(key, |key| {
        let hash = table.hash(key);
        let mut bucket = table.lock(hash);
        table.write_key(slot, key);
        bucket.insert(slot, hash);
    });
}

fn remove(table: &Table, key: &[u8]) -> u32 {
    with_probe!(key, |key| {
        let hash = table.hash(key);
        let mut bucket = table.lock(hash);
        let place = bucket.find(key, hash).expect("it is there");
        bucket.remove(place);
        place.slot
    })
}

fn walk(table: &Table) -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = Vec::new();
    let mut next = vec![0; table.key_size()];
    while table.next_key(keys.last().map(|key| &key[..]), &mut next) {
        keys.push(next.clone());
    }
    keys
}

fn numbers(table: &Table) -> Vec<u32> {
    let number = |key: Vec<u8>| u32::from_le_bytes(key.try_into().expect("4 bytes"));
    walk(table).into_iter().map(number).collect()
}

#[test]
fn keys_are_in_the_buckets_that_the_kernel_has_them_in() {
    let rising: Vec<u8> = (0..25).collect();
    let cases: [(&[u8], [u32; 4]); 15] = [
        (&[0], [3, 3, 11, 331]),
        (&[1], [3, 3, 59, 59]),
        (b"abc", [1, 1, 49, 561]),
        (&[0; 4], [0, 0, 56, 696]),
        (&[1, 0, 0, 0], [3, 3, 27, 667]),
        (&[2, 0, 0, 0], [2, 2, 10, 202]),
        (&[3, 0, 0, 0], [3, 7, 15, 335]),
        (&[0xff; 4], [3, 3, 27, 859]),
        (b"hello", [2, 6, 46, 110]),
        (&[1, 0, 0, 0, 0, 0, 0, 0], [3, 7, 63, 319]),
        (&rising[..12], [3, 3, 19, 403]),
        (&rising[..13], [2, 6, 22, 22]),
        (&rising[..16], [0, 4, 60, 764]),
        (&rising[..24], [3, 3, 19, 339]),
        (&rising[..25], [0, 4, 4, 580]),
    ];
    for (key, buckets) in cases {
        for (n_buckets, bucket) in [4, 8, 64, 1024].into_iter().zip(buckets) {
            let table = table(n_buckets, 1, key.len());
            insert(&table, 0, key);
            assert_eq!(table.front(bucket), Some(0), "{key:02x?} of {n_buckets}");
            assert_eq!(table.find_key(key), Some(0));
        }
    }
}

#[test]
fn a_walk_goes_by_bucket_and_the_newest_is_in_front() {
    let table = table(8, 8, 4);
    for number in 1..8_u32 {
        insert(&table, number, &number.to_le_bytes());
    }
    assert_eq!(numbers(&table), [4, 7, 2, 1, 6, 5, 3]);
    remove(&table, &2_u32.to_le_bytes());
    let mut next = [0; 4];
    assert!(table.next_key(Some(&[2, 0, 0, 0]), &mut next));
    assert_eq!(next, [4, 0, 0, 0], "a key that is gone: the first one");
    assert!(table.next_key(Some(&[7, 0, 0, 0]), &mut next));
    assert_eq!(next, [1, 0, 0, 0]);
    assert!(!table.next_key(Some(&[3, 0, 0, 0]), &mut next));
}

#[test]
fn a_replaced_element_moves_to_the_front() {
    let table = table(1, 4, 4);
    for number in 0..3_u32 {
        insert(&table, number, &number.to_le_bytes());
    }
    assert_eq!(numbers(&table), [2, 1, 0]);
    let mut spare = 3;
    for (number, order) in [(0, [0, 2, 1]), (0, [0, 2, 1]), (2, [2, 0, 1])] {
        let key = u32::to_le(number);
        let hash = table.hash(key);
        let mut bucket = table.lock(hash);
        let old = bucket.find(key, hash).expect("it is there");
        table.write_key(spare, key);
        bucket.replace(old, spare, hash);
        spare = old.slot;
        drop(bucket);
        assert_eq!(numbers(&table), order);
    }
}

#[test]
fn removal_at_each_place_leaves_the_rest() {
    for gone in 0..4_u32 {
        let table = table(1, 4, 4);
        for number in 0..4_u32 {
            insert(&table, number, &number.to_le_bytes());
        }
        assert_eq!(remove(&table, &gone.to_le_bytes()), gone);
        let rest: Vec<u32> = (0..4).rev().filter(|number| *number != gone).collect();
        assert_eq!(numbers(&table), rest);
        for number in 0..4_u32 {
            let key = number.to_le_bytes();
            let slot = (number != gone).then_some(number);
            assert_eq!(table.find_key(&key), slot);
        }
    }
}

#[test]
fn keys_that_share_their_beginning_differ() {
    for key_size in 1..40 {
        let table = table(1, 40, key_size);
        let mut keys = vec![vec![0; key_size]];
        for at in 0..key_size {
            let mut key = vec![0; key_size];
            key[at] = 1;
            keys.push(key);
        }
        keys.truncate(40);
        for (slot, key) in (0..).zip(&keys) {
            assert_eq!(table.find_key(key), None);
            insert(&table, slot, key);
        }
        for (slot, key) in (0..).zip(&keys) {
            assert_eq!(table.find_key(key), Some(slot));
        }
        assert_eq!(walk(&table).len(), keys.len());
    }
}

#[test]
fn a_freed_slot_keeps_its_way_on() {
    let table = table(1, 3, 4);
    let lists = FreeLists::new(3, 1);
    for number in 0..3_u32 {
        let slot = lists.pop(&table, 0).expect("there are three");
        assert_eq!(slot, 2 - number);
        insert(&table, slot, &number.to_le_bytes());
    }
    let slot = remove(&table, &[1, 0, 0, 0]);
    lists.push(&table, 0, slot);
    assert_eq!(table.behind(slot), Some(2), "for readers who stand on it");
    assert_eq!(lists.pop(&table, 0), Some(slot));
    assert_eq!(lists.pop(&table, 0), None);
}

#[test]
fn a_table_of_no_elements_takes_no_memory_of_them() {
    // 1 TiB and more would not be there.
    let table = Table::new(4, 1 << 20, 8, (1 << 20) / WORD * 8, 0).expect("address space");
    insert(&table, (1 << 20) - 1, &[7; 8]);
    assert_eq!(table.find_key(&[7; 8]), Some((1 << 20) - 1));
}

/// What a walk gives, by the elements of each bucket, front to back.
fn next_of(buckets: &[Vec<u32>], key: Option<u32>) -> Option<u32> {
    let place = key.and_then(|key| {
        let at = |bucket: &Vec<u32>| bucket.iter().position(|&other| other == key);
        let bucket = buckets.iter().position(|bucket| at(bucket).is_some())?;
        Some((bucket, at(&buckets[bucket])? + 1))
    });
    let (bucket, from) = place.unwrap_or_default();
    let behind = buckets[bucket][from..].iter();
    behind
        .chain(buckets[bucket + 1..].iter().flatten())
        .next()
        .copied()
}

/// Keys of each size have a probe of their own; the hash of a long one is kept from step to step, beside those of other tables.
#[test]
fn a_walk_is_exact_while_elements_come_go_and_are_replaced() {
    const KEYS: u32 = 24;
    for key_size in [4, 8, 16, 20, 64, 300] {
        let tables =
            [1, 2].map(|seed| Table::new(16, KEYS + 1, key_size, 1, seed).expect("memory"));
        let mut models = [0, 1].map(|_| vec![Vec::new(); 16]);
        let mut free = [0, 1].map(|_| (0..=KEYS).collect::<Vec<u32>>());
        let key_of = |number: u32| {
            let mut key = vec![7; key_size];
            key[key_size - 4..].copy_from_slice(&number.to_ne_bytes());
            key
        };
        let mut at = [None; 2];
        let mut random = 1_u32;
        for _ in 0..4000 {
            random = random.wrapping_mul(0x9e37_79b1).wrapping_add(random >> 15);
            let (which, number) = ((random >> 8) as usize % 2, (random >> 9) % KEYS);
            let (table, key) = (&tables[which], key_of(number));
            with_probe!(&key, |key| {
                let hash = table.hash(key);
                let model: &mut Vec<u32> = &mut models[which][table.bucket_of(hash) as usize];
                let mut bucket = table.lock(hash);
                let place = bucket.find(key, hash);
                assert_eq!(place.is_some(), model.contains(&number));
                model.retain(|&other| other != number);
                if let Some(place) = place.filter(|_| random.is_multiple_of(3)) {
                    bucket.remove(place);
                    free[which].push(place.slot);
                } else {
                    let slot = free[which].pop().expect("one more than keys");
                    table.write_key(slot, key);
                    match place {
                        Some(old) => {
                            bucket.replace(old, slot, hash);
                            free[which].push(old.slot);
                        }
                        None => bucket.insert(slot, hash),
                    }
                    model.insert(0, number);
                }
                drop(bucket);
            });
            let mut next = vec![0; key_size];
            let from = at[which].map(key_of);
            let found = table.next_key(from.as_deref(), &mut next);
            let expected = next_of(&models[which], at[which]);
            assert_eq!(found.then_some(next), expected.map(key_of), "{key_size}");
            at[which] = expected;
        }
    }
}

/// The hash that is kept from step to step is that of a key of its size, too.
#[test]
fn walks_through_tables_with_other_key_sizes_do_not_disturb_each_other() {
    const KEYS: u32 = 32;
    let tables = [4, 8, 16, 20].map(|key_size| {
        let table = table(16, KEYS, key_size);
        for number in 0..KEYS {
            let mut key = vec![0; key_size];
            key[..4].copy_from_slice(&number.to_le_bytes());
            insert(&table, number, &key);
        }
        table
    });
    let mut walks = tables.each_ref().map(|_| Vec::<Vec<u8>>::new());
    for _ in 0..KEYS {
        for (table, walk) in tables.iter().zip(&mut walks) {
            let mut next = vec![0; table.key_size()];
            assert!(table.next_key(walk.last().map(|key| &key[..]), &mut next));
            walk.push(next);
        }
    }
    for (table, of_table) in tables.iter().zip(&walks) {
        assert_eq!(*of_table, walk(table), "{} bytes", table.key_size());
    }
}
