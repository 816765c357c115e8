//! aya and libbpf-rs as their users write them. With `MAPEMU=off`, as root, the same tests ask the running kernel.

use mapemu::Kernel;
use mapemu::interpose::{Interposed, install};

mod aya_maps;

/// A kernel for one test.
fn kernel() -> Interposed {
    install(Kernel::new())
}
