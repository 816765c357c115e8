//! Any command with any attr and any memory: an answer, never a panic, and no memory beyond the limit.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use mapemu::abi::{Bpf, Cmd, Errno, MapType, Memory};
use mapemu::calls::{CreateOpts, bpf_map_create};
use mapemu::env::Unsupported;
use mapemu::sys::Kernel;

/// One call. Words of the attr can be made the address of a buffer.
#[derive(Arbitrary, Debug)]
struct Call {
    cmd: u8,
    attr: Vec<u8>,
    /// More or fewer bytes than there are.
    size: Option<u16>,
    buffers: [Vec<u8>; 3],
    /// Which words are addresses, and of which buffer.
    addresses: Vec<(u8, u8)>,
    /// Which half words are small numbers: fds, sizes, counts.
    numbers: Vec<(u8, u8)>,
    read_only: bool,
    cpu: bool,
}

/// Bytes that all maps together may take.
const MEMORY: u64 = 64 << 20;

/// Bytes of an attr at most: longer ones are refused for that.
const LONGEST: usize = 256;

fn kernel() -> Kernel {
    Kernel::builder()
        .memory_limit(MEMORY)
        .unsupported(Unsupported::Errno(Errno::EOPNOTSUPP))
        .build()
}

/// A map of each type that needs nothing else, from fd 3 on: type, sizes of key and value, elements, flags.
const MAPS: &[(MapType, u32, u32, u32, u32)] = &[
    (MapType::HASH, 4, 8, 4, 0),
    (MapType::ARRAY, 4, 8, 4, 0),
    (MapType::HASH, 4, 8, 4, 1),
    (MapType::PERCPU_HASH, 4, 8, 4, 0),
    (MapType::PERCPU_ARRAY, 4, 8, 4, 0),
    (MapType::LRU_HASH, 4, 8, 4, 0),
    (MapType::LRU_PERCPU_HASH, 4, 8, 4, 0),
    (MapType::LPM_TRIE, 8, 8, 4, 1),
    (MapType::QUEUE, 0, 8, 4, 0),
    (MapType::STACK, 0, 8, 4, 0),
    (MapType::BLOOM_FILTER, 0, 8, 4, 0),
    (MapType::PROG_ARRAY, 4, 4, 4, 0),
    (MapType::CGROUP_STORAGE, 16, 8, 0, 0),
    (MapType::DEVMAP, 4, 4, 4, 0),
    (MapType::RINGBUF, 0, 0, 4096, 0),
];

fn make_maps(kernel: &Kernel) {
    for &(map_type, key_size, value_size, max_entries, map_flags) in MAPS {
        let opts = CreateOpts {
            map_flags,
            ..CreateOpts::default()
        };
        let made = bpf_map_create(
            kernel,
            map_type,
            "",
            key_size,
            value_size,
            max_entries,
            &opts,
        );
        made.expect("these can be made");
    }
}

fuzz_target!(|calls: Vec<Call>| {
    let kernel = kernel();
    make_maps(&kernel);
    for mut call in calls.into_iter().take(64) {
        call.attr.truncate(LONGEST);
        let [a, b, c] = &mut call.buffers;
        let mut memory = Memory::new();
        let at = if call.read_only {
            [memory.input(a), memory.input(b), memory.output(c)]
        } else {
            [memory.output(a), memory.output(b), memory.output(c)]
        };
        for (half, number) in call.numbers {
            let half = usize::from(half) * 4;
            if let Some(place) = call.attr.get_mut(half..half + 4) {
                place.copy_from_slice(&u32::from(number).to_ne_bytes());
            }
        }
        for (word, buffer) in call.addresses {
            let word = usize::from(word) * 8;
            if let Some(place) = call.attr.get_mut(word..word + 8) {
                place.copy_from_slice(&at[usize::from(buffer) % at.len()].to_ne_bytes());
            }
        }
        let size = call.size.map_or(call.attr.len() as u32, u32::from);
        let attr = memory.output(&mut call.attr);
        let cmd = Cmd(u32::from(call.cmd % 48));
        let on_cpu = kernel.on_cpu(u32::from(call.cpu));
        let _answer = Bpf::bpf(&on_cpu, cmd, attr, size, &mut memory);
    }
});
