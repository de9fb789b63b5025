//! What a run measured.

pub(crate) mod display;
mod latencies;
mod wrap;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use balter_controllers::{Block, Broken, Limit, RateState, SearchEnd, Shortfall};

pub use latencies::Latencies;

use crate::failure::FailureClass;
use crate::{RunError, Verdict};

/// What a run measured, from its first due transaction to the last that ended.
///
/// The fields of Balter are here with Balter's names. They are taken from the whole run, or where
/// limits were set from its [steady](Self::steady) part: the rate is that of all completed
/// transactions, failed ones included, and the latencies are response times.
///
/// `Display` prints a summary of some twenty lines of at most 80 columns: what was judged and what has
/// failed first, then the counts and the times.
///
/// A run that could not start has its name and its [`error`](Self::error), and one of which nothing
/// was asked its name and a [`verdict`](Self::verdict) that says so.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct RunStatistics {
    /// Name of the scenario.
    pub scenario: String,
    /// Scenario instances alive when the run came to its end.
    pub concurrency: usize,
    /// Transactions a second that were asked for at the end: where limits were set, the rate that
    /// was found. 0 in a closed loop.
    pub goal_tps: u32,
    /// Completed transactions a second. This field and those up to `error_rate` are of the
    /// [steady](Self::steady) part of a run with limits, and of the whole of every other.
    pub actual_tps: f64,
    /// Median response time, of those that have one: see [`response_quantile`](Self::response_quantile).
    pub latency_p50: Duration,
    /// Response time that 90 % did not exceed.
    pub latency_p90: Duration,
    /// Response time that 95 % did not exceed.
    pub latency_p95: Duration,
    /// Response time that 99 % did not exceed.
    pub latency_p99: Duration,
    /// Failures of the target among its completed transactions, 0 to 1. Failures of the generator
    /// ([`FailureClass::is_generator`]) are in neither number.
    pub error_rate: f64,
    /// The rate asked for was not reached; [`verdict`](Self::verdict) says why.
    pub tps_limited: bool,

    /// Time in which transactions became due, without the grace for what was then in flight.
    pub elapsed: Duration,
    /// Every transaction, by what became of it.
    pub counts: Counts,
    /// The part of a run with limits in which the rate that was found was held, since it was last
    /// found. `None` without limits, and while the search lasts.
    pub steady: Option<Steady>,
    /// How the rate was searched for, where limits were set.
    pub search: Option<SearchStatistics>,
    /// End minus intended start: what a user of the target waits. Free of coordinated omission.
    pub response: Latencies,
    /// How long those transactions had waited since they were due that have no response time: missed
    /// ones when they were dropped, up to 6 % less than that, and cancelled ones when they were given
    /// up. Of those that a pause of the generator took, the shortest wait stands for all. Of shards and
    /// transactions that were lost it is not known.
    #[cfg_attr(feature = "serde", serde(default))]
    pub given_up: Latencies,
    /// Response times of those that ended by a timeout. They are in [`response`](Self::response) too.
    #[cfg_attr(feature = "serde", serde(default))]
    pub timed_out: Latencies,
    /// End minus actual start: what the target took.
    pub service: Latencies,
    /// Actual minus intended start: how late transactions began. Part of it is this generator's own
    /// [lateness](Self::lateness); the rest was a [wait](Self::waits) for an instance.
    pub lag: Latencies,
    /// The part of each [lag](Self::lag) that is this generator's own: from when the transaction was
    /// due until its shard came to it, and from when it was handed to a waiting instance until that
    /// began. Empty in a closed loop.
    pub lateness: Latencies,
    /// What transactions that were due waited for besides. Nothing in a closed loop.
    pub waits: Waits,
    /// The response times without the generator's own lateness: as they would be if every
    /// transaction had been released the moment it was due. The
    /// difference to [`response`](Self::response) is what this generator has added. Empty in a
    /// closed loop.
    pub punctual: Latencies,
    /// Mean time from one transaction's start to the moment at which its instance asked for the next:
    /// its service time, pauses, and all else that the scenario does. The rate times this is the
    /// number of instances that it takes (Little's law). Zero if none came back.
    pub cycle: Duration,
    /// For each completed transaction an upper bound on how much later than its answer's arrival its
    /// end was read: a shard that is busy finds an answer only when it next asks the kernel. Service
    /// and response times are too long by at most so much, beside the time that the kernel takes to
    /// wake a shard that waits.
    pub seen_late: Latencies,
    /// How much later than the kernel received its last bytes the end of a transaction was read, by
    /// the kernel's own time stamps: of a sample, the transactions on one connection in sixteen of
    /// each shard, without those whose end came later than the reading of these bytes. Empty where
    /// the kernel does not stamp what it receives.
    pub receive_delay: Latencies,
    /// How long successful TLS handshakes took, without the TCP connect before them. They are part
    /// of the transactions that needed a connection, and counted here apart from those. A
    /// handshake that fails is a failure of its transaction.
    pub handshakes: Latencies,
    /// Those of them that resumed an earlier session.
    pub resumed_handshakes: u64,
    /// The same for each `#[transaction]`, in the order of their names and then of their modules.
    pub transactions: Vec<TransactionStatistics>,
    /// Failures by class, only those that happened, most first.
    pub failures: Vec<(FailureClass, u64)>,
    /// What the errors of failed transactions said: each text once, the commonest first, at most 20.
    ///
    /// A shard reads each of the first 128 failures of a window, and one in 61 of the others, which
    /// stands for those between: at more than some thousand failures a second the counts of two texts
    /// that differ in nothing else are estimates. With [`other_errors`](Self::other_errors) they add up
    /// to all failures.
    #[cfg_attr(feature = "serde", serde(default))]
    pub errors: Vec<ErrorStatistics>,
    /// Failed transactions with other texts, for which there was no place in
    /// [`errors`](Self::errors).
    #[cfg_attr(feature = "serde", serde(default))]
    pub other_errors: u64,
    /// Bytes that the scenario's instances gave to this crate's TCP streams to send, in transactions
    /// and outside of them: TCP payload, so with TLS the encrypted bytes. What clients with sockets
    /// of their own send (feature `tokio`) is in none of these three.
    pub bytes_sent: u64,
    /// Bytes that they received, counted in the same way.
    pub bytes_received: u64,
    /// TCP connections that they opened.
    pub connections: u64,
    /// What each shard did; empty for a run of many nodes.
    pub shards: Vec<ShardStatistics>,
    /// What each node of a cluster did, in the order in which they joined; empty for a run of one
    /// process. A node that was started again meanwhile is there twice.
    pub nodes: Vec<NodeStatistics>,
    /// Requests of the crate's own HTTP client that stood outside of transactions.
    pub outside: Outside,
    /// Panics of the scenario's code, in transactions or around them.
    pub panics: u64,
    /// Message of the first panic.
    pub panic_message: Option<String>,
    /// What else happened that a reader of the figures should know, in sentences: at most 32.
    pub notes: Vec<String>,
    /// Time in which this process's control group had used up its share of the processors, summed
    /// over them.
    pub throttled: Duration,
    /// It ended before its time: by SIGINT, because the scenario did nothing but panic, or in a
    /// cluster because somebody asked for it. A search that ends with the capacity found was not
    /// stopped.
    pub stopped: bool,
    /// What bounded the run. `None` if it could not start.
    pub verdict: Option<Verdict>,
    /// What the run did less than asked, shared out among its causes; the largest is what the
    /// [verdict](Self::verdict) names, where the goal was not reached. Of a run with limits, what the
    /// [steady](Self::steady) part did less than the rate that was held. `None` if nothing is short,
    /// or no rate was asked for.
    pub shortfall: Option<Shortfall>,
    /// Where a limit bounds the rate, the transaction that breaks it most, by name; with its module
    /// where another has the same.
    pub bound_transaction: Option<String>,
    /// Not fit to be asserted on, for the reason that [`distortion`](Self::distortion) gives.
    pub distorted: bool,
    /// Why it is not, if so.
    pub distortion: Option<Distortion>,
    /// Why the run could not start.
    pub error: Option<RunError>,
    /// Its blocks of time, on their way to the point of a sweep.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) sampled: Option<Box<Sampled>>,
}

