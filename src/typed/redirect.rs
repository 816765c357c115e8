//! `DevMap`, `DevMapHash` and `CpuMap`: interfaces and CPUs to redirect packets to.

use bytemuck::{Pod, Zeroable};

use super::Error;
use super::macros::{gets, iters, keys, no_flags, removes, typed_map};
use crate::abi::Fd;

/// What a map of interfaces tells of one. `struct bpf_devmap_val`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct DevMapValue {
    /// The interface.
    pub if_index: u32,
    /// The id of the program that runs on the way there, or 0.
    pub prog_id: u32,
}

/// What a map of CPUs tells of one. `struct bpf_cpumap_val`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct CpuMapValue {
    /// The length of its queue.
    pub queue_size: u32,
    /// The id of the program that runs there, or 0.
    pub prog_id: u32,
}

/// Places to redirect to, each perhaps with a program. Fds of programs go in, ids come out.
macro_rules! targets {
    ($put:ident, $key:ident: $what:ident => $value:ident, $errors:literal) => {
        /// Changes where a key leads, and the program that runs on the way. `flags`: `BPF_ANY`, or as the type takes them.
        ///
        /// # Errors
        ///
        #[doc = $errors]
        #[doc(alias = "bpf_map_update_elem")]
        pub fn $put(
            &self,
            $key: u32,
            $what: u32,
            prog: Option<Fd>,
            flags: u64,
        ) -> Result<(), Error> {
            let prog_id = prog.unwrap_or_default();
            self.map.insert(&$key, &$value { $what, prog_id }, flags)
        }

        gets!(u32 => $value);
        removes!(u32);
        iters!(u32 => $value);
    };
}

typed_map! {
    /// A map of type `BPF_MAP_TYPE_DEVMAP`: interfaces by index.
    ///
    /// ```
    /// use mapemu::Kernel;
    /// use mapemu::typed::DevMap;
    ///
    /// let kernel = Kernel::new();
    /// kernel.add_interface(7);
    /// let interfaces = DevMap::builder().max_entries(2).create(&kernel)?;
    /// interfaces.set(1, 7, None, 0)?;
    /// assert_eq!(interfaces.get(&1, 0)?.if_index, 7);
    /// # Ok::<(), mapemu::typed::Error>(())
    /// ```
    DevMap: DEVMAP, no_flags!(), { u32 => DevMapValue }
    targets!(
        set, index: if_index => DevMapValue,
        "`EPERM` if it is frozen; `E2BIG` past the end; `EEXIST` for `BPF_NOEXIST`; `EINVAL` for other flags, without such an interface, or for a program that is none for this."
    );
}

typed_map! {
    /// A map of type `BPF_MAP_TYPE_DEVMAP_HASH`: interfaces by key.
    ///
    /// ```
    /// use mapemu::Kernel;
    /// use mapemu::typed::DevMapHash;
    ///
    /// let kernel = Kernel::new();
    /// kernel.add_interface(7);
    /// let interfaces = DevMapHash::builder().max_entries(2).create(&kernel)?;
    /// interfaces.insert(1000, 7, None, 0)?;
    /// assert_eq!(interfaces.get(&1000, 0)?.if_index, 7);
    /// # Ok::<(), mapemu::typed::Error>(())
    /// ```
    DevMapHash: DEVMAP_HASH, no_flags!(), { u32 => DevMapValue }
    targets!(
        insert, key: if_index => DevMapValue,
        "`EPERM` if it is frozen; `EINVAL` for other flags, without such an interface, or for a program that is none for this; `EEXIST` for `BPF_NOEXIST`; `E2BIG` if it is full."
    );
}

typed_map! {
    /// A map of type `BPF_MAP_TYPE_CPUMAP`: CPUs by index, each with a queue.
    ///
    /// ```
    /// use mapemu::Kernel;
    /// use mapemu::typed::CpuMap;
    ///
    /// let kernel = Kernel::builder().cpus(2).build();
    /// let cpus = CpuMap::builder().max_entries(2).create(&kernel)?;
    /// cpus.set(1, 2048, None, 0)?;
    /// assert_eq!(cpus.get(&1, 0)?.queue_size, 2048);
    /// # Ok::<(), mapemu::typed::Error>(())
    /// ```
    CpuMap: CPUMAP, no_flags!(), { u32 => CpuMapValue }
    targets!(
        set, cpu: queue_size => CpuMapValue,
        "`EPERM` if it is frozen; `EINVAL` for other flags; `E2BIG` past the end; `EEXIST` for `BPF_NOEXIST`; `EOVERFLOW` for too long a queue; `ENODEV` without such a CPU; `ENOMEM` for a program that is none for this."
    );
}
