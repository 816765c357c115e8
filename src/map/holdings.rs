//! What the special fields of values hold: timers and works that run later, and objects.
//!
//! Kernel: `kernel/bpf/syscall.c:bpf_obj_free_fields` (v6.18).

use std::sync::Arc;

use super::graph::Graph;
use super::task_work::TaskWorks;
use super::timer::Timers;
use crate::btf::{Btf, Fields};
use crate::store::Words;

/// What the special fields of one map's values hold, or those of one object.
#[derive(Debug)]
pub struct Holdings {
    /// Timers and workqueues.
    pub timers: Option<Timers>,
    /// Task works.
    pub works: Option<TaskWorks>,
    /// Kptrs, lists, trees.
    pub graph: Option<Graph>,
}

impl Holdings {
    /// Tables for values with these fields, if they can hold anything; `btf` is where their types are.
    pub(super) fn of(fields: &Fields, btf: Option<&Arc<Btf>>) -> Option<Box<Self>> {
        let holdings = Self {
            timers: Timers::of(fields),
            works: TaskWorks::of(fields),
            graph: Graph::of(fields, btf),
        };
        let Self {
            timers,
            works,
            graph,
        } = &holdings;
        let holds = timers.is_some() || works.is_some() || graph.is_some();
        holds.then(|| Box::new(holdings))
    }

    /// Lets go of what the fields of the value hold that begins at that word: timers are cancelled, references dropped.
    pub(super) fn free(&self, words: &Words, value_at: usize) {
        if let Some(timers) = &self.timers {
            timers.free(value_at);
        }
        if let Some(works) = &self.works {
            works.free(value_at);
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
    let Some(holdings) = holdings else {
        return;
    };
    if let Some(timers) = &holdings.timers {
        timers.free_all();
    }
    if let Some(works) = &holdings.works {
        works.free_all();
    }
}
