//! Making a map in three ways: by an attr, by the function, and declared by name in a table.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "an example")]

use mapemu::Kernel;
use mapemu::abi::{Bpf, Cmd, MapType, Memory};
use mapemu::calls::{self, CreateOpts};

/// What a program's maps are, by name: as `struct bpf_map_def` or a loader would have it.
struct MapData {
    name: &'static str,
    map_type: MapType,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

const MAPS: [MapData; 2] = [
    MapData {
        name: "counters",
        map_type: MapType::ARRAY,
        key_size: 4,
        value_size: 8,
        max_entries: 256,
    },
    MapData {
        name: "sessions",
        map_type: MapType::HASH,
        key_size: 16,
        value_size: 32,
        max_entries: 1024,
    },
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let kernel = Kernel::new();

    // By an attr: `union bpf_attr` as the system call takes it, 72 bytes are enough here.
    let mut attr = [0_u8; 72];
    for (at, word) in [MapType::HASH.0, 4, 8, 16].into_iter().enumerate() {
        attr[at * 4..at * 4 + 4].copy_from_slice(&word.to_ne_bytes());
    }
    let mut mem = Memory::new();
    let addr = mem.output(&mut attr);
    let by_attr = kernel.bpf(Cmd::MAP_CREATE, addr, 72, &mut mem)?;

    // By the function.
    let by_function = calls::bpf_map_create(
        &kernel,
        MapType::HASH,
        "ports",
        4,
        8,
        16,
        &CreateOpts::default(),
    )?;

    // Declared by name in a table.
    let by_name = MAPS
        .iter()
        .map(|map| {
            let opts = CreateOpts::default();
            calls::bpf_map_create(
                &kernel,
                map.map_type,
                map.name,
                map.key_size,
                map.value_size,
                map.max_entries,
                &opts,
            )
            .map(|fd| (map.name, fd))
        })
        .collect::<Result<Vec<_>, _>>()?;

    for fd in [by_attr, by_function]
        .into_iter()
        .chain(by_name.iter().map(|(_, fd)| *fd))
    {
        let info = calls::bpf_map_get_info_by_fd(&kernel, fd)?;
        let name = String::from_utf8_lossy(&info.name);
        println!(
            "fd {fd}: {} \"{}\", {} elements of {} -> {} bytes",
            info.map_type,
            name.trim_end_matches('\0'),
            info.max_entries,
            info.key_size,
            info.value_size
        );
    }
    let sessions = by_name
        .iter()
        .find(|(name, _)| *name == "sessions")
        .expect("it is in the table");
    calls::bpf_map_update_elem(&kernel, sessions.1, &[1; 16], &[2; 32], 0)?;
    Ok(())
}
