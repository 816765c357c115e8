//! Perf events, as far as programs write to them: perf_event_open(2), ioctl(2).
//!
//! Kernel: `kernel/events/core.c` (v6.18).

use super::{Fds, Kernel};
use crate::abi::{Errno, Fd, PerfEvent, Result};
use crate::map::object::{Object, OtherKind};
use crate::map::perf_event::Event;

impl Kernel {
    /// Kernel: `perf_event_open`.
    pub(super) fn open_perf_event(&self, event: PerfEvent) -> Result<Fd> {
        if event.cpu >= self.inner.env.nr_cpus {
            return Err(Errno::EINVAL);
        }
        self.inner
            .files
            .install(self.declare(OtherKind::PerfEvent(event)))
    }

    /// `PERF_EVENT_IOC_ENABLE` and `PERF_EVENT_IOC_DISABLE`: a perf event takes samples, or not.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open, `ENOTTY` if it is no perf event.
    pub fn perf_event_enable(&self, fd: Fd, enabled: bool) -> Result<()> {
        self.with_event(fd, |event| event.enable(enabled))
    }

    /// `PERF_EVENT_IOC_PAUSE_OUTPUT`: while a perf event is paused, samples find no room.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open, `ENOTTY` if it is no perf event; `EINVAL` if it has no buffer.
    pub fn perf_event_pause(&self, fd: Fd, paused: bool) -> Result<()> {
        self.with_event(fd, |event| event.pause(paused))?
    }

    /// `PERF_EVENT_IOC_ID`: the number of a perf event, as records of lost samples tell it.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open, `ENOTTY` if it is no perf event.
    pub fn perf_event_id(&self, fd: Fd) -> Result<u64> {
        self.with_event(fd, |event| event.id)
    }

    fn with_event<T>(&self, fd: Fd, uses: impl FnOnce(&Event) -> T) -> Result<T> {
        let object = self.object(fd)?;
        let event = match &object {
            Object::Other(object) => object.perf_event(),
            Object::Map(_) | Object::Btf(_) | Object::Prog(_) | Object::Cgroup(_) => None,
        };
        event.map(uses).ok_or(Errno::ENOTTY)
    }
}
