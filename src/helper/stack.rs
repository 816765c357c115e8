//! Stacks that programs take. Nothing runs here, so the program says what its stack is.
//!
//! Kernel: `kernel/bpf/stackmap.c` (v6.18).

use super::Prog;
use crate::abi::{Helper, Result};
use crate::map::Map;
use crate::map::stack_trace::StackTrace;

impl Prog {
    /// The id of the stack that has these frames, the innermost first; it is put into the map if it is not there.
    ///
    /// # Errors
    ///
    /// `EINVAL` for unknown flags; `EFAULT` if the flags leave all frames out; `EEXIST` if another stack has its place;
    /// `ENOMEM` if the map is full.
    ///
    /// # Panics
    ///
    /// What the verifier refuses.
    #[doc(alias = "bpf_get_stackid")]
    pub fn get_stackid(&self, map: &Map, frames: &[u64], flags: u64) -> Result<u32> {
        self.enter(map, Helper::GET_STACKID);
        let stacks: Option<&StackTrace> = map.ops.as_any().downcast_ref();
        let stacks = stacks.expect("only stack traces take this helper");
        stacks.get_stackid(frames, flags)
    }
}
