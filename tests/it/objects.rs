//! Programs, BTF and links as objects: ids, infos, pins; and the commands that ask for what is not here.

use mapemu::abi::{Bpf, Cmd, Errno, Fd, MapType, Memory, ProgType, Result};
use mapemu::btf::Writer;
use mapemu::calls;
use mapemu::sys::Kernel;

use crate::common::{NOT_OPEN, map, on_both, raw, same, small};
use crate::prog_load::{EXIT, Load, call, insn, ld_imm64, mov};

/// Puts words at their offsets.
fn attr<const N: usize>(words: &[(usize, u32)]) -> [u8; N] {
    let mut attr = [0; N];
    for (at, word) in words {
        attr[*at..at + 4].copy_from_slice(&word.to_ne_bytes());
    }
    attr
}

/// A command with those words; 0 in place of what it gives, and fds are closed.
fn ask<const N: usize>(bpf: &dyn Bpf, cmd: Cmd, words: &[(usize, u32)]) -> Result<()> {
    let mut attr = attr::<N>(words);
    let size = u32::try_from(N).expect("small");
    let fd = raw(bpf, cmd, &mut attr, size)?;
    if fd != 0 {
        bpf.close(fd)?;
    }
    Ok(())
}

#[track_caller]
fn prog(bpf: &dyn Bpf) -> Fd {
    let load = Load::new(ProgType::SOCKET_FILTER, &[mov(0, 0), EXIT]);
    load.run(bpf).0.expect("loaded")
}

/// BTF with one number.
#[track_caller]
fn btf(bpf: &dyn Bpf) -> (Fd, Vec<u8>) {
    let mut writer = Writer::new();
    writer.int("int", 4);
    let bytes = writer.finish();
    let fd = calls::bpf_btf_load(bpf, &bytes).expect("loaded");
    (fd, bytes)
}

/// `BPF_OBJ_GET_INFO_BY_FD` with that info, and buffers whose addresses are put into it.
pub(crate) struct Ask<'a> {
    info: Vec<u8>,
    buffers: Vec<(usize, &'a mut [u8])>,
}

impl<'a> Ask<'a> {
    pub(crate) fn new(len: usize) -> Self {
        Self {
            info: vec![0; len],
            buffers: Vec::new(),
        }
    }

