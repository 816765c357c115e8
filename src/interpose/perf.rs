//! perf_event_open(2) and the ioctls of perf events, as far as programs write to them.

use std::ffi::{c_int, c_long, c_ulong};
use std::sync::Arc;

use super::memory::ProcessMem;
use super::table::{self, Entry};
use super::{caller, notice, process, threads};
use crate::abi::{Errno, PerfAttr, Result, UserMem};
use crate::map::object::{Object, OtherKind};

const ENABLE: c_ulong = 0x2400;
const DISABLE: c_ulong = 0x2401;
const ID: c_ulong = 0x8008_2407;
const SET_BPF: c_ulong = 0x4004_2408;
const PAUSE_OUTPUT: c_ulong = 0x4004_2409;

/// The answer of perf_event_open(2); `None` if it is for the running kernel.
pub(super) fn open(attr: u64, pid: c_int, cpu: c_int, mem: &ProcessMem) -> Option<Result<u32>> {
    if !process::may_answer() {
        return None;
    }
    let installed = threads::current()?;
    let mut bytes = [0; PerfAttr::SIZE];
    if mem.read(attr, &mut bytes).is_err() {
        return Some(Err(Errno::EFAULT));
    }
    let attr = PerfAttr::decode(&bytes);
    if attr.is_for_attaching() {
        let kind = attr.kind;
        notice(format_args!(
            "perf events of type {kind} do not fire: perf_event_open is refused with EOPNOTSUPP"
        ));
        return Some(Err(Errno::EOPNOTSUPP));
    }
    if !attr.is_bpf_output() {
        // A counter of the machine.
        return None;
    }
    if attr.has_other_records() {
        notice(format_args!(
            "perf events whose samples are not raw data, with or without the time, are not emulated: EOPNOTSUPP"
        ));
        return Some(Err(Errno::EOPNOTSUPP));
    }
    Some(caller::answered(|| {
        let Ok(cpu) = u32::try_from(cpu) else {
            return Err(Errno::EINVAL);
        };
        if pid != -1 || cpu >= installed.kernel.env().nr_cpus {
            return Err(Errno::EINVAL);
        }
        let file = installed
            .kernel
            .declare(OtherKind::PerfEvent(attr.event(cpu)));
        table::install(&installed, file)
    }))
}

/// It may be an ioctl of a perf event.
pub(super) fn is_ioctl(request: c_ulong) -> bool {
    matches!(request, ENABLE | DISABLE | ID | SET_BPF | PAUSE_OUTPUT)
}

/// The answer of ioctl(2) of an emulated file; `ENOTTY` is the answer of the placeholder, too.
pub(super) fn ioctl(
    entry: &Arc<Entry>,
    request: c_ulong,
    argument: c_long,
    mem: &mut ProcessMem,
) -> Result<u32> {
    let object = entry.file.object();
    let event = match &object {
        Object::Other(object) => object.perf_event(),
        Object::Map(_) | Object::Btf(_) | Object::Prog(_) | Object::Cgroup(_) => None,
    };
    let event = event.ok_or(Errno::ENOTTY)?;
    match request {
        ENABLE => event.enable(true),
        DISABLE => event.enable(false),
        PAUSE_OUTPUT => event.pause(argument != 0)?,
        ID => mem.write(argument.cast_unsigned(), &event.id.to_ne_bytes())?,
        SET_BPF => {
            notice(format_args!(
                "programs of perf events do not run: PERF_EVENT_IOC_SET_BPF is refused with EOPNOTSUPP"
            ));
            return Err(Errno::EOPNOTSUPP);
        }
        _ => return Err(Errno::ENOTTY),
    }
    Ok(0)
}
