//! Any commands with any attr bytes and any memory: no panic, and no memory beyond the limit.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use mapemu::Kernel;
use mapemu::abi::{Bpf, Cmd, Errno, Memory};
use mapemu::env::Unsupported;

/// One call. Words of the attr that name a buffer become its address.
#[derive(Arbitrary, Debug)]
struct Call {
    cmd: u8,
    attr: Vec<u8>,
    /// Bytes of attr that the kernel is told of, where that is not all.
    size: Option<u16>,
    /// Buffers, each with the offset in the attr (in words of 8 bytes) where its address goes.
    buffers: [(u8, Vec<u8>); 3],
    cpu: bool,
}

fuzz_target!(|calls: Vec<Call>| {
    let kernel = Kernel::builder()
        .memory_limit(64 << 20)
        .unsupported(Unsupported::Errno(Errno::ENOSYS))
        .build();
    for call in calls.into_iter().take(64) {
        let Call {
            cmd,
            mut attr,
            size,
            mut buffers,
            cpu,
        } = call;
        let mut mem = Memory::new();
        for (at, bytes) in &mut buffers {
            let addr = mem.output(bytes);
            let at = usize::from(*at % 16) * 8;
            if let Some(word) = attr.get_mut(at..at + 8) {
                word.copy_from_slice(&addr.to_ne_bytes());
            }
        }
        let size = size.map_or(attr.len() as u32, u32::from);
        let attr = mem.output(&mut attr);
        let _ = kernel
            .on_cpu(cpu.into())
            .bpf(Cmd(u32::from(cmd % 40)), attr, size, &mut mem);
    }
});
