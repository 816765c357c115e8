//! `BPF_PROG_TEST_RUN`: what a program returns on the running kernel it returns in the interpreter.

use std::sync::Arc;

use mapemu::Kernel;
use mapemu::abi::{Bpf, Cmd, Errno, Fd, MapType, Memory, ProgType, Result};
use mapemu::env::{Env, LINUX_6_18_44, Unsupported};
use mapemu::vm::Interpreter;

use crate::common::{lookup, running_kernel, small, update};
use crate::prog_load::{EXIT, Insn, Load, call, insn, ld_imm64, mov};

/// What a run gives: the value, how many bytes the packet has, and the packet.
type Ran = Result<(u32, u32, Vec<u8>)>;

fn test_run(bpf: &dyn Bpf, prog: Fd, packet: &[u8], room: usize) -> Ran {
    let mut out = vec![0; room];
    let mut attr = [0; 80];
    let mut mem = Memory::new();
    let addresses = [(16, mem.input(packet)), (24, mem.output(&mut out))];
    attr[..4].copy_from_slice(&prog.to_ne_bytes());
    let len = |len: usize| u32::try_from(len).expect("small").to_ne_bytes();
    attr[8..12].copy_from_slice(&len(packet.len()));
    attr[12..16].copy_from_slice(&len(room));
    for (at, address) in addresses {
        attr[at..at + 8].copy_from_slice(&address.to_ne_bytes());
    }
    let at = mem.output(&mut attr);
    bpf.bpf(Cmd::PROG_TEST_RUN, at, 80, &mut mem)?;
    drop(mem);
    let word = |at: usize| u32::from_ne_bytes(*attr[at..].first_chunk().expect("in the attr"));
    Ok((word(4), word(12), out))
}

fn emulated() -> Kernel {
    let kernel = Kernel::new();
    kernel.run_programs_with(Arc::new(Interpreter));
    kernel
}

const PACKET: [u8; 32] =
    *b"\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x88\xb5 for experiments..";

/// Holds what `question` answers against the running kernel's answer.
#[track_caller]
fn same<T: PartialEq + std::fmt::Debug>(question: impl Fn(&dyn Bpf) -> T) {
    if let Some(host) = running_kernel() {
        assert_eq!(question(&emulated()), question(&*host));
    }
}

fn returns(bpf: &dyn Bpf, prog_type: ProgType, insns: &[Insn]) -> Ran {
    let (prog, log, _) = Load {
        log: (1, 1 << 14),
        ..Load::new(prog_type, insns)
    }
    .run(bpf);
    let prog = prog.unwrap_or_else(|errno| panic!("{errno}: {log}"));
    let ran = test_run(bpf, prog, &PACKET, 64);
    bpf.close(prog).expect("it is open");
    ran
}

/// Random operations on registers, jumps among them; all of the registers in the result.
fn arithmetic(env: &Env) -> Vec<Insn> {
    let pick = |most: u64| env.random() % most;
    let small_number = |most: u64| i32::try_from(pick(most)).expect("small");
    let any = || u32::try_from(pick(1 << 32)).expect("half").cast_signed();
    let register = || u8::try_from(pick(10)).expect("a digit");
    let mut insns: Vec<Insn> = Vec::new();
    for number in 0..10 {
        let edges = [0, 1, u64::MAX, 1 << 63, 1 << 31, (1 << 31) - 1];
        let value = match pick(3) {
            0 => edges[usize::try_from(pick(6)).expect("small")],
            _ => env.random(),
        };
        let half = |value: u64| u32::try_from(value & 0xffff_ffff).expect("half");
        insns.extend(ld_imm64(number, 0, half(value), half(value >> 32)));
    }
    for _ in 0..40 {
        let wide = pick(2) == 0;
        let (class, bits) = if wide { (7, 64) } else { (4, 32) };
        let (dst, src) = (register(), register());
        let op = u8::try_from(pick(14)).expect("small") << 4;
        let by_register = pick(2) == 0;
        let code = op | class | if by_register { 8 } else { 0 };
        let src = if by_register { src } else { 0 };
        let imm = if by_register { 0 } else { any() };
        insns.push(match op {
            // Shifts by constants have to be short.
            0x60 | 0x70 | 0xc0 if !by_register => insn(code, dst, 0, 0, small_number(bits)),
            // Division, signed too.
            0x30 | 0x90 => insn(
                code,
                dst,
                src,
                i16::from(pick(2) == 0),
                imm | i32::from(!by_register),
            ),
            0x80 => insn(0x80 | class, dst, 0, 0, 0),
            0xb0 if by_register => {
                let most = if wide { 4 } else { 3 };
                let off = [0, 8, 16, 32][usize::try_from(pick(most)).expect("small")];
                insn(code, dst, src, off, 0)
            }
            0xd0 => {
                let width = [16, 32, 64][usize::try_from(pick(3)).expect("small")];
                // To big-endian, to little-endian, or a swap in any case.
                let code = [0xdc, 0xd4, 0xd7][usize::try_from(pick(3)).expect("small")];
                insn(code, dst, 0, 0, width)
            }
            _ => insn(code, dst, src, 0, imm),
        });
        if pick(3) == 0 {
            let ops = [
                0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0xa0, 0xb0, 0xc0, 0xd0,
            ];
            let op = ops[usize::try_from(pick(11)).expect("small")];
            let class = if pick(2) == 0 { 5 } else { 6 };
            insns.push(insn(op | class | 8, register(), register(), 1, 0));
            insns.push(insn(0x07, register(), 0, 0, any()));
        }
    }
    for number in 1..10 {
        // R0 ^= Rn, turned a little.
        insns.push(insn(0x27, 0, 0, 0, 31));
        insns.push(insn(0xaf, 0, number, 0, 0));
    }
    insns.push(insn(0xbf, 1, 0, 0, 0));
    insns.push(insn(0x77, 1, 0, 0, 32));
    insns.push(insn(0xaf, 0, 1, 0, 0));
    insns.push(EXIT);
    insns
}

