//! Close to the limit: measuring how close, and how sure that is.

use super::{FEWEST, LARGEST_STEP, RateController, RateState};

/// Rounds of refinement, and windows in each: the first of them are not judged, since a queue that
/// is near its limit takes time to find its length.
pub(super) const ROUNDS: usize = 3;
const ROUND: u32 = 18;
pub(super) const UNJUDGED: u32 = 4;

/// Quantiles of Student's distribution for an interval of 95 %, from one degree of freedom on.
const STUDENT_97_5: [f64; 11] =
    [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201];

/// An estimate is not stated to be closer than this, whatever the rounds say: what is measured in
/// whole transactions and windows is off by as much.
const RESOLUTION: f64 = 0.005;

/// How steeply the use of a limit is taken to grow with the rate, as a power of it: errors beyond
/// a hard capacity grow with the 32nd at 3 %, a queue's latencies about as fast.
const STEEPNESS: std::ops::RangeInclusive<f64> = 6.0..=60.0;

/// The highest rate within limits, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RateEstimate {
    /// Transactions a second.
    pub tps: f64,
    /// It lies between these with a confidence of 95 %.
    pub low: f64,
    /// See [`low`](Self::low).
    pub high: f64,
}

/// Estimates of the rate at which the limit is just met, one from each round.
#[derive(Clone, Debug, Default)]
pub(super) struct Refinement {
    /// Logarithms of the rates.
    pub(super) estimates: Vec<f64>,
    pub(super) steepness: f64,
}

impl Refinement {
    pub(super) fn mean(&self) -> f64 {
        (self.estimates.iter().sum::<f64>() / self.estimates.len().max(1) as f64).exp()
    }
}

impl RateController {
    /// The rate that was found, with its confidence interval: a Student interval over the rounds
    /// of measurement, which are far enough apart to be independent of each other. `None` until
    /// the rate is held, and where no limit is what bounds it.
    #[must_use]
    pub fn estimate(&self) -> Option<RateEstimate> {
        let estimates = &self.refinement.estimates;
        if self.state != RateState::Holding || estimates.len() < 2 || self.saturated {
            return None;
        }
        let (count, tps) = (estimates.len() as f64, self.refinement.mean());
        let squares: f64 = estimates.iter().map(|estimate| (estimate - tps.ln()).powi(2)).sum();
        let error = (squares / (count - 1.0) / count).sqrt();
        let student = STUDENT_97_5[(estimates.len() - 2).min(STUDENT_97_5.len() - 1)];
        let half = (student * error).max(RESOLUTION);
        Some(RateEstimate { tps, low: tps * (-half).exp(), high: tps * half.exp() })
    }

    /// The search has come down to about this rate.
    pub(super) fn begin_to_refine(&mut self, tps: f64) {
        if self.saturated {
            // There is nothing to measure the distance by.
            return self.settle_at(self.low.map_or(tps, |low| low.tps));
        }
        let steepness = match (self.low, self.high) {
            (Some(low), Some(high)) if high.tps > low.tps => {
                let use_grew = high.used.clamp(1.01, 20.0) / low.used.clamp(0.05, 0.99);
                use_grew.ln() / (high.tps / low.tps).ln()
            }
            _ => 0.0,
        };
        let steepness = steepness.clamp(*STEEPNESS.start(), *STEEPNESS.end());
        self.refinement = Refinement { estimates: Vec::new(), steepness };
        self.go_to(tps, RateState::Refining);
    }

    pub(super) fn refine(&mut self) {
        if self.probe.windows < ROUND || self.probe.seen() < FEWEST {
            return;
        }
        if let Some((limit, used)) = self.probe.nearest(&self.config.limits) {
            (self.bound_by, self.saturated) = (Some(limit), false);
            self.refined(used);
        }
        if self.refinement.estimates.len() < self.rounds {
            self.go_to(self.refinement.mean(), RateState::Refining);
        } else {
            self.settle_at(self.refinement.mean());
        }
    }

    /// Takes in how much of the limit was used at the current rate.
    pub(super) fn refined(&mut self, used: f64) {
        let step = (used.clamp(0.05, 20.0).ln() / self.refinement.steepness)
            .clamp(-LARGEST_STEP.ln(), LARGEST_STEP.ln());
        self.refinement.estimates.push(self.tps.ln() - step);
    }
}
