//! What a test does with a kernel besides bpf(2): rights, fds of other kinds, programs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::cgroup::Cgroups;
use super::files::{FdTable, Held};
use super::pin::Bpffs;
use super::{Builder, Inner, Kernel, NextIds};
use crate::abi::{AttachType, Caps, Fd, ProgType, Result};
use crate::env::Env;
use crate::map::Map;
use crate::map::object::{Object, OtherKind};

/// A program that is declared, not loaded: what the kernel would know of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProgDef<'a> {
    /// Name, for people.
    pub name: &'a str,
    /// Type.
    pub prog_type: ProgType,
    /// What it will be attached to, where its type asks for that.
    pub expected_attach_type: AttachType,
    /// Maps it uses.
    pub maps: &'a [Fd],
    /// Maps it calls `bpf_get_local_storage` for.
    pub storages: &'a [Fd],
}

impl Default for ProgDef<'_> {
    /// A program without a name, of type `UNSPEC`, that uses no maps.
    fn default() -> Self {
        Self {
            name: "",
            prog_type: ProgType(0),
            expected_attach_type: AttachType(0),
            maps: &[],
            storages: &[],
        }
    }
}

impl Kernel {
    /// A kernel of the newest release, with 2 CPUs and all rights.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// A kernel to be described.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(super) fn with(env: Arc<Env>, caps: Caps, unprivileged_bpf_disabled: u32) -> Self {
        let next_ids = NextIds::new();
        let inner = Inner {
            env,
            files: FdTable::default(),
            caps: AtomicU64::new(caps.bits()),
            unprivileged_bpf_disabled: AtomicU32::new(unprivileged_bpf_disabled),
            maps: RwLock::new(BTreeMap::new()),
            next_ids,
            bpffs: Mutex::new(Bpffs::default()),
            cgroups: Arc::new(Mutex::new(Cgroups::new())),
            sockets: Mutex::new(BTreeMap::new()),
            space: Arc::default(),
            freezing: Mutex::new(()),
        };
        let kernel = Self {
            inner: Arc::new(inner),
            cpu: 0,
        };
        for _standard in 0..3 {
            kernel.open(OtherKind::File);
        }
        kernel
    }

    /// The same kernel, called on that CPU.
    ///
    /// # Panics
    ///
    /// If there is no such CPU.
    pub fn on_cpu(&self, cpu: u32) -> Self {
        let nr_cpus = self.inner.env.nr_cpus;
        assert!(cpu < nr_cpus, "CPU {cpu} of {nr_cpus}");
        Self {
            inner: Arc::clone(&self.inner),
            cpu,
        }
    }

    /// The CPU that this handle calls on.
    pub fn cpu(&self) -> u32 {
        self.cpu
    }

    /// What its maps stand in.
    pub fn env(&self) -> &Arc<Env> {
        &self.inner.env
    }

    /// The map behind an fd.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open, `EINVAL` if it is something else.
    pub fn map(&self, fd: Fd) -> Result<Arc<Map>> {
        self.inner.files.get(fd)?.map().map(Arc::clone)
    }

    /// The object behind an fd.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open.
    pub fn object(&self, fd: Fd) -> Result<Object> {
        Ok(self.inner.files.get(fd)?.held.object())
    }

    /// The caller's capabilities from here on, for all handles of this kernel.
    pub fn set_capabilities(&self, caps: Caps) {
        self.inner.caps.store(caps.bits(), Ordering::Relaxed);
    }

    /// The caller's capabilities.
    pub fn capabilities(&self) -> Caps {
        self.inner.caps()
    }

    /// The sysctl `kernel.unprivileged_bpf_disabled`.
    pub fn set_unprivileged_bpf_disabled(&self, value: u32) {
        self.inner
            .unprivileged_bpf_disabled
            .store(value, Ordering::Relaxed);
    }

    /// dup(2): another fd of the same open file.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open; `EMFILE`.
    pub fn dup(&self, fd: Fd) -> Result<Fd> {
        self.inner.files.install(self.inner.files.any(fd)?)
    }

    /// An fd of a new object that is no BPF object.
    ///
    /// # Panics
    ///
    /// If no fd is free.
    pub fn open(&self, kind: OtherKind) -> Fd {
        let object = Object::Other(self.inner.other(kind));
        let fd = self.inner.open(Held::Object(object));
        fd.expect("a million fds are enough")
    }

    /// Another open file of the same object: the same inode opened again, another pidfd of the same process.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open; `EMFILE`.
    pub fn open_again(&self, fd: Fd) -> Result<Fd> {
        let held = self.inner.files.get(fd)?.held.clone();
        self.inner.open(held)
    }

    /// An fd opened with `O_PATH`; for bpf(2) it counts as not open.
    ///
    /// # Panics
    ///
    /// If no fd is free.
    pub fn open_path(&self) -> Fd {
        let object = Object::Other(self.inner.other(OtherKind::File));
        let file = self.inner.file(Held::Object(object), false, false, true);
        let fd = self.inner.files.install(file);
        fd.expect("a million fds are enough")
    }

    /// The clock of all programs goes on by so many nanoseconds: timers that come due run, in order, each at its time and
    /// on the CPU that started it, and so do workqueues.
    ///
    /// The clock stands still otherwise; [`Env::now_ns`] shows it. A callback takes no time. What it starts without any
    /// delay runs when the clock moves on, or with the next call.
    pub fn advance(&self, ns: u64) {
        self.inner.env.advance(ns);
    }

    /// Runs what is due already: workqueues, and timers without a delay.
    pub fn run_pending(&self) {
        self.advance(0);
    }

    /// May the file read, and write?
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open.
    pub fn fd_mode(&self, fd: Fd) -> Result<(bool, bool)> {
        let file = self.inner.files.any(fd)?;
        Ok((file.read, file.write))
    }

    /// All maps that are alive, by id.
    pub(super) fn live_maps(&self) -> Vec<Arc<Map>> {
        let maps = self.inner.maps.read();
        maps.values().filter_map(std::sync::Weak::upgrade).collect()
    }

    /// The process behind a pidfd ends, or the object behind the fd goes: maps drop what they hold for it.
    ///
    /// # Panics
    ///
    /// If the fd is not open, or its object is a BPF object or a cgroup, which do not end by themselves.
    pub fn end_owner(&self, fd: Fd) {
        let object = self.object(fd);
        let Ok(Object::Other(object)) = object else {
            panic!("fd {fd} is {object:?}, which has no end of its own");
        };
        object.end();
        self.release_owner(object.id);
    }

    /// There is a network interface of that index from now on. (`lo`, 1, is there from the start.)
    pub fn add_interface(&self, ifindex: u32) {
        self.inner.env.add_interface(ifindex);
    }

    /// The network interface of that index goes, and with it the elements that lead to it.
    pub fn remove_interface(&self, ifindex: u32) {
        self.inner.env.remove_interface(ifindex);
        for map in self.live_maps() {
            map.ops.release_interface(ifindex);
        }
    }

    pub(super) fn release_owner(&self, object_id: u64) {
        for map in self.live_maps() {
            map.ops.release_owner(object_id);
        }
    }
}
