//! Programs on the running kernel: loaded, run by `BPF_PROG_TEST_RUN`, with memory that they share with user space.
#![expect(unsafe_code, reason = "bpf(2) with addresses of this process")]

use std::fmt;
use std::os::fd::OwnedFd;

use super::{Asm, Host, cpu, os};
use crate::abi::{
    AttachType, Attr, Bpf, Cmd, Errno, Fd, MapFlags, MapRequest, MapType, Mapping, ProgType, Result,
};

/// Bytes of the packet that programs run on.
const PACKET: usize = 64;

/// An attr of words at offsets, for a call with addresses of this process.
struct Words([u64; 21]);

impl Words {
    fn put32(&mut self, at: usize, word: u32) -> &mut Self {
        let place = &mut self.0[at / 8];
        let mut bytes = place.to_ne_bytes();
        bytes[at % 8..at % 8 + 4].copy_from_slice(&word.to_ne_bytes());
        *place = u64::from_ne_bytes(bytes);
        self
    }

    fn put64(&mut self, at: usize, word: u64) -> &mut Self {
        self.0[at / 8] = word;
        self
    }

    /// Makes the call.
    ///
    /// # Safety
    ///
    /// As [`os::bpf`].
    unsafe fn call(&mut self, cmd: Cmd, size: u32) -> Result<u32> {
        assert!(
            size as usize <= size_of_val(&self.0),
            "the attr has so many bytes"
        );
        let addr = std::ptr::from_mut(&mut self.0).addr() as u64;
        // SAFETY: the attr is ours, and the caller's promise for the addresses in it.
        unsafe { os::bpf(cmd, addr, size) }
    }
}

fn addr_of(bytes: &[u8]) -> u64 {
    bytes.as_ptr().addr() as u64
}

fn len_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a few KiB")
}

/// A new fd with a high number: what a caller names by number is not one of these.
fn high(host: &Host, fd: u32) -> Result<OwnedFd> {
    let fd = os::owned(i64::from(fd))?;
    os::dup(os::number(&fd), host.least_own_fd())
}

/// BTF of a program with one callback: `int prog(void)` and `static int cb(void)`.
fn callback_btf(host: &Host) -> Result<OwnedFd> {
    const NAMES: &[u8] = b"\0int\0prog\0cb\0";
    const KIND_INT: u32 = 1 << 24;
    const KIND_FUNC: u32 = 12 << 24;
    const KIND_FUNC_PROTO: u32 = 13 << 24;
    const SIGNED: u32 = 1 << 24;
    let types = [
        [1, KIND_INT, 4, SIGNED | 32].as_slice(),
        &[0, KIND_FUNC_PROTO, 1],
        &[5, KIND_FUNC | 1, 2],
        &[10, KIND_FUNC, 2],
    ]
    .concat();
    let types_len = u32::try_from(types.len() * 4).expect("a few types");
    let mut blob = vec![0x9f, 0xeb, 1, 0];
    for word in [24, 0, types_len, types_len, len_of(NAMES)]
        .into_iter()
        .chain(types)
    {
        blob.extend(word.to_le_bytes());
    }
    blob.extend(NAMES);
    let mut attr = Words([0; 21]);
    attr.put64(0, addr_of(&blob)).put32(16, len_of(&blob));
    // SAFETY: the only address is that of the blob, which is only read.
    high(host, unsafe { attr.call(Cmd::BTF_LOAD, 28)? })
}

/// Loads a program, which may call what is for GPL programs only.
///
/// # Errors
///
/// What `BPF_PROG_LOAD` answers: `EINVAL` or `EACCES` if the verifier refuses it.
pub fn load(host: &Host, prog_type: ProgType, expected: AttachType, asm: &Asm) -> Result<OwnedFd> {
    cpu::run_on(host.cpu())?;
    let (code, licence) = (asm.bytes(), b"GPL\0");
    let mut attr = Words([0; 21]);
    attr.put32(0, prog_type.0)
        .put32(4, len_of(&code) / 8)
        .put64(8, addr_of(&code))
        .put64(16, addr_of(licence))
        .put32(68, expected.0);
    let mut functions = Vec::new();
    let btf = asm
        .callback_at()
        .map(|at| callback_btf(host).map(|btf| (btf, at)))
        .transpose()?;
    if let Some((btf, at)) = &btf {
        let at = u32::try_from(*at).expect("a short program");
        for word in [0, 3, at, 4] {
            functions.extend(u32::to_ne_bytes(word));
        }
        attr.put32(72, os::number(btf))
            .put32(76, 8)
            .put64(80, addr_of(&functions))
            .put32(88, 2);
    }
    // SAFETY: the addresses are those of the code, the licence and the functions, which are only read.
    high(host, unsafe { attr.call(Cmd::PROG_LOAD, 128)? })
}

