//! What a program holds, and whether it may: maps by type, arenas, BTF; the programs of a map.

use std::time::Duration;

use mapemu::abi::{Bpf, Cmd, Fd, MapRequest, MapType, ProgType, Result};
use mapemu::btf::Writer;
use mapemu::calls::{self, CreateOpts, bpf_map_create};

use crate::common::{map, on_both, raw, same, small};
use crate::objects::Ask;
use crate::prog_load::{EXIT, Insn, Load, call, insn, ld_imm64, mov};

const SLEEPABLE: u32 = 1 << 4;
const HAS_FRAGS: u32 = 1 << 5;
const MMAPABLE: u32 = 1 << 10;

/// A program that names that map.
fn naming(prog_type: ProgType, src: u8, map: Fd, off: u32) -> Load {
    let insns = [&ld_imm64(1, src, map, off)[..], &[mov(0, 0), EXIT]].concat();
    Load::new(prog_type, &insns)
}

#[test]
fn programs_that_sleep_use_some_types_of_maps() {
    /// Type, sizes, flags.
    const TYPES: [(u32, u32, u32, u32); 24] = [
        (1, 4, 8, 0),
        (2, 4, 8, 0),
        (3, 4, 4, 0),
        (4, 4, 4, 0),
        (5, 4, 8, 0),
        (6, 4, 8, 0),
        (7, 4, 8, 0),
        (8, 4, 4, 0),
        (9, 4, 8, 0),
        (10, 4, 8, 0),
        (11, 8, 8, 1),
        (12, 4, 4, 0),
        (13, 4, 4, 0),
        (14, 4, 4, 0),
        (15, 4, 4, 0),
        (16, 4, 4, 0),
        (17, 4, 4, 0),
        (18, 4, 4, 0),
        (20, 4, 8, 0),
        (22, 0, 8, 0),
        (23, 0, 8, 0),
        (25, 4, 4, 0),
        (27, 0, 0, 0),
        (30, 0, 8, 0),
    ];
    same(|bpf| {
        let inner = small(bpf, MapType::HASH);
        let mut answers = Vec::new();
        for (number, key_size, value_size, map_flags) in TYPES {
            let opts = CreateOpts {
                map_flags,
                inner_map_fd: if matches!(number, 12 | 13) { inner } else { 0 },
                ..CreateOpts::default()
            };
            let (map_type, entries) = (MapType(number), if number == 27 { 4096 } else { 4 });
            let fd = bpf_map_create(bpf, map_type, "", key_size, value_size, entries, &opts);
            let fd = fd.expect("a map");
            let sleeps = naming(ProgType::SYSCALL, 1, fd, 0).word(44, SLEEPABLE);
            answers.push((format!("{map_type} named"), sleeps.try_on(bpf)));
            let mut held = Load::new(ProgType::SYSCALL, &[mov(0, 0), EXIT]).word(44, SLEEPABLE);
            held.fd_array = vec![fd];
            answers.push((format!("{map_type} held"), held.word(148, 1).try_on(bpf)));
            let awake = naming(ProgType::XDP, 1, fd, 0);
            answers.push((format!("{map_type}, no sleep"), awake.try_on(bpf)));
        }
        answers
    });
}

#[test]
fn an_arena_is_used_once_it_has_an_address_and_alone() {
    same(|bpf| {
        let [one, other] = [(); 2].map(|()| map(bpf, MapType::ARENA, 0, 0, 1, MMAPABLE));
        let mut answers = Vec::new();
        let mut ask = |name: &str, load: Load| answers.push((name.to_owned(), load.try_on(bpf)));
        ask("no address", naming(ProgType::SCHED_CLS, 1, one, 0));
        ask(
            "no address, value",
            naming(ProgType::SCHED_CLS, 2, one, 4097),
        );
        let mapped = [one, other].map(|fd| bpf.mmap(fd, MapRequest::shared(0, 4096, true)));
        for off in [0, 4095, 4096, 4097, (1 << 29) - 1, 1 << 29] {
            ask(
                &format!("offset {off}"),
                naming(ProgType::SCHED_CLS, 2, one, off),
            );
        }
        let two = [
            &ld_imm64(1, 1, one, 0)[..],
            &ld_imm64(1, 1, other, 0),
            &[mov(0, 0), EXIT],
        ];
        ask("two", Load::new(ProgType::SCHED_CLS, &two.concat()));
        drop(mapped);
        answers
    });
}

/// A map whose value is a `struct bpf_spin_lock`.
fn of_locks(bpf: &dyn Bpf) -> Fd {
    let mut writer = Writer::new();
    let number = writer.int("int", 4);
    let lock = writer.structure("bpf_spin_lock", 4, &[("val", number, 0)]);
    let value = writer.structure("value", 4, &[("lock", lock, 0)]);
    let opts = CreateOpts {
        btf_fd: calls::bpf_btf_load(bpf, &writer.finish()).expect("it is right"),
        btf_key_type_id: number,
        btf_value_type_id: value,
        ..CreateOpts::default()
    };
    bpf_map_create(bpf, MapType::ARRAY, "", 4, 4, 1, &opts).expect("a map")
}

