//! The search: climb, turn back, narrow down, measure, hold.

mod climb;
mod hold;
mod measure;
mod relief;

use super::bracket::{Bracket, Cause};
use super::estimate::{Evidence, RateEstimate};
use super::owed::Owed;
use super::probe::{EXCURSION, Probe, plainly_over};
use super::relaxation::Relaxation;
use super::{Broken, Limit, RateConfig, RateDecision, RateState, SearchEnd};
use crate::Window;
use hold::Hold;
use measure::Measurement;
use relief::Relief;

/// Nothing is judged for so many times what an answer takes after a change of the rate: answers that come sooner
/// are those that took less.
const SETTLING: f64 = 2.0;

/// A shard that works for this share of its time while transactions wait is too slow.
const BUSY: f64 = 0.97;

/// Windows in a row that the generator was not fit for, before the rate is taken to be beyond it.
const UNFIT: u32 = 10;

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
    relaxation: Relaxation,
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
            relaxation: Relaxation::default(),
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
        if window.length_ns == 0 {
            return self.decision();
        }
        self.owed.push(window);
        if window.is_idle() && window.planned == 0 {
            return self.decision();
        }
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
        let judged =
            self.probe.push(window, broken, self.owed.usual_ns(), self.owed.queue(self.tps));
        let alarm = self.alarm(window, broken);
        if judged {
            let block_ns = self.block_ns();
            let (now_ns, tps) = (self.owed.now_ns(), self.tps);
            self.evidence.push(now_ns, window.length_ns, tps, broken, block_ns);
            if matches!(self.plan, Plan::Measure(_) | Plan::Hold(_)) {
                self.relaxation.push(tps, self.owed.under_way, window.length_ns);
            }
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
        if !self.probe.answers_are_its_own() {
            return None;
        }
        let elapsed_ns = self.probe.elapsed_ns;
        let seen: Vec<Broken> = broken
            .iter()
            .zip(limits)
            .map(|(broken, limit)| match *limit {
                Limit::Latency { bound_ns, .. } => {
                    let age_ns = bound_ns + window.length_ns;
                    let overdue = if elapsed_ns < age_ns { 0 } else { self.owed.overdue(age_ns) };
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

    /// Time is up before anything else has ended the search.
    fn run_out(&mut self) {
        let (low, high) = (self.bracket.low, self.bracket.high);
        self.end = Some(match (self.unstable().or(self.own_end()), low, high) {
            (Some(end), ..) => end,
            (None, None, _) if !self.owed.has_succeeded => {
                SearchEnd::Unreachable { tps: self.tps, share: 1.0 }
            }
            (None, low, high) => {
                let (low, high) = (low.map_or(0.0, |low| low.tps), high.map(|high| high.tps));
                SearchEnd::OutOfTime { low, high }
            }
        });
    }

    /// It is not the target that keeps the rate from being higher.
    pub(super) fn own_end(&self) -> Option<SearchEnd> {
        let tps = self.bracket.low.map_or(self.tps, |low| low.tps);
        match self.bracket.high?.cause {
            Cause::Generator { busy } => Some(SearchEnd::Generator { tps, busy }),
            Cause::Instances => Some(SearchEnd::Instances { tps }),
            _ => None,
        }
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
        if let Plan::Measure(measurement) = &self.plan {
            let settles_ns = self.refills_ns(measurement);
            self.probe.settles_for(settles_ns);
        }
    }

    /// Whole transactions a second, so that what is asked for is what is meant.
    fn set_tps(&mut self, tps: f64) {
        self.tps = tps.round().clamp(1.0, f64::from(self.config.max_tps.max(1)));
    }

    fn begin_probe(&mut self) {
        self.evidence.close();
        self.relaxation.close();
        self.probe = Probe::new(self.config.limits.len(), self.owed.under_way, SETTLING);
    }
}
