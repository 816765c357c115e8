//! How a kernel is made.

use std::sync::Arc;

use super::Kernel;
use crate::abi::Caps;
use crate::env::{Env, LINUX_6_18_44, Release, UnknownRelease, Unsupported};

/// What a [`Kernel`] is made with. It judges nothing but the release's name.
#[derive(Clone, Debug)]
pub struct Builder {
    cpus: u32,
    release: &'static Release,
    caps: Caps,
    seed: u64,
    memory_limit: u64,
    unsupported: Unsupported,
    unprivileged_bpf_disabled: u32,
    doubled_rings: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            cpus: 2,
            release: LINUX_6_18_44,
            caps: Caps::all(),
            seed: 0,
            memory_limit: 1 << 40,
            unsupported: Unsupported::default(),
            unprivileged_bpf_disabled: 2,
            doubled_rings: false,
        }
    }
}

impl Builder {
    /// Number of possible CPUs, numbered from 0. Default: 2.
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// The release whose behaviour is given, as `6.1.192`, or the nearest that is proven: see [`Release::take`], and
    /// [`Kernel::release`] for what was taken. Default: 6.18.44.
    ///
    /// # Errors
    ///
    /// There is no such release, or it is older than all.
    pub fn release(mut self, name: &str) -> Result<Self, UnknownRelease> {
        self.release = Release::take(name)?.release;
        Ok(self)
    }

    /// Capabilities of the caller. Default: all.
    pub fn capabilities(mut self, caps: Caps) -> Self {
        self.caps = caps;
        self
    }

    /// Where random numbers begin: the seeds of hashes. Default: 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Bytes that all maps together may take; past that, `ENOMEM`. Default: 2^40.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = bytes;
        self
    }

    /// What happens where a request cannot be emulated. Default: a panic that names it.
    pub fn unsupported(mut self, unsupported: Unsupported) -> Self {
        self.unsupported = unsupported;
        self
    }

    /// The sysctl `kernel.unprivileged_bpf_disabled`. Default: 2.
    pub fn unprivileged_bpf_disabled(mut self, value: u32) -> Self {
        self.unprivileged_bpf_disabled = value;
        self
    }

    /// The memory of ring buffers holds their data twice, so that one mapping of its file is laid out as the kernel's: for a
    /// front end that cannot map the same pages at two places. User space has to read and write records in one piece from
    /// their first byte's first place on, as all libraries do. Default: no.
    pub fn doubled_rings(mut self, doubled: bool) -> Self {
        self.doubled_rings = doubled;
        self
    }

    /// The kernel: no maps, an empty bpffs, one cgroup.
    ///
    /// # Panics
    ///
    /// Without a CPU.
    pub fn build(self) -> Kernel {
        assert!(self.cpus > 0, "a kernel has at least one CPU");
        let mut env = Env::new(
            self.cpus,
            self.release,
            self.seed,
            self.memory_limit,
            self.unsupported,
        );
        env.doubled_rings = self.doubled_rings;
        Kernel::with(Arc::new(env), self.caps, self.unprivileged_bpf_disabled)
    }
}
