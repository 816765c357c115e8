//! Any operations on a hash and an array, against the simplest model of each: an ordered map, and a row.
#![no_main]

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use mapemu::abi::{Errno, Fd, MapType, UpdateFlags};
use mapemu::calls::{self, CreateOpts};
use mapemu::helper::Prog;
use mapemu::sys::Kernel;

/// Elements of each map.
const MAX_ENTRIES: u8 = 6;

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Op {
    Update {
        key: u8,
        value: u32,
        flags: u8,
        program: bool,
    },
    Lookup {
        key: u8,
        program: bool,
    },
    Delete {
        key: u8,
        program: bool,
    },
    Take {
        key: u8,
    },
    Cpu(bool),
    Walk,
}

/// What a kind of map should do.
trait Model {
    fn update(&mut self, key: u32, value: u32, flags: u64) -> Result<(), Errno>;
    fn lookup(&self, key: u32) -> Result<u32, Errno>;
    fn delete(&mut self, key: u32) -> Result<(), Errno>;
    fn take(&mut self, key: u32) -> Result<u32, Errno>;
    fn keys(&self) -> Vec<u32>;
}

#[derive(Default)]
struct Hash(BTreeMap<u32, u32>);

impl Model for Hash {
    fn update(&mut self, key: u32, value: u32, flags: u64) -> Result<(), Errno> {
        let there = self.0.contains_key(&key);
        match (flags, there) {
            (3.., _) => return Err(Errno::EINVAL),
            (1, true) => return Err(Errno::EEXIST),
            (2, false) => return Err(Errno::ENOENT),
            (_, false) if self.0.len() == usize::from(MAX_ENTRIES) => return Err(Errno::E2BIG),
            _ => {}
        }
        self.0.insert(key, value);
        Ok(())
    }

    fn lookup(&self, key: u32) -> Result<u32, Errno> {
        self.0.get(&key).copied().ok_or(Errno::ENOENT)
    }

    fn delete(&mut self, key: u32) -> Result<(), Errno> {
        self.0.remove(&key).map(|_| ()).ok_or(Errno::ENOENT)
    }

    fn take(&mut self, key: u32) -> Result<u32, Errno> {
        self.0.remove(&key).ok_or(Errno::ENOENT)
    }

    fn keys(&self) -> Vec<u32> {
        self.0.keys().copied().collect()
    }
}

struct Array([u32; MAX_ENTRIES as usize]);

impl Model for Array {
    fn update(&mut self, key: u32, value: u32, flags: u64) -> Result<(), Errno> {
        if flags > 2 {
            return Err(Errno::EINVAL);
        }
        let place = self.0.get_mut(key as usize).ok_or(Errno::E2BIG)?;
        if flags == 1 {
            return Err(Errno::EEXIST);
        }
        *place = value;
        Ok(())
    }

    fn lookup(&self, key: u32) -> Result<u32, Errno> {
        self.0.get(key as usize).copied().ok_or(Errno::ENOENT)
    }

    fn delete(&mut self, _: u32) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }

    fn take(&mut self, _: u32) -> Result<u32, Errno> {
        Err(Errno::ENOTSUPP)
    }

    fn keys(&self) -> Vec<u32> {
        (0..u32::from(MAX_ENTRIES)).collect()
    }
}

/// Flags 4 (a lock) is left out: without a lock in the value both sides have rules of their own for it.
fn flags_of(byte: u8) -> u64 {
    u64::from(byte % 4)
}

struct Map {
    kernel: Kernel,
    fd: Fd,
    cpu: u32,
}

impl Map {
    fn update(&self, key: u32, value: u32, flags: u64, program: bool) -> Result<(), Errno> {
        let (key, value) = (key.to_ne_bytes(), value.to_ne_bytes());
        if program {
            let map = self.kernel.map(self.fd).expect("it is open");
            let flags = UpdateFlags::from_bits_retain(flags);
            return Prog::sched_cls(self.cpu).map_update_elem(&map, &key, &value, flags);
        }
        calls::bpf_map_update_elem(&self.kernel, self.fd, &key, &value, flags)
    }

