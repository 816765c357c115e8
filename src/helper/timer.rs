//! Timers and workqueues in values.
//!
//! They run when the test moves the clock on: `Kernel::advance`, or [`Env::advance`](crate::env::Env::advance).
//!
//! Kernel: `kernel/bpf/helpers.c:bpf_timer_init`, `bpf_wq_init` (v6.18).

use std::sync::Arc;

use super::{Prog, verifier};
use crate::abi::{Helper, Result};
use crate::btf::FieldKind;
use crate::map::timer::{Callback, Timer};
use crate::map::{Map, Value};

/// `struct bpf_timer`. Callbacks are given a run of their own, on the CPU that started the timer, the map, the key and
/// the value.
impl Prog {
    /// Makes a timer of the `struct bpf_timer` in a value; `flags` is its clock. All clocks show the same time here.
    ///
    /// # Errors
    ///
    /// `EINVAL` for another clock than 0, 1 or 7, `EBUSY` if it is one, `EPERM` if the map has no fd and no pin any more.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: the value is of another map, or has no timer.
    #[doc(alias = "bpf_timer_init")]
    pub fn timer_init(&self, map: &Arc<Map>, value: &Value<'_>, flags: u64) -> Result<()> {
        self.enter(map, Helper::TIMER_INIT);
        let timer = self.timer_of(value, FieldKind::Timer);
        is_in(&timer, map);
        timer.init_timer(map, flags)
    }

    /// What the timer runs, from now on.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is not initialized.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: a value without a timer.
    #[doc(alias = "bpf_timer_set_callback")]
    pub fn timer_set_callback(
        &self,
        value: &Value<'_>,
        callback: impl Fn(&Self, &Arc<Map>, &[u8], &Value<'_>) + Send + Sync + 'static,
    ) -> Result<()> {
        let timer = self.timer_of(value, FieldKind::Timer);
        timer.set_callback(self.callback(callback))
    }

    /// Starts the timer, or starts it anew; it runs once, in `ns` nanoseconds, or with `BPF_F_TIMER_ABS` (1) in `flags` at
    /// that time. `BPF_F_TIMER_CPU_PIN` (2) changes nothing: timers run on the CPU that starts them.
    ///
    /// # Errors
    ///
    /// `EINVAL` for other flags, if it is not initialized, or has no callback.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: a value without a timer.
    #[doc(alias = "bpf_timer_start")]
    pub fn timer_start(&self, value: &Value<'_>, ns: u64, flags: u64) -> Result<()> {
        let timer = self.timer_of(value, FieldKind::Timer);
        timer.start_timer(self.cpu, ns, flags)
    }

    /// Stops the timer; was it started? Its callback is gone then, too: [`Prog::timer_set_callback`] comes before the next
    /// start.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is not initialized, `EDEADLK` in its own callback.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: a value without a timer.
    #[doc(alias = "bpf_timer_cancel")]
    pub fn timer_cancel(&self, value: &Value<'_>) -> Result<bool> {
        let timer = self.timer_of(value, FieldKind::Timer);
        timer.cancel(self.cpu)
    }

    /// The timer or workqueue of a value.
    #[track_caller]
    fn timer_of<'m>(&self, value: &Value<'m>, kind: FieldKind) -> Timer<'m> {
        self.no_lock_held();
        value
            .timer(kind)
            .unwrap_or_else(|| panic!("the verifier refuses (EINVAL): the value has no {kind:?}"))
    }

    /// A callback of this program: each call is a run of its own.
    pub(super) fn callback(
        &self,
        callback: impl Fn(&Self, &Arc<Map>, &[u8], &Value<'_>) + Send + Sync + 'static,
    ) -> Arc<Callback> {
        let prog_type = self.prog_type;
        Arc::new(move |cpu, map, key, value| {
            let prog = Self::new(prog_type, cpu);
            callback(&prog, map, key, value);
            prog.no_lock_held();
        })
    }
}

/// `struct bpf_wq`. Its work is done on the CPU that started it.
impl Prog {
    /// Makes a workqueue of the `struct bpf_wq` in a value.
    ///
    /// # Errors
    ///
    /// `EINVAL` for flags, `EBUSY` if it is one, `EPERM` if the map has no fd and no pin any more.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: the value is of another map, or has no workqueue.
    #[doc(alias = "bpf_wq_init")]
    pub fn wq_init(&self, map: &Arc<Map>, value: &Value<'_>, flags: u32) -> Result<()> {
        if let Err(refused) = verifier::map_allowed(map, self.prog_type) {
            panic!("bpf_wq_init on {}: {refused}", map.def.map_type);
        }
        let work = self.timer_of(value, FieldKind::Workqueue);
        is_in(&work, map);
        work.init_workqueue(map, flags)
    }

    /// What the workqueue runs, from now on.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is not initialized.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: a value without a workqueue.
    #[doc(alias = "bpf_wq_set_callback")]
    pub fn wq_set_callback(
        &self,
        value: &Value<'_>,
        callback: impl Fn(&Self, &Arc<Map>, &[u8], &Value<'_>) + Send + Sync + 'static,
    ) -> Result<()> {
        let work = self.timer_of(value, FieldKind::Workqueue);
        work.set_callback(self.callback(callback))
    }

    /// Has the work done soon: when the clock moves on, or by `Kernel::run_pending`. Nothing happens if it is started.
    ///
    /// # Errors
    ///
    /// `EINVAL` for flags, if it is not initialized, or has no callback.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: a value without a workqueue.
    #[doc(alias = "bpf_wq_start")]
    pub fn wq_start(&self, value: &Value<'_>, flags: u32) -> Result<()> {
        let work = self.timer_of(value, FieldKind::Workqueue);
        work.start_work(self.cpu, flags)
    }
}

/// The verifier knows of which map a pointer is.
#[track_caller]
fn is_in(timer: &Timer<'_>, map: &Map) {
    assert!(
        timer.is_in(map),
        "the verifier refuses (EINVAL): the value is of another map"
    );
}
