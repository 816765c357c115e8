//! Real cgroups, the programs that are attached to them, and the events that make those run.

use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::OFlags;
use rustix::net::{AddressFamily, SocketType, sockopt};

use super::request::Stop;
use super::running::{errno, open};
use super::world::{Event, ProgRequest, Ran, Write};
use crate::abi::{Errno, Fd, Helper, Result};
use crate::host::os::{errno_of, number};
use crate::host::program::{self, Scratch};
use crate::host::{Asm, Host, Reg, When, Width, off};

/// Deferred work of a removed cgroup is looked for at such intervals, so often.
const SETTLE: (Duration, u32) = (Duration::from_millis(5), 400);

/// Deferred work that nothing shows takes less than this.
const SETTLE_LEAST: Duration = Duration::from_millis(50);

/// How long a datagram may take.
const DATAGRAM: Duration = Duration::from_secs(1);

/// A cgroup of the scenario. Its directory may be gone.
#[derive(Debug)]
struct Cgroup {
    dir: PathBuf,
    /// A socket that was made in it, bound to an address.
    socket: Option<UdpSocket>,
}

/// A loaded program: what it shares, and where each map's part is in that.
#[derive(Debug)]
struct Loaded {
    scratch: Scratch,
    /// The map's name, where its part begins, bytes that it touches.
    parts: Vec<(String, usize, usize)>,
    fd: Fd,
    id: u32,
}

/// Offsets in what a program shares: how often it ran, and when it ran last.
const TIMES: usize = 0;
const ORDER: usize = 8;
const FIRST_PART: usize = 16;

/// Of one map: whether to write, what to write, what was seen.
const fn part_len(len: usize) -> usize {
    8 + 2 * len.next_multiple_of(8)
}

/// The cgroups and programs of one scenario.
#[derive(Debug)]
pub(super) struct Cgroups {
    name: String,
    /// The directory above all of them.
    base: Option<PathBuf>,
    cgroups: HashMap<String, Cgroup>,
    progs: Vec<(String, Loaded)>,
    /// Counts runs of all programs.
    clock: Option<Scratch>,
    /// Where datagrams go.
    far: Option<UdpSocket>,
}

/// Where cgroup v2 is mounted.
fn mount_point() -> &'static str {
    let beside_v1 = "/sys/fs/cgroup/unified";
    if Path::new(beside_v1).is_dir() {
        beside_v1
    } else {
        "/sys/fs/cgroup"
    }
}

/// The cgroup that the process is in between scenarios' visits to their own, once that is known. Held while it is in another one:
/// all its threads are, whichever scenario they play.
static HOME: Mutex<Option<PathBuf>> = Mutex::new(None);

fn own_cgroup() -> Result<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").map_err(|error| errno_of(&error))?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
    Ok(Path::new(mount_point()).join(own.ok_or(Errno::ENOENT)?))
}

fn enter(dir: &Path) -> Result<()> {
    fs::write(dir.join("cgroup.procs"), "0").map_err(|error| errno_of(&error))
}

fn inet_socket() -> Result<OwnedFd> {
    rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).map_err(errno)
}

fn udp_socket() -> Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| errno_of(&error))?;
    socket
        .set_read_timeout(Some(DATAGRAM))
        .map_err(|error| errno_of(&error))?;
    Ok(socket)
}

