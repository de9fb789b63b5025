//! At the rate found: corrections in proportion to what is seen, and what tells that the target has changed.

use std::collections::VecDeque;

use super::super::bracket::{Bracket, Cause, Edge};
use super::super::estimate::logit;
use super::relief::{GENTLE, RELIEF};
use super::{Plan, RateController};
use crate::Window;
use crate::rate::interval::proportion;
use crate::rate::probe::GROWS;
use crate::rate::{Broken, SearchEnd};

/// Windows that are looked at together for a sudden change, and how sure it must be.
const SUDDEN: usize = 5;
const SURE: f64 = 4.0;

/// Windows after which a target that does better is taken to have grown.
const BETTER: u32 = 40;

/// The estimate is looked at after so many windows.
const LOOK: u32 = 20;

/// What is older counts no more while holding.
const REMEMBERED_NS: u64 = 30_000_000_000;

/// Steps up: small ones, until the target has done better so many times in a row; then twice as large each time.
const FIRST_RAISE: f64 = 0.01;
const SMALL_RAISES: u32 = 3;
const LARGEST_RAISE: f64 = 0.25;

/// Largest step down by a limit on latency: a queue near its capacity meets it by being far beyond it now and
/// then, and one that is overloaded grows, which is seen by itself.
const EASED: f64 = 0.015;

/// What is under way grows by so much of what becomes due: the target does much less than before.
const MUCH: f64 = 0.15;

/// A limit that is broken again so soon after relief was not an accident.
const SOON_NS: u64 = 5_000_000_000;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Hold {
    /// The last windows.
    last: VecDeque<Seen>,
    /// Steps up in a row.
    raises: u32,
    /// When the target was last relieved.
    relieved_ns: Option<u64>,
    /// A rate that was too much, when it may be tried again, and how long that was put off.
    ceiling: Option<Ceiling>,
}

/// A window.
#[derive(Debug)]
struct Seen {
    broken: Vec<Broken>,
    planned: u64,
    /// At its end.
    under_way: u64,
}

#[derive(Clone, Copy, Debug)]
struct Ceiling {
    tps: f64,
    until_ns: u64,
    put_off_ns: u64,
}

/// A rate at which a queue grew is tried again after this, and each time after twice as long.
const PUT_OFF_NS: u64 = 30_000_000_000;
const LONGEST_PUT_OFF_NS: u64 = 120_000_000_000;

impl Hold {
    /// By what share of what became due the amount under way has grown in the last windows, if that is more than
    /// an accident.
    fn growth(&self) -> Option<f64> {
        let (first, last) = (self.last.front()?, self.last.back()?);
        let planned: u64 = self.last.iter().skip(1).map(|seen| seen.planned).sum();
        let grown = last.under_way.saturating_sub(first.under_way) as f64;
        let accident = (2.0 * planned as f64 + last.under_way as f64).sqrt();
        (grown > 3.0 * accident).then_some(grown / planned.max(1) as f64)
    }

    /// A rate was too much.
    fn puts_off(&mut self, tps: f64, now_ns: u64) {
        self.raises = 0;
        self.last.clear();
        let again = self.ceiling.filter(|ceiling| (tps / ceiling.tps - 1.0).abs() < 0.05);
        let put_off_ns = again.map_or(PUT_OFF_NS, |ceiling| 2 * ceiling.put_off_ns);
        let put_off_ns = put_off_ns.min(LONGEST_PUT_OFF_NS);
        self.ceiling = Some(Ceiling { tps, until_ns: now_ns + put_off_ns, put_off_ns });
    }
}

impl RateController {
    /// A limit is plainly broken where the rate was about right.
    pub(super) fn overrun(&mut self, limit: usize) {
        let now_ns = self.owed.now_ns();
        let tps = self.tps;
        let plan = std::mem::replace(&mut self.plan, Plan::Climb);
        let collapsed = self.probe.collapsed >= 2;
        let recent = match &plan {
            Plan::Hold(hold) => {
                hold.relieved_ns.is_some_and(|relieved| now_ns - relieved < SOON_NS)
            }
            _ => false,
        };
        match plan {
            Plan::Measure(measurement) if !collapsed => {
                // It is in the evidence; what comes next depends on how far off it is.
                self.plan = Plan::Measure(measurement);
                let seen = self.probe.sum(limit);
                self.end_round(seen);
                if self.relief.is_some() || !matches!(self.plan, Plan::Measure(_)) {
                    return;
                }
                let plan = std::mem::replace(&mut self.plan, Plan::Climb);
                let next = self.tps;
                self.recover_to(next, plan);
            }
            Plan::Hold(mut hold) if !recent && !collapsed => {
                // One excursion is no change: the same rate again.
                hold.relieved_ns = Some(now_ns);
                hold.last.clear();
                self.recover_to(tps, Plan::Hold(hold));
                self.set_tps(tps * RELIEF * 0.75);
            }
            plan => {
                let held = matches!(plan, Plan::Hold(_));
                self.collapse(held);
            }
        }
    }