#[test]
fn arithmetic_is_the_kernels() {
    let Some(host) = running_kernel() else {
        return;
    };
    let kernel = emulated();
    let env = Env::new(1, LINUX_6_18_44, 7, 0, Unsupported::Panic);
    for number in 0..400 {
        let insns = arithmetic(&env);
        let expected = returns(&*host, ProgType::SCHED_CLS, &insns);
        let got = returns(&kernel, ProgType::SCHED_CLS, &insns);
        assert_eq!(got, expected, "program {number}: {insns:x?}");
    }
}

#[test]
fn packets_are_read_and_written() {
    // Loads of the network's byte order; past the end the program returns 0.
    for offset in [0, 3, 12, 16, 17, 18] {
        same(|bpf| {
            let load = insn(0x20, 0, 0, 0, offset);
            let first = insn(0xbf, 6, 1, 0, 0);
            ["filter", "classifier"].map(|kind| {
                let prog_type = match kind {
                    "filter" => ProgType::SOCKET_FILTER,
                    _ => ProgType::SCHED_CLS,
                };
                returns(bpf, prog_type, &[first, load, EXIT])
            })
        });
    }
    // The packet by its pointers: checked, then changed.
    same(|bpf| {
        let insns = [
            insn(0x61, 2, 1, 4, 0),
            insn(0x61, 1, 1, 0, 0),
            insn(0xbf, 3, 1, 0, 0),
            insn(0x07, 3, 0, 0, 20),
            mov(0, 1),
            insn(0x2d, 3, 2, 3, 0),
            insn(0x62, 1, 0, 16, 0x4443_4241),
            insn(0x69, 0, 1, 12, 0),
            insn(0x91, 0, 1, 3, 0),
            EXIT,
        ];
        returns(bpf, ProgType::XDP, &insns)
    });
    // The fields of the context.
    for offset in (0..76).step_by(4) {
        same(|bpf| {
            let load = insn(0x61, 0, 1, offset, 0);
            let ran = returns(bpf, ProgType::SCHED_CLS, &[load, EXIT]);
            (offset, ran.map(|ran| ran.0))
        });
    }
    // Whom it is for.
    for to in [[0; 6], [0xff; 6], [1, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0]] {
        same(|bpf| {
            let load = Load::new(ProgType::SCHED_CLS, &[insn(0x61, 0, 1, 4, 0), EXIT]);
            let prog = load.run(bpf).0.expect("it is loaded");
            let mut packet = PACKET;
            packet[..6].copy_from_slice(&to);
            test_run(bpf, prog, &packet, 64).map(|ran| ran.0)
        });
    }
    for offset in [12, 16] {
        same(|bpf| {
            let load = insn(0x61, 0, 1, offset, 0);
            let ran = returns(bpf, ProgType::XDP, &[load, EXIT]);
            (offset, ran.map(|ran| ran.0))
        });
    }
}

#[test]
fn the_sizes_of_packets_are_judged() {
    let packet = [0; 4096];
    for prog_type in [ProgType::SOCKET_FILTER, ProgType::SCHED_CLS, ProgType::XDP] {
        same(|bpf| {
            let load = Load::new(prog_type, &[mov(0, 2), EXIT]);
            let prog = load.run(bpf).0.expect("it is loaded");
            let sizes = [
                (13, 64),
                (14, 64),
                (14, 8),
                (32, 31),
                (32, 32),
                (32, 0),
                (3712, 4096),
                (3713, 4096),
            ];
            sizes.map(|(len, room)| {
                test_run(bpf, prog, &packet[..len], room).map(|ran| (ran.0, ran.1))
            })
        });
    }
}