impl Cgroups {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            base: None,
            cgroups: HashMap::new(),
            progs: Vec::new(),
            clock: None,
            far: None,
        }
    }

    fn base(&mut self) -> Result<PathBuf> {
        if let Some(base) = &self.base {
            return Ok(base.clone());
        }
        let base = Path::new(mount_point()).join(&self.name);
        fs::create_dir(&base).map_err(|error| errno_of(&error))?;
        self.base = Some(base.clone());
        Ok(base)
    }

    fn dir(&self, name: &str) -> Result<&Path> {
        Ok(&self.cgroups.get(name).ok_or(Errno::ENOENT)?.dir)
    }

    pub(super) fn create(&mut self, name: &str, under: Option<&str>) -> Result<(OwnedFd, u64)> {
        let parent = match under {
            Some(under) => self.dir(under)?.to_owned(),
            None => self.base()?,
        };
        let dir = parent.join(name);
        fs::create_dir(&dir).map_err(|error| errno_of(&error))?;
        let id = fs::metadata(&dir).map_err(|error| errno_of(&error))?.ino();
        let fd = open(&dir.to_string_lossy(), OFlags::RDONLY)?;
        self.cgroups
            .insert(name.to_owned(), Cgroup { dir, socket: None });
        Ok((fd, id))
    }

    pub(super) fn remove(&mut self, name: &str) -> Result<()> {
        let before = self.dying();
        let cgroup = self.cgroups.get_mut(name).ok_or(Errno::ENOENT)?;
        // A socket holds its cgroup.
        cgroup.socket = None;
        fs::remove_dir(&cgroup.dir).map_err(|error| errno_of(&error))?;
        self.settle(before);
        Ok(())
    }

    /// Removed cgroups that something still holds.
    fn dying(&self) -> u32 {
        let count = || {
            let base = self.base.as_ref()?;
            let stat = fs::read_to_string(base.join("cgroup.stat")).ok()?;
            stat.lines()
                .find_map(|line| line.strip_prefix("nr_dying_descendants ")?.parse().ok())
        };
        count().unwrap_or(0)
    }

    /// Waits until no more removed cgroups than this are left; not for ever, if something holds one.
    pub(super) fn settle(&self, dying: u32) {
        sleep(SETTLE_LEAST);
        let (interval, times) = SETTLE;
        for _ in 0..times {
            if self.dying() <= dying {
                return;
            }
            sleep(interval);
        }
    }

    /// Does something with this process in a cgroup.
    pub(super) fn inside<T>(&self, cgroup: &str, does: impl FnOnce() -> T) -> Result<T> {
        let dir = self.dir(cgroup)?;
        let mut home = HOME.lock();
        if home.is_none() {
            *home = Some(own_cgroup()?);
        }
        enter(dir)?;
        let done = does();
        enter(home.as_ref().expect("found above"))?;
        Ok(done)
    }

    // --- programs ---------------------------------------------------------------------------------------------------

    /// Loads a program that notes and writes cgroup storage.
    pub(super) fn load(&mut self, host: &Host, request: &ProgRequest<'_>) -> Result<OwnedFd, Stop> {
        if self.clock.is_none() {
            self.clock = Some(Scratch::new(host, 8)?);
        }
        let clock = self.clock.as_ref().expect("made above").fd();
        let (mut end, mut parts) = (FIRST_PART, Vec::new());
        for (map, _, range) in &request.storages {
            parts.push(((*map).to_owned(), end, range.len()));
            end += part_len(range.len());
        }
        let scratch = Scratch::new(host, end)?;
        let asm = storage_program(request, &scratch, clock, &parts);
        let (prog_type, expected) = (request.prog_type, request.expected_attach_type);
        // Not the verifier's answer to an operation of the program side: the answer to a request.
        let fd = program::load(host, prog_type, expected, &asm)?;
        let id = program::id_of(number(&fd), "prog_id")?;
        self.progs.retain(|(name, _)| name != request.name);
        let loaded = Loaded {
            scratch,
            parts,
            fd: u32::MAX,
            id,
        };
        self.progs.push((request.name.to_owned(), loaded));
        Ok(fd)
    }

    /// The number under which the scenario has a program.
    pub(super) fn has_fd(&mut self, prog: &str, fd: Fd) {
        if let Some((_, loaded)) = self.progs.iter_mut().find(|(name, _)| name == prog) {
            loaded.fd = fd;
        }
    }

    /// Before an event: no program ran, and these are the values that they shall write.
    fn arm(&self, writes: &[Write<'_>]) {
        for (name, Loaded { scratch, parts, .. }) in &self.progs {
            scratch.write(0, &vec![0; scratch.len()]);
            for write in writes.iter().filter(|write| write.prog == name) {
                for (_, at, len) in parts.iter().filter(|(map, ..)| map == write.map) {
                    scratch.write(*at, &1_u64.to_ne_bytes());
                    scratch.write(at + 8, &write.bytes[..write.bytes.len().min(*len)]);
                }
            }
        }
        if let Some(clock) = &self.clock {
            clock.write(0, &[0; 8]);
        }
    }

    /// Which programs ran, in the order of their last run.
    fn ran(&self) -> Vec<Ran> {
        let mut ran: Vec<(i64, Ran)> = Vec::new();
        for (name, Loaded { scratch, parts, .. }) in &self.progs {
            let times = scratch.number(TIMES).cast_unsigned();
            if times > 0 {
                let saw = parts.iter().map(|(map, at, len)| {
                    let seen = scratch.read(at + 8 + len.next_multiple_of(8), *len);
                    (map.clone(), seen)
                });
                let prog = Ran {
                    prog: name.clone(),
                    times,
                    saw: saw.collect(),
                };
                ran.push((scratch.number(ORDER), prog));
            }
        }
        ran.sort_by_key(|(order, _)| *order);
        ran.into_iter().map(|(_, ran)| ran).collect()
    }

    pub(super) fn test_run(
        &self,
        host: &Host,
        prog: &str,
        writes: &[Write<'_>],
    ) -> Result<Vec<Ran>> {
        let loaded = self.progs.iter().find(|(name, _)| name == prog);
        let (_, loaded) = loaded.ok_or(Errno::EBADF)?;
        if program::id_of(loaded.fd, "prog_id") != Ok(loaded.id) {
            return Err(Errno::EBADF);
        }
        let own: Vec<_> = writes
            .iter()
            .filter(|write| write.prog == prog)
            .cloned()
            .collect();
        self.arm(&own);
        program::test_run(host, loaded.fd, true)?;
        let mut ran = self.ran();
        ran.retain(|ran| ran.prog == prog);
        Ok(ran)
    }

    // --- events -----------------------------------------------------------------------------------------------------

    /// A socket that was made in a cgroup, and one outside.
    fn sockets(&mut self, cgroup: &str) -> Result<(&UdpSocket, &UdpSocket)> {
        if self.far.is_none() {
            self.far = Some(udp_socket()?);
        }
        if self
            .cgroups
            .get(cgroup)
            .ok_or(Errno::ENOENT)?
            .socket
            .is_none()
        {
            let made = self.inside(cgroup, udp_socket)??;
            self.cgroups.get_mut(cgroup).ok_or(Errno::ENOENT)?.socket = Some(made);
        }
        let near = self
            .cgroups
            .get(cgroup)
            .and_then(|cgroup| cgroup.socket.as_ref());
        Ok((
            near.expect("made above"),
            self.far.as_ref().expect("made above"),
        ))
    }

    pub(super) fn trigger(
        &mut self,
        cgroup: &str,
        event: Event,
        writes: &[Write<'_>],
    ) -> Result<Vec<Ran>> {
        // What an earlier event had to write is not written by what prepares this one.
        self.arm(&[]);
        match event {
            Event::SockCreate | Event::Bind4 => {
                let bind = event == Event::Bind4;
                let made = self.inside(cgroup, || {
                    if bind {
                        let socket = inet_socket()?;
                        self.arm(writes);
                        let any = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
                        rustix::net::bind(&socket, &any).map_err(errno)?;
                        return Ok(socket);
                    }
                    self.arm(writes);
                    inet_socket()
                })??;
                let ran = self.ran();
                drop(made);
                return Ok(ran);
            }
            Event::Egress | Event::Ingress | Event::Udp4Sendmsg | Event::Setsockopt => {}
        }
        self.sockets(cgroup)?;
        self.arm(writes);
        let (near, far) = self.sockets(cgroup)?;
        event_on(event, near, far)?;
        Ok(self.ran())
    }

    pub(super) fn finish(&mut self) {
        self.progs.clear();
        self.clock = None;
        self.cgroups.clear();
        self.far = None;
        let Some(base) = self.base.take() else {
            return;
        };
        // A cgroup can stay busy for a moment.
        for _ in 0..100 {
            remove_below(&base);
            if !base.exists() {
                return;
            }
            sleep(Duration::from_millis(10));
        }
    }
}

/// An event on sockets that are there already.
fn event_on(event: Event, near: &UdpSocket, far: &UdpSocket) -> Result<()> {
    let send = |from: &UdpSocket, to: &UdpSocket| -> std::io::Result<()> {
        let addr: SocketAddr = to.local_addr()?;
        from.send_to(b"x", addr)?;
        to.recv(&mut [0; 16])?;
        Ok(())
    };
    match event {
        Event::Egress | Event::Udp4Sendmsg => send(near, far),
        Event::Ingress => send(far, near),
        Event::Setsockopt => {
            return sockopt::set_socket_broadcast(near.as_fd(), true).map_err(errno);
        }
        Event::SockCreate | Event::Bind4 => Ok(()),
    }
    .map_err(|error| errno_of(&error))
}

/// Removes a directory of cgroups with those below it.
fn remove_below(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
        }
    }
    // What is still busy is tried again.
    let _removed = fs::remove_dir(dir);
}

