//! Random small programs: what the running kernel accepts is accepted here.
//!
//! The other way it cannot be: what a program does past its first branch is not looked at.

use mapemu::abi::{Bpf, Fd, MapType, ProgType};
use mapemu::sys::Kernel;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

use crate::common::{map, running_kernel};
use crate::prog_load::{EXIT, Insn, Load, call, insn, ld_imm64, mov};

/// Stands for the fd of a map, which each kernel has its own of.
const MAP: i32 = 0x7a7a;

fn reg() -> impl Strategy<Value = u8> {
    prop_oneof![0..3_u8, Just(10_u8), 0..11_u8]
}

/// One or two instructions; most are right for most registers.
fn piece() -> impl Strategy<Value = Vec<Insn>> {
    const HELPERS: [i32; 14] = [1, 2, 3, 5, 6, 7, 8, 14, 25, 35, 46, 113, 130, 212];
    let number = prop_oneof![-9..9_i32, Just(0), any::<i32>()];
    let stack = prop_oneof![-64..8_i16, Just(-8_i16), Just(-512_i16), Just(-520_i16)];
    let op = prop_oneof![
        Just(0x07_u8),
        Just(0x17),
        Just(0x57),
        Just(0x37),
        Just(0xb4),
        Just(0x04)
    ];
    prop_oneof![
        4 => (reg(), number.clone()).prop_map(|(to, imm)| vec![mov(to, imm)]),
        3 => (reg(), reg()).prop_map(|(to, from)| vec![insn(0xbf, to, from, 0, 0)]),
        2 => (op, reg(), number.clone()).prop_map(|(op, to, imm)| vec![insn(op, to, 0, 0, imm)]),
        2 => (reg(), stack.clone()).prop_map(|(from, off)| vec![insn(0x7b, 10, from, off, 0)]),
        1 => (reg(), number).prop_map(|(to, imm)| ld_imm64(to, 0, imm.cast_unsigned(), 1).to_vec()),
        2 => reg().prop_map(|to| ld_imm64(to, 1, MAP.cast_unsigned(), 0).to_vec()),
        2 => (reg(), reg(), stack).prop_map(|(to, from, off)| vec![insn(0x79, to, from, off, 0)]),
        3 => (0..HELPERS.len()).prop_map(|at| vec![call(HELPERS[at])]),
        2 => (reg(), -3..4_i16).prop_map(|(at, off)| vec![insn(0x55, at, 0, off, 0)]),
        1 => (-3..4_i16).prop_map(|off| vec![insn(0x05, 0, 0, off, 0)]),
        1 => Just(vec![mov(0, 1), EXIT]),
    ]
}

/// A program of a type, at a place.
fn program() -> impl Strategy<Value = ((ProgType, u32), Vec<Insn>)> {
    let kind = prop_oneof![
        Just((ProgType::SOCKET_FILTER, 0)),
        Just((ProgType::KPROBE, 0)),
        Just((ProgType::XDP, 0)),
        Just((ProgType::CGROUP_SKB, 1)),
        Just((ProgType::CGROUP_SOCK_ADDR, 19)),
    ];
    let end = prop_oneof![3 => Just(vec![mov(0, 1), EXIT]), 1 => Just(vec![EXIT])];
    let pieces = vec(piece(), 0..9);
    (kind, pieces, end).prop_map(|(kind, pieces, end)| (kind, [pieces.concat(), end].concat()))
}

/// Whether it can be loaded, with that map.
fn is_accepted(bpf: &dyn Bpf, map: Fd, kind: (ProgType, u32), insns: &[Insn]) -> bool {
    let with_map = insns.iter().map(|&insn| {
        let mut insn = insn;
        if insn[0] == 0x18 && insn[1] >> 4 == 1 {
            insn[4..].copy_from_slice(&map.to_ne_bytes());
        }
        insn
    });
    let mut load = Load::new(kind.0, &with_map.collect::<Vec<_>>());
    load.attach_type = kind.1;
    load.try_on(bpf).is_ok()
}

#[test]
fn what_the_kernel_accepts_is_accepted() {
    let Some(host) = running_kernel() else {
        return;
    };
    let own = Kernel::new();
    let [own_map, host_map] =
        [&own as &dyn Bpf, &*host].map(|bpf| map(bpf, MapType::HASH, 4, 8, 4, 0));
    let config = Config {
        cases: 4000,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&program(), |(kind, insns)| {
        let kernels = is_accepted(&*host, host_map, kind, &insns);
        if kernels && !is_accepted(&own, own_map, kind, &insns) {
            return Err(TestCaseError::fail("refused"));
        }
        Ok(())
    });
    if let Err(failed) = outcome {
        panic!("{failed}");
    }
}
