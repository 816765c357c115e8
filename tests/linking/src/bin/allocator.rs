//! A program whose allocator takes each block from mmap(2), with a lock held meanwhile, as no allocator does that can be entered
//! again: whatever mapemu does about a mapping, it must not allocate for one that is none of its own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{ptr, thread};

use mapemu::Kernel;
use mapemu::interpose::install_for_process;

/// Blocks from this size on are mapped.
const MAPPED_FROM: usize = 128;

struct Mapping;

/// The thread that has the lock; 0 if none has.
static HAS_LOCK: AtomicU64 = AtomicU64::new(0);

/// # Panics
///
/// If the thread is in here already.
fn locked<T>(f: impl FnOnce() -> T) -> T {
    // SAFETY: it takes nothing.
    let this = unsafe { libc::pthread_self() } as u64;
    while let Err(has) =
        HAS_LOCK.compare_exchange_weak(0, this, Ordering::Acquire, Ordering::Relaxed)
    {
        if has == this {
            // SAFETY: bytes that are there.
            unsafe { libc::write(2, c"the allocator is entered again\n".as_ptr().cast(), 31) };
            std::process::abort();
        }
        std::hint::spin_loop();
    }
    let done = f();
    HAS_LOCK.store(0, Ordering::Release);
    done
}

// SAFETY: each block is a mapping of its own, or the system's.
unsafe impl GlobalAlloc for Mapping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() < MAPPED_FROM {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc(layout) };
        }
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, at no address that anybody has.
        locked(|| unsafe { libc::mmap(ptr::null_mut(), layout.size(), prot, flags, -1, 0) }).cast()
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if layout.size() < MAPPED_FROM {
            // SAFETY: the caller's promise.
            return unsafe { System.dealloc(block, layout) };
        }
        // SAFETY: it is a mapping of that size, which nobody uses any more.
        locked(|| unsafe { libc::munmap(block.cast(), layout.size()) });
    }
}

#[global_allocator]
static ALLOCATOR: Mapping = Mapping;

fn main() {
    install_for_process(Kernel::new());
    let threads: Vec<_> = (0..4).map(|_| thread::spawn(map_and_unmap)).collect();
    for thread in threads {
        thread.join().expect("a thread");
    }
    println!("all is well");
}

/// Maps whose memory lies between blocks of the allocator.
fn map_and_unmap() {
    const ARRAY: u32 = 2;
    const MMAPABLE: u32 = 1 << 10;
    let mut mapped = VecDeque::new();
    for _ in 0..300 {
        let attr = [ARRAY, 4, 8, 512, MMAPABLE];
        // SAFETY: the attr is one of BPF_MAP_CREATE.
        let fd = unsafe { libc::syscall(libc::SYS_bpf, 0, attr.as_ptr(), 20) };
        let fd = libc::c_int::try_from(fd).expect("a number of an fd");
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, at no address that anybody has.
        let at = unsafe { libc::mmap(ptr::null_mut(), 4096, prot, libc::MAP_SHARED, fd, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        // SAFETY: it was just made, and the mapping has the map.
        assert_eq!(unsafe { libc::close(fd) }, 0);
        mapped.push_back((at, vec![0_u8; 5000]));
        if mapped.len() > 10 {
            let (at, block) = mapped.pop_front().expect("there are ten");
            drop(block);
            // SAFETY: nobody uses it.
            assert_eq!(unsafe { libc::munmap(at, 4096) }, 0);
        }
    }
}
