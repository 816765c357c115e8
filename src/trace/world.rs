//! What a scenario stands in: a kernel, and all that is around its maps. One trait, for emulated and for running kernels.

use std::fmt;
use std::sync::Arc;

use super::Stop;
use crate::abi::{AttachType, Bpf, Caps, Errno, Fd, Helper, MapType, PerfEvent, ProgType, Result};
use crate::map::Map;

/// What the engine has to know of a map to speak of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MapFacts {
    /// Id, unique in one kernel.
    pub id: u32,
    /// Type.
    pub map_type: MapType,
    /// Bytes of a key.
    pub key_size: usize,
    /// Bytes of a value, of one CPU.
    pub value_size: usize,
    /// Number of elements at most.
    pub max_entries: u32,
    /// The map that it was made with as template of its elements.
    pub inner: Option<Box<Self>>,
}

/// Kinds of files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// An empty file.
    File,
    /// `memfd_create`
    Memfd,
    /// A directory.
    Dir,
    /// The reading end of a pipe.
    Pipe,
    /// A directory, opened with `O_PATH`.
    Path,
    /// A directory of a cgroup v1 hierarchy.
    Cgroup1,
}

/// A socket to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SocketRequest<'a> {
    /// `AF_UNIX`
    pub unix: bool,
    /// `AF_INET6`
    pub inet6: bool,
    /// `AF_NETLINK`
    pub netlink: bool,
    /// `AF_XDP`, which is neither of streams nor of datagrams.
    pub xdp: bool,
    /// `SOCK_STREAM`, else `SOCK_DGRAM`.
    pub stream: bool,
    /// The cgroup that it is made in.
    pub cgroup: Option<&'a str>,
    /// Bound to 127.0.0.1.
    pub bind: bool,
    /// Listens.
    pub listen: bool,
    /// Connected to that listening socket.
    pub connect: Option<Fd>,
    /// Connected, be it to nobody that is known.
    pub connected: bool,
    /// `SO_REUSEPORT`, set before it is bound.
    pub reuseport: bool,
}

/// Kinds of perf events, all of them software events of all processes on one CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PerfEventKind {
    /// `PERF_COUNT_SW_BPF_OUTPUT`
    BpfOutput,
    /// `PERF_COUNT_SW_DUMMY`
    Dummy,
    /// `PERF_COUNT_SW_CPU_CLOCK`
    CpuClock,
}

impl PerfEventKind {
    /// An event of this kind on that CPU.
    pub(super) fn event(self, cpu: u32) -> PerfEvent {
        let config = match self {
            Self::BpfOutput => PerfEvent::BPF_OUTPUT,
            Self::Dummy => 9,
            Self::CpuClock => 0,
        };
        PerfEvent {
            config,
            ..PerfEvent::bpf_output(cpu)
        }
    }
}

/// What is done with a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileOp {
    /// read(2) of 8 bytes.
    Read,
    /// write(2) of 8 bytes.
    Write,
    /// lseek(2) to the start.
    Lseek,
}

/// A program to be loaded that notes and writes cgroup storage.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProgRequest<'a> {
    /// The scenario's name for it.
    pub name: &'a str,
    /// Type.
    pub prog_type: ProgType,
    /// Where it is going to be attached.
    pub expected_attach_type: AttachType,
    /// What it returns.
    pub returns: i32,
    /// The storages that it asks for, in order: the map's name, its fd, and the part of the value that it touches.
    pub storages: Vec<(&'a str, Fd, std::ops::Range<usize>)>,
    /// Flags for `bpf_get_local_storage`.
    pub helper_flags: u64,
    /// Other maps that it holds.
    pub maps: Vec<Fd>,
}

/// One program that an event ran.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ran {
    /// The scenario's name for it.
    pub prog: String,
    /// How often it ran.
    pub times: u64,
    /// For each map, in the order of the program's storages, what the last run noted.
    pub saw: Vec<(String, Vec<u8>)>,
}

/// Bytes that one program shall write into its storage of one map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write<'a> {
    /// The program.
    pub prog: &'a str,
    /// The map.
    pub map: &'a str,
    /// From the start of the part that it touches.
    pub bytes: Vec<u8>,
}

/// Events in a cgroup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A datagram is sent.
    Egress,
    /// A datagram is received.
    Ingress,
    /// A socket is made.
    SockCreate,
    /// A socket is bound.
    Bind4,
    /// A datagram is sent to an address.
    Udp4Sendmsg,
    /// An option of a socket is set.
    Setsockopt,
}

