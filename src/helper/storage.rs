//! Storage of cgroups, sockets, inodes and tasks, as programs reach it.
//!
//! Kernel: `kernel/bpf/cgroup.c:bpf_get_local_storage`, `kernel/bpf/bpf_local_storage.c` (v6.18).

use std::sync::Arc;

use super::{Prog, value_of};
use crate::abi::{Helper, MapType, ProgType, Result};
use crate::map::cgroup_storage::{CgroupStorage, Storage};
use crate::map::local_storage::LocalStorage;
use crate::map::object::Object;
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
        let by_id = storages
            .iter()
            .map(|(map, storage)| (map.id, storage.clone()));
        prog.storages.replace(Storages::Attached(by_id.collect()));
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

/// Storage that belongs to a socket, an inode, a task or a cgroup.
impl Prog {
    /// The value of an owner. With `BPF_LOCAL_STORAGE_GET_F_CREATE` (1) in `flags` one is made where there is none, of
    /// the bytes in `initial` or of zeros. `None` too for other flags.
    ///
    /// # Panics
    ///
    /// What the verifier refuses.
    #[doc(alias = "bpf_sk_storage_get")]
    #[doc(alias = "bpf_inode_storage_get")]
    #[doc(alias = "bpf_task_storage_get")]
    #[doc(alias = "bpf_cgrp_storage_get")]
    pub fn storage_get<'m>(
        &self,
        map: &'m Map,
        owner: &Object,
        initial: Option<&[u8]>,
        flags: u64,
    ) -> Option<Value<'m>> {
        self.enter(map, storage_helpers(map.def.map_type).0);
        if let Some(initial) = initial {
            value_of(map, initial);
        }
        storage_of(map).storage_get(owner, flags, initial)
    }

    /// Removes the value of an owner.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is none.
    ///
    /// # Panics
    ///
    /// What the verifier refuses.
    #[doc(alias = "bpf_sk_storage_delete")]
    #[doc(alias = "bpf_inode_storage_delete")]
    #[doc(alias = "bpf_task_storage_delete")]
    #[doc(alias = "bpf_cgrp_storage_delete")]
    pub fn storage_delete(&self, map: &Map, owner: &Object) -> Result<()> {
        self.enter(map, storage_helpers(map.def.map_type).1);
        storage_of(map).storage_delete(owner)
    }
}

/// Get and delete, as they are called for that type of map.
fn storage_helpers(map_type: MapType) -> (Helper, Helper) {
    match map_type {
        MapType::SK_STORAGE => (Helper::SK_STORAGE_GET, Helper::SK_STORAGE_DELETE),
        MapType::INODE_STORAGE => (Helper::INODE_STORAGE_GET, Helper::INODE_STORAGE_DELETE),
        MapType::TASK_STORAGE => (Helper::TASK_STORAGE_GET, Helper::TASK_STORAGE_DELETE),
        _ => (Helper::CGRP_STORAGE_GET, Helper::CGRP_STORAGE_DELETE),
    }
}

fn storage_of(map: &Map) -> &LocalStorage {
    map.ops
        .as_any()
        .downcast_ref()
        .expect("only local storages take these helpers")
}
