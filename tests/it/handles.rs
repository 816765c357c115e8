//! Calls through handles, beside those of bpf(2).

use mapemu::abi::{Bpf as _, Errno, Fd, MapHandle, MapType, UpdateFlags};
use mapemu::calls;
use mapemu::sys::Kernel;

use crate::common::{map, small};

const NO_PREALLOC: u32 = 1;
const RDONLY: u32 = 1 << 3;
const WRONLY: u32 = 1 << 4;
const ZERO_SEED: u32 = 1 << 6;

#[test]
fn a_handle_keeps_its_file_open() {
    let kernel = Kernel::new();
    let fd = small(&kernel, MapType::HASH);
    let handle = kernel.map_handle(fd).expect("a map");
    kernel.close(fd).expect("it is open");
    let (key, mut value) = ([0; 4], [0; 8]);
    let flags = UpdateFlags::ANY;
    assert_eq!(handle.update_elem(&key, &[7; 8], flags), Ok(()));
    assert_eq!(handle.lookup_elem(&key, &mut value, flags), Ok(()));
    assert_eq!(value, [7; 8]);
}

/// What a call answers, and what is in the caller's room afterwards, if the room was large enough.
type Answer = (Result<(), Errno>, Option<Vec<u8>>);

/// Calls for elements: of bpf(2), or of a handle.
trait Calls {
    fn lookup(&self, key: &[u8], value: &mut [u8], flags: u64) -> Result<(), Errno>;
    fn update(&self, key: &[u8], value: &[u8], flags: u64) -> Result<(), Errno>;
    fn delete(&self, key: &[u8]) -> Result<(), Errno>;
    fn take(&self, key: &[u8], value: &mut [u8], flags: u64) -> Result<(), Errno>;
    fn next(&self, key: Option<&[u8]>, next: &mut [u8]) -> Result<(), Errno>;
}

impl Calls for (&Kernel, Fd) {
    fn lookup(&self, key: &[u8], value: &mut [u8], flags: u64) -> Result<(), Errno> {
        calls::bpf_map_lookup_elem_flags(self.0, self.1, key, value, flags)
    }
    fn update(&self, key: &[u8], value: &[u8], flags: u64) -> Result<(), Errno> {
        calls::bpf_map_update_elem(self.0, self.1, key, value, flags)
    }
    fn delete(&self, key: &[u8]) -> Result<(), Errno> {
        calls::bpf_map_delete_elem(self.0, self.1, key)
    }
    fn take(&self, key: &[u8], value: &mut [u8], flags: u64) -> Result<(), Errno> {
        calls::bpf_map_lookup_and_delete_elem_flags(self.0, self.1, key, value, flags)
    }
    fn next(&self, key: Option<&[u8]>, next: &mut [u8]) -> Result<(), Errno> {
        calls::bpf_map_get_next_key(self.0, self.1, key, next)
    }
}

impl Calls for Box<dyn MapHandle> {
    fn lookup(&self, key: &[u8], value: &mut [u8], flags: u64) -> Result<(), Errno> {
        self.lookup_elem(key, value, UpdateFlags::from_bits_retain(flags))
    }
    fn update(&self, key: &[u8], value: &[u8], flags: u64) -> Result<(), Errno> {
        self.update_elem(key, value, UpdateFlags::from_bits_retain(flags))
    }
    fn delete(&self, key: &[u8]) -> Result<(), Errno> {
        self.delete_elem(key)
    }
    fn take(&self, key: &[u8], value: &mut [u8], flags: u64) -> Result<(), Errno> {
        self.lookup_and_delete_elem(key, value, UpdateFlags::from_bits_retain(flags))
    }
    fn next(&self, key: Option<&[u8]>, next: &mut [u8]) -> Result<(), Errno> {
        self.get_next_key(key, next)
    }
}

