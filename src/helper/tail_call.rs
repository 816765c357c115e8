//! Tail calls: a program that goes on with another one.
//!
//! Kernel: `kernel/bpf/core.c`, `JMP_TAIL_CALL`; `include/linux/bpf.h:MAX_TAIL_CALL_CNT` (v6.18).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::Prog;
use crate::abi::Helper;
use crate::map::Map;
use crate::map::object;
use crate::map::prog_array::ProgArray;

/// So many jumps are made in one run.
const MAX_TAIL_CALLS: u32 = 33;

impl Prog {
    /// The program to go on with instead of this one; none if there is none at that index, or 33 jumps were made in this
    /// run already: then this program goes on.
    ///
    /// # Panics
    ///
    /// What the verifier refuses.
    #[doc(alias = "bpf_tail_call")]
    pub fn tail_call(&self, map: &Map, index: u32) -> Option<Arc<object::Prog>> {
        self.enter(map, Helper::TAIL_CALL);
        let progs: Option<&ProgArray> = map.ops.as_any().downcast_ref();
        let progs = progs.expect("only arrays of programs take this helper");
        let next = progs.prog_at(index)?;
        let made = self.tail_calls.get();
        if made >= MAX_TAIL_CALLS {
            return None;
        }
        self.tail_calls.set(made + 1);
        Some(next)
    }
}

/// How a program ends.
#[derive(Clone, Debug)]
pub enum End {
    /// It returns a number.
    Exit(u64),
    /// It goes on with another program: what [`Prog::tail_call`] gave.
    TailCall(Arc<object::Prog>),
}

/// A program in Rust: it is given its run and its context.
type Body<C> = Box<dyn Fn(&Prog, &mut C) -> End + Send + Sync>;

/// What declared programs do when they are run. `C` is the context: a packet, registers, …
///
/// ```
/// use mapemu::Kernel;
/// use mapemu::abi::ProgType;
/// use mapemu::helper::{End, Prog, Programs};
/// use mapemu::map::object::Object;
/// use mapemu::sys::ProgDef;
/// use mapemu::typed::ProgramArray;
///
/// let kernel = Kernel::new();
/// let jumps = ProgramArray::builder().max_entries(1).create(&kernel)?;
/// let map = kernel.map(jumps.map().fd()).unwrap();
/// let xdp = |name| {
///     let fd = kernel.prog_load(ProgDef { name, prog_type: ProgType::XDP, ..ProgDef::default() });
///     let Ok(Object::Prog(prog)) = kernel.object(fd.unwrap()) else { unreachable!() };
///     (fd.unwrap(), prog)
/// };
/// let ((_, parse), (drop_fd, drop)) = (xdp("parse"), xdp("drop"));
/// jumps.set(0, drop_fd, 0)?;
///
/// let mut programs: Programs<Vec<u8>> = Programs::new();
/// programs.bind(&parse, move |run, packet| match run.tail_call(&map, 0) {
///     Some(next) if packet.is_empty() => End::TailCall(next),
///     _ => End::Exit(2),
/// });
/// programs.bind(&drop, |_, _| End::Exit(1));
/// let run = |packet: &[u8]| programs.run(&parse, &Prog::new(ProgType::XDP, 0), &mut packet.to_vec());
/// assert_eq!(run(b""), 1);
/// assert_eq!(run(b"hello"), 2);
/// # Ok::<(), mapemu::typed::Error>(())
/// ```
pub struct Programs<C> {
    /// By the program's id.
    bodies: HashMap<u32, Body<C>>,
}

impl<C> Programs<C> {
    /// None.
    pub fn new() -> Self {
        Self {
            bodies: HashMap::new(),
        }
    }

    /// That program does this from now on.
    pub fn bind(
        &mut self,
        program: &object::Prog,
        body: impl Fn(&Prog, &mut C) -> End + Send + Sync + 'static,
    ) {
        self.bodies.insert(program.id, Box::new(body));
    }

    /// Runs a program, and those that it jumps to; what the last one returns.
    ///
    /// # Panics
    ///
    /// If it is not known what one of them does.
    pub fn run(&self, program: &object::Prog, run: &Prog, context: &mut C) -> u64 {
        let mut end = self.body(program)(run, context);
        loop {
            match end {
                End::Exit(returned) => return returned,
                End::TailCall(next) => end = self.body(&next)(run, context),
            }
        }
    }

    fn body(&self, program: &object::Prog) -> &Body<C> {
        let object::Prog { id, name, .. } = program;
        let body = self.bodies.get(id);
        body.unwrap_or_else(|| panic!("it is not known what program {id} (`{name}`) does"))
    }
}

impl<C> Default for Programs<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C> fmt::Debug for Programs<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} programs", self.bodies.len())
    }
}