#[test]
fn a_map_of_locks_is_not_for_all_programs() {
    same(|bpf| {
        let fd = of_locks(bpf);
        let types = (1..=17).filter(|number| *number != 8).map(ProgType);
        types
            .map(|prog_type| {
                (
                    format!("{prog_type}"),
                    naming(prog_type, 1, fd, 0).try_on(bpf),
                )
            })
            .collect()
    });
}

#[test]
fn while_fds_are_looked_at_the_programs_hash_is_zeros() {
    /// The SHA-256 of `mov r0, 0; exit`.
    const HASH: [u8; 32] = [
        0x59, 0xf4, 0xa9, 0x31, 0x74, 0x4d, 0xcd, 0xc6, 0x29, 0x44, 0xa0, 0x18, 0xed, 0x39, 0x90,
        0xe6, 0x66, 0xec, 0x64, 0x44, 0x61, 0x64, 0x18, 0xd3, 0xb0, 0x9a, 0x82, 0xdc, 0x5c, 0x75,
        0x3d, 0x52,
    ];
    same(|bpf| {
        let hold = |hash| {
            let fd = crate::prog_load::exclusive(bpf, MapType::HASH, hash).expect("a map");
            let mut load = Load::new(ProgType::SOCKET_FILTER, &[mov(0, 0), EXIT]).word(148, 1);
            load.fd_array = vec![fd];
            load.try_on(bpf)
        };
        vec![
            ("its own".into(), hold(&HASH)),
            ("zeros".into(), hold(&[0; 32])),
        ]
    });
}

fn number() -> Vec<u8> {
    let mut writer = Writer::new();
    writer.int("int", 4);
    writer.finish()
}

#[test]
fn a_program_holds_btf_among_its_fds() {
    on_both(|bpf| {
        let btf = calls::bpf_btf_load(bpf, &number()).expect("loaded");
        let (_, _, info) = Ask::new(32).run(bpf, btf);
        let mut load = Load::new(ProgType::SOCKET_FILTER, &[mov(0, 0), EXIT]).word(148, 1);
        load.fd_array = vec![btf];
        let prog = load.run(bpf).0.expect("loaded");
        bpf.close(btf).expect("open");
        // The kernel frees what nobody holds a little later.
        std::thread::sleep(Duration::from_millis(100));
        let mut attr = [0; 16];
        attr[..4].copy_from_slice(&info[12..16]);
        let again = raw(bpf, Cmd::BTF_GET_FD_BY_ID, &mut attr, 16).expect("it is held");
        for fd in [again, prog] {
            bpf.close(fd).expect("open");
        }
    });
}

#[test]
fn fds_to_hold_are_few() {
    same(|bpf| {
        let btfs: Vec<Fd> = (0..65)
            .map(|_| calls::bpf_btf_load(bpf, &number()).expect("loaded"))
            .collect();
        let hold = |fds: &[Fd], count: usize| {
            let count = u32::try_from(count).expect("small");
            let mut load = Load::new(ProgType::SOCKET_FILTER, &[mov(0, 0), EXIT]).word(148, count);
            load.fd_array = fds.to_vec();
            load.try_on(bpf)
        };
        vec![
            ("64".into(), hold(&btfs[..64], 64)),
            ("65".into(), hold(&btfs, 65)),
            ("one often".into(), hold(&[btfs[0]; 70], 70)),
            ("too many".into(), hold(&btfs, 0x3fff_ffff)),
            (
                "as many as there are numbers".into(),
                hold(&btfs, 0xffff_ffff),
            ),
        ]
    });
}

#[test]
fn an_index_may_be_negative() {
    same(|bpf| {
        let hash = small(bpf, MapType::HASH);
        let insns = [&ld_imm64(1, 5, u32::MAX, 0)[..], &[mov(0, 0), EXIT]].concat();
        let mut load = Load::new(ProgType::SOCKET_FILTER, &insns);
        load.fd_array = vec![hash, 0];
        load.fd_array_at = 4;
        let mut not_open = naming(ProgType::SOCKET_FILTER, 1, u32::MAX, 0);
        not_open.log = (1, 4096);
        let (answer, log, _) = not_open.run(bpf);
        assert!(
            log.contains("fd -1 is not pointing to valid bpf_map\n"),
            "{log}"
        );
        vec![
            ("the one before".into(), load.try_on(bpf)),
            ("no fd".into(), answer.map(drop)),
        ]
    });
}