/// One call of a map helper, in a program of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HelperCall<'a> {
    /// The map.
    pub map: Fd,
    /// What the map is.
    pub facts: &'a MapFacts,
    /// Type of the program.
    pub prog_type: ProgType,
    /// Name of the helper.
    pub helper: &'a str,
    /// Key, of the map's size.
    pub key: Vec<u8>,
    /// Value, of the map's size.
    pub value: Vec<u8>,
    /// Flags.
    pub flags: u64,
    /// CPU, for `map_lookup_percpu_elem`.
    pub cpu: u32,
    /// Bytes that are written through the pointer that was found, or sent.
    pub store: Vec<u8>,
    /// A key to be looked up in the map that was found.
    pub inner_key: Option<Vec<u8>>,
    /// Parts of the value that are not read, each a start and a length; they answer as zeros.
    pub skip: Vec<(usize, usize)>,
}

/// What came of a [`HelperCall`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HelperAnswer {
    /// A lookup found this.
    Value(Vec<u8>),
    /// A lookup found nothing; `outer`: not even the inner map.
    Null {
        /// The inner map was missing.
        outer: bool,
    },
    /// The helper's return, and the value that it gave.
    Ret(i64, Option<Vec<u8>>),
}

/// An atomic operation that gives what was there before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Atomic {
    /// What it does.
    pub op: AtomicOp,
    /// On 8 bytes, else on 4.
    pub wide: bool,
    /// Its operand.
    pub operand: u64,
    /// What has to be there, of [`AtomicOp::CompareExchange`].
    pub expected: u64,
}

/// The atomic operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "they have names")]
pub enum AtomicOp {
    Add,
    Or,
    And,
    Xor,
    Exchange,
    CompareExchange,
}

/// What is done with a timer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timer {
    /// `bpf_timer_init`, with these flags.
    Init(u64),
    /// `bpf_timer_set_callback`, with one that does nothing.
    SetCallback,
    /// `bpf_timer_start`: the time in ns, and flags.
    Start(u64, u64),
    /// `bpf_timer_cancel`
    Cancel,
}

impl Timer {
    /// The helper that does it.
    pub(super) const fn helper(self) -> Helper {
        match self {
            Self::Init(_) => Helper::TIMER_INIT,
            Self::SetCallback => Helper::TIMER_SET_CALLBACK,
            Self::Start(..) => Helper::TIMER_START,
            Self::Cancel => Helper::TIMER_CANCEL,
        }
    }
}

/// One step of a program on one map. Pointers have numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Looks a key up and keeps the pointer.
    Lookup(Vec<u8>, usize),
    /// Reads so many bytes from this offset on.
    Read(usize, usize, usize),
    /// Writes bytes from this offset on.
    Write(usize, usize, Vec<u8>),
    /// Adds 1 to the u64 at this offset, not atomically.
    Add(usize, usize),
    /// An atomic operation at this offset.
    Atomic(usize, usize, Atomic),
    /// What is done with the `struct bpf_timer` at this offset.
    Timer(usize, usize, Timer),
    /// `bpf_spin_lock` at this offset.
    Lock(usize, usize),
    /// `bpf_spin_unlock` at this offset.
    Unlock(usize, usize),
    /// Updates.
    Update(Vec<u8>, Vec<u8>, u64),
    /// Deletes.
    Delete(Vec<u8>),
    /// Calls a helper that has nothing to do with the map.
    Call(String),
}

/// What came of a [`Step`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StepAnswer {
    /// A helper's return, or whether there was a pointer.
    Number(i64),
    /// What was read; nothing through NULL.
    Bytes(Option<Vec<u8>>),
}

/// Which element the callback of a walk deletes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Deletes {
    /// None.
    Nothing,
    /// Each its own.
    Own,
    /// Call number `.0`, from 0, this key.
    At(u64, Vec<u8>),
}

/// One call of `bpf_for_each_map_elem`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForEach<'a> {
    /// The map.
    pub map: Fd,
    /// What the map is.
    pub facts: &'a MapFacts,
    /// Flags.
    pub flags: u64,
    /// The number of the call, from 1, that answers `stop_return`; 0: none.
    pub stop_after: u64,
    /// What it answers.
    pub stop_return: i32,
    /// What the callback deletes.
    pub deletes: Deletes,
    /// Number of calls that are noted at most.
    pub room: usize,
}

/// One call of the callback of a walk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Key, on entry.
    pub key: Vec<u8>,
    /// Value, on entry.
    pub value: Vec<u8>,
    /// Return of the delete, where it deleted.
    pub deleted: Option<i64>,
}

