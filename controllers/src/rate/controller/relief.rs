//! Targets that are not well: relief until what is under way has ended, silence, pauses, and waiting.

use super::super::bracket::{Bracket, Cause, Edge};
use super::super::probe::{CAREFUL, Finding, Now, QUICK, plainly_over};
use super::{Plan, Proven, RateController};
use crate::{Broken, SearchEnd, Window};

/// While the target recovers, it is given this share of the rate that it is known to bear.
pub(super) const RELIEF: f64 = 0.6;

/// A target that fails is asked at this share of the rate that it bore.
pub(super) const GENTLE: f64 = 0.05;

/// What it bore and did not bear for long is come back to less by this, each time.
pub(super) const RETREAT: f64 = 0.7;

/// A target of whose answers so many are good, and so many are not, is overloaded, and neither well nor dead.
const DOES_SOME: f64 = 0.1;

/// Where fewer than this break a limit, it is not what overload does to all.
pub(super) const MOSTLY: f64 = 0.5;

/// What was seen longer ago than this says nothing of whether it is well now.
const LOOKS_NS: u64 = 3_000_000_000;

/// Fewest windows of a target that has broken a limit whatever the rate, before it is believed to be well.
const LONG_LOOK: u32 = 10;

/// What comes after relief.
#[derive(Debug)]
pub(super) struct Relief {
    pub(super) tps: f64,
    pub(super) plan: Plan,
    /// It has to meet its limits before, since it once did at this rate.
    pub(super) must_be_well: bool,
    /// It is not asked less than this.
    pub(super) least_tps: f64,
    pub(super) lowered_ns: u64,
    pub(super) begun_ns: u64,
}

impl RateController {
    /// No rate that can be measured meets the limits, as it seems.
    pub(super) fn give_up(&mut self, share: f64) {
        if let Some(Edge { cause: Cause::Limit(limit), .. }) = self.bracket.high {
            self.bound_by = Some(limit);
        }
        // It may have just been started: the end is told once that has not helped. What fails in part
        // whatever the load is looked at where more is seen of it.
        let tps = self.floor.filter(|_| share < MOSTLY).map_or(self.tps, |(tps, _)| tps);
        let since_ns = self.owed.now_ns();
        self.go_to(tps.max(1.0), Plan::Wait { since_ns });
    }

    /// It asks gently. When the target is well, the search goes on.
    pub(super) fn wait(&mut self, since_ns: u64) {
        let has_floor = self.floor.is_some();
        let finding = self.judge(if has_floor { CAREFUL } else { QUICK });
        let is_well = match finding {
            Finding::Under => !has_floor || self.probe.windows >= LONG_LOOK,
            // So near to a limit that it cannot be told soon: what comes next will show it.
            Finding::Open => {
                has_floor
                    && self.probe.length_ns >= LOOKS_NS
                    && self.probe_is_long()
                    && self.used() < 1.0
            }
            Finding::Over(_) | Finding::Behind => return self.wait_on(since_ns),
        };
        if is_well {
            self.end = None;
            self.bracket = Bracket::default();
            self.floor = None;
            self.step_up();
        }
    }

    /// It is neither well nor dead, but refuses what is beyond this.
    fn refuses_beyond(&self) -> Option<f64> {
        let Now { completed, succeeded_tps, .. } = self.probe.now;
        let is_part = (DOES_SOME..1.0 - DOES_SOME).contains(&(succeeded_tps / self.tps));
        (self.floor.is_none() && completed >= 50 && is_part).then_some(succeeded_tps)
    }

    /// It is still not well.
    pub(super) fn wait_on(&mut self, since_ns: u64) {
        if let Some(does) = self.refuses_beyond() {
            return self.go_to(0.8 * does, Plan::Climb);
        }
        let patience_ns = 10_000_000_000 + 10 * self.owed.service_ns() as u64;
        if self.owed.now_ns() - since_ns > patience_ns {
            let nearest = self.probe.nearest(&self.config.limits);
            let share = nearest.and_then(|(limit, _)| self.probe.sum(limit).share()).unwrap_or(1.0);
            let unreachable = SearchEnd::Unreachable { tps: self.tps, share };
            self.end = Some(self.own_end().unwrap_or(unreachable));
            // It may bear less.
            self.set_tps(self.tps / 2.0);
            self.plan = Plan::Wait { since_ns: self.owed.now_ns() };
            self.begin_probe();
        } else if self.floor.is_none() || self.probe.length_ns >= LOOKS_NS {
            self.begin_probe();
        }
    }

    /// Nothing is answered, though it should be: the target is relieved, and asked again gently.
    pub(super) fn fall_silent(&mut self) {
        let now_ns = self.owed.now_ns();
        let patience_ns = self.owed.patience_ns();
        if let Some(relief) = &mut self.relief {
            if now_ns - relief.lowered_ns >= patience_ns {
                relief.lowered_ns = now_ns;
                let least = relief.least_tps.min(self.tps);
                self.set_tps((self.tps / 2.0).max(least));
            }
            return;
        }
        let tps = self.tps;
        let plan = std::mem::replace(&mut self.plan, Plan::Climb);
        self.estimate = None;
        let (next, plan) = match plan {
            // It stood still at a rate that it is known to bear.
            Plan::Hold(_) => {
                self.end = None;
                self.proven = Some(Proven { tps, held: true });
                self.bracket = Bracket::default();
                self.evidence.forget();
                self.relaxation.forget();
                (tps * RELIEF, Plan::Climb)
            }
            Plan::Measure(measurement) => (tps, Plan::Measure(measurement)),
            plan => (tps, plan),
        };
        self.begin_relief(next, plan, (tps * GENTLE).max(1.0), true);
    }

