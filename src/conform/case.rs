//! One run: a map of a family, and so many operations on it.

use std::fmt;

use super::pair::{Pair, Step, Took, Worlds};
use super::{Chance, Family, Generator, Op};

/// A run that can be repeated.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The family.
    pub family: &'static Family,
    /// What everything comes from.
    pub seed: u64,
    /// Number of operations, besides those that make the map and those that show it.
    pub steps: usize,
}

/// Why a run could not go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stopped(pub String);

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Stopped {}

impl Case {
    /// Runs it until the end or the first difference, and tells of each operation. Gives the operations up to the
    /// difference, if there is one.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if there are no two kernels, or an operation is none.
    pub fn run(
        &self,
        worlds: &dyn Worlds,
        tell: &mut dyn FnMut(&Op, &Step, Took),
    ) -> Result<Option<Vec<Op>>, Stopped> {
        let mut numbers = Chance::new(self.seed);
        let numbers: Vec<u64> = (0..=self.steps).map(|_| numbers.number()).collect();
        let (setup, numbers) = numbers.split_first().expect("one at least");
        run_numbers(worlds, self.family, *setup, numbers, tell)
    }
}

/// As [`Case::run`], with the number of the map and a number for each operation.
///
/// # Errors
///
/// [`Stopped`] if there are no two kernels, or an operation is none.
pub fn run_numbers(
    worlds: &dyn Worlds,
    family: &Family,
    setup: u64,
    numbers: &[u64],
    tell: &mut dyn FnMut(&Op, &Step, Took),
) -> Result<Option<Vec<Op>>, Stopped> {
    let (mut right, mut wrong) = worlds.worlds().map_err(Stopped)?;
    let mut generator = Generator::new(family, setup, right.bpf().nr_cpus(), worlds.release());
    let mut pair = Pair::new(&mut *right, &mut *wrong, family);
    let mut done = Vec::with_capacity(numbers.len());
    let mut does = |op: Op, generator: &mut Generator| -> Result<bool, Stopped> {
        let step = pair
            .step(&op)
            .map_err(|broken| Stopped(format!("{op}: {broken}")))?;
        tell(&op, &step, pair.took());
        if let Step::Same(answer) = &step {
            generator.answered(&op, answer);
        }
        done.push(op);
        Ok(matches!(step, Step::Differs(_)))
    };
    let mut differs = false;
    for op in generator.setup().to_vec() {
        differs = differs || does(op, &mut generator)?;
    }
    for (number, count) in numbers.iter().zip(1..) {
        let mut ops = vec![generator.op(*number)];
        if count % family.check_every == 0 || count == numbers.len() {
            ops.extend(generator.check());
        }
        for op in ops {
            differs = differs || does(op, &mut generator)?;
        }
        if differs {
            break;
        }
    }
    Ok(differs.then_some(done))
}