/// `bpf_task_storage_get` and its kin, on the running task or its cgroup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StorageCall<'a> {
    /// The map.
    pub map: Fd,
    /// What the map is.
    pub facts: &'a MapFacts,
    /// Delete, else get.
    pub delete: bool,
    /// Flags.
    pub flags: u64,
    /// Initial value: a value of the map.
    pub value: Option<Vec<u8>>,
    /// Bytes that are written through the pointer.
    pub write: Option<Vec<u8>>,
    /// Where the process is for the moment.
    pub cgroup: Option<&'a str>,
}

/// One step of a program on a ring buffer. Records in hand have numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RingStep {
    /// `bpf_ringbuf_output`: the record, and flags.
    Output(Vec<u8>, u64),
    /// `bpf_ringbuf_query`: what is asked for.
    Query(u64),
    /// `bpf_ringbuf_reserve`: size, flags, the number that the record gets, and what is written to it at once.
    Reserve(u64, u64, usize, Vec<u8>),
    /// `bpf_ringbuf_submit`: record and flags.
    Submit(usize, u64),
    /// `bpf_ringbuf_discard`: record and flags.
    Discard(usize, u64),
}

/// One call of `bpf_user_ringbuf_drain`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drain {
    /// The map.
    pub map: Fd,
    /// Flags.
    pub flags: u64,
    /// The number of the call, from 1, that answers `stop_return`; 0: none.
    pub stop_after: u64,
    /// What it answers.
    pub stop_return: i32,
    /// Number of samples that are noted at most.
    pub room: usize,
}

/// The first 8 bytes of a sample, or what `bpf_dynptr_read` returned.
pub type Sample = Result<[u8; 8], i64>;

/// A kernel, and all that a scenario has around its maps. Everything happens on the CPU that was set last.
///
/// Cgroups and programs go by the scenario's names, which stand for them after their fds are closed too.
pub trait World: fmt::Debug {
    /// bpf(2), mmap(2), close(2), on the CPU that was set.
    fn bpf(&self) -> &dyn Bpf;

    /// Everything from here on happens on that CPU.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such CPU.
    fn set_cpu(&mut self, cpu: u32) -> Result<()>;

    /// What the map behind an fd is, if it is a map. It knows nothing of inner maps.
    fn map_facts(&self, fd: Fd) -> Option<MapFacts>;

    /// Id of a program.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is none.
    fn prog_id(&self, fd: Fd) -> Result<u32>;

    /// dup(2), close-on-exec.
    ///
    /// # Errors
    ///
    /// `EBADF`
    fn dup(&mut self, fd: Fd) -> Result<Fd>;

    /// Opens a file.
    ///
    /// # Errors
    ///
    /// What the system answers.
    fn open_file(&mut self, kind: FileKind) -> Result<Fd>;

    /// Opens the inode behind an fd once more.
    ///
    /// # Errors
    ///
    /// What the system answers.
    fn open_again(&mut self, fd: Fd) -> Result<Fd>;

