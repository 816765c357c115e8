//! aya and libbpf-rs as their users write them. With `MAPEMU=off`, as root, the same tests ask the running kernel.

use std::time::Duration;

use mapemu::Kernel;
use mapemu::abi::UpdateFlags;
use mapemu::interpose::{Interposed, Run, install};

mod aya_kinds;
mod aya_maps;
mod aya_objects;
mod fds;
mod libbpf_maps;
mod libbpf_objects;
mod process;
mod tokio_ring;
mod waiting;

/// Programs and maps, compiled.
static OBJECT: &[u8] = include_bytes!("../../objects/clients.bpf.o");

/// Long enough for anything that happens.
const SOON: Duration = Duration::from_secs(10);

/// A kernel for one test.
fn kernel() -> Interposed {
    install(Kernel::new())
}

/// A kernel that plays the programs of the object.
fn kernel_with_programs() -> Interposed {
    let kernel = kernel();
    kernel.play("count", count);
    kernel.play("egress", |_| 1);
    kernel
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
