//! Properties: any run of operations has the same answers on the emulated and on the running kernel.
//!
//! `mapemu conform` makes the same operations, many more of them.

use mapemu::conform::{Both, Family, Step, run_numbers};
use mapemu::trace::Options;
use proptest::collection::vec;
use proptest::prelude::{Strategy, any};
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use crate::common::running_kernel;

/// A number for the map, and one for each operation: fewer and smaller ones are simpler.
fn numbers() -> impl Strategy<Value = (u64, Vec<u64>)> {
    (any::<u64>(), vec(any::<u64>(), 1..150))
}

/// The running kernel beside the emulated one has to give the same answers.
#[track_caller]
fn same_answers(family: &str) {
    if running_kernel().is_none() {
        return;
    }
    let family = Family::named(family).expect("a family of that name");
    let both = Both::new(Options::default()).expect("it was there just now");
    let config = Config {
        cases: 12,
        max_shrink_iters: 400,
        failure_persistence: None,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&numbers(), |(setup, numbers)| {
        let (mut told, mut difference) = (Vec::new(), None);
        run_numbers(&both, family, setup, &numbers, &mut |op, step, _| {
            told.push(op.to_string());
            match step {
                Step::Differs(found) => difference = Some(found.to_string()),
                Step::ToCome(what) => difference = Some(format!("to come: {what}")),
                Step::Same(_) | Step::Refused | Step::Skipped => {}
            }
        })
        .map_err(|stopped| TestCaseError::fail(stopped.to_string()))?;
        match difference {
            None => Ok(()),
            Some(difference) => {
                told.push(difference);
                Err(TestCaseError::fail(told.join("\n")))
            }
        }
    });
    if let Err(failed) = outcome {
        panic!("{failed}");
    }
}

/// A test for each family.
macro_rules! families {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                same_answers(stringify!($name));
            }
        )*

        #[test]
        fn every_family_has_a_test() {
            let tests = [$(stringify!($name)),*];
            for family in mapemu::conform::FAMILIES {
                assert!(tests.contains(&family.name), "{} has none", family.name);
            }
        }
    };
}

families! {
    hash
    array
    cgroup_storage
    percpu_cgroup_storage
    percpu_hash
    percpu_array
    lru_hash
    lru_percpu_hash
    lpm_trie
    array_of_maps
    hash_of_maps
    queue
    stack
    bloom_filter
    ringbuf
    user_ringbuf
    prog_array
    perf_event_array
    cgroup_array
    stack_trace
    devmap
    devmap_hash
    cpumap
    xskmap
    sockmap
    sockhash
    reuseport_sockarray
    sk_storage
    inode_storage
    task_storage
    cgrp_storage
    arena
    struct_ops
    insn_array
    rhash
    create
}
