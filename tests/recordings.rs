//! All recordings that the project carries, replayed: one test for each family of 6.18.44, and one for each other release.
#![cfg(feature = "cli")]
#![expect(
    clippy::print_stderr,
    reason = "a failing test tells which steps failed"
)]

use std::collections::BTreeMap;

use mapemu::cli::{Recorded, recorded};
use mapemu::env::RELEASES;
use mapemu::trace::{Emulated, Options, TO_COME, Tally, Trace, Verdict, replay};

/// Wrong answers of one trace that are shown; the first ones explain the others.
const SHOWN: usize = 5;

/// A release, replayed family by family.
fn replay_release(release: &str) {
    let recorded = recorded().iter().find(|own| own.release == release);
    let recorded = recorded.expect("a release with recordings");
    let mut all = Tally::default();
    for family in recorded.families() {
        all.add(&replay_family(recorded, family));
    }
    judge(&all);
}

/// One family of 6.18.44.
fn replay_family_of_6_18_44(family: &str) {
    let recorded = recorded().iter().find(|own| own.release == "6.18.44");
    let recorded = recorded.expect("a release with recordings");
    judge(&replay_family(recorded, family));
}

fn judge(all: &Tally) {
    assert_eq!(
        all.failed, 0,
        "steps with another answer, {} with the same",
        all.passed
    );
    assert_eq!(
        all.refused_otherwise, 0,
        "steps that the verifier refuses otherwise"
    );
    assert!(all.passed > 0);
}

fn replay_family(recorded: &Recorded, family: &str) -> Tally {
    let mut all = Tally::default();
    let mut missing: BTreeMap<String, u64> = BTreeMap::new();
    let options = Options {
        release: Some(recorded.release.to_owned()),
        ..Options::default()
    };
    for (file, text) in recorded.traces(family) {
        let trace = Trace::parse(&text).unwrap_or_else(|broken| panic!("{file}:{broken}"));
        let mut world = Emulated::new(&trace.header, &options).expect("its release");
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
    let listed = |what: &String| TO_COME.contains(&what.as_str());
    missing.retain(|what, _| !listed(what));
    assert!(
        missing.is_empty(),
        "missing, and not in the list: {missing:#?}"
    );
    all
}

macro_rules! families {
    ($($test:ident = $name:literal;)*) => {
        $(#[test]
        fn $test() {
            replay_family_of_6_18_44($name);
        })*

        #[test]
        fn every_family_is_replayed() {
            let named = [$($name),*];
            for family in recorded()[0].families() {
                assert!(named.contains(&family), "no test replays {family}");
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

macro_rules! releases {
    ($($test:ident = $release:literal;)*) => {
        $(#[test]
        fn $test() {
            replay_release($release);
        })*

        #[test]
        fn every_release_is_replayed() {
            let named = ["6.18.44", $($release),*];
            let recorded: Vec<_> = recorded().iter().map(|own| own.release).collect();
            assert!(recorded.iter().all(|release| named.contains(release)));
            let emulated: Vec<_> = RELEASES.iter().map(|release| release.name).collect();
            assert_eq!(recorded, emulated, "each release that is emulated is proven");
        }
    };
}

releases! {
    linux_5_10_262 = "5.10.262";
    linux_6_1_192 = "6.1.192";
    linux_6_12_117 = "6.12.117";
    linux_6_18_15 = "6.18.15";
    linux_6_19_14 = "6.19.14";
    linux_7_0_13 = "7.0.13";
    linux_7_3_4 = "7.3.4";
}

/// What is missing is missing: nothing stays in the list that came.
#[test]
fn the_list_of_what_is_to_come_has_nothing_else() {
    if TO_COME.is_empty() {
        return;
    }
    let mut missing: Vec<String> = Vec::new();
    let traces = recorded().iter().flat_map(|recorded| {
        recorded
            .families()
            .flat_map(|family| recorded.traces(family))
    });
    for (_, text) in traces {
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
