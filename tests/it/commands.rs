//! What bpf(2) checks before a map is asked, and in which order.

use mapemu::abi::{Bpf, Cmd, Errno, MapType};
use mapemu::calls;

use crate::common::{
    BPF_ANY, BPF_F_LOCK, BPF_F_RDONLY, BPF_F_WRONLY, BPF_NOEXIST, NOT_OPEN, Pointer, delete, elem,
    lookup, on_both, queue, raw, same, small, small_with_flags, update,
};

const UNKNOWN: Cmd = Cmd(99);
const BPF_F_ZERO_SEED: u32 = 64;

#[test]
fn attr_size_comes_before_everything() {
    on_both(|bpf| {
        let mut page = [0; 4096];
        assert_eq!(raw(bpf, UNKNOWN, &mut page, 4097), Err(Errno::E2BIG));
        assert_eq!(raw(bpf, UNKNOWN, &mut page, 4096), Err(Errno::EINVAL));
        assert_eq!(raw(bpf, UNKNOWN, &mut page[..8], 16), Err(Errno::EFAULT));
        page[4000] = 1;
        assert_eq!(raw(bpf, UNKNOWN, &mut page, 4096), Err(Errno::E2BIG));
    });
}

#[test]
fn missing_bytes_of_an_attr_are_zero() {
    on_both(|bpf| {
        // fd 0 is open, and no map.
        let lookup = raw(bpf, Cmd::MAP_LOOKUP_ELEM, &mut [], 0);
        assert_eq!(lookup, Err(Errno::EINVAL));
        let create = raw(bpf, Cmd::MAP_CREATE, &mut [1], 1);
        assert_eq!(create, Err(Errno::EINVAL), "a hash without sizes");
    });
}

#[test]
fn bytes_after_the_last_field_come_before_the_fd() {
    on_both(|bpf| {
        let mut attr = [0; 40];
        attr[..4].copy_from_slice(&NOT_OPEN.to_ne_bytes());
        let lookup = |attr: &mut [u8; 40]| raw(bpf, Cmd::MAP_LOOKUP_ELEM, attr, 40);
        assert_eq!(lookup(&mut attr), Err(Errno::EBADF));
        attr[4] = 1;
        assert_eq!(lookup(&mut attr), Err(Errno::EBADF), "the padding is free");
        attr[32] = 1;
        assert_eq!(lookup(&mut attr), Err(Errno::EINVAL));
    });
}

#[test]
fn lookup_flags_come_before_the_fd_and_update_flags_after() {
    on_both(|bpf| {
        let to = |cmd, flags| {
            let (key, value) = (Pointer::Bad, Pointer::Bad);
            elem(bpf, cmd, NOT_OPEN, &key, &value, flags)
        };
        assert_eq!(to(Cmd::MAP_LOOKUP_ELEM, 8), Err(Errno::EINVAL));
        assert_eq!(to(Cmd::MAP_LOOKUP_ELEM, BPF_F_LOCK), Err(Errno::EBADF));
        assert_eq!(to(Cmd::MAP_LOOKUP_AND_DELETE_ELEM, 8), Err(Errno::EINVAL));
        assert_eq!(to(Cmd::MAP_UPDATE_ELEM, 8), Err(Errno::EBADF));
    });
}

#[test]
fn access_comes_before_key_and_value() {
    on_both(|bpf| {
        let read_only = small_with_flags(bpf, MapType::HASH, BPF_F_RDONLY);
        let write_only = small_with_flags(bpf, MapType::HASH, BPF_F_WRONLY);
        let to = |cmd, fd, flags| elem(bpf, cmd, fd, &Pointer::Bad, &Pointer::Bad, flags);
        assert_eq!(to(Cmd::MAP_UPDATE_ELEM, read_only, 72), Err(Errno::EPERM));
        assert_eq!(to(Cmd::MAP_DELETE_ELEM, read_only, 0), Err(Errno::EPERM));
        let lock = BPF_F_LOCK;
        assert_eq!(
            to(Cmd::MAP_LOOKUP_ELEM, write_only, lock),
            Err(Errno::EPERM)
        );
        for fd in [read_only, write_only] {
            let take = to(Cmd::MAP_LOOKUP_AND_DELETE_ELEM, fd, 0);
            assert_eq!(take, Err(Errno::EPERM));
        }
    });
}

#[test]
fn lock_flag_without_a_lock_comes_before_the_key() {
    on_both(|bpf| {
        let fd = small(bpf, MapType::HASH);
        for cmd in [
            Cmd::MAP_LOOKUP_ELEM,
            Cmd::MAP_UPDATE_ELEM,
            Cmd::MAP_LOOKUP_AND_DELETE_ELEM,
        ] {
            let answer = elem(bpf, cmd, fd, &Pointer::Bad, &Pointer::Bad, BPF_F_LOCK);
            assert_eq!(answer, Err(Errno::EINVAL), "{cmd}");
        }
    });
}

