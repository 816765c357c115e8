//! All recordings that the project carries, replayed: one test for each family.
#![cfg(feature = "cli")]
#![expect(
    clippy::print_stderr,
    reason = "a failing test tells which steps failed"
)]

use std::collections::BTreeMap;

use mapemu::cli::families;
use mapemu::trace::{Emulated, Options, TO_COME, Tally, Trace, Verdict, replay};

/// Wrong answers of one trace that are shown; the first ones explain the others.
const SHOWN: usize = 5;

fn replay_family(name: &str) {
    let mut all = Tally::default();
    let mut missing: BTreeMap<String, u64> = BTreeMap::new();
    let family = families().iter().find(|family| family.name == name);
    for (file, text) in family.expect("a family of recordings").traces() {
        let trace = Trace::parse(&text).unwrap_or_else(|broken| panic!("{file}:{broken}"));
        let mut world = Emulated::new(&trace.header, &Options::default()).expect("its release");
        let mut shown = 0;
        let tally = replay(&trace, &mut world, &mut |number, verdict| match verdict {
            Verdict::Failed {
                request,
                recorded,
                emulated,
            } if shown < SHOWN => {
                shown += 1;
                eprintln!("{file}:{number}: {request:?}\n  {recorded}\n  {emulated}");
            }
            Verdict::Skipped { same: false } => eprintln!("{file}:{number}: refused otherwise"),
            Verdict::ToCome(what) => *missing.entry(what.clone()).or_default() += 1,
            Verdict::Passed | Verdict::Failed { .. } | Verdict::Skipped { .. } => {}
        });
        all.add(&tally.unwrap_or_else(|broken| panic!("{file}:{broken}")));
    }
    assert_eq!(
        all.failed, 0,
        "steps with another answer, {} with the same",
        all.passed
    );
    assert_eq!(
        all.refused_otherwise, 0,
        "steps that the verifier refuses otherwise"
    );
    let listed = |what: &String| TO_COME.contains(&what.as_str());
    missing.retain(|what, _| !listed(what));
    assert!(
        missing.is_empty(),
        "missing, and not in the list: {missing:#?}"
    );
    assert!(all.passed > 0);
}

macro_rules! families {
    ($($test:ident = $name:literal;)*) => {
        $(#[test]
        fn $test() {
            replay_family($name);
        })*

        #[test]
        fn every_family_is_replayed() {
            let named = [$($name),*];
            for family in families() {
                assert!(named.contains(&family.name), "no test replays {}", family.name);
            }
        }
    };
}

families! {
    array = "array";
    array_of_maps = "array-of-maps";
    bloom = "bloom";
    cgroup_storage = "cgroup-storage";
    command = "command";
    command_attr = "command-attr";
    command_batch = "command-batch";
    command_flags = "command-flags";
    create = "create";
    create_order = "create-order";
    hash = "hash";
    hash_batch = "hash-batch";
    hash_ext = "hash-ext";
    hash_of_maps = "hash-of-maps";
    helper = "helper";
    helper_for_each = "helper-for-each";
    local_storage = "local-storage";
    lock = "lock";
    lpm = "lpm";
    lru = "lru";
    lru_percpu = "lru-percpu";
    other = "other";
    other_create = "other-create";
    percpu_hash = "percpu-hash";
    queue = "queue";
    ringbuf = "ringbuf";
    stack = "stack";
}

/// What is missing is missing: nothing stays in the list that came.
#[test]
fn the_list_of_what_is_to_come_has_nothing_else() {
    if TO_COME.is_empty() {
        return;
    }
    let mut missing: Vec<String> = Vec::new();
    for (_, text) in families().iter().flat_map(|family| family.traces()) {
        let trace = Trace::parse(&text).expect("a trace");
        let mut world = Emulated::new(&trace.header, &Options::default()).expect("its release");
        let replayed = replay(&trace, &mut world, &mut |_, verdict| {
            if let Verdict::ToCome(what) = verdict {
                missing.push(what.clone());
            }
        });
        replayed.expect("a trace");
    }
    for what in TO_COME {
        assert!(
            missing.iter().any(|own| own == what),
            "{what} is not missing any more"
        );
    }
}
