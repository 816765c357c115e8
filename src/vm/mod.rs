//! Runs the instructions of loaded programs, for `BPF_PROG_TEST_RUN`: one at a time, on one CPU, slowly.
//!
//! A pointer is a place and an offset, never an address, so whatever a program does it reaches only what is its own. What the
//! verifier would have refused ends the run with the reason. Helpers are those of [`helper`].
//!
//! Kernel: `kernel/bpf/core.c:___bpf_prog_run` (v6.18).

mod alu;
mod calls;
mod insn;
mod machine;
mod memory;

use std::cell::OnceCell;
use std::fmt;
use std::sync::Arc;

use crate::abi::ProgType;
use crate::env::Env;
use crate::helper;
use crate::map::object::Prog;
use crate::sys::{Machine, TestRun};
use machine::{End, Run};

/// Instructions of one run at most.
const BUDGET: u64 = 1 << 24;
/// Maps that one run finds in maps, at most.
const FOUND_MAPS: usize = 256;

/// Why a run ended without a result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Fault(String);

/// A fault with those words.
fn fault(words: impl fmt::Display) -> Fault {
    Fault(words.to_string())
}

/// See the module. A [`Kernel`](crate::Kernel) is given it: [`Kernel::run_programs_with`](crate::Kernel::run_programs_with).
#[derive(Clone, Copy, Debug, Default)]
pub struct Interpreter;

impl Machine for Interpreter {
    fn run(
        &self,
        env: &Arc<Env>,
        prog: &Arc<Prog>,
        cpu: u32,
        input: &mut TestRun,
    ) -> Result<u32, String> {
        let run = helper::Prog::new(prog.prog_type, cpu);
        let mut prog = Arc::clone(prog);
        let mut budget = BUDGET;
        loop {
            let maps = prog.all_maps();
            let found: Vec<OnceCell<_>> = (0..FOUND_MAPS).map(|_| OnceCell::new()).collect();
            let insns = insn::decode(&prog.code.insns);
            let mut machine = Run::new(env, &run, &insns, (&maps, &found), input);
            match machine.go(&mut budget).map_err(|Fault(words)| words)? {
                End::Exit(result) => return Ok(result),
                End::TailCall(next) => prog = next,
            }
        }
    }

    fn knows(&self, prog_type: ProgType) -> bool {
        prog_type.has_packet() || matches!(prog_type, ProgType::RAW_TRACEPOINT | ProgType::SYSCALL)
    }
}
