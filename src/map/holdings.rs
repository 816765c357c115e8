//! What the special fields of values hold: timers and works that run later, and objects.
//!
//! Kernel: `kernel/bpf/syscall.c:bpf_obj_free_fields` (v6.18).

use std::sync::Arc;

use super::graph::Graph;
use super::timer::Timers;
use crate::btf::{Btf, Fields};
use crate::store::Words;

/// What the special fields of one map's values hold, or those of one object.
#[derive(Debug)]
pub struct Holdings {
    /// Timers, workqueues, task works.
    pub timers: Option<Timers>,
    /// Kptrs, lists, trees.
    pub graph: Option<Graph>,
}

impl Holdings {
    /// Tables for values with these fields, if they can hold anything; `btf` is where their types are.
    pub(super) fn of(fields: &Fields, btf: Option<&Arc<Btf>>) -> Option<Box<Self>> {
        let (timers, graph) = (Timers::of(fields), Graph::of(fields, btf));
        let holds = timers.is_some() || graph.is_some();
        holds.then(|| Box::new(Self { timers, graph }))
    }

    /// Lets go of what the fields of the value hold that begins at that word: timers are cancelled, references dropped.
    pub(super) fn free(&self, words: &Words, value_at: usize) {
        if let Some(timers) = &self.timers {
            timers.free(value_at);
        }
        if let Some(graph) = &self.graph {
            graph.free(words, value_at);
        }
    }
}

/// As [`Holdings::free`], where there are such.
#[inline]
pub(super) fn free(holdings: Option<&Holdings>, words: &Words, value_at: usize) {
    if let Some(holdings) = holdings {
        holdings.free(words, value_at);
    }
}

/// The last fd and the last pin of the map are gone: what runs later does not. Objects stay as long as the map.
pub(super) fn release_user_references(holdings: Option<&Holdings>) {
    if let Some(timers) = holdings.and_then(|holdings| holdings.timers.as_ref()) {
        timers.free_all();
    }
}
