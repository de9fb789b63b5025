//! A run whose rate is searched for: what its windows say of its limits, and the part of it that
//! counts as steady.

use std::time::Duration;

use balter_controllers::{
    Broken, Evidence, Limit, RateConfig, RateController, RateDecision, RateState, SearchEnd, Window,
};

use super::recorder::{Bucket, histogram};
use super::totals::{SplitWaits, sum_ns};
use super::window::ShardWindow;
use crate::config::RunConfig;
use crate::failure::{FailureClass, generator_faults};
use crate::statistics::{
    Capacity, Latencies, RatePoint, SearchStatistics, Steady, Waits, by_class,
};

/// See the module's documentation.
pub(super) struct Search {
    controller: RateController,
    limits: Vec<Limit>,
    /// Of the current tick, for each limit.
    broken: Vec<Broken>,
    /// What the windows of this tick add, should they turn out to be steady.
    pending: Part,
    steady: Part,
    /// The steady part before this one, where the rate has crept away from it.
    former: Option<Part>,
    max_instances: u32,
    /// Windows to come that belong to the rate before.
    unsteady: u32,
    points: Vec<RatePoint>,
    /// Windows in which the rate has been held, of those it is to be before the run ends.
    held: u32,
    until_found: bool,
    /// The rate with which the steady part began, and whether the search has begun anew since.
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
    planned: u64,
    started: u64,
    missed: u64,
    stalled: u64,
    succeeded: u64,
    failed: u64,
    failures: [u64; FailureClass::COUNT],
    panics: u64,
    /// Times from one permit of an instance to its asking for the next, and their sum.
    cycles: (u64, u64),
    waits: SplitWaits,
    /// Most at the end of a window.
    instances: u32,
    /// Idle time of each part of the run, and its time.
    idle: Vec<(u64, u64)>,
    response: Latencies,
    punctual: Latencies,
    lag: Latencies,
    lateness: Latencies,
    broken: Vec<Broken>,
}

impl Part {
    fn new(limits: usize) -> Self {
        let [response, punctual, lag, lateness] = [(); 4].map(|()| Latencies::new(histogram()));
        Self {
            length_ns: 0,
            planned: 0,
            started: 0,
            missed: 0,
            stalled: 0,
            succeeded: 0,
            failed: 0,
            failures: [0; FailureClass::COUNT],
            panics: 0,
            cycles: (0, 0),
            waits: SplitWaits::default(),
            instances: 0,
            idle: Vec::new(),
            response,
            punctual,
            lag,
            lateness,
            broken: vec![Broken::default(); limits],
        }
    }

    /// Takes in a window of the part with this number.
    fn add(&mut self, part: usize, window: &ShardWindow) {
        self.planned += window.planned;
        self.started += window.started;
        self.missed += window.missed;
        self.stalled += window.stalled;
        self.succeeded += window.succeeded();
        self.failed += window.failed();
        self.panics += window.panics;
        for (sum, count) in self.failures.iter_mut().zip(window.failures) {
            *sum += count;
        }
        self.cycles.0 += window.cycles;
        self.cycles.1 = self.cycles.1.saturating_add(window.cycle_ns);
        if self.idle.len() <= part {
            self.idle.resize(part + 1, (0, 0));
        }
        self.idle[part].0 += window.idle_ns;
        self.idle[part].1 += window.end_ns.saturating_sub(window.start_ns);
        for (times, sum) in
            [(&window.lateness, &mut self.lateness), (&window.punctual, &mut self.punctual)]
        {
            if let Some(times) = times {
                times.add_to(sum.histogram_mut());
            }
        }
        for transaction in window.transactions() {
            match &transaction.open {
                Some(open) => {
                    open.response.add_to(self.response.histogram_mut());
                    open.lag.add_to(self.lag.histogram_mut());
                }
                None => transaction.service.add_to(self.response.histogram_mut()),
            }
        }
    }

    /// Takes over what the other holds, and leaves it empty.
    fn absorb(&mut self, other: &mut Self) {
        use std::mem::take;
        self.length_ns += take(&mut other.length_ns);
        for (sum, count) in [
            (&mut self.planned, &mut other.planned),
            (&mut self.started, &mut other.started),
            (&mut self.missed, &mut other.missed),
            (&mut self.stalled, &mut other.stalled),
            (&mut self.succeeded, &mut other.succeeded),
            (&mut self.failed, &mut other.failed),
            (&mut self.panics, &mut other.panics),
            (&mut self.cycles.0, &mut other.cycles.0),
            (&mut self.cycles.1, &mut other.cycles.1),
        ]
        .into_iter()
        .chain(self.failures.iter_mut().zip(&mut other.failures))
        {
            *sum = sum.saturating_add(take(count));
        }
        self.waits.add(take(&mut other.waits));
        self.instances = self.instances.max(take(&mut other.instances));
        if self.idle.len() < other.idle.len() {
            self.idle.resize(other.idle.len(), (0, 0));
        }
        for (sum, idle) in self.idle.iter_mut().zip(other.idle.drain(..)) {
            (sum.0, sum.1) = (sum.0 + idle.0, sum.1 + idle.1);
        }
        for (sum, times) in [
            (&mut self.response, &mut other.response),
            (&mut self.punctual, &mut other.punctual),
            (&mut self.lag, &mut other.lag),
            (&mut self.lateness, &mut other.lateness),
        ] {
            let times = times.histogram_mut();
            sum.histogram_mut().add(&*times).expect("all histograms have one shape");
            times.reset();
        }
        for (sum, broken) in self.broken.iter_mut().zip(&mut other.broken) {
            let Broken { over, of, .. } = take(broken);
            sum.over += over;
            sum.of += of;
        }
    }

