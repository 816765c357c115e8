//! What is wrong in one instruction of a program: fields that have to be 0, the stack, pointers.

use mapemu::abi::{MapType, ProgType};

use crate::common::{map, same};
use crate::prog_load::{EXIT, Insn, Load, call, insn, ld_imm64, mov};

/// One instruction between `mov r0, 1` and an exit; slots of the stack are written before.
fn with(insn: Insn) -> Vec<Insn> {
    let store = |off| self::insn(0x7a, 10, 0, off, 0);
    vec![
        store(-8),
        store(-16),
        mov(0, 1),
        mov(2, 1),
        insn,
        mov(0, 1),
        EXIT,
    ]
}

/// All values of a field that are worth asking for, in instructions of all kinds.
fn one_field_each() -> Vec<Insn> {
    /// Arithmetic of all kinds, jumps, loads and stores.
    const CODES: [u8; 32] = [
        0x07, 0x0f, 0x04, 0x0c, 0x37, 0x3f, 0x94, 0x9c, 0x67, 0x6f, 0x74, 0xc4, 0xc7, 0x87, 0x84,
        0xb7, 0xbf, 0xb4, 0xbc, 0xd4, 0xdc, 0xd7, 0x05, 0x06, 0x15, 0x1d, 0x16, 0x1e, 0x85, 0x95,
        0xe5, 0x57,
    ];
    let mut insns = Vec::new();
    for code in CODES {
        // Numbers, and a register that was never written.
        for src in [0, 2, 3] {
            for off in [0, 1, 2, 8, 16, 32, -1] {
                for imm in [0, 1, 5, 16, 17, 31, 32, 63, 64, -1] {
                    // Jumps go to the next instruction, if they are jumps at all.
                    let jumps = matches!(code & 7, 5 | 6) && !matches!(code, 0x85 | 0x95);
                    let goes = match code {
                        0x06 => imm != 0,
                        _ => jumps && off != 0,
                    };
                    // Functions of the program and of the kernel are other facts.
                    let calls = code == 0x85 && matches!(src, 1 | 2);
                    // It takes an arena.
                    let casts = (code, off, imm) == (0xbf, 1, 1);
                    if !goes && !calls && !casts {
                        insns.push(insn(code, 0, src, off, imm));
                    }
                }
            }
        }
        insns.push(insn(code, 2, 0, 0, 0));
    }
    insns
}

#[test]
fn fields_that_are_not_used_are_zero() {
    same(|bpf| {
        let mut answers = Vec::new();
        for insn in one_field_each() {
            // Only what is read before it is written differs, and the first branch ends the path here.
            let reads_unwritten = insn[1] >> 4 == 3;
            let load = Load::new(ProgType::SOCKET_FILTER, &with(insn));
            let answer = load.try_on(bpf);
            if !reads_unwritten || insn[0] & 7 != 5 && insn[0] & 7 != 6 {
                answers.push((format!("{insn:02x?}"), answer));
            }
        }
        answers
    });
}

#[test]
fn atomic_operations_have_numbers_and_sizes() {
    same(|bpf| {
        let mut answers = Vec::new();
        for code in [0xdb, 0xc3, 0xcb, 0xd3] {
            for imm in (0..0x120).chain([-1, 0x1000]) {
                let load = Load::new(ProgType::SOCKET_FILTER, &with(insn(code, 10, 2, -8, imm)));
                answers.push((format!("{code:x} {imm:x}"), load.try_on(bpf)));
            }
        }
        for (name, atomic) in [
            ("context", insn(0xdb, 1, 0, 0, 0)),
            ("between two slots", insn(0xdb, 10, 0, -12, 0)),
            ("past the stack", insn(0xdb, 10, 0, -520, 0)),
        ] {
            let load = Load::new(ProgType::SOCKET_FILTER, &with(atomic));
            answers.push((name.to_owned(), load.try_on(bpf)));
        }
        let exchange = [
            mov(2, 0),
            insn(0x7a, 10, 0, -8, 0),
            insn(0xdb, 10, 2, -8, 0xf1),
        ];
        let load = [&exchange[..], &[mov(0, 0), EXIT]].concat();
        let load = Load::new(ProgType::SOCKET_FILTER, &load);
        answers.push(("nothing to compare with".into(), load.try_on(bpf)));
        answers
    });
}

