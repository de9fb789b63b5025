//! How a run was asked for, and what its observers are shown.

use std::time::Duration;

use balter_controllers::{Arrival, Limit};

use crate::engine::blocks::Cut;
#[cfg(feature = "rt")]
use crate::engine::lease::Leased;
use crate::userland;

/// A transaction's deadline where none was set.
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Transactions a second that a search begins with, unless hinted otherwise; as Balter has it.
pub(crate) const DEFAULT_TPS: u32 = 512;

/// Instances that all runs start with in total, unless hinted otherwise; as Balter has it.
pub(crate) const DEFAULT_CONCURRENCY: u32 = 10;

/// Instances that a run may have at most, unless told otherwise. At some 20 KiB each it keeps a
/// runaway scenario below 2 GiB.
pub(crate) const DEFAULT_MAX_CONCURRENCY: u32 = 100_000;

/// Time that transactions in flight get when a run ends, unless their own timeout is shorter.
pub(crate) const DEFAULT_GRACE: Duration = Duration::from_secs(5);

/// A hint that lets a run settle sooner.
///
/// All goals are found without hints; each of these only gives a better starting point.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Hint {
    /// Instances to start with, in total. At most [`max_concurrency`] are started.
    ///
    /// [`max_concurrency`]: crate::Scenario::max_concurrency
    Concurrency(usize),
    /// Transactions per second to start with, where the rate is searched for. A run with a fixed
    /// `.tps()` has that rate from its start and needs no such hint.
    Tps(u32),
    /// Gain of Balter's proportional latency controller. This engine's controller has no gain;
    /// the hint is accepted so that scenarios written for Balter compile, and changes nothing.
    LatencyController(f64),
}

/// What was asked of a scenario contradicts itself, or lacks something: which to drop, or to add.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Contradiction {
    /// An open and a closed loop.
    #[error(
        "`.tps()` and `.concurrency()` contradict each other: at a rate, transactions start \
         however long others take. Drop `.concurrency()` to keep the rate (`.max_concurrency()` \
         bounds its instances), or drop `.tps()` to keep exactly so many instances busy"
    )]
    TpsAndConcurrency,
    /// A rate, and as fast as it goes.
    #[error(
        "`.tps()` and `.saturate()` contradict each other: drop `.saturate()` to keep the rate, or \
         drop `.tps()` to go as fast as it goes"
    )]
    TpsAndSaturate,
    /// So many instances, and as many as the throughput grows with.
    #[error(
        "`.concurrency()` and `.saturate()` contradict each other: drop `.saturate()` for exactly \
         so many instances, or drop `.concurrency()` to have their number found \
         (`.max_concurrency()` bounds it)"
    )]
    ConcurrencyAndSaturate,
    /// A capacity is a rate, which a closed loop does not have.
    #[error(
        "`.find_capacity()` and `.concurrency()` contradict each other: it searches for a rate, \
         and so many instances have none. Drop one of them"
    )]
    CapacityOfClosedLoop,
    /// There is nothing to find.
    #[error(
        "`.find_capacity()` needs a limit to find the highest rate within: add `.error_rate()` or \
         `.latency()`, or drop it"
    )]
    CapacityWithoutLimit,
    /// More instances than there may be.
    #[error(
        "`.concurrency()` asks for more instances than `.max_concurrency()` allows: drop the latter, \
         or ask for no more than it allows"
    )]
    ConcurrencyAboveMost,
    /// The list of cores is empty.
    #[error(
        "`.cores()` was given an empty list: name one core at least, or drop it to run on all that \
         the process may use"
    )]
    NoCores,
}

/// Which loads were asked for: the last one is in force, and all of them have to go together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) tps: bool,
    pub(crate) concurrency: bool,
    pub(crate) saturate: bool,
}

/// What drives the transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// Nothing was asked for: the run is over before it begins.
    Nothing,
    /// Open loop at this rate.
    Rate(u32),
    /// Closed loop with so many instances.
    Instances(u32),
    /// Closed loop, growing until throughput does not.
    Saturate,
}

impl Load {
    /// Transactions are due at times that do not depend on how long others take.
    pub(crate) fn is_open(self) -> bool {
        matches!(self, Self::Rate(_))
    }
}