/// A run cut into blocks of time, and what was answered but for the first of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sampled {
    pub(crate) blocks: Vec<Block>,
    /// Response times of those that succeeded, without what the generator was late by.
    pub(crate) answered: Latencies,
    /// Failures of the target, and what it kept others waiting too long for.
    pub(crate) unanswered: u64,
}

impl Sampled {
    /// So many blocks of so many are the target's and the generator's to settle in.
    pub(crate) const fn settling(blocks: usize) -> usize {
        blocks / 4
    }
}

/// A quantile of times of which some are known as lower bounds alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Quantile {
    /// The quantile itself, or a time that it is not below.
    pub at_least: Duration,
    /// It may be longer: some of those that it counts as shorter, or as long, had not ended.
    pub is_lower_bound: bool,
}

impl RunStatistics {
    /// The response time that a share of `quantile` (0 to 1) of all transactions that were due did not
    /// exceed; zero if there was none.
    ///
    /// [`response`](Self::response) has those that ended. Here every other one counts too: a missed or
    /// cancelled one with the time that it had waited when it was [given up](Self::given_up), or
    /// nothing where that is not known, and one that [timed out](Self::timed_out) with its time until
    /// then. Had they gone on, each would have taken at least so long. So the quantile of all these
    /// times is never above that of the response times as they would have been (but for the 0.1 % that
    /// a histogram does not tell apart). It is a lower bound if any of those times is not above it, and
    /// is exact otherwise.
    ///
    /// # Examples
    /// ```
    /// let quantile = balter_uring::RunStatistics::default().response_quantile(0.99);
    /// assert!(quantile.at_least.is_zero() && !quantile.is_lower_bound);
    /// ```
    #[must_use]
    pub fn response_quantile(&self, quantile: f64) -> Quantile {
        self.bounds().quantile(quantile)
    }

