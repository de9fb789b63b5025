mod display;

use crate::{Broken, Cause, Limit, RateState, Saturation, SearchEnd, Shortfall};

/// A goal counts as reached from this share on: arrivals at the edges of a run
/// and the rounding of windows cost less than one per cent of any run worth
/// judging.
const REACHED: f64 = 0.99;

/// A shard that works for this share of its time has no reserve left for the
/// bursts in which completions arrive.
const BUSY: f64 = 0.9;

/// A processor that was taken away for this share of the time explains a generator that is late.
const TAKEN: f64 = 0.05;

/// Lag above this is late whatever the target's response time: it is well above
/// what a timer or a turn of a shard that keeps up costs.
const LATE_NS: u64 = 1_000_000;

/// From one failure of the generator's own in so many transactions on, what a run
/// measured is not what was asked for, whatever rate it had.
const SPOILT_FROM: u64 = 100;

/// The generator's own lag may be this share of the response time that is
/// reported; beyond it the report says more about the generator.
const DISTORTING: f64 = 0.1;

/// So many failures in a row, times the share that does not fail, over so long a time before the end, are the target's last state.
const FAILING: f64 = 10.0;
const FAILING_NS: u64 = 1_000_000_000;

/// What is known about a run, or about a part of it, when it has ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    /// The rate asked for in transactions a second; `None` without such a goal.
    /// Zero is no goal.
    pub goal_tps: Option<u32>,
    /// Permits that became due (open loop).
    pub planned: u64,
    /// Transactions started.
    pub started: u64,
    /// Permits dropped unused.
    pub missed: u64,
    /// Transactions that ended by themselves, well or badly; without those that panicked.
    pub completed: u64,
    /// Time in which permits were released, in nanoseconds; without the grace
    /// for what was under way at the end.
    pub elapsed_ns: u64,
    /// Failures for want of file descriptors.
    pub descriptors: u64,
    /// Failures for want of local ports.
    pub ports: u64,
    /// Failures for want of memory.
    pub memory: u64,
    /// Panics of the scenario.
    pub panics: u64,
    /// Share of its time that the busiest shard worked, `0.0..=1.0`.
    pub busy: f64,
    /// Permits among the missed ones that the generator itself was too late for.
    pub stalled: u64,
    /// 99th percentile of the part of the lag that is the generator's own, in nanoseconds.
    pub late_p99_ns: u64,
    /// The same part of the lag, summed over all transactions that ended.
    pub late_ns: u64,
    /// Time that permits waited because of transactions under way, in nanoseconds, summed over them.
    pub target_wait_ns: u64,
    /// Time that permits waited because instances paused or had yet to begin.
    pub instance_wait_ns: u64,
    /// The part of `target_wait_ns` from windows at whose end there were as many instances as may be.
    pub limit_target_wait_ns: u64,
    /// The same part of `instance_wait_ns`.
    pub limit_instance_wait_ns: u64,
    /// Mean time from one permit of an instance to its asking for the next, in nanoseconds.
    pub cycle_ns: u64,
    /// 99th percentile of the response time, in nanoseconds.
    pub response_p99_ns: u64,
    /// Where the throughput stopped growing, if that was found.
    pub saturation: Option<Saturation>,
    /// Most scenario instances that were alive at once.
    pub instances: u32,
    /// Most scenario instances allowed. Zero for no such limit.
    pub max_instances: u32,
    /// Shards that died during the run.
    pub shards_lost: u32,
    /// Nodes of a cluster that were lost during the run.
    pub nodes_lost: u32,
    /// Permits among the missed ones that went with them.
    pub lost_missed: u64,
    /// Transactions that were under way there.
    pub lost_cancelled: u64,
    /// Whether the run was stopped before its time.
    pub stopped: bool,
    /// Share of its time that the hypervisor took from the worst core of a shard, `0.0..=1.0`.
    pub stolen: f64,
    /// Share of the run's time that the control group was not allowed to run, `0.0..`: it is
    /// summed over its processors.
    pub throttled: f64,
    /// Mean share of its time that a shard's core was taken away, by the hypervisor or the control
    /// group's quota, `0.0..=1.0`.
    pub taken: f64,
    /// Transactions that the target failed, with those of the two fields below.
    pub failed: u64,
    /// Failures because the target could not be reached over the network.
    pub unreachable: u64,
    /// Failures because the time allowed had passed.
    pub timeouts: u64,
    /// Those since the last one that succeeded, and how long before the end that was, in nanoseconds.
    pub failing: (u64, u64),
    /// How most of them failed.
    pub failed_by: Option<String>,
    /// Scenarios that returned without having started a transaction.
    pub returned_early: u64,
    /// Requests outside of transactions, as for a log-in.
    pub outside: u64,
    /// Those of them that failed.
    pub outside_failed: u64,
    /// How the search for the rate ended, where limits were set.
    pub search: Option<SearchEvidence>,
}

