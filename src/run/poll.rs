//! poll(2) and select(2) of maps and perf events: a placeholder is always ready, so who asks for one is answered here.
//!
//! A call that has to wait is put aside, and looked at again whenever something may have changed. What signals make of it
//! that come meanwhile, `signals` says.
//!
//! Kernel: `fs/select.c` (v6.18).

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::mapping::int;
use super::memory::TaskMem;
use super::port::{Answer, Port, Syscall, taken};
use super::server::Server;
use super::{epoll, signals, task};
use crate::abi::{Attr, Errno, Fd, Result, UserMem};

/// How long a signal may wait that is to end a call.
const LOOK: Duration = Duration::from_millis(10);
/// As often as that a signal is looked for, it is looked whether other threads have stopped.
const STOPS: u32 = 4;
/// More fds than anybody asks for: the running kernel answers.
const MOST: u32 = 4096;
/// Bytes of a `struct pollfd`.
const POLLFD: usize = 8;

/// What each set of select(2) asks for; what is in it, if the file says any of that.
const SETS: [(PollFlags, PollFlags); 3] = [
    (
        PollFlags::IN
            .union(PollFlags::RDNORM)
            .union(PollFlags::RDBAND),
        PollFlags::HUP.union(PollFlags::ERR),
    ),
    (
        PollFlags::OUT
            .union(PollFlags::WRNORM)
            .union(PollFlags::WRBAND),
        PollFlags::ERR,
    ),
    (PollFlags::PRI, PollFlags::empty()),
];

/// A call that waits.
pub(super) struct Wait {
    asked: Vec<Asked>,
    shape: Shape,
    time: Time,
    /// Signals that do not end it, besides those that are blocked.
    blocked: u64,
    looked: Instant,
    looks: u32,
    /// Is called at each wakeup, as long as it is kept.
    _wakes: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} fds", self.asked.len())
    }
}

/// One fd.
struct Asked {
    fd: Fd,
    what: What,
    events: PollFlags,
}

impl Asked {
    /// What the running kernel is asked.
    fn theirs(&self) -> Option<PollFd<'_>> {
        match &self.what {
            What::Theirs(file) => Some(PollFd::new(file, self.events)),
            What::Nothing | What::Closed | What::Ours(_) | What::Served | What::Other => None,
        }
    }
}

enum What {
    /// A negative number.
    Nothing,
    Closed,
    Ours(crate::sys::OpenFile),
    /// A file of a file system that the program itself may serve: nothing is asked of it.
    Served,
    /// Another file of the program.
    Other,
    /// It, by an fd of ours.
    Theirs(OwnedFd),
}

/// Where the answer is written.
enum Shape {
    /// `struct pollfd`s.
    Poll(u64),
    /// Three sets, and the words of each.
    Select([u64; 3], usize),
}

/// Addresses, and what is written there.
type Written = Vec<(u64, Vec<u8>)>;

/// How long it waits.
#[derive(Clone, Copy)]
struct Time {
    until: Option<Instant>,
    /// Where the time that is left is written, and how many of its units are in a second.
    left: Option<(u64, u32)>,
}

/// A call of poll(2), select(2) or their kin.
pub(super) fn call(server: &Server, port: &dyn Port, call: &Syscall) -> Answer {
    epoll::refresh(server);
    if server.table.is_empty() {
        return Answer::Continue;
    }
    // What cannot be read is for the running kernel to refuse.
    let Ok(Some(mut wait)) = Wait::new(server, port, call) else {
        return Answer::Continue;
    };
    if let Err(errno) = wait.take(port) {
        return Answer::Returns(Err(errno));
    }
    match wait.answer(port) {
        Some(answer) => Answer::Returns(answer),
        None => Answer::Later(Box::new(wait)),
    }
}

impl Wait {
    /// `None` if no fd is one of ours.
    fn new(server: &Server, port: &dyn Port, call: &Syscall) -> Result<Option<Self>> {
        let mem = TaskMem::new(port);
        let [a, b, c, d, e, f] = call.args;
        let mut blocked = 0;
        #[cfg(target_arch = "x86_64")]
        let older = match call.number {
            libc::SYS_poll => {
                let time = int(c).cast_signed();
                let time = u64::try_from(time).ok().map(Duration::from_millis);
                Some((Shape::Poll(a), b, Time::new(time, None)))
            }
            libc::SYS_select => {
                let time = Time::read(&mem, e, 1_000_000)?;
                Some((Shape::Select([b, c, d], 0), a, time))
            }
            _ => None,
        };
        #[cfg(not(target_arch = "x86_64"))]
        let older = None;
        let (shape, n, time) = match older {
            Some(older) => older,
            None if call.number == libc::SYS_ppoll => {
                blocked = mask(&mem, d)?;
                (Shape::Poll(a), b, Time::read(&mem, c, 1_000_000_000)?)
            }
            None => {
                let time = Time::read(&mem, e, 1_000_000_000)?;
                if f != 0 {
                    let mut bytes = [0; 8];
                    mem.read(f, &mut bytes)?;
                    blocked = mask(&mem, u64::from_ne_bytes(bytes))?;
                }
                (Shape::Select([b, c, d], 0), a, time)
            }
        };
        let n = int(n);
        if n > MOST {
            return Ok(None);
        }
        let n = usize::try_from(n).expect("it is small");
        let (shape, asked) = match shape {
            Shape::Poll(at) => (shape, polled(&mem, at, n)?),
            Shape::Select(sets, _) => selected(&mem, port, sets, n)?,
        };
        let wakes = server.wakes();
        let mut wait = Self {
            asked,
            shape,
            time,
            blocked,
            looked: Instant::now(),
            looks: 0,
            _wakes: Arc::clone(&wakes),
        };
        let mut any = false;
        for asked in &mut wait.asked {
            asked.what = what(server, port, asked.fd, &wakes);
            any |= matches!(asked.what, What::Ours(_));
        }
        Ok(any.then_some(wait))
    }