    pub(crate) fn word(mut self, at: usize, word: u32) -> Self {
        self.info[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        self
    }

    /// A buffer: the offset of its address, and of its length, which counts `elem_size`.
    pub(crate) fn buffer(
        mut self,
        at: usize,
        len_at: usize,
        elem_size: usize,
        bytes: &'a mut [u8],
    ) -> Self {
        let len = u32::try_from(bytes.len() / elem_size).expect("small");
        self = self.word(len_at, len);
        self.buffers.push((at, bytes));
        self
    }

    /// The answer, the length that came back, the info.
    pub(crate) fn run(self, bpf: &dyn Bpf, fd: Fd) -> (Result<u32>, u32, Vec<u8>) {
        let Self { mut info, buffers } = self;
        let mut mem = Memory::new();
        for (at, bytes) in buffers {
            let addr = mem.output(bytes).to_ne_bytes();
            info[at..at + 8].copy_from_slice(&addr);
        }
        let mut attr = [0; 16];
        attr[..4].copy_from_slice(&fd.to_ne_bytes());
        let len = u32::try_from(info.len()).expect("small");
        attr[4..8].copy_from_slice(&len.to_ne_bytes());
        attr[8..].copy_from_slice(&mem.output(&mut info).to_ne_bytes());
        let addr = mem.output(&mut attr);
        let answer = bpf.bpf(Cmd::OBJ_GET_INFO_BY_FD, addr, 16, &mut mem);
        drop(mem);
        let len = u32::from_ne_bytes(attr[4..8].try_into().expect("4 bytes"));
        (answer, len, info)
    }
}

fn word(info: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(info[at..at + 4].try_into().expect("4 bytes"))
}

#[test]
fn ids_are_asked_for_with_the_kernels_checks() {
    same(|bpf| {
        let mut answers = Vec::new();
        for cmd in [
            Cmd::PROG_GET_NEXT_ID,
            Cmd::MAP_GET_NEXT_ID,
            Cmd::BTF_GET_NEXT_ID,
            Cmd::LINK_GET_NEXT_ID,
        ] {
            for words in [
                [(0, i32::MAX.cast_unsigned()), (4, 0)],
                [(0, i32::MAX.cast_unsigned() - 1), (4, 0)],
                [(0, i32::MAX.cast_unsigned() - 1), (4, 9)],
                [(0, 0), (8, 1)],
            ] {
                answers.push((format!("{cmd} {words:?}"), ask::<12>(bpf, cmd, &words)));
            }
        }
        for cmd in [
            Cmd::PROG_GET_FD_BY_ID,
            Cmd::MAP_GET_FD_BY_ID,
            Cmd::BTF_GET_FD_BY_ID,
            Cmd::LINK_GET_FD_BY_ID,
        ] {
            for id in [0, 0x7fff_ff00] {
                for (at, value) in [
                    (4, 0),
                    (4, 1),
                    (8, 1),
                    (8, 1 << 16),
                    (12, 1),
                    (16, 1),
                    (20, 1),
                ] {
                    let words = [(0, id), (at, value)];
                    answers.push((format!("{cmd} {words:?}"), ask::<24>(bpf, cmd, &words)));
                }
            }
        }
        answers
    });
}

#[test]
fn programs_and_btf_are_found_by_id_as_long_as_they_live() {
    on_both(|bpf| {
        let prog = prog(bpf);
        let id = word(&Ask::new(232).run(bpf, prog).2, 4);
        let next = |after| {
            let mut attr = attr::<8>(&[(0, after)]);
            raw(bpf, Cmd::PROG_GET_NEXT_ID, &mut attr, 8).map(|_| word(&attr, 4))
        };
        assert_eq!(next(id - 1), Ok(id));
        let by_id = |cmd, id| raw(bpf, cmd, &mut attr::<4>(&[(0, id)]), 4);
        let again = by_id(Cmd::PROG_GET_FD_BY_ID, id).expect("alive");
        assert_eq!(bpf.close(prog), Ok(()));
        assert_eq!(word(&Ask::new(232).run(bpf, again).2, 4), id);
        assert_eq!(bpf.close(again), Ok(()));

        let (fd, _) = btf(bpf);
        let id = word(&Ask::new(32).run(bpf, fd).2, 12);
        let again = by_id(Cmd::BTF_GET_FD_BY_ID, id).expect("alive");
        for fd in [fd, again] {
            assert_eq!(bpf.close(fd), Ok(()));
        }
    });
    // The running kernel lets go of them a little later.
    let bpf = Kernel::new();
    let fd = prog(&bpf);
    assert_eq!(bpf.close(fd), Ok(()));
    let mut attr = attr::<4>(&[(0, 1)]);
    let gone = raw(&bpf, Cmd::PROG_GET_FD_BY_ID, &mut attr, 4);
    assert_eq!(gone, Err(Errno::ENOENT));
}

#[test]
fn infos_have_the_kernels_sizes() {
    same(|bpf| {
        let mut answers = Vec::new();
        let fds = [("program", prog(bpf)), ("BTF", btf(bpf).0)];
        for (name, fd) in fds {
            for len in [
                0, 1, 4, 16, 31, 32, 33, 64, 100, 228, 231, 232, 233, 240, 4096, 4097,
            ] {
                let (answer, told, _) = Ask::new(len).run(bpf, fd);
                answers.push((format!("{name}, {len} bytes"), (answer, told)));
                // What ends inside of the struct can be the half of an address.
                if len > 232 || name == "BTF" && len > 32 {
                    let mut ask = Ask::new(len);
                    ask.info[len - 1] = 1;
                    let (answer, told, _) = ask.run(bpf, fd);
                    answers.push((format!("{name}, {len} bytes, the last 1"), (answer, told)));
                }
            }
        }
        answers
    });
}

#[test]
fn the_info_of_a_program_is_the_kernels() {
    /// Bytes that depend on the run: id, compiled and rewritten code, time, user.
    const OTHER: [std::ops::Range<usize>; 4] = [4..8, 16..24, 40..48, 104..112];
    same(|bpf| {
        let map = small(bpf, MapType::HASH);
        let insns = [&ld_imm64(1, 1, map, 0)[..], &[mov(0, 0), EXIT]].concat();
        let programs = [
            Load::new(ProgType::SOCKET_FILTER, &insns),
            Load::new(
                ProgType::XDP,
                &[call(5), insn(0x05, 0, 0, 0, 0), mov(0, 2), EXIT],
            ),
            Load {
                license: b"mine\0",
                words: vec![
                    (48, u32::from_ne_bytes(*b"na_m")),
                    (52, u32::from_ne_bytes([b'e', 0, 7, 0])),
                ],
                ..Load::new(ProgType::TRACEPOINT, &[mov(0, 0), EXIT])
            },
        ];
        let answer = |load: &Load| {
            let fd = load.run(bpf).0.expect("loaded");
            // What the kernel does not write stays.
            let ask = [48, 80, 84, 88, 96, 128, 192, 216, 220];
            let ask = ask
                .iter()
                .fold(Ask::new(232), |ask, &at| ask.word(at, 0xabcd_ef12));
            let (answer, len, mut info) = ask.run(bpf, fd);
            for range in OTHER {
                info[range].fill(0);
            }
            (answer, len, info)
        };
        programs
            .iter()
            .map(|load| (load.prog_type.to_string(), answer(load)))
            .collect()
    });
}

#[test]
fn infos_of_maps_and_btf_are_written_over() {
    same(|bpf| {
        /// Where the ids are.
        const IDS: [std::ops::Range<usize>; 2] = [4..8, 12..16];
        let map = small(bpf, MapType::HASH);
        let full = |len: usize, but: &[usize]| {
            let fields = (0..len).step_by(4).filter(|at| !but.contains(at));
            fields.fold(Ask::new(len), |ask, at| ask.word(at, 0x11_0000 + 4))
        };
        let (btf, _) = btf(bpf);
        let answers = [
            ("map", full(100, &[88, 92, 96]).run(bpf, map)),
            ("BTF", full(32, &[0, 4, 8, 16, 20, 24]).run(bpf, btf)),
        ];
        answers
            .map(|(name, (answer, len, mut info))| {
                for range in IDS {
                    info[range].fill(0);
                }
                (name.to_owned(), (answer, len, info))
            })
            .to_vec()
    });
}

#[test]
fn the_info_of_a_program_has_the_ids_of_its_maps() {
    on_both(|bpf| {
        let fd = small(bpf, MapType::HASH);
        let id = calls::bpf_map_get_info_by_fd(bpf, fd).expect("info").id;
        let insns = [&ld_imm64(1, 1, fd, 0)[..], &[mov(0, 0), EXIT]].concat();
        let prog = Load::new(ProgType::SOCKET_FILTER, &insns)
            .run(bpf)
            .0
            .expect("loaded");
        let mut ids = [0; 8];
        let (answer, len, info) = Ask::new(232).buffer(56, 52, 4, &mut ids).run(bpf, prog);
        assert_eq!((answer, len, word(&info, 52)), (Ok(0), 232, 1));
        assert_eq!(ids, [id.to_ne_bytes(), [0; 4]].concat()[..]);
        let nowhere = Ask::new(232).word(52, 1).word(56, 1).run(bpf, prog).0;
        assert_eq!(nowhere, Err(Errno::EFAULT));
    });
}

#[test]
fn record_sizes_in_the_info_of_a_program_are_the_kernels_or_none() {
    same(|bpf| {
        let fd = prog(bpf);
        let mut answers = Vec::new();
        // Lengths at the upper half of 8 bytes cannot be told from addresses in a call of the running kernel.
        for at in [144, 168, 176] {
            for value in [1, 4, 8, 16, 24] {
                let (answer, len, info) = Ask::new(232).word(at, value).run(bpf, fd);
                let sizes = [132, 172, 176].map(|at| word(&info, at));
                answers.push((format!("{value} at {at}"), (answer, len, sizes)));
            }
        }
        answers
    });
}

#[test]
fn the_info_of_btf_has_the_blob() {
    on_both(|bpf| {
        let (fd, bytes) = btf(bpf);
        let size = u32::try_from(bytes.len()).expect("small");
        let mut blob = vec![0; bytes.len() + 4];
        let (answer, len, info) = Ask::new(32).buffer(0, 8, 1, &mut blob).run(bpf, fd);
        assert_eq!((answer, len, word(&info, 8)), (Ok(0), 32, size));
        assert_eq!(blob[..bytes.len()], bytes);
        assert_eq!(
            [word(&info, 24), word(&info, 28)],
            [0, 0],
            "no name, not the kernel's"
        );
        let mut short = [0; 10];
        let (answer, _, info) = Ask::new(32).buffer(0, 8, 1, &mut short).run(bpf, fd);
        assert_eq!((answer, word(&info, 8)), (Ok(0), size));
        assert_eq!(short, bytes[..10]);
        let mut name = [7; 4];
        let (answer, _, info) = Ask::new(32).buffer(16, 24, 1, &mut name).run(bpf, fd);
        assert_eq!((answer, word(&info, 24), name), (Ok(0), 0, [0, 7, 7, 7]));
        let without_room = Ask::new(32).word(16, 1).run(bpf, fd).0;
        assert_eq!(without_room, Err(Errno::EINVAL));
        let without_name = Ask::new(32).word(24, 1).run(bpf, fd).0;
        assert_eq!(without_name, Err(Errno::EINVAL));
    });
}

#[test]
fn nothing_is_attached_to_a_socket_map() {
    same(|bpf| {
        let types = [MapType::SOCKMAP, MapType::SOCKHASH, MapType::ARRAY];
        let maps = types.map(|map_type| (map_type, map(bpf, map_type, 4, 4, 1, 0)));
        let of = |(map_type, map): (MapType, Fd)| {
            let mut attr = attr::<64>(&[(0, map), (4, 5), (12, 77), (24, 77)]);
            let answer = raw(bpf, Cmd::PROG_QUERY, &mut attr, 64);
            (format!("{map_type}"), (answer, attr[12..].to_vec()))
        };
        maps.map(of).to_vec()
    });
}

/// Words of an attr that follow the program's fd.
type Words = &'static [(usize, u32)];

#[test]
fn what_cannot_be_done_here_has_the_kernels_errnos_for_its_arguments() {
    const PROBES: [(Cmd, Words); 41] = [
        (Cmd::PROG_TEST_RUN, &[(0, NOT_OPEN)]),
        (Cmd::PROG_TEST_RUN, &[(0, 0)]),
        (Cmd::PROG_TEST_RUN, &[(0, NOT_OPEN), (40, 1)]),
        (Cmd::PROG_TEST_RUN, &[(0, NOT_OPEN), (44, 1)]),
        (Cmd::PROG_TEST_RUN, &[(0, NOT_OPEN), (48, 1)]),
        (Cmd::PROG_TEST_RUN, &[(0, NOT_OPEN), (56, 1)]),
        (Cmd::PROG_TEST_RUN, &[(0, NOT_OPEN), (76, 1)]),
        (Cmd::ENABLE_STATS, &[]),
        (Cmd::ENABLE_STATS, &[(0, 1)]),
        (Cmd::ENABLE_STATS, &[(4, 1)]),
        (Cmd::ITER_CREATE, &[(0, NOT_OPEN)]),
        (Cmd::ITER_CREATE, &[(0, 0)]),
        (Cmd::ITER_CREATE, &[(0, NOT_OPEN), (4, 1)]),
        (Cmd::ITER_CREATE, &[(0, NOT_OPEN), (8, 1)]),
        (Cmd::TASK_FD_QUERY, &[(4, NOT_OPEN)]),
        (Cmd::TASK_FD_QUERY, &[(8, 1)]),
        (Cmd::TASK_FD_QUERY, &[(48, 1)]),
        (Cmd::RAW_TRACEPOINT_OPEN, &[(8, NOT_OPEN)]),
        (Cmd::RAW_TRACEPOINT_OPEN, &[(8, 0)]),
        (Cmd::RAW_TRACEPOINT_OPEN, &[(8, NOT_OPEN), (24, 1)]),
        (Cmd::LINK_CREATE, &[(0, NOT_OPEN)]),
        (Cmd::LINK_CREATE, &[(0, 0)]),
        (Cmd::LINK_CREATE, &[(0, NOT_OPEN), (64, 1)]),
        (Cmd::LINK_UPDATE, &[(0, NOT_OPEN)]),
        (Cmd::LINK_DETACH, &[(0, 0)]),
        (Cmd::TOKEN_CREATE, &[(4, NOT_OPEN)]),
        (Cmd::TOKEN_CREATE, &[(0, 1)]),
        (Cmd::PROG_QUERY, &[(0, NOT_OPEN), (4, 1)]),
        (Cmd::PROG_QUERY, &[(0, 0), (4, 1)]),
        (Cmd::PROG_QUERY, &[(0, NOT_OPEN), (4, 99)]),
        (Cmd::PROG_QUERY, &[(0, NOT_OPEN), (4, 1), (8, 2)]),
        (Cmd::PROG_QUERY, &[(0, NOT_OPEN), (4, 4)]),
        (Cmd::PROG_QUERY, &[(0, 0), (4, 38)]),
        (Cmd::PROG_QUERY, &[(0, NOT_OPEN), (4, 7), (8, 1)]),
        (Cmd::PROG_QUERY, &[(0, NOT_OPEN), (4, 17)]),
        (Cmd::PROG_QUERY, &[(0, 0), (4, 36)]),
        (Cmd::PROG_QUERY, &[(0, 12_345), (4, 46), (8, 1)]),
        (Cmd::PROG_QUERY, &[(0, 1), (4, 46), (12, 1)]),
        (Cmd::PROG_QUERY, &[(0, 1), (4, 47)]),
        (Cmd::PROG_QUERY, &[(0, 1), (4, 16)]),
        (Cmd::PROG_QUERY, &[(0, 1), (4, 55)]),
    ];
    same(|bpf| {
        let one =
            |(cmd, words): (Cmd, Words)| (format!("{cmd} {words:?}"), ask::<80>(bpf, cmd, words));
        PROBES.map(one).to_vec()
    });
}

#[test]
fn a_program_of_the_wrong_type_is_refused_as_by_the_kernel() {
    same(|bpf| {
        let of = |prog_type, attach_type| {
            let mut load = Load::new(prog_type, &[mov(0, 1), EXIT]);
            load.attach_type = attach_type;
            load.run(bpf).0.expect("loaded")
        };
        let mut answers = Vec::new();
        for prog_type in [
            ProgType::KPROBE,
            ProgType::TRACEPOINT,
            ProgType::PERF_EVENT,
            ProgType::SOCK_OPS,
            ProgType::SK_MSG,
            ProgType::CGROUP_DEVICE,
            ProgType::LWT_SEG6LOCAL,
            ProgType::RAW_TRACEPOINT_WRITABLE,
            ProgType::CGROUP_SYSCTL,
        ] {
            let fd = of(prog_type, 0);
            let run = ask::<80>(bpf, Cmd::PROG_TEST_RUN, &[(0, fd)]);
            answers.push((format!("test run of {prog_type}"), run));
        }
        for prog_type in [
            ProgType::KPROBE,
            ProgType::TRACEPOINT,
            ProgType::SOCKET_FILTER,
        ] {
            let open = ask::<24>(bpf, Cmd::RAW_TRACEPOINT_OPEN, &[(8, of(prog_type, 0))]);
            answers.push((format!("tracepoint of {prog_type}"), open));
        }
        let tracepoint = of(ProgType::RAW_TRACEPOINT, 0);
        let words = [(0, 1), (8, tracepoint)];
        let open = ask::<24>(bpf, Cmd::RAW_TRACEPOINT_OPEN, &words);
        answers.push(("name that cannot be read".into(), open));
        for prog_type in [ProgType::KPROBE, ProgType::TRACEPOINT, ProgType::PERF_EVENT] {
            let fd = of(prog_type, 0);
            for (what, target, flags) in [
                ("nothing", NOT_OPEN, 0),
                ("no fd", u32::MAX, 0),
                ("a file", 0, 0),
                ("itself", fd, 0),
                ("itself with flags", fd, 1),
            ] {
                let words = [(0, fd), (4, target), (8, 41), (12, flags)];
                let link = ask::<64>(bpf, Cmd::LINK_CREATE, &words);
                answers.push((format!("link of {prog_type} to {what}"), link));
            }
            for place in [1, 99] {
                let words = [(0, fd), (4, NOT_OPEN), (8, place)];
                let link = ask::<64>(bpf, Cmd::LINK_CREATE, &words);
                answers.push((format!("link of {prog_type} at {place}"), link));
            }
        }
        answers
    });
}

#[test]
fn probes_of_many_functions_judge_the_path_last() {
    same(|bpf| {
        /// `BPF_TRACE_UPROBE_MULTI`
        const PLACE: u32 = 48;
        let mut load = Load::new(ProgType::KPROBE, &[mov(0, 0), EXIT]);
        load.attach_type = PLACE;
        let fd = load.run(bpf).0.expect("loaded");
        let link = |path: Option<&[u8]>, count: u32, flags: u32, pid: u32| {
            let mut attr = attr::<64>(&[(0, fd), (8, PLACE), (48, count), (52, flags), (56, pid)]);
            let mut mem = Memory::new();
            let path = path.map_or(1, |path| mem.input(path));
            attr[16..24].copy_from_slice(&path.to_ne_bytes());
            attr[24..32].copy_from_slice(&mem.input(&[0; 8]).to_ne_bytes());
            let addr = mem.output(&mut attr);
            bpf.bpf(Cmd::LINK_CREATE, addr, 64, &mut mem)
        };
        let root = Some(&b"/\0"[..]);
        vec![
            ("directory".into(), link(root, 1, 0, 0)),
            ("missing".into(), link(Some(b"/nonesuch\0"), 1, 0, 0)),
            ("unreadable".into(), link(None, 1, 0, 0)),
            ("no functions".into(), link(None, 0, 0, 0)),
            ("flags".into(), link(None, 1, 2, 0)),
            ("process".into(), link(None, 1, 0, u32::MAX)),
        ]
    });
}

#[test]
fn btf_says_how_long_its_log_would_be_only_where_there_is_room() {
    same(|bpf| {
        let bytes = btf(bpf).1;
        let size_of_log = |size: u32, level: u32| {
            let mut attr = [0xaa; 40];
            attr[..28].fill(0);
            attr[32..].fill(0);
            let mut mem = Memory::new();
            attr[..8].copy_from_slice(&mem.input(&bytes).to_ne_bytes());
            let len = u32::try_from(bytes.len()).expect("small");
            attr[16..20].copy_from_slice(&len.to_ne_bytes());
            attr[24..28].copy_from_slice(&level.to_ne_bytes());
            let addr = mem.output(&mut attr[..size as usize]);
            let answer = bpf.bpf(Cmd::BTF_LOAD, addr, size, &mut mem);
            drop(mem);
            (answer.map(drop), word(&attr, 28))
        };
        let (with_log, log_size) = size_of_log(40, 1);
        vec![
            ("28".into(), size_of_log(28, 0)),
            ("32".into(), size_of_log(32, 0)),
            ("40".into(), size_of_log(40, 0)),
            ("with a level".into(), (with_log, u32::from(log_size > 0))),
            ("no such level".into(), size_of_log(40, 16)),
        ]
    });
}

/// The emulated bpffs is where others have theirs: these are asked of the emulator alone.
mod emulated {
    use super::{Ask, btf, prog, word};
    use mapemu::abi::{AttachType, Bpf, Cmd, Errno, MapType, ProgType};
    use mapemu::calls;
    use mapemu::sys::Kernel;

