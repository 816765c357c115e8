//! [`Host`]: bpf(2), mmap(2) and close(2) of the running kernel.
#![expect(unsafe_code, reason = "bpf(2)")]

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::arena::{Call, with_buffers};
use super::limit::{LARGEST_MAP, MEMORY_TO_LOSE, refuse_huge};
use super::pointers::{INFO_AT, gives_fd, info_pointers, pointer_fields};
use super::{cpu, mapping, os};
use crate::abi::{Bpf, Cmd, Errno, Fd, MapRequest, Mapping, Memory, PerfEvent, PollEvents, Result};

/// Bytes of an attr that are looked at for addresses: the kernel takes no more.
const ATTR_ROOM: usize = 4096;

/// Bytes of an info that are looked at for addresses: no struct of the kernel's has more.
const INFO_ROOM: usize = 512;

/// The running kernel.
///
/// A call is made on the CPU of the handle (0 unless [`Bpf::on_cpu`] gave another): the calling thread is put there, and
/// stays there until it calls on another one.
///
/// fds that calls give are this kernel's until they are closed; they are closed with the last clone. Other fds of the
/// process can be named in attrs, and are never closed here.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
    cpu: u32,
    /// Bytes of the largest map that is asked for.
    largest_map: u64,
}

struct Inner {
    nr_cpus: u32,
    /// fds that nobody outside sees have this number at least.
    least_own_fd: i32,
    fds: Mutex<HashMap<Fd, OwnedFd>>,
}

/// The running kernel cannot be used, and why.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the running kernel cannot be used: {0}")]
pub struct Unavailable(pub String);

impl Host {
    /// The running kernel, if this process may make maps and load programs.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] says what it may not.
    pub fn new() -> std::result::Result<Self, Unavailable> {
        let nr_cpus = cpu::possible_cpus()
            .map_err(|errno| Unavailable(format!("its CPUs are not told ({errno:?})")))?;
        let inner = Inner {
            nr_cpus,
            least_own_fd: i32::try_from(os::most_files() / 2).unwrap_or(i32::MAX / 2),
            fds: Mutex::new(HashMap::new()),
        };
        let host = Self {
            inner: Arc::new(inner),
            cpu: 0,
            largest_map: LARGEST_MAP,
        };
        cpu::run_on(0)
            .map_err(|errno| Unavailable(format!("CPU 0 may not be used ({errno:?})")))?;
        let denied = |what: &str, errno: Errno| {
            Unavailable(match errno {
                Errno::ENOSYS => "it has no bpf(2)".to_owned(),
                Errno::EPERM => {
                    format!("{what} is not permitted: it takes root, or CAP_BPF and CAP_NET_ADMIN")
                }
                errno => format!("{what} answers {errno:?}"),
            })
        };
        super::probe::smallest(&host).map_err(|(what, errno)| denied(what, errno))?;
        Ok(host)
    }

    /// Takes over an fd of another kind, so that it can be closed here.
    pub fn adopt(&self, fd: OwnedFd) -> Fd {
        let number = os::number(&fd);
        self.inner.fds.lock().insert(number, fd);
        number
    }

    pub(super) fn least_own_fd(&self) -> i32 {
        self.inner.least_own_fd
    }

    /// Uses one of this kernel's fds.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not this kernel's.
    pub fn with_fd<T>(&self, fd: Fd, uses: impl FnOnce(BorrowedFd<'_>) -> T) -> Result<T> {
        let fds = self.inner.fds.lock();
        Ok(uses(fds.get(&fd).ok_or(Errno::EBADF)?.as_fd()))
    }

    /// The CPU of this handle.
    pub fn cpu(&self) -> u32 {
        self.cpu
    }

    /// The same kernel, called on that CPU.
    pub fn with_cpu(&self, cpu: u32) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            cpu,
            largest_map: self.largest_map,
        }
    }

    /// The same kernel, asked for maps of any size: the machine may not outlive that.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] on a machine with more than 1 GiB of memory: those are not there to be lost.
    pub fn of_any_size(&self) -> std::result::Result<Self, Unavailable> {
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = memory.lines().find_map(|line| {
            let total = line.strip_prefix("MemTotal:")?.strip_suffix("kB")?;
            total.trim().parse::<u64>().ok()
        });
        if kib.is_none_or(|kib| kib << 10 > MEMORY_TO_LOSE) {
            let why = "maps of any size are for virtual machines with 1 GiB of memory at most";
            return Err(Unavailable(why.to_owned()));
        }
        Ok(Self {
            largest_map: u64::MAX,
            ..self.clone()
        })
    }

    /// Puts the attr's addresses right, makes the call.
    fn call(&self, cmd: Cmd, attr: u64, size: u32, call: &mut Call<'_>) -> Result<u32> {
        // No fd becomes another file while addresses are put right by what it is.
        let fds = (cmd == Cmd::OBJ_GET_INFO_BY_FD).then(|| self.inner.fds.lock());
        if let Some((buffer, at)) = call.find(attr) {
            let given = call.rest(buffer, at).min(size as usize).min(ATTR_ROOM);
            if cmd == Cmd::MAP_CREATE {
                let mut bytes = [0; ATTR_ROOM];
                call.bytes(buffer, at, &mut bytes[..given]);
                refuse_huge(&bytes[..given], self.inner.nr_cpus, self.largest_map);
            }
            if let Some(info) = make_addresses_real(cmd, buffer, at, given, call) {
                let mut head = [0; INFO_AT];
                call.bytes(buffer, at, &mut head);
                let [fd, len] = [0, 4]
                    .map(|at| u32::from_ne_bytes(head[at..at + 4].try_into().expect("4 bytes")));
                let own = fds.as_ref().and_then(|fds| fds.get(&fd));
                make_info_real(own, info, len as usize, call);
            }
        }
        let attr = call.real(attr);
        // SAFETY: each word of the attr that this command takes as an address was replaced above, by the address of a
        // buffer of this call that ends at a page which is not mapped, or by one that is not mapped; those below 4096 are
        // never mapped. If the attr is in no buffer, its own address is such a one.
        unsafe { os::bpf(cmd, attr, size) }
    }
}

