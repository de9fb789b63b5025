//! Close to the limit: rounds at rates a little below and above the estimate, until its interval is
//! narrow.

use super::super::bracket::{Cause, Edge};
use super::super::estimate::{Fit, Prior, RateEstimate, Sought};
use super::{Plan, RateController, SETTLING};
use crate::rate::interval::proportion;
use crate::rate::probe::{GROWS, Probe};
use crate::rate::{Broken, Limit, SearchEnd};

/// How steeply limits are usually broken: errors beyond a hard capacity by the 30th power of the rate at
/// 3 %, the latency of a queue by the 5th to 20th.
pub(super) const USUAL_STEEPNESS: f64 = 20.0;

/// Standard deviation of the limit's logarithm before it is measured: half of the bracket, and no less; and without one.
const CLOSEST: f64 = 0.03;
const UNKNOWN: f64 = 0.2;

/// Rounds lie this far from the estimate, in turn: parts of what the use of the limit doubles by.
const TURNS: [f64; 6] = [0.0, 1.0, -1.0, 1.0, -1.0, 0.0];

/// No farther than this share of the rate.
const FARTHEST: f64 = 0.04;

/// The estimate is moved by no more than this in a round.
const LARGEST_STEP: f64 = 0.06;

/// A round lasts until so many transactions should have broken the limit, or for so many windows.
const LONGEST_ROUND: u32 = 20;
const EXPECTED: f64 = 12.0;

/// One in so many of the transactions within a relaxation time tells something new.
const RESEMBLES: f64 = 0.7;

/// A queue that was empty takes longer to come to its length than an answer takes; and a target that refuses
/// may have credit, which it uses up a little beyond its capacity.
const REFILLS_NS: u64 = 400_000_000;
const CREDIT_NS: u64 = 1_500_000_000;
/// Fewest rounds.
const ROUNDS: u32 = 5;

/// It is narrow enough at this half width, or after the longest time; and not before the shortest, since whoever
/// stops as soon as it seems narrow stops where it seems so by chance.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// Fewest windows of a round.
    round: u32,
    /// And fewest relaxation times of a queue.
    relaxes: f64,
    enough: f64,
    shortest_ns: u64,
    longest_ns: u64,
    /// It takes so many relaxation times or service times longer, but no longer than this by more.
    longer: f64,
    longer_ns: f64,
}

const QUICKLY: Patience = Patience {
    round: 6,
    relaxes: 0.0,
    enough: 0.025,
    shortest_ns: 0,
    longest_ns: 4_000_000_000,
    longer: 20.0,
    longer_ns: 40e9,
};

/// Where the rate is all that the run is for.
const CAREFULLY: Patience = Patience {
    round: 8,
    relaxes: 3.0,
    enough: 0.02,
    shortest_ns: 5_000_000_000,
    longest_ns: 8_000_000_000,
    longer: 20.0,
    longer_ns: 10e9,
};

/// Rounds in a row without any use of the limit, after which it is sought anew.
const MOST_ASTRAY: u32 = 3;

/// A target that pauses is measured for so long, where the rate is all that the run is for.
const LONG_ENOUGH_FOR_PAUSES_NS: u64 = 40_000_000_000;

/// An interval this wide says nothing.
const TOO_WIDE: f64 = 0.25;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Measurement {
    round: u32,
    begun_ns: u64,
    /// Around which rate.
    center: f64,
    limit: usize,
    prior: Prior,
    /// Rounds in a row that say that the limit is elsewhere.
    astray: u32,
}

impl RateController {
    /// What comes after a narrow bracket.
    pub(super) fn measured_between(&mut self, low: Edge, high: Edge) -> (f64, Plan) {
        if !matches!(high.cause, Cause::Limit(_)) && !self.bracket.is_confirmed() {
            // Once may be an accident.
            return (high.tps, Plan::Narrow);
        }
        match high.cause {
            Cause::Generator { busy } => {
                (self.bound_by, self.saturated) = (None, false);
                self.end = Some(SearchEnd::Generator { tps: low.tps, busy });
                (low.tps, Plan::Hold(super::Hold::default()))
            }
            Cause::Instances => {
                (self.bound_by, self.saturated) = (None, false);
                self.end = Some(SearchEnd::Instances { tps: low.tps });
                (low.tps, Plan::Hold(super::Hold::default()))
            }
            Cause::Saturation => {
                (self.bound_by, self.saturated) = (None, true);
                let tps = self.does().map_or(low.tps, |(tps, _)| 0.995 * tps);
                self.end = Some(SearchEnd::Saturated { tps });
                (tps, Plan::Hold(super::Hold::default()))
            }
            Cause::Limit(_) | Cause::Nothing => {
                let center = self.bracket.guess(low, high);
                let measurement = self.measurement(center);
                (center, Plan::Measure(measurement))
            }
        }
    }

