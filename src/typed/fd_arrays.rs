//! `ProgramArray` and `CgroupArray`.

use super::macros::{gets, keys, no_flags, places_of_fds, typed_map};
use crate::abi::Fd;

typed_map! {
    /// A map of type `BPF_MAP_TYPE_PROG_ARRAY`: programs to go on with. Fds go in, ids come out.
    ///
    /// ```
    /// use mapemu::Kernel;
    /// use mapemu::abi::ProgType;
    /// use mapemu::sys::ProgDef;
    /// use mapemu::typed::ProgramArray;
    ///
    /// let kernel = Kernel::new();
    /// let jumps = ProgramArray::builder().max_entries(2).create(&kernel)?;
    /// let prog = kernel
    ///     .prog_load(ProgDef { name: "parse", prog_type: ProgType::XDP, ..ProgDef::default() })
    ///     .unwrap();
    /// jumps.set(1, prog, 0)?;
    /// assert_ne!(jumps.get(&1, 0)?, 0);
    /// jumps.remove(&1)?;
    /// assert!(jumps.get(&1, 0).unwrap_err().is_not_found());
    /// # Ok::<(), mapemu::typed::Error>(())
    /// ```
    ProgramArray: PROG_ARRAY, no_flags!(), { u32 => u32 }
    places_of_fds!(Fd);
    gets!(u32 => u32);
    keys!(u32);
}

typed_map! {
    /// A map of type `BPF_MAP_TYPE_CGROUP_ARRAY`: cgroups, for programs to compare with. Nothing comes out.
    ///
    /// ```
    /// use mapemu::Kernel;
    /// use mapemu::helper::Prog;
    /// use mapemu::map::object::Object;
    /// use mapemu::typed::CgroupArray;
    ///
    /// let kernel = Kernel::new();
    /// let cgroup = kernel.cgroup_create("web", None).unwrap();
    /// let cgroups = CgroupArray::builder().max_entries(2).create(&kernel)?;
    /// cgroups.set(1, cgroup, 0)?;
    ///
    /// let map = kernel.map(cgroups.map().fd()).unwrap();
    /// let Object::Cgroup(own) = kernel.object(cgroup).unwrap() else { unreachable!() };
    /// let prog = Prog::sched_cls(0);
    /// assert_eq!(prog.current_task_under_cgroup(&map, 1, &own), Ok(true));
    /// # Ok::<(), mapemu::typed::Error>(())
    /// ```
    CgroupArray: CGROUP_ARRAY, no_flags!(), { u32 => u32 }
    places_of_fds!(Fd);
}