/// Counts its runs, notes what it finds in each storage, and writes what it is told to.
fn storage_program(
    request: &ProgRequest<'_>,
    scratch: &Scratch,
    clock: Fd,
    parts: &[(String, usize, usize)],
) -> Asm {
    let mut asm = Asm::new();
    for map in &request.maps {
        asm.map(Reg::R1, *map);
    }
    asm.map_value(Reg::R9, scratch.fd(), 0)
        .map_value(Reg::R8, clock, 0);
    asm.load(Width::Double, Reg::R1, Reg::R8, 0).add(Reg::R1, 1);
    asm.store(Width::Double, Reg::R8, 0, Reg::R1);
    asm.store(Width::Double, Reg::R9, off(ORDER), Reg::R1);
    asm.load(Width::Double, Reg::R1, Reg::R9, off(TIMES))
        .add(Reg::R1, 1);
    asm.store(Width::Double, Reg::R9, off(TIMES), Reg::R1);
    let flags = i32::try_from(request.helper_flags).unwrap_or(i32::MAX);
    for ((_, map, range), (_, at, len)) in request.storages.iter().zip(parts) {
        let (new, old) = (at + 8, at + 8 + len.next_multiple_of(8));
        let every = |_| false;
        asm.map(Reg::R1, *map)
            .mov(Reg::R2, flags)
            .call(Helper::GET_LOCAL_STORAGE.0);
        asm.mov_reg(Reg::R7, Reg::R0);
        asm.copy((Reg::R9, old), (Reg::R7, range.start), *len, false, &every);
        let keep = asm.label();
        asm.load(Width::Double, Reg::R1, Reg::R9, off(*at))
            .jump(When::Equal, Reg::R1, 0, keep);
        asm.copy((Reg::R7, range.start), (Reg::R9, new), *len, false, &every)
            .here(keep);
    }
    asm.mov(Reg::R0, request.returns).exit();
    asm
}
