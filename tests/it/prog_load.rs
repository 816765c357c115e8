//! `BPF_PROG_LOAD` by bytes: whatever is loaded on the running kernel has the same answer here.

use mapemu::abi::{AttachType, Bpf, Cmd, Errno, Fd, MapType, Memory, ProgType, Result};
use mapemu::calls;

use crate::common::{NOT_OPEN, map, on_both, same, small};

/// One instruction.
pub(crate) type Insn = [u8; 8];

pub(crate) fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Insn {
    let [off0, off1] = off.to_ne_bytes();
    let [a, b, c, d] = imm.to_ne_bytes();
    [code, src << 4 | dst, off0, off1, a, b, c, d]
}

pub(crate) fn mov(dst: u8, imm: i32) -> Insn {
    insn(0xb7, dst, 0, 0, imm)
}

pub(crate) fn call(helper: i32) -> Insn {
    insn(0x85, 0, 0, 0, helper)
}

pub(crate) const EXIT: Insn = [0x95, 0, 0, 0, 0, 0, 0, 0];

/// A number of 64 bits, or what `src` makes of it.
pub(crate) fn ld_imm64(dst: u8, src: u8, low: u32, high: u32) -> [Insn; 2] {
    let first = insn(0x18, dst, src, 0, low.cast_signed());
    [first, insn(0, 0, 0, 0, high.cast_signed())]
}

/// A program to load.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) prog_type: ProgType,
    pub(crate) attach_type: u32,
    pub(crate) insns: Vec<Insn>,
    pub(crate) license: &'static [u8],
    /// Level and bytes of the log.
    pub(crate) log: (u32, usize),
    /// Words that are put over the attr: offset and value.
    pub(crate) words: Vec<(usize, u32)>,
    pub(crate) fd_array: Vec<Fd>,
    /// Records of functions and of lines, as words, and how many make one.
    pub(crate) records: [(Vec<u32>, usize); 2],
    pub(crate) size: u32,
}

impl Load {
    pub(crate) fn new(prog_type: ProgType, insns: &[Insn]) -> Self {
        Self {
            prog_type,
            attach_type: 0,
            insns: insns.to_vec(),
            license: b"GPL\0",
            log: (0, 0),
            words: Vec::new(),
            fd_array: Vec::new(),
            records: [(Vec::new(), 2), (Vec::new(), 4)],
            size: 168,
        }
    }

    fn word(mut self, at: usize, word: u32) -> Self {
        self.words.push((at, word));
        self
    }

    /// Loads it; the log, and the attr afterwards.
    pub(crate) fn run(&self, bpf: &dyn Bpf) -> (Result<Fd>, String, [u8; 168]) {
        let insns = self.insns.concat();
        let mut log = vec![0; self.log.1];
        let mut attr = [0; 168];
        let fd_array: Vec<u8> = self
            .fd_array
            .iter()
            .flat_map(|fd| fd.to_ne_bytes())
            .collect();
        let records = self.records.each_ref().map(|(words, words_each)| {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            let count = u32::try_from(words.len() / words_each).expect("small");
            let size = u32::try_from(4 * words_each).expect("small");
            (size, count, bytes)
        });
        let mut mem = Memory::new();
        let mut put = |at: usize, word: &[u8]| attr[at..at + word.len()].copy_from_slice(word);
        put(0, &self.prog_type.0.to_ne_bytes());
        let count = u32::try_from(self.insns.len()).expect("small");
        put(4, &count.to_ne_bytes());
        put(8, &mem.input(&insns).to_ne_bytes());
        put(16, &mem.input(self.license).to_ne_bytes());
        put(24, &self.log.0.to_ne_bytes());
        put(28, &u32::try_from(self.log.1).expect("small").to_ne_bytes());
        if !log.is_empty() {
            put(32, &mem.output(&mut log).to_ne_bytes());
        }
        put(68, &self.attach_type.to_ne_bytes());
        if !fd_array.is_empty() {
            put(120, &mem.input(&fd_array).to_ne_bytes());
        }
        for ((size_at, addr_at, count_at), (size, count, bytes)) in
            [(76, 80, 88), (92, 96, 104)].into_iter().zip(&records)
        {
            put(size_at, &size.to_ne_bytes());
            put(addr_at, &mem.input(bytes).to_ne_bytes());
            put(count_at, &count.to_ne_bytes());
        }
        for (at, word) in &self.words {
            put(*at, &word.to_ne_bytes());
        }
        let addr = mem.output(&mut attr[..self.size as usize]);
        let answer = bpf.bpf(Cmd::PROG_LOAD, addr, self.size, &mut mem);
        drop(mem);
        let end = log.iter().position(|&byte| byte == 0);
        let text = String::from_utf8_lossy(&log[..end.unwrap_or(log.len())]);
        (answer, text.into_owned(), attr)
    }

