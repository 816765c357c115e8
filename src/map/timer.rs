//! `struct bpf_timer` and `struct bpf_wq` in values: callbacks that run later.
//!
//! What they hold lies beside the values, by the place of the field, as a pointer in the field does in the kernel: it
//! stays with the place, and goes when the element goes, when an array's element is written, and for all elements with
//! the last fd or pin of the map. When they run is the business of the clock, [`Env::advance`].
//!
//! Locks: the table's comes after a bucket's and before the clock's. No callback is run or dropped under any of them, or a
//! LRU list's.
//!
//! Kernel: `kernel/bpf/helpers.c`, `kernel/bpf/syscall.c:bpf_obj_free_fields` (v6.18).

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::{Map, Value};
use crate::abi::{Errno, Result};
use crate::btf::{FieldKind, Fields};
use crate::env::{Appointment, END_OF_TIME, Env};
use crate::store::WORD;

/// `BPF_F_TIMER_ABS`: the time is that of the clock, not from now on.
pub const TIMER_ABS: u64 = 1;
/// `BPF_F_TIMER_CPU_PIN`: stay on this CPU. Here they do so anyway.
pub const TIMER_CPU_PIN: u64 = 2;

/// `CLOCK_REALTIME`, `CLOCK_MONOTONIC`, `CLOCK_BOOTTIME`
const CLOCKS: [u64; 3] = [0, 1, 7];

/// What runs: it is given the CPU, the map, the key and the value.
pub type Callback = dyn Fn(u32, &Arc<Map>, &[u8], &Value<'_>) + Send + Sync;

/// The timers and workqueues of one map that are initialized.
pub struct Timers {
    /// Which there are in a value, and the word of it where they begin.
    fields: Vec<(FieldKind, usize)>,
    /// By the word of the map where they begin.
    cells: Mutex<HashMap<usize, Cell>>,
}

/// One that is initialized.
struct Cell {
    map: Weak<Map>,
    env: Arc<Env>,
    callback: Option<Arc<Callback>>,
    /// It is started.
    armed: Option<Appointment>,
    /// Its callback runs on that CPU.
    running: Option<(u32, Appointment)>,
}

impl Cell {
    /// Stops it; false if it was not started.
    fn disarm(&mut self) -> bool {
        self.armed
            .take()
            .is_some_and(|armed| self.env.unschedule(armed))
    }
}

impl Timers {
    /// A table for values with these fields, if there is a timer or a workqueue among them.
    pub(super) fn of(fields: &Fields) -> Option<Self> {
        let fields: Vec<_> = fields
            .0
            .iter()
            .filter(|field| matches!(field.kind, FieldKind::Timer | FieldKind::Workqueue))
            .map(|field| (field.kind, field.offset as usize / WORD))
            .collect();
        (!fields.is_empty()).then(|| Self {
            fields,
            cells: Mutex::new(HashMap::new()),
        })
    }

    /// The timer or workqueue of the value that begins at that word.
    pub(super) fn of_value(&self, value_at: usize, kind: FieldKind) -> Option<Timer<'_>> {
        let (_, offset) = self.fields.iter().find(|(own, _)| *own == kind)?;
        Some(Timer {
            timers: self,
            value_at,
            at: value_at + offset,
        })
    }

    /// Cancels those of the value that begins at that word, for good; gives them to be dropped.
    #[cold]
    pub(super) fn take(&self, value_at: usize) -> Vec<impl Send + use<>> {
        let mut cells = self.cells.lock();
        let offsets = self.fields.iter().map(|(_, offset)| value_at + offset);
        let mut gone: Vec<Cell> = offsets.filter_map(|at| cells.remove(&at)).collect();
        drop(cells);
        for cell in &mut gone {
            cell.disarm();
        }
        gone
    }

    /// Cancels all, for good.
    pub(super) fn free_all(&self) {
        let gone = std::mem::take(&mut *self.cells.lock());
        for mut cell in gone.into_values() {
            cell.disarm();
        }
    }
}

/// The `struct bpf_timer` or `struct bpf_wq` of one value.
#[derive(Clone, Copy, Debug)]
pub struct Timer<'m> {
    timers: &'m Timers,
    /// The word of the map where the value begins.
    value_at: usize,
    /// The word of the map where the field begins.
    at: usize,
}

