//! perf_event_open(2) and the ioctls of perf events, as far as programs write to them.

use super::filter::{IOC_DISABLE, IOC_ENABLE, IOC_ID, IOC_PAUSE_OUTPUT, IOC_RESET, IOC_SET_BPF};
use super::mapping::int;
use super::memory::TaskMem;
use super::port::{Answer, Port};
use super::server::Server;
use crate::abi::{Errno, PerfAttr, Result, UserMem};
use crate::map::object::{Object, OtherKind};

/// A call of perf_event_open(2).
pub(super) fn open(server: &Server, port: &dyn Port, args: [u64; 6]) -> Answer {
    let [attr, pid, cpu, ..] = args;
    let (pid, cpu) = (int(pid).cast_signed(), int(cpu).cast_signed());
    let mut bytes = [0; PerfAttr::SIZE];
    if TaskMem::new(port).read(attr, &mut bytes).is_err() {
        return Answer::Returns(Err(Errno::EFAULT));
    }
    let attr = PerfAttr::decode(&bytes);
    if attr.is_for_attaching() {
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
    let answer = || -> Result<u64> {
        let object = entry.any_file().object();
        let event = match &object {
            Object::Other(object) => object.perf_event(),
            Object::Map(_) | Object::Btf(_) | Object::Prog(_) | Object::Cgroup(_) => None,
        };
        let event = event.ok_or(Errno::ENOTTY)?;
        match int(request) {
            IOC_ENABLE => event.enable(true),
            IOC_DISABLE => event.enable(false),
            IOC_RESET => {}
            IOC_PAUSE_OUTPUT => event.pause(argument != 0)?,
            IOC_ID => TaskMem::new(port).write(argument, &event.id.to_ne_bytes())?,
            IOC_SET_BPF => {
                server.notices.refuse(format_args!(
                    "programs of perf events do not run: PERF_EVENT_IOC_SET_BPF is refused with EOPNOTSUPP"
                ));
                return Err(Errno::EOPNOTSUPP);
            }
            _ => return Err(Errno::ENOTTY),
        }
        Ok(0)
    };
    Answer::Returns(answer())
}
