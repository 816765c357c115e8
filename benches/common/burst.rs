//! Short bursts of one operation: on a shared machine only what ran a moment ago can be compared.

use std::time::Instant;

pub const ROUNDS: usize = 9;
pub const BURST: usize = 4096;
const CHUNK: usize = 128;

/// Median of what one operation took, in ns, over chunks of a burst.
#[inline]
pub fn burst(mut op: impl FnMut(usize)) -> f64 {
    let mut chunks: Vec<f64> = (0..BURST / CHUNK)
        .map(|chunk| {
            let start = Instant::now();
            for i in 0..CHUNK {
                op(chunk * CHUNK + i);
            }
            start.elapsed().as_nanos() as f64 / CHUNK as f64
        })
        .collect();
    median(&mut chunks)
}

pub fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
