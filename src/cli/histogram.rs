//! Times, counted: how many of each size, on a scale of logarithms, so that counts of several runs add up.

use std::time::Duration;

use serde_json::{Value, json};

/// Parts of each doubling: one is 9 % more than the one before.
const PARTS: f64 = 8.0;

/// Doublings from a nanosecond on: 68 seconds.
const DOUBLINGS: usize = 36;

/// Number of places.
const PLACES: usize = 8 * DOUBLINGS;

/// How many times of each size there were.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Histogram {
    counts: Box<[u64; PLACES]>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: Box::new([0; PLACES]),
        }
    }
}

impl Histogram {
    /// The place of a time.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a small number that is not negative"
    )]
    fn place(time: Duration) -> usize {
        let ns = time.as_nanos().max(1) as f64;
        ((ns.log2() * PARTS) as usize).min(PLACES - 1)
    }

    /// Counts one time.
    pub(super) fn count(&mut self, time: Duration) {
        self.counts[Self::place(time)] += 1;
    }

    /// Adds the counts of another.
    pub(super) fn add(&mut self, other: &Self) {
        for (own, other) in self.counts.iter_mut().zip(&*other.counts) {
            *own += other;
        }
    }

    /// How many times there are.
    pub(super) fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The time, in nanoseconds, that so many percent do not exceed; none if there are no times. Those of one place are taken
    /// to lie evenly in it.
    #[expect(clippy::cast_precision_loss, reason = "numbers of times")]
    pub(super) fn percentile(&self, percent: u64) -> Option<f64> {
        let rank = self.total() as f64 * percent as f64 / 100.0;
        let mut before = 0;
        for (place, count) in self.places() {
            if (before + count) as f64 >= rank {
                let part = (rank - before as f64) / count as f64;
                return Some(((place as f64 + part) / PARTS).exp2());
            }
            before += count;
        }
        None
    }

    /// The middle of a place, in nanoseconds.
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    pub(super) fn middle(place: usize) -> f64 {
        ((place as f64 + 0.5) / PARTS).exp2()
    }

    /// Each place that has times, and how many.
    pub(super) fn places(&self) -> impl Iterator<Item = (usize, u64)> {
        let counts = self.counts.iter().copied().enumerate();
        counts.filter(|(_, count)| *count > 0)
    }

    /// As JSON: pairs of a place and a count.
    pub(super) fn to_json(&self) -> Value {
        self.places().map(|pair| json!(pair)).collect()
    }

    /// From JSON, if it is that of one.
    pub(super) fn of_json(json: &Value) -> Option<Self> {
        let mut own = Self::default();
        for pair in json.as_array()? {
            let place = usize::try_from(pair.get(0)?.as_u64()?).ok()?;
            *own.counts.get_mut(place)? += pair.get(1)?.as_u64()?;
        }
        Some(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_off_by_less_than_a_place() {
        let mut times = Histogram::default();
        for ns in 1..=1000 {
            times.count(Duration::from_nanos(ns));
        }
        for percent in [1, 10, 50, 90, 99, 100] {
            let exact = f64::from(u32::try_from(percent * 10).expect("small"));
            let got = times.percentile(percent).expect("there are times");
            let ratio = got / exact;
            assert!((0.91..1.1).contains(&ratio), "{percent}: {got}, {exact}");
        }
        assert_eq!(Histogram::default().percentile(50), None);
    }

    #[test]
    fn halves_add_up_to_the_whole_by_way_of_json() {
        let (mut all, mut halves) = (Histogram::default(), [(); 2].map(|()| Histogram::default()));
        for number in 0..500 {
            let time = Duration::from_nanos(number * number * 7);
            all.count(time);
            halves[usize::from(number % 2 == 0)].count(time);
        }
        let [mut first, second] = halves;
        first.add(&Histogram::of_json(&second.to_json()).expect("its own JSON"));
        assert_eq!(first, all);
        assert_eq!(Histogram::of_json(&json!([[PLACES, 1]])), None);
    }
}
