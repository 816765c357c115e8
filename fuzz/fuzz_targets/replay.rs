//! Any trace file: read or refused with its line, and no panic beyond what the replay names as not emulated.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mapemu::abi::Errno;
use mapemu::env::Unsupported;
use mapemu::trace::{Emulated, Options, Trace, replay};

fuzz_target!(|text: &[u8]| {
    let Ok(trace) = Trace::parse(text) else {
        return;
    };
    let options = Options {
        memory_limit: 64 << 20,
        unsupported: Unsupported::Errno(Errno::ENOSYS),
        ..Options::default()
    };
    if let Ok(mut world) = Emulated::new(&trace.header, &options) {
        let _ = replay(&trace, &mut world, &mut |_, _| ());
    }
});