/// How a search for the highest rate within limits ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SearchEvidence {
    /// What it was doing at the end.
    pub state: RateState,
    /// The rate that it asked for at the end.
    pub tps: u32,
    /// The limit that kept it from more, and what was seen of it while the rate was held.
    pub bound_by: Option<(Limit, Broken)>,
    /// The target did no more, without breaking a limit.
    pub saturated: bool,
    /// Transactions a second completed while the rate was held; `None` if none was yet.
    pub held_tps: Option<f64>,
    /// How the search ended, if it has.
    pub end: Option<SearchEnd>,
    /// What is known of the part in which the rate was held, with that rate as its goal.
    pub steady: Option<Box<Evidence>>,
}

impl Evidence {
    /// Completed transactions a second that the generator did not spoil itself;
    /// zero without elapsed time.
    #[must_use]
    pub fn achieved_tps(&self) -> f64 {
        if self.elapsed_ns == 0 {
            return 0.0;
        }
        self.valid() as f64 * 1e9 / self.elapsed_ns as f64
    }

    pub(crate) fn spoilt(&self) -> u64 {
        self.descriptors.saturating_add(self.ports).saturating_add(self.memory)
    }

    /// Whether panics and other failures of the generator's own are more than one
    /// in a hundred, of all that completed or panicked. The figures are not fit to
    /// be asserted on then: a share of what was asked for was never sent.
    #[must_use]
    pub fn is_spoilt(&self) -> bool {
        self.spoilt().saturating_add(self.panics) > self.tolerated()
    }

    pub(crate) fn is_spoilt_by_panics(&self) -> bool {
        self.panics > self.tolerated()
    }

    fn tolerated(&self) -> u64 {
        self.completed.saturating_add(self.panics) / SPOILT_FROM
    }

    /// The generator's own failure that there was most of, if they are too many.
    fn spoilt_by(&self) -> Option<Verdict> {
        self.is_spoilt().then(|| self.worst_fault()).flatten()
    }

    /// The generator's own failure that there was most of, if there was one.
    fn worst_fault(&self) -> Option<Verdict> {
        let Self { descriptors, ports, memory, panics, .. } = *self;
        Some(match descriptors.max(ports).max(memory).max(panics) {
            0 => return None,
            most if descriptors == most => Verdict::Descriptors { failures: descriptors },
            most if ports == most => Verdict::Ports { failures: ports },
            most if memory == most => Verdict::Memory { failures: memory },
            _ => Verdict::Panics { panics },
        })
    }

    fn valid(&self) -> u64 {
        self.completed.saturating_sub(self.spoilt())
    }

    fn goal(&self) -> Option<u32> {
        self.goal_tps.filter(|&tps| tps > 0)
    }

    /// Whether nearly all that the target was asked for failed, or all of it in the end: for how long.
    fn failing_ns(&self) -> Option<u64> {
        let (count, time_ns) = self.failing;
        // Where many fail in any case, as many in a row may be chance.
        let well = 1.0 - self.failed as f64 / self.completed.max(1) as f64;
        let in_the_end = count as f64 * well >= FAILING && time_ns >= FAILING_NS;
        let nearly_all = self.failed > 0 && self.failed >= self.completed - self.completed / 100;
        match (nearly_all, in_the_end) {
            (true, _) => Some(self.elapsed_ns),
            (false, true) => Some(time_ns),
            (false, false) => None,
        }
    }