/// All calls once, with keys, values and flags that fit and that do not.
fn answers(map: &dyn Calls, key_size: usize, value_size: usize) -> Vec<(String, Answer)> {
    const FLAGS: [u64; 10] = [0, 1, 2, 3, 4, 6, 8, 16, 1 << 32 | 8, 1 << 40];
    let mut all = Vec::new();
    let lens = |size: usize| [size - 1, size, size + 3];
    for (key_len, value_len) in lens(key_size)
        .into_iter()
        .flat_map(|key| lens(value_size).map(|value| (key, value)))
    {
        for (number, flags) in [1, 9]
            .into_iter()
            .flat_map(|n| FLAGS.map(|flags| (n, flags)))
        {
            let mut key = vec![0; key_len];
            key[0] = number;
            let what = format!(
                "key {number}, {key_len} of {key_size} bytes; value of {value_len} of {value_size}; flags {flags:#x}"
            );
            let mut say = |call: &str, done: Result<(), Errno>, room: Option<Vec<u8>>| {
                let room = room.filter(|_| done != Err(Errno::EFAULT));
                all.push((format!("{call}: {what}"), (done, room)));
            };
            let value = vec![number; value_len];
            say("update", map.update(&key, &value, flags), None);
            let mut room = vec![0xee; value_len];
            let done = map.lookup(&key, &mut room, flags);
            say("lookup", done, Some(room));
            let mut room = vec![0xee; value_len];
            let done = map.take(&key, &mut room, flags);
            say("take", done, Some(room));
            if flags == 0 {
                say("update", map.update(&key, &value, 0), None);
                let mut room = vec![0xee; key_len];
                let done = map.next(Some(&key), &mut room);
                say("next", done, Some(room));
                let mut room = vec![0xee; key_len];
                let done = map.next(None, &mut room);
                say("first", done, Some(room));
                say("delete", map.delete(&key), None);
            }
        }
    }
    all
}

#[test]
fn a_handle_answers_what_the_command_answers() {
    let hash = MapType::HASH;
    let cases = [
        (MapType::ARRAY, 4, 8, 0),
        (MapType::ARRAY, 4, 21, 0),
        (MapType::PERCPU_ARRAY, 4, 5, 0),
        (hash, 4, 8, ZERO_SEED),
        (hash, 8, 64, ZERO_SEED),
        (hash, 16, 24, ZERO_SEED),
        (hash, 5, 1024, ZERO_SEED),
        (hash, 64, 3, ZERO_SEED),
        (hash, 4, 8, ZERO_SEED | NO_PREALLOC),
        (MapType::LRU_HASH, 4, 8, ZERO_SEED),
        (MapType::LRU_HASH, 20, 70, ZERO_SEED),
        (MapType::PERCPU_HASH, 4, 8, ZERO_SEED),
        (MapType::PERCPU_HASH, 16, 5, ZERO_SEED),
        (MapType::LRU_PERCPU_HASH, 8, 12, ZERO_SEED),
        (MapType::LPM_TRIE, 8, 8, NO_PREALLOC),
    ];
    Kernel::each_release(|kernel| {
        for (map_type, key_size, value_size, flags) in cases {
            for (access, frozen) in [(0, false), (0, true), (RDONLY, false), (WRONLY, false)] {
                let fds = [(); 2]
                    .map(|()| map(kernel, map_type, key_size, value_size, 4, flags | access));
                let mut kept = vec![0; key_size as usize];
                kept[0] = 2;
                let size = value_size as usize;
                let size = if map_type.is_percpu() {
                    size.next_multiple_of(8) * kernel.nr_cpus() as usize
                } else {
                    size
                };
                for fd in fds {
                    let done = calls::bpf_map_update_elem(kernel, fd, &kept, &vec![5; size], 0);
                    assert!(done.is_ok() || access == RDONLY, "{map_type:?}: {done:?}");
                    if frozen {
                        calls::bpf_map_freeze(kernel, fd).expect("nobody writes");
                    }
                }
                let handle = kernel.map_handle(fds[1]).expect("a map");
                let command = answers(&(kernel, fds[0]), kept.len(), size);
                let by_handle = answers(&handle, kept.len(), size);
                for (command, by_handle) in command.into_iter().zip(by_handle) {
                    assert_eq!(
                        by_handle, command,
                        "{map_type:?}, access {access:#x}, frozen: {frozen}"
                    );
                }
            }
        }
    });
}
