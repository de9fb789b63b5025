//! The search: climb, turn back, narrow down, measure, hold.

mod hold;
mod measure;

use super::bracket::{Bracket, Cause, Edge};
use super::estimate::{Evidence, RateEstimate};
use super::owed::Owed;
use super::probe::{CAREFUL, Confidence, EXCURSION, Finding, Probe, QUICK, plainly_over};
use super::{Broken, Limit, SearchEnd};
use crate::Window;
use hold::Hold;
use measure::Measurement;

/// Nothing is judged for so many times what an answer takes after a change of the rate: answers that come sooner
/// are those that took less.
const SETTLING: f64 = 2.0;

/// Growth per step while the limits are far, and where more than half of one is used.
const FAR: f64 = 2.0;
const NEAR: f64 = 1.25;

/// Growth per step on the way back to what the target bore before.
const RETURN: f64 = 4.0;

/// Windows that a probe is longer by for each time that the target did not bear for long what it bore.
const CAUTIOUS: u32 = 5;

/// Descent while not even the lowest rate tried meets the limits.
const DOWN: f64 = 8.0;

/// While the target recovers, it is given this share of the rate that it is known to bear.
const RELIEF: f64 = 0.6;

/// A target that fails is asked at this share of the rate that it bore.
const GENTLE: f64 = 0.05;

/// A probe is given up as close to the limit after so many windows.
const LONGEST_PROBE: u32 = 12;

/// Fewest windows for a careful finding: one alone may be an accident.
const SHORTEST_PROBE: u32 = 3;

/// A rate below which a transaction is never behind another one is as good as any lower rate.
const ALONE: f64 = 0.5;

/// A shard that works for this share of its time while transactions wait is too slow.
const BUSY: f64 = 0.97;

/// Windows in a row that the generator was not fit for, before the rate is taken to be beyond it.
const UNFIT: u32 = 10;

/// Settings of a [`RateController`].
#[derive(Clone, Debug, PartialEq)]
pub struct RateConfig {
    /// All of them are to be met.
    pub limits: Vec<Limit>,
    /// Where the search begins.
    pub start_tps: u32,
    /// The goal: never more than this.
    pub max_tps: u32,
    /// Most transactions that can be under way; zero for no such bound.
    pub max_in_flight: u32,
    /// The rate is all that the run is for: it is measured longer, and the search ends within
    /// [`budget_ns`](Self::budget_ns), whatever was found.
    pub until_found: bool,
    /// Time for the search in nanoseconds; zero for a minute and 60 times what an answer takes, three
    /// minutes at most.
    pub budget_ns: u64,
}

impl Default for RateConfig {
    /// From 512 a second up to any rate, with no limit yet.
    fn default() -> Self {
        Self {
            limits: Vec::new(),
            start_tps: 512,
            max_tps: u32::MAX,
            max_in_flight: 0,
            until_found: false,
            budget_ns: 0,
        }
    }
}

/// What the search is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum RateState {
    /// Raising the rate; no limit was broken yet.
    #[default]
    Growing,
    /// At a lower rate until what is under way has ended and the target is well.
    Recovering,
    /// Between a rate that the target bears and one that it does not.
    Narrowing,
    /// Close to the limit, measuring how close.
    Refining,
    /// At the rate found, or at the goal, and watching.
    Holding,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateDecision {
    /// Transactions a second from now on.
    pub tps: u32,
    /// What the search is doing.
    pub state: RateState,
    /// Index of the limit that keeps the rate from being higher; `None` while none does, and when
    /// it is the target that does no more, without breaking a limit.
    pub bound_by: Option<usize>,
    /// The target fell behind the rate asked for, without breaking a limit: its answers are merely
    /// late.
    pub saturated: bool,
}

/// What is done at the current rate.
#[derive(Debug)]
enum Plan {
    Climb,
    Narrow,
    Measure(Measurement),
    Hold(Hold),
    /// No rate that was tried meets the limits: asks gently, in case that passes.
    Wait {
        since_ns: u64,
    },
}

/// What comes after relief.
#[derive(Debug)]
struct Relief {
    tps: f64,
    plan: Plan,
    /// It has to meet its limits before, since it once did at this rate.
    must_be_well: bool,
    /// It is not asked less than this.
    least_tps: f64,
    lowered_ns: u64,
    begun_ns: u64,
}