#[test]
fn a_packet_has_the_header_of_its_protocol() {
    for protocol in [[0x08, 0x00], [0x86, 0xdd], [0x08, 0x06], [0, 0]] {
        same(|bpf| {
            [ProgType::SOCKET_FILTER, ProgType::SCHED_CLS, ProgType::XDP].map(|prog_type| {
                let load = Load::new(prog_type, &[mov(0, 2), EXIT]);
                let prog = load.run(bpf).0.expect("it is loaded");
                [14, 33, 34, 53, 54].map(|len| {
                    let mut packet = vec![0; len];
                    packet[12..14].copy_from_slice(&protocol);
                    test_run(bpf, prog, &packet, 64).map(|ran| (ran.0, ran.1))
                })
            })
        });
    }
}

#[test]
fn the_stack_functions_and_atomics_work() {
    same(|bpf| {
        let insns = [
            // A pointer to the stack, put on the stack and taken from it.
            insn(0xbf, 6, 10, 0, 0),
            insn(0x07, 6, 0, 0, -16),
            insn(0x7b, 10, 6, -8, 0),
            insn(0x7a, 10, 0, -16, 40),
            insn(0x79, 7, 10, -8, 0),
            // fetch_add, xor, xchg, cmpxchg.
            mov(2, 3),
            insn(0xdb, 7, 2, 0, 0x01),
            mov(3, 5),
            insn(0xdb, 7, 3, 0, 0xa0),
            mov(4, 1000),
            insn(0xdb, 7, 4, 0, 0xe1),
            mov(0, 1000),
            mov(5, 77),
            insn(0xdb, 7, 5, 0, 0xf1),
            // A function that returns R1 * 2 + R2.
            insn(0xbf, 1, 4, 0, 0),
            insn(0x85, 0, 1, 0, 4),
            insn(0x79, 1, 10, -16, 0),
            insn(0x27, 0, 0, 0, 100),
            insn(0x0f, 0, 1, 0, 0),
            EXIT,
            insn(0xbf, 0, 1, 0, 0),
            insn(0x27, 0, 0, 0, 2),
            insn(0x0f, 0, 2, 0, 0),
            mov(6, 9),
            EXIT,
        ];
        returns(bpf, ProgType::SCHED_CLS, &insns)
    });
}

#[test]
fn helpers_reach_the_maps() {
    same(|bpf| {
        let hash = small(bpf, MapType::HASH);
        update(bpf, hash, 3, 10, 0).expect("room");
        let [first, second] = ld_imm64(1, 1, hash, 0);
        let insns = [
            // The value of 3, plus 5, in place.
            insn(0x62, 10, 0, -4, 3),
            first,
            second,
            insn(0xbf, 2, 10, 0, 0),
            insn(0x07, 2, 0, 0, -4),
            call(1),
            insn(0x15, 0, 0, 7, 0),
            insn(0x79, 6, 0, 0, 0),
            insn(0x07, 6, 0, 0, 5),
            insn(0x7b, 0, 6, 0, 0),
            // And under 4, the number of this CPU.
            call(8),
            insn(0x7b, 10, 0, -16, 0),
            insn(0x62, 10, 0, -4, 4),
            insn(0x05, 0, 0, 1, 0),
            mov(6, 0),
            ld_imm64(1, 1, hash, 0)[0],
            ld_imm64(1, 1, hash, 0)[1],
            insn(0xbf, 2, 10, 0, 0),
            insn(0x07, 2, 0, 0, -4),
            insn(0xbf, 3, 2, 0, 0),
            insn(0x07, 3, 0, 0, -12),
            insn(0x7a, 10, 0, -16, 0),
            mov(4, 1),
            call(2),
            insn(0x0f, 0, 6, 0, 0),
            EXIT,
        ];
        let ran = returns(bpf, ProgType::SCHED_CLS, &insns).map(|ran| ran.0);
        let again = returns(bpf, ProgType::SCHED_CLS, &insns).map(|ran| ran.0);
        let values = [3, 4, 5].map(|key| lookup(bpf, hash, key));
        bpf.close(hash).expect("it is open");
        (ran, again, values)
    });
}

#[test]
fn a_program_without_an_end_or_outside_of_its_memory_is_refused() {
    let kernel = Kernel::builder()
        .unsupported(Unsupported::Errno(Errno::EOPNOTSUPP))
        .build();
    kernel.run_programs_with(Arc::new(Interpreter));
    let branch = insn(0x15, 1, 0, 0, 0);
    let endless = [mov(0, 0), branch, insn(0x05, 0, 0, -1, 0), EXIT];
    let outside = [branch, insn(0x79, 0, 10, 8, 0), EXIT];
    for insns in [&endless[..], &outside[..]] {
        let load = Load::new(ProgType::SCHED_CLS, insns);
        if let Ok(prog) = load.run(&kernel).0 {
            let ran = test_run(&kernel, prog, &PACKET, 64);
            assert_eq!(ran, Err(Errno::EOPNOTSUPP), "{insns:x?}");
        }
    }
}
