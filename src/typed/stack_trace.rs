//! `StackTrace<V>`: stacks that programs took.

use bytemuck::Pod;

use super::macros::{gets, iters, keys, no_flags, removes, takes, typed_map};

typed_map! {
    /// A map of type `BPF_MAP_TYPE_STACK_TRACE`: stacks by the id that `bpf_get_stackid` gave. A value is an array of frames'
    /// addresses, the innermost first, filled up with zeros; with `BPF_F_STACK_BUILD_ID`, of 32 bytes each.
    ///
    /// ```
    /// use mapemu::Kernel;
    /// use mapemu::abi::ProgType;
    /// use mapemu::helper::Prog;
    /// use mapemu::typed::StackTrace;
    ///
    /// let kernel = Kernel::new();
    /// let stacks: StackTrace<[u64; 3]> = StackTrace::builder().max_entries(64).create(&kernel)?;
    /// let map = kernel.map(stacks.map().fd()).unwrap();
    /// let prog = Prog::new(ProgType::KPROBE, 0);
    /// let id = prog.get_stackid(&map, &[0xffff_0001, 0xffff_0002], 0).unwrap();
    ///
    /// assert_eq!(stacks.get(&id, 0)?, [0xffff_0001, 0xffff_0002, 0]);
    /// stacks.remove(&id)?;
    /// assert_eq!(stacks.keys().count(), 0);
    /// # Ok::<(), mapemu::typed::Error>(())
    /// ```
    StackTrace<V: Pod = [u64; 127]>: STACK_TRACE, no_flags!(), { u32 => V }
    gets!(u32 => V);
    removes!(u32);
    takes!(u32 => V);
    iters!(u32 => V);
}
