//! What an fd can stand for, and a map can hold, besides maps: programs, cgroups, sockets, …
//!
//! Declared by the user: nothing here runs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::Map;
use super::perf_event::Event;
use super::task_work::Work;
use crate::abi::{AttachType, PerfEvent, ProgType};
use crate::btf::Btf;

/// What an fd stands for.
#[derive(Clone, Debug)]
pub enum Object {
    /// A map.
    Map(Arc<Map>),
    /// BTF.
    Btf(Arc<Btf>),
    /// A program.
    Prog(Arc<Prog>),
    /// A cgroup of the unified hierarchy.
    Cgroup(Arc<Cgroup>),
    /// Anything else that is open: a file, a pipe, a socket, a pidfd, a perf event, a link.
    Other(Arc<OtherObject>),
}

/// A program, as far as maps know it.
#[derive(Debug)]
pub struct Prog {
    /// Id, unique in one kernel.
    pub id: u32,
    /// Name, for people.
    pub name: String,
    /// Type.
    pub prog_type: ProgType,
    /// What it will be attached to, where its type asks for that.
    pub expected_attach_type: AttachType,
    /// It takes packets in fragments: `BPF_F_XDP_HAS_FRAGS`.
    pub xdp_has_frags: bool,
    /// The maps it holds, those it uses by `bpf_get_local_storage` too.
    pub maps: Vec<Arc<Map>>,
    /// More maps that it holds: `BPF_PROG_BIND_MAP`.
    pub bound: Mutex<Vec<Arc<Map>>>,
    /// How often it ran while that was counted: `BPF_ENABLE_STATS`.
    pub run_cnt: AtomicU64,
    /// What it was loaded from.
    pub code: Code,
}

/// What a program was loaded from; all zero for one that was declared.
#[derive(Clone, Debug, Default)]
pub struct Code {
    /// The instructions, with ids of maps in place of fds.
    pub insns: Vec<u8>,
    /// Where its functions begin, with their types: records of 8 bytes.
    pub func_info: Vec<u8>,
    /// Where its lines begin, with their names: records of 16 bytes.
    pub line_info: Vec<u8>,
    /// The beginning of the instructions' hash.
    pub tag: [u8; 8],
    /// Instructions that were looked at.
    pub verified_insns: u32,
    /// Its licence is compatible with the GPL.
    pub gpl_compatible: bool,
    /// When it was loaded.
    pub load_time_ns: u64,
    /// Types of its functions.
    pub btf: Option<Arc<Btf>>,
    /// More BTF that it holds: that among the fds it was loaded with.
    pub btfs: Vec<Arc<Btf>>,
    /// The function that it is attached to, in the kernel's BTF.
    pub attach_btf_id: u32,
}

impl Prog {
    /// The maps it holds, those it was bound to too, each once.
    pub fn all_maps(&self) -> Vec<Arc<Map>> {
        let bound = self.bound.lock();
        self.maps.iter().chain(bound.iter()).cloned().collect()
    }
}

/// A cgroup.
#[derive(Debug)]
pub struct Cgroup {
    /// Id: the inode number of its directory.
    pub id: u64,
    /// Name of its directory.
    pub name: String,
    /// The cgroup above it; none above the root.
    pub parent: Option<Arc<Self>>,
}

/// Something open that is no BPF object and no cgroup.
#[derive(Debug)]
pub struct OtherObject {
    /// Unique in one kernel: two opens of one inode, two pidfds of one process have the same.
    pub id: u64,
    /// What it is.
    pub kind: OtherKind,
    /// Of a socket: how it is now.
    socket: Mutex<Socket>,
    ended: AtomicBool,
    /// Of a socket: which kind of map holds it.
    holder: Mutex<Holder>,
    /// Of a socket without a number of its own: the one that maps show.
    cookie: OnceLock<u64>,
    /// Of a process: what it does on its way back to user space.
    works: Mutex<Vec<Work>>,
    /// Of a perf event: whether it is on, and its buffer.
    event: Option<Event>,
}

/// The maps that hold a socket: one reuseport array, or socket maps, as they use the same pointer in it.
///
/// Kernel: `include/net/sock.h`, `sk_user_data`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Holder {
    Nobody,
    ReuseportArray,
    /// So many places.
    SocketMaps(usize),
}

impl OtherObject {
    /// A new object.
    pub fn new(id: u64, kind: OtherKind) -> Self {
        let event = match kind {
            OtherKind::PerfEvent(opened) => Some(Event::new(id, opened)),
            OtherKind::File
            | OtherKind::Cgroup1
            | OtherKind::Socket(_)
            | OtherKind::Pidfd
            | OtherKind::Netns
            | OtherKind::Link => None,
        };
        let socket = if let OtherKind::Socket(socket) = kind {
            socket
        } else {
            Socket::default()
        };
        Self {
            id,
            kind,
            event,
            socket: Mutex::new(socket),
            ended: AtomicBool::new(false),
            holder: Mutex::new(Holder::Nobody),
            cookie: OnceLock::new(),
            works: Mutex::default(),
        }
    }

