//! epoll_ctl(2) of ring buffers and perf events: a placeholder cannot be waited for, so an eventfd of ours is, in its place.
//!
//! It is put into the program's own epoll instance, with the program's data, and is never read: it is told of at each wakeup
//! (`EPOLLET`), not as long as there is something.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use libc::pid_t;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::mapping::{errno_of, int};
use super::memory::TaskMem;
use super::port::{Answer, Port};
use super::server::Server;
use super::table::Entry;
use super::task;
use crate::abi::{Attr, Errno, Fd, PollEvents, Result, UserMem};
use crate::map::object::Object;
use crate::sys::{FileKind, OpenFile};

const ADD: u32 = libc::EPOLL_CTL_ADD.cast_unsigned();
const MOD: u32 = libc::EPOLL_CTL_MOD.cast_unsigned();
const DEL: u32 = libc::EPOLL_CTL_DEL.cast_unsigned();

/// Bytes of a `struct epoll_event`, and where the data is in it.
#[cfg(target_arch = "x86_64")]
const EVENT: (usize, usize) = (12, 4);
/// Bytes of a `struct epoll_event`, and where the data is in it.
#[cfg(not(target_arch = "x86_64"))]
const EVENT: (usize, usize) = (16, 8);

/// One fd in one epoll instance.
pub(super) struct Registration {
    /// The process, its epoll instance, and the fd that is waited for.
    of: (pid_t, Fd, Fd),
    ours: Arc<OwnedFd>,
    /// Is called at each wakeup, as long as it is kept.
    wakes: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.of)
    }
}

/// A call of epoll_ctl(2).
pub(super) fn ctl(server: &Server, port: &dyn Port, args: [u64; 6]) -> Answer {
    let [instance, op, fd, event, ..] = args;
    let (instance, op, fd) = (int(instance), int(op), int(fd));
    let Ok(file) = server.tasks.file(port.task(), fd) else {
        return Answer::Continue;
    };
    match server.table.get(file.inode) {
        Some(entry) if can_wait(&entry) => {
            let answer = server.answered(|| change(port, &entry, instance, op, fd, event));
            Answer::Returns(answer.map(|()| 0))
        }
        // A placeholder that nobody can wait for answers as such an object does.
        _ => Answer::Continue,
    }
}

fn can_wait(entry: &Entry) -> bool {
    matches!(
        entry.any_file().kind(),
        FileKind::Map(_) | FileKind::Other(_)
    )
}

fn change(port: &dyn Port, entry: &Entry, instance: Fd, op: u32, fd: Fd, event: u64) -> Result<()> {
    let process = task::process_of(port.task()).ok_or(Errno::EBADF)?;
    let of = (process, instance, fd);
    let epoll = instance_of(port, process, instance)?;
    let mut registrations = entry.registrations.lock();
    let known = registrations.iter().position(|known| known.of == of);
    match (op, known) {
        (ADD, None) => {
            let (data, flags) = read_event(port, event)?;
            let new = Registration::new(of)?;
            epoll::add(&epoll, &*new.ours, data, flags).map_err(errno_of)?;
            let file = entry.any_file();
            // A perf event that is not mapped has nobody to wake yet.
            let _ = file.on_wake(&new.wakes);
            if is_ready(&file) {
                (new.wakes)();
            }
            registrations.push(new);
        }
        (ADD, Some(at)) => {
            // An epoll instance that was closed had the same number: this one does not know of us.
            let (data, flags) = read_event(port, event)?;
            let known = &registrations[at];
            epoll::add(&epoll, &*known.ours, data, flags).map_err(errno_of)?;
            if is_ready(&entry.any_file()) {
                (known.wakes)();
            }
        }
        (MOD, Some(at)) => {
            let (data, flags) = read_event(port, event)?;
            let known = &registrations[at];
            if !is_ready(&entry.any_file()) {
                // What was told of is not told of again.
                let _ = rustix::io::read(&*known.ours, &mut [0; 8]);
            }
            epoll::modify(&epoll, &*known.ours, data, flags).map_err(errno_of)?;
        }
        (DEL, Some(at)) => {
            let known = registrations.swap_remove(at);
            epoll::delete(&epoll, &*known.ours).map_err(errno_of)?;
        }
        (MOD | DEL, None) => return Err(Errno::ENOENT),
        _ => return Err(Errno::EINVAL),
    }
    Ok(())
}

impl Registration {
    fn new(of: (pid_t, Fd, Fd)) -> Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let ours = Arc::new(eventfd(0, flags).map_err(errno_of)?);
        let theirs = Arc::clone(&ours);
        let wakes = Arc::new(move || {
            // Full, it is told of all the same.
            let _ = rustix::io::write(&*theirs, &1_u64.to_ne_bytes());
        });
        Ok(Self { of, ours, wakes })
    }
}

/// The program's epoll instance: the same, by an fd of ours.
fn instance_of(port: &dyn Port, process: pid_t, instance: Fd) -> Result<OwnedFd> {
    let pid = Pid::from_raw(process).ok_or(Errno::EBADF)?;
    let found = pidfd_open(pid, PidfdFlags::empty())
        .and_then(|pidfd| pidfd_getfd(&pidfd, instance.cast_signed(), PidfdGetfdFlags::empty()));
    found.map_err(|error| {
        if error != rustix::io::Errno::BADF {
            port.unreachable(&error.into());
        }
        errno_of(error)
    })
}

fn read_event(port: &dyn Port, event: u64) -> Result<(EventData, EventFlags)> {
    let (size, data) = EVENT;
    let mut bytes = [0; 16];
    TaskMem::new(port).read(event, &mut bytes[..size])?;
    let attr = Attr(&bytes);
    let flags = EventFlags::from_bits_retain(attr.u32(0)) | EventFlags::ET;
    Ok((EventData::new_u64(attr.u64(data)), flags))
}

/// Its wakeups reach those who wait for it.
pub(super) fn follow(entry: &Entry) {
    let file = entry.any_file();
    for registration in entry.registrations.lock().iter() {
        let _ = file.on_wake(&registration.wakes);
    }
}

/// There is something to be read, or room to write.
fn is_ready(file: &OpenFile) -> bool {
    if let Object::Other(object) = file.object() {
        let buffer = object.perf_event().and_then(|event| event.buffer());
        return buffer.is_some_and(|buffer| buffer.has_unread());
    }
    let bits = PollEvents::IN | PollEvents::OUT;
    file.poll().is_ok_and(|events| events & bits.bits() != 0)
}
