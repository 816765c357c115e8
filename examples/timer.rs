//! A `bpf_timer` that counts once a second, played without waiting: the test moves the clock on.
#![allow(clippy::print_stdout, reason = "an example")]

use mapemu::abi::MapType;
use mapemu::btf::Writer;
use mapemu::calls::{self, CreateOpts};
use mapemu::helper::Prog;
use mapemu::sys::Kernel;

const SECOND: u64 = 1_000_000_000;
const CLOCK_MONOTONIC: u64 = 1;

fn main() -> mapemu::abi::Result<()> {
    let kernel = Kernel::new();

    // struct value { struct bpf_timer timer; u64 count; };
    let mut btf = Writer::new();
    let u32_id = btf.int("u32", 4);
    let u64_id = btf.int("u64", 8);
    let timer_id = btf.structure("bpf_timer", 16, &[("a", u64_id, 0), ("b", u64_id, 8)]);
    let value_id = btf.structure(
        "value",
        24,
        &[("timer", timer_id, 0), ("count", u64_id, 16)],
    );
    let opts = CreateOpts {
        btf_fd: calls::bpf_btf_load(&kernel, &btf.finish())?,
        btf_key_type_id: u32_id,
        btf_value_type_id: value_id,
        ..CreateOpts::default()
    };
    let fd = calls::bpf_map_create(&kernel, MapType::ARRAY, "seconds", 4, 24, 1, &opts)?;
    let map = kernel.map(fd)?;

    // The program, on CPU 1.
    let prog = Prog::sched_cls(1);
    let value = prog.map_lookup_elem(&map, &[0; 4]).expect("index 0");
    prog.timer_init(&map, &value, CLOCK_MONOTONIC)?;
    prog.timer_set_callback(&value, |prog, _map, _key, value| {
        value.fetch_add_u64(16, 1);
        prog.timer_start(value, SECOND, 0)
            .expect("it has a callback");
    })?;
    prog.timer_start(&value, SECOND, 0)?;

    // An hour passes at once.
    kernel.advance(3600 * SECOND);
    assert_eq!(value.load_u64(16), 3600);
    println!("{} seconds", value.load_u64(16));
    Ok(())
}