    /// The process behind a pidfd ends.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// The process behind a pidfd is gone.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// The process does this on its way back to user space.
    pub(super) fn add_work(&self, work: Work) {
        self.works.lock().push(work);
    }

    pub(super) fn take_works(&self) -> Vec<Work> {
        std::mem::take(&mut *self.works.lock())
    }

    /// What it is as a socket, if it is one.
    pub fn socket(&self) -> Option<Socket> {
        matches!(self.kind, OtherKind::Socket(_)).then(|| *self.socket.lock())
    }

    /// The socket is so from now on: bound, connected, and so on. False if it was so already.
    pub fn set_socket(&self, socket: Socket) -> bool {
        std::mem::replace(&mut *self.socket.lock(), socket) != socket
    }

    /// The perf event, if it is one.
    pub fn perf_event(&self) -> Option<&Event> {
        self.event.as_ref()
    }

    /// The number that stands for a socket; `next` gives one when it is first asked for.
    pub(super) fn cookie(&self, next: impl FnOnce() -> u64) -> u64 {
        match self.socket.lock().cookie {
            0 => *self.cookie.get_or_init(next),
            cookie => cookie,
        }
    }

    /// A reuseport array holds it from now on; false if any map does.
    pub(super) fn hold_in_array(&self) -> bool {
        let mut holder = self.holder.lock();
        let free = *holder == Holder::Nobody;
        if free {
            *holder = Holder::ReuseportArray;
        }
        free
    }

    /// The reuseport array lets go of it.
    pub(super) fn release_from_array(&self) {
        *self.holder.lock() = Holder::Nobody;
    }

    /// One more place of a socket map holds it; false if a reuseport array does.
    pub(super) fn hold_in_socket_map(&self) -> bool {
        let mut holder = self.holder.lock();
        *holder = match *holder {
            Holder::Nobody => Holder::SocketMaps(1),
            Holder::SocketMaps(places) => Holder::SocketMaps(places + 1),
            Holder::ReuseportArray => return false,
        };
        true
    }

    /// One place of a socket map lets go of it.
    pub(super) fn release_from_socket_map(&self) {
        let mut holder = self.holder.lock();
        *holder = match *holder {
            Holder::SocketMaps(places) if places > 1 => Holder::SocketMaps(places - 1),
            Holder::SocketMaps(_) | Holder::Nobody => Holder::Nobody,
            Holder::ReuseportArray => Holder::ReuseportArray,
        };
    }
}

/// What an [`OtherObject`] is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OtherKind {
    /// A file, directory, pipe or memfd.
    File,
    /// A directory of a cgroup v1 hierarchy.
    Cgroup1,
    /// A socket.
    Socket(Socket),
    /// A process.
    Pidfd,
    /// A network namespace.
    Netns,
    /// A perf event.
    PerfEvent(PerfEvent),
    /// A link between a program and what it is attached to.
    Link,
}

/// What maps of sockets ask of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Socket {
    /// `AF_XDP`
    pub xdp: bool,
    /// `AF_UNIX`
    pub unix: bool,
    /// None of these, TCP and UDP: netlink, raw.
    pub other: bool,
    /// `SOCK_STREAM`
    pub stream: bool,
    /// Bound to an address.
    pub bound: bool,
    /// Listens.
    pub listening: bool,
    /// Connected.
    pub connected: bool,
    /// Bound with `SO_REUSEPORT`.
    pub reuseport: bool,
    /// `SO_COOKIE`, the number that maps show; 0 for the next one of the emulated kernel.
    pub cookie: u64,
}

impl Socket {
    /// One that was just made: its `SO_DOMAIN`, `SO_TYPE` and `SO_PROTOCOL`.
    pub fn made(domain: i32, kind: i32, protocol: i32) -> Self {
        const AF_UNIX: i32 = 1;
        const AF_INET: i32 = 2;
        const AF_INET6: i32 = 10;
        const AF_XDP: i32 = 44;
        const SOCK_STREAM: i32 = 1;
        /// TCP and UDP.
        const KINDS: [(i32, i32); 2] = [(SOCK_STREAM, 6), (2, 17)];
        let (unix, xdp) = (domain == AF_UNIX, domain == AF_XDP);
        let internet = [AF_INET, AF_INET6].contains(&domain);
        Self {
            xdp,
            unix,
            other: !(unix || xdp || internet && KINDS.contains(&(kind, protocol))),
            stream: kind == SOCK_STREAM,
            ..Self::default()
        }
    }

    /// A socket of TCP.
    pub const fn is_tcp(self) -> bool {
        self.stream && !self.unix && !self.xdp && !self.other
    }

    /// Programs can send data to it.
    ///
    /// Kernel: `net/core/sock_map.c:sock_map_redirect_allowed`.
    pub const fn takes_redirects(self) -> bool {
        if self.is_tcp() {
            !self.listening
        } else {
            self.connected
        }
    }
}