    fn fails(&self) -> Option<Verdict> {
        if self.started > 0 && self.completed == 0 && self.elapsed_ns >= FAILING_NS {
            // Of those that panicked another verdict tells.
            let is_silent = self.panics == 0 && !self.is_spoilt() && !self.stopped;
            return is_silent.then_some(Verdict::Silent { started: self.started });
        }
        let failing_ns = self.failing_ns()?;
        let (failures, completed) = (self.failed, self.completed);
        let class = self.failed_by.clone();
        Some(Verdict::Failing { failures, completed, failing_ns, class })
    }

    /// More than one in a hundred permits came too late to be used at all.
    fn stood_still(&self) -> bool {
        self.stalled > self.planned / 100
    }

    fn is_late(&self) -> bool {
        self.stood_still()
            || self.late_p99_ns >= LATE_NS
            || self.late_p99_ns as f64 > self.response_p99_ns as f64 * DISTORTING
    }

    fn reached(&self, goal_tps: u32) -> bool {
        let asked = f64::from(goal_tps) * self.elapsed_ns as f64 / 1e9;
        // One permit of slack: whether the last interval of a short slow run
        // still holds its permit is chance. It takes one that did complete.
        self.valid() > 0 && (self.valid() + 1) as f64 >= REACHED * asked
    }
}