/// Runs a loaded program once, on the CPU of `host`, on a packet of zeros (raw tracepoints: without).
///
/// # Errors
///
/// What `BPF_PROG_TEST_RUN` answers.
pub fn test_run(host: &Host, prog: Fd, with_packet: bool) -> Result<()> {
    run(host, prog, with_packet, 0).map(|_| ())
}

/// Runs a loaded program `repeat` times, as [`test_run`] does on a packet; how long one of them took, in ns.
///
/// # Errors
///
/// What `BPF_PROG_TEST_RUN` answers.
pub fn time_run(host: &Host, prog: Fd, repeat: u32) -> Result<u32> {
    Ok(Attr(&run(host, prog, true, repeat)?.bytes()).u32(36))
}

/// The attr as the kernel leaves it.
fn run(host: &Host, prog: Fd, with_packet: bool, repeat: u32) -> Result<Words> {
    cpu::run_on(host.cpu())?;
    let packet = [0; PACKET];
    let mut attr = Words([0; 21]);
    attr.put32(0, prog).put32(32, repeat);
    if with_packet {
        attr.put32(8, len_of(&packet)).put64(16, addr_of(&packet));
    }
    // SAFETY: the only address is that of the packet, which is only read.
    unsafe { attr.call(Cmd::PROG_TEST_RUN, 80)? };
    Ok(attr)
}

/// Number of a program, map or the like, unique in the kernel, from the line of its fdinfo.
///
/// # Errors
///
/// `EINVAL` if the fd has no such line, `EBADF` if it is not open.
pub fn id_of(fd: Fd, line: &str) -> Result<u32> {
    let path = format!("/proc/thread-self/fdinfo/{fd}");
    let text = std::fs::read_to_string(path).map_err(|_| Errno::EBADF)?;
    let id = text
        .lines()
        .find_map(|own| own.strip_prefix(line)?.strip_prefix(":\t")?.parse().ok());
    id.ok_or(Errno::EINVAL)
}

/// An array of one element that programs and this process share.
pub struct Scratch {
    fd: OwnedFd,
    memory: Box<dyn Mapping>,
    len: usize,
}

impl Scratch {
    /// Memory of `len` bytes, zeros.
    ///
    /// # Errors
    ///
    /// What `BPF_MAP_CREATE` and mmap(2) answer.
    pub fn new(host: &Host, len: usize) -> Result<Self> {
        cpu::run_on(host.cpu())?;
        let len = len.max(8).next_multiple_of(8);
        let mut attr = Words([0; 21]);
        attr.put32(0, MapType::ARRAY.0)
            .put32(4, 4)
            .put32(8, u32::try_from(len).map_err(|_| Errno::E2BIG)?)
            .put32(12, 1)
            .put32(16, MapFlags::MMAPABLE.bits());
        super::limit::refuse_huge(&attr.bytes(), host.nr_cpus(), super::LARGEST_MAP);
        // SAFETY: the attr has no address.
        let fd = high(host, unsafe { attr.call(Cmd::MAP_CREATE, 72)? })?;
        let request = MapRequest::shared(0, len, true);
        let memory = host.mmap(os::number(&fd), request)?;
        Ok(Self { fd, memory, len })
    }

    /// The array's fd, for [`Asm::map_value`].
    pub fn fd(&self) -> Fd {
        os::number(&self.fd)
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: there are 8 bytes at least.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Writes bytes.
    ///
    /// # Panics
    ///
    /// If they do not fit.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        self.memory.write(at, bytes).expect("inside of the memory");
    }

    /// Reads bytes.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    pub fn read(&self, at: usize, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        self.memory
            .read(at, &mut out)
            .expect("inside of the memory");
        out
    }

    /// The number there.
    pub fn number(&self, at: usize) -> i64 {
        Attr(&self.read(at, 8)).u64(0).cast_signed()
    }
}

impl Words {
    fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scratch of {} bytes", self.len)
    }
}