    use crate::common::{raw, small};
    use crate::prog_load::{EXIT, Load, ld_imm64, mov};

    const EGRESS: u32 = AttachType::CGROUP_INET_EGRESS.0;

    #[test]
    fn programs_and_links_are_pinned_and_btf_is_not() {
        let bpf = Kernel::new();
        let fd = prog(&bpf);
        assert_eq!(calls::bpf_obj_pin(&bpf, fd, "/sys/fs/bpf/prog"), Ok(()));
        let id = word(&Ask::new(232).run(&bpf, fd).2, 4);
        assert_eq!(bpf.close(fd), Ok(()));
        let again = calls::bpf_obj_get(&bpf, "/sys/fs/bpf/prog").expect("pinned");
        assert_eq!(word(&Ask::new(232).run(&bpf, again).2, 4), id);
        let pin = calls::bpf_obj_pin(&bpf, btf(&bpf).0, "/sys/fs/bpf/btf");
        assert_eq!(pin, Err(Errno::EINVAL));
    }

    /// The running kernel gives the same of its own form of the code.
    #[test]
    fn code_and_tags_in_the_info_of_a_program_are_cut_to_their_room() {
        let bpf = Kernel::new();
        let fd = small(&bpf, MapType::HASH);
        let id = calls::bpf_map_get_info_by_fd(&bpf, fd).expect("info").id;
        let insns = [&ld_imm64(1, 1, fd, 0)[..], &[mov(0, 0), EXIT]].concat();
        let load = Load::new(ProgType::SOCKET_FILTER, &insns);
        let prog = load.run(&bpf).0.expect("loaded");
        let (mut code, mut tags) = ([0; 40], [0; 16]);
        let ask = Ask::new(232)
            .buffer(32, 20, 1, &mut code)
            .buffer(184, 180, 8, &mut tags);
        let (answer, len, info) = ask.run(&bpf, prog);
        assert_eq!((answer, len), (Ok(0), 232));
        assert_eq!((word(&info, 20), word(&info, 180)), (32, 1));
        assert_eq!(tags[..8], info[8..16]);
        let expected = [&ld_imm64(1, 1, id, 0)[..], &[mov(0, 0), EXIT]]
            .concat()
            .concat();
        assert_eq!(code[..32], expected, "with the map's id");
        let mut short = [0; 12];
        let (answer, _, info) = Ask::new(232).buffer(32, 20, 1, &mut short).run(&bpf, prog);
        assert_eq!((answer, word(&info, 20)), (Ok(0), 32));
        assert_eq!(short, expected[..12]);
        let ask = Ask::new(232).word(20, 1).word(32, 1);
        assert_eq!(ask.run(&bpf, prog).0, Err(Errno::EFAULT));
    }