    pub(crate) fn bounds(&self) -> Bounds {
        let mut all = self.response.histogram().clone();
        all.add(self.given_up.histogram()).expect("all histograms have one shape");
        let without = self.counts.missed.saturating_add(self.counts.cancelled);
        let unknown = without.saturating_sub(self.given_up.len());
        all.saturating_record_n(0, unknown);
        let times = [&self.given_up, &self.timed_out].into_iter().filter(|times| !times.is_empty());
        let waits = times.map(|times| times.histogram().min());
        let shortest_ns = waits.chain((unknown > 0).then_some(0)).min();
        Bounds { all: Latencies::new(all), shortest_ns }
    }

    pub(crate) fn nothing_asked(scenario: &str) -> Self {
        Self {
            scenario: scenario.to_owned(),
            verdict: Some(Verdict::NothingAsked),
            ..Self::default()
        }
    }

    pub(crate) fn not_run(scenario: &str, error: RunError) -> Self {
        Self {
            scenario: scenario.to_owned(),
            tps_limited: true,
            error: Some(error),
            ..Self::default()
        }
    }
}

/// What the errors of some failed transactions said.
///
/// Texts count as the same if they differ in numbers alone, and in nothing else that stands here. A
/// number from 400 to 599 may be a status, and sets up to six texts apart.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ErrorStatistics {
    /// The first of them: an error's `Display` with that of its causes, or else its `Debug`; on one line,
    /// control characters escaped, cut at 200 bytes. `it panicked` for a panic, whose message is in
    /// [`panic_message`](RunStatistics::panic_message); empty if the type of the error has neither.
    pub text: String,
    /// Their class.
    pub class: FailureClass,
    /// Status of the answer, if it was 400 or above and came through
    /// [`http::Client`](crate::http::Client).
    pub status: Option<u16>,
    /// Whom the operation that failed was for, if it was one of [`http::Client`](crate::http::Client).
    /// Of more than 255 addresses a shard, the others' failures have none.
    pub address: Option<SocketAddr>,
    /// Name of the transaction.
    pub transaction: String,
    /// Path of the module that it stands in.
    pub module: String,
    /// How many transactions failed so.
    pub count: u64,
}