/// See [`RateController::proven`].
#[derive(Clone, Copy, Debug)]
struct Proven {
    tps: f64,
    /// It was not only passed, but held.
    held: bool,
}

/// Finds and holds the highest rate at which all limits are met. Feed it every window.
///
/// Limits are judged by confidence intervals over what was sent at the rate in question: a rate is judged once as many
/// transactions have ended as were under way when it was set. What is stated ([`estimate`](Self::estimate)) comes from a
/// regression over all that was seen near the limit. [`end`](Self::end) says how the search ended.
///
/// ```
/// use balter_controllers::{Broken, Limit, RateConfig, RateController, Window};
///
/// let limits = vec![Limit::ErrorRate(0.03)];
/// let config = RateConfig { limits, max_tps: 100_000, ..RateConfig::default() };
/// let mut controller = RateController::new(config);
/// // A target that refuses what is beyond 10 000 a second.
/// let mut tps = 512.0_f64;
/// for _ in 0..150 {
///     let (asked, served) = (tps / 10.0, (tps / 10.0).min(1_000.0));
///     let failed = (asked - served) as u64;
///     let window = Window {
///         length_ns: 100_000_000,
///         planned: asked as u64,
///         started: asked as u64,
///         succeeded: asked as u64 - failed,
///         failed,
///         ..Window::default()
///     };
///     let broken = Broken { over: failed, of: asked as u64 };
///     tps = f64::from(controller.update(&window, &[broken]).tps);
/// }
/// assert!((9_900.0..10_600.0).contains(&tps), "{tps}");
/// ```
#[derive(Debug)]
pub struct RateController {
    config: RateConfig,
    tps: f64,
    plan: Plan,
    relief: Option<Relief>,
    owed: Owed,
    probe: Probe,
    bracket: Bracket,
    evidence: Evidence,
    /// How steeply the use of the limit was found to grow with the rate.
    steepness: f64,
    /// The rate that the target bore before it became unwell.
    proven: Option<Proven>,
    /// Transactions that ended, and in which time, while more were due: what an overloaded target does.
    overloaded: (u64, u64),
    /// How often it turned out that what it bore it did not bear for long: what is refused
    /// counts for some targets, and others have credit. The search goes up in smaller steps, and looks longer at each.
    caution: u32,
    /// What the lowest rate so far showed that broke a limit though the target kept up: (rate, share).
    floor: Option<(f64, f64)>,
    /// Steps down since a rate was borne.
    descents: u32,
    /// When the target was seen to pause, and for how long: the last few, in nanoseconds.
    pauses: Vec<(u64, u64)>,
    estimate: Option<RateEstimate>,
    bound_by: Option<usize>,
    saturated: bool,
    end: Option<SearchEnd>,
}

impl RateController {
    /// # Panics
    /// If there is no limit, or one whose share is not between 0 and 1.
    #[must_use]
    pub fn new(config: RateConfig) -> Self {
        assert!(!config.limits.is_empty(), "a rate without a limit is not searched for");
        for limit in &config.limits {
            let share = limit.share();
            assert!(share > 0.0 && share < 1.0, "{limit:?}: between 0 and 1, both excluded");
        }
        let tps = f64::from(config.start_tps.min(config.max_tps).max(1));
        Self {
            probe: Probe::new(config.limits.len(), 0, SETTLING),
            config,
            tps,
            plan: Plan::Climb,
            relief: None,
            owed: Owed::default(),
            bracket: Bracket::default(),
            evidence: Evidence::default(),
            steepness: measure::USUAL_STEEPNESS,
            proven: None,
            overloaded: (0, 0),
            caution: 0,
            floor: None,
            descents: 0,
            pauses: Vec::new(),
            estimate: None,
            bound_by: None,
            saturated: false,
            end: None,
        }
    }

    /// The current decision.
    #[must_use]
    pub fn decision(&self) -> RateDecision {
        let state = match (&self.relief, &self.plan) {
            (Some(_), _) | (_, Plan::Wait { .. }) => RateState::Recovering,
            (_, Plan::Climb) => RateState::Growing,
            (_, Plan::Narrow) => RateState::Narrowing,
            (_, Plan::Measure(_)) => RateState::Refining,
            (_, Plan::Hold(_)) => RateState::Holding,
        };
        let (bound_by, saturated) = (self.bound_by, self.saturated);
        RateDecision { tps: self.tps as u32, state, bound_by, saturated }
    }

