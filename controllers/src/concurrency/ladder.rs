//! The numbers of instances that were tried, the throughput of each, and the
//! test whether one more step was worth it.

use crate::{Saturation, Window};

/// A step that is worth it raises the throughput by more than this.
const SAME: f64 = 1.05;

/// A doubled number of instances that surely brings less than this has met the
/// target's limit: free of it, the throughput would have doubled. The space
/// between `SAME` and this lets a dozen completions tell the two cases apart.
const HALF_WAY: f64 = 1.5;

/// Standard errors between "seen" and "meant": a false alarm in 44, each way.
const SURE: f64 = 2.0;

/// After so many windows and mean service times the more likely answer is taken.
/// A target so slow that these do not suffice would otherwise keep the controller
/// waiting for minutes.
const PATIENCE: u32 = 20;
const PATIENCE_SERVICE_TIMES: f64 = 8.0;

/// Drift of a held target is acted on only beyond this many standard errors,
/// because it is looked for again and again.
const VERY_SURE: f64 = 3.0;

/// And only beyond this factor, up or down: smaller changes do not move the knee
/// by a step.
const DRIFT: f64 = 1.25;

/// Every measurement spans so many mean service times, because answers may come
/// in waves one service time apart: one more or less is then a fifth at most.
pub(super) const SERVICE_TIMES: f64 = 5.0;

/// Completions over a time at one limit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    pub(super) completed: u64,
    pub(super) elapsed_ns: u64,
    pub(super) windows: u32,
    /// Time that transactions were under way, summed over them.
    pub(super) occupied_ns: f64,
    pub(super) service_ns: f64,
}

impl Sample {
    pub(super) fn add(&mut self, window: &Window) {
        self.completed = self.completed.saturating_add(window.completed());
        self.elapsed_ns = self.elapsed_ns.saturating_add(window.length_ns);
        self.windows += 1;
        self.occupied_ns += f64::from(window.occupied()) * window.length_ns as f64;
        self.service_ns += window.service_sum_ns as f64;
    }

    /// Completions a second.
    pub(super) fn rate(&self) -> f64 {
        self.completed as f64 / self.seconds()
    }

    /// Squared standard error of the rate by the counts, which scatter about as
    /// a Poisson variable does. One is added because none seen is not none
    /// possible.
    fn count_variance(&self) -> f64 {
        (self.completed as f64 + 1.0) / (self.seconds() * self.seconds())
    }

    /// Squared standard error of the rate. Instances that started together end
    /// together, in waves as large as their number, and whether one more wave
    /// falls into the sample is chance: an error with the variance of an even
    /// distribution over one wave comes to that of the counts.
    fn variance(&self) -> f64 {
        let wave = self.occupied_ns / self.elapsed_ns as f64;
        self.count_variance() + wave * wave / 12.0 / (self.seconds() * self.seconds())
    }

    /// Whether the sample is longer than so many mean service times.
    pub(super) fn spans(&self, service_times: f64) -> bool {
        self.elapsed_ns as f64 * self.completed as f64 >= service_times * self.service_ns
    }

    fn seconds(&self) -> f64 {
        self.elapsed_ns as f64 / 1e9
    }

    /// How many standard errors the rate lies above `factor` times the other.
    fn excess(&self, factor: f64, other: &Sample) -> f64 {
        let difference = self.rate() - factor * other.rate();
        difference / (self.variance() + factor * factor * other.variance()).sqrt()
    }

    /// Whether the rate is within five per cent and the noise of the best one.
    /// The noise is that of the counts alone here: allowing for waves too would
    /// let a rate pass that is plainly below the best.
    pub(super) fn reaches(&self, best: &Sample) -> bool {
        let noise = best.count_variance() + SAME * SAME * self.count_variance();
        best.rate() - SAME * self.rate() <= noise.sqrt()
    }

    /// Whether the target has surely become another one since `before`.
    pub(super) fn drifted(&self, before: &Sample) -> bool {
        self.completed > 0
            && (self.excess(DRIFT, before) > VERY_SURE || before.excess(DRIFT, self) > VERY_SURE)
    }
}

/// What a step to more instances brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Grew,
    Flat,
    Unclear,
}

/// Measured limits in ascending order.
#[derive(Clone, Debug, Default)]
pub(super) struct Ladder(Vec<Rung>);

#[derive(Clone, Copy, Debug)]
struct Rung {
    limit: u32,
    sample: Sample,
}

impl Ladder {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The limit measured next below the highest one.
    pub(super) fn below_top(&self) -> Option<u32> {
        self.0.len().checked_sub(2).map(|index| self.0[index].limit)
    }

    pub(super) fn top(&self) -> Option<u32> {
        self.0.last().map(|rung| rung.limit)
    }

    pub(super) fn push(&mut self, limit: u32, sample: Sample) {
        // Ascending, one rung a limit: a new measurement replaces older ones at
        // or above its limit, which belong to a target that has changed.
        self.0.retain(|rung| rung.limit < limit);
        self.0.push(Rung { limit, sample });
    }

    /// Compares a measurement with the highest rung; growth if there is none.
    pub(super) fn judge(&self, trial: &Sample) -> Step {
        let Some(Rung { sample: before, .. }) = self.0.last() else {
            return Step::Grew;
        };
        let above_same = trial.excess(SAME, before);
        if above_same >= SURE {
            Step::Grew
        } else if trial.excess(HALF_WAY, before) <= -SURE {
            Step::Flat
        } else if trial.windows < PATIENCE || !trial.spans(PATIENCE_SERVICE_TIMES) {
            Step::Unclear
        } else if above_same >= 1.0 {
            Step::Grew
        } else {
            Step::Flat
        }
    }

    /// Keeps the rungs up to the knee, the lowest one whose throughput is within
    /// five per cent and the noise of the best, and returns it.
    pub(super) fn cut_at_knee(&mut self) -> Option<(Sample, Saturation)> {
        let best = self.0.iter().max_by(|a, b| a.sample.rate().total_cmp(&b.sample.rate()))?.sample;
        let index = self.0.iter().position(|rung| rung.sample.reaches(&best))?;
        self.0.truncate(index + 1);
        let Rung { limit, sample } = self.0[index];
        Some((sample, Saturation { throughput: sample.rate(), concurrency: limit }))
    }
}
