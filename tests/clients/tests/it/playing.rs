//! A program in Rust, in place of its instructions.

use aya::maps::{Array, HashMap, PerCpuArray, RingBuf};
use mapemu::abi::UpdateFlags;
use mapemu::interpose::Run;

use crate::aya_objects::{load, packet};
use crate::kernel;

/// What packets lead to: results, counts, the total, that of all CPUs, events.
type Seen = (Vec<u32>, Vec<(u32, u64)>, u64, u64, Vec<Vec<u8>>);

fn seen(played: bool) -> Seen {
    let kernel = kernel();
    if played {
        kernel.play("count", count);
    }
    let mut object = load(3, &kernel.pin_dir().unwrap());
    let results = [7, 7, 9].map(|first| packet(&object, first)).to_vec();
    let counts = HashMap::<_, u32, u64>::try_from(object.map("counts").unwrap()).unwrap();
    let mut counts: Vec<_> = counts.iter().map(Result::unwrap).collect();
    counts.sort_unstable();
    let total = Array::<_, u64>::try_from(object.map(".bss").unwrap()).unwrap();
    let total = total.get(&0, 0).unwrap();
    let per_cpu = PerCpuArray::<_, u64>::try_from(object.map("per_cpu").unwrap()).unwrap();
    let per_cpu = per_cpu.get(&0, 0).unwrap().iter().sum();
    let mut ring = RingBuf::try_from(object.take_map("events").unwrap()).unwrap();
    let mut events = Vec::new();
    while let Some(event) = ring.next() {
        events.push(event.to_vec());
    }
    if played && kernel.kernel().is_some() {
        assert_eq!(kernel.fire("count", 1, &mut [5; 64]), 2);
        assert_eq!(ring.next().unwrap()[0], 5);
    }
    (results, counts, total, per_cpu, events)
}

#[test]
fn program_in_rust_does_what_the_program_does() {
    let program = seen(false);
    assert_eq!(program.1, [(7, 6), (9, 3)]);
    assert_eq!(program, seen(true));
}

/// The first variable of a section.
fn variable(run: &Run<'_>, section: &str) -> u32 {
    let section = run.map(section);
    let value = run.prog.map_lookup_elem(&section, &[0; 4]);
    value.unwrap().load_u32(0)
}

/// The program `count` of `objects/clients.bpf.c`, in Rust.
fn count(run: &mut Run<'_>) -> u32 {
    const XDP_ABORTED: u32 = 0;
    const XDP_DROP: u32 = 1;
    const XDP_PASS: u32 = 2;
    let Some(&first) = run.data.first() else {
        return XDP_ABORTED;
    };
    let key = u32::from(first);
    let counts = run.map("counts");
    let step = variable(run, ".rodata");
    let value = match run.prog.map_lookup_elem(&counts, &key.to_ne_bytes()) {
        Some(value) => value,
        None => {
            let update = run.prog.map_update_elem(
                &counts,
                &key.to_ne_bytes(),
                &0_u64.to_ne_bytes(),
                UpdateFlags::NOEXIST,
            );
            if update.is_err() {
                return XDP_DROP;
            }
            let Some(value) = run.prog.map_lookup_elem(&counts, &key.to_ne_bytes()) else {
                return XDP_ABORTED;
            };
            value
        }
    };
    let count = value.fetch_add_u64(0, step.into()) + u64::from(step);
    let bss = run.map(".bss");
    let total = run.prog.map_lookup_elem(&bss, &[0; 4]).unwrap();
    total.fetch_add_u64(0, step.into());
    let per_cpu = run.map("per_cpu");
    if let Some(mine) = run.prog.map_lookup_elem(&per_cpu, &[0; 4]) {
        mine.fetch_add_u64(0, step.into());
    }
    let mut event = key.to_ne_bytes().to_vec();
    event.extend(u32::try_from(count).unwrap().to_ne_bytes());
    let _ = run.prog.ringbuf_output(&run.map("events"), &event, 0);
    let current_cpu = 0xffff_ffff;
    let _ = run
        .prog
        .perf_event_output(&run.map("samples"), current_cpu, &event);
    if count > u64::from(variable(run, ".data")) {
        XDP_DROP
    } else {
        XDP_PASS
    }
}
