//! Task works in values.
//!
//! They run when the test says that the process is on its way back to user space: `Kernel::run_task_works`.
//!
//! Kernel: `kernel/bpf/helpers.c:bpf_task_work_schedule_signal_impl`, `bpf_task_work_schedule_resume_impl` (v6.18).

use std::sync::Arc;

use super::allocated::refused;
use super::{Prog, verifier};
use crate::abi::{Errno, Result};
use crate::map::object::Object;
use crate::map::timer::Callback;
use crate::map::{Map, Value};

/// `struct bpf_task_work`. A callback is given a run of its own, on the CPU of the process, the map, the key and the value.
impl Prog {
    /// Has the process behind a pidfd run a callback soon: it is interrupted by a signal that it does not see.
    ///
    /// # Errors
    ///
    /// `EBUSY` if a callback is scheduled in that value, or runs, or the map has no fd and no pin any more.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: the value is of another map, or has no task work; an object that is no process.
    #[doc(alias = "bpf_task_work_schedule_signal")]
    #[track_caller]
    pub fn task_work_schedule_signal(
        &self,
        task: &Object,
        map: &Arc<Map>,
        value: &Value<'_>,
        callback: impl Fn(&Self, &Arc<Map>, &[u8], &Value<'_>) + Send + Sync + 'static,
    ) -> Result<()> {
        self.task_work_schedule("signal", task, map, value, self.callback(callback))
    }

    /// As [`Prog::task_work_schedule_signal`], when the process returns to user space anyway. Here that is the same: the
    /// test says when.
    ///
    /// # Errors
    ///
    /// As [`Prog::task_work_schedule_signal`].
    ///
    /// # Panics
    ///
    /// As [`Prog::task_work_schedule_signal`].
    #[doc(alias = "bpf_task_work_schedule_resume")]
    #[track_caller]
    pub fn task_work_schedule_resume(
        &self,
        task: &Object,
        map: &Arc<Map>,
        value: &Value<'_>,
        callback: impl Fn(&Self, &Arc<Map>, &[u8], &Value<'_>) + Send + Sync + 'static,
    ) -> Result<()> {
        self.task_work_schedule("resume", task, map, value, self.callback(callback))
    }

    #[track_caller]
    fn task_work_schedule(
        &self,
        when: &str,
        task: &Object,
        map: &Arc<Map>,
        value: &Value<'_>,
        callback: Arc<Callback>,
    ) -> Result<()> {
        self.no_lock_held();
        if let Err(refused) = verifier::map_allowed(map, self.prog_type) {
            panic!("bpf_task_work_schedule_{when}: {refused}");
        }
        let Some(work) = value.task_work() else {
            refused(Errno::EINVAL, "the value has no struct bpf_task_work");
        };
        if !work.is_in(map) {
            refused(Errno::EINVAL, "the value is of another map");
        }
        let scheduled = match task {
            Object::Other(task) => work.schedule(map, task, callback),
            Object::Map(_) | Object::Btf(_) | Object::Prog(_) | Object::Cgroup(_) => None,
        };
        scheduled.unwrap_or_else(|| refused(Errno::EINVAL, "the object is no process"))
    }
}