    /// How steeply the limit is broken, as far as that is known before it is measured.
    fn steepness_before(&self, limit: usize) -> f64 {
        let usual = match self.config.limits[limit] {
            // What is beyond a hard capacity fails.
            Limit::ErrorRate(share) => (1.0 / share).min(300.0),
            Limit::Latency { .. } => USUAL_STEEPNESS,
        };
        let (Some(low), Some(high)) = (self.bracket.low, self.bracket.high) else { return usual };
        let used = high.used.clamp(1.01, 20.0) / low.used.clamp(0.05, 0.99);
        let seen = used.ln() / (high.tps / low.tps).ln().max(1e-3);
        (seen.clamp(2.0, 200.0) * usual).sqrt()
    }

    fn measurement(&mut self, center: f64) -> Measurement {
        let limit = match self.bracket.high {
            Some(Edge { cause: Cause::Limit(limit), .. }) => limit,
            _ => self.probe.nearest(&self.config.limits).map_or(0, |(limit, _)| limit),
        };
        let steepness = self.steepness_before(limit);
        self.steepness = steepness;
        let deviation = match (self.bracket.low, self.bracket.high) {
            (Some(low), Some(high)) => ((high.tps / low.tps).ln() / 2.0).max(CLOSEST),
            _ => UNKNOWN,
        };
        let prior = Prior { ln_tps: center.ln(), deviation, steepness };
        Measurement { round: 0, begun_ns: self.owed.now_ns(), center, limit, prior, astray: 0 }
    }

    /// The search has come down to about this rate.
    pub(super) fn begin_to_measure(&mut self, tps: f64) {
        let measurement = self.measurement(tps);
        self.go_to(tps, Plan::Measure(measurement));
    }

    /// How far around a rate blocks count.
    fn reach(&self) -> f64 {
        (5.0 * self.offset()).max(0.06)
    }

    fn offset(&self) -> f64 {
        (2_f64.ln() / self.steepness).clamp(0.005, FARTHEST)
    }

    fn patience(&self) -> Patience {
        if self.config.until_found { CAREFULLY } else { QUICKLY }
    }

    /// What was seen so soon after a much lower rate says nothing of this one.
    pub(super) fn refills_ns(&self, measurement: &Measurement) -> u64 {
        match self.config.limits[measurement.limit] {
            Limit::ErrorRate(_) if self.config.until_found => CREDIT_NS,
            Limit::ErrorRate(_) => REFILLS_NS,
            Limit::Latency { .. } => REFILLS_NS,
        }
    }

    /// For how long windows resemble each other in how they break a limit.
    fn relaxes_ns(&self, limit: usize) -> f64 {
        match self.config.limits[limit] {
            Limit::Latency { .. } if self.config.until_found => self.relaxation.time_ns(),
            // Of a run that goes on more will be seen while it holds.
            _ => 0.0,
        }
    }

    fn fit(&self, limit: usize, near: f64, prior: Prior) -> Option<Fit> {
        let Self { config, tps, .. } = self;
        let share = config.limits[limit].share();
        let (refuses, resembles) = match config.limits[limit] {
            Limit::ErrorRate(_) => (true, 1.0),
            // Of a queue, what comes within its relaxation time breaks the limit together, mostly.
            Limit::Latency { .. } => (false, RESEMBLES * tps * self.relaxes_ns(limit) / 1e9),
        };
        let sought = Sought { limit, share, refuses, resembles };
        self.evidence.fit(sought, near.ln(), self.reach(), prior)
    }

