//! What one call of bpf(2) costs when it is answered in this process, beside the running kernel (as root).
//!
//! The calls are those of the crates: `syscall(SYS_bpf, ...)`, an attr, a key and a value of 8 bytes in memory. The running kernel is
//! asked past the hooks. The last group is what the hooks cost a call that is none of theirs.
#![expect(
    missing_docs,
    clippy::undocumented_unsafe_blocks,
    clippy::cast_possible_wrap,
    reason = "a benchmark"
)]
#![allow(unsafe_code, reason = "system calls")]

use std::arch::asm;
use std::ffi::c_long;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use mapemu::Kernel;
use mapemu::interpose::install;

/// A system call.
type Call = unsafe fn(c_long, [c_long; 3]) -> c_long;

/// As the crates make it.
unsafe fn hooked(number: c_long, [a, b, c]: [c_long; 3]) -> c_long {
    unsafe { libc::syscall(number, a, b, c) }
}

/// Past the hooks.
unsafe fn direct(number: c_long, [a, b, c]: [c_long; 3]) -> c_long {
    let ret;
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("syscall", inlateout("rax") number => ret, in("rdi") a, in("rsi") b, in("rdx") c,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a => ret, in("x1") b, in("x2") c, options(nostack));
    }
    ret
}

/// A map, as attrs of its commands.
struct Map {
    call: Call,
    fd: u64,
    key: Box<[u8; 8]>,
    value: Box<[u8; 8]>,
}

const CREATE: c_long = 0;
const LOOKUP: c_long = 1;
const UPDATE: c_long = 2;

impl Map {
    /// A map of 1024 elements; none where it cannot be made.
    fn new(call: Call, map_type: u32, key_size: u32) -> Option<Self> {
        let mut attr = [0_u32; 16];
        attr[..4].copy_from_slice(&[map_type, key_size, 8, 1024]);
        let fd = unsafe {
            call(
                libc::SYS_bpf,
                [CREATE, attr.as_ptr().expose_provenance() as c_long, 64],
            )
        };
        let map = Self {
            call,
            fd: u64::try_from(fd).ok()?,
            key: Box::new([0; 8]),
            value: Box::new([0; 8]),
        };
        assert_eq!(map.element(UPDATE), 0);
        Some(map)
    }

    fn element(&self, cmd: c_long) -> c_long {
        let attr = [
            self.fd,
            self.key.as_ptr().expose_provenance() as u64,
            self.value.as_ptr().expose_provenance() as u64,
            0,
        ];
        unsafe {
            (self.call)(
                libc::SYS_bpf,
                [
                    cmd,
                    black_box(attr.as_ptr()).expose_provenance() as c_long,
                    32,
                ],
            )
        }
    }
}

fn elements(c: &mut Criterion) {
    let _kernel = install(Kernel::new());
    for (name, map_type, key_size) in [("hash", 1, 8), ("array", 2, 4), ("lru_hash", 9, 8)] {
        for (op, cmd) in [("lookup", LOOKUP), ("update", UPDATE)] {
            let mut group = c.benchmark_group(format!("{name}/{op}"));
            for (kernel, call) in [("emulated", hooked as Call), ("running", direct)] {
                let Some(map) = Map::new(call, map_type, key_size) else {
                    continue;
                };
                group.bench_function(kernel, |b| b.iter(|| assert_eq!(map.element(cmd), 0)));
            }
        }
    }
    let mut group = c.benchmark_group("other calls");
    group.bench_function("hooked", |b| {
        b.iter(|| unsafe { hooked(libc::SYS_getppid, [0; 3]) })
    });
    group.bench_function("direct", |b| {
        b.iter(|| unsafe { direct(libc::SYS_getppid, [0; 3]) })
    });
}

criterion_group!(benches, elements);
criterion_main!(benches);
