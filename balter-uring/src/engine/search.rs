//! A run whose rate is searched for: what its windows say of its limits, and the part of it that
//! counts as steady.

use std::time::Duration;

use balter_controllers::{
    Broken, Limit, RateConfig, RateController, RateDecision, RateState, SearchEnd, Window,
};

use super::recorder::{Bucket, histogram};
use super::window::ShardWindow;
use crate::config::RunConfig;
use crate::failure::generator_faults;
use crate::statistics::{Capacity, Latencies, RatePoint, SearchStatistics, Steady};

/// See the module's documentation.
pub(super) struct Search {
    controller: RateController,
    limits: Vec<Limit>,
    /// Of the current tick, for each limit.
    broken: Vec<Broken>,
    /// What the windows of this tick add, should they turn out to be steady.
    pending: Part,
    steady: Part,
    /// Windows to come that belong to the rate before.
    unsteady: u32,
    points: Vec<RatePoint>,
    /// Windows in which the rate has been held, of those it is to be before the run ends.
    held: u32,
    until_found: bool,
    /// The rate that was held last, and whether the search has begun anew since.
    held_tps: u32,
    has_changed: bool,
    /// Windows in a row in which instances were wanting, and what the last one completed.
    wanting: u32,
    completed: u64,
}

/// A run that has nothing to do but to find the rate holds the rate for so many windows before it ends, to show that it can be held.
const SHOWN: u32 = 20;

/// Rates that are kept for the statistics. A search visits some twenty, a long run with a drifting
/// target one every few seconds.
const MOST_POINTS: usize = 10_000;

/// Instances are granted for so many times the time that a transaction is in the system.
const MARGIN: f64 = 2.0;

/// A target is taken to need no less than this.
const LEAST_NS: f64 = 5e6;

/// At most so many windows in a row are excused by instances that have yet to be started.
const WANTING: u32 = 10;

/// A rate that is held again is the same within this.
const SAME_RATE: f64 = 0.02;

/// A part of the run.
struct Part {
    length_ns: u64,
    succeeded: u64,
    failed: u64,
    spoilt: u64,
    response: Latencies,
    lateness: Latencies,
    broken: Vec<Broken>,
}

impl Part {
    fn new(limits: usize) -> Self {
        Self {
            length_ns: 0,
            succeeded: 0,
            failed: 0,
            spoilt: 0,
            response: Latencies::new(histogram()),
            lateness: Latencies::new(histogram()),
            broken: vec![Broken::default(); limits],
        }
    }
}

/// How a search ended.
pub(super) struct Ended {
    pub(super) decision: RateDecision,
    pub(super) steady: Option<Steady>,
    /// The limit that bounds the rate, and what was seen of it in the steady part.
    pub(super) bound_by: Option<(Limit, Broken)>,
    pub(super) search: SearchStatistics,
}

impl Search {
    pub(super) fn new(config: &RunConfig, max_tps: u32) -> Self {
        let limits = config.limits.clone();
        let controller = RateController::new(RateConfig {
            limits: limits.clone(),
            start_tps: config.start_tps,
            max_tps,
            max_in_flight: config.max_concurrency,
            until_found: config.until_found,
            budget_ns: 0,
        });
        let count = limits.len();
        Self {
            controller,
            limits,
            broken: vec![Broken::default(); count],
            pending: Part::new(count),
            steady: Part::new(count),
            unsteady: 0,
            points: Vec::new(),
            held: 0,
            until_found: config.until_found,
            held_tps: 0,
            has_changed: true,
            wanting: 0,
            completed: 0,
        }
    }

    pub(super) fn decision(&self) -> RateDecision {
        self.controller.decision()
    }

    /// Takes in one shard's window of the current tick.
    pub(super) fn window(&mut self, window: &ShardWindow) {
        let spoilt = generator_faults(&window.failures);
        let (succeeded, failed) = (window.succeeded(), window.failed());
        for (broken, limit) in self.broken.iter_mut().zip(&self.limits) {
            match *limit {
                // What the generator failed at is not the target's doing.
                Limit::ErrorRate(_) => {
                    broken.over += failed - spoilt;
                    broken.of += succeeded + failed - spoilt;
                }
                // What never began, or was given up, was not answered in time either; what the generator
                // itself was too late for says nothing.
                Limit::Latency { bound_ns, .. } => {
                    let unanswered =
                        window.missed.saturating_sub(window.stalled) + window.cancelled();
                    broken.over += window.slow_or_failed(Bucket::of(bound_ns)) + unanswered;
                    broken.of += succeeded + failed + unanswered;
                }
                _ => {}
            }
        }
        if self.controller.decision().state == RateState::Holding && self.unsteady == 0 {
            self.pending.succeeded += succeeded;
            self.pending.failed += failed;
            self.pending.spoilt += spoilt;
            if let Some(lateness) = &window.lateness {
                lateness.add_to(self.pending.lateness.histogram_mut());
            }
            for transaction in window.transactions() {
                let response = transaction.open.as_ref().map(|open| &open.response);
                let response = response.unwrap_or(&transaction.service);
                response.add_to(self.pending.response.histogram_mut());
            }
        }
    }

    /// Whether transactions wait because the generator is still starting instances: more of them
    /// do more. What waits then says nothing of the target.
    fn is_wanting(&mut self, window: &Window, starting: bool) -> bool {
        let before = std::mem::replace(&mut self.completed, window.completed());
        let grows = window.completed() > before + before / 10;
        let waits = window.backlog > window.planned / 50;
        self.wanting = if starting && waits && grows { self.wanting + 1 } else { 0 };
        (1..=WANTING).contains(&self.wanting)
    }

