//! Maps, threads and locks, in a program with the hooks; it fails if they are not active.

use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use aya::maps::{Array, HashMap, MapData};
use mapemu::Kernel;
use mapemu::interpose::{assert_active, install};

fn main() {
    assert_active();
    let _kernel = install(Kernel::new());
    assert_active();
    let mut map = HashMap::<MapData, u32, u64>::create(1, 0).expect("a map");
    map.insert(1, 2, 0).expect("an element");
    assert!(map.insert(2, 3, 0).is_err(), "it is full");
    let turn = Arc::new((Mutex::new(0), Condvar::new()));
    let threads: Vec<_> = (0..4)
        .map(|me| {
            let turn = Arc::clone(&turn);
            thread::spawn(move || {
                let mut map = Array::<MapData, u32>::create(1, 0).expect("a map of a thread");
                for round in 0..100 {
                    let (lock, moved) = &*turn;
                    let now = lock.lock().expect("no thread panics");
                    let mut now = moved.wait_while(now, |now| *now % 4 != me).expect("no thread panics");
                    map.set(0, round, 0).expect("an element");
                    *now += 1;
                    moved.notify_all();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("a thread");
    }
    println!("all is well");
}
