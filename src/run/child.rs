//! What the program's first process does before it becomes the program: it takes the filter, and sends us the end that is told
//! of calls.
//!
//! It was forked off: nothing here allocates.

#![expect(unsafe_code, reason = "prctl(2), seccomp(2), bpf(2)")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::c_ulong;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::filter::{Backend, Filter, number};

/// Why the program could not be begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// The listener comes with it.
    Listening = 1,
    /// seccomp(2) failed.
    Filter = 2,
    /// A filter around ours refuses bpf(2).
    Refused = 3,
    /// It waits for a tracer.
    Waiting = 4,
}

/// The command of the first call: it asks whether calls come to us.
pub(super) const HELLO: u64 = u32::MAX as u64;
/// The answer; bpf(2) has no such errno. (`EXFULL`)
pub(super) const HERE: u16 = 54;

/// The call asks whether we are told of calls.
pub(super) fn is_hello(call: &super::port::Syscall) -> bool {
    call.number == i64::from(number(libc::SYS_bpf)) && call.args == [HELLO; 6]
}

/// Takes the filter, and sends what came of that.
///
/// # Errors
///
/// Those of the system; it was told.
pub(super) fn prepare(filter: &Filter, backend: Backend, socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: only numbers.
    let ret = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    checked(ret.into())?;
    if backend == Backend::Ptrace {
        tell(socket, Stage::Waiting, None)?;
        // It is told to go on.
        if rustix::io::read(socket, &mut [0])? == 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
    }
    match install(filter, backend) {
        Ok(None) => {}
        Ok(Some(listener)) => tell(socket, Stage::Listening, Some(listener.as_fd()))?,
        Err(error) => {
            tell(socket, Stage::Filter, None)?;
            return Err(error);
        }
    }
    if hello() {
        return Ok(());
    }
    tell(socket, Stage::Refused, None)?;
    Err(io::ErrorKind::PermissionDenied.into())
}

/// A call comes to us.
fn hello() -> bool {
    // SAFETY: if it does not come to us, the command is none that there is.
    let ret = unsafe { libc::syscall(libc::SYS_bpf, HELLO, HELLO, HELLO, HELLO, HELLO, HELLO) };
    ret == -1 && io::Error::last_os_error().raw_os_error() == Some(HERE.into())
}

fn install(filter: &Filter, backend: Backend) -> io::Result<Option<OwnedFd>> {
    let program = filter.program();
    let flags: c_ulong = match backend {
        Backend::Notify => {
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
        }
        Backend::Ptrace => 0,
    };
    // SAFETY: the program lives as long as `filter`.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    let fd = RawFd::try_from(checked(ret)?).expect("an fd");
    // SAFETY: it is new.
    Ok((backend == Backend::Notify).then(|| unsafe { OwnedFd::from_raw_fd(fd) }))
}

fn checked(ret: i64) -> io::Result<i64> {
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ret)
}

fn tell(socket: BorrowedFd<'_>, stage: Stage, listener: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut room = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    let fds;
    if let Some(listener) = listener {
        fds = [listener];
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    let process = std::process::id().to_ne_bytes();
    let [a, b, c, d] = process;
    let bytes = [stage as u8, a, b, c, d];
    let data = [io::IoSlice::new(&bytes)];
    sendmsg(socket, &data, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Sends an fd, with a byte.
///
/// # Errors
///
/// Those of the system.
#[cfg(target_arch = "x86_64")]
pub(super) fn send_fd(socket: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<()> {
    let mut room = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    let fds = [file];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(
        socket,
        &[io::IoSlice::new(&[0])],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// What the program's process told.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) stage: Stage,
    pub(super) process: i32,
    pub(super) listener: Option<OwnedFd>,
}

/// What the program's process told; `None` if it ended without a word.
///
/// # Errors
///
/// Those of the system.
pub(super) fn told(socket: BorrowedFd<'_>) -> io::Result<Option<Message>> {
    let mut room = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let mut bytes = [0; 5];
    let mut data = [io::IoSliceMut::new(&mut bytes)];
    let received = recvmsg(socket, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let listener = control.drain().find_map(|message| {
        let RecvAncillaryMessage::ScmRights(mut fds) = message else {
            return None;
        };
        fds.next()
    });
    let [stage, a, b, c, d] = bytes;
    let stage = match stage {
        1 => Stage::Listening,
        2 => Stage::Filter,
        4 => Stage::Waiting,
        _ => Stage::Refused,
    };
    Ok(Some(Message {
        stage,
        process: i32::from_ne_bytes([a, b, c, d]),
        listener,
    }))
}
