//! Confidence intervals for a share, from windows that are not independent of their neighbours.

use crate::Broken;

/// Where a share lies, with a stated confidence.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Wilson's score interval for a share of which `over` of `of` were seen, with `z` standard
/// deviations to either side (1.96 for 95 %), when every observation stands for `1 / design_effect`
/// independent ones.
///
/// Wilson's, since the usual `p ± z·s` has no width at all where nothing has been seen, which is
/// where a search spends most of its time (Brown, Cai and DasGupta, "Interval Estimation for a
/// Binomial Proportion", 2001).
///
/// ```
/// use balter_controllers::{Broken, proportion};
///
/// let seen = proportion(Broken { over: 0, of: 400 }, 1.96, 1.0);
/// assert!(seen.low == 0.0 && seen.high < 0.01);
/// ```
#[must_use]
pub fn proportion(seen: Broken, z: f64, design_effect: f64) -> Interval {
    if seen.of == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let n = seen.of as f64 / design_effect.max(1e-9);
    let p = seen.over as f64 / seen.of as f64;
    let z2 = z * z;
    let middle = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = z / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    let low = if seen.over == 0 { 0.0 } else { (middle - half).max(0.0) };
    let high = if seen.over == seen.of { 1.0 } else { (middle + half).min(1.0) };
    Interval { low, high }
}

/// Most batches that are kept; when there are more, neighbours are put together. Batches that grow
/// outlast the correlation between windows, whatever its length.
const MOST_BATCHES: usize = 16;

/// Below so many batches their spread says too little, and a value is assumed.
const ENOUGH_BATCHES: usize = 4;

/// Windows in sequence, as batches: how widely these spread tells how many independent observations
/// they stand for.
#[derive(Clone, Debug, Default)]
pub(super) struct Batches {
    batches: Vec<Broken>,
    /// Windows in a full batch.
    length: usize,
    /// Windows in the last batch.
    filled: usize,
    sum: Broken,
}

impl Batches {
    pub(super) fn push(&mut self, window: Broken) {
        if window.of == 0 {
            return;
        }
        self.sum.add(window);
        self.length = self.length.max(1);
        if self.filled == 0 || self.filled >= self.length {
            if self.batches.len() == MOST_BATCHES {
                self.batches = self.batches.chunks(2).map(together).collect();
                self.length *= 2;
            }
            self.batches.push(Broken::default());
            self.filled = 0;
        }
        if let Some(last) = self.batches.last_mut() {
            last.add(window);
        }
        self.filled += 1;
    }

    pub(super) fn sum(&self) -> Broken {
        self.sum
    }

    /// Interval of the share, `z` standard deviations to either side.
    pub(super) fn interval(&self, z: f64, assumed_effect: f64) -> Interval {
        let count = self.batches.len();
        if count < ENOUGH_BATCHES {
            return proportion(self.sum, z, assumed_effect);
        }
        // Student's quantile for so few batches, to first order.
        let wider = 1.0 + (z * z + 1.0) / (4.0 * (count as f64 - 1.0));
        proportion(self.sum, z * wider, self.design_effect())
    }

    /// By how much the batches spread more than independent observations would.
    pub(super) fn design_effect(&self) -> f64 {
        let (count, n) = (self.batches.len() as f64, self.sum.of as f64);
        if count < 2.0 {
            return 1.0;
        }
        let seen = self.sum.over as f64 / n;
        let squares = self.batches.iter().map(|batch| {
            let off = batch.over as f64 - seen * batch.of as f64;
            off * off
        });
        let variance = count / (count - 1.0) * squares.sum::<f64>() / (n * n);
        // A share of none or all has no spread to compare with.
        let smoothed = (self.sum.over as f64 + 1.0) / (n + 2.0);
        (variance * n / (smoothed * (1.0 - smoothed))).max(1.0)
    }
}

fn together(pair: &[Broken]) -> Broken {
    let mut sum = Broken::default();
    for part in pair {
        sum.add(*part);
    }
    sum
}
