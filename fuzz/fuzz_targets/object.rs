//! Any bytes as an object file: no panic, when it is read and when its maps are made.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mapemu::Kernel;
use mapemu::abi::Errno;
use mapemu::env::Unsupported;
use mapemu::object::Object;

fuzz_target!(|bytes: &[u8]| {
    let Ok(object) = Object::parse(bytes, "fuzzed") else {
        return;
    };
    let kernel = Kernel::builder()
        .memory_limit(64 << 20)
        .unsupported(Unsupported::Errno(Errno::ENOSYS))
        .build();
    let _ = object.create(&kernel, None);
});
