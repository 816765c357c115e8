//! The running kernel's map, by the system call itself: nothing is measured but the call.
#![expect(
    unsafe_code,
    reason = "bpf(2) by hand: a checked copy of each buffer would be measured too"
)]

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use super::column::{BATCH, Column, Spec};
use crate::abi::{Cmd, Fd, MapFlags, MapType};

/// Bytes of the largest map that the running kernel is asked for, unless `MAPEMU_BENCH_LARGE=1` lifts the limit.
const LIMIT: usize = 32 << 20;

/// See the module.
#[derive(Clone, Debug)]
pub struct Running {
    fd: Arc<OwnedFd>,
    user_value_size: usize,
}

#[repr(C)]
struct ElemAttr {
    fd: u64,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// The address of a key, or null for a map without keys.
#[inline]
fn address(key: &[u8]) -> u64 {
    if key.is_empty() {
        0
    } else {
        key.as_ptr().addr() as u64
    }
}

impl Running {
    /// Its fd, which is open as long as this lives.
    pub fn fd(&self) -> Fd {
        self.fd.as_raw_fd().cast_unsigned()
    }

    /// The same file behind another fd.
    pub(super) fn dup(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// Bytes that the kernel charges for it.
    ///
    /// # Errors
    ///
    /// Those of reading fdinfo.
    pub fn memlock(&self) -> io::Result<u64> {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.fd()))?;
        let line = info.lines().find_map(|line| line.strip_prefix("memlock:"));
        line.and_then(|bytes| bytes.trim().parse().ok())
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    #[inline]
    fn elem(&self, cmd: Cmd, key: u64, value: u64) -> bool {
        let attr = ElemAttr {
            fd: self.fd().into(),
            key,
            value,
            flags: 0,
        };
        // SAFETY: the attr is 32 bytes, and holds addresses of buffers, as long as the map's key and value, or null: the methods
        // of `Column` check the lengths.
        unsafe { libc::syscall(libc::SYS_bpf, cmd.0, &raw const attr, 32) >= 0 }
    }

    fn checked(&self, value: &[u8]) -> u64 {
        assert_eq!(value.len(), self.user_value_size, "bytes of a value");
        value.as_ptr().addr() as u64
    }

    fn checked_mut(&self, value: &mut [u8]) -> u64 {
        assert_eq!(value.len(), self.user_value_size, "bytes of a value");
        value.as_mut_ptr().addr() as u64
    }
}

impl<const K: usize> Column<K> for Running {
    const NAME: &'static str = "kernel";

    fn new(spec: &Spec) -> Option<Self> {
        assert_eq!(spec.key_size, K, "bytes of a key");
        let large = std::env::var_os("MAPEMU_BENCH_LARGE").is_some_and(|value| value == "1");
        let nr_cpus = crate::host::possible_cpus().ok()?;
        if spec.kernel_bytes() > LIMIT && !large || spec.is_percpu() && spec.nr_cpus != nr_cpus {
            return None;
        }
        let flags = if spec.map_type == MapType::LPM_TRIE {
            MapFlags::NO_PREALLOC
        } else {
            MapFlags::empty()
        };
        let size = |size| u32::try_from(size).ok();
        let mut attr = [0_u32; 18];
        attr[0] = spec.map_type.0;
        attr[1] = size(spec.key_size)?;
        attr[2] = size(spec.value_size)?;
        attr[3] = size(spec.max_entries)?;
        attr[4] = flags.bits();
        // SAFETY: the attr is 72 bytes, and holds no address.
        let fd = unsafe { libc::syscall(libc::SYS_bpf, Cmd::MAP_CREATE.0, attr.as_ptr(), 72) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
        // SAFETY: the kernel just made this fd for us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Some(Self {
            fd: Arc::new(fd),
            user_value_size: spec.user_value_size(),
        })
    }

    fn on_cpu(&self, _cpu: u32) -> Self {
        self.clone()
    }

    #[inline]
    fn lookup(&self, key: &[u8; K], value: &mut [u8]) -> bool {
        self.elem(Cmd::MAP_LOOKUP_ELEM, address(key), self.checked_mut(value))
    }

    #[inline]
    fn update(&self, key: &[u8; K], value: &[u8]) {
        let value = self.checked(value);
        assert!(
            self.elem(Cmd::MAP_UPDATE_ELEM, address(key), value),
            "there is room"
        );
    }

    #[inline]
    fn delete(&self, key: &[u8; K]) -> bool {
        self.elem(Cmd::MAP_DELETE_ELEM, address(key), 0)
    }

    #[inline]
    fn take(&self, key: &[u8; K], value: &mut [u8]) -> bool {
        let cmd = Cmd::MAP_LOOKUP_AND_DELETE_ELEM;
        self.elem(cmd, address(key), self.checked_mut(value))
    }

    #[inline]
    fn next(&self, key: Option<&[u8; K]>, next: &mut [u8; K]) -> bool {
        let key = key.map_or(0, |key| address(key));
        let next = next.as_mut_ptr().addr() as u64;
        self.elem(Cmd::MAP_GET_NEXT_KEY, key, next)
    }

    fn batch(&self) -> usize {
        let mut keys = vec![0_u8; BATCH * K];
        let mut values = vec![0_u8; BATCH * self.user_value_size];
        let mut token = [0_u8; 64];
        let (mut from, mut total) = (0, 0);
        loop {
            let mut attr = BatchAttr {
                in_batch: from,
                out_batch: token.as_mut_ptr().addr() as u64,
                keys: keys.as_mut_ptr().addr() as u64,
                values: values.as_mut_ptr().addr() as u64,
                count: 256,
                fd: self.fd(),
                elem_flags: 0,
                flags: 0,
            };
            let cmd = Cmd::MAP_LOOKUP_BATCH.0;
            // SAFETY: the attr is 56 bytes, and holds addresses of buffers that hold `count` keys and values, and a token.
            let answer = unsafe { libc::syscall(libc::SYS_bpf, cmd, &raw mut attr, 56) };
            total += attr.count as usize;
            if answer < 0 {
                return total;
            }
            from = token.as_ptr().addr() as u64;
        }
    }
}