/// Response times with the lower bounds of those that have none.
pub(crate) struct Bounds {
    pub(crate) all: Latencies,
    /// The shortest time that is a lower bound alone.
    pub(crate) shortest_ns: Option<u64>,
}

impl Bounds {
    pub(crate) fn quantile(&self, quantile: f64) -> Quantile {
        let histogram = self.all.histogram();
        let value = histogram.value_at_quantile(quantile);
        let is_lower_bound = self.shortest_ns.is_some_and(|shortest_ns| shortest_ns <= value);
        // All of a bucket are shown as its longest, which a bound may not be.
        let at_least = if is_lower_bound { histogram.lowest_equivalent(value) } else { value };
        Quantile { at_least: Duration::from_nanos(at_least), is_lower_bound }
    }
}

/// Failures by class, only those that happened.
pub(crate) fn by_class(
    failures: &[u64; FailureClass::COUNT],
) -> impl Iterator<Item = (FailureClass, u64)> + '_ {
    let all = FailureClass::ALL.into_iter().map(|class| (class, failures[class.index()]));
    all.filter(|&(_, count)| count > 0)
}

/// Names of transactions, in their order: with its module where another has the same.
pub(crate) fn shown_names<'a>(
    all: impl Iterator<Item = &'a TransactionStatistics> + Clone,
) -> Vec<Cow<'a, str>> {
    let mut modules = HashMap::new();
    let mut ambiguous = HashSet::new();
    for one in all.clone() {
        if *modules.entry(&one.name).or_insert(&one.module) != &one.module {
            ambiguous.insert(&one.name);
        }
    }
    let name = |one: &'a TransactionStatistics| match ambiguous.contains(&one.name) {
        true => Cow::Owned(format!("{}::{}", one.module, one.name)),
        false => Cow::Borrowed(&*one.name),
    };
    all.map(name).collect()
}

/// Why the figures of a run say too much of the generator to be asserted on.
///
/// `Display` gives a sentence.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Distortion {
    /// More than one in a hundred of what completed or panicked was a panic or another failure of the
    /// generator's own ([`FailureClass::is_generator`]).
    Failures {
        /// Those.
        own: u64,
        /// All that completed or panicked.
        all: u64,
    },
    /// More than one in a hundred of the transactions due were missed because the generator stood still.
    Missed {
        /// Those.
        missed: u64,
        /// All that were due.
        planned: u64,
    },
    /// Its own lateness is at least a millisecond and more than a tenth of the latency allowed, or
    /// without such a limit of the response time: of the part in which the rate was held, where one was
    /// searched for.
    Late {
        /// 99th percentile of the lateness of single transactions ([`RunStatistics::lateness`]).
        late_p99: Duration,
        /// What it is measured against.
        against: Duration,
        /// That is the latency allowed, not the 99th percentile of the response time.
        is_limit: bool,
    },
    /// It was too slow for the rate ([`Verdict::Generator`]).
    TooSlow,
}

/// Time that transactions which were due have waited for an instance, summed over them, those
/// included that were missed in the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Waits {
    /// Because as many transactions were under way as the run may have, or all instances were in
    /// one: the target kept them.
    pub for_target: Duration,
    /// Because instances paused, or were on their way to their first transaction.
    pub for_instances: Duration,
}

