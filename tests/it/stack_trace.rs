//! Facts about `bpf_get_stackid`: ids come from the frames, so the emulated map gives the id that the running kernel gave.

use mapemu::abi::{AttachType, Bpf, Errno, Helper, MapType, ProgType};
use mapemu::calls;
use mapemu::helper::Prog;
use mapemu::host::program::{Scratch, load, test_run};
use mapemu::host::{Asm, Host, Reg, Width, os};
use mapemu::sys::Kernel;

use crate::common::{map, running_kernel};

/// Frames of a stack at most.
const DEPTH: u32 = 40;

/// What the running kernel's helper returns for these flags, one after the other, on one map; and that map's stacks.
fn on_host(host: &Host, max_entries: u32, all_flags: &[u64]) -> Vec<(i64, Vec<u64>)> {
    let fd = map(host, MapType::STACK_TRACE, 4, 8 * DEPTH, max_entries, 0);
    let scratch = Scratch::new(host, 8).expect("memory");
    let answers = all_flags.iter().map(|&flags| {
        let mut asm = Asm::new();
        asm.map(Reg::R2, fd)
            .mov64(Reg::R3, flags)
            .call(Helper::GET_STACKID.0)
            .map_value(Reg::R9, scratch.fd(), 0)
            .store(Width::Double, Reg::R9, 0, Reg::R0)
            .mov(Reg::R0, 0)
            .exit();
        let prog = load(host, ProgType::RAW_TRACEPOINT, AttachType(0), &asm).expect("allowed");
        test_run(host, os::number(&prog), false).expect("it runs");
        let ret = scratch.number(0);
        let mut stack = vec![0; 8 * DEPTH as usize];
        if let Ok(id) = u32::try_from(ret) {
            let found = calls::bpf_map_lookup_elem(host, fd, &id.to_ne_bytes(), &mut stack);
            assert_eq!(found, Ok(()));
        }
        let frames = stack.as_chunks::<8>().0.iter();
        let frames = frames.map(|frame| u64::from_ne_bytes(*frame));
        (ret, frames.take_while(|&frame| frame != 0).collect())
    });
    let answers = answers.collect();
    host.close(fd).expect("it is open");
    answers
}

#[test]
fn a_stack_has_the_running_kernels_id() {
    if running_kernel().is_none() {
        return;
    }
    let host = Host::new().expect("it was there just now");
    for max_entries in [1, 5, 64, 1000] {
        for (ret, frames) in on_host(&host, max_entries, &[0, 1, 3]) {
            let Ok(id) = u32::try_from(ret) else {
                assert_eq!(ret, Errno::EEXIST.negated(), "the place is another stack's");
                continue;
            };
            assert!(!frames.is_empty() && frames.len() < DEPTH as usize);
            let kernel = Kernel::new();
            let fd = map(&kernel, MapType::STACK_TRACE, 4, 8 * DEPTH, max_entries, 0);
            let map = kernel.map(fd).expect("a map");
            let prog = Prog::new(ProgType::RAW_TRACEPOINT, 0);
            assert_eq!(prog.get_stackid(&map, &frames, 0), Ok(id), "{frames:x?}");
        }
    }
}

#[test]
fn flags_of_get_stackid() {
    let kernel = Kernel::new();
    let fd = map(&kernel, MapType::STACK_TRACE, 4, 8 * DEPTH, 64, 0);
    let map = kernel.map(fd).expect("a map");
    let prog = Prog::new(ProgType::RAW_TRACEPOINT, 0);
    let all_flags = [1 << 11, 1 << 12, 1 << 63, 255];
    let emulated = all_flags.map(|flags| prog.get_stackid(&map, &[1, 2], flags));
    let [unknown @ .., all_left_out] = emulated;
    assert_eq!(unknown, [Err(Errno::EINVAL); 3]);
    assert_eq!(all_left_out, Err(Errno::EFAULT));
    if running_kernel().is_some() {
        let host = Host::new().expect("it was there just now");
        let answers = on_host(&host, 64, &all_flags);
        let errnos = emulated.map(|answer| answer.map_or_else(Errno::negated, i64::from));
        let rets: Vec<i64> = answers.into_iter().map(|(ret, _)| ret).collect();
        assert_eq!(rets, errnos);
    }
}
