//! One rate under test: when its own answers have come, and what they say of the limits.

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
    /// More becomes due than ends, and what is under way grows.
    Behind,
    /// The intervals hold the limits: more has to be seen.
    Open,
}

/// How sure a finding must be, in standard deviations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Confidence {
    pub(super) under_z: f64,
    pub(super) over_z: f64,
}

/// While growing: a step too far is found out by the next, so little is asked of a step; to turn
/// back is asked more.
pub(super) const QUICK: Confidence = Confidence { under_z: 1.3, over_z: 3.0 };

/// Between two edges.
pub(super) const CAREFUL: Confidence = Confidence { under_z: 2.3, over_z: 2.3 };

/// What is assumed of the scatter of windows before enough of them were seen.
const ASSUMED_EFFECT: f64 = 1.5;

/// Windows in which growth of what is under way is told from an accident.
pub(super) const GROWS: u32 = 3;

/// Windows that limits are plainly broken in, in a row, before that is believed while the search is
/// close to the limit and the throughput holds: a queue near its capacity meets a limit by being far
/// beyond it now and then, and a pause is no end.
pub(super) const EXCURSION: u32 = 6;

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    /// Under way when the rate was set, and what has ended since: the answers to the rate before.
    outstanding: u64,
    ended: u64,
    /// Time since the rate was set, and how much has to pass in times that an answer takes.
    pub(super) elapsed_ns: u64,
    settling: f64,
    least_ns: u64,
    seen: Vec<Batches>,
    pub(super) windows: u32,
    pub(super) length_ns: u64,
    pub(super) planned: u64,
    pub(super) completed: u64,
    pub(super) succeeded: u64,
    pub(super) service_sum_ns: u64,
    /// Ended, and in which time, while more was under way than can be without a queue.
    pub(super) queued: (u64, u64),
    /// Under way before the first window that is judged, and at the end of the last one.
    first: u64,
    last: u64,
    /// Windows in a row that break a limit plainly, and that mostly fail.
    pub(super) plain: u32,
    pub(super) collapsed: u32,
    /// Windows in a row in which the generator was not fit.
    pub(super) unfit: u32,
    pub(super) now: Now,
}

/// The last window, whether it is judged or not.
#[derive(Clone, Debug, Default)]
pub(super) struct Now {
    pub(super) completed: u64,
    pub(super) succeeded_tps: f64,
    /// Share that broke each limit.
    shares: Vec<f64>,
}

impl Probe {
    /// A rate is set while so many are under way; for so many times what an answer takes nothing is
    /// judged in any case.
    pub(super) fn new(limits: usize, outstanding: u64, settling: f64) -> Self {
        Self {
            outstanding,
            ended: 0,
            elapsed_ns: 0,
            settling,
            least_ns: 1,
            seen: vec![Batches::default(); limits],
            windows: 0,
            length_ns: 0,
            planned: 0,
            completed: 0,
            succeeded: 0,
            service_sum_ns: 0,
            queued: (0, 0),
            first: outstanding,
            last: outstanding,
            plain: 0,
            collapsed: 0,
            unfit: 0,
            now: Now::default(),
        }
    }

    /// Takes in a window; `usual_ns` is what an answer takes, once that is known. Whether it is one that
    /// is judged. The change of the rate falls into the first window. With more under way than `queue` some of it
    /// waits.
    pub(super) fn push(
        &mut self,
        window: &Window,
        broken: &[Broken],
        usual_ns: Option<f64>,
        queue: f64,
    ) -> bool {
        let settling_ns = usual_ns.map(|usual_ns| usual_ns * self.settling);
        let settled = self.elapsed_ns >= self.least_ns
            && settling_ns.is_some_and(|settling_ns| self.elapsed_ns as f64 >= settling_ns)
            && self.ended >= self.outstanding;
        self.elapsed_ns += window.length_ns;
        self.now = Now {
            completed: window.completed(),
            succeeded_tps: window.succeeded as f64 * 1e9 / window.length_ns as f64,
            shares: broken.iter().map(|broken| broken.share().unwrap_or(0.0)).collect(),
        };
        self.ended += window.completed() + window.cancelled + window.missed;
        let before = std::mem::replace(
            &mut self.last,
            u64::from(window.in_flight).saturating_add(window.backlog),
        );
        if before.min(self.last) as f64 > queue {
            self.queued.0 += window.completed();
            self.queued.1 += window.length_ns;
        }
        if !settled {
            return false;
        }
        if self.windows == 0 {
            self.first = before;
        }
        self.windows += 1;
        self.length_ns += window.length_ns;
        self.completed += window.completed();
        self.succeeded += window.succeeded;
        self.service_sum_ns += window.service_sum_ns;
        self.planned += window.planned;
        for (seen, broken) in self.seen.iter_mut().zip(broken) {
            seen.push(*broken);
        }
        true
    }

