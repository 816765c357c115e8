//! A program that knows nothing of mapemu: one map, by each crate. Run with `LD_PRELOAD` set to the library of `preload/` it uses
//! emulated ones.

use aya::maps::{HashMap, MapData};
use libbpf_rs::libbpf_sys::bpf_map_create_opts;
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};

fn main() {
    let mut map = HashMap::<MapData, u32, u64>::create(1, 0).expect("a map by aya");
    map.insert(1, 2, 0).expect("an element");
    assert!(map.insert(2, 3, 0).is_err(), "it is full");
    let opts = bpf_map_create_opts {
        sz: size_of::<bpf_map_create_opts>() as libbpf_rs::libbpf_sys::size_t,
        ..Default::default()
    };
    let map = MapHandle::create(MapType::Array, Some("one"), 4, 4, 1, &opts);
    let map = map.expect("a map by libbpf");
    std::thread::spawn(move || map.update(&[0; 4], &[7; 4], MapFlags::ANY))
        .join()
        .expect("a thread")
        .expect("an element");
    println!("all is well");
}