    /// Whether it can be loaded; the fd is closed.
    pub(crate) fn try_on(&self, bpf: &dyn Bpf) -> Result<()> {
        let fd = self.run(bpf).0?;
        bpf.close(fd)
    }
}

/// Types of programs with the places that they may be for.
fn places() -> Vec<(ProgType, u32)> {
    let of = |number: u32| match number {
        8 => vec![0, 1],
        9 => vec![2, 12, 34],
        18 => vec![8, 10, 11, 14, 19, 29, 49, 51],
        21 => vec![39],
        25 => vec![21, 22],
        30 => vec![36],
        32 => vec![45],
        20 | 26..=29 => vec![],
        _ => vec![0],
    };
    (1..=32)
        .flat_map(|number| {
            of(number)
                .into_iter()
                .map(move |place| (ProgType(number), place))
        })
        .collect()
}

/// Programs of that type can only be such that sleep.
fn flags_of(prog_type: ProgType) -> u32 {
    const SLEEPABLE: u32 = 1 << 4;
    if prog_type == ProgType::SYSCALL {
        SLEEPABLE
    } else {
        0
    }
}

/// What clients look for in the log.
const PHRASES: [&str; 5] = [
    "cannot use helper",
    "invalid func",
    "GPL-restricted",
    "!read_ok",
    "expected=",
];

#[test]
fn a_bare_call_of_any_helper_has_the_kernels_answer() {
    same(|bpf| {
        let mut answers = Vec::new();
        for (prog_type, place) in places() {
            for helper in 0..=213 {
                let mut load =
                    Load::new(prog_type, &[call(helper), EXIT]).word(44, flags_of(prog_type));
                load.attach_type = place;
                load.log = (1, 4096);
                let (answer, log, _) = load.run(bpf);
                if let Ok(fd) = answer {
                    bpf.close(fd).expect("open");
                }
                let found: Vec<_> = PHRASES
                    .iter()
                    .filter(|phrase| log.contains(*phrase))
                    .collect();
                let name = format!("helper {helper} of {prog_type} at {place}");
                answers.push((name, (answer.map(drop), found)));
            }
        }
        answers
    });
}

#[test]
fn helpers_for_the_gpl_are_refused_to_others() {
    same(|bpf| {
        let licenses: [&[u8]; 4] = [b"\0", b"Proprietary\0", b"Dual BSD/GPL\0", b"GPL v3\0"];
        let mut answers = Vec::new();
        for license in licenses {
            for helper in 1..=211 {
                let mut load = Load::new(ProgType::KPROBE, &[call(helper), EXIT]);
                load.license = license;
                let name = format!("helper {helper} under {license:?}");
                answers.push((name, load.try_on(bpf)));
            }
        }
        answers
    });
}

#[test]
fn types_and_places_of_programs_fit_as_in_the_kernel() {
    same(|bpf| {
        let mut answers = Vec::new();
        // Those at functions of the kernel depend on how that was built.
        for number in (0..36).filter(|number| !(26..=29).contains(number)) {
            for place in 0..64 {
                let prog_type = ProgType(number);
                let mut load =
                    Load::new(prog_type, &[mov(0, 1), EXIT]).word(44, flags_of(prog_type));
                load.attach_type = place;
                answers.push((format!("{prog_type} at {place}"), load.try_on(bpf)));
            }
        }
        answers
    });
}