    pub(super) fn note_pause(&mut self, at_ns: u64, length_ns: u64) {
        self.pauses.push((at_ns, length_ns));
        if self.pauses.len() > 16 {
            self.pauses.remove(0);
        }
    }

    /// Relieves the target until its queue is drained, then goes on at a rate.
    pub(super) fn recover_to(&mut self, tps: f64, plan: Plan) {
        let tps = tps.max(1.0);
        let told = self.probe.succeeded_tps();
        let must_be_well = self.bracket.low.is_some();
        let borne = self.bracket.low.map_or(tps, |low| low.tps.min(tps));
        // A target that does next to nothing is not asked for what it bore.
        let borne = if told > 0.0 { borne.min(told.max(borne / 10.0)) } else { borne };
        self.begin_relief(tps, plan, borne * RELIEF, must_be_well);
    }

    pub(super) fn begin_relief(
        &mut self,
        tps: f64,
        plan: Plan,
        relief_tps: f64,
        must_be_well: bool,
    ) {
        let now_ns = self.owed.now_ns();
        self.relief = Some(Relief {
            tps: tps.max(1.0),
            plan,
            must_be_well,
            least_tps: self.tps * GENTLE / 2.0,
            lowered_ns: now_ns,
            begun_ns: now_ns,
        });
        self.set_tps(relief_tps);
        self.begin_probe();
    }

    pub(super) fn relieve(&mut self, window: &Window, broken: &[Broken]) {
        let limits = self.config.limits.len();
        debug_assert_eq!(broken.len(), limits);
        self.probe.push(window, broken, self.owed.usual_ns(), f64::INFINITY);
        let is_first = self
            .relief
            .as_ref()
            .is_some_and(|relief| self.owed.now_ns() <= relief.begun_ns + window.length_ns);
        let is_full =
            self.does().is_some_and(|(tps, _)| self.owed.under_way as f64 > self.owed.queue(tps));
        let drains = window.completed() > window.planned + window.planned / 10;
        if is_full && drains && !is_first {
            self.meter(window.completed(), window.length_ns);
        }
        let Some(relief) = &mut self.relief else { return };
        let now_ns = self.owed.now_ns();
        if self.tps == relief.tps && window.completed() < window.planned / 10 {
            // It still pauses.
            if let Some(last) = self.pauses.last_mut() {
                last.1 += window.length_ns;
            }
        }
        if self.tps == relief.tps && !is_first {
            // What comes late of a pause is late all the same.
            let (now_ns, tps) = (self.owed.now_ns(), self.tps);
            self.evidence.push(now_ns, window.length_ns, tps, broken, u64::MAX);
        }
        let drained = self.owed.is_drained(self.tps) || self.probe.turned_over(3);
        let over = plainly_over(broken, &self.config.limits, 1.0).is_some();
        let well = !relief.must_be_well || window.completed() > 0 && !over;
        // The change of the rate falls into the first window.
        if drained && well && now_ns > relief.begun_ns + window.length_ns {
            let Some(Relief { tps, plan, .. }) = self.relief.take() else { return };
            self.go_to(tps, plan);
            return;
        }
        let patience_ns = 500_000_000 + (4.0 * self.owed.base_ns()) as u64;
        if drained && !well && now_ns - relief.lowered_ns > patience_ns {
            // Not even this lets it recover.
            relief.lowered_ns = now_ns;
            if now_ns - relief.begun_ns > 4 * patience_ns {
                return self.recovery_failed();
            }
            self.set_tps(self.tps * RELIEF);
        }
    }

    /// What it once bore is now too much.
    pub(super) fn recovery_failed(&mut self) {
        let Some(Relief { tps, .. }) = self.relief.take() else { return };
        let was = self.bracket.low.map_or(tps, |low| low.tps);
        self.caution += 1;
        self.proven = match self.proven {
            Some(proven) if proven.held => Some(proven),
            // The first time may be an accident of the target's own.
            _ => Some(Proven { tps: was * RETREAT.powi(self.caution as i32 - 1), held: false }),
        };
        let high = self.bracket.high.filter(|_| self.caution > 1);
        self.bracket = Bracket::default();
        if let Some(high) = high {
            self.bracket.breaks(high);
        }
        self.overloaded = (0, 0);
        self.evidence.forget();
        self.relaxation.forget();
        self.estimate = None;
        let since_ns = self.owed.now_ns();
        let gentle = (was * GENTLE).min(self.tps).max(1.0);
        self.go_to(gentle, Plan::Wait { since_ns });
    }

    /// Share of the time in which the target paused.
    pub(super) fn paused(&self) -> f64 {
        let Some(&(first_ns, _)) = self.pauses.first() else { return 0.0 };
        let length_ns: u64 = self.pauses.iter().map(|pause| pause.1).sum();
        // The first is none that was waited for.
        let since_ns = if self.pauses.len() < 16 { 0 } else { first_ns };
        length_ns as f64 / (self.owed.now_ns() - since_ns).max(1) as f64
    }

    /// The target pauses again and again, so that no rate is of any duration.
    pub(super) fn unstable(&self) -> Option<SearchEnd> {
        let count = self.pauses.len();
        if count < 2 {
            return None;
        }
        let (first, last) = (self.pauses[0].0, self.pauses[count - 1].0);
        let length_ns = self.pauses.iter().map(|pause| pause.1).sum::<u64>() / count as u64;
        Some(SearchEnd::Unstable { period_ns: (last - first) / (count as u64 - 1), length_ns })
    }
}