/// What bounded a run, with the figures that say so. Made by [`judge`].
///
/// `Display` gives one line: what was seen, and what to do about it.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Verdict {
    /// Nothing was planned and nothing started.
    NothingAsked,
    /// No transaction started, though there was time for it: what stands before the first one did
    /// not let the scenario get there.
    NothingStarted {
        /// How often a scenario returned without having started one.
        returned: u64,
        /// Requests outside of transactions, as for a log-in.
        outside: u64,
        /// Those of them that failed.
        outside_failed: u64,
    },
    /// Nearly all transactions failed, or all of them from some time on until the end.
    Failing {
        /// Those that the target failed, over the whole run.
        failures: u64,
        /// All that ended by themselves.
        completed: u64,
        /// How long before the end the last one had succeeded, in nanoseconds.
        failing_ns: u64,
        /// How most of them failed.
        class: Option<String>,
    },
    /// The target failed more transactions than it served, or these failures are most of what the
    /// run did less than asked.
    Failures {
        /// Those that the target failed.
        failures: u64,
        /// All that ended by themselves.
        completed: u64,
        /// How most of them failed.
        class: Option<String>,
    },
    /// No transaction ended by itself: the target did not answer.
    Silent {
        /// Transactions started.
        started: u64,
    },
    /// The search for the highest rate ended without one.
    NotFound {
        /// How.
        end: SearchEnd,
    },
    /// The rate asked for was held.
    GoalReached {
        /// The rate asked for, transactions a second.
        goal_tps: u32,
        /// The rate held, transactions a second.
        achieved_tps: f64,
    },
    /// A run without a rate as its goal came to its end without a fault.
    Completed {
        /// The rate held, transactions a second.
        achieved_tps: f64,
    },
    /// Shards died and took their share of the load with them.
    ShardsLost {
        /// How many.
        shards_lost: u32,
    },
    /// Nodes of the cluster were lost, and their share of the load until others had taken it over.
    NodesLost {
        /// How many.
        nodes_lost: u32,
        /// The rate held, transactions a second.
        achieved_tps: f64,
    },
    /// The generator ran out of file descriptors.
    Descriptors {
        /// Transactions that failed by it.
        failures: u64,
    },
    /// The generator ran out of local ports.
    Ports {
        /// Transactions that failed by it.
        failures: u64,
    },
    /// The generator ran out of memory.
    Memory {
        /// Transactions that failed by it.
        failures: u64,
    },
    /// The scenario panicked.
    Panics {
        /// How often.
        panics: u64,
    },
    /// As many instances ran as were allowed, and that was too few.
    ConcurrencyLimit {
        /// Instances allowed.
        max_instances: u32,
        /// The rate asked for, transactions a second.
        goal_tps: u32,
        /// The rate held, transactions a second.
        achieved_tps: f64,
        /// Mean time from one permit of an instance to its asking for the next, in nanoseconds: by
        /// Little's law the rate times this is the number of instances that it takes.
        cycle_ns: u64,
    },
    /// Transactions waited for instances, which paused or were on their way to their first
    /// transaction.
    Instances {
        /// Most that there were.
        instances: u32,
        /// The rate asked for, transactions a second.
        goal_tps: u32,
        /// The rate held, transactions a second.
        achieved_tps: f64,
        /// Mean time from one permit of an instance to its asking for the next, in nanoseconds.
        cycle_ns: u64,
    },
    /// The generator was late because its processors were taken from it.
    Processor {
        /// Share of its time that the hypervisor took from the worst core, `0.0..=1.0`.
        stolen: f64,
        /// Share of the run's time in which the control group was not allowed to run.
        throttled: f64,
        /// The rate held, transactions a second.
        achieved_tps: f64,
    },
    /// The network does not lead to the target, or no longer.
    Network {
        /// Transactions that failed by it.
        failures: u64,
    },
    /// The generator itself was too slow.
    Generator {
        /// Share of its time that the busiest shard worked, `0.0..=1.0`.
        busy: f64,
        /// 99th percentile of the part of the lag that is its own, in nanoseconds.
        late_p99_ns: u64,
        /// The rate held, transactions a second.
        achieved_tps: f64,
    },
    /// The target did not take the rate asked for.
    Target {
        /// The rate asked for, transactions a second.
        goal_tps: u32,
        /// The rate held, transactions a second.
        achieved_tps: f64,
        /// 99th percentile of the response time, in nanoseconds.
        response_p99_ns: u64,
        /// Where the throughput stopped growing, if that was found.
        saturation: Option<Saturation>,
    },
    /// A limit on errors or latencies kept the rate from being higher.
    Limit {
        /// Which.
        limit: Limit,
        /// Share of the transactions that broke it while the rate was held, `0.0..=1.0`.
        broken: f64,
        /// The rate that was found, transactions a second.
        found_tps: u32,
        /// Completed while it was held, transactions a second.
        held_tps: f64,
        /// The rate asked for, where one was.
        goal_tps: Option<u32>,
    },
    /// The run ended before the highest rate within its limits was found.
    Unsettled {
        /// Where the search was, transactions a second.
        reached_tps: u32,
    },
    /// The run was stopped too early for any other verdict.
    Stopped {
        /// How long it ran, in nanoseconds.
        elapsed_ns: u64,
        /// The rate held, transactions a second.
        achieved_tps: f64,
    },
}

impl Verdict {
    /// Whether something kept the run from what was asked: `false` only for
    /// [`GoalReached`](Verdict::GoalReached), [`Completed`](Verdict::Completed),
    /// [`NothingAsked`](Verdict::NothingAsked), and a [`Limit`](Verdict::Limit) that was to be
    /// found, without a rate asked for.
    #[must_use]
    pub fn tps_limited(&self) -> bool {
        !matches!(
            self,
            Verdict::GoalReached { .. }
                | Verdict::Completed { .. }
                | Verdict::NothingAsked
                | Verdict::Limit { goal_tps: None, .. }
        )
    }
}

