//! One rate under test: what its windows showed, and what that says.

use super::interval::{Batches, proportion};
use super::{Broken, Limit};
use crate::Window;

/// What a probe says of its rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// All limits are met.
    Under,
    /// The limit with this index is not.
    Over(usize),
    /// The intervals hold the limits: more has to be seen.
    Open,
}

/// How sure a finding must be, in standard deviations, and what is assumed of the spread before
/// enough has been seen of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Confidence {
    pub(super) under_z: f64,
    pub(super) over_z: f64,
    pub(super) assumed_effect: f64,
}

/// While growing: a step too far is found out by the next, so little is asked of a step; to turn
/// back is asked more.
pub(super) const QUICK: Confidence = Confidence { under_z: 1.3, over_z: 3.0, assumed_effect: 1.0 };

/// Where the search narrows down, and while it holds.
pub(super) const CAREFUL: Confidence =
    Confidence { under_z: 2.3, over_z: 2.3, assumed_effect: 2.0 };

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    seen: Vec<Batches>,
    pub(super) windows: u32,
    planned: u64,
    completed: u64,
    /// Transactions under way at the end of the first window and of the last.
    in_flight: Option<(u64, u64)>,
    /// What the last window showed.
    last: Vec<Broken>,
}

impl Probe {
    pub(super) fn new(limits: usize) -> Self {
        let (seen, last) = (vec![Batches::default(); limits], vec![Broken::default(); limits]);
        Self { seen, windows: 0, planned: 0, completed: 0, in_flight: None, last }
    }

    pub(super) fn push(&mut self, window: &Window, broken: &[Broken]) {
        self.windows += 1;
        let in_flight = u64::from(window.in_flight).saturating_add(window.backlog);
        match &mut self.in_flight {
            None => self.in_flight = Some((in_flight, in_flight)),
            Some((_, last)) => {
                *last = in_flight;
                self.planned += window.planned;
                self.completed += window.completed();
            }
        }
        for ((seen, last), broken) in self.seen.iter_mut().zip(&mut self.last).zip(broken) {
            seen.push(*broken);
            *last = *broken;
        }
    }

    /// Transactions that could have broken the limit of which the fewest were seen.
    pub(super) fn seen(&self) -> u64 {
        self.seen.iter().map(|seen| seen.sum().of).min().unwrap_or(0)
    }

    pub(super) fn judge(&self, limits: &[Limit], confidence: Confidence) -> Finding {
        let Confidence { under_z, over_z, assumed_effect } = confidence;
        let mut all_under = true;
        for (index, (seen, limit)) in self.seen.iter().zip(limits).enumerate() {
            if seen.interval(over_z, assumed_effect).low > limit.share() {
                return Finding::Over(index);
            }
            all_under &= seen.interval(under_z, assumed_effect).high < limit.share();
        }
        if all_under && !self.is_rising(limits) { Finding::Under } else { Finding::Open }
    }

    /// Share of what was asked for that was answered, if the rest piles up.
    pub(super) fn kept_up(&self, limits: &[Limit]) -> Option<f64> {
        let kept = self.completed as f64 / self.planned.max(1) as f64;
        (kept < 0.995 && self.is_rising(limits)).then_some(kept)
    }

    /// Whether a queue builds up that has not yet broken a limit, but will.
    pub(super) fn is_rising(&self, limits: &[Limit]) -> bool {
        let Some((first, last)) = self.in_flight else { return false };
        // What arrives and what leaves at random differ by this much, as a standard deviation.
        let accident = (2.0 * self.planned as f64).sqrt();
        let grown = last.saturating_sub(first) as f64;
        let worse = self.last.iter().zip(limits).any(|(last, limit)| {
            // Twice the share in a window of few transactions is an accident as well.
            last.share().is_some_and(|share| share > 2.0 * limit.share() && last.over > 3)
        });
        grown > accident || worse
    }

    /// The limit that is nearest, and by how much of its share it is used.
    pub(super) fn nearest(&self, limits: &[Limit]) -> Option<(usize, f64)> {
        let used = self.seen.iter().zip(limits).enumerate().filter_map(|(index, (seen, limit))| {
            Some((index, seen.sum().share()? / limit.share().max(1e-9)))
        });
        used.max_by(|one, other| one.1.total_cmp(&other.1))
    }
}

/// The limit that one window breaks by more than `factor` times its share, and how many times.
pub(super) fn plainly_over(seen: &[Broken], limits: &[Limit], factor: f64) -> Option<(usize, f64)> {
    let index = seen.iter().zip(limits).position(|(seen, limit)| {
        proportion(*seen, 3.0, 1.0).low > (limit.share() * factor).min(0.5)
    })?;
    let used = seen[index].share().unwrap_or(1.0) / limits[index].share();
    Some((index, used))
}
