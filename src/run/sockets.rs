//! Sockets of the program, as maps see them: what they are at each meeting, and when they end.
//!
//! An epoll instance of ours has each of them. It does not hold them: what was closed by all who had it is gone from there.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};

use parking_lot::Mutex;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::net::{SocketAddr, getpeername, getsockname, sockopt};

use super::server::Server;
use crate::map::object::{Object, OtherKind, Socket};
use crate::sys::OpenFile;

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
        let socket = taken.and_then(describe).unwrap_or_default();
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

/// What maps ask of a socket.
fn describe(socket: &OwnedFd) -> Option<Socket> {
    let domain = sockopt::socket_domain(socket).ok()?.as_raw();
    let kind = sockopt::socket_type(socket).ok()?.as_raw();
    let protocol = sockopt::socket_protocol(socket).ok()?;
    let protocol = protocol.map_or(0, |protocol| protocol.as_raw().get());
    let unnamed = getsockname(socket).map_or(true, |name| match SocketAddr::try_from(name) {
        Ok(SocketAddr::V4(addr)) => addr.port() == 0,
        Ok(SocketAddr::V6(addr)) => addr.port() == 0,
        _ => true,
    });
    Some(Socket {
        bound: !unnamed,
        listening: sockopt::socket_acceptconn(socket).unwrap_or(false),
        connected: getpeername(socket).is_ok(),
        reuseport: sockopt::socket_reuseport(socket).unwrap_or(false),
        cookie: sockopt::socket_cookie(socket).unwrap_or(0),
        ..Socket::made(domain.into(), kind.cast_signed(), protocol.cast_signed())
    })
}
