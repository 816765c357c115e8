//! What the types beside HASH cost, as ratios to the running kernel and to the own HASH; writes by two threads; and the
//! program side beside the kernel's own helpers.
//!
//! Figures are made as in `gates`: the columns of a row take turns in short bursts, and a figure is the median of its
//! ratio over the rounds. Nothing is asserted here.
#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::print_stdout,
    reason = "a bench"
)]

#[path = "../common/mod.rs"]
mod common;
mod pair;
mod programs;
mod rows;
mod two_threads;

use common::burst::{ROUNDS, burst, median};
use mapemu::host::Host;

/// Maps of so many elements fit into the caches.
const SMALL: usize = 20_000;

/// ns of one operation, in the burst that begins with operation number `at`.
pub type Column<'a> = Box<dyn FnMut(usize) -> f64 + 'a>;

/// A column that does `op` with the numbers of operations: twice, so that it is warm the second time.
pub fn column<'a>(mut op: impl FnMut(usize) + 'a) -> Column<'a> {
    Box::new(move |at| {
        burst(|i| op(at + i));
        burst(|i| op(at + i))
    })
}

/// As [`column`], on a map of so many keys; a large one is cold.
pub fn column_of<'a>(n_keys: usize, mut op: impl FnMut(usize) + 'a) -> Column<'a> {
    if n_keys <= SMALL {
        column(op)
    } else {
        Box::new(move |at| burst(|i| op(at + i)))
    }
}

pub fn heading(text: &str) {
    println!(
        "\n{text:<44} {:>8} {:>9} {:>8} {:>7}  goal",
        "own ns", "kernel ns", "kernel÷", "÷HASH"
    );
}

/// A row of the table: beside the own column, the same in the running kernel and of the own HASH.
pub fn row(
    name: &str,
    goal: &str,
    mut own: Column<'_>,
    mut kernel: Option<Column<'_>>,
    mut hash: Option<Column<'_>>,
) {
    let mut rounds: Vec<[f64; 3]> = Vec::new();
    for number in 0..=ROUNDS {
        let at = number * common::burst::BURST;
        rounds.push([
            own(at),
            kernel.as_mut().map_or(f64::NAN, |kernel| kernel(at)),
            hash.as_mut().map_or(f64::NAN, |hash| hash(at)),
        ]);
    }
    // The first one only makes everything warm.
    rounds.remove(0);
    let ratio = |of: &dyn Fn(&[f64; 3]) -> f64| median_of(rounds.iter().map(of));
    println!(
        "{name:<44} {} {} {} {}  {goal}",
        shown(ratio(&|round| round[0]), 8, 1),
        shown(ratio(&|round| round[1]), 9, 1),
        shown(ratio(&|round| round[1] / round[0]), 8, 1),
        shown(ratio(&|round| round[0] / round[2]), 7, 2),
    );
}

pub fn median_of(figures: impl Iterator<Item = f64>) -> f64 {
    median(&mut figures.collect::<Vec<_>>())
}

/// A figure; blanks where there is none.
pub fn shown(figure: f64, width: usize, digits: usize) -> String {
    if figure.is_nan() {
        " ".repeat(width)
    } else {
        format!("{figure:>width$.digits$}")
    }
}

fn main() {
    // Called by `cargo bench --no-run` and `cargo test` alike: a word as argument is a filter that names no row.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let host = Host::new().inspect_err(|why| println!("{why}")).ok();
    let host = host.as_ref();
    rows::hashes(host);
    rows::arrays(host);
    rows::keyless(host);
    rows::tries(host);
    rows::program_side(host);
    rows::rings(host);
    two_threads::writes(host);
}