#[test]
fn the_stack_has_512_bytes_and_each_access_its_place() {
    same(|bpf| {
        let mut answers = Vec::new();
        for off in [
            8, 0, -1, -2, -4, -7, -8, -12, -16, -511, -512, -513, -516, -520,
        ] {
            for code in [0x79, 0x61, 0x69, 0x71, 0x7a, 0x62, 0x6a, 0x72] {
                let (dst, src) = if code & 7 == 1 { (0, 10) } else { (10, 0) };
                let load = with(insn(code, dst, src, off, 0));
                let load = Load::new(ProgType::SOCKET_FILTER, &load);
                answers.push((format!("{code:x} at {off}"), load.try_on(bpf)));
            }
        }
        answers
    });
}

#[test]
fn a_context_is_read_up_to_its_end_and_mostly_not_written() {
    same(|bpf| {
        let mut answers = Vec::new();
        for number in [1, 2, 3, 4, 5, 6, 7, 17] {
            let off_ends = [-4, 192, 196, 1000, 8192];
            // Those of tracepoints go by another rule at both ends.
            let offs = off_ends.iter().filter(|_| !matches!(number, 5 | 7));
            for &off in offs {
                let load = with(insn(0x61, 0, 1, off, 0));
                let load = Load::new(ProgType(number), &load);
                answers.push((format!("read {number} at {off}"), load.try_on(bpf)));
            }
            if !matches!(number, 1 | 3 | 4) {
                let load = Load::new(ProgType(number), &with(insn(0x62, 1, 0, 0, 0)));
                answers.push((format!("write {number}"), load.try_on(bpf)));
            }
        }
        answers
    });
}

#[test]
fn pointers_are_moved_and_nothing_else_is_done_to_them() {
    same(|bpf| {
        let array = map(bpf, MapType::ARRAY, 4, 8, 1, 0);
        let mut answers = Vec::new();
        let codes = [
            0x07, 0x17, 0x27, 0x37, 0x47, 0x57, 0x67, 0x77, 0x87, 0x97, 0xa7, 0xc7, 0xd4, 0xdc,
            0x04, 0x14, 0x24, 0x54, 0x84,
        ];
        for code in codes {
            let imm = match code {
                0x84 | 0x87 => 0,
                0xd4 | 0xdc => 16,
                _ => 8,
            };
            let change = insn(code, 3, 0, 0, imm);
            for (name, pointer) in [
                ("context", vec![insn(0xbf, 3, 1, 0, 0)]),
                ("stack", vec![insn(0xbf, 3, 10, 0, 0)]),
                ("map", ld_imm64(3, 1, array, 0).to_vec()),
            ] {
                let load = [pointer, vec![change, mov(0, 0), EXIT]].concat();
                let load = Load::new(ProgType::SOCKET_FILTER, &load);
                answers.push((format!("{code:x} of a {name}"), load.try_on(bpf)));
            }
        }
        for (helper, of_map) in [(1, MapType::ARRAY), (2, MapType::ARRAY), (3, MapType::HASH)] {
            let fd = map(bpf, of_map, 4, 8, 1, 0);
            let numbers = [
                mov(2, 0),
                mov(3, 0),
                mov(4, 0),
                call(helper),
                mov(0, 0),
                EXIT,
            ];
            let load = [&ld_imm64(1, 1, fd, 0)[..], &numbers].concat();
            let load = Load::new(ProgType::SOCKET_FILTER, &load);
            answers.push((format!("no key, helper {helper}"), load.try_on(bpf)));
        }
        answers
    });
}

#[test]
fn packets_are_loaded_by_three_types_with_the_context_in_r6() {
    same(|bpf| {
        let mut answers = Vec::new();
        let context = insn(0xbf, 6, 1, 0, 0);
        for number in [1, 2, 3, 4, 5, 6, 7, 10, 13, 14, 16] {
            let load = [context, insn(0x30, 0, 0, 0, 0), mov(0, 0), EXIT];
            let load = Load::new(ProgType(number), &load);
            answers.push((format!("type {number}"), load.try_on(bpf)));
        }
        for (name, load) in [
            ("no context", vec![insn(0x30, 0, 0, 0, 0)]),
            ("a number", vec![mov(6, 1), insn(0x30, 0, 0, 0, 0)]),
            ("indirect", vec![context, mov(2, 0), insn(0x50, 0, 2, 0, 0)]),
            ("nowhere", vec![context, insn(0x50, 0, 2, 0, 0)]),
            ("dst", vec![context, insn(0x30, 1, 0, 0, 0)]),
            ("src", vec![context, insn(0x30, 0, 1, 0, 0)]),
            ("off", vec![context, insn(0x30, 0, 0, 1, 0)]),
        ] {
            let load = [load, vec![mov(0, 0), EXIT]].concat();
            let load = Load::new(ProgType::SOCKET_FILTER, &load);
            answers.push((name.into(), load.try_on(bpf)));
        }
        answers
    });
}
