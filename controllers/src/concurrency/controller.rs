mod search;

use super::ladder::{Ladder, SERVICE_TIMES, Sample, Step};
use super::little::Little;
use super::pace::Pace;
use super::{
    ConcurrencyConfig, ConcurrencyDecision, ConcurrencyGoal, ConcurrencyState, Saturation,
};
use crate::Window;

/// A step that Little's law asks for may be this large before anything was
/// measured at another limit; any later one doubles.
const LEAP: u32 = 4;

/// Windows at the knee before one step beyond it is tried again; doubles with
/// every vain try up to the last, so that a target that stays saturated is
/// disturbed less and less.
const PROBE_AFTER: u32 = 20;
const PROBE_AT_LEAST_EVERY: u32 = 640;

/// Windows without growth after a fault of the generator itself.
const COOL_DOWN: u32 = 5;

/// Windows in which permits wait though less is under way than is allowed,
/// before the limit is taken for the cause after all: one shard may be at its
/// share while another has no need of its own.
const UNEVEN_WINDOWS: u32 = 3;

/// Windows with far too many instances before some are given back, and those
/// between two further reductions.
const LOWER_AFTER: u32 = 5;
const LOWER_EVERY: u32 = 2;

/// "Far too many": the limit is left alone while at least this share is needed,
/// so that noise does not move it.
const MUCH_LESS: f64 = 0.7;

/// A backlog that loses a tenth in a window is gone soon enough.
const DRAINING: f64 = 0.9;

/// Chooses how many instances of a scenario may be in a transaction, or on their way to their first.
///
/// Instances that pause between transactions are not counted: they ask nothing of the target, and how
/// many there have to be besides is found by need on each shard, see [`Population`](crate::Population).
///
/// *Open loop:* by Little's law the rate times the mean time in the system
/// needs that many instances on average; a quarter (or three standard deviations
/// of a random occupancy, if that is more) is added. If permits wait
/// nevertheless, the limit doubles, each step measured before the next.
///
/// *Saturation:* as soon as a doubled limit surely did not raise the throughput,
/// the limit returns to the smallest one that reached it, and now and then one
/// step beyond is tried again. Sure is meant statistically, on the counts.
///
/// *Closed loop:* [`Saturate`](ConcurrencyGoal::Saturate) searches in the same
/// way until the throughput stops growing.
///
/// Windows that hold no evidence change nothing.
///
/// ```
/// use balter_controllers::{
///     ConcurrencyConfig, ConcurrencyController, ConcurrencyGoal, Window,
/// };
///
/// let mut controller = ConcurrencyController::new(ConcurrencyConfig {
///     goal: ConcurrencyGoal::Open { tps: 100 },
///     initial: 10,
///     max: 10_000,
///     min: 1,
/// });
/// // All permits were used in time, but at 200 ms each 20 instances are needed.
/// let decision = controller.update(&Window {
///     length_ns: 1_000_000_000,
///     succeeded: 100,
///     service_sum_ns: 100 * 200_000_000,
///     instances: 10,
///     in_flight: 10,
///     ..Window::default()
/// });
/// assert!(decision.limit >= 20);
/// ```
#[derive(Clone, Debug)]
pub struct ConcurrencyController {
    goal: ConcurrencyGoal,
    floor: u32,
    max: u32,
    limit: u32,
    state: ConcurrencyState,
    phase: Phase,
    ladder: Ladder,
    /// What has been measured at the current limit since it settled.
    trial: Sample,
    /// Time since the limit changed.
    since_change_ns: u64,
    settled: bool,
    windows_since_change: u32,
    blind_steps: u32,
    leaps: u32,
    /// Mean service time at which the last leap was taken.
    leap_service_ns: f64,
    cool_down: u32,
    uneven_windows: u32,
    low_windows: u32,
    last_backlog: u64,
    little: Little,
    pace: Pace,
    probe_after: u32,
}

