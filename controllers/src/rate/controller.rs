//! The search: grow, turn back, narrow down, hold.

mod hold;
mod refine;

use super::probe::{CAREFUL, Confidence, Finding, Probe, QUICK, plainly_over};
use super::{Broken, Limit};
use crate::Window;
pub use refine::RateEstimate;
use refine::{ROUNDS, Refinement, UNJUDGED};

/// Windows after a change of the rate that belong to both rates and are not judged.
const SETTLING: u32 = 1;

/// Growth per step while the limits are far: doubling finds any rate in few steps, and is above
/// the limit for one step at most.
const FAR: f64 = 2.0;

/// The same where more than half of a limit is used.
const NEAR: f64 = 1.25;

/// A bracket this narrow is not divided any more, but refined.
const NARROW: f64 = 1.05;

/// A round moves the rate by no more than this factor.
const LARGEST_STEP: f64 = 1.03;

/// A probe that is open for so long stands at the limit, as far as can be told in a bearable time.
const LONGEST_PROBE: u32 = 12;

/// While nothing is known to be too much, it may be open for so many times as long.
const UNBOUNDED_PROBE: u32 = 4;

/// Fewest windows for a careful finding: one alone may be an accident.
const SHORTEST_PROBE: u32 = 6;

/// A lower edge that was passed while growing is tried again when the upper one is so near.
const UNSURE: f64 = 1.3;

/// Where even the lower edge turns out to be too much, the search goes down by this, and by its
/// square the next time.
const DOWN: f64 = 1.1;

/// While the target recovers, it is given this share of the rate that it is known to bear.
const RECOVERY: f64 = 0.6;

/// A rate is not settled on before so many transactions have been seen there.
const FEWEST: u64 = 200;

/// Recovery that takes so many windows means that the rate known to be borne no longer is.
const LONGEST_RECOVERY: u32 = 20;

/// Windows without any answer, while some are owed, after which the target stands still.
const STILL: u32 = 3;

/// A limit that is plainly broken in so many windows in a row while holding tells that the target
/// has changed. Fewer may be an excursion of its queue: one that is close to its capacity is at its
/// limit by being far beyond it now and then.
const EXCURSION: u32 = 6;

/// A target that breaks a limit and does less than this share of what it is asked for has changed.
const COLLAPSED: f64 = 0.85;

/// Windows in a row in which a target does less than [`COLLAPSED`] of what it is asked for, and
/// owes ever more, after which the rate is beyond its capacity, even if no limit is broken yet.
const BEHIND: u32 = 5;

/// Settings of a [`RateController`].
#[derive(Clone, Debug, PartialEq)]
pub struct RateConfig {
    /// All of them are to be met.
    pub limits: Vec<Limit>,
    /// Where the search begins.
    pub start_tps: u32,
    /// The goal: never more than this.
    pub max_tps: u32,
}

/// What the search is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum RateState {
    /// Raising the rate; no limit was broken yet.
    #[default]
    Growing,
    /// A limit was broken: at a lower rate until the target has recovered.
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

/// Finds and holds the highest rate at which all limits are met. Feed it every window.
///
/// Limits are judged by confidence intervals: a rate is over or under only when the interval of
/// what was seen says so; until then more windows are gathered. Windows in which nothing could
/// have happened are no data. A rate is lowered at once and raised when the last step has been
/// judged.
///
/// ```
/// use balter_controllers::{Broken, Limit, RateConfig, RateController, Window};
///
/// let limits = vec![Limit::ErrorRate(0.03)];
/// let config = RateConfig { limits, start_tps: 512, max_tps: 100_000 };
/// let mut controller = RateController::new(config);
/// // A target that refuses what is beyond 10 000 a second.
/// let mut tps = 512.0_f64;
/// for _ in 0..150 {
///     let (asked, served) = (tps / 10.0, (tps / 10.0).min(1_000.0));
///     let failed = (asked - served) as u64;
///     let window = Window {
///         length_ns: 100_000_000,
///         succeeded: served as u64,
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
    state: RateState,
    /// Highest rate known to be borne, and lowest known not to be.
    low: Option<Edge>,
    high: Option<Edge>,
    probe: Probe,
    /// Windows that broke a limit plainly, in a row.
    over_in_a_row: u32,
    settling: u32,
    /// Windows without an answer, in a row.
    still: u32,
    /// What succeeded in the last window, a second: a target that is asked for too much tells what
    /// it can do.
    succeeded_tps: f64,
    /// Windows in a row in which the target fell behind, and what it owed before them.
    behind: u32,
    owed: u64,
    saturated: bool,
    /// What was too much while holding, and how long ago.
    ceiling: (f64, u32),
    /// What to go on with after recovery.
    next: (f64, RateState),
    refinement: Refinement,
    rounds: usize,
    /// How much the last adjustment while holding was, with its sign: one in the same direction
    /// is larger, since the target drifts.
    adjusted: f64,
    /// See [`DOWN`].
    down: f64,
    bound_by: Option<usize>,
}

