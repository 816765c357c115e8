//! Two kernels side by side: each operation is done on both, and the answers are compared.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Family, Op};
use crate::env::{LINUX_6_18_44, Release};
use crate::trace::{Answer, Broken, Engine, World, answer_or_name, answers_match};

/// Makes the two kernels of a run, new ones each time: first the one that is right by definition.
pub trait Worlds {
    /// The two.
    ///
    /// # Errors
    ///
    /// Why one cannot be had, in words.
    fn worlds(&self) -> Result<TwoWorlds, String>;

    /// The release that they are.
    fn release(&self) -> &'static Release {
        LINUX_6_18_44
    }
}

/// Two kernels, each with all that is around its maps.
pub type TwoWorlds = (Box<dyn World>, Box<dyn World>);

/// An operation that was answered differently.
#[derive(Clone, PartialEq, Debug)]
pub struct Difference {
    /// The operation.
    pub op: Op,
    /// The answer of the first kernel, which is right.
    pub right: Value,
    /// The answer of the second.
    pub wrong: Value,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { op, right, wrong } = self;
        write!(f, "{op}\n  kernel:   {right}\n  emulated: {wrong}")
    }
}

/// What came of one operation.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// Both gave this answer.
    Same(Value),
    /// They differ.
    Differs(Box<Difference>),
    /// It is not emulated yet.
    ToCome(String),
    /// Both verifiers refuse the program, with the same errno.
    Refused,
    /// The operation was not asked.
    Skipped,
}

/// How long an operation took on each kernel: its calls of bpf(2), or all of it if it made none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Took {
    /// On the first kernel.
    pub right: Duration,
    /// On the second.
    pub wrong: Duration,
}

/// The two kernels of one run.
#[derive(Debug)]
pub struct Pair<'w> {
    right: Engine<'w>,
    wrong: Engine<'w>,
    compares_buffers: bool,
}

impl<'w> Pair<'w> {
    /// Both at their start.
    pub fn new(right: &'w mut dyn World, wrong: &'w mut dyn World, family: &Family) -> Self {
        Self {
            right: Engine::new(right),
            wrong: Engine::new(wrong),
            compares_buffers: !family.has_ids,
        }
    }

    /// How long the last operation took, if both did it.
    pub fn took(&self) -> Took {
        Took {
            right: self.right.took(),
            wrong: self.wrong.took(),
        }
    }

    /// Does one operation on both.
    ///
    /// # Errors
    ///
    /// [`Broken`] if it is no request.
    pub fn step(&mut self, op: &Op) -> Result<Step, Broken> {
        let right = match answer_or_name(&mut self.right, &op.0, false)? {
            Answer::Got(right) => right,
            Answer::Allowed | Answer::ToCome(_) => return Ok(Step::Skipped),
        };
        let refused = right.get("verifier").is_some();
        let wrong = match answer_or_name(&mut self.wrong, &op.0, refused)? {
            Answer::Got(wrong) => wrong,
            Answer::Allowed => json!({ "allowed": true }),
            Answer::ToCome(what) => return Ok(Step::ToCome(what)),
        };
        let differs = |right: Value, wrong: Value| {
            let op = op.clone();
            Step::Differs(Box::new(Difference { op, right, wrong }))
        };
        if !answers_match(&right, &wrong) {
            return Ok(differs(right, wrong));
        }
        if refused {
            return Ok(Step::Refused);
        }
        // How much of a copy is done before a fault is the machine's matter.
        let is_fault = right.get("err").is_some_and(|errno| errno == "EFAULT");
        let (right_buffers, wrong_buffers) = (self.right.buffers(), self.wrong.buffers());
        if self.compares_buffers && !is_fault && right_buffers != wrong_buffers {
            let with = |mut answer: Value, buffers: u64| {
                answer["buffers"] = format!("{buffers:016x}").into();
                answer
            };
            return Ok(differs(
                with(right, right_buffers),
                with(wrong, wrong_buffers),
            ));
        }
        Ok(Step::Same(right))
    }
}