    fn lookup(&self, key: u32, program: bool) -> Result<u32, Errno> {
        let (key, mut value) = (key.to_ne_bytes(), [0; 4]);
        if program {
            let map = self.kernel.map(self.fd).expect("it is open");
            let found = Prog::sched_cls(self.cpu)
                .map_lookup_elem(&map, &key)
                .ok_or(Errno::ENOENT)?;
            found.read(0, &mut value);
        } else {
            calls::bpf_map_lookup_elem(&self.kernel, self.fd, &key, &mut value)?;
        }
        Ok(u32::from_ne_bytes(value))
    }

    fn delete(&self, key: u32, program: bool) -> Result<(), Errno> {
        let key = key.to_ne_bytes();
        if program {
            let map = self.kernel.map(self.fd).expect("it is open");
            return Prog::sched_cls(self.cpu).map_delete_elem(&map, &key);
        }
        calls::bpf_map_delete_elem(&self.kernel, self.fd, &key)
    }

    fn take(&self, key: u32) -> Result<u32, Errno> {
        let mut value = [0; 4];
        calls::bpf_map_lookup_and_delete_elem(
            &self.kernel,
            self.fd,
            &key.to_ne_bytes(),
            &mut value,
        )?;
        Ok(u32::from_ne_bytes(value))
    }

    fn keys(&self) -> Vec<u32> {
        let (mut keys, mut last) = (Vec::new(), None::<[u8; 4]>);
        loop {
            let mut next = [0; 4];
            let last_key = last.as_ref().map(<[u8; 4]>::as_slice);
            match calls::bpf_map_get_next_key(&self.kernel, self.fd, last_key, &mut next) {
                Ok(()) => keys.push(u32::from_ne_bytes(next)),
                Err(errno) => {
                    assert_eq!(errno, Errno::ENOENT);
                    keys.sort_unstable();
                    return keys;
                }
            }
            last = Some(next);
        }
    }
}

fn run(map_type: MapType, map_flags: u32, model: &mut dyn Model, ops: &[Op]) {
    let kernel = Kernel::new();
    let opts = CreateOpts {
        map_flags,
        ..CreateOpts::default()
    };
    let entries = u32::from(MAX_ENTRIES);
    let fd = calls::bpf_map_create(&kernel, map_type, "", 4, 4, entries, &opts).expect("a map");
    let mut map = Map { kernel, fd, cpu: 0 };
    for op in ops {
        match *op {
            Op::Update {
                key,
                value,
                flags,
                program,
            } => {
                let (key, flags) = (u32::from(key % 10), flags_of(flags));
                let want = model.update(key, value, flags);
                assert_eq!(map.update(key, value, flags, program), want, "{op:?}");
            }
            Op::Lookup { key, program } => {
                let key = u32::from(key % 10);
                assert_eq!(map.lookup(key, program), model.lookup(key), "{op:?}");
            }
            Op::Delete { key, program } => {
                let key = u32::from(key % 10);
                assert_eq!(map.delete(key, program), model.delete(key), "{op:?}");
            }
            Op::Take { key } => {
                let key = u32::from(key % 10);
                assert_eq!(map.take(key), model.take(key), "{op:?}");
            }
            Op::Cpu(second) => {
                map.cpu = u32::from(second);
                map.kernel = map.kernel.on_cpu(map.cpu);
            }
            Op::Walk => assert_eq!(map.keys(), model.keys()),
        }
    }
    assert_eq!(map.keys(), model.keys());
}

fuzz_target!(|ops: Vec<Op>| {
    const NO_PREALLOC: u32 = 1;
    run(MapType::HASH, 0, &mut Hash::default(), &ops);
    run(MapType::HASH, NO_PREALLOC, &mut Hash::default(), &ops);
    run(
        MapType::ARRAY,
        0,
        &mut Array([0; MAX_ENTRIES as usize]),
        &ops,
    );
});
