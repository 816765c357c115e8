//! Queues and stacks.

use std::collections::VecDeque;

use mapemu::abi::{Bpf, Errno, Fd, MapType};
use mapemu::calls::{
    bpf_map_delete_elem, bpf_map_freeze, bpf_map_get_next_key,
    bpf_map_lookup_and_delete_elem_flags, bpf_map_lookup_elem, bpf_map_lookup_elem_flags,
    bpf_map_peek_elem, bpf_map_pop_elem, bpf_map_push_elem, bpf_map_update_elem,
};
use mapemu::sys::Kernel;
use proptest::prelude::*;

use crate::common::{map, on_both};

const ANY: u64 = 0;
const NOEXIST: u64 = 1;
const EXIST: u64 = 2;
const LOCK: u64 = 4;

const TYPES: [MapType; 2] = [MapType::QUEUE, MapType::STACK];

fn values(bpf: &dyn Bpf, map_type: MapType, max_entries: u32) -> Fd {
    map(bpf, map_type, 0, 4, max_entries, 0)
}

fn push(bpf: &dyn Bpf, fd: Fd, value: u32, flags: u64) -> Result<(), Errno> {
    bpf_map_push_elem(bpf, fd, &value.to_ne_bytes(), flags)
}

fn peek(bpf: &dyn Bpf, fd: Fd) -> Result<u32, Errno> {
    let mut value = [0; 4];
    bpf_map_peek_elem(bpf, fd, &mut value).map(|()| u32::from_ne_bytes(value))
}

fn pop(bpf: &dyn Bpf, fd: Fd) -> Result<u32, Errno> {
    let mut value = [0; 4];
    bpf_map_pop_elem(bpf, fd, &mut value).map(|()| u32::from_ne_bytes(value))
}

#[test]
fn a_queue_gives_the_oldest() {
    on_both(|bpf| {
        let fd = values(bpf, MapType::QUEUE, 2);
        assert_eq!(push(bpf, fd, 1, ANY), Ok(()));
        assert_eq!(push(bpf, fd, 2, ANY), Ok(()));
        assert_eq!(peek(bpf, fd), Ok(1));
        assert_eq!(pop(bpf, fd), Ok(1));
        assert_eq!(pop(bpf, fd), Ok(2));
        assert_eq!(pop(bpf, fd), Err(Errno::ENOENT));
    });
}

#[test]
fn a_stack_gives_the_newest() {
    on_both(|bpf| {
        let fd = values(bpf, MapType::STACK, 2);
        assert_eq!(push(bpf, fd, 1, ANY), Ok(()));
        assert_eq!(push(bpf, fd, 2, ANY), Ok(()));
        assert_eq!(peek(bpf, fd), Ok(2));
        assert_eq!(pop(bpf, fd), Ok(2));
        assert_eq!(pop(bpf, fd), Ok(1));
        assert_eq!(peek(bpf, fd), Err(Errno::ENOENT));
    });
}

#[test]
fn full_is_e2big_and_with_exist_the_oldest_goes() {
    on_both(|bpf| {
        for (map_type, left) in [(MapType::QUEUE, [2, 3]), (MapType::STACK, [3, 2])] {
            let fd = values(bpf, map_type, 2);
            assert_eq!(push(bpf, fd, 1, EXIST), Ok(()), "not full: as without it");
            assert_eq!(push(bpf, fd, 2, ANY), Ok(()));
            assert_eq!(push(bpf, fd, 3, ANY), Err(Errno::E2BIG));
            assert_eq!(push(bpf, fd, 3, EXIST), Ok(()));
            assert_eq!([pop(bpf, fd), pop(bpf, fd)], left.map(Ok));
            assert_eq!(pop(bpf, fd), Err(Errno::ENOENT));
        }
    });
}

#[test]
fn unknown_push_flags_are_einval() {
    on_both(|bpf| {
        for map_type in TYPES {
            let fd = values(bpf, map_type, 1);
            for flags in [NOEXIST, 3, LOCK, 8, 1 << 32, EXIST | 1 << 32] {
                assert_eq!(push(bpf, fd, 1, flags), Err(Errno::EINVAL), "{flags:#x}");
            }
        }
    });
}

#[test]
fn flags_of_peek_and_pop_are_einval() {
    on_both(|bpf| {
        for map_type in TYPES {
            let fd = values(bpf, map_type, 1);
            assert_eq!(push(bpf, fd, 1, ANY), Ok(()));
            for flags in [1, LOCK] {
                let mut value = [0; 4];
                let looked_up = bpf_map_lookup_elem_flags(bpf, fd, &[], &mut value, flags);
                assert_eq!(looked_up, Err(Errno::EINVAL));
                let popped = bpf_map_lookup_and_delete_elem_flags(bpf, fd, &[], &mut value, flags);
                assert_eq!(popped, Err(Errno::EINVAL));
            }
        }
    });
}

#[test]
fn keys_are_einval() {
    on_both(|bpf| {
        for map_type in TYPES {
            let fd = values(bpf, map_type, 1);
            let (key, mut value) = ([0; 4], [0; 4]);
            let updated = bpf_map_update_elem(bpf, fd, &key, &value, ANY);
            assert_eq!(updated, Err(Errno::EINVAL));
            let looked_up = bpf_map_lookup_elem(bpf, fd, &key, &mut value);
            assert_eq!(looked_up, Err(Errno::EINVAL));
            assert_eq!(bpf_map_delete_elem(bpf, fd, &key), Err(Errno::EINVAL));
            let next = bpf_map_get_next_key(bpf, fd, None, &mut value);
            assert_eq!(next, Err(Errno::EINVAL));
        }
    });
}

#[test]
fn frozen_values_can_be_seen_and_not_taken() {
    on_both(|bpf| {
        for map_type in TYPES {
            let fd = values(bpf, map_type, 2);
            assert_eq!(push(bpf, fd, 1, ANY), Ok(()));
            assert_eq!(bpf_map_freeze(bpf, fd), Ok(()));
            assert_eq!(push(bpf, fd, 2, ANY), Err(Errno::EPERM));
            assert_eq!(pop(bpf, fd), Err(Errno::EPERM));
            assert_eq!(peek(bpf, fd), Ok(1));
        }
    });
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Push(u32, bool),
    Peek,
    Pop,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (any::<u32>(), any::<bool>()).prop_map(|(value, replace)| Op::Push(value, replace)),
        1 => Just(Op::Peek),
        2 => Just(Op::Pop),
    ]
}

proptest! {
    /// Both are a bounded row of values.
    #[test]
    fn is_a_bounded_row(stack in any::<bool>(), max_entries in 1_u32..5, ops in prop::collection::vec(op(), 0..64)) {
        let kernel = Kernel::new();
        let fd = values(&kernel, TYPES[usize::from(stack)], max_entries);
        let mut model = VecDeque::new();
        for op in ops {
            let top = if stack { model.back() } else { model.front() };
            let top = top.copied().ok_or(Errno::ENOENT);
            match op {
                Op::Push(value, replace) => {
                    let full = model.len() == max_entries as usize;
                    let got = push(&kernel, fd, value, if replace { EXIST } else { ANY });
                    prop_assert_eq!(got, if full && !replace { Err(Errno::E2BIG) } else { Ok(()) });
                    if full && replace {
                        model.pop_front();
                    }
                    if !full || replace {
                        model.push_back(value);
                    }
                }
                Op::Peek => prop_assert_eq!(peek(&kernel, fd), top),
                Op::Pop => {
                    prop_assert_eq!(pop(&kernel, fd), top);
                    if stack { model.pop_back() } else { model.pop_front() };
                }
            }
        }
    }
}
