//! Any bytes as an object file, and real ones with some bytes changed: no panic, when it is read and when its maps are made.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mapemu::Kernel;
use mapemu::abi::Errno;
use mapemu::env::Unsupported;
use mapemu::object::Object;

const REAL: &[&[u8]] = &[
    include_bytes!("../../tests/objects/btf_maps.o"),
    include_bytes!("../../tests/objects/legacy_maps.o"),
    include_bytes!("../../tests/objects/mixed_maps.o"),
    include_bytes!("../../tests/objects/rust_maps.o"),
];

fuzz_target!(|input: (u8, Vec<(u16, u8)>, Vec<u8>)| {
    let (which, changes, bytes) = input;
    let mut bytes = REAL
        .get(usize::from(which % 8))
        .map_or(bytes, |real| real.to_vec());
    for (at, byte) in changes {
        if let Some(place) = bytes.get_mut(usize::from(at)) {
            *place = byte;
        }
    }
    let Ok(object) = Object::parse(&bytes, "fuzzed") else {
        return;
    };
    let kernel = Kernel::builder()
        .memory_limit(64 << 20)
        .unsupported(Unsupported::Errno(Errno::ENOSYS))
        .build();
    let _ = object.create(&kernel, None);
});
