//! What an fd can stand for, and a map can hold, besides maps: programs, cgroups, sockets, …
//!
//! Declared by the user: nothing here runs.

use std::sync::Arc;

use super::Map;
use crate::abi::{AttachType, ProgType};
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
    /// The maps it holds, those it uses by `bpf_get_local_storage` too.
    pub maps: Vec<Arc<Map>>,
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
    /// A perf event.
    PerfEvent,
    /// A link between a program and what it is attached to.
    Link,
}

/// What maps of sockets ask of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Socket {
    /// `AF_UNIX`
    pub unix: bool,
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
}
