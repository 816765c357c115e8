//! A program writes to a perf event on each CPU; readers find the samples, and how many found no room.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "an example")]

use mapemu::Kernel;
use mapemu::abi::{Errno, ProgType};
use mapemu::helper::Prog;
use mapemu::typed::{Error, PerfEventArray};

const BPF_F_CURRENT_CPU: u64 = 0xffff_ffff;

fn main() -> Result<(), Error> {
    let kernel = Kernel::builder().cpus(2).build();
    let events = PerfEventArray::builder().max_entries(2).create(&kernel)?;
    let mut buffers = [events.open(0, 1)?, events.open(1, 1)?];
    let map = kernel.map(events.map().fd()).unwrap();

    // The program, on CPU 1: a page has room for one sample of 3000 bytes.
    let prog = Prog::new(ProgType::XDP, 1);
    let output = |byte| prog.perf_event_output(&map, BPF_F_CURRENT_CPU, &[byte; 3000]);
    assert_eq!(output(1), Ok(()));
    assert_eq!(output(2), Err(Errno::ENOSPC));

    // User space reads, and is told of the lost sample with the next one.
    let mut firsts = Vec::new();
    let mut read = || buffers[1].read_events(|sample| firsts.push(sample[0]));
    let before = read()?;
    assert_eq!(output(3), Ok(()));
    let after = read()?;
    assert_eq!((before.read, before.lost), (1, 0));
    assert_eq!((after.read, after.lost), (1, 1));
    assert_eq!(firsts, [1, 3]);
    assert!(!buffers[0].readable()?, "nothing ran on CPU 0");
    println!("samples of CPU 1: {firsts:?}, {} lost", after.lost);
    Ok(())
}
