//! Up while the limits are met, back once one is not, and between the two edges.

use super::super::bracket::{Cause, Edge};
use super::super::probe::{CAREFUL, Confidence, Finding, QUICK};
use super::relief::{MOSTLY, RETREAT};
use super::{Plan, Proven, RateController};
use crate::Limit;

/// Growth per step while the limits are far, and where more than half of one is used.
const FAR: f64 = 2.0;
pub(super) const NEAR: f64 = 1.25;

/// Growth per step on the way back to what the target bore before.
const RETURN: f64 = 4.0;

/// Windows that a probe is longer by for each time that the target did not bear for long what it bore.
const CAUTIOUS: u32 = 5;

/// Descent while not even the lowest rate tried meets the limits.
const DOWN: f64 = 8.0;

/// And while only a part breaks them: at much less load it takes too long to tell which part.
const DOWN_PARTLY: f64 = 4.0;

/// A probe is given up as close to the limit after so many windows.
const LONGEST_PROBE: u32 = 12;

/// Fewest windows for a careful finding: one alone may be an accident.
const SHORTEST_PROBE: u32 = 3;

/// A rate below which a transaction is never behind another one is as good as any lower rate.
const ALONE: f64 = 0.5;

impl RateController {
    pub(super) fn climb(&mut self) {
        // On the way back it is enough that nothing is amiss.
        let returns = self.proven.is_some_and(|proven| self.tps < 0.999 * proven.tps);
        if returns && self.probe.seen() > 0 && self.used() < 1.0 {
            return self.step_up();
        }
        let confidence = if self.floor.is_some() { CAREFUL } else { QUICK };
        let finding = self.judge(confidence);
        if finding == Finding::Under && self.probe.windows < 1 + CAUTIOUS * self.caution {
            return;
        }
        match finding {
            Finding::Over(limit) if self.probe.windows >= SHORTEST_PROBE => {
                self.turn_back(Cause::Limit(limit), self.used());
            }
            Finding::Behind => self.turn_back(self.saturation(), 1.5),
            Finding::Under => self.step_up(),
            Finding::Open if self.probe_is_long() => {
                if let Some((limit, used)) = self.is_no_better() {
                    self.turn_back(Cause::Limit(limit), used);
                } else if self.used() < 1.0 {
                    // Whether that comes of the load, the next step will show.
                    self.step_up();
                } else if let (None, Some((limit, used))) =
                    (self.bracket.low, self.probe.nearest(&self.config.limits))
                {
                    self.turn_back(Cause::Limit(limit), used);
                } else {
                    self.begin_to_measure(self.tps);
                }
            }
            Finding::Over(_) | Finding::Open => {}
        }
    }

    /// Much less load does not help: as many break a limit as did at a much higher rate, nearly.
    fn is_no_better(&self) -> Option<(usize, f64)> {
        let (tps, before) = self.floor?;
        let (limit, used) = self.probe.nearest(&self.config.limits)?;
        let share = used * self.config.limits[limit].share();
        (self.tps <= 1.1 * tps / DOWN_PARTLY && share > before / 2.0).then_some((limit, used))
    }

    pub(super) fn bears(&mut self, used: f64) {
        self.bracket.bears(Edge { tps: self.tps, used, cause: Cause::Nothing, told: None });
        let is_first = self.overloaded.1 == 0 && self.bracket.high.is_none();
        self.owed.bears(self.probe.completed, self.probe.service_sum_ns, is_first);
    }

    pub(super) fn judge(&self, confidence: Confidence) -> Finding {
        match self.probe.judge(&self.config.limits, confidence) {
            Finding::Under | Finding::Open if self.owed.growth().is_some() => Finding::Behind,
            finding => finding,
        }
    }

    /// More becomes due than ends: in time a limit on latency would be broken.
    pub(super) fn saturation(&self) -> Cause {
        let is_latency = |limit: &Limit| matches!(limit, Limit::Latency { .. });
        self.config.limits.iter().position(is_latency).map_or(Cause::Saturation, Cause::Limit)
    }

    pub(super) fn probe_is_long(&self) -> bool {
        let fewest = 200;
        self.probe.windows >= LONGEST_PROBE && self.probe.seen() >= fewest
    }

    pub(super) fn used(&self) -> f64 {
        self.probe.nearest(&self.config.limits).map_or(0.0, |(_, used)| used)
    }

    /// The current rate is borne, as far as can be told.
    pub(super) fn step_up(&mut self) {
        let used = self.used();
        self.bears(used);
        self.floor = None;
        self.descents = 0;
        if self.tps >= f64::from(self.config.max_tps) {
            return self.settle_at_goal();
        }
        let far = FAR.powf(1.0 / f64::from(1 + self.caution));
        let mut next = self.tps * if used < 0.5 { far } else { NEAR.min(far) };
        if let Some(Proven { tps: proven, held }) = self.proven {
            // Back to where it was.
            if self.tps >= 0.999 * proven {
                self.proven = None;
                if held {
                    return self.settle_at(self.tps);
                }
            } else {
                next = (self.tps * RETURN).min(proven);
            }
        }
        // Rates are whole numbers.
        let next = next.max(self.tps + 1.0);
        match self.bracket.high {
            Some(high) if next >= high.tps => self.halve(),
            _ => self.go_to(next, Plan::Climb),
        }
    }

    pub(super) fn narrow(&mut self) {
        let finding = self.judge(CAREFUL);
        if self.probe.windows < SHORTEST_PROBE {
            return;
        }
        match finding {
            Finding::Over(limit) => self.turn_back(Cause::Limit(limit), self.used()),
            Finding::Behind => self.turn_back(self.saturation(), 1.5),
            Finding::Under => {
                self.bears(self.used());
                self.halve();
            }
            Finding::Open if self.probe_is_long() => self.begin_to_measure(self.tps),
            Finding::Open => {}
        }
    }