/// A part of a run in which its rate was held.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Steady {
    /// How long it was.
    pub elapsed: Duration,
    /// Transactions that became due.
    pub planned: u64,
    /// Those that were dropped before they began.
    pub missed: u64,
    /// Transactions that ended with their success side.
    pub succeeded: u64,
    /// Transactions that ended with their failure side.
    pub failed: u64,
    /// Of those, the ones that were the generator's own fault.
    pub spoilt: u64,
    /// Failures by class, only those that happened.
    pub failures: Vec<(FailureClass, u64)>,
    /// Panics of the scenario's code, in transactions or around them.
    pub panics: u64,
    /// Most scenario instances at the end of a window.
    pub instances: usize,
    /// Share of its time in which each shard had something to do, 0 to 1, in the order of
    /// [`RunStatistics::shards`]; of nodes in that of [`RunStatistics::nodes`].
    pub busy: Vec<f64>,
    /// What transactions that were due waited for.
    pub waits: Waits,
    /// End minus intended start.
    pub response: Latencies,
    /// The same without the generator's own lateness.
    pub punctual: Latencies,
    /// Actual minus intended start.
    pub lag: Latencies,
    /// How late the generator itself was.
    pub lateness: Latencies,
}

/// A search for the highest rate within limits.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SearchStatistics {
    /// The limits, in the order of [`RatePoint::broken`].
    pub limits: Vec<Limit>,
    /// Every rate that was asked for, one after the other.
    pub points: Vec<RatePoint>,
    /// What was found; `None` while the search lasts.
    pub capacity: Option<Capacity>,
    /// How the search ended; `None` if the run ended before it did, or the target changed.
    pub end: Option<SearchEnd>,
}

/// A rate that a search has asked for.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct RatePoint {
    /// Transactions a second asked for.
    pub tps: u32,
    /// What the search was doing.
    pub state: RateState,
    /// For how long.
    pub elapsed: Duration,
    /// Transactions that ended by themselves meanwhile.
    pub completed: u64,
    /// For each limit how many broke it, and of how many.
    pub broken: Vec<Broken>,
}

/// The highest rate within limits.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Capacity {
    /// Transactions a second.
    pub tps: f64,
    /// It lies in between with a confidence of 95 %. `None` if it was not a limit that kept the
    /// rate from being higher: the goal was reached, or the target did no more.
    pub interval: Option<(f64, f64)>,
    /// The limit that keeps the rate from being higher.
    pub bound_by: Option<Limit>,
}

impl std::fmt::Display for Capacity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0} transactions/s", self.tps)?;
        match self.interval {
            Some((low, high)) => write!(f, " (95 %: {low:.0} to {high:.0})"),
            None => Ok(()),
        }
    }
}

impl Steady {
    /// Completed transactions a second, without those that were the generator's own fault: these are no
    /// rate that the target has borne.
    pub(crate) fn tps(&self) -> f64 {
        (self.succeeded + self.failed - self.spoilt) as f64 / self.elapsed.as_secs_f64()
    }

    /// Failures of the target among what it completed.
    pub(crate) fn error_rate(&self) -> f64 {
        match self.succeeded + self.failed - self.spoilt {
            0 => 0.0,
            judged => (self.failed - self.spoilt) as f64 / judged as f64,
        }
    }
}

/// Transactions by what became of them.
///
/// Always: `planned = started + missed` and `started = succeeded + failed + cancelled`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Counts {
    /// Due by the schedule; in a closed loop, started.
    pub planned: u64,
    /// Begun.
    pub started: u64,
    /// Due, but dropped before they began: the backlog passed its bound, the goal was lowered, or
    /// the run ended.
    pub missed: u64,
    /// Ended with their success side.
    pub succeeded: u64,
    /// Ended with their failure side, by timeout or by a panic.
    pub failed: u64,
    /// Begun and given up: still in flight when the run's grace had passed, or dropped by the
    /// scenario.
    pub cancelled: u64,
}

