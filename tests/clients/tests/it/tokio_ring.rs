//! A ring buffer that is waited for by an async runtime, as aya's users do it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aya::EbpfLoader;
use aya::maps::RingBuf;
use aya::programs::{TestRun, TestRunOptions, Xdp};
use tokio::io::unix::AsyncFd;

use crate::{OBJECT, SOON, kernel};

#[tokio::test]
async fn ring_buffer_is_awaited() {
    consume().await;
}

/// The runtime's threads are older than the kernel.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ring_buffer_is_awaited_by_many_threads() {
    consume().await;
}

async fn consume() {
    let kernel = kernel();
    let pins = kernel.pin_dir().unwrap();
    let mut object = EbpfLoader::new()
        .default_map_pin_directory(pins)
        .load(OBJECT)
        .unwrap();
    let count: &mut Xdp = object.program_mut("count").unwrap().try_into().unwrap();
    count.load().unwrap();
    let ring = RingBuf::try_from(object.take_map("events").unwrap()).unwrap();
    // SAFETY: a ring buffer has one fd as long as it lives.
    let mut ring = unsafe { AsyncFd::register(ring) }.unwrap();
    let enough = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&enough);
    let consumer = tokio::spawn(async move {
        let mut n = 0;
        while n < 60 {
            let mut ready = ring.readable_mut().await.unwrap();
            while let Some(item) = ready.get_inner_mut().next() {
                assert_eq!(item.len(), 8);
                n += 1;
            }
            ready.clear_ready();
        }
        seen.store(true, Ordering::Release);
        let idle = tokio::time::timeout(Duration::from_millis(50), ring.readable_mut());
        assert!(idle.await.is_err(), "nothing is there any more");
    });
    for at in 0..60_u8 {
        let mut data = [0; 64];
        data[0] = at % 8;
        let count: &Xdp = object.program("count").unwrap().try_into().unwrap();
        let options = TestRunOptions {
            data_in: Some(&data),
            ..TestRunOptions::default()
        };
        count.test_run(options).unwrap();
        if at % 7 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    tokio::time::timeout(SOON, consumer)
        .await
        .expect("it wakes")
        .unwrap();
    assert!(enough.load(Ordering::Acquire));
}
