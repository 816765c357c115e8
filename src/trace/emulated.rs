//! The emulated kernel as a [`World`]: what is around its maps is declared, not done.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::line::Header;
use super::request::Stop;
use super::world::{
    Drain, Event, FileKind, FileOp, ForEach, HelperAnswer, HelperCall, MapFacts, PerfEventKind,
    ProgRequest, Ran, RingStep, Sample, Seen, SocketRequest, Step, StepAnswer, StorageCall, World,
    Write,
};
use crate::abi::{AttachType, Bpf, Caps, Errno, Fd, PollEvents, ProgType, Result};
use crate::env::Unsupported;
use crate::map::Map;
use crate::map::object::{Object, OtherKind, Socket};
use crate::map::ringbuf::Ringbuf;
use crate::sys::{Kernel, ProgDef};

/// CPUs of a trace that does not say.
const CPUS: u32 = 2;

/// CPUs of an emulated kernel at most, as Linux is built for x86-64.
const MOST_CPUS: u32 = 8192;

/// What a replay takes from elsewhere than the trace's header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Release of the kernel.
    pub release: Option<String>,
    /// Number of possible CPUs.
    pub cpus: Option<u32>,
    /// Where random numbers begin.
    pub seed: u64,
    /// What happens where something is not emulated. The replay knows the panic and names it.
    pub unsupported: Unsupported,
    /// Bytes that all maps together may take.
    pub memory_limit: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            release: None,
            cpus: None,
            seed: 0,
            unsupported: Unsupported::Panic,
            memory_limit: 1 << 40,
        }
    }
}

/// Nothing here is what a trace was recorded on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unfit(pub String);

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unfit {}

/// A program as the scenario loaded it.
#[derive(Debug)]
pub(super) struct Loaded {
    /// Its id; names of programs can be given again.
    pub(super) id: u32,
    pub(super) fd: Fd,
    pub(super) prog_type: ProgType,
    /// Its storages in order: the map's name, the map, the part of the value that it touches.
    pub(super) storages: Vec<(String, Arc<Map>, std::ops::Range<usize>)>,
}

/// An emulated kernel with a process, its cgroups and its programs.
#[derive(Debug)]
pub struct Emulated {
    /// On the CPU that was set.
    pub(super) kernel: Kernel,
    pub(super) only_verify: bool,
    /// The cgroup above all others of the scenario.
    top: Option<Fd>,
    /// An fd of each cgroup of the scenario, by name.
    cgroups: HashMap<String, Fd>,
    pub(super) progs: Vec<(String, Loaded)>,
    /// A pidfd of the process itself.
    this_process: Option<Fd>,
    children: Vec<Fd>,
    /// Wakeups that were told of, by map.
    told: HashMap<u32, u64>,
}

impl Emulated {
    /// The kernel that a trace was recorded on, or the one that `options` ask for.
    ///
    /// # Errors
    ///
    /// [`Unfit`] if that release is not emulated, or has not so many CPUs.
    pub fn new(header: &Header, options: &Options) -> Result<Self, Unfit> {
        let cpus = options.cpus.or(header.cpus).unwrap_or(CPUS);
        if cpus == 0 || cpus > MOST_CPUS {
            return Err(Unfit(format!("{cpus} CPUs: there are 1 to {MOST_CPUS}")));
        }
        let mut builder = Kernel::builder()
            .cpus(cpus)
            .seed(options.seed)
            .unsupported(options.unsupported)
            .memory_limit(options.memory_limit);
        if let Some(release) = options.release.as_ref().or(header.release.as_ref()) {
            builder = builder
                .release(release)
                .map_err(|unknown| Unfit(unknown.to_string()))?;
        }
        Ok(Self {
            kernel: builder.build(),
            only_verify: false,
            top: None,
            cgroups: HashMap::new(),
            progs: Vec::new(),
            this_process: None,
            children: Vec::new(),
            told: HashMap::new(),
        })
    }

    pub(super) fn cgroup(&self, name: &str) -> Result<Fd> {
        self.cgroups.get(name).copied().ok_or(Errno::ENOENT)
    }

    fn top(&mut self) -> Result<Fd> {
        if let Some(top) = self.top {
            return Ok(top);
        }
        let top = self.kernel.cgroup_create("scenario", None)?;
        self.top = Some(top);
        Ok(top)
    }

