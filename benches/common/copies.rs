//! Values alone, in an array: what a copy out of a random place costs without any map around it.
#![allow(
    missing_debug_implementations,
    unreachable_pub,
    clippy::cast_possible_truncation,
    reason = "a bench"
)]

use std::hint::black_box;

use mapemu::bench::burst::burst;
use mapemu::bench::column::shuffle;

/// See the module.
pub struct Copies<const V: usize> {
    values: Vec<[u8; V]>,
    order: Vec<u32>,
}

impl<const V: usize> Copies<V> {
    pub fn new(n: usize) -> Self {
        let mut order: Vec<u32> = (0..n as u32).collect();
        shuffle(&mut order, 0x1234_5678_9abc_def1);
        Self {
            values: vec![[7; V]; n],
            order,
        }
    }

    /// ns of one copy, from the place of that number on; `warm` copies them once before.
    pub fn burst(&self, from: usize, warm: bool) -> f64 {
        let mut out = [0; V];
        let mut copies = || {
            burst(|i| {
                let index = self.order[(from + i) % self.order.len()];
                out.copy_from_slice(&self.values[black_box(index) as usize]);
                black_box(&mut out);
            })
        };
        if warm {
            copies();
        }
        copies()
    }
}
