//! A whole object by libbpf.

use std::cell::RefCell;
use std::fs::File;
use std::mem::size_of;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use libbpf_rs::libbpf_sys::bpf_map_create_opts;
use libbpf_rs::query::LinkTypeInfo;
use libbpf_rs::{
    AsRawLibbpf, MapCore, MapFlags, MapHandle, MapType, Object, ObjectBuilder, PerfBufferBuilder,
    ProgramInput, RingBufferBuilder, UserRingBuffer,
};

use crate::{OBJECT, SOON, kernel};

fn load(pins: &std::path::Path) -> Object {
    let mut open = ObjectBuilder::default()
        .name("clients")
        .unwrap()
        .open_memory(OBJECT)
        .unwrap();
    for mut map in open.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        if name == "shared" {
            map.set_pin_path(pins.join("shared")).unwrap();
        } else if name.ends_with(".rodata") {
            map.set_initial_value(&5_u32.to_ne_bytes()).unwrap();
        }
    }
    open.load().unwrap()
}

fn packet(object: &mut Object, first: u8) -> u32 {
    let count = object
        .progs_mut()
        .find(|prog| prog.name() == "count")
        .unwrap();
    let mut data = [0; 64];
    data[0] = first;
    let input = ProgramInput {
        data_in: Some(&data),
        ..Default::default()
    };
    count.test_run(input).unwrap().return_value
}

/// A map of the object; a section of variables by the end of its name.
fn map(object: &Object, name: &str) -> MapHandle {
    let found = object
        .maps()
        .find(|map| map.name().to_string_lossy().ends_with(name));
    MapHandle::try_from(&found.unwrap()).unwrap()
}

/// The variable at the start of a section, in the memory that libbpf maps.
fn variable(object: &Object, section: &str) -> *mut u32 {
    let map = object
        .maps()
        .find(|map| map.name().to_string_lossy().ends_with(section));
    let mut size = 0;
    // SAFETY: it is a map of an object that is alive.
    let at = unsafe {
        libbpf_rs::libbpf_sys::bpf_map__initial_value(
            map.unwrap().as_libbpf_object().as_ptr(),
            &raw mut size,
        )
    };
    assert!(size >= 4);
    at.cast()
}

#[test]
fn variables_are_shared_memory() {
    let kernel = kernel();
    let mut object = load(&kernel.pin_dir().unwrap());
    assert_eq!(packet(&mut object, 1), 2, "XDP_PASS");
    let total = variable(&object, ".bss");
    // SAFETY: it is mapped as long as the object is alive, here and below.
    assert_eq!(unsafe { total.read_volatile() }, 5, "the program wrote it");
    let limit = variable(&object, ".data");
    // SAFETY: as above.
    assert_eq!(unsafe { limit.read_volatile() }, 1000);
    // SAFETY: as above.
    unsafe { limit.write_volatile(5) };
    assert_eq!(packet(&mut object, 1), 1, "XDP_DROP: the program reads it");
    let value = map(&object, ".data")
        .lookup(&[0; 4], MapFlags::ANY)
        .unwrap();
    assert_eq!(value, Some(5_u32.to_ne_bytes().to_vec()));
    let counts = map(&object, "counts");
    let count = counts.lookup(&1_u32.to_ne_bytes(), MapFlags::ANY).unwrap();
    assert_eq!(count, Some(10_u64.to_ne_bytes().to_vec()));
    let rodata = map(&object, ".rodata");
    assert!(
        rodata.update(&[0; 4], &[0; 4], MapFlags::ANY).is_err(),
        "it is frozen"
    );
}

#[test]
fn ring_buffer_is_polled() {
    let kernel = kernel();
    let mut object = load(&kernel.pin_dir().unwrap());
    let seen = RefCell::new(Vec::new());
    let events = map(&object, "events");
    let mut builder = RingBufferBuilder::new();
    builder
        .add(&events, |event| {
            seen.borrow_mut().push(event[0]);
            0
        })
        .unwrap();
    let ring = builder.build().unwrap();
    packet(&mut object, 1);
    packet(&mut object, 2);
    ring.poll(SOON).unwrap();
    assert_eq!(*seen.borrow(), [1, 2]);
    let before = Instant::now();
    assert_eq!(
        ring.poll_raw(Duration::from_millis(60)),
        0,
        "nothing is there"
    );
    assert!(before.elapsed() >= Duration::from_millis(60), "it slept");
    packet(&mut object, 3);
    assert_eq!(ring.poll_raw(SOON), 1);
    assert_eq!(*seen.borrow(), [1, 2, 3]);
    for round in (0..10).cycle().take(200) {
        // More than the ring holds, by and by.
        packet(&mut object, round);
        packet(&mut object, round);
        assert_eq!(ring.poll_raw(SOON), 2);
    }
}

#[test]
fn perf_buffer_is_polled() {
    let kernel = kernel();
    let mut object = load(&kernel.pin_dir().unwrap());
    let seen = RefCell::new(Vec::new());
    let samples = map(&object, "samples");
    let perf = PerfBufferBuilder::new(&samples)
        .pages(2)
        .sample_cb(|_, sample: &[u8]| seen.borrow_mut().push(sample[0]))
        .build()
        .unwrap();
    for first in 0..3 {
        packet(&mut object, first);
        perf.poll(SOON).unwrap();
        assert_eq!(seen.borrow().len(), usize::from(first) + 1);
    }
    assert_eq!(*seen.borrow(), [0, 1, 2]);
    let before = Instant::now();
    perf.poll(Duration::from_millis(60)).unwrap();
    assert!(before.elapsed() >= Duration::from_millis(60), "it slept");
}

#[test]
fn program_is_attached_to_a_cgroup() {
    let kernel = kernel();
    let object = load(&kernel.pin_dir().unwrap());
    let cgroup = File::open(kernel.cgroup_dir().unwrap()).unwrap();
    let egress = object
        .progs_mut()
        .find(|prog| prog.name() == "egress")
        .unwrap();
    let link = egress.attach_cgroup(cgroup.as_raw_fd()).unwrap();
    let info = link.info().unwrap();
    assert!(matches!(info.info, LinkTypeInfo::Cgroup(_)));
    link.detach().unwrap();
}

#[test]
fn user_ring_buffer_takes_samples() {
    let _kernel = kernel();
    let opts = bpf_map_create_opts {
        sz: size_of::<bpf_map_create_opts>() as libbpf_rs::libbpf_sys::size_t,
        ..Default::default()
    };
    let ring = MapHandle::create(MapType::UserRingBuf, Some("user"), 0, 0, 4096, &opts).unwrap();
    let user = UserRingBuffer::new(&ring).unwrap();
    for _ in 0..3 {
        let sample = user.reserve(1000).unwrap();
        user.submit(sample).unwrap();
    }
    let full = user.reserve(2000);
    assert!(full.is_err(), "nobody drains it");
}