    /// The cgroup that the process is in.
    pub(super) fn root_cgroup(&mut self) -> Result<Object> {
        let top = self.top()?;
        match self.kernel.object(top)? {
            Object::Cgroup(top) => {
                let root = top.parent.clone();
                root.map(Object::Cgroup).ok_or(Errno::ENOENT)
            }
            Object::Map(_) | Object::Btf(_) | Object::Prog(_) | Object::Other(_) => {
                Err(Errno::ENOENT)
            }
        }
    }

    /// The object of the running process.
    pub(super) fn this_process(&mut self) -> Fd {
        *self
            .this_process
            .get_or_insert_with(|| self.kernel.open(OtherKind::Pidfd))
    }

    fn prog_of_id(&self, id: u32) -> Option<(&str, &Loaded)> {
        self.progs
            .iter()
            .find(|(_, prog)| prog.id == id)
            .map(|(name, prog)| (name.as_str(), prog))
    }

    /// The programs that an event in a cgroup runs, in order, noted by name; some run at several places.
    fn run_event(
        &self,
        cgroup: Fd,
        places: &[AttachType],
        writes: &[Write<'_>],
    ) -> Result<Vec<Ran>, Stop> {
        let mut ran: Vec<Ran> = Vec::new();
        for &place in places {
            for attached in self.kernel.attached(cgroup, place)? {
                let Some((name, prog)) = self.prog_of_id(attached.prog.id) else {
                    continue;
                };
                let saw = self.run_attached(name, prog, &attached.storages, writes)?;
                let before = ran.iter().position(|ran| ran.prog == name);
                let times = before.map_or(0, |at| ran.remove(at).times);
                ran.push(Ran {
                    prog: name.to_owned(),
                    times: times + 1,
                    saw,
                });
            }
        }
        Ok(ran)
    }
}

impl World for Emulated {
    fn bpf(&self) -> &dyn Bpf {
        &self.kernel
    }

    fn set_cpu(&mut self, cpu: u32) -> Result<()> {
        if cpu >= self.kernel.nr_cpus() {
            return Err(Errno::EINVAL);
        }
        self.kernel = Kernel::on_cpu(&self.kernel, cpu);
        Ok(())
    }

    fn map_facts(&self, fd: Fd) -> Option<MapFacts> {
        let map = self.kernel.map(fd).ok()?;
        Some(MapFacts {
            id: map.id,
            map_type: map.def.map_type,
            key_size: map.def.key_size as usize,
            value_size: map.def.value_size as usize,
            max_entries: map.def.max_entries,
            inner: None,
        })
    }

    fn prog_id(&self, fd: Fd) -> Result<u32> {
        match self.kernel.object(fd)? {
            Object::Prog(prog) => Ok(prog.id),
            Object::Map(_) | Object::Btf(_) | Object::Cgroup(_) | Object::Other(_) => {
                Err(Errno::EINVAL)
            }
        }
    }

    fn dup(&mut self, fd: Fd) -> Result<Fd> {
        self.kernel.dup(fd)
    }

    fn open_file(&mut self, kind: FileKind) -> Result<Fd> {
        Ok(match kind {
            FileKind::File | FileKind::Memfd | FileKind::Dir | FileKind::Pipe => {
                self.kernel.open(OtherKind::File)
            }
            FileKind::Path => self.kernel.open_path(),
            FileKind::Cgroup1 => self.kernel.open(OtherKind::Cgroup1),
        })
    }

    fn open_again(&mut self, fd: Fd) -> Result<Fd> {
        self.kernel.open_again(fd)
    }

    fn open_socket(&mut self, request: &SocketRequest<'_>) -> Result<Fd> {
        let socket = as_asked(request);
        match request.cgroup {
            Some(cgroup) => self.kernel.open_in(self.cgroup(cgroup)?, socket),
            None => Ok(self.kernel.open(OtherKind::Socket(socket))),
        }
    }

    fn change_socket(&mut self, fd: Fd, request: &SocketRequest<'_>) -> Result<()> {
        let Object::Other(object) = self.kernel.open_file(fd)?.object() else {
            return Err(Errno::ENOTSOCK);
        };
        object.set_socket(as_asked(request));
        Ok(())
    }

