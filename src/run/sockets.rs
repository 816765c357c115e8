//! Sockets of the program, as maps see them: what they are at each meeting, and when they end.
//!
//! An epoll instance of ours has each of them. It does not hold them: what was closed by all who had it is gone from there.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};

use parking_lot::Mutex;
use rustix::event::epoll::{self, EventData, EventFlags};

use super::mapping::int;
use super::memory::TaskMem;
use super::port::{Answer, Port};
use super::server::Server;
use crate::abi::{Attr, ProgType, Result, UserMem};
use crate::map::object::{Object, OtherKind};
use crate::sys::{OpenFile, socket};

/// Options of a socket that attach a program.
pub(super) const ATTACH: [u32; 2] = [
    libc::SO_ATTACH_BPF.cast_unsigned(),
    libc::SO_ATTACH_REUSEPORT_EBPF.cast_unsigned(),
];

/// The sockets that were met and are open.
#[derive(Debug, Default)]
pub(super) struct Sockets(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// By number of inode, and whether the epoll instance has it.
    files: HashMap<u64, (OpenFile, bool)>,
    epoll: Option<OwnedFd>,
    /// So many were open when last looked at.
    settled: usize,
}

impl Sockets {
    /// The socket of that inode, of which we have a file.
    pub(super) fn file(&self, server: &Server, ino: u64, taken: Option<&OwnedFd>) -> OpenFile {
        let socket = taken.and_then(socket::describe).unwrap_or_default();
        let mut known = self.0.lock();
        if let Some((file, _)) = known.files.get(&ino) {
            if let Object::Other(object) = file.object() {
                object.set_socket(socket);
            }
            return file.clone();
        }
        let file = server.kernel.declare(OtherKind::Socket(socket));
        let watched = taken.is_some_and(|taken| known.watch(ino, taken).is_ok());
        known.files.insert(ino, (file.clone(), watched));
        file
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().files.is_empty()
    }

    /// There may be many that are closed, and only take room.
    pub(super) fn are_many(&self) -> bool {
        let known = self.0.lock();
        known.files.len() > 2 * known.settled + 64
    }

    /// Those that were closed end, and leave the maps that hold them.
    pub(super) fn follow(&self, server: &Server) {
        let gone = self.0.lock().closed();
        for file in gone {
            server.kernel.end(&file);
            if let Some(recorder) = &server.recorder {
                recorder.ended(&file);
            }
        }
    }
}

/// A call of setsockopt(2) with an option of [`ATTACH`].
pub(super) fn setsockopt(server: &Server, port: &dyn Port, args: [u64; 6]) -> Answer {
    attach(server, port, args).map_or(Answer::Continue, Answer::Returns)
}

/// The answer; `None` if it is none of ours.
fn attach(
    server: &Server,
    port: &dyn Port,
    [socket, _, option, value, len, _]: [u64; 6],
) -> Option<Result<u64>> {
    let file = |fd| server.tasks.file(port.task(), fd).ok();
    let mut fd = [0; 4];
    if int(len) != 4 {
        return None;
    }
    TaskMem::new(port).read(value, &mut fd).ok()?;
    let entry = server.table.get(file(Attr(&fd).u32(0))?.inode)?;
    let Object::Prog(prog) = entry.any_file().object() else {
        return None;
    };
    let is_socket = file(int(socket))?.mode & libc::S_IFMT == libc::S_IFSOCK;
    let filters = prog.prog_type == ProgType::SOCKET_FILTER;
    let chooses = int(option) != ATTACH[0] && prog.prog_type == ProgType::SK_REUSEPORT;
    // What the kernel refuses for another reason, it does.
    (is_socket && (filters || chooses)).then(|| {
        let what = format_args!("attaching a program to a socket (setsockopt)");
        server.answered(|| Err(server.kernel.env().unsupported(what)))
    })
}

impl Known {
    fn watch(&mut self, ino: u64, taken: &OwnedFd) -> rustix::io::Result<()> {
        let epoll = match self.epoll.take() {
            Some(epoll) => epoll,
            None => epoll::create(epoll::CreateFlags::CLOEXEC)?,
        };
        let epoll = self.epoll.insert(epoll);
        epoll::add(epoll, taken, EventData::new_u64(ino), EventFlags::empty())
    }

    fn closed(&mut self) -> Vec<OpenFile> {
        let Some(epoll) = &self.epoll else {
            return Vec::new();
        };
        let Ok(info) = fs::read_to_string(format!("/proc/self/fdinfo/{}", epoll.as_raw_fd()))
        else {
            return Vec::new();
        };
        let open: HashSet<u64> = info.lines().filter_map(data).collect();
        let gone = self
            .files
            .extract_if(|ino, (_, watched)| *watched && !open.contains(ino));
        let gone = gone.map(|(_, (file, _))| file).collect();
        self.settled = self.files.len();
        gone
    }
}

/// The data of a line that tells of a file in an epoll instance.
fn data(line: &str) -> Option<u64> {
    let mut words = line.strip_prefix("tfd:")?.split_ascii_whitespace();
    words.find(|word| *word == "data:")?;
    u64::from_str_radix(words.next()?, 16).ok()
}