    /// How the search ended, as far as it has: what was found holds until the target changes.
    #[must_use]
    pub fn end(&self) -> Option<SearchEnd> {
        self.end
    }

    /// The rate that was found, with its confidence interval. `None` where no limit is what bounds it, where the
    /// estimate lies at an edge of what was tried, and once the target has changed.
    #[must_use]
    pub fn estimate(&self) -> Option<RateEstimate> {
        self.estimate
    }

    /// Takes note that a window says nothing of the target, since the generator itself was not
    /// ready: what was seen at this rate is forgotten.
    pub fn pass_over(&mut self, window: &Window) -> RateDecision {
        self.owed.push(window);
        if !matches!(self.plan, Plan::Hold(_)) {
            self.begin_probe();
        }
        self.decision()
    }

    /// Takes in what happened in one window; `broken` has an entry for each limit.
    pub fn update(&mut self, window: &Window, broken: &[Broken]) -> RateDecision {
        debug_assert_eq!(broken.len(), self.config.limits.len());
        if window.length_ns == 0 || window.is_idle() && window.planned == 0 {
            return self.decision();
        }
        self.owed.push(window);
        self.owed.set_out(self.tps);
        self.step(window, broken);
        if self.config.until_found && self.end.is_none() && self.owed.now_ns() > self.budget_ns() {
            self.run_out();
        }
        self.decision()
    }

    fn budget_ns(&self) -> u64 {
        const MINUTE_NS: u64 = 60_000_000_000;
        match self.config.budget_ns {
            0 => {
                (MINUTE_NS + 60 * self.owed.service_ns() as u64).min(3 * MINUTE_NS - MINUTE_NS / 6)
            }
            budget => budget,
        }
    }

    fn step(&mut self, window: &Window, broken: &[Broken]) {
        if self.owed.is_silent() {
            return self.fall_silent();
        }
        if self.relief.is_some() {
            return self.relieve(window, broken);
        }
        if self.pauses_now(window) {
            // The same rate and the same plan, once what has piled up is done.
            let plan = std::mem::replace(&mut self.plan, Plan::Climb);
            self.note_pause(self.owed.now_ns(), window.length_ns);
            return self.begin_relief(self.tps, plan, self.tps, false);
        }
        if let Some(cause) = self.is_unfit(window) {
            self.probe.unfit += 1;
            // A window that a part was late for says nothing at all.
            if self.probe.unfit >= UNFIT && window.absent == 0 {
                self.turn_back(cause, 1.01);
            }
            return;
        }
        self.probe.unfit = 0;
        let judged = self.probe.push(window, broken, self.owed.usual_ns());
        let alarm = self.alarm(window, broken);
        if judged {
            let block_ns = self.block_ns();
            let (now_ns, tps) = (self.owed.now_ns(), self.tps);
            self.evidence.push(now_ns, window.length_ns, tps, broken, block_ns);
        }
        if let Some(limit) = alarm {
            return self.alarmed(limit);
        }
        if !judged {
            return;
        }
        match &self.plan {
            Plan::Climb => self.climb(),
            Plan::Narrow => self.narrow(),
            Plan::Measure(_) => self.measure(),
            Plan::Hold(_) => self.hold(window, broken),
            Plan::Wait { since_ns } => {
                let since_ns = *since_ns;
                self.wait(since_ns);
            }
        }
    }

    /// Next to nothing ended in the window, of a target that answers well within one.
    fn pauses_now(&self, window: &Window) -> bool {
        let soon = self.owed.usual_ns().is_some_and(|usual| 2.0 * usual < window.length_ns as f64);
        soon && self.probe.is_under_way()
            && window.planned >= 10
            && window.completed() < window.planned / 10
    }

    /// Whether the window says little of the target, and why.
    fn is_unfit(&self, window: &Window) -> Option<Cause> {
        let waits = window.backlog > window.planned / 50;
        if window.stalled > window.planned / 100 || waits && window.busy >= BUSY {
            return Some(Cause::Generator { busy: window.busy });
        }
        let max = self.config.max_in_flight;
        let full = max > 0 && window.in_flight >= max && waits;
        // An overloaded target takes all instances, too, but then its answers are late.
        let are_wanting = full && self.owed.service_ns() < 2.0 * self.owed.base_ns();
        (are_wanting || window.absent > 0).then_some(Cause::Instances)
    }

