//! perf_event_open(2) and the ioctls of perf events, as far as programs write to them.

use super::mapping::int;
use super::memory::TaskMem;
use super::port::{Answer, Port};
use super::server::Server;
use crate::abi::{Errno, PerfAttr, UserMem};
use crate::map::object::OtherKind;

/// A call of perf_event_open(2).
pub(super) fn open(server: &Server, port: &dyn Port, args: [u64; 6]) -> Answer {
    let [attr, pid, cpu, ..] = args;
    let (pid, cpu) = (int(pid).cast_signed(), int(cpu).cast_signed());
    let mut bytes = [0; PerfAttr::SIZE];
    if TaskMem::new(port).read(attr, &mut bytes).is_err() {
        return Answer::Returns(Err(Errno::EFAULT));
    }
    let attr = PerfAttr::decode(&bytes);
    if server.kernel.env().is_for_attaching(attr.kind) {
        let kind = attr.kind;
        server.notices.refuse(format_args!(
            "perf events of type {kind} (probes, tracepoints) do not fire: perf_event_open is refused with EOPNOTSUPP"
        ));
        return Answer::Returns(Err(Errno::EOPNOTSUPP));
    }
    if !attr.is_bpf_output() {
        // A counter of the machine.
        return Answer::Continue;
    }
    if attr.has_other_records() {
        server.notices.refuse(format_args!(
            "perf events whose samples are not raw data, with or without the time, are not emulated: EOPNOTSUPP"
        ));
        return Answer::Returns(Err(Errno::EOPNOTSUPP));
    }
    let answer = || {
        let cpu = u32::try_from(cpu).map_err(|_| Errno::EINVAL)?;
        if pid != -1 || cpu >= server.kernel.env().nr_cpus {
            return Err(Errno::EINVAL);
        }
        let event = OtherKind::PerfEvent(attr.event(cpu));
        let file = server.kernel.declare(event);
        server.table.install(port, file)
    };
    Answer::Returns(answer().map(u64::from))
}

/// A call of ioctl(2), with a request of perf events.
pub(super) fn ioctl(server: &Server, port: &dyn Port, args: [u64; 6]) -> Answer {
    let [fd, request, argument, ..] = args;
    let Ok(file) = server.tasks.file(port.task(), int(fd)) else {
        return Answer::Continue;
    };
    let Some(entry) = server.table.get(file.inode) else {
        return Answer::Continue;
    };
    let mut mem = TaskMem::new(port);
    let answer = entry.any_file().ioctl(int(request), argument, &mut mem);
    if answer == Err(Errno::EOPNOTSUPP) {
        server.notices.refuse(format_args!(
            "programs of perf events do not run: PERF_EVENT_IOC_SET_BPF is refused with EOPNOTSUPP"
        ));
    }
    Answer::Returns(answer.map(|()| 0))
}
