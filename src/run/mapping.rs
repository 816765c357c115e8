//! mmap(2) of emulated files: judged here, made by the running kernel of the placeholder, whose memory is the map's.

use std::io;
use std::sync::atomic::Ordering;

use rustix::fs::{SealFlags, fcntl_add_seals};

use super::epoll;
use super::port::{Answer, Port};
use super::server::Server;
use super::table::Entry;
use super::task::is_mapped;
use crate::abi::{Errno, Fd, MapFlags, MapRequest, MapType, Prot, Result};
use crate::map::object::Object;
use crate::sys::{FileKind, OpenFile};

/// The errno of a failure of the system.
pub(super) fn errno_of(error: impl Into<io::Error>) -> Errno {
    let number = error.into().raw_os_error();
    let number = number.and_then(|number| u16::try_from(number).ok());
    number.map_or(Errno::EIO, Errno::new)
}

/// An argument that is an `int`.
pub(super) fn int(arg: u64) -> Fd {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "what an int is in a register"
    )]
    let int = arg as u32;
    int
}

/// A call of mmap(2) of a file.
pub(super) fn mmap(server: &Server, port: &dyn Port, args: [u64; 6]) -> Answer {
    let [addr, len, prot, flags, fd, offset] = args;
    let (prot, flags, fd) = (int(prot).cast_signed(), int(flags).cast_signed(), int(fd));
    let Ok(file) = server.tasks.file(port.task(), fd) else {
        return Answer::Continue;
    };
    let Some(entry) = server.table.get(file.inode) else {
        return Answer::Continue;
    };
    let file = entry.file(|| server.tasks.access(port.task(), fd));
    let kind = flags & libc::MAP_TYPE;
    let unknown = !matches!(
        kind,
        libc::MAP_SHARED | libc::MAP_PRIVATE | libc::MAP_SHARED_VALIDATE
    );
    if unknown || kind == libc::MAP_SHARED_VALIDATE && flags & libc::MAP_SYNC != 0 {
        // That is refused whatever the file is.
        return Answer::Continue;
    }
    let fixed = flags & (libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE) != 0;
    let request = MapRequest {
        addr: if fixed { addr } else { 0 },
        len: usize::try_from(len).unwrap_or(usize::MAX),
        offset,
        prot: Prot {
            read: prot & libc::PROT_READ != 0,
            write: prot & libc::PROT_WRITE != 0,
            exec: prot & libc::PROT_EXEC != 0,
        },
        shared: kind != libc::MAP_PRIVATE,
    };
    let answer = server.answered(|| granted(server, &entry, &file, request));
    if let Some(recorder) = &server.recorder {
        recorder.mapped(entry.inode, &file, request, answer);
    }
    match answer {
        Ok(()) => Answer::Continue,
        Err(errno) => Answer::Returns(Err(errno)),
    }
}

fn granted(server: &Server, entry: &Entry, file: &OpenFile, request: MapRequest) -> Result<()> {
    let event = matches!(file.kind(), FileKind::Other(_));
    if file.map_type() == Some(MapType::ARENA) && request.addr == 0 {
        // The kernel chooses, and remembers it; the address is not known before it is mapped.
        let env = server.kernel.env();
        return Err(env.unsupported(format_args!("mmap of an arena at no fixed address")));
    }
    if event {
        drop_unmapped(server, entry);
    }
    let granted = server.kernel.grant_mmap(file, request)?;
    if is_read_only(file)
        && let Some(memory) = file.memory()
    {
        // What is mapped from now on cannot be made writable by mprotect(2). Where that fails, it can.
        let _ = fcntl_add_seals(memory, SealFlags::FUTURE_WRITE);
    }
    if event || request.prot.write {
        entry.granted.lock().push(granted);
    }
    if event {
        // It has nobody to wake before it is mapped.
        epoll::follow(entry);
    }
    Ok(())
}

/// A map that no mapping may write to, from now on.
fn is_read_only(file: &OpenFile) -> bool {
    match file.object() {
        Object::Map(map) => {
            map.def.map_flags.contains(MapFlags::RDONLY_PROG) || map.frozen.load(Ordering::Acquire)
        }
        Object::Btf(_) | Object::Prog(_) | Object::Cgroup(_) | Object::Other(_) => false,
    }
}

/// What was mapped and is not any more counts no more.
pub(super) fn drop_unmapped(server: &Server, entry: &Entry) {
    let mut granted = entry.granted.lock();
    if granted.is_empty() {
        return;
    }
    let writable = !matches!(entry.any_file().kind(), FileKind::Other(_));
    if !is_mapped(entry.inode, writable) {
        let gone = std::mem::take(&mut *granted);
        drop(granted);
        drop(gone);
        if let Some(recorder) = &server.recorder {
            recorder.unmapped(entry.inode);
        }
    }
}