    /// Windows are put together until they outlast what makes them resemble each other.
    fn block_ns(&self) -> u64 {
        300_000_000_u64.max((2.0 * self.owed.service_ns()) as u64)
    }

    /// What breaks a limit by far is not waited for: with what is overdue for a limit on latency, whose
    /// answers have not even come.
    fn alarm(&mut self, window: &Window, broken: &[Broken]) -> Option<usize> {
        let limits = &self.config.limits;
        let seen: Vec<Broken> = broken
            .iter()
            .zip(limits)
            .map(|(broken, limit)| match *limit {
                Limit::Latency { bound_ns, .. } => {
                    let overdue = self.owed.overdue(bound_ns + window.length_ns);
                    Broken { over: broken.over + overdue, of: broken.of + overdue }
                }
                _ => *broken,
            })
            .collect();
        let plain = plainly_over(&seen, limits, 4.0);
        let far = plainly_over(&seen, limits, 10.0).is_some();
        let fails = window.completed() > 0 && window.failed > window.succeeded;
        self.probe.plain = if plain.is_some() { self.probe.plain + 1 } else { 0 };
        self.probe.collapsed = if fails && plain.is_some() { self.probe.collapsed + 1 } else { 0 };
        let is_close = matches!(self.plan, Plan::Hold(_) | Plan::Measure(_));
        let sure = match is_close {
            true => self.probe.plain >= EXCURSION || self.probe.collapsed >= 2,
            false => self.probe.plain >= 2 || far,
        };
        plain.filter(|_| sure)
    }

    /// A limit is plainly broken.
    fn alarmed(&mut self, limit: usize) {
        let used = self.probe.used_now(limit, &self.config.limits).max(4.0);
        match self.plan {
            Plan::Hold(_) | Plan::Measure(_) => self.overrun(limit),
            Plan::Wait { since_ns } => self.wait_on(since_ns),
            _ => self.turn_back(Cause::Limit(limit), used),
        }
    }

