//! What all facts need.

use mapemu::abi::{Bpf, Fd, MapType};
use mapemu::calls::{CreateOpts, bpf_map_create};
use mapemu::sys::Kernel;

/// Holds a fact against every kernel there is.
pub(crate) fn on_both(fact: fn(&dyn Bpf)) {
    fact(&Kernel::new());
}

/// A map without a name.
#[track_caller]
pub(crate) fn map(
    bpf: &dyn Bpf,
    map_type: MapType,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
) -> Fd {
    let opts = CreateOpts {
        map_flags,
        ..CreateOpts::default()
    };
    bpf_map_create(bpf, map_type, "", key_size, value_size, max_entries, &opts).expect("a map")
}
