//! epoll(7) of maps and perf events: a placeholder cannot be waited for, so an end of a pipe of ours is, in its place.
//!
//! It is put into the program's own epoll instance, with the program's data, and says what the map's file says: it is set at
//! each wakeup, and taken back before anybody looks, if what was told of has been read meanwhile. An epoll instance knows a
//! file by its fd, too; so there is a pipe for each. For maps that nobody can wait for it is a pipe that nobody reads, which
//! says `EPOLLERR` as they do.
//!
//! Kernel: `fs/eventpoll.c` (v6.18).

use std::fmt;
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use super::mapping::{errno_of, int};
use super::memory::TaskMem;
use super::placeholder::inode_of;
use super::port::{Answer, Port, taken};
use super::server::Server;
use super::table::Entry;
use crate::abi::{Attr, Fd, MapType, PollEvents, Result, UserMem};
use crate::sys::{FileKind, OpenFile};

const ADD: u32 = libc::EPOLL_CTL_ADD.cast_unsigned();
const MOD: u32 = libc::EPOLL_CTL_MOD.cast_unsigned();
const DEL: u32 = libc::EPOLL_CTL_DEL.cast_unsigned();

/// So many epoll instances are told of one fd apart from each other; those that were closed are among them.
const MOST: usize = 16;

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

/// A pipe, and what it is to say.
struct Sign {
    says: PollEvents,
    written: OwnedFd,
    /// Nothing, if nobody can wait for the map.
    read: Option<OwnedFd>,
}

impl Sign {
    fn new(file: &OpenFile) -> Result<Self> {
        let says = match file.map_type() {
            Some(MapType::USER_RINGBUF) => PollEvents::OUT,
            None | Some(MapType::RINGBUF) => PollEvents::IN,
            Some(_) => PollEvents::ERR,
        };
        let pipe = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK);
        let (read, written) = pipe.map_err(errno_of)?;
        let mut sign = Self {
            says,
            written,
            read: Some(read),
        };
        if says != PollEvents::IN {
            // A byte fills it.
            fcntl_setpipe_size(&sign.written, 1).map_err(errno_of)?;
            sign.fill();
        }
        if says == PollEvents::ERR {
            sign.read = None;
        }
        Ok(sign)
    }

    /// What is put into epoll instances.
    fn end(&self) -> &OwnedFd {
        match &self.read {
            Some(read) if self.says == PollEvents::IN => read,
            _ => &self.written,
        }
    }

    /// The file says now what it is to say.
    fn is_said_by(&self, file: &OpenFile) -> bool {
        file.poll().unwrap_or(0) & self.says.bits() != 0
    }

    /// It says that, too.
    fn is_shown(&self) -> bool {
        let asked = PollFlags::IN | PollFlags::OUT;
        let mut end = [PollFd::new(self.end(), asked)];
        poll(&mut end, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// Says what the file says, if it `tells`. Who is told already is not told again. First it is taken back, as a wakeup may
    /// come at any time.
    fn show(&self, file: &OpenFile, tells: bool) {
        if tells && self.is_said_by(file) && self.is_shown() {
            return;
        }
        self.set(false);
        if self.is_said_by(file) && tells {
            self.set(true);
        }
    }

    /// Whoever waits is woken, if it is ready.
    fn set(&self, ready: bool) {
        match (ready, self.says) {
            (true, PollEvents::IN) if !self.fill() => {
                self.drain();
                self.fill();
            }
            (true, PollEvents::OUT) => {
                self.fill();
                self.drain();
            }
            (false, PollEvents::IN) => self.drain(),
            (false, PollEvents::OUT) => {
                self.fill();
            }
            _ => {}
        }
    }

    /// There was room for a byte.
    fn fill(&self) -> bool {
        rustix::io::write(&self.written, &[0]).is_ok()
    }

    fn drain(&self) {
        let mut room = [0; 256];
        while let Some(read) = &self.read
            && rustix::io::read(read, &mut room).is_ok_and(|read| read == room.len())
        {}
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
    let mut of_fd = (0..registrations.len()).filter(|&at| registrations[at].fd == fd);
    let known = of_fd.clone().find(|&at| registrations[at].is_in(&epoll));
    let first = of_fd.next().filter(|_| of_fd.count() >= MOST);
    let at = match known.or(first) {
        Some(at) => at,
        None => {
            registrations.push(Registration::new(&file, fd)?);
            registrations.len() - 1
        }
    };
    let sign = &registrations[at].sign;
    let done = match (op, event) {
        (ADD, Some((data, flags))) => epoll::add(&epoll, sign.end(), data, said(flags, is_event)),
        (MOD, Some((data, flags))) => {
            epoll::modify(&epoll, sign.end(), data, said(flags, is_event))
        }
        (DEL, _) => epoll::delete(&epoll, sign.end()),
        _ => Err(rustix::io::Errno::INVAL),
    };
    if done.is_ok() && op != DEL {
        // An event has told of its wakeups when it is asked, and it is asked here.
        sign.show(&file, !is_event);
    }
    match (op, done.is_ok()) {
        (ADD, true) => {
            let (mut watched, entry) = (server.watched.lock(), Arc::downgrade(entry));
            if !watched.iter().any(|known| known.ptr_eq(&entry)) {
                watched.push(entry);
            }
        }
        (DEL, true) => drop(registrations.swap_remove(at)),
        (_, false) if known.or(first).is_none() => drop(registrations.pop()),
        _ => {}
    }
    done.map_err(errno_of)
}

/// What is waited for; a perf event tells of each wakeup once.
fn said(mut flags: EventFlags, is_event: bool) -> EventFlags {
    flags.set(EventFlags::ET, is_event || flags.contains(EventFlags::ET));
    flags
}

impl Registration {
    /// Whether it stands in that epoll instance.
    fn is_in(&self, epoll: &OwnedFd) -> bool {
        let Ok(inode) = inode_of(self.sign.end()) else {
            return false;
        };
        let items = fs::read_to_string(format!("/proc/self/fdinfo/{}", epoll.as_raw_fd()));
        let inode = format!(" ino:{:x} ", inode.1);
        items.is_ok_and(|items| items.lines().any(|item| item.contains(&inode)))
    }

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