#[test]
fn a_missing_key_wins_over_a_bad_output_and_loses_to_a_bad_input() {
    on_both(|bpf| {
        let fd = small(bpf, MapType::HASH);
        let key = Pointer::To(4);
        let lookup = elem(bpf, Cmd::MAP_LOOKUP_ELEM, fd, &key, &Pointer::Bad, 0);
        assert_eq!(lookup, Err(Errno::ENOENT));
        let update = elem(bpf, Cmd::MAP_UPDATE_ELEM, fd, &key, &Pointer::Bad, 72);
        assert_eq!(update, Err(Errno::EFAULT), "the flags are judged later");
        let update = elem(bpf, Cmd::MAP_UPDATE_ELEM, fd, &key, &Pointer::To(8), 72);
        assert_eq!(update, Err(Errno::EINVAL));
        let short = elem(
            bpf,
            Cmd::MAP_LOOKUP_ELEM,
            fd,
            &Pointer::To(3),
            &Pointer::Null,
            0,
        );
        assert_eq!(short, Err(Errno::EFAULT));
    });
}

#[test]
fn an_element_is_gone_even_if_its_value_cannot_be_copied_out() {
    on_both(|bpf| {
        let fd = small(bpf, MapType::HASH);
        assert_eq!(update(bpf, fd, 0, 5, BPF_ANY), Ok(()));
        let (key, bad) = (Pointer::To(4), Pointer::Bad);
        let take = elem(bpf, Cmd::MAP_LOOKUP_AND_DELETE_ELEM, fd, &key, &bad, 0);
        assert_eq!(take, Err(Errno::EFAULT));
        assert_eq!(lookup(bpf, fd, 0), Err(Errno::ENOENT));
    });
}

#[test]
fn a_map_without_keys_takes_no_key_pointer() {
    on_both(|bpf| {
        let fd = queue(bpf);
        let push = |key: &Pointer| elem(bpf, Cmd::MAP_UPDATE_ELEM, fd, key, &Pointer::To(8), 0);
        assert_eq!(push(&Pointer::Bad), Err(Errno::EINVAL));
        assert_eq!(push(&Pointer::Null), Ok(0));
        let pop = |flags| {
            let (key, value) = (Pointer::Null, Pointer::To(8));
            elem(
                bpf,
                Cmd::MAP_LOOKUP_AND_DELETE_ELEM,
                fd,
                &key,
                &value,
                flags,
            )
        };
        assert_eq!(pop(BPF_F_LOCK), Err(Errno::EINVAL));
        assert_eq!(pop(0), Ok(0));
        assert_eq!(pop(0), Err(Errno::ENOENT));
    });
}

#[test]
fn a_frozen_map_is_read_only_to_system_calls() {
    on_both(|bpf| {
        let fd = small(bpf, MapType::HASH);
        assert_eq!(update(bpf, fd, 1, 5, BPF_ANY), Ok(()));
        assert_eq!(calls::bpf_map_freeze(bpf, fd), Ok(()));
        let again = calls::bpf_map_freeze(bpf, fd);
        assert_eq!(again, Err(Errno::EPERM), "not EBUSY");
        assert_eq!(update(bpf, fd, 1, 6, BPF_NOEXIST), Err(Errno::EPERM));
        assert_eq!(delete(bpf, fd, 1), Err(Errno::EPERM));
        assert_eq!(lookup(bpf, fd, 1), Ok(5));
    });
}

#[test]
fn a_batch_of_none_succeeds_before_pointers_are_read() {
    fn batch(bpf: &dyn Bpf, fd: u32, count: u32, elem_flags: u64) -> Result<u32, Errno> {
        let mut attr = [0; 56];
        attr[32..36].copy_from_slice(&count.to_ne_bytes());
        attr[36..40].copy_from_slice(&fd.to_ne_bytes());
        attr[40..48].copy_from_slice(&elem_flags.to_ne_bytes());
        raw(bpf, Cmd::MAP_UPDATE_BATCH, &mut attr, 56)
    }
    on_both(|bpf| {
        let fd = small(bpf, MapType::HASH);
        assert_eq!(batch(bpf, fd, 0, 0), Ok(0));
        assert_eq!(batch(bpf, fd, 1, 0), Err(Errno::EFAULT));
        assert_eq!(batch(bpf, fd, 0, BPF_NOEXIST), Err(Errno::EINVAL));
        let queue = queue(bpf);
        assert_eq!(batch(bpf, queue, 0, 9), Err(Errno::ENOTSUPP));
    });
}

#[test]
fn what_does_not_fit_is_written_as_far_as_it_goes() {
    same(|bpf| {
        let fd = small_with_flags(bpf, MapType::HASH, BPF_F_ZERO_SEED);
        for key in 0..4 {
            update(bpf, fd, key, u64::from(key) + 100, BPF_ANY).expect("room");
        }
        let mut answers = Vec::new();
        for (keys, values) in [(16, 32), (16, 20), (16, 16), (6, 32), (0, 32), (16, 0)] {
            let (mut keys, mut values, mut next) = (vec![0xee; keys], vec![0xee; values], [0; 4]);
            let name = format!("batch into {} and {} bytes", keys.len(), values.len());
            let done =
                calls::bpf_map_lookup_batch(bpf, fd, None, &mut next, &mut keys, &mut values, 4);
            let answer = format!("{done:?} {keys:?} {values:?} {next:?}");
            answers.push((name, answer));
        }
        for room in [8, 5, 0] {
            let mut value = vec![0xee; room];
            let key = 2_u32.to_ne_bytes();
            let answer = calls::bpf_map_lookup_elem(bpf, fd, &key, &mut value);
            answers.push((
                format!("lookup into {room} bytes"),
                format!("{answer:?} {value:?}"),
            ));
        }
        answers
    });
}
