//! perf_event_open(2) and the ioctls of perf events, as far as programs write to them.

use std::ffi::{c_int, c_long, c_ulong};

use super::memory::ProcessMem;
use super::raw::as_int;
use super::{caller, notice, process, table, threads};
use crate::abi::{Errno, PerfAttr, Result, UserMem, perf_ioc};
use crate::map::object::OtherKind;

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
    if installed.kernel.env().is_for_attaching(attr.kind) {
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

/// An ioctl of a perf event, if it is one.
pub(super) fn request(request: c_ulong) -> Option<u32> {
    let request = u32::try_from(request).ok()?;
    perf_ioc::ALL.contains(&request).then_some(request)
}

/// The answer of ioctl(2) where an emulated file has to do with it, as the event or as the program.
pub(super) fn ioctl(
    fd: c_int,
    request: u32,
    argument: c_long,
    mem: &mut ProcessMem,
) -> Option<Result<u32>> {
    let sets_program = request == perf_ioc::SET_BPF;
    if sets_program && (table::get(fd).is_some() || table::get(as_int(argument)).is_some()) {
        notice(format_args!(
            "programs of perf events do not run: PERF_EVENT_IOC_SET_BPF is refused with EOPNOTSUPP"
        ));
        return Some(Err(Errno::EOPNOTSUPP));
    }
    let entry = table::get(fd)?;
    Some(caller::answered(|| {
        let done = entry.file.ioctl(request, argument.cast_unsigned(), mem);
        done.map(|()| 0)
    }))
}