/// Names what bounded a run.
///
/// A goal that was reached (99 %) needs no excuse, unless panics and other failures
/// of the generator's own were more than one in a hundred ([`Evidence::is_spoilt`]):
/// then it does not count as reached, whatever the rate. Nor does it where the target
/// failed more than it served. What a run did less than asked is shared out among its
/// causes ([`Shortfall`]), and the largest share has the verdict; but a target that failed
/// nearly all, or all in the end, or never answered is [`Failing`](Verdict::Failing) or
/// [`Silent`](Verdict::Silent) unless that is the generator's own doing. Without a rate
/// as its goal, a run has a fault if shards were lost, or if the generator's failures are more
/// than one in a hundred. A run whose rate was searched for is judged by the part in which
/// the rate was held, and by its last state.
///
/// ```
/// use balter_controllers::{Evidence, Verdict, judge};
///
/// let evidence = Evidence {
///     goal_tps: Some(100),
///     started: 1_000,
///     completed: 1_000,
///     elapsed_ns: 10_000_000_000,
///     ..Evidence::default()
/// };
/// assert_eq!(judge(&evidence), Verdict::GoalReached { goal_tps: 100, achieved_tps: 100.0 });
/// ```
#[must_use]
pub fn judge(evidence: &Evidence) -> Verdict {
    if let Some(verdict) = nothing_started(evidence) {
        return verdict;
    }
    if let Some(search) = &evidence.search {
        return judge_search(evidence, search);
    }
    let achieved_tps = evidence.achieved_tps();
    let Some(goal_tps) = evidence.goal() else {
        return match fault_beyond_one_in_a_hundred(evidence).or_else(|| evidence.fails()) {
            Some(verdict) => verdict,
            None if evidence.started == 0 && evidence.planned == 0 => Verdict::NothingAsked,
            None => Verdict::Completed { achieved_tps },
        };
    };
    if evidence.reached(goal_tps) {
        // The loss of a part has been made up for, where the goal was reached all the same.
        let spoilt = evidence.spoilt_by().or_else(|| cut_off(evidence));
        let verdict = spoilt.or_else(|| evidence.fails()).or_else(|| mostly_failed(evidence));
        return verdict.unwrap_or(Verdict::GoalReached { goal_tps, achieved_tps });
    }
    let shortfall = Shortfall::of(evidence);
    let cause = shortfall.as_ref().and_then(Shortfall::largest).unwrap_or(Cause::Target);
    let does_nothing_else = evidence.completed == 0;
    let fault = match cause {
        _ if does_nothing_else && evidence.is_spoilt() => evidence.worst_fault(),
        Cause::Faults | Cause::Lost | Cause::Network => Some(blamed(evidence, cause, goal_tps)),
        _ => None,
    };
    if let Some(verdict) = fault {
        return verdict;
    }
    let is_own = matches!(cause, Cause::Generator | Cause::Processor);
    if evidence.stopped && evidence.started == 0 {
        return Verdict::Stopped { elapsed_ns: evidence.elapsed_ns, achieved_tps };
    }
    match evidence.fails() {
        // A generator that stands still hears no answers.
        Some(Verdict::Silent { .. }) if is_own => {}
        Some(verdict) => return verdict,
        None => {}
    }
    // A stop leaves permits and transactions unfinished; only missed permits or
    // a measured saturation show that the target was behind before.
    if evidence.stopped && evidence.saturation.is_none() && evidence.missed == 0 {
        return Verdict::Stopped { elapsed_ns: evidence.elapsed_ns, achieved_tps };
    }
    blamed(evidence, cause, goal_tps)
}

/// The verdict on a run that fell short of its goal, mostly by this cause.
fn blamed(evidence: &Evidence, cause: Cause, goal_tps: u32) -> Verdict {
    let achieved_tps = evidence.achieved_tps();
    let &Evidence { busy, late_p99_ns, stolen, throttled, cycle_ns, .. } = evidence;
    let &Evidence { instances, max_instances, response_p99_ns, saturation, .. } = evidence;
    let target = Verdict::Target { goal_tps, achieved_tps, response_p99_ns, saturation };
    match cause {
        Cause::Faults => evidence.worst_fault().unwrap_or(target),
        Cause::Lost => lost(evidence).unwrap_or(target),
        Cause::Network => Verdict::Network { failures: evidence.unreachable },
        Cause::Generator => Verdict::Generator { busy, late_p99_ns, achieved_tps },
        Cause::Processor => Verdict::Processor { stolen, throttled, achieved_tps },
        Cause::Instances => Verdict::Instances { instances, goal_tps, achieved_tps, cycle_ns },
        Cause::ConcurrencyLimit => {
            Verdict::ConcurrencyLimit { max_instances, goal_tps, achieved_tps, cycle_ns }
        }
        Cause::Failures => failed(evidence),
        Cause::Target => target,
    }
}

