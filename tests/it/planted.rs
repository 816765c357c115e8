//! Planted errors: one wrong answer in each type of map is found by random runs, and shrunk to a few operations.

use mapemu::abi::{Cmd, Errno};
use mapemu::conform::{Both, Case, Chance, FAMILIES, Family, TwoWorlds, Worlds, shrink};
use mapemu::trace::{Emulated, Header, Options, World};

use crate::common::running_kernel;
use crate::faulty::{Fault, Faulty};

/// Operations that are left at most, those that make the map among them.
const MOST_LEFT: usize = 10;

/// Runs in which an error has to be found.
const CASES: usize = 60;

/// Operations of a run.
const STEPS: usize = 150;

/// The running kernel where it is there, else the emulated one; beside it, the one with an error.
struct Planted {
    fault: Fault,
    running: Option<Both>,
}

impl Planted {
    fn emulated() -> Result<Emulated, String> {
        let header = Header {
            name: String::new(),
            about: String::new(),
            release: None,
            cpus: Some(2),
            json: serde_json::Map::new(),
        };
        Emulated::new(&header, &Options::default()).map_err(|unfit| unfit.to_string())
    }
}

impl Worlds for Planted {
    fn worlds(&self) -> Result<TwoWorlds, String> {
        let right: Box<dyn World> = match &self.running {
            Some(both) => both.worlds()?.0,
            None => Box::new(Self::emulated()?),
        };
        let faulty = Faulty::new(Self::emulated()?, self.fault);
        Ok((right, Box::new(faulty)))
    }
}

/// The error is found, and what is left of the run is short.
#[track_caller]
fn is_found(family: &str, fault: Fault) {
    let running = running_kernel().and_then(|_| Both::new(Options::default()).ok());
    // As many CPUs as the machine has.
    let running = running.filter(|both| both.nr_cpus() == 2);
    let worlds = Planted { fault, running };
    let family = Family::named(family).expect("a family of that name");
    let mut seeds = Chance::new(7);
    for _ in 0..CASES {
        let case = Case {
            family,
            seed: seeds.number(),
            steps: STEPS,
        };
        let differs = case.run(&worlds, &mut |_, _, _| {}).expect("two kernels");
        let Some(ops) = differs else { continue };
        let (ops, difference) = shrink(&worlds, family, &ops).expect("it differs again");
        let told: Vec<String> = ops.iter().map(ToString::to_string).collect();
        let told = format!("{}\n{difference}", told.join("\n"));
        assert!(ops.len() <= MOST_LEFT, "{} operations:\n{told}", ops.len());
        return;
    }
    panic!("{fault:?} was not found in {CASES} runs of {}", family.name);
}

/// Tests, each with a type and an error in it.
macro_rules! planted {
    ($($test:ident: $family:ident, $fault:expr;)*) => {
        $(
            #[test]
            fn $test() {
                is_found(stringify!($family), $fault);
            }
        )*

        #[test]
        fn every_family_has_a_planted_error() {
            let planted = [$(stringify!($family)),*];
            for family in FAMILIES {
                assert!(planted.contains(&family.name), "{} has none", family.name);
            }
        }
    };
}

const LOOKUP: Cmd = Cmd::MAP_LOOKUP_ELEM;
const UPDATE: Cmd = Cmd::MAP_UPDATE_ELEM;
const DELETE: Cmd = Cmd::MAP_DELETE_ELEM;
const TAKE: Cmd = Cmd::MAP_LOOKUP_AND_DELETE_ELEM;
const CREATE: Cmd = Cmd::MAP_CREATE;
const NOEXIST: u64 = 1;

