//! What the caller of `BPF_PROG_LOAD` tells of functions and lines.

use mapemu::abi::{Bpf, Fd, ProgType};
use mapemu::calls;

use crate::common::same;
use crate::objects::Ask;
use crate::prog_load::{EXIT, Load, insn, ld_imm64, mov};

/// BTF with a number (1), a function's type (2) and a function (3); names at 0, 5, 10 and 14, and 24 bytes of them.
fn btf_of_a_function(bpf: &dyn Bpf) -> Fd {
    const NAMES: &[u8; 24] = b"\0int\0main\0a.c\0line text\0";
    let types: [u32; 10] = [1, 1 << 24, 4, 1 << 24 | 32, 0, 13 << 24, 1, 5, 12 << 24, 2];
    let header: [u32; 6] = [0x0001_eb9f, 24, 0, 40, 40, 24];
    let words = header
        .iter()
        .chain(&types)
        .flat_map(|word| word.to_ne_bytes());
    let bytes: Vec<u8> = words.chain(*NAMES).collect();
    calls::bpf_btf_load(bpf, &bytes).expect("it is right")
}

#[test]
fn what_is_told_of_functions_and_lines_is_judged_as_by_the_kernel() {
    const LINE: [u32; 4] = [0, 10, 14, 0];
    let lines = |begins: &[u32]| {
        begins
            .iter()
            .flat_map(|&at| [at, 10, 14, 0])
            .collect::<Vec<_>>()
    };
    let plain = [mov(0, 0), mov(1, 0), EXIT];
    let two = [insn(0x85, 0, 1, 0, 1), EXIT, mov(0, 0), EXIT];
    let wide = [&ld_imm64(0, 0, 1, 0)[..], &[EXIT]].concat();
    let of_plain: [(&[u32], usize, Vec<u32>, usize); 21] = [
        (&[0, 3], 2, lines(&[0]), 4),
        (&[0, 3], 2, vec![], 4),
        (&[], 2, lines(&[0]), 4),
        (&[1, 3], 2, vec![], 4),
        (&[0, 2], 2, vec![], 4),
        (&[0, 9], 2, vec![], 4),
        (&[0, 0], 2, vec![], 4),
        (&[0, 3, 1, 3], 2, vec![], 4),
        (&[0, 3, 0], 3, vec![], 4),
        (&[0, 3, 1], 3, vec![], 4),
        (&[0], 1, vec![], 4),
        (&[0; 64], 64, vec![], 4),
        (&[0, 3], 2, lines(&[1]), 4),
        (&[0, 3], 2, lines(&[0, 0]), 4),
        (&[0, 3], 2, lines(&[0, 3]), 4),
        (&[0, 3], 2, lines(&[0, 2, 1]), 4),
        (&[0, 3], 2, vec![0, 100, 14, 0], 4),
        (&[0, 3], 2, vec![0, 10, 24, 0], 4),
        (&[0, 3], 2, vec![0, 10, 23, 0], 4),
        (&[0, 3], 2, vec![0, 10, 14], 3),
        (&[0, 3], 2, [&LINE[..], &[1]].concat(), 5),
    ];
    let of_two: [(&[u32], usize, Vec<u32>, usize); 5] = [
        (&[0, 3, 2, 3], 2, lines(&[0, 2]), 4),
        (&[0, 3, 2, 3], 2, lines(&[0]), 4),
        (&[0, 3], 2, vec![], 4),
        (&[0, 3, 1, 3], 2, vec![], 4),
        (&[], 2, vec![], 4),
    ];
    let of_wide: [(&[u32], usize, Vec<u32>, usize); 2] = [
        (&[0, 3], 2, lines(&[0, 1]), 4),
        (&[0, 3], 2, lines(&[0, 2]), 4),
    ];
    same(|bpf| {
        let fd = btf_of_a_function(bpf);
        let mut answers = Vec::new();
        for (insns, cases) in [
            (&plain[..], &of_plain[..]),
            (&two, &of_two),
            (&wide, &of_wide),
        ] {
            for (functions, words_each, lines, words_of_line) in cases {
                let mut load = Load::new(ProgType::SOCKET_FILTER, insns).word(72, fd);
                load.records = [
                    (functions.to_vec(), *words_each),
                    (lines.clone(), *words_of_line),
                ];
                let name = format!(
                    "{functions:?} and {lines:?} of {} instructions",
                    insns.len()
                );
                answers.push((name, load.try_on(bpf)));
            }
        }
        answers
    });
}

#[test]
fn what_is_told_of_functions_and_lines_is_in_the_info() {
    let bpf = mapemu::sys::Kernel::new();
    let mut load = Load::new(ProgType::SOCKET_FILTER, &[mov(0, 0), EXIT]);
    load = load.word(72, btf_of_a_function(&bpf));
    load.records = [(vec![0, 3, 0], 3), (vec![0, 10, 14, 5, 1, 10, 14, 6], 4)];
    let fd = load.run(&bpf).0.expect("loaded");
    let (mut functions, mut lines) = ([0; 16], [0; 16]);
    let ask = Ask::new(232)
        .word(132, 8)
        .word(172, 16)
        .buffer(136, 144, 8, &mut functions)
        .buffer(152, 148, 16, &mut lines);
    let (answer, _, info) = ask.run(&bpf, fd);
    assert_eq!(answer, Ok(0));
    assert_eq!((info[144], info[148]), (1, 2), "one function, two lines");
    assert_eq!(functions[..8], [0_u32, 3].map(u32::to_ne_bytes).concat());
    let first = [0_u32, 10, 14, 5].map(u32::to_ne_bytes).concat();
    assert_eq!(lines, first[..], "as many as there is room for");
}
