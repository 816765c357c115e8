//! `struct bpf_task_work` in values: callbacks that a process runs, on its way back to user space.
//!
//! What is scheduled lies beside the values, by the place of the field, and goes as timers go. The process is declared, and
//! the test says when it gets there: [`OtherObject::run_works`].
//!
//! Locks: the table's is the last that is taken; no callback is run or dropped under it.
//!
//! Kernel: `kernel/bpf/helpers.c:bpf_task_work_schedule`, `bpf_task_work_callback`, `kernel/task_work.c:task_work_run`
//! (v6.18).

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Map;
use super::object::{OtherKind, OtherObject};
use super::timer::Callback;
use crate::abi::{Errno, Result};
use crate::btf::{FieldKind, Fields};
use crate::store::WORD;

/// The task works of one map that are scheduled or run.
pub struct TaskWorks {
    /// The word of a value where the field begins.
    offset: usize,
    cells: Mutex<Cells>,
}

#[derive(Default)]
struct Cells {
    /// Which time it is that something is scheduled.
    given: u64,
    /// By the word of the map where the field begins.
    scheduled: HashMap<usize, u64>,
}

impl TaskWorks {
    /// A table for values with these fields, if there is a task work among them.
    pub(super) fn of(fields: &Fields) -> Option<Self> {
        let mut fields = fields.0.iter();
        let field = fields.find(|field| field.kind == FieldKind::TaskWork)?;
        Some(Self {
            offset: field.offset as usize / WORD,
            cells: Mutex::default(),
        })
    }

    /// Cancels what is scheduled in the value that begins at that word.
    pub(super) fn free(&self, value_at: usize) {
        let at = value_at + self.offset;
        self.cells.lock().scheduled.remove(&at);
    }

    /// Cancels all.
    pub(super) fn free_all(&self) {
        self.cells.lock().scheduled.clear();
    }

    /// The process will run `callback` with the value that begins at that word.
    ///
    /// # Errors
    ///
    /// `EBUSY` if something is scheduled there, or runs, or the map has no fd and no pin any more.
    pub(super) fn schedule(
        &self,
        map: &Arc<Map>,
        value_at: usize,
        task: &OtherObject,
        callback: Arc<Callback>,
    ) -> Result<()> {
        let at = value_at + self.offset;
        let mut cells = self.cells.lock();
        // Under the lock: the last reference that goes clears the table afterwards.
        let has_users = map.user_references.load(Ordering::Acquire) != 0;
        if !has_users || cells.scheduled.contains_key(&at) {
            return Err(Errno::EBUSY);
        }
        if task.has_ended() {
            // Nobody is told that it comes too late.
            return Ok(());
        }
        cells.given += 1;
        let number = cells.given;
        cells.scheduled.insert(at, number);
        drop(cells);
        let map = Arc::downgrade(map);
        task.add_work(Work(Box::new(move |cpu| {
            run(&map, (value_at, at), number, cpu, &*callback);
        })));
        Ok(())
    }

    fn is_scheduled(&self, at: usize, number: u64) -> bool {
        self.cells.lock().scheduled.get(&at) == Some(&number)
    }
}

/// Runs a callback, unless it was cancelled.
fn run(
    map: &Weak<Map>,
    (value_at, at): (usize, usize),
    number: u64,
    cpu: u32,
    callback: &Callback,
) {
    let Some(map) = map.upgrade() else {
        return;
    };
    let works = works_of(&map).expect("something was scheduled in its values");
    if !works.is_scheduled(at, number) {
        return;
    }
    let elem = map.ops.elem_at(value_at);
    let (key, value) = elem.expect("maps with such values say so");
    // It stays there until the callback is through: meanwhile the place is busy.
    let _running = Running { works, at, number };
    callback(cpu, &map, &key, &value.limited(map.def.map_flags));
}

/// A callback that runs; it does not at the end of this, even if it panicked.
struct Running<'w> {
    works: &'w TaskWorks,
    at: usize,
    number: u64,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut cells = self.works.cells.lock();
        if cells.scheduled.get(&self.at) == Some(&self.number) {
            cells.scheduled.remove(&self.at);
        }
    }
}

fn works_of(map: &Map) -> Option<&TaskWorks> {
    map.ops.holdings()?.works.as_ref()
}

/// The `struct bpf_task_work` of one value.
#[derive(Clone, Copy, Debug)]
pub struct TaskWork<'m> {
    works: &'m TaskWorks,
    /// The word of the map where the value begins.
    value_at: usize,
}

impl<'m> TaskWork<'m> {
    pub(super) const fn new(works: &'m TaskWorks, value_at: usize) -> Self {
        Self { works, value_at }
    }

    /// It is in a value of that map.
    pub fn is_in(&self, map: &Map) -> bool {
        works_of(map).is_some_and(|works| std::ptr::eq(works, self.works))
    }

    /// The process will run `callback`. `None` if that object is no process.
    ///
    /// # Errors
    ///
    /// `EBUSY` if something is scheduled there, or runs, or the map has no fd and no pin any more.
    pub fn schedule(
        &self,
        map: &Arc<Map>,
        task: &OtherObject,
        callback: Arc<Callback>,
    ) -> Option<Result<()>> {
        let is_task = task.kind == OtherKind::Pidfd;
        is_task.then(|| self.works.schedule(map, self.value_at, task, callback))
    }
}

/// What a process does on its way back to user space, on some CPU.
pub(super) struct Work(Box<dyn FnOnce(u32) + Send>);

impl OtherObject {
    /// The process is on its way back to user space, on that CPU, and runs what is scheduled: what came last comes first.
    /// What is scheduled meanwhile is run afterwards.
    pub fn run_works(&self, cpu: u32) {
        loop {
            let works = self.take_works();
            if works.is_empty() {
                return;
            }
            for work in works.into_iter().rev() {
                work.0(cpu);
            }
        }
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("work")
    }
}

impl fmt::Debug for TaskWorks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheduled = self.cells.lock().scheduled.len();
        write!(f, "{scheduled} task works")
    }
}