/// What the permits of a window say.
enum Demand {
    /// The rate, which is given, is met.
    Met(u32),
    /// No permit waits, because a step up has just taken them in; whether their
    /// answers come at the rate too is not known yet.
    Swallowed,
    /// Permits wait, and they become fewer at this limit.
    Draining,
    /// Permits wait; in a closed loop always.
    Waiting,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The rate is met; the limit follows Little's law.
    Following,
    /// More is wanted and each step is measured.
    Growing,
    /// More is wanted and was found useless: at the knee.
    Held { saturation: Saturation, knee: Sample, windows: u32 },
    /// One step beyond the knee, to see whether that is still so.
    Probing { saturation: Saturation },
    /// Half the lowest limit measured that reached the throughput of the target:
    /// the knee may lie below, where the search leapt over it.
    Descending { saturation: Saturation, knee: Sample },
}

impl ConcurrencyController {
    /// A controller at the initial limit.
    #[must_use]
    pub fn new(config: ConcurrencyConfig) -> Self {
        let max = config.max.max(1);
        let floor = config.initial.clamp(config.min.clamp(1, max), max);
        let (limit, state, phase) = match config.goal {
            ConcurrencyGoal::Fixed(limit) => (limit, ConcurrencyState::Stable, Phase::Following),
            ConcurrencyGoal::Open { .. } => (floor, ConcurrencyState::Working, Phase::Following),
            ConcurrencyGoal::Saturate => (floor, ConcurrencyState::Working, Phase::Growing),
        };
        ConcurrencyController {
            goal: config.goal,
            floor,
            max,
            limit,
            state,
            phase,
            ladder: Ladder::default(),
            trial: Sample::default(),
            since_change_ns: 0,
            settled: false,
            windows_since_change: 0,
            blind_steps: 0,
            leaps: 0,
            leap_service_ns: f64::INFINITY,
            cool_down: 0,
            uneven_windows: 0,
            low_windows: 0,
            last_backlog: 0,
            little: Little::default(),
            pace: Pace::default(),
            probe_after: PROBE_AFTER,
        }
    }

    /// Changes the rate of an open loop, in transactions a second; without
    /// effect for the other goals. A higher rate raises the limit at once, as
    /// far as Little's law asks for it and at most fourfold, unless the target
    /// is known to be saturated.
    pub fn set_tps(&mut self, tps: u32) {
        let ConcurrencyGoal::Open { tps: current } = &mut self.goal else {
            return;
        };
        let raised = tps > *current;
        *current = tps;
        self.low_windows = 0;
        if raised
            && self.cool_down == 0
            && matches!(self.phase, Phase::Following)
            && self.pace.kept()
            && let Some(needed) = self.little.needed(tps)
        {
            self.raise_to(needed.min(self.limit.saturating_mul(LEAP)));
        }
    }

    /// The limit decided last.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Where the throughput stopped growing, as long as more is wanted and that
    /// still holds.
    #[must_use]
    pub fn saturation(&self) -> Option<Saturation> {
        match self.phase {
            Phase::Held { saturation, .. }
            | Phase::Probing { saturation }
            | Phase::Descending { saturation, .. } => Some(saturation),
            Phase::Following | Phase::Growing => None,
        }
    }

    /// Decides from the next window, merged over all shards. Windows are to come
    /// in order and without gaps.
    pub fn update(&mut self, window: &Window) -> ConcurrencyDecision {
        let fixed = matches!(self.goal, ConcurrencyGoal::Fixed(_));
        if !fixed && window.length_ns > 0 && !window.is_idle() {
            let before = self.limit;
            self.pace.add(window);
            self.state = self.decide(window);
            self.last_backlog = window.backlog;
            // A new limit takes effect after this window, so it does not count.
            if self.limit == before {
                self.since_change_ns = self.since_change_ns.saturating_add(window.length_ns);
                self.windows_since_change = self.windows_since_change.saturating_add(1);
            }
        }
        ConcurrencyDecision { limit: self.limit, state: self.state }
    }