/// Replaces the addresses in the attr; where the info is that one of them may be of.
fn make_addresses_real(
    cmd: Cmd,
    buffer: usize,
    at: usize,
    given: usize,
    call: &mut Call<'_>,
) -> Option<(usize, usize)> {
    let mut info = None;
    let mut real = |field: usize| {
        if field < given {
            let addr = call.make_real(buffer, at + field, given - field);
            if cmd == Cmd::OBJ_GET_INFO_BY_FD && field == INFO_AT {
                info = Some(addr);
            }
        }
    };
    match pointer_fields(cmd) {
        Some(fields) => fields.iter().copied().for_each(&mut real),
        None => (0..given).step_by(8).for_each(&mut real),
    }
    info.and_then(|addr| call.find(addr))
}

/// Replaces the addresses in the info that an attr points to; `own` is the file that it asks about, if that is this kernel's.
fn make_info_real(own: Option<&OwnedFd>, info: (usize, usize), len: usize, call: &mut Call<'_>) {
    let (info, info_at) = info;
    let given = call.rest(info, info_at).min(INFO_ROOM).min(len);
    let file = own.and_then(|fd| fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok());
    let mut real = |field: usize| {
        if field < given {
            call.make_real(info, info_at + field, given - field);
        }
    };
    match file.and_then(|file| info_pointers(file.to_str()?)) {
        Some(fields) => fields.iter().copied().for_each(&mut real),
        None => (0..given).step_by(8).for_each(&mut real),
    }
}

impl Bpf for Host {
    /// # Panics
    ///
    /// If the kernel is asked for a map of more than [`LARGEST_MAP`](super::LARGEST_MAP) bytes.
    fn bpf(&self, cmd: Cmd, attr: u64, size: u32, mem: &mut Memory<'_>) -> Result<u32> {
        cpu::run_on(self.cpu)?;
        let answer = with_buffers(mem, |call| self.call(cmd, attr, size, call))?;
        if gives_fd(cmd) {
            // SAFETY: the kernel gave the number just now: nobody else owns it.
            self.adopt(unsafe { OwnedFd::from_raw_fd(os::raw(answer)) });
        }
        Ok(answer)
    }

    fn mmap(&self, fd: Fd, request: MapRequest) -> Result<Box<dyn Mapping>> {
        cpu::run_on(self.cpu)?;
        Ok(Box::new(mapping::Mapped::new(fd, request)?))
    }

    fn poll(&self, fd: Fd, timeout: Option<Duration>) -> Result<PollEvents> {
        cpu::run_on(self.cpu)?;
        os::poll(fd, timeout)
    }

    fn close(&self, fd: Fd) -> Result<()> {
        cpu::run_on(self.cpu)?;
        let closed = self.inner.fds.lock().remove(&fd);
        drop(closed.ok_or(Errno::EBADF)?);
        Ok(())
    }

    fn perf_event_open(&self, event: PerfEvent) -> Result<Fd> {
        Ok(self.adopt(os::perf_event_open(event)?))
    }

    fn nr_cpus(&self) -> u32 {
        self.inner.nr_cpus
    }

    fn on_cpu(&self, cpu: u32) -> Box<dyn Bpf> {
        Box::new(self.with_cpu(cpu))
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Host on CPU {}", self.cpu)
    }
}