    fn climb(&mut self) {
        // On the way back it is enough that nothing is amiss.
        let returns = self.proven.is_some_and(|proven| self.tps < 0.999 * proven.tps);
        if returns && self.caution <= 1 && self.probe.seen() > 0 && self.used() < 1.0 {
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
                if self.used() < 1.0 {
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

    pub(super) fn bears(&mut self, used: f64) {
        self.bracket.bears(Edge { tps: self.tps, used, cause: Cause::Nothing, told: None });
        let is_first = self.overloaded.1 == 0 && self.bracket.high.is_none();
        self.owed.bears(self.probe.completed, self.probe.service_sum_ns, is_first);
    }

    fn judge(&self, confidence: Confidence) -> Finding {
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

    fn probe_is_long(&self) -> bool {
        let fewest = 200;
        self.probe.windows >= LONGEST_PROBE && self.probe.seen() >= fewest
    }

    fn used(&self) -> f64 {
        self.probe.nearest(&self.config.limits).map_or(0.0, |(_, used)| used)
    }

    /// The current rate is borne, as far as can be told.
    fn step_up(&mut self) {
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
        match self.bracket.high {
            Some(high) if next >= high.tps => self.halve(),
            _ => self.go_to(next, Plan::Climb),
        }
    }

    fn narrow(&mut self) {
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
    fn turn_back(&mut self, cause: Cause, used: f64) {
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
            self.meter(self.probe.completed, self.probe.length_ns);
        }
        // A little more than it bore, and most fail: it did not bear that for long.
        if self.probe.collapsed > 0 && self.bracket.low.is_some_and(|low| tps < 1.3 * low.tps) {
            self.bracket.low = None;
            self.caution += 1;
        }
        self.estimate = None;
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
    fn descend(&mut self, told: Option<f64>, keeps_up: bool, share: Option<f64>) {
        let alone = self.tps * self.owed.service_ns() / 1e9 < ALONE;
        let is_limit = matches!(self.bracket.high, Some(Edge { cause: Cause::Limit(_), .. }));
        if is_limit
            && keeps_up
            && let Some(share) = share
        {
            // Much less load does not help: it is not the load.
            let no_better = self.floor.is_some_and(|(tps, before)| {
                self.tps <= tps / (DOWN / 2.0) && share > before / 2.0
            });
            if no_better || alone || self.tps <= 1.0 {
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
            _ => self.tps / DOWN,
        };
        let next = next.max(self.tps / DOWN);
        self.descents += 1;
        self.recover_to(next, Plan::Climb);
    }

    /// No rate that can be measured meets the limits, as it seems.
    fn give_up(&mut self, share: f64) {
        if let Some(Edge { cause: Cause::Limit(limit), .. }) = self.bracket.high {
            self.bound_by = Some(limit);
        }
        let was_well = self.proven.is_some();
        self.end = (!was_well).then_some(SearchEnd::Unreachable { tps: self.tps, share });
        let since_ns = self.owed.now_ns();
        self.go_to(self.tps.max(1.0), Plan::Wait { since_ns });
    }

    /// It asks gently. When the target is well, the search goes on.
    fn wait(&mut self, since_ns: u64) {
        match self.probe.judge(&self.config.limits, QUICK) {
            Finding::Under => {
                self.end = None;
                self.bracket = Bracket::default();
                self.floor = None;
                self.step_up();
            }
            Finding::Over(_) | Finding::Behind => self.wait_on(since_ns),
            Finding::Open => {}
        }
    }

    /// It is still not well.
    fn wait_on(&mut self, since_ns: u64) {
        let patience_ns = 10_000_000_000 + 10 * self.owed.service_ns() as u64;
        if self.owed.now_ns() - since_ns > patience_ns {
            let nearest = self.probe.nearest(&self.config.limits);
            let share = nearest.and_then(|(limit, _)| self.probe.sum(limit).share()).unwrap_or(1.0);
            self.end = Some(SearchEnd::Unreachable { tps: self.tps, share });
        }
        self.begin_probe();
    }

    /// Next rate of the search between the two edges.
    fn halve(&mut self) {
        let Some(low) = self.bracket.low else { return };
        let (tps, plan) = self.between(low);
        self.go_to(tps, plan);
    }

    /// What comes next between the edges.
    fn between(&mut self, low: Edge) -> (f64, Plan) {
        let Some(high) = self.bracket.high else { return (low.tps * FAR, Plan::Climb) };
        if self.bracket.is_narrow() {
            return self.measured_between(low, high);
        }
        let guess = self.bracket.guess(low, high);
        (guess, Plan::Narrow)
    }

    /// Takes note of what a target does while more is due.
    fn meter(&mut self, completed: u64, length_ns: u64) {
        self.overloaded.0 += completed;
        self.overloaded.1 += length_ns;
    }

    /// What it does then, transactions a second, and how sure that is, as a share; `None` if it was not
    /// seen for long.
    fn does(&self) -> Option<(f64, f64)> {
        let (completed, length_ns) = self.overloaded;
        let tps = completed as f64 * 1e9 / length_ns.max(1) as f64;
        (completed >= 200).then(|| (tps, 1.0 / (completed as f64).sqrt()))
    }

    /// The rate at which a limit should just be met, if a target that is asked for more does so many
    /// a second.
    fn told(&self, cause: Cause, succeeded_tps: f64) -> Option<f64> {
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

    /// Nothing is answered, though it should be: the target is relieved, and asked again gently.
    fn fall_silent(&mut self) {
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
                self.proven = Some(Proven { tps, held: true });
                self.bracket = Bracket::default();
                self.evidence.forget();
                (tps * RELIEF, Plan::Climb)
            }
            Plan::Measure(measurement) => (tps, Plan::Measure(measurement)),
            plan => (tps, plan),
        };
        self.begin_relief(next, plan, (tps * GENTLE).max(1.0), true);
    }

    fn note_pause(&mut self, at_ns: u64, length_ns: u64) {
        self.pauses.push((at_ns, length_ns));
        if self.pauses.len() > 16 {
            self.pauses.remove(0);
        }
    }

    /// Relieves the target until its queue is drained, then goes on at a rate.
    fn recover_to(&mut self, tps: f64, plan: Plan) {
        let tps = tps.max(1.0);
        let told = self.probe.succeeded_tps();
        let must_be_well = self.bracket.low.is_some();
        let borne = self.bracket.low.map_or(tps, |low| low.tps.min(tps));
        // A target that does next to nothing is not asked for what it bore.
        let borne = if told > 0.0 { borne.min(told.max(borne / 10.0)) } else { borne };
        self.begin_relief(tps, plan, borne * RELIEF, must_be_well);
    }

    fn begin_relief(&mut self, tps: f64, plan: Plan, relief_tps: f64, must_be_well: bool) {
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

    fn relieve(&mut self, window: &Window, broken: &[Broken]) {
        let limits = self.config.limits.len();
        debug_assert_eq!(broken.len(), limits);
        self.probe.push(window, broken, self.owed.usual_ns());
        let is_first = self
            .relief
            .as_ref()
            .is_some_and(|relief| self.owed.now_ns() <= relief.begun_ns + window.length_ns);
        let is_full = self.does().is_some_and(|(tps, _)| {
            self.owed.under_way as f64 > 1.5 * tps * self.owed.base_ns() / 1e9 + 10.0
        });
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
            return self.go_to(tps, plan);
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
    fn recovery_failed(&mut self) {
        let Some(Relief { tps, .. }) = self.relief.take() else { return };
        let was = self.bracket.low.map_or(tps, |low| low.tps);
        self.caution += 1;
        self.proven = match self.proven {
            Some(proven) if proven.held => Some(proven),
            _ if self.caution == 1 => Some(Proven { tps: was, held: false }),
            _ => None,
        };
        self.bracket = Bracket::default();
        self.overloaded = (0, 0);
        self.evidence.forget();
        self.estimate = None;
        let since_ns = self.owed.now_ns();
        let gentle = (was * GENTLE).min(self.tps).max(1.0);
        self.go_to(gentle, Plan::Wait { since_ns });
    }

    /// Time is up before anything else has ended the search.
    fn run_out(&mut self) {
        let (low, high) = (self.bracket.low, self.bracket.high);
        self.end = Some(match (self.unstable(), low, high) {
            (Some(unstable), ..) => unstable,
            (None, None, _) => SearchEnd::Unreachable { tps: self.tps, share: 1.0 },
            (None, Some(low), high) => {
                SearchEnd::OutOfTime { low: low.tps, high: high.map(|high| high.tps) }
            }
        });
    }

    /// Share of the time in which the target paused.
    fn paused(&self) -> f64 {
        let Some(&(first_ns, _)) = self.pauses.first() else { return 0.0 };
        let length_ns: u64 = self.pauses.iter().map(|pause| pause.1).sum();
        // The first is none that was waited for.
        let since_ns = if self.pauses.len() < 16 { 0 } else { first_ns };
        length_ns as f64 / (self.owed.now_ns() - since_ns).max(1) as f64
    }

    /// The target pauses again and again, so that no rate is of any duration.
    fn unstable(&self) -> Option<SearchEnd> {
        let count = self.pauses.len();
        if count < 2 {
            return None;
        }
        let (first, last) = (self.pauses[0].0, self.pauses[count - 1].0);
        let length_ns = self.pauses.iter().map(|pause| pause.1).sum::<u64>() / count as u64;
        Some(SearchEnd::Unstable { period_ns: (last - first) / (count as u64 - 1), length_ns })
    }

    fn settle_at_goal(&mut self) {
        (self.bound_by, self.saturated) = (None, false);
        self.end = Some(SearchEnd::GoalReached);
        self.settle_at(self.tps);
    }

    fn settle_at(&mut self, tps: f64) {
        self.go_to(tps, Plan::Hold(Hold::default()));
    }

    fn go_to(&mut self, tps: f64, plan: Plan) {
        self.set_tps(tps);
        self.plan = plan;
        self.begin_probe();
    }

    /// Whole transactions a second, so that what is asked for is what is meant.
    fn set_tps(&mut self, tps: f64) {
        self.tps = tps.round().clamp(1.0, f64::from(self.config.max_tps.max(1)));
    }

    fn begin_probe(&mut self) {
        self.evidence.close();
        self.probe = Probe::new(self.config.limits.len(), self.owed.under_way, SETTLING);
    }
}