/// What the builder gathered.
pub(crate) struct RunConfig {
    pub(crate) load: Load,
    pub(crate) asked: Asked,
    /// With any, the rate is searched for, and that of `load` is the most that is asked for.
    pub(crate) limits: Vec<Limit>,
    /// A search goes no higher, whatever was asked for.
    pub(crate) ceiling_tps: u32,
    /// Where a search begins.
    pub(crate) start_tps: u32,
    /// The run is to end when the rate has been found.
    pub(crate) until_found: bool,
    pub(crate) duration: Option<Duration>,
    pub(crate) initial: u32,
    pub(crate) max_concurrency: u32,
    pub(crate) timeout: Duration,
    /// Requests a second outside of transactions; `None` for as many as the goal allows.
    pub(crate) outside_tps: Option<u32>,
    pub(crate) arrival: Arrival,
    pub(crate) cores: Option<Vec<usize>>,
    pub(crate) window: Duration,
    pub(crate) grace: Duration,
    pub(crate) interruptible: bool,
    pub(crate) progress: Option<Observer>,
    /// Its statistics are to have it cut into blocks of time.
    pub(crate) cut: Option<Cut>,
    /// Set where another node leads the run.
    #[cfg(feature = "rt")]
    pub(crate) leased: Option<Leased>,
    /// For tests: the aggregator sleeps so long before each window it takes.
    pub(crate) aggregator_delay: Duration,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            load: Load::Nothing,
            asked: Asked::default(),
            limits: Vec::new(),
            ceiling_tps: u32::MAX,
            start_tps: DEFAULT_TPS,
            until_found: false,
            duration: None,
            initial: DEFAULT_CONCURRENCY,
            max_concurrency: DEFAULT_MAX_CONCURRENCY,
            timeout: DEFAULT_TIMEOUT,
            outside_tps: None,
            arrival: Arrival::Constant,
            cores: None,
            window: Duration::from_millis(100),
            grace: DEFAULT_GRACE,
            interruptible: false,
            progress: None,
            cut: None,
            #[cfg(feature = "rt")]
            leased: None,
            aggregator_delay: Duration::ZERO,
        }
    }
}

impl RunConfig {
    /// The same without what was asked for, and without the observer, which there is one of.
    pub(crate) fn for_one_more_run(&self) -> Self {
        Self {
            load: Load::Nothing,
            asked: Asked::default(),
            limits: Vec::new(),
            until_found: false,
            duration: None,
            progress: None,
            cut: None,
            #[cfg(feature = "rt")]
            leased: None,
            cores: self.cores.clone(),
            ..*self
        }
    }

    /// # Errors
    /// The first thing that does not go with another.
    pub(crate) fn check(&self) -> Result<(), Contradiction> {
        let Asked { tps, concurrency, saturate } = self.asked;
        let found = [
            (tps && concurrency, Contradiction::TpsAndConcurrency),
            (tps && saturate, Contradiction::TpsAndSaturate),
            (concurrency && saturate, Contradiction::ConcurrencyAndSaturate),
            (self.until_found && concurrency, Contradiction::CapacityOfClosedLoop),
            (self.until_found && self.limits.is_empty(), Contradiction::CapacityWithoutLimit),
            (
                matches!(self.load, Load::Instances(count) if count > self.max_concurrency)
                    && self.max_concurrency != DEFAULT_MAX_CONCURRENCY,
                Contradiction::ConcurrencyAboveMost,
            ),
            (self.cores.as_ref().is_some_and(Vec::is_empty), Contradiction::NoCores),
        ];
        match found.into_iter().find(|&(is_so, _)| is_so) {
            Some((_, contradiction)) => Err(contradiction),
            None => Ok(()),
        }
    }
}

type Callback = Box<dyn FnMut(&Progress) + Send>;

/// Who is shown the progress of a run, and how often.
pub(crate) struct Observer {
    pub(crate) every: Duration,
    /// Taken by `drop` alone.
    callback: Option<Callback>,
}

impl Observer {
    pub(crate) fn new(every: Duration, callback: Callback) -> Self {
        Self { every, callback: Some(callback) }
    }

    /// Calls it; `false` if it has panicked, and is not to be called again.
    pub(crate) fn show(&mut self, progress: &Progress) -> bool {
        let Some(callback) = &mut self.callback else { return false };
        userland::call(|| callback(progress)).is_some()
    }
}

impl Drop for Observer {
    /// What the closure has captured is the user's, and is dropped by the aggregator.
    fn drop(&mut self) {
        userland::let_go(self.callback.take());
    }
}

/// How a run is doing, over the last interval.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Progress {
    /// Name of the scenario.
    pub scenario: &'static str,
    /// Since the first transaction was due.
    pub elapsed: Duration,
    /// Transactions a second asked for, now; 0 in a closed loop.
    pub goal_tps: u32,
    /// Completed transactions a second in the interval.
    pub tps: f64,
    /// Failures in the interval.
    pub failed: u64,
    /// Transactions due in the interval that were dropped.
    pub missed: u64,
    /// Transactions that are due and wait to be started.
    pub backlog: u64,
    /// Scenario instances.
    pub instances: u32,
    /// Transactions in flight.
    pub in_flight: u32,
    /// Median response time of the interval.
    pub p50: Duration,
    /// 99th percentile of the response time of the interval.
    pub p99: Duration,
    /// Share of its time that the busiest shard had something to do, 0 to 1.
    pub busy: f64,
}