    #[test]
    fn fdinfo_has_the_kernels_lines() {
        let bpf = Kernel::new();
        let fd = prog(&bpf);
        let lines = bpf.fdinfo(fd).expect("a program");
        // As the running kernel shows the same program, but for what depends on the run and on compiling.
        let expected = "prog_type:\t1\nprog_jited:\t0\nprog_tag:\t59f4a931744dcdc6\nmemlock:\t4096\nprog_id:\t1\n\
            run_time_ns:\t0\nrun_cnt:\t0\nrecursion_misses:\t0\nverified_insns:\t2\n";
        assert_eq!(lines, expected);
        assert_eq!(bpf.fdinfo(btf(&bpf).0), Ok("btf_id:\t1\n".to_owned()));
        assert_eq!(bpf.fdinfo(0), Err(Errno::EINVAL));
    }

    /// A cgroup with two programs at it, and their ids.
    struct Attached {
        bpf: Kernel,
        cgroup: u32,
        progs: [u32; 2],
        ids: [u32; 2],
    }

    const NONE: u32 = 0xeeee_eeee;

    /// The answer; flags, count and revision; ids; flags of each.
    type Told = (mapemu::abi::Result<u32>, [u32; 3], [u32; 3], [u32; 3]);

    impl Attached {
        fn new() -> Self {
            let bpf = Kernel::new();
            let cgroup = bpf.cgroup_create("a", None).expect("new");
            let mut load = Load::new(ProgType::CGROUP_SKB, &[mov(0, 1), EXIT]);
            load.attach_type = EGRESS;
            let progs = [(); 2].map(|()| load.run(&bpf).0.expect("loaded"));
            let ids = progs.map(|fd| word(&Ask::new(232).run(&bpf, fd).2, 4));
            Self {
                bpf,
                cgroup,
                progs,
                ids,
            }
        }