impl Counts {
    /// Ended by themselves, well or badly.
    #[must_use]
    pub const fn completed(&self) -> u64 {
        self.succeeded + self.failed
    }

    /// The two sums of [`Counts`]' definition hold.
    #[must_use]
    pub const fn add_up(&self) -> bool {
        self.planned == self.started + self.missed
            && self.started == self.succeeded + self.failed + self.cancelled
    }

    /// Adds another part of the whole.
    pub(crate) fn add(&mut self, part: &Self) {
        self.planned += part.planned;
        self.started += part.started;
        self.missed += part.missed;
        self.succeeded += part.succeeded;
        self.failed += part.failed;
        self.cancelled += part.cancelled;
    }
}

/// Requests that a scenario has sent outside of its transactions with
/// [`http::Client`](crate::http::Client), as for a log-in. They have no permit and no place in
/// [`Counts`]; [`Scenario::outside_tps`](crate::Scenario::outside_tps) bounds them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Outside {
    /// Sent.
    pub requests: u64,
    /// Of those, the ones that got no answer or one with a status of 400 or above, or were given up.
    pub failed: u64,
    /// Of all that were sent, the ones that had to wait for their turn before.
    pub held_back: u64,
}

impl Outside {
    pub(crate) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.held_back += other.held_back;
    }
}

/// What one `#[transaction]` did in a run.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct TransactionStatistics {
    /// Name of the function.
    pub name: String,
    /// Path of the module that it stands in.
    pub module: String,
    /// Ended with their success side.
    pub succeeded: u64,
    /// Ended with their failure side, by timeout or by a panic.
    pub failed: u64,
    /// Those by class, only what happened, most first.
    pub failures: Vec<(FailureClass, u64)>,
    /// Begun and given up.
    pub cancelled: u64,
    /// End minus intended start.
    pub response: Latencies,
    /// End minus actual start.
    pub service: Latencies,
    /// Actual minus intended start.
    pub lag: Latencies,
}

/// What one node of a cluster did in a run.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct NodeStatistics {
    /// Its name.
    pub name: String,
    /// Shards that it ran on.
    pub shards: u32,
    /// Its share of the run's counts; the nodes' sum is the whole.
    pub counts: Counts,
    /// Share of its time in which its busiest shard had something to do, 0 to 1.
    pub busy: f64,
    /// Share of its core's time that the hypervisor took away, of the shard that it took most
    /// from, 0 to 1.
    pub stolen: f64,
    /// It was not heard of at the end of the run. What it had told until then is counted, and what
    /// was under way there counts as cancelled.
    pub lost: bool,
}

/// What one shard did in a run.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ShardStatistics {
    /// The core that it is pinned to.
    pub core: usize,
    /// Its share of the run's counts; the shards' sum is the whole.
    pub counts: Counts,
    /// Share of its time in which it had something to do, 0 to 1.
    pub busy: f64,
    /// Share of its core's time that the hypervisor took away, 0 to 1.
    pub stolen: f64,
    /// It did not live to the end of the run.
    pub lost: bool,
}

#[cfg(all(test, feature = "serde", feature = "json"))]
mod tests {
    use super::*;
    use crate::{Contradiction, PreflightError};

    #[test]
    fn errors_survive_being_written_down() {
        for error in [
            RunError::Lost,
            RunError::Thread { reason: "no more".to_owned() },
            RunError::Contradiction(Contradiction::NoCores),
            RunError::Preflight(PreflightError::CoreNotAllowed {
                core: 7,
                allowed: "0-1".to_owned(),
            }),
            RunError::Preflight(PreflightError::CoreList {
                text: "x".to_owned(),
                origin: "BALTER_CORES".to_owned(),
            }),
        ] {
            let statistics = RunStatistics::not_run("visitor", error.clone());
            let written = serde_json::to_string(&statistics).expect("JSON");
            let read: RunStatistics = serde_json::from_str(&written).expect("JSON");
            assert_eq!((read.error, &*read.scenario), (Some(error), "visitor"));
        }
    }
}

