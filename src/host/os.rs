//! The few system calls that are needed, each with its errno.
#![expect(unsafe_code, reason = "system calls")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use crate::abi::{Cmd, Errno, Fd, PerfEvent, PollEvents, Result, Wakeup, perf_attr, perf_ioc};

/// The errno of the last system call of this thread that failed.
pub fn last_errno() -> Errno {
    errno_of(&io::Error::last_os_error())
}

/// The errno of an error of std's.
pub fn errno_of(error: &io::Error) -> Errno {
    let number = error
        .raw_os_error()
        .and_then(|number| u16::try_from(number).ok());
    number.map_or(Errno::EIO, Errno::new)
}

/// What a system call returned, unless it is negative.
///
/// # Errors
///
/// The errno of that call.
pub(crate) fn checked(ret: i64) -> Result<u32> {
    u32::try_from(ret).map_err(|_| last_errno())
}

/// An fd as system calls take it; what is no fd is none there either.
pub(crate) fn raw(fd: Fd) -> RawFd {
    fd.cast_signed()
}

/// An fd that std closes as attrs hold it.
pub fn number(fd: &impl AsRawFd) -> Fd {
    fd.as_raw_fd().cast_unsigned()
}

/// bpf(2) on an attr at that address.
///
/// # Safety
///
/// Every address that the command takes from the attr is that of memory which the kernel may read and write as the command
/// does, or is not mapped.
pub(super) unsafe fn bpf(cmd: Cmd, attr: u64, size: u32) -> Result<u32> {
    // The last two are looked at by kernels of 7.3 and later, for numbers that they do not know.
    // SAFETY: the caller's promise.
    checked(unsafe { libc::syscall(libc::SYS_bpf, cmd.0, attr, size, 0_u64, 0_u64) })
}

/// Another number for an open file: at least `least`, close-on-exec.
///
/// # Errors
///
/// `EBADF`, `EMFILE`
pub fn dup(fd: Fd, least: i32) -> Result<OwnedFd> {
    // SAFETY: fcntl(2) looks the number up; no memory is involved.
    let ret = unsafe { libc::fcntl(raw(fd), libc::F_DUPFD_CLOEXEC, least) };
    owned(i64::from(ret))
}

/// A new fd that a system call returned.
pub(super) fn owned(ret: i64) -> Result<OwnedFd> {
    let fd = raw(checked(ret)?);
    // SAFETY: the kernel gave the number just now: nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `F_GETFL` and `F_GETFD` of an open file.
///
/// # Errors
///
/// `EBADF`
pub fn file_flags(fd: Fd) -> Result<(i32, i32)> {
    // SAFETY: fcntl(2) looks the number up; no memory is involved.
    let status = unsafe { libc::fcntl(raw(fd), libc::F_GETFL) };
    checked(i64::from(status))?;
    // SAFETY: as above.
    let own = unsafe { libc::fcntl(raw(fd), libc::F_GETFD) };
    checked(i64::from(own))?;
    Ok((status, own))
}

/// So many files can be open at once; the soft limit is raised to the hard one.
pub(super) fn most_files() -> libc::rlim_t {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the struct is ours.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    if got != 0 {
        return 256;
    }
    let before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max.min(1 << 16).max(before);
    // SAFETY: the struct is ours, and only read.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    if set == 0 { limit.rlim_cur } else { before }
}

/// perf_event_open(2). Of an event that programs write to, samples are raw; of others, they have at most the time in them.
///
/// # Errors
///
/// What perf_event_open(2) answers.
pub fn perf_event_open(event: PerfEvent) -> Result<OwnedFd> {
    use perf_attr::{DISABLED, SAMPLE_RAW, SAMPLE_TIME, WATERMARK, WRITE_BACKWARD};
    const SIZE: u32 = 112;
    const CLOEXEC: u32 = 8;
    let (watermark, wakeup) = match event.wakeup {
        Wakeup::Events(events) => (0, events),
        Wakeup::Watermark(bytes) => (WATERMARK, bytes),
    };
    let mut attr = [0_u64; SIZE as usize / 8];
    let software = [1_u32.to_ne_bytes(), SIZE.to_ne_bytes()].concat();
    attr[0] = u64::from_ne_bytes(software.try_into().expect("two words"));
    attr[1] = event.config;
    attr[2] = 1;
    if event.config == PerfEvent::BPF_OUTPUT {
        attr[3] = SAMPLE_RAW;
    }
    let bit = |set, bit| if set { bit } else { 0 };
    attr[3] |= bit(event.timed, SAMPLE_TIME);
    attr[5] = watermark | bit(event.disabled, DISABLED) | bit(event.backward, WRITE_BACKWARD);
    attr[6] = u64::from(wakeup);
    // SAFETY: the attr is as long as it says, and only read; no other memory is involved.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            attr.as_ptr(),
            -1,
            event.cpu,
            -1,
            CLOEXEC,
        )
    };
    owned(ret)
}