    fn open_pidfd(&mut self, child: bool) -> Result<Fd> {
        if child {
            let fd = self.kernel.open(OtherKind::Pidfd);
            self.children.push(fd);
            return Ok(fd);
        }
        let this = self.this_process();
        self.kernel.open_again(this)
    }

    fn end_child(&mut self, pidfd: Fd) -> Result<()> {
        let at = self.children.iter().position(|&child| child == pidfd);
        self.children.remove(at.ok_or(Errno::ESRCH)?);
        if matches!(self.kernel.object(pidfd)?, Object::Other(_)) {
            self.kernel.end_owner(pidfd);
        }
        Ok(())
    }

    fn open_perf_event(&mut self, kind: PerfEventKind, cpu: u32) -> Result<Fd> {
        self.kernel.perf_event_open(kind.event(cpu))
    }

    fn file_op(&mut self, fd: Fd, op: FileOp) -> Result<()> {
        let (reads, writes) = self.kernel.fd_mode(fd)?;
        match (self.kernel.object(fd)?, op) {
            (Object::Map(_), FileOp::Read) if !reads => Err(Errno::EBADF),
            (Object::Map(_), FileOp::Write) if !writes => Err(Errno::EBADF),
            (Object::Map(_), FileOp::Read | FileOp::Write) => Err(Errno::EINVAL),
            (Object::Map(_), FileOp::Lseek) => Err(Errno::ESPIPE),
            (Object::Btf(_) | Object::Prog(_) | Object::Cgroup(_) | Object::Other(_), _) => {
                panic!("mapemu does not emulate reading, writing and seeking of files yet")
            }
        }
    }

    fn file_mode(&self, fd: Fd) -> Result<(u32, bool)> {
        let mode = match self.kernel.fd_mode(fd)? {
            (true, true) => 2,
            (false, true) => 1,
            (_, false) => 0,
        };
        Ok((mode, true))
    }

    fn poll(&mut self, fd: Fd) -> Result<u32, Stop> {
        match self.kernel.poll(fd, Some(Duration::ZERO)) {
            Err(Errno::EINVAL) => Err(Stop::ToCome("poll(2) of what is no map".to_owned())),
            events => Ok(events?.bits()),
        }
    }

    fn epoll(&mut self, fd: Fd, map_id: u32) -> Result<u32, Stop> {
        let map = self.kernel.map(fd)?;
        let ringbuf = map.ops.as_any().downcast_ref::<Ringbuf>();
        let signals = ringbuf.map_or(0, Ringbuf::signals);
        if self.told.insert(map_id, signals) == Some(signals) {
            return Ok(0);
        }
        let asked = PollEvents::IN | PollEvents::OUT | PollEvents::ERR;
        let events = self.kernel.poll(fd, Some(Duration::ZERO))?;
        Ok((events & asked).bits())
    }

    fn fdinfo(&self, fd: Fd) -> Result<String> {
        self.kernel.fdinfo(fd)
    }

    fn bpffs(&mut self) -> Result<String> {
        Ok("/sys/fs/bpf".to_owned())
    }

    fn mkdir(&mut self, path: &str) -> Result<()> {
        self.kernel.mkdir(path)
    }

    fn unlink(&mut self, path: &str) -> Result<()> {
        self.kernel.unlink(path)
    }

    fn set_caps(&mut self, caps: Option<Caps>) -> Result<()> {
        self.kernel.set_capabilities(caps.unwrap_or(Caps::all()));
        Ok(())
    }

    fn set_sysctl(&mut self, name: &str, value: u32) -> Result<()> {
        if name != "kernel.unprivileged_bpf_disabled" {
            return Err(Errno::ENOENT);
        }
        self.kernel.set_unprivileged_bpf_disabled(value);
        Ok(())
    }

    fn cgroup_create(&mut self, name: &str, under: Option<&str>) -> Result<(Fd, u64)> {
        let parent = match under {
            Some(under) => self.cgroup(under)?,
            None => self.top()?,
        };
        let fd = self.kernel.cgroup_create(name, Some(parent))?;
        let Object::Cgroup(cgroup) = self.kernel.object(fd)? else {
            return Err(Errno::EBADF);
        };
        // The scenario closes its own; this one is for the events.
        let kept = self.kernel.dup(fd)?;
        if let Some(old) = self.cgroups.insert(name.to_owned(), kept) {
            self.kernel.close(old)?;
        }
        Ok((fd, cgroup.id))
    }