        fn attach(&self) {
            for fd in self.progs {
                let attached = calls::bpf_prog_attach(&self.bpf, fd, self.cgroup, EGRESS, 2);
                assert_eq!(attached, Ok(()));
            }
        }

        fn query(&self, flags: u32, room: u32, with_flags: bool) -> Told {
            let (mut attr, mut ids, mut each) = ([0; 64], [0xee; 12], [0xee; 12]);
            let words = [
                (0, self.cgroup),
                (4, EGRESS),
                (8, flags),
                (24, room),
                (56, 0x55),
            ];
            for (at, word) in words {
                attr[at..at + 4].copy_from_slice(&u32::to_ne_bytes(word));
            }
            let mut mem = mapemu::abi::Memory::new();
            attr[16..24].copy_from_slice(&mem.output(&mut ids).to_ne_bytes());
            if with_flags {
                attr[32..40].copy_from_slice(&mem.output(&mut each).to_ne_bytes());
            }
            let addr = mem.output(&mut attr);
            let answer = self.bpf.bpf(Cmd::PROG_QUERY, addr, 64, &mut mem);
            drop(mem);
            let words = [word(&attr, 12), word(&attr, 24), word(&attr, 56)];
            let of = |bytes: &[u8]| [word(bytes, 0), word(bytes, 4), word(bytes, 8)];
            (answer, words, of(&ids), of(&each))
        }
    }