    fn busy(&self) -> Vec<f64> {
        let busy = |&(idle_ns, active_ns): &(u64, u64)| match active_ns {
            0 => 0.0,
            active => 1.0 - (idle_ns as f64 / active as f64).min(1.0),
        };
        self.idle.iter().map(busy).collect()
    }

    /// What is known of it, but for what the whole run alone knows.
    fn evidence(&self) -> Evidence {
        let failures = |class: FailureClass| self.failures[class.index()];
        let tps = self.planned as f64 * 1e9 / self.length_ns.max(1) as f64;
        Evidence {
            goal_tps: Some(tps as u32),
            planned: self.planned,
            started: self.started,
            missed: self.missed,
            stalled: self.stalled,
            completed: self.succeeded + self.failed - failures(FailureClass::Panic),
            elapsed_ns: self.length_ns,
            descriptors: failures(FailureClass::Descriptors),
            ports: failures(FailureClass::Ports),
            memory: failures(FailureClass::Memory),
            unreachable: failures(FailureClass::Unreachable),
            timeouts: failures(FailureClass::Timeout),
            panics: self.panics,
            failed: self.failed - generator_faults(&self.failures),
            busy: self.busy().into_iter().fold(0.0, f64::max),
            late_p99_ns: self.lateness.quantile(0.99).as_nanos() as u64,
            late_ns: sum_ns(&self.lateness),
            target_wait_ns: self.waits.target_ns,
            instance_wait_ns: self.waits.instance_ns,
            limit_target_wait_ns: self.waits.limit_target_ns,
            limit_instance_wait_ns: self.waits.limit_instance_ns,
            cycle_ns: self.cycles.1.checked_div(self.cycles.0).unwrap_or(0),
            response_p99_ns: self.response.quantile(0.99).as_nanos() as u64,
            instances: self.instances,
            ..Evidence::default()
        }
    }

    fn into_steady(self) -> Steady {
        let busy = self.busy();
        let SplitWaits { target_ns, instance_ns, .. } = self.waits;
        Steady {
            elapsed: Duration::from_nanos(self.length_ns),
            planned: self.planned,
            missed: self.missed,
            succeeded: self.succeeded,
            failed: self.failed,
            spoilt: generator_faults(&self.failures),
            failures: by_class(&self.failures).collect(),
            panics: self.panics,
            instances: self.instances as usize,
            busy,
            waits: Waits {
                for_target: Duration::from_nanos(target_ns),
                for_instances: Duration::from_nanos(instance_ns),
            },
            response: self.response,
            punctual: self.punctual,
            lag: self.lag,
            lateness: self.lateness,
        }
    }
}

/// How a search ended.
pub(super) struct Ended {
    pub(super) decision: RateDecision,
    pub(super) steady: Option<Steady>,
    /// What is known of the steady part.
    pub(super) evidence: Option<Evidence>,
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
            former: None,
            max_instances: config.max_concurrency,
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