    /// The target has changed. What it still does tells where to look.
    fn collapse(&mut self, held: bool) {
        let (now_ns, tps, told) = (self.owed.now_ns(), self.tps, self.probe.now.succeeded_tps);
        let cause = self.bound_by.map_or(self.saturation(), Cause::Limit);
        self.estimate = None;
        self.end = None;
        self.evidence.forget();
        self.relaxation.forget();
        self.overloaded = (0, 0);
        self.floor = None;
        self.bracket = Bracket::default();
        if told < 0.02 * tps {
            self.proven = Some(super::Proven { tps, held });
            return self.go_to((tps * GENTLE).max(1.0), Plan::Wait { since_ns: now_ns });
        }
        self.bracket.breaks(Edge { tps, used: 20.0, cause, told: None });
        let next = (0.95 * told).min(0.9 * tps);
        self.begin_relief(next, Plan::Climb, next * RELIEF, false);
    }

    pub(super) fn hold(&mut self, window: &Window, broken: &[Broken]) {
        let Plan::Hold(hold) = &mut self.plan else { return };
        hold.last.push_back(Seen {
            broken: broken.to_vec(),
            planned: window.planned,
            under_way: u64::from(window.in_flight).saturating_add(window.backlog),
        });
        if hold.last.len() > SUDDEN {
            hold.last.pop_front();
        }
        let full = hold.last.len() == SUDDEN;
        let is_goal = self.tps >= f64::from(self.config.max_tps);
        self.evidence.forget_before(self.owed.now_ns().saturating_sub(REMEMBERED_NS));
        if full && self.is_suddenly_over() {
            return;
        }
        let growth = self.probe.growth();
        let Plan::Hold(hold) = &self.plan else { return };
        if hold.last.len() > GROWS as usize && hold.growth() > Some(MUCH) {
            return self.collapse(true);
        }
        if self.probe.windows >= 10
            && let Some(growth) = growth
        {
            return self.queue_grew(growth);
        }
        if self.probe.windows >= BETTER && !is_goal && self.is_better(window) {
            return;
        }
        if self.probe.windows.is_multiple_of(LOOK)
            && let Some(limit) = self.bound_by
        {
            self.follow(limit);
        }
    }

    /// More becomes due than ends.
    fn queue_grew(&mut self, growth: f64) {
        let now_ns = self.owed.now_ns();
        let (completed, length_ns) = self.probe.queued;
        self.meter(completed, length_ns);
        let lower = self.tps * (1.0 - growth - 0.005);
        let tps = self.does().map_or(lower, |(does, _)| (0.995 * does).min(0.998 * self.tps));
        self.estimate = None;
        self.end = Some(SearchEnd::Saturated { tps });
        self.saturated = true;
        self.bound_by = None;
        let mut plan = std::mem::replace(&mut self.plan, Plan::Climb);
        if let Plan::Hold(hold) = &mut plan {
            hold.puts_off(self.tps, now_ns);
        }
        let relief_tps = tps * RELIEF;
        self.begin_relief(tps, plan, relief_tps, false);
    }

    /// The last windows break a limit by more than an accident.
    fn is_suddenly_over(&mut self) -> bool {
        let Plan::Hold(hold) = &self.plan else { return false };
        for (index, limit) in self.config.limits.iter().enumerate() {
            let (mut sum, mut each) = (Broken::default(), 0);
            for Seen { broken, .. } in &hold.last {
                sum.add(broken[index]);
                // In each of them: one that paused is not all of them.
                each += usize::from(broken[index].share() > Some(limit.share()));
            }
            if each < SUDDEN || proportion(sum, SURE, 2.0).low <= limit.share() {
                continue;
            }
            let seen = sum.share().unwrap_or(0.0).clamp(1e-6, 0.999_999);
            let step = (logit(seen) - logit(limit.share())) / self.steepness.max(4.0);
            let (share, tps) = (limit.share(), self.tps);
            // By errors it is told directly how much is served.
            let served = match limit {
                crate::Limit::ErrorRate(_) => tps * (1.0 - seen) / (1.0 - share),
                _ => 0.0,
            };
            let step = match limit {
                crate::Limit::ErrorRate(_) => step.min(0.3),
                crate::Limit::Latency { .. } => step.min(EASED),
            };
            let next = (tps * (-step).exp()).max(served.min(tps * 0.995));
            (self.bound_by, self.saturated) = (Some(index), false);
            if !matches!(self.end, Some(SearchEnd::Found { .. })) {
                // It is this limit that bounds it now.
                self.end = None;
            }
            if next < 0.97 * tps {
                self.end = None;
                self.estimate = None;
                self.evidence.forget();
                self.relaxation.forget();
            }
            let now_ns = self.owed.now_ns();
            if let Plan::Hold(hold) = &mut self.plan {
                hold.puts_off(tps, now_ns);
            }
            self.correct(next);
            return true;
        }
        false
    }

