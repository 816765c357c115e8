//! Arrays with a value for each CPU.

use mapemu::abi::{Bpf, Errno, Fd, MapType, UpdateFlags};
use mapemu::calls;
use mapemu::helper::Prog;
use mapemu::sys::Kernel;

use crate::common::{BPF_ANY, BPF_F_LOCK, BPF_NOEXIST, delete, map, on_both};

/// Values of 5 bytes: each CPU's part has 8.
fn odd(bpf: &dyn Bpf) -> Fd {
    map(bpf, MapType::PERCPU_ARRAY, 4, 5, 2, 0)
}

fn set(bpf: &dyn Bpf, fd: Fd, index: u32, value: &[u8], flags: u64) -> Result<(), Errno> {
    calls::bpf_map_update_elem(bpf, fd, &index.to_ne_bytes(), value, flags)
}

fn get(bpf: &dyn Bpf, fd: Fd, index: u32) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 8 * bpf.nr_cpus() as usize];
    calls::bpf_map_lookup_elem(bpf, fd, &index.to_ne_bytes(), &mut value).map(|()| value)
}

#[test]
fn user_space_has_a_part_for_each_cpu_and_what_fills_it_up() {
    on_both(|bpf| {
        let fd = odd(bpf);
        let n_bytes = u8::try_from(8 * bpf.nr_cpus()).expect("few CPUs");
        let value: Vec<u8> = (1..=n_bytes).collect();
        assert_eq!(set(bpf, fd, 1, &value, BPF_ANY), Ok(()));
        assert_eq!(get(bpf, fd, 1), Ok(value.clone()));
        assert_eq!(get(bpf, fd, 0), Ok(vec![0; value.len()]));
        let short = set(bpf, fd, 1, &value[..value.len() - 1], BPF_ANY);
        assert_eq!(short, Err(Errno::EFAULT), "all parts are read");
    });
}

#[test]
fn flags_and_indexes_are_judged_as_in_an_array() {
    on_both(|bpf| {
        let fd = odd(bpf);
        let value = vec![0; 8 * bpf.nr_cpus() as usize];
        assert_eq!(set(bpf, fd, 2, &value, BPF_NOEXIST), Err(Errno::E2BIG));
        assert_eq!(set(bpf, fd, 2, &value, 3), Err(Errno::EINVAL));
        assert_eq!(set(bpf, fd, 1, &value, BPF_NOEXIST), Err(Errno::EEXIST));
        assert_eq!(set(bpf, fd, 2, &value, BPF_F_LOCK), Err(Errno::EINVAL));
        assert_eq!(set(bpf, fd, 1, &value, 8), Err(Errno::EINVAL));
        assert_eq!(get(bpf, fd, 2), Err(Errno::ENOENT));
        assert_eq!(delete(bpf, fd, 0), Err(Errno::EINVAL));
    });
}

#[test]
fn a_program_writes_the_value_of_its_cpu_only() {
    let kernel = &Kernel::new();
    let fd = odd(kernel);
    assert_eq!(set(kernel, fd, 0, &[9; 16], BPF_ANY), Ok(()));
    let array = kernel.map(fd).expect("a map");
    let key = 0_u32.to_ne_bytes();
    let prog = Prog::sched_cls(1);
    let update = |flags| prog.map_update_elem(&array, &key, &[1; 5], flags);
    assert_eq!(update(UpdateFlags::ANY), Ok(()));
    let told = [[9; 8], [1, 1, 1, 1, 1, 9, 9, 9]].concat();
    assert_eq!(get(kernel, fd, 0), Ok(told), "the rest of its part stays");
    let both = UpdateFlags::LOCK | UpdateFlags::NOEXIST;
    assert_eq!(update(both), Err(Errno::EEXIST));
    assert_eq!(update(UpdateFlags::LOCK), Err(Errno::EINVAL));
    let own = prog.map_lookup_elem(&array, &key).expect("an element");
    assert_eq!(own.to_vec(), [1; 5]);
}

#[test]
fn a_program_reaches_the_value_of_any_cpu() {
    let kernel = &Kernel::new();
    let fd = odd(kernel);
    let array = kernel.map(fd).expect("a map");
    let prog = Prog::sched_cls(0);
    let of_cpu = |index: u32, cpu| prog.map_lookup_percpu_elem(&array, &index.to_ne_bytes(), cpu);
    of_cpu(1, 1).expect("an element").store_u8(0, 4);
    let mut told = vec![0; 16];
    told[8] = 4;
    assert_eq!(get(kernel, fd, 1), Ok(told));
    assert!(of_cpu(1, 2).is_none(), "there are two CPUs");
    assert!(of_cpu(2, 0).is_none(), "there are two elements");
    let mut parts = Vec::new();
    let calls = Prog::sched_cls(1).for_each_map_elem(&array, 0, |_, value| {
        parts.push(value.load_u8(0));
        true
    });
    assert_eq!((calls, parts), (Ok(2), vec![0, 4]));
}

#[test]
fn batches_have_all_parts() {
    on_both(|bpf| {
        let fd = odd(bpf);
        let size = 8 * bpf.nr_cpus() as usize;
        let keys = [0_u32.to_ne_bytes(), 1_u32.to_ne_bytes()].concat();
        let values = [vec![1; size], vec![2; size]].concat();
        let written = calls::bpf_map_update_batch(bpf, fd, &keys, &values, 2, BPF_ANY);
        assert_eq!((written.count, written.result), (2, Ok(())));
        let (mut token, mut keys_read, mut read) = ([0; 4], [0; 8], vec![0; 2 * size]);
        let done =
            calls::bpf_map_lookup_batch(bpf, fd, None, &mut token, &mut keys_read, &mut read, 2);
        assert_eq!(
            (done.count, done.result),
            (2, Ok(())),
            "no more than asked for"
        );
        assert_eq!((&keys_read[..], read), (&keys[..], values));
    });
}