#[cfg(test)]
mod bounds {
    use proptest::prelude::*;

    use super::*;

    /// What became of a transaction, from its response time if nobody had given it up.
    #[derive(Clone, Copy, Debug)]
    enum End {
        Known,
        TimedOut(f64),
        GivenUp(f64),
        Lost,
    }

    fn end() -> impl Strategy<Value = End> {
        prop_oneof![
            8 => Just(End::Known),
            1 => (0.0..=1.0).prop_map(End::TimedOut),
            1 => (0.0..=1.0).prop_map(End::GivenUp),
            1 => Just(End::Lost),
        ]
    }

    fn all_known(times: &[(u64, End)]) -> bool {
        times.iter().all(|(_, end)| matches!(end, End::Known))
    }

    fn statistics(times: &[(u64, End)]) -> RunStatistics {
        let mut statistics = RunStatistics::default();
        for &(time, end) in times {
            let RunStatistics { response, given_up, timed_out, counts, .. } = &mut statistics;
            match end {
                End::Known => response.histogram_mut().saturating_record(time),
                End::TimedOut(share) => {
                    let waited = (time as f64 * share) as u64;
                    response.histogram_mut().saturating_record(waited);
                    timed_out.histogram_mut().saturating_record(waited);
                }
                End::GivenUp(share) => {
                    given_up.histogram_mut().saturating_record((time as f64 * share) as u64);
                    counts.missed += 1;
                }
                End::Lost => counts.cancelled += 1,
            }
        }
        statistics
    }

    /// The quantile if they had taken so long.
    fn quantile_of(times: impl Iterator<Item = u64>, quantile: f64) -> u64 {
        let mut histogram = crate::engine::recorder::histogram();
        times.for_each(|time| histogram.saturating_record(time));
        histogram.value_at_quantile(quantile)
    }

    proptest! {
        #[test]
        fn a_bound_is_never_above_the_quantile_and_is_marked_when_it_may_be_below(
            times in prop::collection::vec(
                ((0..60_000_000_000_u64, 0_u32..30).prop_map(|(time, shift)| time >> shift), end()),
                1..80,
            ),
            quantile in prop_oneof![Just(0.5), Just(0.99), Just(1.0), 0.01..1.0],
        ) {
            let truth = quantile_of(times.iter().map(|&(time, _)| time), quantile);
            let bound = statistics(&times).response_quantile(quantile);
            let at_least = bound.at_least.as_nanos() as u64;
            prop_assert!(at_least <= truth, "{} > {}", at_least, truth);
            if all_known(&times) {
                prop_assert!(!bound.is_lower_bound);
            }
            // Had those that were given up taken for ever.
            let forever = times.iter().map(|&(time, end)| match end {
                End::Known => time,
                _ => 3_600_000_000_000,
            });
            let worst = quantile_of(forever, quantile);
            if !bound.is_lower_bound {
                prop_assert_eq!(at_least, truth);
                prop_assert_eq!(at_least, worst);
            }
            if worst != truth {
                prop_assert!(bound.is_lower_bound, "{} but {}", at_least, worst);
            }
        }
    }

    #[test]
    fn what_is_not_known_does_not_spoil_what_is_shorter() {
        let mut times = vec![(1_000_000, End::Known); 90];
        times.extend([(9_000_000, End::GivenUp(0.5)); 10]);
        let statistics = statistics(&times);
        let [median, p99] = [0.5, 0.99].map(|quantile| statistics.response_quantile(quantile));
        assert_eq!((median.at_least, median.is_lower_bound), (statistics.response.max(), false));
        assert!(p99.is_lower_bound && p99.at_least.as_micros().abs_diff(4_500) <= 5, "{p99:?}");
        assert_eq!(statistics.response.quantile(0.99), statistics.response.max());
    }
}