    fn cgroup_remove(&mut self, name: &str) -> Result<()> {
        self.kernel.cgroup_remove(self.cgroup(name)?)
    }

    fn settle(&mut self) {
        // Nothing is deferred.
    }

    fn prog_load(&mut self, request: &ProgRequest<'_>) -> Result<Fd, Stop> {
        let fds: Vec<Fd> = request.storages.iter().map(|(_, fd, _)| *fd).collect();
        let fd = self.kernel.prog_load(ProgDef {
            name: request.name,
            prog_type: request.prog_type,
            expected_attach_type: request.expected_attach_type,
            maps: &request.maps,
            storages: &fds,
        })?;
        if let Err(stop) = self.verify_storages(request) {
            self.kernel.close(fd)?;
            return Err(stop);
        }
        let mut storages = Vec::new();
        for (name, fd, range) in &request.storages {
            storages.push(((*name).to_owned(), self.kernel.map(*fd)?, range.clone()));
        }
        let loaded = Loaded {
            id: self.prog_id(fd)?,
            fd,
            prog_type: request.prog_type,
            storages,
        };
        self.progs.retain(|(name, _)| name != request.name);
        self.progs.push((request.name.to_owned(), loaded));
        Ok(fd)
    }

    fn trigger(
        &mut self,
        cgroup: &str,
        event: Event,
        writes: &[Write<'_>],
    ) -> Result<Vec<Ran>, Stop> {
        let places: &[AttachType] = match event {
            // A datagram that is sent to an address asks at both places.
            Event::Egress | Event::Udp4Sendmsg => &[
                AttachType::CGROUP_UDP4_SENDMSG,
                AttachType::CGROUP_INET_EGRESS,
            ],
            Event::Ingress => &[AttachType::CGROUP_INET_INGRESS],
            Event::SockCreate => &[AttachType::CGROUP_INET_SOCK_CREATE],
            Event::Bind4 => &[AttachType::CGROUP_INET4_BIND],
            Event::Setsockopt => &[AttachType::CGROUP_SETSOCKOPT],
        };
        self.run_event(self.cgroup(cgroup)?, places, writes)
    }

    fn prog_test_run(&mut self, prog: &str, _writes: &[Write<'_>]) -> Result<Vec<Ran>, Stop> {
        let at = self.progs.iter().position(|(name, _)| name == prog);
        let (name, loaded) = &self.progs[at.ok_or(Errno::EBADF)?];
        self.kernel.object(loaded.fd)?;
        let saw = Self::run_tested(loaded)?;
        Ok(vec![Ran {
            prog: name.clone(),
            times: 1,
            saw,
        }])
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
        _facts: &MapFacts,
        prog_type: ProgType,
        steps: &[Step],
    ) -> Result<Vec<StepAnswer>, Stop> {
        self.run_steps(map, prog_type, steps)
    }

    fn for_each(&mut self, walk: &ForEach<'_>) -> Result<(i64, Vec<Seen>), Stop> {
        self.walk_with_callback(walk)
    }

    fn storage_helper(&mut self, call: &StorageCall<'_>) -> Result<HelperAnswer, Stop> {
        self.call_storage_helper(call)
    }

    fn ringbuf(
        &mut self,
        map: Fd,
        _facts: &MapFacts,
        steps: &[RingStep],
    ) -> Result<Vec<i64>, Stop> {
        self.run_ring_steps(map, steps)
    }

    fn ring_map(&self, map: Fd) -> Option<Arc<Map>> {
        self.kernel.map(map).ok()
    }

    fn user_ringbuf_drain(&mut self, drain: &Drain) -> Result<(i64, Vec<Sample>), Stop> {
        self.drain(drain)
    }

    fn finish(&mut self) {
        // Nothing outlives the kernel.
    }
}

fn as_asked(request: &SocketRequest<'_>) -> Socket {
    Socket {
        xdp: request.xdp,
        unix: request.unix,
        other: request.netlink,
        stream: request.stream,
        bound: request.bind,
        listening: request.listen,
        connected: request.connected,
        reuseport: request.reuseport,
        cookie: 0,
    }
}
