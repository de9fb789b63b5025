//! Finding the highest rate that a target bears: limits on errors and latencies, judged by
//! confidence intervals.

mod bracket;
mod controller;
mod decision;
mod end;
mod estimate;
mod interval;
mod owed;
mod probe;
mod relaxation;

pub use controller::RateController;
pub use decision::{RateConfig, RateDecision, RateState};
pub use end::SearchEnd;
pub use estimate::RateEstimate;
pub use interval::{Interval, proportion};

/// A limit on what a run may do to its target, as the share of transactions that may break it.
///
/// Both kinds are of one form: "the error rate is at most 3 %" allows a share of 0.03 to fail, and
/// "the 95th percentile is at most 20 ms" allows a share of 0.05 to take longer.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Limit {
    /// At most this share may fail, `0.0..=1.0`.
    ErrorRate(f64),
    /// This quantile of the response time is to be at most so long.
    Latency {
        /// In nanoseconds.
        bound_ns: u64,
        /// `0.0..1.0`, as 0.95.
        quantile: f64,
    },
}

impl Limit {
    /// Share of the transactions that may break it.
    #[must_use]
    pub fn share(&self) -> f64 {
        match *self {
            Limit::ErrorRate(share) => share,
            Limit::Latency { quantile, .. } => 1.0 - quantile,
        }
    }
}

/// How many transactions broke a limit, and of how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Broken {
    /// Those that broke it.
    pub over: u64,
    /// All that could have.
    pub of: u64,
}

impl Broken {
    /// The share that broke it; `None` if there were none that could have.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        (self.of > 0).then(|| self.over as f64 / self.of as f64)
    }

    pub(crate) fn add(&mut self, other: Broken) {
        self.over = self.over.saturating_add(other.over);
        self.of = self.of.saturating_add(other.of);
    }
}