    /// The limit is not used any more.
    fn is_better(&mut self, window: &Window) -> bool {
        let limits = &self.config.limits;
        let all_under = limits.iter().enumerate().all(|(index, limit)| {
            proportion(self.probe.sum(index), SURE, 2.0).high < limit.share()
        });
        if !all_under || window.backlog > 0 || self.probe.growth().is_some() {
            return false;
        }
        if self.bound_by.is_none() && !self.saturated && self.end.is_some() {
            // The generator is what bounds it.
            return false;
        }
        let used = self.probe.nearest(limits).map_or(0.0, |(_, used)| used);
        let now_ns = self.owed.now_ns();
        let saturated = self.saturated;
        let Plan::Hold(hold) = &mut self.plan else { return false };
        let ceiling = hold.ceiling.filter(|ceiling| now_ns < ceiling.until_ns);
        let ceiling = ceiling.map_or(f64::INFINITY, |ceiling| 0.98 * ceiling.tps);
        if saturated && hold.ceiling.is_none() {
            // That it does no more was found before.
            let (until_ns, put_off_ns) = (now_ns + PUT_OFF_NS, PUT_OFF_NS);
            hold.ceiling = Some(Ceiling { tps: self.tps, until_ns, put_off_ns });
            return false;
        }
        let doubled = 1 << hold.raises.saturating_sub(SMALL_RAISES).min(8);
        let most = (FIRST_RAISE * f64::from(doubled)).min(LARGEST_RAISE);
        let step = (-used.max(0.05).ln() / self.steepness.max(4.0)).min(most);
        let tps = (self.tps * step.exp()).min(ceiling);
        if tps < 1.001 * self.tps {
            return false;
        }
        hold.raises += 1;
        let has_grown = hold.raises > SMALL_RAISES;
        if has_grown {
            // What was found was of another target.
            self.estimate = None;
            self.end = None;
            self.evidence.forget();
            self.relaxation.forget();
        }
        self.correct_keeping(tps);
        true
    }

    /// Moves the rate to what the last half a minute says.
    fn follow(&mut self, limit: usize) {
        let Some(fit) = self.refit(limit) else { return };
        if fit.seen.of == 0 {
            return;
        }
        if !fit.is_at_edge {
            self.estimate = Some(fit.estimate);
            if matches!(self.end, None | Some(SearchEnd::Found { .. })) {
                self.end = Some(SearchEnd::Found { tps: fit.estimate.tps });
            }
        }
        let off = (fit.estimate.tps / self.tps).ln();
        let sure = fit.estimate.uncertainty() / 2.0;
        // Where the limit is not used at all, how far to go is a matter of trying.
        let unused = off > 0.0
            && self.probe.sum(limit).share() < Some(0.1 * self.config.limits[limit].share());
        if off.abs() > sure.max(0.003) && !unused {
            let now_ns = self.owed.now_ns();
            let Plan::Hold(hold) = &self.plan else { return };
            let ceiling = hold.ceiling.filter(|ceiling| now_ns < ceiling.until_ns);
            let ceiling = ceiling.map_or(f64::INFINITY, |ceiling| 0.985 * ceiling.tps);
            let tps = self.tps * (0.5 * off).clamp(-0.01, 0.005).exp();
            self.correct_keeping(tps.min(ceiling.max(self.tps.min(tps))));
        }
    }

    fn correct(&mut self, tps: f64) {
        if let Plan::Hold(hold) = &mut self.plan {
            hold.raises = 0;
        }
        self.correct_keeping(tps);
    }

    fn correct_keeping(&mut self, tps: f64) {
        if let Plan::Hold(hold) = &mut self.plan {
            hold.last.clear();
        }
        self.set_tps(tps);
        self.begin_probe();
    }
}
