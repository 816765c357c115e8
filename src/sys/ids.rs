//! Objects by id: handed out upward, and found as long as anything holds the object.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::RwLock;

/// All objects of one kind. The dead ones are taken out now and then.
pub(super) struct Ids<T> {
    next: AtomicU32,
    by_id: RwLock<BTreeMap<u32, Weak<T>>>,
}

impl<T> Default for Ids<T> {
    fn default() -> Self {
        Self {
            next: AtomicU32::new(1),
            by_id: RwLock::new(BTreeMap::new()),
        }
    }
}

impl<T> Ids<T> {
    /// An id that no other has.
    pub(super) fn reserve(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The object of that id can be found from here on.
    pub(super) fn add(&self, id: u32, object: &Arc<T>) {
        let mut by_id = self.by_id.write();
        by_id.insert(id, Arc::downgrade(object));
        if by_id.len().is_power_of_two() {
            // Seldom enough to cost little, often enough for dead ones to be few.
            by_id.retain(|_, object| object.strong_count() > 0);
        }
    }

    /// The object of that id, if it is alive.
    pub(super) fn get(&self, id: u32) -> Option<Arc<T>> {
        self.by_id.read().get(&id)?.upgrade()
    }

    /// The next id that is alive.
    pub(super) fn after(&self, id: u32) -> Option<u32> {
        let by_id = self.by_id.read();
        let mut later = by_id.range(id + 1..);
        later
            .find(|(_, object)| object.strong_count() > 0)
            .map(|(&id, _)| id)
    }

    /// All that are alive, by id.
    pub(super) fn live(&self) -> Vec<Arc<T>> {
        self.by_id
            .read()
            .values()
            .filter_map(Weak::upgrade)
            .collect()
    }
}

impl<T> fmt::Debug for Ids<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_id.read().keys()).finish()
    }
}
