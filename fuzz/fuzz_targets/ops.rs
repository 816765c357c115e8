//! Any operations on a hash and an array, against simple models: what is there, and what is refused.
#![no_main]

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use mapemu::Kernel;
use mapemu::abi::{Errno, MapType, Result};
use mapemu::calls::{self, CreateOpts};

#[derive(Arbitrary, Debug)]
enum Op {
    Update { key: u8, value: u64, flags: u8 },
    Lookup { key: u8 },
    Delete { key: u8 },
    LookupAndDelete { key: u8 },
    Walk,
    Cpu(bool),
}

/// What one type answers.
struct Model {
    array: bool,
    max_entries: u32,
    elems: BTreeMap<u32, u64>,
}

impl Model {
    fn update(&mut self, key: u32, value: u64, flags: u64) -> Result<()> {
        let is_there = self.elems.contains_key(&key);
        // The flag 4 asks for a lock that the value lacks; that is said before the key.
        if flags > 2 {
            return Err(Errno::EINVAL);
        }
        match (self.array, is_there, flags) {
            (true, false, _) => return Err(Errno::E2BIG),
            (_, true, 1) => return Err(Errno::EEXIST),
            (false, false, 2) => return Err(Errno::ENOENT),
            (false, false, _) if self.elems.len() == self.max_entries as usize => {
                return Err(Errno::E2BIG);
            }
            _ => {}
        }
        self.elems.insert(key, value);
        Ok(())
    }

    fn delete(&mut self, key: u32) -> Result<()> {
        if self.array {
            return Err(Errno::EINVAL);
        }
        self.elems.remove(&key).map(|_| ()).ok_or(Errno::ENOENT)
    }

    fn lookup_and_delete(&mut self, key: u32) -> Result<u64> {
        if self.array {
            return Err(Errno::ENOTSUPP);
        }
        self.elems.remove(&key).ok_or(Errno::ENOENT)
    }
}

fn value_of(answer: Result<()>, value: [u8; 8]) -> Result<u64> {
    answer.map(|()| u64::from_ne_bytes(value))
}

fuzz_target!(|input: (bool, bool, u8, Vec<Op>)| {
    let (array, no_prealloc, max_entries, ops) = input;
    let max_entries = u32::from(max_entries % 16) + 1;
    let kernel = Kernel::new();
    let map_type = if array { MapType::ARRAY } else { MapType::HASH };
    let opts = CreateOpts {
        map_flags: u32::from(no_prealloc && !array),
        ..CreateOpts::default()
    };
    let fd = calls::bpf_map_create(&kernel, map_type, "", 4, 8, max_entries, &opts).expect("a map");
    let elems = if array {
        (0..max_entries).map(|index| (index, 0)).collect()
    } else {
        BTreeMap::new()
    };
    let mut model = Model {
        array,
        max_entries,
        elems,
    };
    let mut on_cpu = kernel.clone();
    for op in ops {
        match op {
            Op::Update { key, value, flags } => {
                let (key, flags) = (u32::from(key % 24), u64::from(flags % 6));
                let got = calls::bpf_map_update_elem(
                    &on_cpu,
                    fd,
                    &key.to_ne_bytes(),
                    &value.to_ne_bytes(),
                    flags,
                );
                assert_eq!(got, model.update(key, value, flags));
            }
            Op::Lookup { key } => {
                let (key, mut value) = (u32::from(key % 24), [0; 8]);
                let got = calls::bpf_map_lookup_elem(&on_cpu, fd, &key.to_ne_bytes(), &mut value);
                assert_eq!(
                    value_of(got, value),
                    model.elems.get(&key).copied().ok_or(Errno::ENOENT)
                );
            }
            Op::Delete { key } => {
                let key = u32::from(key % 24);
                assert_eq!(
                    calls::bpf_map_delete_elem(&on_cpu, fd, &key.to_ne_bytes()),
                    model.delete(key)
                );
            }
            Op::LookupAndDelete { key } => {
                let (key, mut value) = (u32::from(key % 24), [0; 8]);
                let got = calls::bpf_map_lookup_and_delete_elem(
                    &on_cpu,
                    fd,
                    &key.to_ne_bytes(),
                    &mut value,
                );
                assert_eq!(value_of(got, value), model.lookup_and_delete(key));
            }
            Op::Walk => {
                let mut keys = Vec::new();
                let (mut key, mut next) = (None::<[u8; 4]>, [0; 4]);
                while calls::bpf_map_get_next_key(
                    &on_cpu,
                    fd,
                    key.as_ref().map(|key| &key[..]),
                    &mut next,
                )
                .is_ok()
                {
                    keys.push(u32::from_ne_bytes(next));
                    key = Some(next);
                    assert!(keys.len() <= model.elems.len(), "a walk has an end");
                }
                keys.sort_unstable();
                assert!(keys.iter().eq(model.elems.keys()), "each key once");
            }
            Op::Cpu(cpu) => on_cpu = kernel.on_cpu(cpu.into()),
        }
    }
});
