//! A whole object by aya's loader: maps, variables, programs, what they tell user space.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::mpsc;
use std::thread;

use aya::maps::perf::PerfEventArray;
use aya::maps::{Array, HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::{
    CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, ProgramError, TestRun, TestRunOptions, Xdp,
};
use aya::util::online_cpus;
use aya::{Ebpf, EbpfLoader};

use crate::{OBJECT, SOON, kernel};

/// The object, loaded, with its directory of pins.
pub(crate) fn load(step: u32, pins: &std::path::Path) -> Ebpf {
    let mut object = EbpfLoader::new()
        .default_map_pin_directory(pins)
        .override_global("step", &step, true)
        .load(OBJECT)
        .unwrap();
    let count: &mut Xdp = object.program_mut("count").unwrap().try_into().unwrap();
    count.load().unwrap();
    object
}

/// A packet that begins with that byte comes in.
pub(crate) fn packet(object: &Ebpf, first: u8) -> u32 {
    let count: &Xdp = object.program("count").unwrap().try_into().unwrap();
    let mut data = [0; 64];
    data[0] = first;
    let options = TestRunOptions {
        data_in: Some(&data),
        ..TestRunOptions::default()
    };
    count.test_run(options).unwrap().return_value
}

/// Waits until the fd can be read.
fn wait(fd: &impl AsRawFd) -> bool {
    wait_for(fd, i32::try_from(SOON.as_millis()).unwrap())
}

/// The fd can be read.
pub(crate) fn is_ready(fd: &impl AsRawFd) -> bool {
    wait_for(fd, 0)
}

fn wait_for(fd: &impl AsRawFd, timeout_ms: i32) -> bool {
    let mut polled = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: it is one.
    unsafe { libc::poll(&raw mut polled, 1, timeout_ms) == 1 && polled.revents & libc::POLLIN != 0 }
}

#[test]
fn program_counts_in_the_maps_that_user_space_reads() {
    let kernel = kernel();
    let object = load(3, &kernel.pin_dir().unwrap());
    for first in [7, 7, 9] {
        assert_eq!(packet(&object, first), 2, "XDP_PASS");
    }
    let counts = HashMap::<_, u32, u64>::try_from(object.map("counts").unwrap()).unwrap();
    assert_eq!(counts.get(&7, 0).unwrap(), 6);
    assert_eq!(counts.get(&9, 0).unwrap(), 3);
    let per_cpu = PerCpuArray::<_, u64>::try_from(object.map("per_cpu").unwrap()).unwrap();
    assert_eq!(per_cpu.get(&0, 0).unwrap().iter().sum::<u64>(), 9);
    let total = Array::<_, u64>::try_from(object.map(".bss").unwrap()).unwrap();
    assert_eq!(total.get(&0, 0).unwrap(), 9);
}

#[test]
fn consumer_of_a_ring_buffer_sleeps_until_there_is_something() {
    let kernel = kernel();
    let mut object = load(1, &kernel.pin_dir().unwrap());
    let mut ring = RingBuf::try_from(object.take_map("events").unwrap()).unwrap();
    let (tell, told) = mpsc::channel();
    let consumer = thread::spawn(move || {
        let mut seen = Vec::new();
        while seen.len() < 200 {
            tell.send(()).unwrap();
            assert!(wait(&ring), "something comes");
            while let Some(item) = ring.next() {
                let (key, count) = item.split_at(4);
                seen.push((key[0], u32::from_ne_bytes(count.try_into().unwrap())));
            }
        }
        seen
    });
    let expected: Vec<_> = (0..200_u32)
        .map(|at| ((at % 2) as u8, at / 2 + 1))
        .collect();
    for (at, &(key, _)) in expected.iter().enumerate() {
        if at % 3 == 0 {
            // It may sleep by now.
            let _ = told.recv();
        }
        while told.try_recv().is_ok() {}
        packet(&object, key);
    }
    drop(told);
    assert_eq!(consumer.join().ok().unwrap_or_default(), expected);
}

#[test]
fn no_wakeup_is_lost() {
    let kernel = kernel();
    let mut object = load(1, &kernel.pin_dir().unwrap());
    let mut ring = RingBuf::try_from(object.take_map("events").unwrap()).unwrap();
    let (tell, told) = mpsc::channel();
    let consumer = thread::spawn(move || {
        for _ in 0..2000 {
            assert!(wait(&ring), "it comes");
            let item = ring.next().expect("it woke for something");
            tell.send(item[0]).unwrap();
        }
    });
    for at in 0..2000_u32 {
        packet(&object, (at % 8) as u8);
        assert_eq!(told.recv().unwrap(), (at % 8) as u8);
    }
    consumer.join().unwrap();
}

#[test]
fn samples_come_through_perf_buffers() {
    let kernel = kernel();
    let mut object = load(1, &kernel.pin_dir().unwrap());
    let mut samples = PerfEventArray::try_from(object.take_map("samples").unwrap()).unwrap();
    let cpus = online_cpus().unwrap();
    let mut buffers: Vec<_> = cpus
        .iter()
        .map(|&cpu| samples.open(cpu, Some(2)).unwrap())
        .collect();
    for first in 0..5 {
        packet(&object, first);
    }
    let mut seen = Vec::new();
    for buffer in &mut buffers {
        if buffer.readable() {
            assert!(wait(buffer));
            buffer.for_each(|event| {
                if let aya::maps::perf::PerfEvent::Sample { head, tail } = event {
                    seen.push([head, tail].concat()[0]);
                }
            });
        }
        assert!(!buffer.readable(), "all is read");
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4]);
}

