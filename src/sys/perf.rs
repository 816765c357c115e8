//! Perf events, as far as programs write to them: perf_event_open(2), ioctl(2), mmap(2).
//!
//! Kernel: `kernel/events/core.c` (v6.18).

use std::sync::Arc;

use super::Kernel;
use super::files::Held;
use super::mmap::{Granted, Of};
use crate::abi::{Errno, Fd, MapRequest, PAGE_SIZE, PerfEvent, Result};
use crate::map::object::{Object, OtherKind, OtherObject};
use crate::map::perf_event::Event;

impl Kernel {
    /// Kernel: `perf_event_open`.
    pub(super) fn open_perf_event(&self, event: PerfEvent) -> Result<Fd> {
        if event.cpu >= self.inner.env.nr_cpus {
            return Err(Errno::EINVAL);
        }
        let object = self.inner.other(OtherKind::PerfEvent(event));
        self.own().open(Held::Object(Object::Other(object)))
    }

    /// `PERF_EVENT_IOC_ENABLE` and `PERF_EVENT_IOC_DISABLE`: a perf event takes samples, or not.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open, `ENOTTY` if it is no perf event.
    pub fn perf_event_enable(&self, fd: Fd, enabled: bool) -> Result<()> {
        self.with_event(fd, |event| event.enable(enabled))
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

    /// Kernel: `perf_mmap`.
    pub(super) fn map_event(
        &self,
        event: &Arc<OtherObject>,
        request: MapRequest,
    ) -> Result<Granted> {
        let pages = request.len.div_ceil(PAGE_SIZE);
        if !request.shared || request.offset != 0 {
            return Err(Errno::EINVAL);
        }
        let of_event = event.perf_event().ok_or(Errno::ENODEV)?;
        if of_event.buffer().is_none() && !request.prot.write {
            // The kernel writes over old records then.
            let what = format_args!("a perf buffer that is mapped for reading only");
            return Err(self.inner.env.unsupported(what));
        }
        let buffer = of_event.map(pages - 1)?;
        Ok(Granted {
            words: Arc::clone(buffer.words()),
            offset: 0,
            len: pages * PAGE_SIZE,
            writable: true,
            writable_len: PAGE_SIZE,
            of: Of::Event {
                _event: Arc::clone(event),
                _buffer: buffer,
            },
        })
    }
}
