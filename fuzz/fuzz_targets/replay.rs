//! Any bytes as a trace: replayed, or refused with the line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mapemu::abi::Errno;
use mapemu::env::Unsupported;
use mapemu::trace::{Emulated, Options, Trace, Verdict, replay};

/// Bytes that all maps together may take.
const MEMORY: u64 = 64 << 20;

/// CPUs of a kernel at most: more take more memory, and show nothing new.
const MOST_CPUS: u32 = 8;

fuzz_target!(|data: &[u8]| {
    let Ok(trace) = Trace::parse(data) else {
        return;
    };
    let options = Options {
        cpus: Some(trace.header.cpus.unwrap_or(2).clamp(1, MOST_CPUS)),
        unsupported: Unsupported::Errno(Errno::EOPNOTSUPP),
        memory_limit: MEMORY,
        ..Options::default()
    };
    let Ok(mut world) = Emulated::new(&trace.header, &options) else {
        return;
    };
    let replayed = replay(&trace, &mut world, &mut |number, verdict| {
        if let Verdict::Failed { emulated, .. } = verdict {
            assert!(emulated.get("panic").is_none(), "line {number}: {emulated}");
        }
    });
    // A broken line is told of by its number.
    if let Err(broken) = replayed {
        assert!(broken.number > 0, "{broken}");
    }
});
