//! A row of the table: one operation on the maps of all columns, which take turns.

use super::burst::{BURST, Threads, median_of};
use super::column::Spec;
use super::ops::Timed;

/// The columns.
pub const COLUMNS: usize = 4;
/// The emulated map by its handle, or as programs have it.
pub const HANDLE: usize = 0;
/// The emulated map by bpf(2).
pub const BPF: usize = 1;
/// The running kernel.
pub const KERNEL: usize = 2;
/// dashmap.
pub const DASHMAP: usize = 3;

/// What one round gave: ns of one operation, NaN of a column that has no such operation.
pub type Round = [f64; COLUMNS];

/// See the module.
#[derive(Clone, Debug)]
pub struct Row {
    /// What the maps were made with.
    pub spec: Spec,
    /// What was done.
    pub op: String,
    /// By so many threads at once, each on a CPU of its own.
    pub threads: u32,
    rounds: Vec<Round>,
    /// Of several threads: what one alone takes.
    alone: Vec<Round>,
}

impl Row {
    /// Measures; columns take turns. The first round only makes everything warm.
    pub fn measure(
        spec: &Spec,
        op: impl Into<String>,
        n_rounds: usize,
        mut columns: [Option<Timed<'_>>; COLUMNS],
    ) -> Self {
        let mut round = |number: usize| {
            let at = number * BURST;
            let mut figures = [f64::NAN; COLUMNS];
            for (figure, column) in figures.iter_mut().zip(&mut columns) {
                if let Some(column) = column {
                    *figure = column(at);
                }
            }
            figures
        };
        round(0);
        Self {
            spec: *spec,
            op: op.into(),
            threads: 1,
            rounds: (1..=n_rounds).map(round).collect(),
            alone: Vec::new(),
        }
    }

    /// Measures two threads; `column(which, round)` is none if there is no such column.
    pub fn measure_threads(
        spec: &Spec,
        op: impl Into<String>,
        n_rounds: usize,
        column: &dyn Fn(usize, usize) -> Option<Threads>,
    ) -> Self {
        let nothing = Threads {
            alone: f64::NAN,
            together: f64::NAN,
        };
        let rounds: Vec<[Threads; COLUMNS]> = (0..n_rounds)
            .map(|round| std::array::from_fn(|which| column(which, round).unwrap_or(nothing)))
            .collect();
        let of = |part: fn(&Threads) -> f64| {
            let figures = |round: &[Threads; COLUMNS]| round.each_ref().map(part);
            rounds.iter().map(figures).collect()
        };
        Self {
            spec: *spec,
            op: op.into(),
            threads: 2,
            rounds: of(|threads| threads.together),
            alone: of(|threads| threads.alone),
        }
    }

    /// ns of one operation, in one thread; none of a column that has no such operation.
    pub fn ns(&self, column: usize) -> Option<f64> {
        some(median_of(self.rounds.iter().map(|round| round[column])))
    }

    /// How much longer one column takes than another: the median of the rounds' ratios.
    pub fn ratio(&self, over: usize, under: usize) -> Option<f64> {
        let ratios = self.rounds.iter().map(|round| round[over] / round[under]);
        some(median_of(ratios))
    }

    /// How many operations all threads do in the time in which one thread alone does one.
    pub fn scaling(&self, column: usize) -> Option<f64> {
        let threads = f64::from(self.threads);
        let rounds = self.rounds.iter().zip(&self.alone);
        some(median_of(rounds.map(|(together, alone)| {
            threads * alone[column] / together[column]
        })))
    }
}

fn some(figure: f64) -> Option<f64> {
    (!figure.is_nan()).then_some(figure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::MapType;

    const SPEC: Spec = Spec::new(MapType::HASH, 4, 8, 16);

    #[test]
    fn ratios_are_of_one_round() {
        // The machine is twice as slow in every other round, for both.
        let column = |ns: f64| -> Option<Timed<'static>> {
            let mut slow = 1.0;
            Some(Box::new(move |_| {
                slow = 3.0 - slow;
                ns * slow
            }))
        };
        let row = Row::measure(
            &SPEC,
            "update",
            5,
            [column(10.0), None, column(400.0), None],
        );
        assert_eq!(row.ratio(KERNEL, HANDLE), Some(40.0));
        assert_eq!(row.ns(HANDLE), Some(10.0));
        assert_eq!(row.ns(BPF), None);
        assert_eq!(row.ratio(KERNEL, DASHMAP), None);
        assert_eq!(row.scaling(HANDLE), None);
    }

    #[test]
    fn threads_scale() {
        let row = Row::measure_threads(&SPEC, "update", 3, &|which, _| {
            (which == HANDLE).then_some(Threads {
                alone: 10.0,
                together: 16.0,
            })
        });
        assert_eq!(row.scaling(HANDLE), Some(1.25));
        assert_eq!(row.scaling(KERNEL), None);
        assert_eq!((row.ns(HANDLE), row.threads), (Some(16.0), 2));
    }
}
