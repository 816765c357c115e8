//! What a test does with a kernel besides bpf(2): rights, fds of other kinds, programs.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::cgroup::Cgroups;
use super::fds::{Fds, OpenFile};
use super::files::{FdTable, Held};
use super::ids::Ids;
use super::pin::Bpffs;
use super::{Builder, Inner, Kernel};
use crate::abi::{AttachType, Caps, Fd, ProgType, Result};
use crate::env::{Env, RELEASES, Release};
use crate::map::Map;
use crate::map::object::{Object, OtherKind, Prog};

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
    /// A kernel of release 6.18.44, with 2 CPUs and all rights.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// A kernel to be described.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Runs a test on a kernel of each release that is emulated, the oldest first; with 2 CPUs and all rights.
    ///
    /// ```
    /// use mapemu::Kernel;
    /// use mapemu::typed::HashMap;
    ///
    /// Kernel::each_release(|kernel| {
    ///     let map: HashMap<u32, u64> = HashMap::builder().max_entries(1).create(kernel).expect("a map");
    ///     map.insert(1, 10, 0).expect("there is room");
    ///     assert!(map.insert(2, 20, 0).is_err(), "it is full");
    /// });
    /// ```
    ///
    /// # Panics
    ///
    /// If the test panics on one of them: after all have run, with the names of those on which it did.
    #[track_caller]
    pub fn each_release(test: impl Fn(&Self)) {
        let fails = |release: &&Release| {
            let kernel = Self::builder().release(release.name);
            let kernel = kernel.expect("a name in the table").build();
            catch_unwind(AssertUnwindSafe(|| test(&kernel))).is_err()
        };
        let failed: Vec<_> = RELEASES.iter().filter(fails).map(|own| own.name).collect();
        assert!(failed.is_empty(), "it fails on Linux {}", failed.join(", "));
    }

    pub(super) fn with(env: Arc<Env>, caps: Caps, unprivileged_bpf_disabled: u32) -> Self {
        let inner = Inner {
            files: FdTable::new(env.nr_cpus),
            env,
            caps: AtomicU64::new(caps.bits()),
            unprivileged_bpf_disabled: AtomicU32::new(unprivileged_bpf_disabled),
            maps: Ids::default(),
            progs: Ids::default(),
            btfs: Ids::default(),
            links: Ids::default(),
            next_file: AtomicU64::new(1),
            next_object: AtomicU64::new(1),
            bpffs: Mutex::new(Bpffs::default()),
            cgroups: Arc::new(Mutex::new(Cgroups::new())),
            sockets: Mutex::new(BTreeMap::new()),
            space: Arc::default(),
            freezing: Mutex::new(()),
            counting: Mutex::default(),
            machine: OnceLock::new(),
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

    /// The release whose behaviour it gives.
    pub fn release(&self) -> &'static Release {
        self.inner.env.release
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
        self.own().map(fd)
    }

    /// The object behind an fd.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open.
    pub fn object(&self, fd: Fd) -> Result<Object> {
        self.own().object(fd)
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
        self.inner.files.install(self.inner.files.get(fd)?)
    }

    /// An fd of a new object that is no BPF object.
    ///
    /// # Panics
    ///
    /// If no fd is free.
    pub fn open(&self, kind: OtherKind) -> Fd {
        let fd = self.inner.files.install(self.declare(kind));
        fd.expect("a million fds are enough")
    }

    /// Another open file of the same object: the same inode opened again, another pidfd of the same process.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open; `EMFILE`.
    pub fn open_again(&self, fd: Fd) -> Result<Fd> {
        let call = self.own();
        call.open(call.file(fd)?.held.clone())
    }

    /// An fd opened with `O_PATH`; for bpf(2) it counts as not open.
    ///
    /// # Panics
    ///
    /// If no fd is free.
    pub fn open_path(&self) -> Fd {
        let fd = self.inner.files.install(self.declare_path());
        fd.expect("a million fds are enough")
    }

    /// An open file of a new object that is no BPF object, for a front end's [`Fds`].
    pub fn declare(&self, kind: OtherKind) -> OpenFile {
        let object = Held::Object(Object::Other(self.inner.other(kind)));
        OpenFile(self.inner.file(object, true, true, false))
    }

    /// An open file that was opened with `O_PATH`.
    pub fn declare_path(&self) -> OpenFile {
        let object = Held::Object(Object::Other(self.inner.other(OtherKind::File)));
        OpenFile(self.inner.file(object, false, false, true))
    }

    /// The open file behind an fd of the kernel's own table: what tests and front ends make with the methods here (a cgroup,
    /// a program that is declared) is handed over to another [`Fds`] so.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open.
    pub fn open_file(&self, fd: Fd) -> Result<OpenFile> {
        self.inner.files.get(fd)
    }

    /// The other way: a new fd of the kernel's own table.
    ///
    /// # Errors
    ///
    /// `EMFILE` if none is free.
    pub fn install(&self, file: OpenFile) -> Result<Fd> {
        self.inner.files.install(file)
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

    /// The process behind a pidfd is on its way back to user space, on this handle's CPU, and runs its task works: what was
    /// scheduled last comes first.
    ///
    /// # Panics
    ///
    /// If the fd is not open, or is no pidfd.
    pub fn run_task_works(&self, fd: Fd) {
        match self.object(fd) {
            Ok(Object::Other(object)) if object.kind == OtherKind::Pidfd => {
                object.run_works(self.cpu());
            }
            object => panic!("fd {fd} is {object:?}, which is no process"),
        }
    }

    /// May the file read, and write?
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open.
    pub fn fd_mode(&self, fd: Fd) -> Result<(bool, bool)> {
        let file = self.inner.files.get(fd)?;
        Ok((file.can_read(), file.can_write()))
    }

    /// All programs that are alive, by id.
    pub fn progs(&self) -> Vec<Arc<Prog>> {
        self.inner.progs.live()
    }

    /// All maps that are alive, by id.
    pub(super) fn live_maps(&self) -> Vec<Arc<Map>> {
        self.inner.maps.live()
    }

    /// The lines of `/proc/PID/fdinfo/FD` that the file of a BPF object adds: `name:\tvalue`.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open; those of [`OpenFile::fdinfo`].
    pub fn fdinfo(&self, fd: Fd) -> Result<String> {
        OpenFile(self.own().file(fd)?).fdinfo()
    }

    /// The process behind a pidfd ends, after its task works have run, or the object behind the fd goes: maps drop what they
    /// hold for it.
    ///
    /// # Panics
    ///
    /// If the fd is not open, or its object is a BPF object or a cgroup, which do not end by themselves.
    pub fn end_owner(&self, fd: Fd) {
        let file = self.own().file(fd).map(OpenFile);
        self.end(&file.unwrap_or_else(|errno| panic!("fd {fd}: {errno}")));
    }

    /// The object of an open file ends: the process behind a pidfd, or with its last fd a socket. Maps drop what they hold
    /// for it.
    ///
    /// # Panics
    ///
    /// If it is a BPF object or a cgroup, which do not end by themselves.
    pub fn end(&self, file: &OpenFile) {
        let object = file.object();
        let Object::Other(object) = object else {
            panic!("{object:?} has no end of its own");
        };
        object.run_works(self.cpu());
        object.end();
        self.owner_ended(object.id);
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