#[test]
fn every_opcode_is_known_or_not_as_in_the_kernel() {
    same(|bpf| {
        let known = |code: u8| {
            // Two more are there for what takes two places, or jumps.
            let program = [mov(0, 0), insn(code, 0, 0, 0, 0), insn(0, 0, 0, 0, 0), EXIT];
            let mut load = Load::new(ProgType::SOCKET_FILTER, &program);
            load.log = (1, 4096);
            let (answer, log, _) = load.run(bpf);
            if let Ok(fd) = answer {
                bpf.close(fd).expect("open");
            }
            // The instruction after it is none by itself.
            log.contains(&format!("unknown opcode {code:02x}"))
        };
        (1..=255)
            .map(|code| (format!("{code:02x}"), known(code)))
            .collect()
    });
}

/// A program with its name.
type Named = (&'static str, Vec<Insn>);

/// Small programs that are right or wrong in one way.
fn programs() -> Vec<Named> {
    [shapes(), numbers(), registers(), functions()].concat()
}

fn shapes() -> Vec<Named> {
    let mut long = vec![mov(0, 0); 5000];
    long.push(EXIT);
    vec![
        ("least", vec![mov(0, 0), EXIT]),
        ("large", long),
        ("no exit", vec![mov(0, 0)]),
        ("only an exit", vec![EXIT]),
        ("exit in the middle", vec![mov(0, 0), EXIT, EXIT]),
        (
            "jump over the end",
            vec![mov(0, 0), insn(0x05, 0, 0, 5, 0), EXIT],
        ),
        (
            "jump before the start",
            vec![mov(0, 0), insn(0x15, 0, 0, -9, 0), EXIT],
        ),
        ("endless", vec![insn(0x05, 0, 0, -1, 0)]),
        (
            "bounded loop",
            vec![
                mov(0, 10),
                insn(0x17, 0, 0, 0, 1),
                insn(0x55, 0, 0, -2, 0),
                EXIT,
            ],
        ),
    ]
}

fn numbers() -> Vec<Named> {
    let number = ld_imm64(0, 0, 1, 2);
    let bad_second = [number[0], insn(0, 1, 0, 0, 0)];
    vec![
        (
            "jump into the middle",
            [&[mov(0, 0), insn(0x15, 0, 0, 1, 0)], &number[..], &[EXIT]].concat(),
        ),
        ("64-bit number", [&number[..], &[EXIT]].concat()),
        ("second half missing", vec![mov(0, 0), EXIT, number[0]]),
        ("second half wrong", [&bad_second[..], &[EXIT]].concat()),
        (
            "unknown kind of number",
            [&ld_imm64(0, 7, 0, 0)[..], &[EXIT]].concat(),
        ),
        (
            "map that is not open",
            [&ld_imm64(1, 1, NOT_OPEN, 0)[..], &[mov(0, 0), EXIT]].concat(),
        ),
        (
            "map that is none",
            [&ld_imm64(1, 1, 0, 0)[..], &[mov(0, 0), EXIT]].concat(),
        ),
        (
            "map with an offset",
            [&ld_imm64(1, 1, 0, 1)[..], &[mov(0, 0), EXIT]].concat(),
        ),
        (
            "index without fds",
            [&ld_imm64(1, 5, 0, 0)[..], &[mov(0, 0), EXIT]].concat(),
        ),
    ]
}

fn registers() -> Vec<Named> {
    vec![
        ("R0 of a pointer", vec![insn(0xbf, 0, 1, 0, 0), EXIT]),
        ("R2 read", vec![insn(0xbf, 0, 2, 0, 0), EXIT]),
        ("R11", vec![mov(11, 0), mov(0, 0), EXIT]),
        ("R10 written", vec![mov(10, 0), mov(0, 0), EXIT]),
        ("stack", vec![insn(0x7a, 10, 0, -8, 1), mov(0, 0), EXIT]),
        (
            "past the stack",
            vec![insn(0x7a, 10, 0, -520, 1), mov(0, 0), EXIT],
        ),
        (
            "above the stack",
            vec![insn(0x62, 10, 0, -2, 1), mov(0, 0), EXIT],
        ),
        (
            "a number as pointer",
            vec![mov(1, 5), insn(0x61, 0, 1, 0, 0), EXIT],
        ),
        (
            "division by zero",
            vec![mov(0, 5), insn(0x37, 0, 0, 0, 0), EXIT],
        ),
        ("reserved fields", vec![insn(0x61, 0, 1, 0, 7), EXIT]),
    ]
}

/// Calls, and jumps of all kinds.
fn functions() -> Vec<Named> {
    vec![
        (
            "local call",
            vec![insn(0x85, 0, 1, 0, 1), EXIT, mov(0, 0), EXIT],
        ),
        ("local call out of it", vec![insn(0x85, 0, 1, 0, 9), EXIT]),
        (
            "function without an exit",
            vec![insn(0x85, 0, 1, 0, 1), EXIT, mov(0, 0)],
        ),
        (
            "jump into another function",
            vec![
                insn(0x85, 0, 1, 0, 2),
                insn(0x05, 0, 0, 1, 0),
                EXIT,
                mov(0, 0),
                EXIT,
            ],
        ),
        ("gotol", vec![mov(0, 0), insn(0x06, 0, 0, 0, 0), EXIT]),
        ("jump less", vec![mov(0, 0), insn(0xa5, 0, 0, 0, 1), EXIT]),
        (
            "32-bit jump less",
            vec![mov(0, 0), insn(0xa6, 0, 0, 0, 1), EXIT],
        ),
        ("may_goto", vec![mov(0, 0), insn(0xe5, 0, 0, 0, 0), EXIT]),
        (
            "sign extension",
            vec![mov(0, 0), insn(0xbf, 2, 0, 8, 0), EXIT],
        ),
        (
            "byte swap",
            vec![mov(0, 0), mov(2, 5), insn(0xd7, 2, 0, 0, 16), EXIT],
        ),
        (
            "helper arguments are gone",
            vec![call(5), insn(0xbf, 0, 1, 0, 0), EXIT],
        ),
        ("R0 of a helper", vec![call(5), EXIT]),
        (
            "probe_read of the stack",
            vec![
                insn(0xbf, 1, 10, 0, 0),
                insn(0x07, 1, 0, 0, -8),
                mov(2, 8),
                mov(3, 0),
                call(113),
                EXIT,
            ],
        ),
        ("map of a number", vec![mov(1, 0), mov(2, 0), call(1), EXIT]),
        ("unknown helper", vec![call(211_000), EXIT]),
        (
            "unknown helper in dead code",
            vec![mov(0, 0), insn(0x15, 0, 0, 1, 0), call(211_000), EXIT],
        ),
        (
            "register that may be unwritten",
            vec![
                mov(0, 0),
                insn(0x55, 0, 0, 1, 0),
                insn(0xbf, 0, 0, 0, 0),
                EXIT,
            ],
        ),
    ]
}

#[test]
fn programs_are_refused_as_by_the_kernel() {
    same(|bpf| {
        let mut answers = Vec::new();
        for prog_type in [
            ProgType::SOCKET_FILTER,
            ProgType::TRACEPOINT,
            ProgType::CGROUP_SKB,
        ] {
            for (name, insns) in programs() {
                let load = Load::new(prog_type, &insns);
                answers.push((format!("{name}, {prog_type}"), load.try_on(bpf)));
            }
        }
        answers
    });
}

#[test]
fn two_wrongs_are_answered_in_the_kernels_order() {
    let wrongs: [(&str, &[(usize, u32)]); 29] = [
        ("flags", &[(44, 1 << 20)]),
        ("token", &[(44, 1 << 16), (144, NOT_OPEN)]),
        ("token that is none", &[(44, 1 << 16)]),
        ("no instructions", &[(4, 0)]),
        ("too many", &[(4, 1_000_001)]),
        ("instructions unreadable", &[(8, 1), (12, 0)]),
        ("licence unreadable", &[(16, 1), (20, 0)]),
        ("type 0", &[(0, 0)]),
        ("type 99", &[(0, 99)]),
        ("place", &[(0, 30), (68, 3)]),
        ("function of a filter", &[(108, 5)]),
        ("attach_prog_fd not open", &[(112, NOT_OPEN)]),
        ("attach_prog_fd is none", &[(112, 1)]),
        ("name", &[(48, 0x2121_2121)]),
        (
            "name without end",
            &[
                (48, 0x6161_6161),
                (52, 0x6161_6161),
                (56, 0x6161_6161),
                (60, 0x6161_6161),
            ],
        ),
        ("log level", &[(24, 0x100)]),
        ("log without a buffer", &[(24, 1), (28, 100)]),
        ("log level alone", &[(24, 1)]),
        (
            "log that cannot be written",
            &[(24, 1), (28, 4096), (32, 1)],
        ),
        ("BTF not open", &[(72, NOT_OPEN), (88, 1), (76, 8), (80, 1)]),
        ("BTF that is none", &[(72, 0), (88, 1), (76, 8)]),
        ("lines without BTF", &[(72, NOT_OPEN), (104, 1), (92, 16)]),
        ("fds unreadable", &[(148, 1), (120, 1)]),
        ("sleeps", &[(44, 1 << 4)]),
        ("BTF that is not asked for", &[(72, NOT_OPEN)]),
        ("interface", &[(0, 30), (68, 36), (64, 0)]),
        ("syscall", &[(0, 31)]),
        ("cgroup_skb", &[(0, 8)]),
        ("size of functions", &[(88, 1), (76, 4), (72, NOT_OPEN)]),
    ];
    same(|bpf| {
        let mut answers = Vec::new();
        for program in [
            "least",
            "unknown helper",
            "no exit",
            "R2 read",
            "map that is not open",
            "endless",
        ] {
            let programs = programs();
            let (_, insns) = programs
                .iter()
                .find(|(name, _)| *name == program)
                .expect("there");
            for (first, one) in wrongs {
                for (second, other) in wrongs {
                    let mut load = Load::new(ProgType::SOCKET_FILTER, insns);
                    load.words = [one, other].concat();
                    answers.push((format!("{first}, {second}, {program}"), load.try_on(bpf)));
                }
            }
        }
        answers
    });
}

#[test]
fn a_short_attr_is_filled_up_with_zeros() {
    same(|bpf| {
        let sizes = [
            0, 4, 8, 16, 20, 24, 44, 48, 64, 72, 116, 120, 140, 143, 144, 148, 152, 160,
        ];
        let with = |size| {
            let mut load = Load::new(ProgType::SOCKET_FILTER, &[mov(0, 0), EXIT]).word(140, 77);
            load.size = size;
            let (answer, _, attr) = load.run(bpf);
            (answer.map(drop), attr[140..144].to_vec())
        };
        sizes.map(|size| (size.to_string(), with(size))).to_vec()
    });
}

#[test]
fn a_log_that_does_not_fit_is_enospc_and_its_end_or_beginning_is_there() {
    on_both(|bpf| {
        let program = [call(1), EXIT];
        for (level, fits) in [(1, false), (9, false), (1, true)] {
            let mut load = Load::new(ProgType::SOCKET_FILTER, &program);
            load.log = (level, if fits { 4096 } else { 16 });
            let (answer, log, attr) = load.run(bpf);
            let expected = if fits { Errno::EACCES } else { Errno::ENOSPC };
            assert_eq!(answer, Err(expected));
            let true_size = u32::from_ne_bytes(attr[140..144].try_into().expect("4 bytes"));
            if fits {
                assert_eq!(true_size as usize, log.len() + 1);
                assert!(log.contains("R1 type=ctx expected=map_ptr\n"), "{log}");
                assert!(log.ends_with("peak_states 0 mark_read 0\n"), "{log}");
            } else {
                assert_eq!(log.len(), 15, "cut, with a NUL");
                assert!(true_size > 16);
                assert_eq!(log.ends_with("mark_read 0\n"), level == 1);
            }
        }
    });
}

#[test]
fn the_log_of_a_program_that_is_accepted_is_the_kernels() {
    same(|bpf| {
        let mut load = Load::new(ProgType::SOCKET_FILTER, &[mov(0, 0), mov(1, 1), EXIT]);
        load.log = (1, 4096);
        let (answer, log, _) = load.run(bpf);
        vec![(String::new(), (answer.map(drop), log))]
    });
}

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
    let ask = crate::objects::Ask::new(232)
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

/// A map's value as a number in an instruction.
#[test]
fn addresses_of_values_are_for_arrays_of_one_element() {
    same(|bpf| {
        let array = |size, max_entries| map(bpf, MapType::ARRAY, 4, size, max_entries, 0);
        let with = |fd, off| {
            let load = [&ld_imm64(1, 2, fd, off)[..], &[mov(0, 0), EXIT]].concat();
            Load::new(ProgType::SOCKET_FILTER, &load).try_on(bpf)
        };
        let one = array(8, 1);
        let mut answers: Vec<_> = [0, 4, 7, 8, 9, (1 << 29) - 1, 1 << 29, u32::MAX]
            .map(|off| (format!("offset {off}"), with(one, off)))
            .to_vec();
        answers.push(("two elements".into(), with(array(8, 2), 0)));
        answers.push(("two elements, far".into(), with(array(8, 2), 1 << 30)));
        answers.push(("hash".into(), with(small(bpf, MapType::HASH), 0)));
        answers.push(("hash, far".into(), with(small(bpf, MapType::HASH), 1 << 30)));
        answers.push(("none".into(), with(0, 0)));
        answers
    });
}

#[test]
fn instructions_name_maps_by_index() {
    same(|bpf| {
        let hash = small(bpf, MapType::HASH);
        let array = map(bpf, MapType::ARRAY, 4, 8, 1, 0);
        let with = |src, index, fds: &[Fd], count| {
            let insns = [&ld_imm64(1, src, index, 0)[..], &[mov(0, 0), EXIT]].concat();
            let mut load = Load::new(ProgType::SOCKET_FILTER, &insns).word(148, count);
            load.fd_array = fds.to_vec();
            load.try_on(bpf)
        };
        vec![
            ("map".into(), with(5, 1, &[NOT_OPEN, hash], 0)),
            ("value".into(), with(6, 0, &[array], 0)),
            ("not open".into(), with(5, 0, &[NOT_OPEN, hash], 0)),
            ("none".into(), with(5, 0, &[0], 0)),
            ("past the end".into(), with(5, 2, &[hash, hash], 0)),
            ("all are held".into(), with(5, 0, &[hash, array], 2)),
            (
                "one of all is not open".into(),
                with(5, 0, &[hash, NOT_OPEN], 2),
            ),
            ("one of all is none".into(), with(5, 0, &[hash, 0], 2)),
            ("one of all is unreadable".into(), with(5, 0, &[hash], 2)),
        ]
    });
}

#[test]
fn a_program_holds_its_maps_and_those_it_is_bound_to() {
    on_both(|bpf| {
        let [used, bound] = [(); 2].map(|()| small(bpf, MapType::HASH));
        let ids = [used, bound].map(|fd| calls::bpf_map_get_info_by_fd(bpf, fd).expect("info").id);
        let insns = [&ld_imm64(1, 1, used, 0)[..], &[mov(0, 0), EXIT]].concat();
        let prog = Load::new(ProgType::SOCKET_FILTER, &insns)
            .run(bpf)
            .0
            .expect("loaded");
        let bind = |map: Fd, flags: u32| {
            let mut attr = [prog, map, flags].map(u32::to_ne_bytes).concat();
            crate::common::raw(bpf, Cmd::PROG_BIND_MAP, &mut attr, 12)
        };
        assert_eq!(bind(bound, 1), Err(Errno::EINVAL));
        assert_eq!(bind(NOT_OPEN, 0), Err(Errno::EBADF));
        assert_eq!(bind(prog, 0), Err(Errno::EINVAL));
        assert_eq!(bind(bound, 0), Ok(0));
        assert_eq!(bind(bound, 0), Ok(0), "again");
        assert_eq!(bind(used, 0), Ok(0));
        for fd in [used, bound] {
            assert_eq!(bpf.close(fd), Ok(()));
        }
        for id in ids {
            let fd = calls::bpf_map_get_fd_by_id(bpf, id).expect("it is alive");
            assert_eq!(bpf.close(fd), Ok(()));
        }
        assert_eq!(bpf.close(prog), Ok(()));
    });
}

#[test]
fn an_attach_type_is_given_where_a_type_had_none() {
    on_both(|bpf| {
        let mut load = Load::new(ProgType::CGROUP_SOCK, &[mov(0, 1), EXIT]);
        for place in [0, AttachType::CGROUP_INET_SOCK_CREATE.0] {
            load.attach_type = place;
            assert_eq!(load.try_on(bpf), Ok(()));
        }
    });
}