    /// All shards have told of the tick; `starting` says whether more instances were granted.
    pub(super) fn tick(&mut self, window: &Window, starting: bool) -> RateDecision {
        let before = self.controller.decision();
        // A rate that is held has been measured, and its windows count.
        if self.is_wanting(window, starting) && before.state != RateState::Holding {
            self.broken.fill(Broken::default());
            return self.controller.pass_over(window);
        }
        if before.state == RateState::Holding {
            if self.unsteady > 0 {
                self.unsteady -= 1;
            } else {
                let (pending, steady) = (&mut self.pending, &mut self.steady);
                steady.length_ns += window.length_ns;
                steady.succeeded += std::mem::take(&mut pending.succeeded);
                steady.failed += std::mem::take(&mut pending.failed);
                steady.spoilt += std::mem::take(&mut pending.spoilt);
                for (times, sum) in [
                    (&mut pending.response, &mut steady.response),
                    (&mut pending.lateness, &mut steady.lateness),
                ] {
                    let times = times.histogram_mut();
                    sum.histogram_mut().add(&*times).expect("all histograms have one shape");
                    times.reset();
                }
                for (sum, broken) in steady.broken.iter_mut().zip(&self.broken) {
                    sum.over += broken.over;
                    sum.of += broken.of;
                }
            }
        }
        self.visit(before, window);
        let decision = self.controller.update(window, &self.broken);
        self.has_changed |= self.controller.end().is_none();
        self.held = if decision.state == RateState::Holding { self.held + 1 } else { 0 };
        self.broken.fill(Broken::default());
        if decision.state == RateState::Holding && before.state != RateState::Holding {
            // What was steady before a change of the target is no more. A pause is none, if it comes back
            // to the rate.
            let off = f64::from(decision.tps) / f64::from(self.held_tps.max(1)) - 1.0;
            if self.has_changed || off.abs() > SAME_RATE {
                self.steady = Part::new(self.limits.len());
            }
            (self.held_tps, self.has_changed) = (decision.tps, false);
            self.unsteady = 1;
        }
        decision
    }

    /// Forgets the windows since the last tick.
    pub(super) fn pass_over(&mut self) {
        self.broken.fill(Broken::default());
        self.pending = Part::new(self.limits.len());
    }

    /// Instances that the rate may need: with fewer, transactions would wait for the generator and
    /// the target be blamed. Beyond the longest latency that is allowed none is of use; without such
    /// a limit, what the target takes now and some more. Shards start no more of them than they need.
    pub(super) fn instances(&self, window: &Window) -> u32 {
        let bounds = self.limits.iter().filter_map(|limit| match *limit {
            Limit::Latency { bound_ns, .. } => Some(bound_ns as f64 * MARGIN),
            _ => None,
        });
        let takes_ns = window.mean_service_ns().unwrap_or(0.0).max(LEAST_NS) * 2.0 * MARGIN;
        let in_system_ns = bounds.reduce(f64::max).unwrap_or(takes_ns);
        // Saturating, as a conversion to an integer is.
        (f64::from(self.decision().tps) * in_system_ns / 1e9).ceil() as u32
    }

    /// Notes what the window showed under the rate that it was asked for.
    fn visit(&mut self, decision: RateDecision, window: &Window) {
        let RateDecision { tps, state, .. } = decision;
        if !self.points.last().is_some_and(|point| (point.tps, point.state) == (tps, state))
            && self.points.len() < MOST_POINTS
        {
            let broken = vec![Broken::default(); self.limits.len()];
            self.points.push(RatePoint { tps, state, broken, ..RatePoint::default() });
        }
        let Some(point) = self.points.last_mut() else { return };
        point.elapsed += Duration::from_nanos(window.length_ns);
        point.completed += window.completed();
        for (sum, broken) in point.broken.iter_mut().zip(&self.broken) {
            sum.over += broken.over;
            sum.of += broken.of;
        }
    }

    /// The rate was to be found and has been.
    pub(super) fn is_done(&self) -> bool {
        let has_ended = self.controller.end().is_some_and(|end| match end {
            // To be shown that it can be held.
            SearchEnd::Found { .. } | SearchEnd::GoalReached | SearchEnd::Saturated { .. } => {
                self.held > SHOWN
            }
            _ => true,
        });
        self.until_found && has_ended
    }

    pub(super) fn end(self) -> Ended {
        let decision = self.controller.decision();
        let Part { length_ns, succeeded, failed, spoilt, response, lateness, broken } = self.steady;
        let steady = (length_ns > 0).then(|| Steady {
            elapsed: Duration::from_nanos(length_ns),
            succeeded,
            failed,
            spoilt,
            response,
            lateness,
        });
        let bound_by = decision.bound_by.map(|index| (self.limits[index], broken[index]));
        // What was held before the search began anew is no longer known to be borne.
        let is_held = steady.is_some() && decision.state == RateState::Holding;
        let capacity = is_held.then(|| {
            let held = f64::from(decision.tps);
            let estimate = self.controller.estimate();
            Capacity {
                tps: estimate.map_or(held, |estimate| estimate.tps),
                interval: estimate.map(|estimate| (estimate.low, estimate.high)),
                bound_by: bound_by.map(|(limit, _)| limit),
            }
        });
        let end = self.controller.end();
        let search = SearchStatistics { limits: self.limits, points: self.points, capacity, end };
        Ended { decision, steady, bound_by, search }
    }

    /// Whether one of the limits is on latencies, and whether one is on errors.
    pub(super) fn kinds(&self) -> (bool, bool) {
        let latency = |limit: &Limit| matches!(limit, Limit::Latency { .. });
        (self.limits.iter().any(latency), !self.limits.iter().all(latency))
    }
}