    /// The files that are not ours are at hand.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if we have no free fd; those of pidfd_getfd(2).
    fn take(&mut self, port: &dyn Port) -> Result<()> {
        for asked in &mut self.asked {
            if matches!(asked.what, What::Other) {
                asked.what = match taken(port, asked.fd) {
                    Ok(file) => What::Theirs(file),
                    Err(Errno::EBADF) => What::Closed,
                    Err(Errno::EMFILE | Errno::ENFILE) => return Err(Errno::ENOMEM),
                    Err(errno) => return Err(errno),
                };
            }
        }
        Ok(())
    }

    /// The answer; `None` if it is to wait yet.
    pub(super) fn answer(&mut self, port: &dyn Port) -> Option<Result<u64>> {
        let said = self.said();
        let (count, bytes) = match self.shape {
            Shape::Poll(at) => self.pollfds(at, &said),
            Shape::Select(sets, words) => match self.sets(sets, words, &said) {
                Ok(found) => found,
                Err(errno) => return Some(Err(errno)),
            },
        };
        let over = self.time.until.is_some_and(|until| until <= Instant::now());
        if count == 0 && !over {
            if self.looked.elapsed() < LOOK {
                return None;
            }
            self.looked = Instant::now();
            self.looks = self.looks.wrapping_add(1);
            let may_stop = self.looks.is_multiple_of(STOPS);
            let errno = signals::interrupted(port.task(), self.blocked, may_stop)?;
            return Some(self.interrupted(port, errno));
        }
        let mut mem = TaskMem::new(port);
        let _ = self.time.write_left(&mut mem);
        let written = |(at, bytes): (u64, Vec<u8>)| mem.write(at, &bytes);
        Some(bytes.into_iter().try_for_each(written).map(|()| count))
    }

    /// The answer, if signals make that of it.
    pub(super) fn interrupted(&self, port: &dyn Port, errno: Errno) -> Result<u64> {
        let mut mem = TaskMem::new(port);
        if let Shape::Poll(at) = self.shape {
            // select(2) leaves its sets as they were; here, that nothing was said is told.
            let nothing = vec![PollFlags::empty(); self.asked.len()];
            let (_, bytes) = self.pollfds(at, &nothing);
            let mut bytes = bytes.into_iter();
            bytes.try_for_each(|(at, bytes)| mem.write(at, &bytes))?;
        }
        let told = self.time.write_left(&mut mem);
        // Begun again, it would have the whole time once more.
        Err(if told.is_ok() { errno } else { Errno::EINTR })
    }

    /// The files that are not ours, and when it is to be looked at again.
    pub(super) fn waits_for<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) -> Duration {
        fds.extend(self.asked.iter().filter_map(Asked::theirs));
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        self.time.until.map_or(LOOK, left).min(LOOK)
    }

    /// What each file says now.
    fn said(&self) -> Vec<PollFlags> {
        let mut fds: Vec<_> = self.asked.iter().filter_map(Asked::theirs).collect();
        let _ = rustix::event::poll(&mut fds, Some(&Timespec::default()));
        let mut theirs = fds.iter().map(PollFd::revents);
        // What a file says that has nothing to wait for.
        let default = PollFlags::IN | PollFlags::OUT | PollFlags::RDNORM | PollFlags::WRNORM;
        let always = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
        let each = self.asked.iter().map(|asked| match &asked.what {
            What::Nothing => PollFlags::empty(),
            What::Closed => PollFlags::NVAL,
            What::Theirs(_) => theirs.next().unwrap_or(PollFlags::empty()),
            What::Served | What::Other => default & (asked.events | always),
            What::Ours(file) => {
                let says = file.poll().ok().and_then(|bits| u16::try_from(bits).ok());
                let says = says.map_or(default, PollFlags::from_bits_retain);
                says & (asked.events | always)
            }
        });
        each.collect()
    }

    /// How many say anything; what is written.
    fn pollfds(&self, at: u64, said: &[PollFlags]) -> (u64, Written) {
        let count = said.iter().filter(|said| !said.is_empty()).count();
        let each = said.iter().zip(0_u64..);
        let written = each.map(|(said, index)| {
            let revents = at.wrapping_add(index * POLLFD as u64 + 6);
            (revents, said.bits().to_ne_bytes().to_vec())
        });
        (count as u64, written.collect())
    }

    /// How many bits are set in all sets; what is written.
    fn sets(&self, sets: [u64; 3], words: usize, said: &[PollFlags]) -> Result<(u64, Written)> {
        let mut count = 0;
        let mut written = Vec::new();
        for (&at, (asks, always)) in sets.iter().zip(SETS) {
            if at == 0 {
                continue;
            }
            let mut bytes = vec![0_u8; words * 8];
            for (asked, said) in self.asked.iter().zip(said) {
                if matches!(asked.what, What::Closed) {
                    return Err(Errno::EBADF);
                }
                if asked.events.contains(asks) && said.intersects(asks | always) {
                    let fd = usize::try_from(asked.fd).expect("it is small");
                    bytes[fd / 8] |= 1 << (fd % 8);
                    count += 1;
                }
            }
            written.push((at, bytes));
        }
        Ok((count, written))
    }
}