    /// Makes a socket.
    ///
    /// # Errors
    ///
    /// What the system answers.
    fn open_socket(&mut self, request: &SocketRequest<'_>) -> Result<Fd>;

    /// A socket is that from now on: bound, connected, and so on. The running kernel's sockets cannot be told so.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` by default; `EBADF`, `ENOTSOCK`.
    fn change_socket(&mut self, _fd: Fd, _request: &SocketRequest<'_>) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// A pidfd of this process, or of a new child that sleeps.
    ///
    /// # Errors
    ///
    /// What the system answers.
    fn open_pidfd(&mut self, child: bool) -> Result<Fd>;

    /// Kills and reaps the child behind a pidfd.
    ///
    /// # Errors
    ///
    /// What the system answers.
    fn end_child(&mut self, pidfd: Fd) -> Result<()>;

    /// Opens a perf event.
    ///
    /// # Errors
    ///
    /// What the system answers.
    fn open_perf_event(&mut self, kind: PerfEventKind, cpu: u32) -> Result<Fd>;

    /// Reads, writes, or seeks.
    ///
    /// # Errors
    ///
    /// What the system answers.
    fn file_op(&mut self, fd: Fd, op: FileOp) -> Result<()>;

    /// Access mode (0 read, 1 write, 2 both), and whether it is closed on exec.
    ///
    /// # Errors
    ///
    /// `EBADF`
    fn file_mode(&self, fd: Fd) -> Result<(u32, bool)>;

    /// State of a file, all poll bits asked for.
    ///
    /// # Errors
    ///
    /// `EBADF`
    fn poll(&mut self, fd: Fd) -> Result<u32, Stop>;

    /// What a map's file signalled since the last call for this map; the first call gives the state.
    ///
    /// # Errors
    ///
    /// `EPERM` for files without events.
    fn epoll(&mut self, fd: Fd, map_id: u32) -> Result<u32, Stop>;

    /// The lines of `/proc/self/fdinfo/FD`.
    ///
    /// # Errors
    ///
    /// `EBADF`
    fn fdinfo(&self, fd: Fd) -> Result<String>;

    /// Where the scenario's own bpffs is; mounts it the first time.
    ///
    /// # Errors
    ///
    /// What the system answers.
    fn bpffs(&mut self) -> Result<String>;

    /// mkdir(2)
    ///
    /// # Errors
    ///
    /// What the system answers.
    fn mkdir(&mut self, path: &str) -> Result<()>;

    /// unlink(2)
    ///
    /// # Errors
    ///
    /// What the system answers.
    fn unlink(&mut self, path: &str) -> Result<()>;

    /// The capabilities in effect from here on; `None`: all of them.
    ///
    /// # Errors
    ///
    /// What the system answers.
    fn set_caps(&mut self, caps: Option<Caps>) -> Result<()>;

    /// Sets a sysctl.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is none of that name.
    fn set_sysctl(&mut self, name: &str, value: u32) -> Result<()>;

    /// Makes a cgroup under another one, or under the scenario's own top; gives an fd of it and its id.
    ///
    /// # Errors
    ///
    /// Those of mkdir(2).
    fn cgroup_create(&mut self, name: &str, under: Option<&str>) -> Result<(Fd, u64)>;

    /// Removes a cgroup's directory; its deferred work is done then.
    ///
    /// # Errors
    ///
    /// Those of rmdir(2).
    fn cgroup_remove(&mut self, name: &str) -> Result<()>;

    /// Lets deferred work be done.
    fn settle(&mut self);

    /// Loads a program.
    ///
    /// # Errors
    ///
    /// The errno of `BPF_PROG_LOAD`.
    fn prog_load(&mut self, request: &ProgRequest<'_>) -> Result<Fd, Stop>;

    /// One event in a cgroup: the programs that it ran, in the order of their last run.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such cgroup.
    fn trigger(
        &mut self,
        cgroup: &str,
        event: Event,
        writes: &[Write<'_>],
    ) -> Result<Vec<Ran>, Stop>;

    /// `BPF_PROG_TEST_RUN`
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    fn prog_test_run(&mut self, prog: &str, writes: &[Write<'_>]) -> Result<Vec<Ran>, Stop>;

    /// From here on, operations of the program side only ask the verifier: [`Stop::Verifier`] or [`Stop::Allowed`].
    fn only_verify(&mut self, only: bool);

    /// One call of a helper.
    ///
    /// # Errors
    ///
    /// If it is refused.
    fn helper(&mut self, call: &HelperCall<'_>) -> Result<HelperAnswer, Stop>;

    /// A program of several steps on one map; an answer for each.
    ///
    /// # Errors
    ///
    /// If it is refused.
    fn program(
        &mut self,
        map: Fd,
        facts: &MapFacts,
        prog_type: ProgType,
        steps: &[Step],
    ) -> Result<Vec<StepAnswer>, Stop>;

    /// A walk with a callback: the helper's return, and the calls.
    ///
    /// # Errors
    ///
    /// If it is refused.
    fn for_each(&mut self, walk: &ForEach<'_>) -> Result<(i64, Vec<Seen>), Stop>;

    /// Local storage of the task or its cgroup. For a get, the first 64 bytes that were found; for a delete, its return.
    ///
    /// # Errors
    ///
    /// If it is refused.
    fn storage_helper(&mut self, call: &StorageCall<'_>) -> Result<HelperAnswer, Stop>;

    /// A program of several steps on one ring buffer; a number for each.
    ///
    /// # Errors
    ///
    /// If it is refused.
    fn ringbuf(&mut self, map: Fd, facts: &MapFacts, steps: &[RingStep]) -> Result<Vec<i64>, Stop>;

    /// The map, where user space's side of its ring can be called; its memory is all that there is elsewhere.
    fn ring_map(&self, _map: Fd) -> Option<Arc<Map>> {
        None
    }

    /// Drains a user ring buffer: the helper's return, and the samples.
    ///
    /// # Errors
    ///
    /// If it is refused.
    fn user_ringbuf_drain(&mut self, drain: &Drain) -> Result<(i64, Vec<Sample>), Stop>;

    /// Undoes what would outlive the scenario.
    fn finish(&mut self);
}
