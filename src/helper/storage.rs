//! Cgroup storage, as programs reach it that were attached to a cgroup.
//!
//! Kernel: `kernel/bpf/cgroup.c:bpf_get_local_storage` (v6.18).

use std::sync::Arc;

use super::Prog;
use crate::abi::{Helper, ProgType};
use crate::map::cgroup_storage::{CgroupStorage, Storage};
use crate::map::{Map, Value};

/// Where a run's cgroup storages come from; by the map's id.
#[derive(Debug)]
pub(super) enum Storages {
    /// The program is attached: the elements that it was given then.
    Attached(Vec<(u32, Storage)>),
    /// It is only run, as by `BPF_PROG_TEST_RUN`: elements of this run alone.
    OfRun(Vec<(u32, Storage)>),
}

impl Prog {
    /// A run of a program that is attached to a cgroup, with the elements that it was given there.
    pub fn attached(storages: &[(Arc<Map>, Storage)], prog_type: ProgType, cpu: u32) -> Self {
        let prog = Self::new(prog_type, cpu);
        prog.storages.replace(Storages::Attached(storages.to_vec()));
        prog
    }

    /// The element of a cgroup storage at the place where the program is attached, per-CPU: this CPU's part. A program
    /// that is not attached has one of its own, zeros at first, that goes with the run.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: programs of types that are not attached to cgroups. For a program that is attached, also
    /// if the map is none of those that it was loaded with.
    #[doc(alias = "bpf_get_local_storage")]
    pub fn get_local_storage<'m>(&self, map: &'m Map) -> Value<'m> {
        self.enter(map, Helper::GET_LOCAL_STORAGE);
        let storage = match &mut *self.storages.borrow_mut() {
            Storages::Attached(storages) => find(storages, map)
                .expect("an attached program has storage of the maps it was loaded with"),
            Storages::OfRun(storages) => find(storages, map).unwrap_or_else(|| {
                let of_map = map.ops.as_any().downcast_ref::<CgroupStorage>();
                let storage = of_map
                    .expect("only cgroup storages take this helper")
                    .element_of_run()
                    .expect("the system has memory for one value");
                storages.push((map.id, storage.clone()));
                storage
            }),
        };
        storage
            .value(self.cpu, &map.def, &map.fields)
            .limited(map.def.map_flags)
    }
}

fn find(storages: &[(u32, Storage)], map: &Map) -> Option<Storage> {
    let own = storages.iter().find(|(id, _)| *id == map.id);
    own.map(|(_, storage)| storage.clone())
}