    /// A window of a round was judged.
    pub(super) fn measure(&mut self) {
        let Plan::Measure(measurement) = &self.plan else { return };
        let limit = measurement.limit;
        let share = self.config.limits[limit].share();
        let odds = share.min(1.0 - share);
        let seen = self.probe.sum(limit);
        let expects = seen.of as f64 * odds >= EXPECTED;
        let lasts_ns = (2.0 * self.owed.service_ns())
            .max(self.patience().relaxes * self.relaxes_ns(limit)) as u64;
        let grows = self.probe.growth().or(self.owed.growth()).is_some();
        if self.probe.windows >= GROWS && grows {
            return self.queue_grows(limit);
        }
        let whole = self.probe.windows >= self.patience().round && self.probe.length_ns >= lasts_ns;
        if !(whole && (expects || self.probe.windows >= LONGEST_ROUND && seen.of >= 10)) {
            return;
        }
        self.end_round(seen);
    }

    /// More becomes due than ends: what ends is what it can do, and in time the limit would be broken.
    fn queue_grows(&mut self, limit: usize) {
        let (completed, length_ns) = self.probe.queued;
        self.meter(completed, length_ns);
        let told = self.does().map_or(self.tps, |(tps, _)| tps);
        if matches!(self.config.limits[limit], Limit::Latency { .. }) {
            self.evidence.overrule(limit);
        }
        let seen = self.probe.sum(limit);
        self.end_round(seen);
        if self.relief.is_some() {
            return;
        }
        let Plan::Measure(measurement) = &mut self.plan else { return };
        measurement.center = measurement.center.min(told);
        let next = self.tps.min(told * (1.0 - self.offset() / 2.0));
        let plan = std::mem::replace(&mut self.plan, Plan::Climb);
        self.recover_to(next, plan);
    }

    /// A round has ended: where the next one is, or that there is none.
    pub(super) fn end_round(&mut self, seen: Broken) {
        let Plan::Measure(measurement) = &mut self.plan else { return };
        measurement.round += 1;
        let (limit, center, round) = (measurement.limit, measurement.center, measurement.round);
        let (begun_ns, prior) = (measurement.begun_ns, measurement.prior);
        let limit_share = self.config.limits[limit].share();
        let used = seen.share().unwrap_or(0.0) / limit_share;
        let is_error = matches!(self.config.limits[limit], Limit::ErrorRate(_));
        let below = self.bracket.low.is_some_and(|low| low.tps < 0.97 * self.tps);
        if is_error && below && proportion(seen, 3.0, 2.0).low > 2.0 * limit_share {
            // Errors come of the load alone, not of what is left of it: this is not near.
            return self.turn_back(Cause::Limit(limit), used);
        }
        let overloads = self.does().is_some_and(|(does, _)| self.tps > 0.95 * does);
        let Plan::Measure(measurement) = &mut self.plan else { return };
        let is_far = !overloads && used < 0.2 && seen.of as f64 * limit_share >= EXPECTED;
        if !is_far {
            measurement.astray = 0;
        } else if self.tps >= center * 0.999 {
            // Below the center it is to be expected.
            measurement.astray += 1;
        }
        let astray = measurement.astray;
        if astray > MOST_ASTRAY {
            return self.climb_on();
        }
        let fit = self.fit(limit, center, prior);
        let mut next = center;
        if let Some(fit) = fit {
            // The farther, the longer it has been the same way.
            let most = LARGEST_STEP * f64::from(1 << astray.min(4));
            let step = (fit.estimate.tps / center).ln().clamp(-LARGEST_STEP, most);
            next = center * step.exp();
            let Patience { enough, shortest_ns, mut longest_ns, longer, longer_ns, .. } =
                self.patience();
            let forgets_ns = self.owed.service_ns().max(self.relaxes_ns(limit));
            longest_ns += (longer * forgets_ns).min(longer_ns) as u64;
            let pauses = self.config.until_found && !self.pauses.is_empty();
            if pauses {
                // Some more of them have to be seen.
                longest_ns = longest_ns.max(LONG_ENOUGH_FOR_PAUSES_NS);
            }
            let is_off = if self.config.until_found { fit.is_at_edge } else { fit.is_beyond };
            let narrow = !pauses && fit.estimate.uncertainty() <= enough && !is_off;
            let took_ns = self.owed.now_ns() - begun_ns;
            let is_long = took_ns >= longest_ns;
            if round >= ROUNDS && (is_long || narrow && took_ns >= shortest_ns) {
                return self.found(limit, fit);
            }
        }
        let most = f64::from(self.config.max_tps);
        let does = self.does().map_or(most, |(tps, unsure)| tps * (1.0 + unsure));
        let next = next.min(most).min(does);
        if let Plan::Measure(measurement) = &mut self.plan {
            measurement.center = next;
        }
        let turn = TURNS[round as usize % TURNS.len()];
        self.set_tps(next * (turn * self.offset()).exp());
        self.begin_round();
        if self.owed.is_swamped(self.tps) {
            let next = self.tps;
            let plan = std::mem::replace(&mut self.plan, Plan::Climb);
            self.recover_to(next, plan);
        }
    }

