//! Maps by libbpf-rs.

use std::mem::size_of;

use libbpf_rs::libbpf_sys::bpf_map_create_opts;
use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle, MapType};

use crate::kernel;

fn map(
    map_type: MapType,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
) -> libbpf_rs::Result<MapHandle> {
    let opts = bpf_map_create_opts {
        sz: size_of::<bpf_map_create_opts>() as libbpf_rs::libbpf_sys::size_t,
        ..Default::default()
    };
    MapHandle::create(
        map_type,
        Some("a_map"),
        key_size,
        value_size,
        max_entries,
        &opts,
    )
}

#[test]
fn batches_update_look_up_and_delete() {
    let _kernel = kernel();
    let map = map(MapType::Hash, 4, 8, 64).unwrap();
    let keys: Vec<u8> = (0..40_u32).flat_map(u32::to_ne_bytes).collect();
    let values: Vec<u8> = (0..40_u64)
        .flat_map(|value| (value * value).to_ne_bytes())
        .collect();
    map.update_batch(&keys, &values, 40, MapFlags::ANY, MapFlags::ANY)
        .unwrap();
    let batch = map.lookup_batch(64, MapFlags::ANY, MapFlags::ANY).unwrap();
    let mut seen: Vec<(u32, u64)> = batch
        .map(|(key, value)| {
            (
                u32::from_ne_bytes(key.try_into().unwrap()),
                u64::from_ne_bytes(value.try_into().unwrap()),
            )
        })
        .collect();
    seen.sort_unstable();
    assert_eq!(
        seen,
        (0..40)
            .map(|at| (at, u64::from(at).pow(2)))
            .collect::<Vec<_>>()
    );
    map.delete_batch(&keys[..40], 10, MapFlags::ANY, MapFlags::ANY)
        .unwrap();
    assert_eq!(map.keys().count(), 30);
}

#[test]
fn every_cpu_has_a_value() {
    let _kernel = kernel();
    let map = map(MapType::PercpuArray, 4, 8, 2).unwrap();
    let cpus = libbpf_rs::num_possible_cpus().unwrap();
    let values: Vec<Vec<u8>> = (0..cpus as u64)
        .map(|cpu| (cpu + 1).to_ne_bytes().to_vec())
        .collect();
    map.update_percpu(&1_u32.to_ne_bytes(), &values, MapFlags::ANY)
        .unwrap();
    assert_eq!(
        map.lookup_percpu(&1_u32.to_ne_bytes(), MapFlags::ANY)
            .unwrap(),
        Some(values)
    );
}

#[test]
fn errors_are_the_kernels() {
    let _kernel = kernel();
    let map = map(MapType::Array, 4, 4, 1).unwrap();
    let update = |key: u32, flags| {
        map.update(&key.to_ne_bytes(), &[0; 4], flags)
            .map_err(|error| error.kind())
    };
    assert_eq!(update(0, MapFlags::NO_EXIST), Err(ErrorKind::AlreadyExists));
    assert_eq!(
        update(1, MapFlags::ANY).map_err(|kind| format!("{kind:?}")),
        Err("TooBig".to_owned()),
        "E2BIG"
    );
    assert_eq!(
        map.delete(&[0; 4]).map_err(|error| error.kind()),
        Err(ErrorKind::InvalidInput)
    );
    assert_eq!(
        map.lookup(&5_u32.to_ne_bytes(), MapFlags::ANY).unwrap(),
        None
    );
}

#[test]
fn map_tells_of_itself() {
    let _kernel = kernel();
    let made = map(MapType::LpmTrie, 8, 16, 3);
    assert!(made.is_err(), "without BPF_F_NO_PREALLOC");
    let made = map(MapType::LruHash, 8, 16, 30).unwrap();
    let info = made.info().unwrap();
    assert_eq!(
        (
            info.info.key_size,
            info.info.value_size,
            info.info.max_entries
        ),
        (8, 16, 30)
    );
    let told = made.query_fdinfo().unwrap();
    assert_eq!((told.key_size, told.value_size), (8, 16));
    assert_eq!(made.name(), "a_map");
    let again = MapHandle::from_map_id(info.info.id).unwrap();
    again.update(&[1; 8], &[2; 16], MapFlags::ANY).unwrap();
    assert_eq!(
        made.lookup(&[1; 8], MapFlags::ANY).unwrap(),
        Some(vec![2; 16])
    );
    made.freeze().unwrap();
    assert_eq!(
        again
            .update(&[1; 8], &[2; 16], MapFlags::ANY)
            .map_err(|error| error.kind()),
        Err(ErrorKind::PermissionDenied)
    );
}

#[test]
fn pin_outlives_the_fd_and_ends_with_its_file() {
    let kernel = kernel();
    let path = kernel.pin_dir().unwrap().join("pinned");
    let mut made = map(MapType::Queue, 0, 4, 3).unwrap();
    let id = made.info().unwrap().info.id;
    made.pin(&path).unwrap();
    drop(made);
    let pinned = MapHandle::from_pinned_path(&path).unwrap();
    assert_eq!(pinned.info().unwrap().info.id, id);
    drop(pinned);
    std::fs::remove_file(&path).unwrap();
    assert!(MapHandle::from_pinned_path(&path).is_err());
    gone(id);
}

/// The kernel frees a map a moment after it is closed.
#[track_caller]
fn gone(id: u32) {
    for _ in 0..1000 {
        if MapHandle::from_map_id(id).is_err() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("map {id} is there yet");
}

#[test]
fn map_lives_as_long_as_any_fd_of_it() {
    let _kernel = kernel();
    let made = map(MapType::Hash, 4, 4, 3).unwrap();
    let id = made.info().unwrap().info.id;
    let dup = MapHandle::try_from(&made).unwrap();
    drop(made);
    dup.update(&[1; 4], &[1; 4], MapFlags::ANY).unwrap();
    assert!(MapHandle::from_map_id(id).is_ok());
    drop(dup);
    gone(id);
}

#[test]
fn pins_are_in_the_usual_place_too() {
    let _kernel = kernel();
    let dir = std::path::PathBuf::from(format!("/sys/fs/bpf/clients-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("below")).unwrap();
    std::fs::create_dir_all(dir.join("below")).unwrap();
    let path = dir.join("below/pinned");
    assert!(!path.exists());
    let mut made = map(MapType::Stack, 0, 4, 3).unwrap();
    made.pin(&path).unwrap();
    assert!(path.is_file());
    assert_eq!(MapHandle::from_pinned_path(&path).unwrap().max_entries(), 3);
    assert_eq!(
        made.pin(&path).map_err(|error| error.kind()),
        Err(ErrorKind::AlreadyExists)
    );
    std::fs::remove_file(&path).unwrap();
    assert!(MapHandle::from_pinned_path(&path).is_err());
    // What is left of it goes with the emulated kernel; of the running one it is removed.
    let _ = std::fs::remove_dir(dir.join("below"));
    let _ = std::fs::remove_dir(&dir);
}
