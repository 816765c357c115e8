//! Perf events, as far as programs write to them: perf_event_open(2), ioctl(2), mmap(2).
//!
//! Kernel: `kernel/events/core.c` (v6.18).

use std::fmt;
use std::sync::Arc;

use super::Kernel;
use super::files::Held;
use crate::abi::{Errno, Fd, MapRequest, Mapping, PAGE_SIZE, PerfEvent, Prot, Result};
use crate::map::object::{Object, OtherKind, OtherObject};
use crate::map::perf_event::{Buffer, Event};

impl Kernel {
    /// Kernel: `perf_event_open`.
    pub(super) fn open_perf_event(&self, event: PerfEvent) -> Result<Fd> {
        if event.cpu >= self.inner.env.nr_cpus {
            return Err(Errno::EINVAL);
        }
        let object = self.inner.other(OtherKind::PerfEvent(event));
        self.inner.open(Held::Object(Object::Other(object)))
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
        event: &Arc<OtherObject>,
        request: MapRequest,
    ) -> Result<Box<dyn Mapping>> {
        let pages = request.len.div_ceil(PAGE_SIZE);
        if !request.shared || request.offset != 0 {
            return Err(Errno::EINVAL);
        }
        let of_event = event.perf_event().ok_or(Errno::ENODEV)?;
        Ok(Box::new(EventMapping {
            buffer: of_event.map(pages - 1, request.prot.write)?,
            _event: Arc::clone(event),
            prot: request.prot,
        }))
    }
}

/// A mapping of an event's buffer, which is there as long as this.
struct EventMapping {
    buffer: Arc<Buffer>,
    _event: Arc<OtherObject>,
    prot: Prot,
}

impl EventMapping {
    fn check(&self, offset: usize, len: usize, end: usize, allowed: bool) -> Result<()> {
        let inside = offset <= end && len <= end - offset;
        if inside && allowed {
            Ok(())
        } else {
            Err(Errno::EFAULT)
        }
    }
}

impl Mapping for EventMapping {
    fn read(&self, offset: usize, out: &mut [u8]) -> Result<()> {
        // What can be written can be read, on this machine.
        let allowed = self.prot.read || self.prot.write;
        self.check(offset, out.len(), self.buffer.len(), allowed)?;
        self.buffer.words().read_bytes(offset, out);
        Ok(())
    }

    /// Only the first page can be written.
    fn write(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        self.check(offset, bytes.len(), PAGE_SIZE, self.prot.write)?;
        self.buffer.words().write_bytes(offset, bytes);
        Ok(())
    }

    fn protect(&mut self, prot: Prot) -> Result<()> {
        if prot.exec {
            return Err(Errno::EACCES);
        }
        self.prot = prot;
        Ok(())
    }
}

impl fmt::Debug for EventMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of a perf event", self.buffer.len())
    }
}