    /// The current rate is too much.
    pub(super) fn turn_back(&mut self, cause: Cause, used: f64) {
        let queues = self.probe.growth().or(self.owed.growth()).is_some();
        let told = self.probe.succeeded_tps();
        let keeps_up = self.probe.completed as f64 >= 0.9 * self.probe.planned as f64;
        let share = self.probe.nearest(&self.config.limits).and_then(|(limit, _)| {
            let share = self.probe.sum(limit).share()?;
            Some(share)
        });
        let (tps, used) = (self.tps, used.max(1.01));
        let edge = Edge { tps, used, cause, told: self.told(cause, told) };
        self.bracket.breaks(edge);
        // The lower edge was passed too soon, if this is what it does.
        let does_less = |low: &Edge| edge.told.is_some_and(|told| told < 0.95 * low.tps);
        if self.probe.windows >= SHORTEST_PROBE {
            self.bracket.low = self.bracket.low.filter(|low| !does_less(low));
        }
        if queues {
            let (completed, length_ns) = self.probe.queued;
            self.meter(completed, length_ns);
        }
        // A little more than it bore, and most fail: it did not bear that for long.
        let collapsed =
            self.bracket.low.filter(|low| self.probe.collapsed > 0 && tps < 1.3 * low.tps);
        self.estimate = None;
        if let Some(low) = collapsed {
            self.caution += 1;
            let next = low.tps * RETREAT;
            self.recover_to(next, Plan::Climb);
            self.bracket.low = None;
            return;
        }
        self.proven = self.proven.filter(|proven| proven.held);
        match self.bracket.low {
            Some(low) => {
                let (tps, plan) = self.between(low);
                self.recover_to(tps, plan);
            }
            None => self.descend(edge.told, keeps_up, share),
        }
    }

    /// Not even the lowest rate so far is borne.
    pub(super) fn descend(&mut self, told: Option<f64>, keeps_up: bool, share: Option<f64>) {
        // Of what is refused it is told how much is borne, though nothing queues.
        let limit = match self.bracket.high {
            Some(Edge { cause: Cause::Limit(limit), .. }) => Some(&self.config.limits[limit]),
            _ => None,
        };
        let (is_limit, is_latency) =
            (limit.is_some(), matches!(limit, Some(Limit::Latency { .. })));
        let alone = is_latency && told.is_none() && self.tps * self.owed.service_ns() / 1e9 < ALONE;
        if is_limit
            && keeps_up
            && let Some(share) = share
        {
            // Much less load does not help: it is not the load.
            if self.is_no_better().is_some() || alone || self.tps <= 1.0 {
                return self.give_up(share);
            }
            if self.floor.is_none_or(|(tps, _)| self.tps < tps) {
                self.floor = Some((self.tps, share));
            }
        } else if self.tps <= 1.0 {
            return self.give_up(share.unwrap_or(1.0));
        }
        // Once by little: much less says more of whether it is the load, but is far from where it can be.
        let next = match (self.descents, told) {
            (0, Some(told)) => 0.9 * told,
            (_, Some(told)) if !keeps_up => 0.8 * told,
            (0, None) => self.tps / FAR,
            _ if share.is_some_and(|share| share < MOSTLY) => self.tps / DOWN_PARTLY,
            _ => self.tps / DOWN,
        };
        let next = next.max(self.tps / DOWN);
        self.descents += 1;
        self.recover_to(next, Plan::Climb);
    }

    /// Next rate of the search between the two edges.
    pub(super) fn halve(&mut self) {
        let Some(low) = self.bracket.low else { return };
        let (tps, plan) = self.between(low);
        self.go_to(tps, plan);
    }

    /// What comes next between the edges.
    pub(super) fn between(&mut self, low: Edge) -> (f64, Plan) {
        let Some(high) = self.bracket.high else { return (low.tps * FAR, Plan::Climb) };
        if self.bracket.is_narrow() {
            return self.measured_between(low, high);
        }
        let guess = self.bracket.guess(low, high);
        // Rates are whole numbers, and these are two apart at least.
        (guess.round().clamp(low.tps + 1.0, high.tps - 1.0), Plan::Narrow)
    }

    /// Takes note of what a target does while more is due.
    pub(super) fn meter(&mut self, completed: u64, length_ns: u64) {
        self.overloaded.0 += completed;
        self.overloaded.1 += length_ns;
    }

    /// What it does then, transactions a second, and how sure that is, as a share; `None` if it was not
    /// seen for long.
    pub(super) fn does(&self) -> Option<(f64, f64)> {
        let (completed, length_ns) = self.overloaded;
        let tps = completed as f64 * 1e9 / length_ns.max(1) as f64;
        (completed >= 200).then(|| (tps, 1.0 / (completed as f64).sqrt()))
    }

    /// The rate at which a limit should just be met, if a target that is asked for more does so many
    /// a second.
    pub(super) fn told(&self, cause: Cause, succeeded_tps: f64) -> Option<f64> {
        let told = match cause {
            // So many more may fail.
            Cause::Limit(limit) => match self.config.limits[limit] {
                Limit::ErrorRate(share) => succeeded_tps / (1.0 - share),
                Limit::Latency { .. } => succeeded_tps * 0.99,
            },
            _ => succeeded_tps,
        };
        (told > 0.0 && told < 0.97 * self.tps).then_some(told)
    }
}
