//! `RLIMIT_NOFILE`: the ends of pipes that are ours lie above all numbers that the program may have, where the system allows
//! that. So the program finds as many as on the running kernel.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use parking_lot::{Mutex, MutexGuard};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::placeholder::End;

/// The system's table of fds has room for all numbers up to the highest: limits above that are left alone.
const FAR: u64 = 1 << 16;

/// Held while the limit is another than the program set.
static LIMIT: Mutex<()> = Mutex::new(());

/// The limit is the program's as long as this is held.
pub(super) fn settled() -> MutexGuard<'static, ()> {
    LIMIT.lock()
}

/// A new pipe: the program's end, and ours.
///
/// # Errors
///
/// `EMFILE`, …
pub(super) fn pipe(theirs: End) -> io::Result<(OwnedFd, OwnedFd)> {
    let _settled = settled();
    let limit = getrlimit(Resource::Nofile);
    let soft = limit
        .current
        .filter(|&soft| soft <= FAR && limit.maximum.is_none_or(|hard| hard > soft));
    let Some(above) = soft.and_then(|soft| RawFd::try_from(soft).ok()) else {
        return Ok(ends(theirs)?);
    };
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised)?;
    let made = ends_around(theirs, above);
    setrlimit(Resource::Nofile, limit)?;
    Ok(made?)
}

fn ends(theirs: End) -> Result<(OwnedFd, OwnedFd), Errno> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    Ok(match theirs {
        End::Read => (read, write),
        End::Write => (write, read),
    })
}

/// Theirs has the lowest number that is free, and ours one from `limit` on.
fn ends_around(theirs: End, limit: RawFd) -> Result<(OwnedFd, OwnedFd), Errno> {
    let (fd, ours) = ends(theirs)?;
    let ours = fcntl_dupfd_cloexec(ours, limit)?;
    let fd = match theirs {
        End::Read => fd,
        End::Write => fcntl_dupfd_cloexec(fd, 0)?,
    };
    if fd.as_raw_fd() >= limit {
        return Err(Errno::MFILE);
    }
    Ok((fd, ours))
}