/// Puts a program into an array.
fn put(bpf: &dyn Bpf, array: Fd, index: u32, load: &Load) -> Result<()> {
    let prog = load.run(bpf).0?;
    calls::bpf_map_update_elem(bpf, array, &index.to_ne_bytes(), &prog.to_ne_bytes(), 0)
}

#[test]
fn programs_of_an_array_all_take_fragments_or_none_does() {
    same(|bpf| {
        let plain = Load::new(ProgType::XDP, &[mov(0, 0), EXIT]);
        let frags = plain.clone().word(44, HAS_FRAGS);
        let mut answers = Vec::new();
        for (first, second) in [(&plain, &frags), (&frags, &plain), (&frags, &frags)] {
            let array = map(bpf, MapType::PROG_ARRAY, 4, 4, 2, 0);
            answers.push(("first".into(), put(bpf, array, 0, first)));
            answers.push(("second".into(), put(bpf, array, 1, second)));
            let jumps: Vec<Insn> = [
                &ld_imm64(2, 1, array, 0)[..],
                &[mov(3, 0), call(12), mov(0, 0), EXIT],
            ]
            .concat();
            let jumps = Load::new(ProgType::XDP, &jumps);
            answers.push(("uses it".into(), jumps.try_on(bpf)));
            let jumps = jumps.word(44, HAS_FRAGS);
            answers.push(("uses it, with fragments".into(), jumps.try_on(bpf)));
        }
        let sleeps = Load::new(ProgType::KPROBE, &[mov(0, 0), EXIT]);
        let array = map(bpf, MapType::PROG_ARRAY, 4, 4, 2, 0);
        answers.push(("awake".into(), put(bpf, array, 0, &sleeps)));
        let sleeps = sleeps.word(44, SLEEPABLE);
        answers.push(("asleep".into(), put(bpf, array, 1, &sleeps)));
        answers
    });
}

#[test]
fn what_is_not_loaded_takes_no_id() {
    on_both(|bpf| {
        let id = |fd, at: usize, len| {
            let (_, _, info) = Ask::new(len).run(bpf, fd);
            u32::from_ne_bytes(info[at..at + 4].try_into().expect("4 bytes"))
        };
        let first = calls::bpf_btf_load(bpf, &number()).expect("loaded");
        let mut wrong = number();
        wrong[24..28].fill(0xff);
        assert!(calls::bpf_btf_load(bpf, &wrong).is_err());
        let second = calls::bpf_btf_load(bpf, &number()).expect("loaded");
        // Other tests load BTF on the running kernel meanwhile.
        assert!(id(second, 12, 32) > id(first, 12, 32));
    });
    let bpf = mapemu::sys::Kernel::new();
    let ids: Vec<u32> = (0..2)
        .map(|_| {
            let mut wrong = number();
            wrong[24..28].fill(0xff);
            assert!(calls::bpf_btf_load(&bpf, &wrong).is_err());
            let fd = calls::bpf_btf_load(&bpf, &number()).expect("loaded");
            let (_, _, info) = Ask::new(32).run(&bpf, fd);
            u32::from_ne_bytes(info[12..16].try_into().expect("4 bytes"))
        })
        .collect();
    assert_eq!(ids, [1, 2]);
}

#[test]
fn calls_are_of_three_kinds_and_functions_at_most_256() {
    same(|bpf| {
        let mut answers = Vec::new();
        let mut ask = |name: String, insns: &[Insn]| {
            answers.push((name, Load::new(ProgType::SOCKET_FILTER, insns).try_on(bpf)));
        };
        for src in 2..11 {
            ask(format!("kind {src}"), &[insn(0x85, 0, src, 0, 1), EXIT]);
        }
        for (id, off) in [(-1, 0), (i32::MAX, 0), (1, 1), (1, -1)] {
            ask(format!("{id} at {off}"), &[insn(0x85, 0, 2, off, id), EXIT]);
        }
        for functions in [255_i32, 256, 257] {
            let others = functions - 1;
            let calls = (0..others).map(|at| insn(0x85, 0, 1, 0, others - at + 1 + 2 * at));
            let mut insns: Vec<Insn> = calls.collect();
            for _ in 0..functions {
                insns.extend([mov(0, 0), EXIT]);
            }
            ask(format!("{functions} functions"), &insns);
        }
        answers
    });
}

#[test]
fn a_size_without_a_signature_and_btf_to_attach_to() {
    same(|bpf| {
        let btf = calls::bpf_btf_load(bpf, &number()).expect("loaded");
        let plain = Load::new(ProgType::SOCKET_FILTER, &[mov(0, 0), EXIT]);
        let tracing = Load::new(ProgType::TRACING, &[mov(0, 0), EXIT]);
        vec![
            ("size".into(), plain.clone().word(160, 5).try_on(bpf)),
            ("filter".into(), plain.word(112, btf).try_on(bpf)),
            (
                "tracing".into(),
                tracing.word(112, btf).word(108, 1).try_on(bpf),
            ),
        ]
    });
}
