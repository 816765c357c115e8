//! `ProgramArray` and `PerfEventArray`.

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
    /// A map of type `BPF_MAP_TYPE_PERF_EVENT_ARRAY`: perf events, mostly one for each CPU. Nothing comes out.
    ///
    /// ```
    /// use mapemu::Kernel;
    /// use mapemu::map::object::OtherKind;
    /// use mapemu::typed::PerfEventArray;
    ///
    /// let kernel = Kernel::new();
    /// let events = PerfEventArray::builder().max_entries(2).create(&kernel)?;
    /// events.set(0, kernel.open(OtherKind::PerfEvent), 0)?;
    /// events.remove(&0)?;
    /// assert!(events.remove(&0).unwrap_err().is_not_found());
    /// # Ok::<(), mapemu::typed::Error>(())
    /// ```
    PerfEventArray: PERF_EVENT_ARRAY, no_flags!(), { u32 => u32 }
    places_of_fds!(Fd);
}