fn failed(evidence: &Evidence) -> Verdict {
    Verdict::Failures {
        failures: evidence.failed,
        completed: evidence.completed,
        class: evidence.failed_by.clone(),
    }
}

/// A target that fails more than it serves has not taken the rate.
fn mostly_failed(evidence: &Evidence) -> Option<Verdict> {
    (evidence.failed > evidence.completed / 2).then(|| failed(evidence))
}

/// The generator, or its processors, were too slow for a search that has held no rate.
fn too_slow(evidence: &Evidence, achieved_tps: f64) -> Option<Verdict> {
    taken(evidence, evidence.is_late(), achieved_tps).or_else(|| exhausted(evidence, achieved_tps))
}

/// The generator was late, and has no reserve left or stood still.
fn exhausted(evidence: &Evidence, achieved_tps: f64) -> Option<Verdict> {
    let &Evidence { busy, late_p99_ns, .. } = evidence;
    let is_too_slow = evidence.is_late() && (busy >= BUSY || evidence.stood_still());
    is_too_slow.then_some(Verdict::Generator { busy, late_p99_ns, achieved_tps })
}

/// Whether the scenario never came to its first transaction. The generator's own faults explain
/// that, and so does a stop before anything else was seen.
fn nothing_started(evidence: &Evidence) -> Option<Verdict> {
    let &Evidence { started, planned, instances, outside, outside_failed, .. } = evidence;
    let returned = evidence.returned_early;
    let is_seen = returned > 0 || outside > 0;
    let was_asked = planned > 0 || instances > 0;
    if started > 0 || !(is_seen || was_asked && !evidence.stopped) {
        return None;
    }
    let verdict = Verdict::NothingStarted { returned, outside, outside_failed };
    Some(evidence.worst_fault().unwrap_or(verdict))
}

/// Whether the machine's processors were somewhere else.
fn taken(evidence: &Evidence, late: bool, achieved_tps: f64) -> Option<Verdict> {
    let &Evidence { stolen, throttled, .. } = evidence;
    (late && (stolen >= TAKEN || throttled >= TAKEN)).then_some(Verdict::Processor {
        stolen,
        throttled,
        achieved_tps,
    })
}