    /// Takes in a window of one part of the run, of the current tick.
    pub(super) fn window(&mut self, part: usize, window: &ShardWindow) {
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
            self.pending.add(part, window);
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
                self.pending.length_ns = window.length_ns;
                self.pending.instances = window.instances;
                self.pending.waits = SplitWaits::of(window, self.max_instances);
                self.pending.broken.clone_from(&self.broken);
                self.steady.absorb(&mut self.pending);
            }
        }
        self.visit(before, window);
        let decision = self.controller.update(window, &self.broken);
        self.has_changed |= self.controller.end().is_none();
        self.held = if decision.state == RateState::Holding { self.held + 1 } else { 0 };
        self.broken.fill(Broken::default());
        if decision.state == RateState::Holding {
            self.hold(decision.tps, before.state != RateState::Holding);
        }
        decision
    }

    /// The rate is held: it is one part of the run until the target changes, or the rate by more than
    /// [`SAME_RATE`] from what it was when the part began. A pause is no change, if the rate is the same
    /// after it.
    fn hold(&mut self, tps: u32, has_entered: bool) {
        let is_anew = has_entered && self.has_changed;
        let off = f64::from(tps) / f64::from(self.held_tps.max(1)) - 1.0;
        if is_anew || off.abs() > SAME_RATE {
            let empty = Part::new(self.limits.len());
            let former = std::mem::replace(&mut self.steady, empty);
            // Of a rate that has crept away the part before is what there is, until there is a new one.
            if is_anew || has_entered {
                self.former = None;
            } else if former.length_ns > 0 {
                self.former = Some(former);
            }
            (self.held_tps, self.unsteady) = (tps, 1);
        }
        if has_entered {
            (self.has_changed, self.unsteady) = (false, 1);
        }
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
        // A rate is to be shown that it can be held.
        let is_shown = self.held > SHOWN;
        let has_ended = self.controller.end().is_some_and(|end| !end.is_found() || is_shown);
        self.until_found && has_ended
    }

    pub(super) fn end(self) -> Ended {
        let decision = self.controller.decision();
        let end = self.controller.end();
        let part = match self.former {
            Some(former) if self.steady.length_ns == 0 => former,
            _ => self.steady,
        };
        // Where the rate is the goal's, no limit keeps it from more.
        let bound_by = decision.bound_by.filter(|_| end != Some(SearchEnd::GoalReached));
        let bound_by = bound_by.map(|index| (self.limits[index], part.broken[index]));
        let part = Some(part).filter(|part| part.length_ns > 0);
        let evidence = part.as_ref().map(Part::evidence);
        let steady = part.map(Part::into_steady);
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
        let search = SearchStatistics { limits: self.limits, points: self.points, capacity, end };
        Ended { decision, steady, evidence, bound_by, search }
    }

    /// Whether one of the limits is on latencies, and whether one is on errors.
    pub(super) fn kinds(&self) -> (bool, bool) {
        let latency = |limit: &Limit| matches!(limit, Limit::Latency { .. });
        (self.limits.iter().any(latency), !self.limits.iter().all(latency))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search() -> Search {
        let limits = vec![Limit::ErrorRate(0.05)];
        Search::new(&RunConfig { limits, ..RunConfig::default() }, 1_000_000)
    }

    /// A window of the rate, held: of all shards, which is one.
    fn held(search: &mut Search, tps: u32) {
        if search.unsteady > 0 {
            search.unsteady -= 1;
        } else {
            let planned = u64::from(tps) / 10;
            search.pending.add(0, &ShardWindow { planned, ..ShardWindow::default() });
            search.pending.length_ns = 100_000_000;
            search.steady.absorb(&mut search.pending);
        }
        search.hold(tps, false);
    }

    #[test]
    fn what_is_steady_begins_anew_when_the_rate_has_crept_away() {
        let mut search = search();
        search.hold(1_000, true);
        for _ in 0..11 {
            held(&mut search, 1_000);
        }
        assert_eq!((search.steady.planned, search.steady.length_ns), (1_000, 1_000_000_000));
        // By one in a hundred, and by one more: that is the same rate still.
        held(&mut search, 1_010);
        held(&mut search, 1_019);
        assert_eq!(search.steady.length_ns, 1_200_000_000);
        held(&mut search, 1_031);
        assert_eq!(search.steady.length_ns, 0);
        // Until there is another, the part before is what was held.
        assert_eq!(search.former.as_ref().map(|former| former.length_ns), Some(1_300_000_000));
        held(&mut search, 1_031);
        held(&mut search, 1_031);
        assert_eq!((search.steady.planned, search.steady.length_ns), (103, 100_000_000));
        // It comes back to the rate after a pause, and the target has not changed.
        search.hold(1_040, true);
        assert_eq!(search.steady.length_ns, 100_000_000);
        search.has_changed = true;
        search.hold(1_040, true);
        assert!(search.steady.length_ns == 0 && search.former.is_none());
    }

    #[test]
    fn a_part_tells_of_itself_alone() {
        let mut failures = [0; FailureClass::COUNT];
        failures[FailureClass::Descriptors.index()] = 30;
        failures[FailureClass::Timeout.index()] = 10;
        let window = ShardWindow {
            planned: 1_000,
            started: 990,
            missed: 10,
            failures,
            end_ns: 1_000_000_000,
            idle_ns: 250_000_000,
            ..ShardWindow::default()
        };
        let mut pending = Part::new(0);
        pending.add(1, &window);
        (pending.succeeded, pending.failed) = (950, 40);
        (pending.length_ns, pending.instances) = (1_000_000_000, 7);
        let whole =
            Window { instances: 7, target_wait_ns: 5, instance_wait_ns: 3, ..Window::default() };
        pending.waits = SplitWaits::of(&whole, 7);
        let mut part = Part::new(0);
        part.absorb(&mut pending);
        part.absorb(&mut pending);
        let evidence = part.evidence();
        assert_eq!((evidence.planned, evidence.missed, evidence.completed), (1_000, 10, 990));
        assert_eq!((evidence.descriptors, evidence.timeouts, evidence.failed), (30, 10, 10));
        assert_eq!((evidence.limit_target_wait_ns, evidence.limit_instance_wait_ns), (5, 3));
        assert_eq!((evidence.instances, evidence.busy), (7, 0.75));
        let steady = part.into_steady();
        assert_eq!(steady.busy, [0.0, 0.75]);
        // What the generator failed at was not borne by the target.
        assert!((steady.tps() - 960.0).abs() < 1e-6, "{}", steady.tps());
        // Fewer instances than may be: no wait was the limit's.
        let below = SplitWaits::of(&whole, 8);
        assert_eq!((below.target_ns, below.limit_target_ns, below.limit_instance_ns), (5, 0, 0));
    }
}