    /// These numbers are those that Linux 6.18.44 gave for the same calls.
    #[test]
    fn a_query_tells_what_is_attached_to_a_cgroup() {
        let at = Attached::new();
        let none = [NONE; 3];
        assert_eq!(at.query(0, 5, false), (Ok(0), [0, 0, 1], none, none));
        at.attach();
        assert_eq!(at.query(0, 0, false), (Ok(0), [2, 2, 3], none, none));
        let both = [at.ids[0], at.ids[1], NONE];
        let flags = [2, 2, NONE];
        assert_eq!(at.query(0, 5, true), (Ok(0), [2, 2, 3], both, flags));
        let one = [at.ids[0], NONE, NONE];
        let short = (Err(Errno::ENOSPC), [2, 2, 3], one, none);
        assert_eq!(at.query(0, 1, false), short);
        assert_eq!(at.query(1, 5, false), (Ok(0), [0, 2, 0], both, none));
        let effective = at.query(1, 5, true).0;
        assert_eq!(
            effective,
            Err(Errno::EINVAL),
            "flags are not told of all that run"
        );
    }

    /// As Linux 6.18.44 does, too.
    #[test]
    fn a_link_tells_its_program_and_its_cgroup_until_it_is_detached() {
        let at = Attached::new();
        at.attach();
        let bpf = &at.bpf;
        let mut attr = [at.progs[0], at.cgroup, EGRESS, 0]
            .map(u32::to_ne_bytes)
            .concat();
        let link = raw(bpf, Cmd::LINK_CREATE, &mut attr, 16).expect("a link");
        assert_eq!(at.query(0, 0, false).1, [2, 3, 4]);
        let (answer, len, info) = Ask::new(64).run(bpf, link);
        assert_eq!((answer, len), (Ok(0), 64));
        let told = [0, 4, 8, 16, 24].map(|at| word(&info, at));
        assert_eq!(told, [3, 1, at.ids[0], 2, EGRESS]);
        let lines = bpf.fdinfo(link).expect("a link");
        let begins = "link_type:\tcgroup\nlink_id:\t1\nprog_tag:\tb11459a0e11ca14c\n";
        assert!(lines.starts_with(begins), "{lines}");
        assert!(
            lines.ends_with("cgroup_id:\t2\nattach_type:\t1\n"),
            "{lines}"
        );
        assert_eq!(
            raw(bpf, Cmd::LINK_DETACH, &mut link.to_ne_bytes(), 4),
            Ok(0)
        );
        assert_eq!(
            word(&Ask::new(64).run(bpf, link).2, 16),
            0,
            "no cgroup any more"
        );
        assert_eq!(at.query(0, 0, false).1, [2, 2, 5]);
    }
}