/// What an fd is.
fn what(server: &Server, port: &dyn Port, fd: Fd, wakes: &Arc<dyn Fn() + Send + Sync>) -> What {
    if fd.cast_signed() < 0 {
        return What::Nothing;
    }
    let Ok(found) = server.tasks.file(port.task(), fd) else {
        return What::Closed;
    };
    if let Some(entry) = server.table.get(found.inode) {
        let file = entry.any_file();
        // What has no wakeups says the same at all times.
        let _ = file.on_wake(wakes);
        return What::Ours(file);
    }
    let plain = matches!(found.mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFDIR);
    let served = || task::file_system(port.task(), fd).is_some_and(|kind| kind.starts_with("fuse"));
    if plain && served() {
        return What::Served;
    }
    What::Other
}

fn polled(mem: &TaskMem<'_>, at: u64, n: usize) -> Result<Vec<Asked>> {
    let mut bytes = vec![0; n * POLLFD];
    mem.read(at, &mut bytes)?;
    let asked = bytes.chunks_exact(POLLFD).map(|one| Asked {
        fd: Attr(one).u32(0),
        what: What::Nothing,
        events: PollFlags::from_bits_retain(u16::from_ne_bytes([one[4], one[5]])),
    });
    Ok(asked.collect())
}

fn selected(
    mem: &TaskMem<'_>,
    port: &dyn Port,
    sets: [u64; 3],
    n: usize,
) -> Result<(Shape, Vec<Asked>)> {
    // Numbers that the task has no room for are not looked at.
    let n = n.min(task::fd_room(port.task()));
    let words = n.div_ceil(64);
    let mut read = Vec::new();
    for at in sets {
        let mut bytes = vec![0; words * 8];
        if at != 0 {
            mem.read(at, &mut bytes)?;
        }
        read.push(bytes);
    }
    let events_of = |fd: usize| {
        let is_in = |set: &Vec<u8>| set[fd / 8] & 1 << (fd % 8) != 0;
        let each = read.iter().zip(SETS).filter(|(set, _)| is_in(set));
        each.fold(PollFlags::empty(), |events, (_, (asks, _))| events | asks)
    };
    let asked = (0..n).filter_map(|fd| {
        let events = events_of(fd);
        let fd = u32::try_from(fd).expect("it is small");
        let what = What::Nothing;
        (!events.is_empty()).then_some(Asked { fd, what, events })
    });
    let asked = asked.collect();
    Ok((Shape::Select(sets, words), asked))
}

/// A set of signals.
fn mask(mem: &TaskMem<'_>, at: u64) -> Result<u64> {
    let mut bytes = [0; 8];
    if at != 0 {
        mem.read(at, &mut bytes)?;
    }
    Ok(u64::from_ne_bytes(bytes))
}

impl Time {
    fn new(time: Option<Duration>, left: Option<(u64, u32)>) -> Self {
        // A time too far away for the clock is never.
        let until = time.and_then(|time| Instant::now().checked_add(time));
        Self { until, left }
    }

    /// Seconds, and parts of a second.
    fn read(mem: &TaskMem<'_>, at: u64, units: u32) -> Result<Self> {
        if at == 0 {
            return Ok(Self::new(None, None));
        }
        let mut bytes = [0; 16];
        mem.read(at, &mut bytes)?;
        let (seconds, parts) = (Attr(&bytes).u64(0), Attr(&bytes).u64(8));
        let nanos = u128::from(parts) * (1_000_000_000 / u128::from(units));
        if seconds.cast_signed() < 0 || parts.cast_signed() < 0 {
            return Err(Errno::EINVAL);
        }
        let time = Duration::from_secs(seconds)
            + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        Ok(Self::new(Some(time), Some((at, units))))
    }

    /// What is left is told.
    fn write_left(&self, mem: &mut TaskMem<'_>) -> Result<()> {
        let (Some(until), Some((at, units))) = (self.until, self.left) else {
            return Ok(());
        };
        let left = until.saturating_duration_since(Instant::now());
        let parts = left.subsec_nanos() / (1_000_000_000 / units);
        let words = [left.as_secs(), u64::from(parts)];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        mem.write(at, &bytes)
    }
}