    /// The rate did not change with the last window.
    pub(super) fn is_under_way(&self) -> bool {
        self.elapsed_ns > 0
    }

    /// Nothing is judged for so long in any case.
    pub(super) fn settles_for(&mut self, least_ns: u64) {
        self.least_ns = least_ns;
    }

    /// What was under way when the rate was set has ended, or as much.
    pub(super) fn answers_are_its_own(&self) -> bool {
        self.ended >= self.outstanding
    }

    pub(super) fn turned_over(&self, times: u64) -> bool {
        self.ended >= self.outstanding.saturating_mul(times).max(1)
    }

    /// Transactions that could have broken the limit of which the fewest were seen.
    pub(super) fn seen(&self) -> u64 {
        self.seen.iter().map(|seen| seen.sum().of).min().unwrap_or(0)
    }

    pub(super) fn sum(&self, limit: usize) -> Broken {
        self.seen[limit].sum()
    }

    /// Succeeded a second: in the windows that are judged, or in the last one while there are none.
    pub(super) fn succeeded_tps(&self) -> f64 {
        match self.length_ns {
            0 => self.now.succeeded_tps,
            length => self.succeeded as f64 * 1e9 / length as f64,
        }
    }

    /// By how much of its share the last window used a limit.
    pub(super) fn used_now(&self, limit: usize, limits: &[Limit]) -> f64 {
        self.now.shares.get(limit).map_or(0.0, |share| share / limits[limit].share().max(1e-9))
    }

    pub(super) fn judge(&self, limits: &[Limit], confidence: Confidence) -> Finding {
        let Confidence { under_z, over_z } = confidence;
        if self.seen() == 0 {
            return Finding::Open;
        }
        let mut all_under = true;
        for (index, (seen, limit)) in self.seen.iter().zip(limits).enumerate() {
            if seen.interval(over_z, ASSUMED_EFFECT).low > limit.share() {
                return Finding::Over(index);
            }
            all_under &= seen.interval(under_z, ASSUMED_EFFECT).high < limit.share();
        }
        match self.growth() {
            Some(growth) if growth > if self.windows >= GROWS { 0.02 } else { 0.2 } => {
                Finding::Behind
            }
            None if all_under && !self.may_grow() => Finding::Under,
            _ => Finding::Open,
        }
    }

    /// By what share of the arrivals what is under way has grown, if that is more than an accident.
    pub(super) fn growth(&self) -> Option<f64> {
        let grown = self.last.saturating_sub(self.first) as f64;
        // What arrives and what leaves at random differ by this much, as a standard deviation; and
        // what is under way varies by itself.
        let accident = (2.0 * self.planned as f64 + self.last as f64).sqrt();
        let settles = 0.1 * self.first as f64;
        (grown > 3.0 * accident + settles).then_some(grown / self.planned.max(1) as f64)
    }

    /// Whether what is under way has grown so much that it would be overload, if it was no accident.
    fn may_grow(&self) -> bool {
        self.last.saturating_sub(self.first) > 2 + self.planned / 7
    }

    /// The limit that is nearest, and by how much of its share it is used.
    pub(super) fn nearest(&self, limits: &[Limit]) -> Option<(usize, f64)> {
        let used = self.seen.iter().zip(limits).enumerate().filter_map(|(index, (seen, limit))| {
            Some((index, seen.sum().share()? / limit.share().max(1e-9)))
        });
        used.max_by(|one, other| one.1.total_cmp(&other.1))
    }
}

/// The limit that one window surely breaks, with the odds of breaking it so many times those that are allowed.
pub(super) fn plainly_over(seen: &[Broken], limits: &[Limit], factor: f64) -> Option<usize> {
    seen.iter().zip(limits).position(|(seen, limit)| {
        let odds = limit.share() / (1.0 - limit.share()) * factor;
        proportion(*seen, 3.0, 1.0).low > odds / (1.0 + odds)
    })
}
