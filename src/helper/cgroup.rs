//! Whether programs run for a cgroup that an array holds.
//!
//! Kernel: `kernel/trace/bpf_trace.c:bpf_current_task_under_cgroup`, `net/core/filter.c:bpf_skb_under_cgroup` (v6.18).

use std::iter::successors;
use std::sync::Arc;

use super::Prog;
use crate::abi::{Errno, Helper, Result};
use crate::map::Map;
use crate::map::cgroup_array::CgroupArray;
use crate::map::object::Cgroup;

impl Prog {
    /// Whether the cgroup of the process that runs is the one at an index, or lies below it.
    ///
    /// # Errors
    ///
    /// `E2BIG` if there is no such index; `EAGAIN` if nothing is there.
    ///
    /// # Panics
    ///
    /// What the verifier refuses.
    #[doc(alias = "bpf_current_task_under_cgroup")]
    pub fn current_task_under_cgroup(
        &self,
        map: &Map,
        index: u32,
        own: &Arc<Cgroup>,
    ) -> Result<bool> {
        self.enter(map, Helper::CURRENT_TASK_UNDER_CGROUP);
        is_under(map, index, own)
    }

    /// Whether the cgroup of a packet's socket is the one at an index, or lies below it.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the packet has no socket; `E2BIG` if there is no such index; `EAGAIN` if nothing is there.
    ///
    /// # Panics
    ///
    /// What the verifier refuses.
    #[doc(alias = "bpf_skb_under_cgroup")]
    pub fn skb_under_cgroup(
        &self,
        map: &Map,
        index: u32,
        own: Option<&Arc<Cgroup>>,
    ) -> Result<bool> {
        self.enter(map, Helper::SKB_UNDER_CGROUP);
        is_under(map, index, own.ok_or(Errno::ENOENT)?)
    }
}

fn is_under(map: &Map, index: u32, own: &Arc<Cgroup>) -> Result<bool> {
    let cgroups: Option<&CgroupArray> = map.ops.as_any().downcast_ref();
    let cgroup = cgroups
        .expect("only arrays of cgroups take these helpers")
        .cgroup_at(index)?;
    Ok(successors(Some(own), |below| below.parent.as_ref()).any(|own| own.id == cgroup.id))
}
