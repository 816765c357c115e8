//! Families of maps, and how their operations come from numbers.
//!
//! A new family is a line in [`FAMILIES`] and, unless its maps are like those of another, a file with its operations.

use serde_json::Value;

use super::any_map::Asked;
use super::arena::Arena;
use super::associative::{Associative, MAP};
use super::cgroup_storage::CgroupStorage;
use super::create::Create;
use super::keyless::Keyless;
use super::maps_of_maps::MapsOfMaps;
use super::objects::Objects;
use super::ringbuf::{Ringbuf, UserRingbuf};
use super::{Chance, Op};
use crate::abi::MapType;
use crate::env::Release;

/// A type of map, with all that its operations need around it.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Name, for the command line: the type's, in lower case.
    pub name: &'static str,
    /// How many operations it gets, beside the others: some are slow on the running kernel.
    pub share: usize,
    /// The operations after which everything is compared come this often.
    pub(super) check_every: usize,
    /// Buffers of calls hold ids, which are not the same on both sides.
    pub(super) has_ids: bool,
    make: Make,
}

/// The operations that make a map, and the generator of those that follow.
type Make = fn(&Facts, &mut Chance) -> (Vec<Op>, Box<dyn Operations>);

/// What a generator has to know of the two kernels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) map_type: MapType,
    pub(super) nr_cpus: u32,
    pub(super) release: &'static Release,
}

/// The operations of one run.
pub(super) trait Operations: std::fmt::Debug {
    /// The next one.
    fn next(&mut self, chance: &mut Chance) -> Op;

    /// Those that show all that a map holds.
    fn check(&self) -> Vec<Op>;

    /// What its map may be asked for, as any map.
    fn asked(&self) -> Asked {
        Asked {
            map: MAP,
            keys_are_fds: false,
            gone: false,
            programs: true,
        }
    }

    /// What the last operation answered.
    fn answered(&mut self, _op: &Op, _answer: &Value) {}
}

/// All that a map holds is compared after so many operations.
const CHECK_EVERY: usize = 50;

macro_rules! families {
    ($($name:literal $map_type:ident $kind:ident, share $share:literal, ids $ids:literal;)*) => {
        /// All families.
        pub const FAMILIES: &[Family] = &[$(Family {
            name: $name,
            share: $share,
            check_every: CHECK_EVERY,
            has_ids: $ids,
            make: |facts, chance| {
                let facts = Facts { map_type: MapType::$map_type, ..*facts };
                let (setup, operations) = $kind::new(&facts, chance);
                (setup, Box::new(operations))
            },
        }),*];
    };
}

families! {
    "hash" HASH Associative, share 8, ids false;
    "array" ARRAY Associative, share 8, ids false;
    "cgroup_storage" CGROUP_STORAGE CgroupStorage, share 8, ids true;
    "percpu_cgroup_storage" PERCPU_CGROUP_STORAGE CgroupStorage, share 4, ids true;
    "percpu_hash" PERCPU_HASH Associative, share 8, ids false;
    "percpu_array" PERCPU_ARRAY Associative, share 8, ids false;
    "lru_hash" LRU_HASH Associative, share 8, ids false;
    "lru_percpu_hash" LRU_PERCPU_HASH Associative, share 8, ids false;
    "lpm_trie" LPM_TRIE Associative, share 8, ids false;
    "array_of_maps" ARRAY_OF_MAPS MapsOfMaps, share 2, ids true;
    "hash_of_maps" HASH_OF_MAPS MapsOfMaps, share 2, ids true;
    "queue" QUEUE Keyless, share 8, ids false;
    "stack" STACK Keyless, share 8, ids false;
    "bloom_filter" BLOOM_FILTER Keyless, share 8, ids false;
    "ringbuf" RINGBUF Ringbuf, share 2, ids false;
    "user_ringbuf" USER_RINGBUF UserRingbuf, share 1, ids false;
    "prog_array" PROG_ARRAY Objects, share 2, ids true;
    "perf_event_array" PERF_EVENT_ARRAY Objects, share 2, ids true;
    "cgroup_array" CGROUP_ARRAY Objects, share 2, ids true;
    "stack_trace" STACK_TRACE Objects, share 2, ids true;
    "devmap" DEVMAP Objects, share 2, ids true;
    "devmap_hash" DEVMAP_HASH Objects, share 2, ids true;
    "cpumap" CPUMAP Objects, share 1, ids true;
    "xskmap" XSKMAP Objects, share 1, ids true;
    "sockmap" SOCKMAP Objects, share 2, ids true;
    "sockhash" SOCKHASH Objects, share 2, ids true;
    "reuseport_sockarray" REUSEPORT_SOCKARRAY Objects, share 2, ids true;
    "sk_storage" SK_STORAGE Objects, share 2, ids true;
    "inode_storage" INODE_STORAGE Objects, share 2, ids true;
    "task_storage" TASK_STORAGE Objects, share 2, ids true;
    "cgrp_storage" CGRP_STORAGE Objects, share 2, ids true;
    "arena" ARENA Arena, share 2, ids false;
    "struct_ops" STRUCT_OPS Create, share 1, ids true;
    "insn_array" INSN_ARRAY Associative, share 1, ids false;
    "rhash" RHASH Associative, share 2, ids false;
    "create" UNSPEC Create, share 4, ids true;
}

impl Family {
    /// The family of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        FAMILIES.iter().find(|family| family.name == name)
    }
}

/// Makes operations from numbers.
#[derive(Debug)]
pub struct Generator {
    setup: Vec<Op>,
    operations: Box<dyn Operations>,
}

impl Generator {
    /// Operations on a map of that family, whose attributes come from `seed`, on kernels of that release with so many possible
    /// CPUs.
    pub fn new(family: &Family, seed: u64, nr_cpus: u32, release: &'static Release) -> Self {
        let facts = Facts {
            map_type: MapType::UNSPEC,
            nr_cpus,
            release,
        };
        let (setup, operations) = (family.make)(&facts, &mut Chance::new(seed));
        Self { setup, operations }
    }

    /// The operations that make the map.
    pub fn setup(&self) -> &[Op] {
        &self.setup
    }

    /// The operation of that number.
    pub fn op(&mut self, number: u64) -> Op {
        let mut chance = Chance::new(number);
        let asked = self.operations.asked();
        match chance.below(16) {
            0 => asked.op(&mut chance),
            1 => asked.through_other(self.operations.next(&mut chance)),
            2 => Asked::by_handle(self.operations.next(&mut chance)),
            _ => self.operations.next(&mut chance),
        }
    }

    /// The operations that show all that there is.
    pub fn check(&self) -> Vec<Op> {
        self.operations.check()
    }

    /// What an operation answered: later ones may go on from there.
    pub fn answered(&mut self, op: &Op, answer: &Value) {
        self.operations.answered(op, answer);
    }
}