/// `PERF_EVENT_IOC_ENABLE` and `PERF_EVENT_IOC_DISABLE`.
///
/// # Errors
///
/// What ioctl(2) answers.
pub fn perf_event_enable(fd: Fd, enabled: bool) -> Result<()> {
    let request = if enabled {
        perf_ioc::ENABLE
    } else {
        perf_ioc::DISABLE
    };
    // SAFETY: the argument is a number.
    let ret = unsafe { libc::ioctl(raw(fd), request.into(), 0) };
    checked(i64::from(ret)).map(|_| ())
}

/// `PERF_EVENT_IOC_PAUSE_OUTPUT`.
///
/// # Errors
///
/// What ioctl(2) answers.
pub fn perf_event_pause(fd: Fd, paused: bool) -> Result<()> {
    // SAFETY: the argument is a number.
    let ret = unsafe { libc::ioctl(raw(fd), perf_ioc::PAUSE_OUTPUT.into(), u32::from(paused)) };
    checked(i64::from(ret)).map(|_| ())
}

/// `PERF_EVENT_IOC_ID`.
///
/// # Errors
///
/// What ioctl(2) answers.
pub fn perf_event_id(fd: Fd) -> Result<u64> {
    let mut id = 0_u64;
    // SAFETY: the number is ours.
    let ret = unsafe { libc::ioctl(raw(fd), perf_ioc::ID.into(), &raw mut id) };
    checked(i64::from(ret)).map(|_| id)
}

/// poll(2) of one file, all events asked for: its state, as soon as it has one, or the time is over (never, without one).
///
/// # Errors
///
/// `EBADF` if it is not open.
pub fn poll(fd: Fd, timeout: Option<Duration>) -> Result<PollEvents> {
    let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        // Rounded up: it does not come back before the time is over.
        let millis = left.map_or(-1, |left| {
            i32::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
        });
        let mut asked = libc::pollfd {
            fd: raw(fd),
            events: -1,
            revents: 0,
        };
        // SAFETY: one struct, which is ours.
        let number = unsafe { libc::poll(&raw mut asked, 1, millis) };
        match checked(i64::from(number)) {
            Ok(0) if left.is_none_or(|left| left > Duration::ZERO) => {}
            Ok(_) if asked.revents & libc::POLLNVAL != 0 => return Err(Errno::EBADF),
            Ok(_) => {
                return Ok(PollEvents::from_bits_retain(
                    asked.revents.cast_unsigned().into(),
                ));
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Waits until a file that is watched edge-triggered was signalled, at most so long.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

impl Epoll {
    /// Watches one file for input and output.
    ///
    /// # Errors
    ///
    /// What epoll_ctl(2) answers: `EPERM` for files without events.
    pub fn new(fd: Fd) -> Result<Self> {
        // SAFETY: no memory is involved.
        let epoll = Self(owned(i64::from(unsafe {
            libc::epoll_create1(libc::EPOLL_CLOEXEC)
        }))?);
        let events = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET;
        let mut event = libc::epoll_event {
            events: events.cast_unsigned(),
            u64: 0,
        };
        let own = epoll.0.as_raw_fd();
        // SAFETY: the struct is ours, and only read.
        let ret = unsafe { libc::epoll_ctl(own, libc::EPOLL_CTL_ADD, raw(fd), &raw mut event) };
        checked(i64::from(ret))?;
        Ok(epoll)
    }

    /// What was signalled since the last call; 0 if nothing was.
    pub fn signalled(&self, timeout_ms: i32) -> u32 {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: room for one struct, which is ours.
        let _number =
            unsafe { libc::epoll_wait(self.0.as_raw_fd(), &raw mut event, 1, timeout_ms) };
        event.events
    }
}

/// Capabilities of this thread: those in effect, and those that can be.
///
/// # Errors
///
/// What capget(2) answers.
pub fn capabilities() -> Result<(u64, u64)> {
    let (mut header, mut sets) = (CAP_HEADER, [0_u32; 6]);
    // SAFETY: header and sets are ours, and as long as version 3 says.
    let ret = unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr()) };
    checked(ret)?;
    let set = |low: usize| u64::from(sets[low]) | u64::from(sets[low + 3]) << 32;
    Ok((set(0), set(1)))
}

/// Sets the capabilities in effect, of this thread.
///
/// # Errors
///
/// What capset(2) answers: `EPERM` for those that it cannot have.
#[expect(clippy::cast_possible_truncation, reason = "the two halves")]
pub fn set_capabilities(effective: u64) -> Result<()> {
    let (mut header, mut sets) = (CAP_HEADER, [0_u32; 6]);
    // SAFETY: header and sets are ours, and as long as version 3 says.
    let ret = unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr()) };
    checked(ret)?;
    (sets[0], sets[3]) = (effective as u32, (effective >> 32) as u32);
    // SAFETY: as above.
    let ret = unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), sets.as_ptr()) };
    checked(ret)?;
    Ok(())
}

/// `struct __user_cap_header_struct`: version 3, this thread.
const CAP_HEADER: [u32; 2] = [0x2008_0522, 0];
