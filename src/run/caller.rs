//! bpf(2) as the program calls it: what its fds and its paths mean.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::memory::TaskMem;
use super::port::Port;
use super::record::{holds_sockets, is_batch, is_elem};
use super::server::Server;
use super::table::Entry;
use super::{mapping, task};
use crate::abi::{Attr, Cmd, Errno, Fd, Result, UserMem};
use crate::sys::{Fds, OpenFile};

/// Who calls.
pub(super) struct Caller<'a> {
    pub(super) server: &'a Server,
    pub(super) port: &'a dyn Port,
    pub(super) cmd: Cmd,
    /// The file that was made for a pin.
    pub(super) pin: Mutex<Option<PathBuf>>,
    /// Where the path that was meant is in the kernel's bpffs.
    pub(super) inside: Mutex<Option<String>>,
    /// The file that the caller was given an fd of.
    pub(super) installed: Mutex<Option<OpenFile>>,
}

impl fmt::Debug for Caller<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.port)
    }
}

impl Caller<'_> {
    /// The emulated file behind an fd, if it is one.
    ///
    /// # Errors
    ///
    /// `EBADF` if the fd is not open.
    pub(super) fn entry(&self, fd: Fd) -> Result<Option<Arc<Entry>>> {
        let file = self.server.file(self.port, fd)?;
        Ok(self.server.table.get(file.inode))
    }
}

impl Fds for Caller<'_> {
    fn get(&self, fd: Fd) -> Result<OpenFile> {
        let file = self.server.file(self.port, fd)?;
        match self.server.table.get(file.inode) {
            Some(entry) => {
                let task = self.port.task();
                Ok(entry.file(|| self.server.tasks.access(task, fd)))
            }
            None => Ok(self.server.foreign.file(self.server, self.port, fd, file)),
        }
    }

    fn install(&self, file: OpenFile) -> Result<Fd> {
        let fd = self.server.table.install(self.port, file.clone())?;
        *self.installed.lock() = Some(file);
        Ok(fd)
    }

    fn path(&self, dir: Option<Fd>, path: String) -> Result<String> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        let bpffs = &self.server.bpffs;
        let path = task::absolute(self.port.task(), dir, Path::new(&path))?;
        let real = bpffs.real_path(&path);
        let real = real.unwrap_or(path);
        if !bpffs.has(&real) {
            return Ok(real.to_string_lossy().into_owned());
        }
        if real
            .iter()
            .any(|name| name.as_encoded_bytes().len() > usize::from(u8::MAX))
        {
            return Err(Errno::ENAMETOOLONG);
        }
        if self.cmd != Cmd::OBJ_PIN {
            let inside = bpffs.pinned(&real)?;
            *self.inside.lock() = Some(inside.clone());
            return Ok(inside);
        }
        let inside = bpffs.add(&real)?;
        *self.pin.lock() = Some(real);
        *self.inside.lock() = Some(inside.clone());
        Ok(inside)
    }
}

/// A call of bpf(2).
pub(super) fn bpf(server: &Server, port: &dyn Port, args: [u64; 6]) -> Result<u64> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "what an int is in a register"
    )]
    let (cmd, size) = (Cmd(args[0] as u32), args[2] as u32);
    let attr = args[1];
    let mut mem = TaskMem::new(port);
    let caller = Caller {
        server,
        port,
        cmd,
        pin: Mutex::new(None),
        inside: Mutex::new(None),
        installed: Mutex::new(None),
    };
    before(&caller, cmd, attr, &mem);
    let answer = server.answered(|| server.call(&caller, cmd, attr, size, &mut mem));
    if let (Err(_), Some(path)) = (answer, caller.pin.lock().take()) {
        server.bpffs.undo(&path);
    }
    answer.map(u64::from)
}

/// What was closed, unlinked or unmapped without a call of ours is so for the kernel, before it matters.
fn before(caller: &Caller<'_>, cmd: Cmd, attr: u64, mem: &TaskMem<'_>) {
    let server = caller.server;
    match cmd {
        Cmd::MAP_GET_NEXT_ID
        | Cmd::MAP_GET_FD_BY_ID
        | Cmd::PROG_GET_NEXT_ID
        | Cmd::PROG_GET_FD_BY_ID
        | Cmd::BTF_GET_NEXT_ID
        | Cmd::BTF_GET_FD_BY_ID
        | Cmd::LINK_GET_NEXT_ID
        | Cmd::LINK_GET_FD_BY_ID => {
            server.settle();
            for entry in server.table.several() {
                if !task::is_open(entry.inode) && !task::is_mapped(entry.inode, false) {
                    server.table.remove(&entry);
                    server.closed(vec![entry]);
                }
            }
            server.follow_pins();
        }
        Cmd::PROG_TEST_RUN => {
            // It may have had runs counted.
            server.settle();
            server.sockets.follow(server);
        }
        Cmd::OBJ_PIN | Cmd::OBJ_GET => server.follow_pins(),
        Cmd::MAP_FREEZE => {
            if let Some(entry) = entry_at(caller, attr, mem) {
                mapping::drop_unmapped(server, &entry);
            }
        }
        _ => {
            let sockets = &server.sockets;
            if sockets.are_many() || !sockets.is_empty() && is_of_sockets(caller, cmd, attr, mem) {
                sockets.follow(server);
            }
        }
    }
}

/// It asks a map that holds sockets.
fn is_of_sockets(caller: &Caller<'_>, cmd: Cmd, attr: u64, mem: &TaskMem<'_>) -> bool {
    let at = match cmd {
        _ if is_elem(cmd) => 0,
        _ if is_batch(cmd) => 36,
        _ => return false,
    };
    let map_type =
        entry_at(caller, attr.wrapping_add(at), mem).and_then(|entry| entry.any_file().map_type());
    map_type.is_some_and(holds_sockets)
}

/// The emulated file whose fd is at an address.
fn entry_at(caller: &Caller<'_>, addr: u64, mem: &TaskMem<'_>) -> Option<Arc<Entry>> {
    let mut fd = [0; 4];
    mem.read(addr, &mut fd).ok()?;
    caller.entry(Attr(&fd).u32(0)).ok()?
}

/// What `f` gives, or the words of its panic: it names what is not emulated.
///
/// # Errors
///
/// The words.
pub(super) fn caught<T>(f: impl FnOnce() -> T) -> std::result::Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| match panic.downcast::<String>() {
        Ok(words) => *words,
        Err(panic) => match panic.downcast_ref::<&str>() {
            Some(words) => (*words).to_owned(),
            None => "something went wrong".to_owned(),
        },
    })
}
