//! One map twice: emulated, and in the running kernel by the system call itself.
#![allow(
    unsafe_code,
    reason = "a bench: bpf(2) by hand, as nothing of it is to be measured but the call"
)]

use mapemu::Kernel;
use mapemu::abi::{Bpf, Cmd, MapFlags, MapHandle, MapType, UpdateFlags};
use mapemu::calls::{self, CreateOpts};
use mapemu::host::Host;

/// What both maps are made with.
#[derive(Clone, Copy)]
pub struct Spec {
    pub map_type: MapType,
    pub key_size: usize,
    pub value_size: usize,
    pub max_entries: usize,
}

impl Spec {
    /// Keys of `K` bytes, values of `V`.
    pub const fn of<const K: usize, const V: usize>(map_type: MapType, max_entries: usize) -> Self {
        Self {
            map_type,
            key_size: K,
            value_size: V,
            max_entries,
        }
    }
}

/// See the module.
pub struct Pair {
    pub own: Box<dyn MapHandle>,
    pub kernel: Kernel,
    pub fd: u32,
    /// None where this machine lets nobody in.
    pub running: Option<Running>,
}

impl Pair {
    pub fn new(host: Option<&Host>, spec: Spec) -> Self {
        let kernel = Kernel::new();
        let fd = create(&kernel, spec);
        Self {
            own: kernel.map_handle(fd).expect("a handle"),
            kernel,
            fd,
            running: host.map(|host| Running {
                fd: create(host, spec),
            }),
        }
    }

    /// The same call on both.
    pub fn update(&self, key: &[u8], value: &[u8]) {
        self.own
            .update_elem(key, value, UpdateFlags::ANY)
            .expect("room");
        if let Some(running) = &self.running {
            running.update(key, value);
        }
    }

    /// Puts all keys in, in another order than they are looked up in: elements lie in the order of insertion.
    pub fn fill<const K: usize>(&self, keys: &[[u8; K]], value: &[u8]) {
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        for key in &keys {
            self.update(key, value);
        }
    }
}

fn create(bpf: &dyn Bpf, spec: Spec) -> u32 {
    let opts = CreateOpts {
        map_flags: if spec.map_type == MapType::LPM_TRIE {
            MapFlags::NO_PREALLOC.bits()
        } else {
            0
        },
        ..CreateOpts::default()
    };
    let size = |size| u32::try_from(size).expect("a few bytes");
    calls::bpf_map_create(
        bpf,
        spec.map_type,
        "bench",
        size(spec.key_size),
        size(spec.value_size),
        size(spec.max_entries),
        &opts,
    )
    .expect("a map")
}

/// The running kernel's map.
#[derive(Clone, Copy)]
pub struct Running {
    pub fd: u32,
}

#[repr(C)]
struct ElemAttr {
    fd: u64,
    key: u64,
    value: u64,
    flags: u64,
}

impl Running {
    #[inline]
    fn call(self, cmd: Cmd, key: &[u8], value: *const u8) -> bool {
        let key = if key.is_empty() {
            0
        } else {
            key.as_ptr().addr() as u64
        };
        let attr = ElemAttr {
            fd: self.fd.into(),
            key,
            value: value.addr() as u64,
            flags: 0,
        };
        // SAFETY: attr holds addresses of buffers as long as the map's key and value, which outlive the call.
        unsafe { libc::syscall(libc::SYS_bpf, cmd.0, &raw const attr, 32) >= 0 }
    }

    #[inline]
    pub fn lookup(self, key: &[u8], value: &mut [u8]) -> bool {
        self.call(Cmd::MAP_LOOKUP_ELEM, key, value.as_mut_ptr())
    }

    #[inline]
    pub fn take(self, key: &[u8], value: &mut [u8]) -> bool {
        self.call(Cmd::MAP_LOOKUP_AND_DELETE_ELEM, key, value.as_mut_ptr())
    }

    #[inline]
    pub fn update(self, key: &[u8], value: &[u8]) {
        assert!(
            self.call(Cmd::MAP_UPDATE_ELEM, key, value.as_ptr()),
            "there is room"
        );
    }

    #[inline]
    pub fn delete(self, key: &[u8]) -> bool {
        self.call(Cmd::MAP_DELETE_ELEM, key, std::ptr::null())
    }
}
