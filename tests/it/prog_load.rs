//! `BPF_PROG_LOAD` by bytes: whatever is loaded on the running kernel has the same answer here.

use mapemu::abi::{AttachType, Bpf, Caps, Cmd, Errno, Fd, MapType, Memory, ProgType, Result};
use mapemu::{Kernel, calls};

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
    /// Where it begins for the kernel, in bytes.
    pub(crate) fd_array_at: u64,
    /// Words of relocations.
    pub(crate) relocations: Vec<u32>,
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
            fd_array_at: 0,
            relocations: Vec::new(),
            records: [(Vec::new(), 2), (Vec::new(), 4)],
            size: 168,
        }
    }

    pub(crate) fn word(mut self, at: usize, word: u32) -> Self {
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
            let fd_array = mem.input(&fd_array) + self.fd_array_at;
            put(120, &fd_array.to_ne_bytes());
        }
        let relocations: Vec<u8> = self
            .relocations
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        if !relocations.is_empty() {
            put(128, &mem.input(&relocations).to_ne_bytes());
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
fn a_branch_that_is_decided_is_none() {
    /// What clients put where a type is missing.
    const POISON: i32 = 195_896_080;
    let jump = |code, to, imm| insn(code, 1, 0, to, imm);
    let after = |jump: Insn| {
        [
            &ld_imm64(1, 0, 2, 0)[..],
            &[jump, call(POISON), mov(0, 0), EXIT],
        ]
        .concat()
    };
    same(|bpf| {
        let counted = [
            &[mov(1, 0), mov(0, 0), jump(0x15, 2, 100)][..],
            &[insn(0x07, 1, 0, 0, 1), insn(0x05, 0, 0, -3, 0), EXIT],
        ];
        let programs = [
            ("== not taken", after(jump(0x15, 1, 0))),
            ("== taken", after(jump(0x15, 1, 2))),
            ("!= not taken", after(jump(0x55, 1, 2))),
            ("!= taken", after(jump(0x55, 1, 0))),
            (
                "a wide one",
                [&ld_imm64(10, 0, 0xbad_2310, 1)[..], &[EXIT]].concat(),
            ),
            ("a loop", counted.concat()),
        ];
        let of = |(name, insns): (&str, Vec<Insn>)| {
            let mut load = Load::new(ProgType::SOCKET_FILTER, &insns);
            load.log = (1, 1 << 16);
            let (answer, log, _) = load.run(bpf);
            let refused = answer.is_err();
            let answer = answer.map(|fd| bpf.close(fd));
            // The instruction, and what is wrong with it, stand before the last line.
            let lines = log.lines().rev().skip(1).take(2);
            let lines: Vec<String> = lines.filter(|_| refused).map(str::to_owned).collect();
            (name.to_owned(), (answer, lines))
        };
        programs.map(of).to_vec()
    });
}

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

/// One thing wrong each: words of the attr.
const WRONGS: [(&str, &[(usize, u32)]); 33] = [
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
    ("sk_lookup", &[(0, 30), (68, 36)]),
    ("device of a filter", &[(64, 1)]),
    ("device of XDP", &[(0, 6), (64, 1)]),
    ("no device of XDP", &[(0, 6), (64, 99)]),
    ("bound to no device", &[(44, 64)]),
    ("syscall", &[(0, 31)]),
    ("cgroup_skb", &[(0, 8)]),
    ("size of functions", &[(88, 1), (76, 4), (72, NOT_OPEN)]),
];

#[test]
fn two_wrongs_are_answered_in_the_kernels_order() {
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
            for (first, one) in WRONGS {
                for (second, other) in WRONGS {
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
fn places_in_the_kernel_are_for_programs_that_fit() {
    same(|bpf| {
        let target = Load::new(ProgType::SCHED_CLS, &[mov(0, 0), EXIT]).run(bpf);
        let target = target.0.expect("it is loaded");
        let (tracing, structure, sleeps) = ((0, 26), (0, 27), (44, 1 << 4));
        let cases: [(&str, &[(usize, u32)]); 9] = [
            ("no place", &[tracing, (108, 1)]),
            ("no place, and no id", &[tracing]),
            ("no place to sleep", &[tracing, sleeps]),
            ("sleeps", &[tracing, sleeps, (68, 28), (108, 1)]),
            ("typedef", &[tracing, (68, 23), (108, 1)]),
            ("iterator", &[tracing, (68, 28), (108, 1)]),
            ("program without BTF", &[tracing, (108, 1), (112, target)]),
            ("structure", &[structure, (108, 1)]),
            ("no structure", &[structure]),
        ];
        let with = |words: &[(usize, u32)], license| {
            let mut load = Load::new(ProgType::SOCKET_FILTER, &[mov(0, 0), EXIT]);
            (load.words, load.log, load.license) = (words.to_vec(), (1, 4096), license);
            let (answer, log, _) = load.run(bpf);
            (answer.map(drop), log)
        };
        let mut answers: Vec<_> = cases
            .map(|(name, words)| (name.to_owned(), with(words, b"GPL\0")))
            .to_vec();
        answers.push(("of another license".into(), with(&[structure], b"other\0")));
        answers
    });
}

/// Only the emulator: many kernels refuse such programs whatever they ask for.
#[test]
fn a_replacement_is_asked_for_its_function_before_its_program() {
    let kernel = Kernel::new();
    let log_of = |words: &[(usize, u32)]| {
        let mut load = Load::new(ProgType::EXT, &[mov(0, 0), EXIT]);
        (load.words, load.log) = (words.to_vec(), (1, 4096));
        let (answer, log, _) = load.run(&kernel);
        assert_eq!(answer, Err(Errno::EINVAL));
        log
    };
    assert!(log_of(&[]).starts_with("Tracing programs must provide btf_id\n"));
    assert!(log_of(&[(108, 1)]).starts_with("Cannot replace kernel functions\n"));
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

/// What Linux 6.18.44 answered to a process with those capabilities alone; the tests keep theirs.
#[test]
fn loading_takes_the_capabilities_of_the_type() {
    const NET: &[u32] = &[
        3, 4, 6, 9, 10, 11, 12, 13, 14, 15, 16, 18, 19, 22, 23, 25, 32,
    ];
    const PERF: &[u32] = &[2, 5, 7, 17, 24];
    let bpf = mapemu::sys::Kernel::new();
    let refused = |caps| {
        bpf.set_capabilities(caps);
        let mut refused = Vec::new();
        for (prog_type, place) in places() {
            let mut load = Load::new(prog_type, &[mov(0, 1), EXIT]).word(44, flags_of(prog_type));
            load.attach_type = place;
            let answer = load.try_on(&bpf);
            assert!(
                matches!(answer, Ok(()) | Err(Errno::EPERM)),
                "{prog_type}: {answer:?}"
            );
            if answer.is_err() && refused.last() != Some(&prog_type.0) {
                refused.push(prog_type.0);
            }
        }
        refused
    };
    let mut both = [NET, PERF].concat();
    both.sort_unstable();
    assert_eq!(refused(Caps::BPF), both);
    assert_eq!(refused(Caps::BPF | Caps::NET_ADMIN), PERF);
    assert_eq!(refused(Caps::BPF | Caps::PERFMON), NET);
    assert!(refused(Caps::SYS_ADMIN).is_empty());
    let none = refused(Caps::NET_ADMIN | Caps::PERFMON);
    let all: Vec<u32> = (1..=32)
        .filter(|number| !matches!(number, 20 | 26..=29))
        .collect();
    assert_eq!(none, all);
}

#[test]
fn without_capabilities_what_is_wrong_is_not_told() {
    let bpf = mapemu::sys::Kernel::new();
    bpf.set_capabilities(Caps::empty());
    let empty = Load::new(ProgType::SOCKET_FILTER, &[]);
    assert_eq!(empty.try_on(&bpf), Err(Errno::EPERM));
    let ask = |cmd, size: usize| {
        let mut attr = vec![0; size];
        crate::common::raw(&bpf, cmd, &mut attr, u32::try_from(size).expect("small"))
    };
    for (cmd, size) in [
        (Cmd::PROG_GET_NEXT_ID, 8),
        (Cmd::BTF_GET_NEXT_ID, 8),
        (Cmd::LINK_GET_NEXT_ID, 8),
        (Cmd::PROG_GET_FD_BY_ID, 4),
        (Cmd::BTF_GET_FD_BY_ID, 4),
        (Cmd::LINK_GET_FD_BY_ID, 4),
        (Cmd::PROG_QUERY, 64),
        (Cmd::ENABLE_STATS, 4),
        (Cmd::TASK_FD_QUERY, 48),
    ] {
        assert_eq!(ask(cmd, size), Err(Errno::EPERM), "{cmd}");
    }
}

/// A map for the program with those instructions alone.
pub(crate) fn exclusive(bpf: &dyn Bpf, map_type: MapType, hash: &[u8; 32]) -> Result<Fd> {
    let mut attr = [0; 92];
    let value_size = if map_type == MapType::HASH { 8 } else { 4 };
    for (at, word) in [(0, map_type.0), (4, 4), (8, value_size), (12, 4), (88, 32)] {
        attr[at..at + 4].copy_from_slice(&u32::to_ne_bytes(word));
    }
    let mut mem = Memory::new();
    attr[80..88].copy_from_slice(&mem.input(hash).to_ne_bytes());
    let addr = mem.output(&mut attr);
    bpf.bpf(Cmd::MAP_CREATE, addr, 92, &mut mem)
}

#[test]
fn a_map_can_be_for_one_program_alone() {
    /// The SHA-256 of the program below, with 0 in place of the fd.
    const HASH: [u8; 32] = [
        0x0b, 0xd0, 0x16, 0x86, 0x76, 0xc7, 0xc7, 0x79, 0xbf, 0x91, 0x3a, 0x19, 0x98, 0xc8, 0x2d,
        0x13, 0xdd, 0xa4, 0x6d, 0x60, 0x13, 0x63, 0xc5, 0xa5, 0x19, 0xf4, 0x63, 0x25, 0x7f, 0x0a,
        0x5a, 0x4b,
    ];
    same(|bpf| {
        let of = |fd| [&ld_imm64(1, 1, fd, 0)[..], &[mov(0, 0), EXIT]].concat();
        let own = exclusive(bpf, MapType::HASH, &HASH).expect("a map");
        let other = exclusive(bpf, MapType::HASH, &[1; 32]).expect("a map");
        let array = exclusive(bpf, MapType::ARRAY, &[1; 32]).expect("a map");
        let load = |insns: &[Insn]| Load::new(ProgType::SOCKET_FILTER, insns);
        let mut held = load(&[mov(0, 0), EXIT]).word(148, 1);
        held.fd_array = vec![other];
        let outer = |inner_map_fd| {
            let opts = calls::CreateOpts {
                inner_map_fd,
                ..calls::CreateOpts::default()
            };
            calls::bpf_map_create(bpf, MapType::ARRAY_OF_MAPS, "", 4, 4, 2, &opts)
        };
        let plain = outer(small(bpf, MapType::HASH)).expect("a map");
        let put = |fd: Fd| calls::bpf_map_update_elem(bpf, plain, &[0; 4], &fd.to_ne_bytes(), 0);
        vec![
            ("its own program".into(), load(&of(own)).try_on(bpf)),
            ("another".into(), load(&of(other)).try_on(bpf)),
            ("only held".into(), held.try_on(bpf)),
            ("as a template".into(), outer(other).map(drop)),
            ("as an inner map".into(), put(other)),
            ("as an inner map that does not fit".into(), put(array)),
        ]
    });
}