impl Timer<'_> {
    /// It is in a value of that map.
    pub fn is_in(&self, map: &Map) -> bool {
        timers_of(map).is_some_and(|timers| std::ptr::eq(timers, self.timers))
    }

    /// Makes a timer of it; `flags` is the clock.
    ///
    /// # Errors
    ///
    /// `EINVAL` for another clock than 0, 1 or 7, `EBUSY` if it is one, `EPERM` if the map has no fd and no pin any more.
    ///
    /// Kernel: `bpf_timer_init`.
    pub fn init_timer(&self, map: &Arc<Map>, flags: u64) -> Result<()> {
        if !CLOCKS.contains(&flags) {
            return Err(Errno::EINVAL);
        }
        self.init(map)
    }

    /// Makes a workqueue of it.
    ///
    /// # Errors
    ///
    /// `EINVAL` for flags, `EBUSY` if it is one, `EPERM` if the map has no fd and no pin any more.
    ///
    /// Kernel: `bpf_wq_init`.
    pub fn init_workqueue(&self, map: &Arc<Map>, flags: u32) -> Result<()> {
        if flags != 0 {
            return Err(Errno::EINVAL);
        }
        self.init(map)
    }

    /// Kernel: `__bpf_async_init`.
    fn init(&self, map: &Arc<Map>) -> Result<()> {
        let mut cells = self.timers.cells.lock();
        if cells.contains_key(&self.at) {
            return Err(Errno::EBUSY);
        }
        // Under the lock: the last reference that goes looks into the table afterwards.
        if map.user_references.load(Ordering::Acquire) == 0 {
            return Err(Errno::EPERM);
        }
        let cell = Cell {
            map: Arc::downgrade(map),
            env: Arc::clone(&map.env),
            callback: None,
            armed: None,
            running: None,
        };
        cells.insert(self.at, cell);
        Ok(())
    }

    /// What will run. One that is started runs this instead of what was set before.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is not initialized; so it is if the map has no fd and no pin any more.
    ///
    /// Kernel: `__bpf_async_set_callback`.
    pub fn set_callback(&self, callback: Arc<Callback>) -> Result<()> {
        let old = {
            let mut cells = self.timers.cells.lock();
            let cell = cells.get_mut(&self.at).ok_or(Errno::EINVAL)?;
            cell.callback.replace(callback)
        };
        drop(old);
        Ok(())
    }

    /// Starts a timer, or starts it anew.
    ///
    /// # Errors
    ///
    /// `EINVAL` for other flags than [`TIMER_ABS`] and [`TIMER_CPU_PIN`], if it is not initialized, or has no callback.
    ///
    /// Kernel: `bpf_timer_start`.
    pub fn start_timer(&self, cpu: u32, ns: u64, flags: u64) -> Result<()> {
        if flags & !(TIMER_ABS | TIMER_CPU_PIN) != 0 {
            return Err(Errno::EINVAL);
        }
        self.with_callback(|cell| {
            let time = if flags & TIMER_ABS == 0 {
                cell.env.now_ns().saturating_add(ns)
            } else {
                ns
            };
            cell.disarm();
            // The kernel's time is signed: what is past its end does not come.
            let time = if time < END_OF_TIME { time } else { u64::MAX };
            self.arm(cell, cpu, time);
        })
    }

    /// Has the work done soon. One that is started already is done once.
    ///
    /// # Errors
    ///
    /// `EINVAL` for flags, if it is not initialized, or has no callback.
    ///
    /// Kernel: `bpf_wq_start`.
    pub fn start_work(&self, cpu: u32, flags: u32) -> Result<()> {
        if flags != 0 {
            return Err(Errno::EINVAL);
        }
        self.with_callback(|cell| {
            if cell.armed.is_none() {
                let now = cell.env.now_ns();
                self.arm(cell, cpu, now);
            }
        })
    }

    /// Stops a timer, and takes its callback away; was it started? It does not wait for a callback that another thread
    /// runs.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is not initialized, `EDEADLK` in its own callback.
    ///
    /// Kernel: `bpf_timer_cancel`.
    pub fn cancel(&self, cpu: u32) -> Result<bool> {
        let (was_armed, callback) = {
            let mut cells = self.timers.cells.lock();
            let cell = cells.get_mut(&self.at).ok_or(Errno::EINVAL)?;
            if cell.running.is_some_and(|(on_cpu, _)| on_cpu == cpu) {
                return Err(Errno::EDEADLK);
            }
            (cell.disarm(), cell.callback.take())
        };
        drop(callback);
        Ok(was_armed)
    }

    fn with_callback(&self, start: impl FnOnce(&mut Cell)) -> Result<()> {
        let mut cells = self.timers.cells.lock();
        let cell = cells
            .get_mut(&self.at)
            .filter(|cell| cell.callback.is_some());
        start(cell.ok_or(Errno::EINVAL)?);
        Ok(())
    }

    fn arm(&self, cell: &mut Cell, cpu: u32, time: u64) {
        let (map, value_at, at) = (Weak::clone(&cell.map), self.value_at, self.at);
        cell.armed = Some(cell.env.schedule(time, move |appointment| {
            if let Some(map) = map.upgrade() {
                run(&map, value_at, at, cpu, appointment);
            }
        }));
    }
}

fn timers_of(map: &Map) -> Option<&Timers> {
    map.ops.holdings()?.timers.as_ref()
}

/// Runs a callback, unless its timer was stopped or started anew meanwhile.
fn run(map: &Arc<Map>, value_at: usize, at: usize, cpu: u32, appointment: Appointment) {
    let running = Some((cpu, appointment));
    let of_map = timers_of(map).zip(map.ops.elem_at(value_at));
    let (timers, (key, value)) = of_map.expect("only such maps have timers that are started");
    let callback = {
        let mut cells = timers.cells.lock();
        let Some(cell) = cells.get_mut(&at) else {
            return;
        };
        if cell.armed != Some(appointment) {
            return;
        }
        cell.armed = None;
        cell.running = running;
        cell.callback.clone()
    };
    let _running = Running {
        timers,
        at,
        running,
    };
    if let Some(callback) = callback {
        callback(cpu, map, &key, &value.limited(map.def.map_flags));
    }
}

/// A callback that runs; it does not at the end of this, even if it panicked.
struct Running<'t> {
    timers: &'t Timers,
    at: usize,
    running: Option<(u32, Appointment)>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut cells = self.timers.cells.lock();
        // Another timer may be in its place by now.
        let cell = cells.get_mut(&self.at);
        if let Some(cell) = cell.filter(|cell| cell.running == self.running) {
            cell.running = None;
        }
    }
}

impl fmt::Debug for Timers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} timers", self.cells.lock().len())
    }
}