/// A run whose rate was searched for is judged by the part in which the rate was held.
fn judge_search(evidence: &Evidence, search: &SearchEvidence) -> Verdict {
    let &SearchEvidence { tps: found_tps, bound_by, saturated, held_tps, end, .. } = search;
    let goal_tps = evidence.goal();
    // What the target does in the end is more than what it once held.
    let steady = search.steady.as_deref();
    let part = steady.unwrap_or(evidence);
    if let Some(verdict) = evidence.fails() {
        let fault = lost(evidence).or_else(|| part.spoilt_by()).or_else(|| cut_off(evidence));
        return fault.unwrap_or(verdict);
    }
    if let (Some(goal_tps), Some(achieved_tps)) = (goal_tps, held_tps)
        && achieved_tps >= REACHED * f64::from(goal_tps)
    {
        let spoilt = part.spoilt_by();
        return spoilt.unwrap_or(Verdict::GoalReached { goal_tps, achieved_tps });
    }
    let fault = lost(evidence).or_else(|| part.spoilt_by()).or_else(|| cut_off(part));
    if let Some(verdict) = fault {
        return verdict;
    }
    if let Some(
        end @ (SearchEnd::Unreachable { .. }
        | SearchEnd::Unstable { .. }
        | SearchEnd::OutOfTime { .. }),
    ) = end
    {
        return Verdict::NotFound { end };
    }
    let Evidence { response_p99_ns, cycle_ns, instances, max_instances, .. } = *part;
    let saturation = evidence.saturation;
    let achieved_tps = held_tps.unwrap_or_else(|| evidence.achieved_tps());
    if let Some(SearchEnd::Generator { busy, .. }) = end {
        let late_p99_ns = part.late_p99_ns;
        return Verdict::Generator { busy, late_p99_ns, achieved_tps };
    }
    let verdict = match steady {
        // The rate was asked for and not held, or held by a generator without reserve. Lateness by
        // itself keeps no rate down: the limits are judged without it.
        Some(steady) => not_held(steady).or_else(|| exhausted(steady, achieved_tps)),
        None => too_slow(evidence, achieved_tps),
    };
    if let Some(verdict) = verdict {
        return verdict;
    }
    let Some(held_tps) = held_tps else {
        let &Evidence { elapsed_ns, stopped, .. } = evidence;
        return match stopped {
            true => Verdict::Stopped { elapsed_ns, achieved_tps },
            false => Verdict::Unsettled { reached_tps: found_tps },
        };
    };
    if max_instances > 0 && instances >= max_instances && (bound_by.is_some() || saturated) {
        // What waited for an instance was late, whatever the target did.
        let goal_tps = goal_tps.unwrap_or(found_tps);
        let achieved_tps = held_tps;
        return Verdict::ConcurrencyLimit { max_instances, goal_tps, achieved_tps, cycle_ns };
    }
    // A limit that was once met bounds nothing any more where the rate is the goal again.
    match bound_by.filter(|_| goal_tps != Some(found_tps)) {
        Some((limit, seen)) => {
            let broken = seen.share().unwrap_or(0.0);
            Verdict::Limit { limit, broken, found_tps, held_tps, goal_tps }
        }
        None if saturated => Verdict::Target {
            goal_tps: goal_tps.unwrap_or(found_tps),
            achieved_tps: held_tps,
            response_p99_ns,
            saturation,
        },
        None => match goal_tps {
            Some(goal_tps) => blamed(part, Cause::Target, goal_tps),
            None => Verdict::Completed { achieved_tps: held_tps },
        },
    }
}

/// Who kept the rate from being held that the target was found to bear, if it was not the target.
fn not_held(steady: &Evidence) -> Option<Verdict> {
    let held_tps = steady.goal()?;
    if steady.reached(held_tps) {
        return None;
    }
    let cause = Shortfall::of(steady)?.largest()?;
    let is_target = matches!(cause, Cause::Target | Cause::Failures);
    (!is_target).then(|| blamed(steady, cause, held_tps))
}

/// Whether parts of the generator are missing.
fn lost(evidence: &Evidence) -> Option<Verdict> {
    let Evidence { shards_lost, nodes_lost, .. } = *evidence;
    if shards_lost > 0 {
        Some(Verdict::ShardsLost { shards_lost })
    } else if nodes_lost > 0 {
        Some(Verdict::NodesLost { nodes_lost, achieved_tps: evidence.achieved_tps() })
    } else {
        None
    }
}

fn fault_beyond_one_in_a_hundred(evidence: &Evidence) -> Option<Verdict> {
    lost(evidence).or_else(|| evidence.spoilt_by()).or_else(|| cut_off(evidence))
}

/// Whether more than one in a hundred did not get to the target.
fn cut_off(evidence: &Evidence) -> Option<Verdict> {
    let failures = evidence.unreachable;
    (failures > evidence.completed / 100).then_some(Verdict::Network { failures })
}

/// Whether the generator's own lateness is too much of what is reported: at least a millisecond, and more
/// than a tenth of what it is measured against. `late_p99_ns` is the 99th percentile of what it adds to
/// the response times of single transactions; waiting for an instance while the target keeps all of
/// them busy is no part of it. `against_ns` is the latency that the user allows, or else the 99th percentile of
/// the response time.
///
/// ```
/// use balter_controllers::distorted;
///
/// assert!(distorted(1_000_001, 10_000_000));
/// assert!(!distorted(1_000_000, 10_000_000));
/// // Less than a timer or a turn of a shard may cost.
/// assert!(!distorted(800_000, 1_700_000));
/// ```
#[must_use]
pub fn distorted(late_p99_ns: u64, against_ns: u64) -> bool {
    late_p99_ns >= LATE_NS && late_p99_ns as f64 > against_ns as f64 * DISTORTING
}