    fn decide(&mut self, window: &Window) -> ConcurrencyState {
        if window.generator_faults > 0 {
            self.cool_down = COOL_DOWN;
            self.trial = Sample::default();
            return ConcurrencyState::Limited;
        }
        if self.cool_down > 0 {
            self.cool_down -= 1;
        }
        match self.demand(window) {
            Demand::Met(tps) => return self.follow(window, tps),
            // Left alone: the limit suffices, and neither throughput nor service
            // time are those of the rate.
            Demand::Draining | Demand::Swallowed => return self.state,
            // They wait for instances, which the shards start as they need them: a higher limit is
            // no help.
            Demand::Waiting if window.instance_wait_ns > window.target_wait_ns => {
                return ConcurrencyState::Working;
            }
            Demand::Waiting => {}
        }
        self.low_windows = 0;
        // Below nine tenths of the limit the shards are still starting instances.
        if u64::from(window.occupied()) * 10 < u64::from(self.limit) * 9 {
            self.uneven_windows += 1;
            if self.uneven_windows < UNEVEN_WINDOWS {
                return ConcurrencyState::Working;
            }
        } else {
            self.uneven_windows = 0;
        }
        match self.phase {
            Phase::Following => {
                self.phase = Phase::Growing;
                self.leaps = 0;
                self.leap_service_ns = f64::INFINITY;
                self.ladder.clear();
                self.trial = Sample::default();
                self.grow(window)
            }
            Phase::Growing => self.grow(window),
            Phase::Held { saturation, knee, windows } => {
                self.hold(window, saturation, knee, windows + 1)
            }
            Phase::Probing { saturation } => self.probe(window, saturation),
            Phase::Descending { saturation, knee } => self.descend(window, saturation, knee),
        }
    }

    fn demand(&self, window: &Window) -> Demand {
        let ConcurrencyGoal::Open { tps } = self.goal else {
            return Demand::Waiting;
        };
        // What became due in the last millisecond is not late: a turn of a shard
        // may end a window between the release and the start.
        if window.backlog as f64 <= f64::from(tps) * 1e-3 {
            let searching = !matches!(self.phase, Phase::Following);
            return if searching && !self.pace.kept() {
                Demand::Swallowed
            } else {
                Demand::Met(tps)
            };
        }
        let shrinks = (window.backlog as f64) < DRAINING * self.last_backlog as f64;
        // A backlog also shrinks when its permits are dropped.
        if shrinks && window.missed == 0 && window.completed() > 0 {
            Demand::Draining
        } else {
            Demand::Waiting
        }
    }

    /// The rate is met: as many instances as it takes, with a margin.
    fn follow(&mut self, window: &Window, tps: u32) -> ConcurrencyState {
        let Some(mean_ns) = window.mean_service_ns() else {
            return self.state;
        };
        self.blind_steps = 0;
        self.uneven_windows = 0;
        self.phase = Phase::Following;
        self.probe_after = PROBE_AFTER;
        self.little.learn_service(mean_ns);
        // The higher of the two: up at once, down when it has lasted.
        let lasting = self.little.needed(tps).unwrap_or(0);
        let needed = Little::needed_at(tps, mean_ns).max(lasting).max(self.floor);
        if needed > self.limit {
            self.low_windows = 0;
            // Behind the rate, more instances would fill with waiting ones, which
            // makes the service time grow, which asks for more instances.
            if self.cool_down == 0 && self.pace.kept() {
                self.raise_to(needed.min(self.limit.saturating_mul(2)));
            }
        } else if f64::from(needed) <= MUCH_LESS * f64::from(self.limit) {
            self.low_windows += 1;
            if self.low_windows >= LOWER_AFTER {
                self.low_windows = LOWER_AFTER - LOWER_EVERY;
                self.move_to(needed.max(self.limit - self.limit / 4));
            }
        } else {
            self.low_windows = 0;
        }
        if self.cool_down > 0 { ConcurrencyState::Limited } else { ConcurrencyState::Stable }
    }

    fn is_closed(&self) -> bool {
        matches!(self.goal, ConcurrencyGoal::Saturate)
    }

    fn raise_to(&mut self, limit: u32) {
        self.move_to(limit.max(self.limit));
    }

    fn move_to(&mut self, limit: u32) {
        let limit = limit.clamp(self.floor, self.max);
        if limit != self.limit {
            self.limit = limit;
            self.since_change_ns = 0;
            self.settled = false;
            self.windows_since_change = 0;
        }
        self.trial = Sample::default();
    }
}
