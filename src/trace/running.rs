//! The running kernel as a [`World`]: maps, programs, cgroups, sockets and processes are real ones.
//!
//! It takes root. What it changes outside of this process (cgroups, a bpffs, a sysctl) is undone by `finish`.

use std::collections::HashMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno as IoErrno;
use rustix::net::{AddressFamily, SocketAddrAny, SocketType, sockopt};

use super::request::Stop;
use super::running_cgroups::Cgroups;
use super::running_programs::Probes;
use super::world::{
    Drain, Event, FileKind, FileOp, ForEach, HelperAnswer, HelperCall, MapFacts, PerfEventKind,
    ProgRequest, Ran, RingStep, Sample, Seen, SocketRequest, Step, StepAnswer, StorageCall, World,
    Write,
};
use crate::abi::{
    Bpf, Caps, Cmd, Errno, Fd, MapRequest, MapType, Mapping, Memory, PerfEvent, PollEvents,
    ProgType, Result,
};
use crate::host::os::{self, Epoll, errno_of};
use crate::host::{Host, Unavailable, program};

const UNPRIVILEGED: &str = "/proc/sys/kernel/unprivileged_bpf_disabled";

/// What the sysctl `kernel.unprivileged_bpf_disabled` is at the start of a scenario.
const UNPRIVILEGED_AT_START: &str = "2";

/// How long an event may take to be signalled.
const EVENT_MS: i32 = 50;

/// An errno of rustix as ours.
pub(super) fn errno(error: IoErrno) -> Errno {
    let number = u16::try_from(error.raw_os_error());
    number.map_or(Errno::EIO, Errno::new)
}

/// The running kernel, told of what is closed: what a scenario made for a map goes with the map's last fd.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) host: Host,
    /// The maps behind fds, by id.
    maps: Mutex<HashMap<Fd, u32>>,
    /// What was made for a map, by its id.
    pub(super) probes: Mutex<HashMap<u32, Probes>>,
    epolls: Mutex<HashMap<u32, Epoll>>,
}

impl Bpf for Watched {
    fn bpf(&self, cmd: Cmd, attr: u64, size: u32, mem: &mut Memory<'_>) -> Result<u32> {
        let answer = self.host.bpf(cmd, attr, size, mem);
        if cmd == Cmd::MAP_FREEZE && answer.is_ok() {
            // Programs that are loaded from here on are judged otherwise, those that are there run on.
            self.probes.lock().clear();
        }
        answer
    }

    fn mmap(&self, fd: Fd, request: MapRequest) -> Result<Box<dyn Mapping>> {
        self.host.mmap(fd, request)
    }

    fn poll(&self, fd: Fd, timeout: Option<Duration>) -> Result<PollEvents> {
        self.host.poll(fd, timeout)
    }

    fn close(&self, fd: Fd) -> Result<()> {
        let mut maps = self.maps.lock();
        if let Some(id) = maps.remove(&fd)
            && !maps.values().any(|other| *other == id)
        {
            self.probes.lock().remove(&id);
            self.epolls.lock().remove(&id);
        }
        self.host.close(fd)
    }

    fn perf_event_open(&self, event: PerfEvent) -> Result<Fd> {
        self.host.perf_event_open(event)
    }

    fn nr_cpus(&self) -> u32 {
        self.host.nr_cpus()
    }

    fn on_cpu(&self, cpu: u32) -> Box<dyn Bpf> {
        self.host.on_cpu(cpu)
    }
}

/// The running kernel, with a process and what it made around its maps.
#[derive(Debug)]
pub struct Running {
    pub(super) kernel: Watched,
    pub(super) only_verify: bool,
    pub(super) cgroups: Cgroups,
    children: Vec<(Fd, Child)>,
    /// Writing ends of pipes, so that the reading ends stay as they are.
    pipes: Vec<OwnedFd>,
    bpffs: Option<PathBuf>,
    /// Capabilities at the start, and the sysctl before the scenario changed it.
    rights: Option<(u64, String)>,
}

/// The family of sockets that take packets from XDP.
const AF_XDP: u16 = 44;

/// Scenarios of this process so far: each has directories of its own.
static SCENARIOS: AtomicU32 = AtomicU32::new(0);

/// A name for directories of this scenario.
fn scenario_name() -> String {
    let number = SCENARIOS.fetch_add(1, Ordering::Relaxed);
    format!("mapemu.{}.{number}", std::process::id())
}

impl Running {
    /// The running kernel.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] if this process may not use it.
    pub fn new() -> Result<Self, Unavailable> {
        Ok(Self::with(Host::new()?))
    }