planted! {
    a_full_hash_has_another_errno: hash, Fault::Errno(UPDATE, Errno::E2BIG, Errno::ENOMEM);
    a_hash_overwrites_despite_noexist: hash, Fault::IgnoresFlag(NOEXIST);
    a_hash_gives_a_stale_byte: hash, Fault::StaleByte;
    a_walk_of_a_hash_passes_over_a_key: hash, Fault::SkipsTheFirst;
    a_batch_of_a_hash_counts_one_more: hash, Fault::BatchCount;
    a_program_sees_a_hash_in_another_order: hash, Fault::SwapsTheFirst;
    a_program_does_not_find_a_key_of_a_hash: hash, Fault::LosesZeros;
    an_index_past_the_end_has_another_errno: array, Fault::Errno(UPDATE, Errno::E2BIG, Errno::EINVAL);
    a_timer_is_made_twice: hash, Fault::Timer(-16, 0);
    a_timer_that_is_started_was_not: array, Fault::Timer(1, 0);
    an_exchange_gives_what_it_stores: array, Fault::GivesTheNew;
    an_array_gives_a_stale_byte: array, Fault::StaleByte;
    mapping_an_array_has_another_errno: array, Fault::Mmap(Errno::EINVAL, Errno::EACCES);
    a_program_deletes_from_an_array: array, Fault::Helper("map_delete_elem", -22, 0);
    a_percpu_hash_knows_one_cpu: percpu_hash, Fault::OneCpu;
    a_percpu_array_knows_one_cpu: percpu_array, Fault::OneCpu;
    an_lru_hash_evicts_another_element: lru_hash, Fault::OtherVictim;
    a_program_overwrites_in_an_lru_hash: lru_hash, Fault::Helper("map_update_elem", -17, 0);
    an_lru_percpu_hash_evicts_another_element: lru_percpu_hash, Fault::OtherVictim;
    a_trie_loses_a_bit_of_a_prefix: lpm_trie, Fault::ShorterPrefix;
    a_trie_walks_from_another_node: lpm_trie, Fault::SkipsTheFirst;
    an_array_takes_what_is_no_map: array_of_maps, Fault::Silent(UPDATE, Errno::EINVAL);
    a_hash_of_maps_has_no_end: hash_of_maps, Fault::Errno(UPDATE, Errno::E2BIG, Errno::ENOSPC);
    a_queue_keeps_its_oldest: queue, Fault::KeepsTheOldest;
    a_stack_keeps_what_is_popped: stack, Fault::Instead(TAKE, LOOKUP);
    a_bloom_filter_knows_everything: bloom_filter, Fault::Silent(LOOKUP, Errno::ENOENT);
    a_program_pushes_nothing_to_a_bloom_filter: bloom_filter, Fault::Helper("map_peek_elem", 0, -2);
    a_ring_has_more_in_it_than_it_says: ringbuf, Fault::RingQuery;
    a_drain_counts_one_more: user_ringbuf, Fault::DrainCount;
    nothing_is_deleted_from_a_prog_array: prog_array, Fault::Silent(DELETE, Errno::ENOENT);
    a_program_is_not_gone_on_with: prog_array, Fault::Helper("tail_call", 1, 0);
    a_sample_is_sent_nowhere: perf_event_array, Fault::Helper("perf_event_output", -28, 0);
    a_perf_event_array_overwrites: perf_event_array, Fault::Silent(DELETE, Errno::ENOENT);
    a_cgroup_array_takes_any_file: cgroup_array, Fault::Silent(UPDATE, Errno::EBADF);
    no_cgroup_is_a_cgroup: cgroup_array, Fault::Helper("skb_under_cgroup", -11, 0);
    a_stack_is_found_that_is_not_there: stack_trace, Fault::Silent(LOOKUP, Errno::ENOENT);
    a_devmap_has_another_end: devmap, Fault::Errno(UPDATE, Errno::E2BIG, Errno::EINVAL);
    a_packet_is_passed_on: devmap, Fault::Helper("redirect_map", 4, 2);
    a_device_hash_has_another_errno: devmap_hash, Fault::Errno(DELETE, Errno::ENOENT, Errno::EINVAL);
    a_cpumap_has_another_end: cpumap, Fault::Errno(UPDATE, Errno::E2BIG, Errno::EINVAL);
    an_xskmap_has_another_errno: xskmap, Fault::Errno(DELETE, Errno::EINVAL, Errno::ENOENT);
    a_packet_for_a_socket_is_lost: xskmap, Fault::Helper("redirect_map", 4, 0);
    a_sockmap_deletes_what_is_not_there: sockmap, Fault::Silent(DELETE, Errno::EINVAL);
    a_sockhash_deletes_what_is_not_there: sockhash, Fault::Silent(DELETE, Errno::ENOENT);
    a_reuseport_array_deletes_what_is_not_there: reuseport_sockarray, Fault::Silent(DELETE, Errno::ENOENT);
    a_socket_has_storage_that_was_not_made: sk_storage, Fault::Silent(LOOKUP, Errno::ENOENT);
    a_file_has_storage_that_was_not_made: inode_storage, Fault::Silent(LOOKUP, Errno::ENOENT);
    storage_of_a_process_stays: task_storage, Fault::KeepsStorage;
    storage_of_a_cgroup_stays: cgrp_storage, Fault::KeepsStorage;
    storage_of_a_cgroup_gives_a_stale_byte: cgroup_storage, Fault::StaleByte;
    storage_of_a_cgroup_knows_one_cpu: percpu_cgroup_storage, Fault::OneCpu;
    an_arena_is_mapped_with_another_errno: arena, Fault::Mmap(Errno::EINVAL, Errno::EBUSY);
    a_struct_ops_has_another_errno: struct_ops, Fault::Errno(CREATE, Errno::EINVAL, Errno::EPERM);
    an_insn_array_has_another_errno: insn_array, Fault::Errno(CREATE, Errno::EINVAL, Errno::EPERM);
    a_hash_that_grows_has_another_errno: rhash, Fault::Errno(CREATE, Errno::EINVAL, Errno::EPERM);
    creation_has_another_errno: create, Fault::Errno(CREATE, Errno::E2BIG, Errno::ENOMEM);
}