/// One end of the bracket.
#[derive(Clone, Copy, Debug)]
struct Edge {
    tps: f64,
    /// By how much of its share the nearest limit was used.
    used: f64,
    /// Judged with care. What was passed while growing may have been too much.
    careful: bool,
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
        let limits = config.limits.len();
        let tps = f64::from(config.start_tps.min(config.max_tps).max(1));
        Self {
            config,
            tps,
            state: RateState::Growing,
            low: None,
            high: None,
            probe: Probe::new(limits),
            over_in_a_row: 0,
            settling: SETTLING,
            still: 0,
            succeeded_tps: 0.0,
            behind: 0,
            owed: 0,
            saturated: false,
            ceiling: (f64::INFINITY, 0),
            next: (tps, RateState::Growing),
            refinement: Refinement::default(),
            rounds: ROUNDS,
            adjusted: 0.0,
            down: DOWN,
            bound_by: None,
        }
    }

    /// Measures how close the limit is in so many rounds of two seconds, instead of in three,
    /// before it holds the rate: a narrower [`estimate`](Self::estimate), later.
    #[must_use]
    pub fn with_rounds(mut self, rounds: usize) -> Self {
        self.rounds = rounds.max(2);
        self
    }

    /// The current decision.
    #[must_use]
    pub fn decision(&self) -> RateDecision {
        let tps = self.tps.round().clamp(1.0, f64::from(self.config.max_tps.max(1))) as u32;
        let (state, bound_by, saturated) = (self.state, self.bound_by, self.saturated);
        RateDecision { tps, state, bound_by, saturated }
    }

    /// Takes note that a window says nothing of the target, since the generator itself was not
    /// ready: what was seen at this rate is forgotten.
    pub fn settle_anew(&mut self) -> RateDecision {
        if self.state != RateState::Holding {
            self.reset();
        }
        self.decision()
    }

    /// Takes in what happened in one window; `broken` has an entry for each limit.
    pub fn update(&mut self, window: &Window, broken: &[Broken]) -> RateDecision {
        debug_assert_eq!(broken.len(), self.config.limits.len());
        if window.length_ns == 0 || window.is_idle() {
            return self.decision();
        }
        if window.completed() == 0 {
            self.still += 1;
            if self.still == STILL && self.state != RateState::Recovering {
                self.fall();
            }
            return self.decision();
        }
        self.still = 0;
        self.succeeded_tps = window.succeeded as f64 * 1e9 / window.length_ns as f64;
        if self.state == RateState::Recovering {
            self.recover(window, broken);
            return self.decision();
        }
        if let Some((limit, used)) = self.plainly_over(broken) {
            self.turn_back(Some(limit), used);
            return self.decision();
        }
        if self.settling > 0 {
            self.settling -= 1;
            return self.decision();
        }
        if self.falls_behind(window) {
            self.turn_back(None, 2.0);
            return self.decision();
        }
        self.probe.push(window, broken);
        match self.state {
            RateState::Growing => self.grow(),
            RateState::Narrowing => self.narrow(),
            RateState::Refining => self.refine(),
            RateState::Holding => self.hold(),
            RateState::Recovering => {}
        }
        self.decision()
    }

    /// What breaks a limit by far is not waited for: ten times its share in one window, or four
    /// times in each of two, those of settling included.
    fn plainly_over(&mut self, broken: &[Broken]) -> Option<(usize, f64)> {
        let limits = &self.config.limits;
        let Some(over) = plainly_over(broken, limits, 4.0) else {
            self.over_in_a_row = 0;
            return None;
        };
        self.over_in_a_row += 1;
        let windows = match self.state {
            RateState::Holding if self.succeeded_tps >= COLLAPSED * self.tps => EXCURSION,
            RateState::Holding => 2,
            _ if plainly_over(broken, limits, 10.0).is_some() => 1,
            _ => 2,
        };
        (self.over_in_a_row >= windows).then_some(over)
    }

    fn falls_behind(&mut self, window: &Window) -> bool {
        let owes = u64::from(window.in_flight).saturating_add(window.backlog);
        let more = owes > std::mem::replace(&mut self.owed, owes) || window.missed > 0;
        let done = window.completed() as f64;
        let behind = more && done < COLLAPSED * window.planned as f64;
        self.behind = if behind { self.behind + 1 } else { 0 };
        self.behind >= BEHIND
    }

    fn judge(&self, confidence: Confidence) -> Finding {
        match self.probe.judge(&self.config.limits, confidence) {
            // Whether it keeps behind has to be seen first.
            Finding::Under if self.behind > 0 => Finding::Open,
            finding => finding,
        }
    }

    fn used(&self) -> f64 {
        self.probe.nearest(&self.config.limits).map_or(0.0, |(_, used)| used)
    }

    fn grow(&mut self) {
        match self.judge(QUICK) {
            Finding::Over(limit) if self.probe.windows >= SHORTEST_PROBE => {
                self.turn_back(Some(limit), self.used());
            }
            Finding::Under => self.step_up(),
            Finding::Open if self.probe.windows >= LONGEST_PROBE && self.probe.seen() >= FEWEST => {
                let builds_up = self.behind > 0 || self.probe.is_rising(&self.config.limits);
                let patience = if self.high.is_some() { 1 } else { UNBOUNDED_PROBE };
                if self.used() < 1.0 && !builds_up {
                    // Errors close below their limit, whatever the load, are not to be told from
                    // it at a low rate. The next step will show whether they come of the load.
                    self.step_up();
                } else if self.probe.windows >= patience * LONGEST_PROBE || builds_up {
                    self.begin_to_refine(self.tps);
                }
            }
            Finding::Over(_) | Finding::Open => {}
        }
    }

    /// The current rate is borne, as far as can be told.
    fn step_up(&mut self) {
        let used = self.used();
        self.low = Some(Edge { tps: self.tps, used, careful: false });
        if self.tps >= f64::from(self.config.max_tps) {
            self.bound_by = None;
            self.settle_at(self.tps);
            return;
        }
        let factor = if used < 0.5 { FAR } else { NEAR };
        let next = self.tps * factor;
        match self.high {
            Some(high) if next >= high.tps => self.halve(),
            _ => self.go_to(next, RateState::Growing),
        }
    }

    fn narrow(&mut self) {
        let finding = self.judge(CAREFUL);
        if self.probe.windows < SHORTEST_PROBE {
            return;
        }
        match finding {
            Finding::Over(limit) => self.turn_back(Some(limit), self.used()),
            Finding::Under => {
                self.low = Some(Edge { tps: self.tps, used: self.used(), careful: true });
                self.down = DOWN;
                self.halve();
            }
            Finding::Open if self.probe.windows >= LONGEST_PROBE && self.probe.seen() >= FEWEST => {
                self.begin_to_refine(self.tps);
            }
            Finding::Open => {}
        }
    }

    /// The current rate is too much.
    fn turn_back(&mut self, limit: Option<usize>, used: f64) {
        self.bound_by = limit;
        self.saturated = limit.is_none();
        match self.state {
            RateState::Holding => return self.overrun(),
            RateState::Refining => {
                self.refined(20.0);
                let more = self.refinement.estimates.len() < self.rounds;
                let after = if more { RateState::Refining } else { RateState::Holding };
                return self.recover_to(self.refinement.mean(), after);
            }
            _ => {}
        }
        let high = Edge { tps: self.tps, used: used.max(1.01), careful: true };
        self.high = Some(high);
        // A lower edge at or above the new upper one was an accident.
        let low_was_wrong = self.low.is_some_and(|low| low.tps >= self.tps);
        if low_was_wrong {
            self.low = None;
        }
        match self.low {
            // Before the search trusts it with the rest.
            Some(low) if !low.careful && high.tps / low.tps <= UNSURE => {
                self.recover_to(low.tps, RateState::Narrowing);
            }
            Some(low) if high.tps / low.tps <= NARROW => {
                let tps = (low.tps * high.tps).sqrt();
                self.begin_to_refine(tps);
                self.recover_to(self.tps, self.state);
            }
            Some(low) => self.recover_to(self.guess(low, high), RateState::Narrowing),
            None if self.state == RateState::Narrowing => {
                let next = self.tps / self.down;
                self.down *= self.down;
                self.recover_to(next, RateState::Narrowing);
            }
            None => self.recover_to(self.tps / 2.0, RateState::Growing),
        }
    }

    /// The target has changed: what was known of it no longer holds.
    fn fall(&mut self) {
        let from = self.tps;
        self.low = None;
        self.high = Some(Edge { tps: from, used: 2.0, careful: false });
        self.ceiling = (f64::INFINITY, 0);
        // A little less than what it still does, where that is known.
        let told = self.succeeded_tps * RECOVERY;
        let next = if told > 0.0 && told < from / 2.0 { told } else { from / 2.0 };
        self.recover_to(next, RateState::Growing);
    }

    /// Next rate of the search between the two edges.
    fn halve(&mut self) {
        let (Some(low), Some(high)) = (self.low, self.high) else { return };
        if high.tps / low.tps <= NARROW {
            self.begin_to_refine((low.tps * high.tps).sqrt());
        } else {
            self.go_to(self.guess(low, high), RateState::Narrowing);
        }
    }

    /// Where the limit should be used in full, if its use grew by the same factor for each factor
    /// of the rate; kept away from the edges, so that the bracket always shrinks.
    fn guess(&self, low: Edge, high: Edge) -> f64 {
        let width = (high.tps / low.tps).ln();
        let (low_use, high_use) =
            (low.used.clamp(0.02, 0.99).ln(), high.used.clamp(1.01, 50.0).ln());
        let at = (-low_use / (high_use - low_use)).clamp(0.25, 0.75);
        let guess = low.tps * (width * at).exp();
        let told = self.succeeded_tps;
        // At the upper edge, just now.
        if self.tps >= high.tps && told < guess && told > low.tps * NARROW { told } else { guess }
    }

    fn recover_to(&mut self, tps: f64, state: RateState) {
        let tps = tps.max(1.0);
        self.next = (tps, state);
        let borne = self.low.map_or(tps, |low| low.tps.min(tps));
        // A target that stands still answers nothing, which is no rate to go on with.
        let told = if self.succeeded_tps > 0.0 { self.succeeded_tps } else { borne };
        let borne = borne.min(told.max(borne / 10.0));
        self.tps = (borne * RECOVERY).max(1.0);
        self.state = RateState::Recovering;
        self.reset();
    }

    fn recover(&mut self, window: &Window, broken: &[Broken]) {
        self.probe.windows += 1;
        if self.probe.windows <= SETTLING {
            return;
        }
        let over = broken
            .iter()
            .zip(&self.config.limits)
            .any(|(seen, limit)| seen.share().is_some_and(|share| share > limit.share()));
        let (tps, state) = self.next;
        if self.probe.windows.is_multiple_of(5) {
            // Not even this lets it recover.
            self.tps = (self.tps * RECOVERY).max(1.0);
        }
        if !over && window.backlog <= window.planned / 10 {
            self.go_to(tps, state);
        } else if self.probe.windows > LONGEST_RECOVERY {
            // Not even that is borne.
            self.low = None;
            self.high = Some(Edge { tps, used: 2.0, careful: false });
            self.recover_to(tps / 2.0, RateState::Growing);
        }
    }

    fn settle_at(&mut self, tps: f64) {
        self.adjusted = 0.0;
        self.go_to(tps, RateState::Holding);
    }

    fn go_to(&mut self, tps: f64, state: RateState) {
        self.tps = tps.clamp(1.0, f64::from(self.config.max_tps.max(1)));
        self.state = state;
        self.reset();
    }

    fn reset(&mut self) {
        let limits = self.config.limits.len();
        self.probe = Probe::new(limits);
        self.over_in_a_row = 0;
        self.behind = 0;
        self.settling = if self.state == RateState::Refining { UNJUDGED } else { SETTLING };
    }
}
