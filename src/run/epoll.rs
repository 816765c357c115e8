//! epoll(7) of maps and perf events: a placeholder cannot be waited for, so an eventfd of ours is, in its place.
//!
//! It is put into the program's own epoll instance, with the program's data, and says what the map's file says: it is set at
//! each wakeup, and taken back before anybody looks, if what was told of has been read meanwhile. An epoll instance knows a
//! file by its fd, too; so there is an eventfd for each. For maps that nobody can wait for it is a pipe that nobody reads, which
//! says `EPOLLERR` as they do.
//!
//! Kernel: `fs/eventpoll.c` (v6.18).

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::pipe::{PipeFlags, pipe_with};

use super::mapping::{errno_of, int};
use super::memory::TaskMem;
use super::port::{Answer, Port, taken};
use super::server::Server;
use super::table::Entry;
use crate::abi::{Attr, Errno, Fd, MapType, PollEvents, Result, UserMem};
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

/// What stands for an fd in epoll instances.
pub(super) struct Registration {
    fd: Fd,
    sign: Arc<Sign>,
    /// Is called at each wakeup, as long as it is kept.
    wakes: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.fd)
    }
}

/// An eventfd or a pipe, and what it is to say.
struct Sign {
    file: OwnedFd,
    says: PollEvents,
}

impl Sign {
    fn new(file: &OpenFile) -> Result<Self> {
        let says = match file.map_type() {
            Some(MapType::USER_RINGBUF) => PollEvents::OUT,
            None | Some(MapType::RINGBUF) => PollEvents::IN,
            Some(_) => PollEvents::ERR,
        };
        let file = if says == PollEvents::ERR {
            pipe_with(PipeFlags::CLOEXEC).map(|(_, written)| written)
        } else {
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        };
        let file = file.map_err(errno_of)?;
        Ok(Self { file, says })
    }

    /// The file says now what it is to say.
    fn is_said_by(&self, file: &OpenFile) -> bool {
        file.poll().unwrap_or(0) & self.says.bits() != 0
    }

    /// Says what the file says, if it `tells`. First it is taken back, as a wakeup may come at any time.
    fn show(&self, file: &OpenFile, tells: bool) {
        self.set(false);
        if self.is_said_by(file) && tells {
            self.set(true);
        }
    }

    /// It is readable when it counts anything, and writable unless it is full.
    fn set(&self, ready: bool) {
        const FULL: u64 = u64::MAX - 1;
        if self.says == PollEvents::ERR {
            return;
        }
        if ready != (self.says == PollEvents::IN) {
            let _ = rustix::io::read(&self.file, &mut [0; 8]);
        }
        let count = match (ready, self.says == PollEvents::IN) {
            (true, true) => 1,
            (false, false) => FULL,
            (false, true) | (true, false) => return,
        };
        // Full, it is told of all the same.
        let _ = rustix::io::write(&self.file, &count.to_ne_bytes());
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
            let change = || change(server, port, &entry, instance, op, fd, event);
            Answer::Returns(server.answered(change).map(|()| 0))
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

fn change(
    server: &Server,
    port: &dyn Port,
    entry: &Arc<Entry>,
    instance: Fd,
    op: u32,
    fd: Fd,
    event: u64,
) -> Result<()> {
    let file = entry.any_file();
    let is_event = matches!(file.kind(), FileKind::Other(_));
    let event = match op {
        DEL => None,
        _ => Some(read_event(port, event)?),
    };
    let epoll = taken(port, instance)?;
    let mut registrations = entry.registrations.lock();
    let known = registrations.iter().position(|known| known.fd == fd);
    let at = match (op, known) {
        (_, Some(at)) => at,
        (ADD, None) => {
            registrations.push(Registration::new(&file, fd)?);
            server.watched.lock().push(Arc::downgrade(entry));
            registrations.len() - 1
        }
        (MOD | DEL, None) => return Err(Errno::ENOENT),
        _ => return Err(Errno::EINVAL),
    };
    let sign = &registrations[at].sign;
    if op != DEL {
        // An event has told of its wakeups when it is asked, and it is asked here.
        sign.show(&file, !is_event);
    }
    match (op, event) {
        (ADD, Some((data, flags))) => {
            epoll::add(&epoll, &sign.file, data, said(sign, flags, is_event))
        }
        (MOD, Some((data, flags))) => {
            epoll::modify(&epoll, &sign.file, data, said(sign, flags, is_event))
        }
        (DEL, _) => epoll::delete(&epoll, &sign.file),
        _ => return Err(Errno::EINVAL),
    }
    .map_err(errno_of)
}

/// What is waited for of the file in its place; a perf event tells of each wakeup once.
fn said(sign: &Sign, flags: EventFlags, is_event: bool) -> EventFlags {
    let other = match sign.says {
        PollEvents::OUT => EventFlags::IN,
        PollEvents::IN => EventFlags::OUT,
        _ => EventFlags::OUT | EventFlags::WRNORM | EventFlags::WRBAND,
    };
    let mut flags = flags & !other;
    flags.set(EventFlags::ET, is_event || flags.contains(EventFlags::ET));
    flags
}

impl Registration {
    fn new(file: &OpenFile, fd: Fd) -> Result<Self> {
        let sign = Arc::new(Sign::new(file)?);
        let theirs = Arc::clone(&sign);
        let wakes: Arc<dyn Fn() + Send + Sync> = Arc::new(move || theirs.set(true));
        // What has no wakeups is never told of.
        let _ = file.on_wake(&wakes);
        Ok(Self { fd, sign, wakes })
    }
}

/// What was told of and has been read since is not told of any more: somebody is about to look.
pub(super) fn refresh(server: &Server) {
    server.watched.lock().retain(|watched| {
        let Some(entry) = watched.upgrade() else {
            return false;
        };
        let file = entry.any_file();
        // Asking a perf event changes it.
        if matches!(file.kind(), FileKind::Map(_)) {
            for Registration { sign, .. } in entry.registrations.lock().iter() {
                if !sign.is_said_by(&file) {
                    sign.show(&file, true);
                }
            }
        }
        true
    });
}

fn read_event(port: &dyn Port, event: u64) -> Result<(EventData, EventFlags)> {
    let (size, data) = EVENT;
    let mut bytes = [0; 16];
    TaskMem::new(port).read(event, &mut bytes[..size])?;
    let attr = Attr(&bytes);
    let flags = EventFlags::from_bits_retain(attr.u32(0));
    Ok((EventData::new_u64(attr.u64(data)), flags))
}

/// Its wakeups reach those who wait for it.
pub(super) fn follow(entry: &Entry) {
    let file = entry.any_file();
    for registration in entry.registrations.lock().iter() {
        let _ = file.on_wake(&registration.wakes);
    }
}