    /// A scenario on a running kernel that is at hand.
    pub fn with(host: Host) -> Self {
        Self {
            kernel: Watched {
                host: host.with_cpu(0),
                maps: Mutex::default(),
                probes: Mutex::default(),
                epolls: Mutex::default(),
            },
            only_verify: false,
            cgroups: Cgroups::new(scenario_name()),
            children: Vec::new(),
            pipes: Vec::new(),
            bpffs: None,
            rights: None,
        }
    }

    fn adopt(&self, fd: OwnedFd) -> Fd {
        self.kernel.host.adopt(fd)
    }

    /// Before rights change for the first time: what takes rights is done, and all is as scenarios expect it.
    fn remember_rights(&mut self) -> Result<()> {
        if self.rights.is_some() {
            return Ok(());
        }
        self.bpffs()?;
        let (effective, _) = os::capabilities()?;
        let before = fs::read_to_string(UNPRIVILEGED).map_err(|error| errno_of(&error))?;
        let before = before.trim().to_owned();
        if before != UNPRIVILEGED_AT_START {
            fs::write(UNPRIVILEGED, UNPRIVILEGED_AT_START).map_err(|error| errno_of(&error))?;
        }
        self.rights = Some((effective, before));
        Ok(())
    }

    fn socket(request: &SocketRequest<'_>, connect: Option<SocketAddrAny>) -> Result<OwnedFd> {
        if request.connected && connect.is_none() {
            return Err(Errno::EOPNOTSUPP);
        }
        let family = match request {
            SocketRequest { unix: true, .. } => AddressFamily::UNIX,
            SocketRequest { inet6: true, .. } => AddressFamily::INET6,
            SocketRequest { netlink: true, .. } => AddressFamily::NETLINK,
            SocketRequest { xdp: true, .. } => AddressFamily::from_raw(AF_XDP),
            _ => AddressFamily::INET,
        };
        let kind = match request {
            SocketRequest { xdp: true, .. } => SocketType::RAW,
            SocketRequest { stream: true, .. } => SocketType::STREAM,
            _ => SocketType::DGRAM,
        };
        let socket = rustix::net::socket(family, kind, None).map_err(errno)?;
        if request.bind {
            let any = std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0);
            sockopt::set_socket_reuseport(&socket, request.reuseport).map_err(errno)?;
            rustix::net::bind(&socket, &any).map_err(errno)?;
        }
        if request.listen {
            rustix::net::listen(&socket, 16).map_err(errno)?;
        }
        if let Some(addr) = connect {
            rustix::net::connect(&socket, &addr).map_err(errno)?;
        }
        Ok(socket)
    }
}

/// The root of a cgroup v1 hierarchy.
fn open_cgroup1() -> Result<OwnedFd> {
    let mounts = fs::read_to_string("/proc/mounts").map_err(|error| errno_of(&error))?;
    let place = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let place = words.nth(1)?;
        (words.next() == Some("cgroup")).then_some(place)
    });
    open(place.ok_or(Errno::ENOENT)?, OFlags::RDONLY)
}

pub(super) fn open(path: &str, flags: OFlags) -> Result<OwnedFd> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).map_err(errno)
}

/// The facts that fdinfo tells of a map.
fn map_facts(fdinfo: &str) -> Option<MapFacts> {
    let number = |name: &str| -> Option<u32> {
        let rest = fdinfo
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"))?;
        rest.parse().ok()
    };
    Some(MapFacts {
        id: number("map_id")?,
        map_type: MapType(number("map_type")?),
        key_size: number("key_size")? as usize,
        value_size: number("value_size")? as usize,
        max_entries: number("max_entries")?,
        inner: None,
    })
}

fn fdinfo(fd: Fd) -> Result<String> {
    fs::read_to_string(format!("/proc/thread-self/fdinfo/{fd}")).map_err(|_| Errno::EBADF)
}

impl World for Running {
    fn bpf(&self) -> &dyn Bpf {
        &self.kernel
    }

    fn set_cpu(&mut self, cpu: u32) -> Result<()> {
        crate::host::run_on(cpu)?;
        self.kernel.host = self.kernel.host.with_cpu(cpu);
        Ok(())
    }

    fn map_facts(&self, fd: Fd) -> Option<MapFacts> {
        let facts = map_facts(&fdinfo(fd).ok()?)?;
        self.kernel.maps.lock().insert(fd, facts.id);
        Some(facts)
    }

    fn prog_id(&self, fd: Fd) -> Result<u32> {
        program::id_of(fd, "prog_id")
    }

    fn dup(&mut self, fd: Fd) -> Result<Fd> {
        Ok(self.adopt(os::dup(fd, 0)?))
    }

