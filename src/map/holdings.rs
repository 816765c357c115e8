//! What the special fields of values hold: timers and works that run later, and objects.
//!
//! Kernel: `kernel/bpf/syscall.c:bpf_obj_free_fields` (v6.18).

use std::fmt;
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

    /// The fields of the value that begins at that word hold nothing any more: timers are cancelled. What they held is the
    /// caller's, to be dropped when it holds no lock.
    pub(super) fn take(&self, words: &Words, value_at: usize) -> Gone {
        let mut gone = Gone::default();
        if let Some(timers) = &self.timers {
            gone.add(timers.take(value_at));
        }
        if let Some(works) = &self.works {
            works.free(value_at);
        }
        if let Some(graph) = &self.graph {
            gone.add(graph.take(words, value_at));
        }
        gone
    }
}

/// What fields held. To drop it runs code of the user's: what a callback captured is dropped with it.
#[derive(Default)]
#[must_use = "dropped where a lock is held, it may wait for that lock"]
pub(super) struct Gone(Vec<Box<dyn Send>>);

impl Gone {
    fn add<T: Send + 'static>(&mut self, held: Vec<T>) {
        if !held.is_empty() {
            self.0.push(Box::new(held));
        }
    }

    /// With that of another value.
    pub(super) fn and(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

impl fmt::Debug for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "what {} values held", self.0.len())
    }
}

/// As [`Holdings::take`], where there are such.
#[inline]
pub(super) fn take(holdings: Option<&Holdings>, words: &Words, value_at: usize) -> Gone {
    holdings.map_or_else(Gone::default, |holdings| holdings.take(words, value_at))
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
