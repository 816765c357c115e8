//! `BPF_MAP_TYPE_PERF_EVENT_ARRAY`: perf events to write to and read from.
//!
//! An event belongs to the open file of the map through which it was put in, and goes when that is closed, unless the map is
//! `BPF_F_PRESERVE_ELEMS`.
//!
//! Kernel: `kernel/bpf/arraymap.c:perf_event_array_map_ops`, `kernel/trace/bpf_trace.c` (v6.18).

use std::any::Any;
use std::sync::Arc;

use super::fd_array::FdArray;
use super::object::{Object, OtherObject};
use super::{Caller, MapDef, MapOps};
use crate::abi::{Errno, Fd, MapFlags, PERF_CURRENT_CPU, PERF_INDEX_MASK, Result, UpdateFlags};
use crate::env::Env;

/// See the module.
#[derive(Debug)]
pub struct PerfEventArray {
    env: Arc<Env>,
    events: FdArray<Entry>,
    preserve_elems: bool,
}

/// An event, and the open file of the map that it belongs to.
#[derive(Clone, Debug)]
struct Entry {
    event: Arc<OtherObject>,
    map_file: u64,
}

impl PerfEventArray {
    /// An empty array.
    ///
    /// # Errors
    ///
    /// None so far.
    #[expect(clippy::unnecessary_wraps, reason = "all types are made alike")]
    pub(super) fn new(def: &MapDef, env: &Arc<Env>) -> Result<Self> {
        Ok(Self {
            env: Arc::clone(env),
            events: FdArray::new(def.max_entries),
            preserve_elems: def.map_flags.contains(MapFlags::PRESERVE_ELEMS),
        })
    }

    /// A sample of the bytes of `parts`, one after the other, for the event whose index is in `flags`.
    ///
    /// # Errors
    ///
    /// `E2BIG` if there is no such index; `ENOENT` if nothing is there; `EINVAL` if programs cannot write to events of that
    /// kind; `EOPNOTSUPP` if it is off or that of another CPU; `ENOSPC` if it is not mapped, or there is no room.
    ///
    /// Kernel: `__bpf_perf_event_output`.
    pub fn output(&self, cpu: u32, flags: u64, parts: [&[u8]; 2]) -> Result<()> {
        let index = match flags & PERF_INDEX_MASK {
            PERF_CURRENT_CPU => cpu,
            index => u32::try_from(index).expect("32 bits"),
        };
        let entry = self.events.at(index)?;
        let event = entry.event.perf_event().expect("only events are put in");
        event.output(&self.env, cpu, parts)
    }
}

/// Kernel: `kernel/bpf/arraymap.c:perf_event_fd_array_get_ptr`.
fn event(caller: &Caller<'_>, fd: Fd) -> Result<Entry> {
    match caller.files.object(fd)? {
        Object::Other(event) if event.perf_event().is_some() => Ok(Entry {
            event,
            map_file: caller.files.map_file(),
        }),
        Object::Map(_)
        | Object::Btf(_)
        | Object::Prog(_)
        | Object::Cgroup(_)
        | Object::Other(_) => Err(Errno::EBADF),
    }
}

/// User space cannot look an event up: `ENOTSUPP`, whatever the key.
impl MapOps for PerfEventArray {
    fn delete_elem(&self, _cpu: u32, key: &[u8]) -> Result<()> {
        self.events.delete(key)
    }

    fn user_update_elem(
        &self,
        caller: &Caller<'_>,
        key: &[u8],
        value: &[u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        self.events
            .update(key, value, flags, |fd| event(caller, fd))
    }

    fn get_next_key(&self, key: Option<&[u8]>, next_key: &mut [u8]) -> Result<()> {
        self.events.next_key(key, next_key)
    }

    /// Kernel: `kernel/bpf/arraymap.c:perf_event_fd_array_release`.
    fn release_file(&self, file: u64) {
        if !self.preserve_elems {
            self.events.delete_if(|entry| entry.map_file == file);
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