    fn open_file(&mut self, kind: FileKind) -> Result<Fd> {
        let dir = std::env::temp_dir().to_string_lossy().into_owned();
        let fd = match kind {
            FileKind::File | FileKind::Memfd => {
                rustix::fs::memfd_create("mapemu", rustix::fs::MemfdFlags::CLOEXEC)
                    .map_err(errno)?
            }
            FileKind::Dir => open(&dir, OFlags::RDONLY)?,
            FileKind::Path => open(&dir, OFlags::PATH)?,
            FileKind::Pipe => {
                let (reading, writing) =
                    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(errno)?;
                self.pipes.push(writing);
                reading
            }
            FileKind::Cgroup1 => open_cgroup1()?,
        };
        Ok(self.adopt(fd))
    }

    fn open_again(&mut self, fd: Fd) -> Result<Fd> {
        let fd = open(&format!("/proc/thread-self/fd/{fd}"), OFlags::RDONLY)?;
        Ok(self.adopt(fd))
    }

    fn open_socket(&mut self, request: &SocketRequest<'_>) -> Result<Fd> {
        let host = &self.kernel.host;
        let connect = match request.connect {
            None => None,
            Some(fd) => Some(host.with_fd(fd, |fd| rustix::net::getsockname(fd).map_err(errno))??),
        };
        let make = || Self::socket(request, connect);
        let socket = match request.cgroup {
            None => make()?,
            Some(cgroup) => self.cgroups.inside(cgroup, make)??,
        };
        Ok(self.adopt(socket))
    }

    fn open_pidfd(&mut self, child: bool) -> Result<Fd> {
        let flags = rustix::process::PidfdFlags::empty();
        if !child {
            // Programs run in this thread: it has the storage, which is not the process's first thread's. (`PIDFD_THREAD`.)
            let thread = rustix::process::PidfdFlags::from_bits_retain(OFlags::EXCL.bits());
            let own = rustix::thread::gettid();
            // Before 6.9 only a process's first thread can be opened, and without that flag.
            let fd = rustix::process::pidfd_open(own, thread)
                .or_else(|_| rustix::process::pidfd_open(own, flags));
            return Ok(self.adopt(fd.map_err(errno)?));
        }
        let sleeper = Command::new("sleep").arg("1000000").spawn();
        let sleeper = sleeper.map_err(|error| errno_of(&error))?;
        let pid = rustix::process::Pid::from_child(&sleeper);
        let fd = rustix::process::pidfd_open(pid, flags).map_err(errno)?;
        let fd = self.adopt(fd);
        self.children.push((fd, sleeper));
        Ok(fd)
    }

    fn end_child(&mut self, pidfd: Fd) -> Result<()> {
        let at = self.children.iter().position(|(fd, _)| *fd == pidfd);
        let (_, mut child) = self.children.remove(at.ok_or(Errno::ESRCH)?);
        child.kill().map_err(|error| errno_of(&error))?;
        child.wait().map_err(|error| errno_of(&error))?;
        Ok(())
    }

    fn open_perf_event(&mut self, kind: PerfEventKind, cpu: u32) -> Result<Fd> {
        self.kernel.host.perf_event_open(kind.event(cpu))
    }

    fn file_op(&mut self, fd: Fd, op: FileOp) -> Result<()> {
        self.kernel.host.with_fd(fd, |fd| {
            match op {
                FileOp::Read => rustix::io::read(fd, &mut [0; 8]).map(|_| ()),
                FileOp::Write => rustix::io::write(fd, b"12345678").map(|_| ()),
                FileOp::Lseek => rustix::fs::seek(fd, rustix::fs::SeekFrom::Start(0)).map(|_| ()),
            }
            .map_err(errno)
        })?
    }

    fn file_mode(&self, fd: Fd) -> Result<(u32, bool)> {
        let (status, own) = os::file_flags(fd)?;
        let accmode = (status & libc::O_ACCMODE).cast_unsigned();
        Ok((accmode, own & libc::FD_CLOEXEC != 0))
    }

    fn poll(&mut self, fd: Fd) -> Result<u32, Stop> {
        Ok(self.kernel.host.poll(fd, Some(Duration::ZERO))?.bits())
    }

    fn epoll(&mut self, fd: Fd, map_id: u32) -> Result<u32, Stop> {
        let mut epolls = self.kernel.epolls.lock();
        let epoll = match epolls.entry(map_id) {
            std::collections::hash_map::Entry::Occupied(there) => there.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => place.insert(Epoll::new(fd)?),
        };
        Ok(epoll.signalled(EVENT_MS))
    }