#[test]
fn object_finds_the_map_that_another_pinned() {
    let kernel = kernel();
    let pins = kernel.pin_dir().unwrap();
    let mut first = load(1, &pins);
    let mut shared: Array<_, u64> = first.take_map("shared").unwrap().try_into().unwrap();
    shared.set(1, 5, 0).unwrap();
    assert!(pins.join("shared").exists());
    let second = load(1, &pins);
    let again = Array::<_, u64>::try_from(second.map("shared").unwrap()).unwrap();
    assert_eq!(again.get(&1, 0).unwrap(), 5);
    drop((first, second, shared));
    let pinned = MapData::from_pin(pins.join("shared")).unwrap();
    assert_eq!(pinned.info().unwrap().max_entries(), 4);
}

#[test]
fn program_is_attached_to_a_cgroup() {
    let kernel = kernel();
    let mut object = load(1, &kernel.pin_dir().unwrap());
    let cgroup = File::open(kernel.cgroup_dir().unwrap()).unwrap();
    let egress: &mut CgroupSkb = object.program_mut("egress").unwrap().try_into().unwrap();
    egress.load().unwrap();
    let link = egress
        .attach(
            &cgroup,
            CgroupSkbAttachType::Egress,
            CgroupAttachMode::Single,
        )
        .unwrap();
    let (attached, _) = aya::programs::loaded_programs()
        .map(Result::unwrap)
        .fold((0, 0), |(n, m), info| {
            (n + u32::from(info.name() == b"egress"), m)
        });
    assert!(attached >= 1);
    egress.detach(link).unwrap();
}

#[test]
fn what_cannot_be_attached_is_refused() {
    let kernel = kernel();
    if kernel.kernel().is_none() {
        return;
    }
    let mut object = load(1, &kernel.pin_dir().unwrap());
    let count: &mut Xdp = object.program_mut("count").unwrap().try_into().unwrap();
    let refused = count.attach("lo", aya::programs::XdpMode::default());
    assert!(
        matches!(
            refused,
            Err(ProgramError::XdpError(_) | ProgramError::SyscallError(_))
        ),
        "{refused:?}"
    );
}
