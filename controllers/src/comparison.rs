//! Whether a target did worse at the same rate a second time: on the way down of a sweep than on its
//! way up.
//!
//! Stretches of time that follow each other resemble each other: the queue of a target close to its
//! capacity remembers seconds, and two runs of it differ by half without anything having changed. A
//! test that takes blocks of time for independent observations would find a change in each of them.
//! So the means of the blocks are compared with Welch's t, where so many blocks count as their
//! correlation leaves independent ones: `n (1 - r) / (1 + r)` for blocks that resemble their neighbours
//! by `r` (the variance of a mean of an autoregressive series; Law, "Simulation Modeling and
//! Analysis", 5th edition, 4.4 and 9.5). What is estimated of `r` from `n` blocks is too low by about
//! `(1 + 4 r) / n` (Kendall, "Note on bias in the estimation of autocorrelation", 1954), which is made
//! up for. Noise within the blocks hides correlation that outlasts them, so blocks are put together by
//! twos and by fours too, and a difference counts if it stands out at each of these lengths.
//!
//! A difference that is certain and small is no news either, so there is a least size for each
//! [`Measure`].

use crate::student;

/// Probability that anything is said to be worse of a target that does not change, in all that is
/// compared together. A fifth of what is promised (5 %), since the correlation is an estimate.
const LEVEL: f64 = 0.01;

/// With fewer blocks neither their spread nor their correlation can be told.
const LEAST_BLOCKS: usize = 10;

/// Blocks are put together by so many, while there are enough.
const LENGTHS: [usize; 3] = [1, 2, 4];

/// For failures: a few in a hundred would not stand out of a handful of long batches.
const LENGTHS_OF_FAILURES: [usize; 2] = [1, 2];

/// Below so many batches a length says nothing.
const LEAST_BATCHES: usize = 6;

/// A share of failures is worse if it is one in a hundred higher, the share from which on this
/// project takes failures for more than an accident.
const LEAST_SHARE: f64 = 0.01;

/// Goodput is worse if this share of what was due is missing. What is under way at both ends of the
/// measured time moves it by one per cent easily.
const LEAST_GOODPUT: f64 = 0.02;

/// A time is worse if it is longer by this factor,
const LEAST_FACTOR: f64 = 1.2;

/// and by a millisecond: less is what schedulers and other users of a machine do to a quantile,
/// and less than this project allows its own lateness to be.
const LEAST_NS: f64 = 1e6;

/// A stretch of time of a run at one rate, as all shards saw it together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Block {
    /// Its length.
    pub length_ns: u64,
    /// Transactions that became due, without those that the generator was too late for, or failed at.
    pub due: u64,
    /// Transactions that ended well.
    pub succeeded: u64,
    /// Transactions that the target failed, or that were missed since it kept others too long.
    pub failed: u64,
    /// Median response time of those that ended well, without what the generator was late by itself;
    /// `None` without any.
    pub p50_ns: Option<u64>,
    /// Their 95th percentile.
    pub p95_ns: Option<u64>,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Measure {
    /// Succeeded transactions as a share of those due.
    Goodput,
    /// Failed transactions as a share of those that ended.
    Failed,
    /// Median response time of those that succeeded, in seconds.
    Median,
    /// 95th percentile of their response time, in seconds.
    P95,
}

impl Measure {
    const ALL: [Self; 4] = [Self::Failed, Self::Goodput, Self::Median, Self::P95];

    /// Its values in the blocks, on the scale on which means are compared: times by their logarithm,
    /// since they differ by factors, and a share as what each block adds to that of all of them
    /// (a ratio estimate, so that blocks weigh as much as they hold).
    fn series(self, blocks: &[Block]) -> Vec<f64> {
        let time = |ns: Option<u64>| ns.map(|ns| (ns.max(1) as f64).ln());
        let share = |parts: fn(&Block) -> (u64, u64)| {
            let parts = || blocks.iter().map(parts).map(|(part, of)| (part as f64, of as f64));
            let of = parts().map(|(_, of)| of).sum::<f64>();
            let share = parts().map(|(part, _)| part).sum::<f64>() / of;
            let typical = of / blocks.len() as f64;
            let values = parts().map(|(part, of)| share + (part - share * of) / typical);
            if of > 0.0 { values.collect() } else { Vec::new() }
        };
        match self {
            // Of what was due it is what is missing that grows.
            Self::Goodput => {
                share(|block| (block.succeeded, block.due)).iter().map(|s| -s).collect()
            }
            Self::Failed => share(|block| (block.failed, block.succeeded + block.failed)),
            Self::Median => blocks.iter().filter_map(|block| time(block.p50_ns)).collect(),
            Self::P95 => blocks.iter().filter_map(|block| time(block.p95_ns)).collect(),
        }
    }

