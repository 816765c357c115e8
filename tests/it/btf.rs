//! BTF: what `BPF_BTF_LOAD` refuses, and the special fields of values.

use mapemu::abi::{Bpf, Errno, Fd, MapType, Result};
use mapemu::btf::{Btf, Writer};
use mapemu::calls::{self, CreateOpts};
use mapemu::env::LINUX_6_18_44;

use crate::common::on_both;

const BPF_F_LOCK: u64 = 4;

/// A type with its words after the first three.
type RawType<'a> = (&'a str, u32, u32, &'a [u32]);

const INT: u32 = 1 << 24;
const PTR: u32 = 2 << 24;
const STRUCT: u32 = 4 << 24;
const TYPEDEF: u32 = 8 << 24;
const TYPE_TAG: u32 = 18 << 24;

/// The blob of some types, whose ids count from 1.
fn blob(types: &[RawType<'_>]) -> Vec<u8> {
    let mut words: Vec<u32> = Vec::new();
    let mut strings = vec![0];
    for (name, info, size_or_type, extra) in types {
        let offset = if name.is_empty() { 0 } else { strings.len() };
        words.extend([u32::try_from(offset).expect("short"), *info, *size_or_type]);
        words.extend(*extra);
        if !name.is_empty() {
            strings.extend(name.bytes());
            strings.push(0);
        }
    }
    let types_len = u32::try_from(words.len() * 4).expect("short");
    let strings_len = u32::try_from(strings.len()).expect("short");
    let mut blob = vec![0x9f, 0xeb, 1, 0];
    for word in [24, 0, types_len, types_len, strings_len]
        .iter()
        .chain(&words)
    {
        blob.extend(word.to_le_bytes());
    }
    blob.extend(strings);
    blob
}

fn load(bpf: &dyn Bpf, types: &[RawType<'_>]) -> Result<Fd> {
    calls::bpf_btf_load(bpf, &blob(types))
}

const U32: RawType<'_> = ("u32", INT, 4, &[32]);
const LOCK: RawType<'_> = ("bpf_spin_lock", STRUCT, 4, &[]);

#[test]
fn two_locks_in_one_struct_are_e2big() {
    on_both(|bpf| {
        let value = ("v", STRUCT | 2, 8, &[0, 2, 0, 0, 2, 32][..]);
        assert_eq!(load(bpf, &[U32, LOCK, value]).err(), Some(Errno::E2BIG));
    });
}

#[test]
fn a_lock_that_is_not_aligned_is_efault() {
    on_both(|bpf| {
        let value = ("v", STRUCT | 1, 8, &[0, 2, 16][..]);
        assert_eq!(load(bpf, &[U32, LOCK, value]).err(), Some(Errno::EFAULT));
    });
}

#[test]
fn a_type_that_contains_itself_is_eexist() {
    on_both(|bpf| {
        let loops = ("loops", TYPEDEF, 1, &[][..]);
        assert_eq!(load(bpf, &[loops]).err(), Some(Errno::EEXIST));
        let through_pointer = [("s", STRUCT | 1, 8, &[0, 2, 0][..]), ("", PTR, 1, &[])];
        assert_eq!(load(bpf, &through_pointer).err(), None, "a pointer ends it");
    });
}

#[test]
fn a_reference_kptr_to_a_kernel_struct_without_destructor_is_enoent() {
    on_both(|bpf| {
        let value_of = |name: &'static str, tag: &'static str| {
            [
                (name, STRUCT, 8, &[][..]),
                (tag, TYPE_TAG, 1, &[]),
                ("", PTR, 2, &[]),
                ("v", STRUCT | 1, 8, &[0, 3, 0]),
            ]
        };
        assert_eq!(
            load(bpf, &value_of("sk_buff", "kptr")).err(),
            Some(Errno::ENOENT)
        );
        assert_eq!(
            load(bpf, &value_of("sk_buff", "kptr_untrusted")).err(),
            None
        );
        assert_eq!(load(bpf, &value_of("task_struct", "kptr")).err(), None);
        assert_eq!(load(bpf, &value_of("of_the_program", "kptr")).err(), None);
    });
}

#[test]
fn an_unknown_version_is_enotsupp_and_a_longer_header_with_bytes_e2big() {
    on_both(|bpf| {
        let mut version = blob(&[U32]);
        version[2] = 2;
        assert_eq!(
            calls::bpf_btf_load(bpf, &version).err(),
            Some(Errno::ENOTSUPP)
        );
        let mut longer = blob(&[U32]);
        longer[4] = 28;
        assert_eq!(calls::bpf_btf_load(bpf, &longer).err(), Some(Errno::E2BIG));
    });
}

#[test]
fn a_lock_shows_as_zeros_and_is_left_alone() {
    on_both(|bpf| {
        let mut btf = Writer::new();
        let u32_id = btf.int("u32", 4);
        let lock_id = btf.structure("bpf_spin_lock", 4, &[("val", u32_id, 0)]);
        let value_id = btf.structure(
            "v",
            12,
            &[("a", u32_id, 0), ("lock", lock_id, 4), ("b", u32_id, 8)],
        );
        let opts = CreateOpts {
            btf_fd: calls::bpf_btf_load(bpf, &btf.finish()).expect("BTF"),
            btf_key_type_id: u32_id,
            btf_value_type_id: value_id,
            ..CreateOpts::default()
        };
        let map = calls::bpf_map_create(bpf, MapType::HASH, "", 4, 12, 1, &opts).expect("a map");
        for flags in [0, BPF_F_LOCK] {
            calls::bpf_map_update_elem(bpf, map, &[0; 4], &[0xff; 12], flags).expect("update");
            let mut value = [0x55; 12];
            calls::bpf_map_lookup_elem(bpf, map, &[0; 4], &mut value).expect("lookup");
            assert_eq!(value, *b"\xff\xff\xff\xff\0\0\0\0\xff\xff\xff\xff");
        }
    });
}

#[test]
fn no_bytes_make_it_panic() {
    // A small generator, so that each run is the same one.
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(state >> 33).expect("31 bits")
    };
    let base = blob(&[
        U32,
        LOCK,
        ("v", STRUCT | 2, 16, &[0, 2, 0, 0, 4, 64]),
        ("", PTR, 3, &[]),
        ("t", TYPEDEF, 3, &[]),
    ]);
    for _ in 0..20_000 {
        let mut bytes = base.clone();
        for _ in 0..1 + next() % 4 {
            let at = next() % bytes.len();
            bytes[at] = u8::try_from(next() % 256).expect("a byte");
        }
        bytes.truncate(bytes.len() - next() % 3);
        if let Ok(btf) = Btf::parse(&bytes, 1, LINUX_6_18_44) {
            for id in 0..8 {
                let fields = btf.fields(id);
                let size = btf.type_size(id).unwrap_or(0).min(1 << 16);
                if !fields.is_empty() {
                    fields.hide(&mut vec![0; size as usize]);
                }
            }
        }
    }
}
