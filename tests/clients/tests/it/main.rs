//! aya and libbpf-rs as their users write them. With `MAPEMU=off`, as root, the same tests ask the running kernel.

use std::time::Duration;

use mapemu::Kernel;
use mapemu::interpose::{Interposed, install};

mod aya_kinds;
mod aya_maps;
mod aya_objects;
mod fds;
mod libbpf_maps;
mod libbpf_objects;
mod playing;
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