    /// From the scale of [`series`](Self::series) to the one that is shown.
    fn shown(self, mean: f64) -> f64 {
        match self {
            Self::Goodput => -mean,
            Self::Failed => mean,
            Self::Median | Self::P95 => mean.exp() / 1e9,
        }
    }

    fn lengths(self) -> &'static [usize] {
        if self == Self::Failed { &LENGTHS_OF_FAILURES } else { &LENGTHS }
    }

    fn matters(self, before: f64, after: f64) -> bool {
        match self {
            Self::Goodput => after - before >= LEAST_GOODPUT,
            Self::Failed => after - before >= LEAST_SHARE,
            Self::Median | Self::P95 => {
                after - before >= LEAST_FACTOR.ln() && after.exp() - before.exp() >= LEAST_NS
            }
        }
    }
}

/// Something that was worse the second time.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Worse {
    /// What it is.
    pub measure: Measure,
    /// Its mean over the blocks, the first time: a share, or the geometric mean of a time in seconds.
    pub before: f64,
    /// The second time.
    pub after: f64,
}

/// What was worse the second time, of one of so many `comparisons` that are made together: more than
/// chance explains, and by enough to matter. `None` if there is too little to tell by, which is less
/// than ten blocks with an answer each time.
///
/// ```
/// use balter_controllers::{Block, worse};
///
/// let block = |failed| Block { due: 100, succeeded: 100 - failed, failed, ..Block::default() };
/// let (before, after) = ([block(0); 20], [block(5); 20]);
/// assert_eq!(worse(&before, &before, 1).map(|worse| worse.len()), Some(0));
/// assert_eq!(worse(&before, &after, 1).map(|worse| worse.len()), Some(2));
/// assert_eq!(worse(&before[..5], &after, 1), None);
/// ```
#[must_use]
pub fn worse(before: &[Block], after: &[Block], comparisons: usize) -> Option<Vec<Worse>> {
    if before.len() < LEAST_BLOCKS || after.len() < LEAST_BLOCKS {
        return None;
    }
    let level = LEVEL / (comparisons.max(1) * Measure::ALL.len()) as f64;
    let compared = Measure::ALL.into_iter().filter_map(|measure| {
        let (before, after) = (measure.series(before), measure.series(after));
        let enough = before.len() >= LEAST_BLOCKS && after.len() >= LEAST_BLOCKS;
        if !enough {
            return None;
        }
        let (one, other) = (mean(&before), mean(&after));
        let is_worse = measure.matters(one, other)
            && measure.lengths().iter().all(|&length| stands_out(&before, &after, length, level));
        let (before, after) = (measure.shown(one), measure.shown(other));
        is_worse.then_some(Worse { measure, before, after })
    });
    Some(compared.collect())
}

/// Whether the mean of the second series is above that of the first by more than chance explains, in
/// batches of this length, if there are enough of them.
fn stands_out(before: &[f64], after: &[f64], length: usize, level: f64) -> bool {
    let [before, after] =
        [before, after].map(|series| series.chunks_exact(length).map(mean).collect::<Vec<_>>());
    before.len().min(after.len()) < LEAST_BATCHES || is_significant(&before, &after, level)
}

/// Welch's t test of series whose neighbours resemble each other.
fn is_significant(before: &[f64], after: &[f64], level: f64) -> bool {
    let left = independent(before, after);
    let error = |series: &[f64]| {
        let count = (series.len() as f64 * left).max(1.0);
        // The spread of values that resemble each other is less than what they are drawn from has.
        let spread = squares(series) / (series.len() as f64 - left.recip()).max(1.0);
        (spread / count, (count - 1.0).max(0.5))
    };
    let ((one, one_free), (other, other_free)) = (error(before), error(after));
    let variance = one + other;
    let difference = mean(after) - mean(before);
    if variance <= 0.0 {
        return difference > 0.0;
    }
    let degrees = variance * variance / (one * one / one_free + other * other / other_free);
    difference / variance.sqrt() > student::quantile(1.0 - level, degrees)
}

/// The share of the values of two series that counts as independent ones: both are taken to be
/// correlated alike.
fn independent(before: &[f64], after: &[f64]) -> f64 {
    let products = |series: &[f64]| -> f64 {
        let mean = mean(series);
        series.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum()
    };
    let all = squares(before) + squares(after);
    if all <= 0.0 {
        return 1.0;
    }
    let seen = (products(before) + products(after)) / all;
    let length = 0.5 * (before.len() + after.len()) as f64;
    let correlation = (seen + (1.0 + 4.0 * seen) / length).clamp(0.0, 0.99);
    (1.0 - correlation) / (1.0 + correlation)
}

fn mean(series: &[f64]) -> f64 {
    series.iter().sum::<f64>() / series.len() as f64
}

fn squares(series: &[f64]) -> f64 {
    let mean = mean(series);
    series.iter().map(|value| (value - mean).powi(2)).sum()
}