    fn fdinfo(&self, fd: Fd) -> Result<String> {
        fdinfo(fd)
    }

    fn bpffs(&mut self) -> Result<String> {
        if self.bpffs.is_none() {
            let dir = std::env::temp_dir().join(scenario_name());
            fs::create_dir(&dir).map_err(|error| errno_of(&error))?;
            let mounted =
                rustix::mount::mount("bpf", &dir, "bpf", rustix::mount::MountFlags::empty(), None);
            self.bpffs = Some(dir);
            mounted.map_err(errno)?;
        }
        let dir = self.bpffs.as_ref().expect("mounted");
        Ok(dir.to_string_lossy().into_owned())
    }

    fn mkdir(&mut self, path: &str) -> Result<()> {
        fs::create_dir(path).map_err(|error| errno_of(&error))
    }

    fn unlink(&mut self, path: &str) -> Result<()> {
        fs::remove_file(path).map_err(|error| errno_of(&error))
    }

    fn set_caps(&mut self, caps: Option<Caps>) -> Result<()> {
        self.remember_rights()?;
        let (_, permitted) = os::capabilities()?;
        os::set_capabilities(caps.map_or(permitted, |caps| caps.bits()))
    }

    fn set_sysctl(&mut self, name: &str, value: u32) -> Result<()> {
        self.remember_rights()?;
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        fs::write(path, value.to_string()).map_err(|error| errno_of(&error))
    }

    fn cgroup_create(&mut self, name: &str, under: Option<&str>) -> Result<(Fd, u64)> {
        let (fd, id) = self.cgroups.create(name, under)?;
        Ok((self.adopt(fd), id))
    }

    fn cgroup_remove(&mut self, name: &str) -> Result<()> {
        self.cgroups.remove(name)
    }

    fn settle(&mut self) {
        self.cgroups.settle(0);
    }

    fn prog_load(&mut self, request: &ProgRequest<'_>) -> Result<Fd, Stop> {
        let host = &self.kernel.host;
        let loaded = self.cgroups.load(host, request)?;
        let fd = host.adopt(loaded);
        self.cgroups.has_fd(request.name, fd);
        Ok(fd)
    }

    fn trigger(
        &mut self,
        cgroup: &str,
        event: Event,
        writes: &[Write<'_>],
    ) -> Result<Vec<Ran>, Stop> {
        Ok(self.cgroups.trigger(cgroup, event, writes)?)
    }

    fn prog_test_run(&mut self, prog: &str, writes: &[Write<'_>]) -> Result<Vec<Ran>, Stop> {
        Ok(self.cgroups.test_run(&self.kernel.host, prog, writes)?)
    }

    fn only_verify(&mut self, only: bool) {
        self.only_verify = only;
    }

    fn helper(&mut self, call: &HelperCall<'_>) -> Result<HelperAnswer, Stop> {
        self.call_helper(call)
    }

    fn program(
        &mut self,
        map: Fd,
        facts: &MapFacts,
        prog_type: ProgType,
        steps: &[Step],
    ) -> Result<Vec<StepAnswer>, Stop> {
        self.run_steps(map, facts, prog_type, steps)
    }

    fn for_each(&mut self, walk: &ForEach<'_>) -> Result<(i64, Vec<Seen>), Stop> {
        self.walk_with_callback(walk)
    }

    fn storage_helper(&mut self, call: &StorageCall<'_>) -> Result<HelperAnswer, Stop> {
        self.call_storage_helper(call)
    }

    fn ringbuf(&mut self, map: Fd, _: &MapFacts, steps: &[RingStep]) -> Result<Vec<i64>, Stop> {
        self.run_ring_steps(map, steps)
    }

    fn user_ringbuf_drain(&mut self, drain: &Drain) -> Result<(i64, Vec<Sample>), Stop> {
        self.drain_ring(drain)
    }

    fn finish(&mut self) {
        // What cannot be undone stays: there is nobody to tell.
        if let Some((effective, before)) = self.rights.take() {
            let _all = os::set_capabilities(effective);
            let _written = fs::write(UNPRIVILEGED, before);
        }
        self.kernel.probes.lock().clear();
        self.kernel.epolls.lock().clear();
        for (_, mut child) in self.children.drain(..) {
            let _killed = child.kill();
            let _reaped = child.wait();
        }
        self.pipes.clear();
        if let Some(dir) = self.bpffs.take() {
            let _gone = rustix::mount::unmount(&dir, rustix::mount::UnmountFlags::DETACH);
            let _removed = fs::remove_dir(&dir);
        }
        self.cgroups.finish();
        let _pinned = crate::host::run_on(0);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.finish();
    }
}