    /// What was too much before was an accident.
    fn climb_on(&mut self) {
        self.bracket.high = None;
        self.floor = None;
        self.bears(self.used());
        self.go_to(self.tps * super::climb::NEAR, Plan::Climb);
    }

    pub(super) fn begin_round(&mut self) {
        self.evidence.close();
        self.relaxation.close();
        let limits = self.config.limits.len();
        // A queue near its limit takes time to find its new length.
        self.probe = Probe::new(limits, self.owed.under_way, 2.0 * SETTLING);
    }

    fn found(&mut self, limit: usize, fit: Fit) {
        let is_off = if self.config.until_found { fit.is_at_edge } else { fit.is_beyond };
        if is_off && fit.seen.share() > Some(self.config.limits[limit].share()) {
            // Not even the lowest rate was borne. If that was the lower edge, it was an accident.
            let near = |low: &Edge| low.tps > 0.94 * self.tps;
            self.bracket.low = self.bracket.low.filter(|low| !near(low));
            return self.turn_back(Cause::Limit(limit), 2.0);
        }
        let refuses = matches!(self.config.limits[limit], Limit::ErrorRate(_));
        if refuses && !fit.depends {
            // It is not the load, as it seems.
            if fit.seen.share() <= Some(self.config.limits[limit].share()) {
                return self.climb_on();
            }
            if self.config.until_found {
                // Much less of it will show.
                self.bracket.low = None;
                self.floor = Some((self.tps, fit.seen.share().unwrap_or(1.0)));
                return self.turn_back(Cause::Limit(limit), 2.0);
            }
        }
        let mut estimate = fit.estimate;
        let mut says_something = !fit.is_at_edge && estimate.uncertainty() < TOO_WIDE;
        let share = self.config.limits[limit].share();
        let none_over = self.bracket.high.is_none() && fit.seen.share() < Some(share);
        if let Some((does, unsure)) = self.does().filter(|&(does, _)| estimate.tps > 0.98 * does) {
            // It is a queue that breaks the limit, and what comes out of it is known better.
            let half = 2.0 * unsure + 0.01;
            let (low, tps) = (does * (1.0 - half), does * (1.0 - 0.25 * half));
            estimate = RateEstimate { tps, low, high: does * (1.0 + half) };
            says_something = true;
        } else if none_over || proportion(fit.seen, 2.0, 2.0).high < share {
            // It is kept even at the highest rate tried: what was too much before was an accident.
            return self.climb_on();
        }
        if estimate.tps >= f64::from(self.config.max_tps) {
            self.set_tps(f64::from(self.config.max_tps));
            return self.settle_at_goal();
        }
        (self.bound_by, self.saturated) = (Some(limit), false);
        self.steepness = fit.steepness;
        let tps = estimate.tps;
        self.estimate = says_something.then_some(estimate);
        let pauses_too_long = self.paused() >= self.config.limits[limit].share();
        self.end = match self.unstable() {
            Some(unstable) if pauses_too_long && self.config.until_found => Some(unstable),
            _ => Some(SearchEnd::Found { tps }),
        };
        self.settle_at(tps);
    }

    /// Takes up what has been seen since; the estimate for the rate that is held.
    pub(super) fn refit(&self, limit: usize) -> Option<Fit> {
        let prior = Prior { ln_tps: self.tps.ln(), deviation: UNKNOWN, steepness: self.steepness };
        self.fit(limit, self.tps, prior)
    }
}
