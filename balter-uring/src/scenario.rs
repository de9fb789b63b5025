//! The builder that `#[scenario]` makes of a function.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::RunError;
use crate::config::{Hint, Load, Observer, Progress, RunConfig};
use crate::engine::blocks::Cut;
use crate::engine::clock::nanoseconds;
#[cfg(feature = "rt")]
use crate::engine::lease::Leased;
use crate::engine::run::{Factory, Maker};
use crate::engine::signals::Listening;
use crate::engine::{Request, Running, start};
use crate::statistics::RunStatistics;
use crate::sweep::{ConcurrencyPoint, ConcurrencySweep, Sweep, SweepPoint};
use balter_controllers::{Arrival, Limit};

/// A scenario that can be configured and run as a load test.
///
/// Made by calling a function that is marked `#[scenario]`. Awaiting it, under any executor, runs
/// the load test and gives its [`RunStatistics`]; the waiting is all that happens where it is
/// awaited, the work is done by the shards. Dropping it stops the run.
///
/// A scenario of which nothing was asked (no rate, no number of instances, no saturation, no limit)
/// is not run: it gives statistics at once whose verdict says so
/// ([`NothingAsked`](crate::Verdict::NothingAsked)). One of which things were asked that do not go
/// together ([`Contradiction`](crate::Contradiction): a rate and a number of instances, a capacity
/// without a limit, no core) is not run either: the statistics have the
/// [`error`](RunStatistics::error), which says what to drop.
///
/// # Examples
/// ```no_run
/// use balter_uring::prelude::*;
///
/// #[scenario]
/// async fn user() {
///     loop {
///         work().await;
///     }
/// }
///
/// #[transaction]
/// async fn work() {}
///
/// let stats = futures_lite::future::block_on(
///     user().tps(10_000).duration(Duration::from_secs(1)),
/// );
/// println!("{stats}");
/// ```
#[must_use = "a scenario does nothing until it is awaited"]
pub struct Scenario {
    name: &'static str,
    factory: Box<dyn Factory>,
    config: RunConfig,
    running: Option<Running>,
}

impl std::fmt::Debug for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scenario").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What `#[scenario]` expands to a call of.
#[doc(hidden)]
pub fn scenario<A, Fut>(name: &'static str, args: A, make: fn(A) -> Fut) -> Scenario
where
    A: Clone + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    Scenario {
        name,
        factory: Box::new(Function { args, make }),
        config: RunConfig::default(),
        running: None,
    }
}

struct Function<A, Fut> {
    args: A,
    make: fn(A) -> Fut,
}

impl<A, Fut> Factory for Function<A, Fut>
where
    A: Clone + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    fn make(&self) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin((self.make)(self.args.clone()))
    }

    fn boxed_clone(&self) -> Box<dyn Factory> {
        Box::new(Self { args: self.args.clone(), make: self.make })
    }
}

impl Scenario {
    /// Open loop: starts so many transactions per second, evenly spaced or as
    /// [`arrival`](Self::arrival) says, however long the target takes to answer.
    ///
    /// # Panics
    /// If `tps` is zero.
    pub fn tps(mut self, tps: u32) -> Self {
        assert!(tps > 0, "the transactions per second must not be zero");
        self.config.load = Load::Rate(tps);
        self.config.asked.tps = true;
        self
    }

    /// Ends the run after so long; without it, it goes on until it is dropped.
    ///
    /// Transactions in flight at the end get a [grace](Self::grace).
    pub fn duration(mut self, duration: Duration) -> Self {
        self.config.duration = Some(duration);
        self
    }

    /// A better starting point for what the engine finds out by itself.
    ///
    /// # Panics
    /// If the hint is a concurrency of zero, a rate of zero, or a gain that is not a positive
    /// number.
    pub fn hint(mut self, hint: Hint) -> Self {
        match hint {
            Hint::Concurrency(instances) => {
                assert!(instances > 0, "the concurrency to start with must not be zero");
                self.config.initial = saturating(instances);
            }
            Hint::Tps(tps) => {
                assert!(tps > 0, "the rate to start with must not be zero");
                self.config.start_tps = tps;
            }
            Hint::LatencyController(gain) => {
                assert!(gain.is_finite() && gain > 0.0, "the gain must be a positive number");
            }
        }
        self
    }

    /// Searches for the highest rate at which at most this share of the transactions fails, and
    /// holds it. With [`tps`](Self::tps) never more than that rate; with
    /// [`latency`](Self::latency) both limits are kept.
    ///
    /// Failures of the generator itself (no descriptors, no ports) do not count. The statistics'
    /// own fields are those of the part of the run in which the rate was held.
    ///
    /// # Panics
    /// If the rate is not above 0 and below 1.
    ///
    /// # Examples
    /// ```no_run
    /// # use balter_uring::prelude::*;
    /// # #[scenario] async fn user() {}
    /// # futures_lite::future::block_on(async {
    /// let stats = user().error_rate(0.03).duration(Duration::from_secs(60)).await;
    /// println!("{} transactions/s with {:.1} % errors", stats.goal_tps, stats.error_rate * 100.0);
    /// # });
    /// ```
    pub fn error_rate(mut self, error_rate: f64) -> Self {
        assert!(
            error_rate > 0.0 && error_rate < 1.0,
            "the error rate must be above 0 and below 1, as 0.03 for 3 %"
        );
        self.config.limits.retain(|limit| !matches!(limit, Limit::ErrorRate(_)));
        self.config.limits.push(Limit::ErrorRate(error_rate));
        self
    }

    /// Searches for the highest rate at which this quantile of the response time stays within the
    /// bound, and holds it. May be given more than once, for several quantiles; see
    /// [`error_rate`](Self::error_rate) for what goes together.
    ///
    /// # Panics
    /// If the latency is zero, or the quantile not above 0 and below 1.
    ///
    /// # Examples
    /// ```no_run
    /// # use balter_uring::prelude::*;
    /// # #[scenario] async fn user() {}
    /// # futures_lite::future::block_on(async {
    /// let stats = user()
    ///     .latency(Duration::from_millis(20), 0.95)
    ///     .latency(Duration::from_millis(100), 0.99)
    ///     .duration(Duration::from_secs(60))
    ///     .await;
    /// println!("{} transactions/s", stats.goal_tps);
    /// # });
    /// ```
    pub fn latency(mut self, latency: Duration, quantile: f64) -> Self {
        assert!(!latency.is_zero(), "the latency must not be zero");
        assert!(
            quantile > 0.0 && quantile < 1.0,
            "the quantile must be above 0 and below 1, as 0.95"
        );
        let bound_ns = nanoseconds(latency);
        let same =
            |limit: &Limit| matches!(limit, Limit::Latency { quantile: q, .. } if *q == quantile);
        self.config.limits.retain(|limit| !same(limit));
        self.config.limits.push(Limit::Latency { bound_ns, quantile });
        self
    }

    /// Ends the run as soon as the highest rate within its limits has been found, measured twice as
    /// long as otherwise, and shown to be held for 2 s: after 15 to 25 s, or at
    /// [`duration`](Self::duration) if that is earlier. Needs [`error_rate`](Self::error_rate) or
    /// [`latency`](Self::latency).
    ///
    /// The statistics' [`search`](crate::RunStatistics::search) has the capacity with its
    /// confidence interval, and the rates that were probed.
    ///
    /// # Examples
    /// ```no_run
    /// # use balter_uring::prelude::*;
    /// # #[scenario] async fn user() {}
    /// # futures_lite::future::block_on(async {
    /// let stats = user().latency(Duration::from_millis(20), 0.95).find_capacity().await;
    /// if let Some(capacity) = stats.search.and_then(|search| search.capacity) {
    ///     println!("{capacity}");
    /// }
    /// # });
    /// ```
    pub fn find_capacity(mut self) -> Self {
        self.config.until_found = true;
        self
    }

    /// Closed loop: exactly so many instances, each starting its next transaction when the last
    /// has ended.
    ///
    /// Limits ([`error_rate`](Self::error_rate), [`latency`](Self::latency)) set nothing in it: there
    /// is no rate to lower.
    ///
    /// In a closed loop a slow target is asked less often, so its latencies are those of a target
    /// under less load than a real one would see; use [`tps`](Self::tps) for those.
    ///
    /// # Panics
    /// If `instances` is zero.
    pub fn concurrency(mut self, instances: usize) -> Self {
        assert!(instances > 0, "the concurrency must not be zero");
        self.config.load = Load::Instances(saturating(instances));
        self.config.asked.concurrency = true;
        self
    }

    /// Closed loop, as fast as it goes: adds instances until the throughput no longer grows.
    pub fn saturate(mut self) -> Self {
        self.config.load = Load::Saturate;
        self.config.asked.saturate = true;
        self
    }

    /// Never more than so many instances at once (100 000 if not set), in all shards together.
    ///
    /// # Panics
    /// If `instances` is zero.
    pub fn max_concurrency(mut self, instances: usize) -> Self {
        assert!(instances > 0, "the highest concurrency must not be zero");
        self.config.max_concurrency = saturating(instances);
        self
    }

    /// One deadline for each transaction, from its start (10 s if not set).
    ///
    /// Clients of this crate end with a timeout error then. Other code that has not returned by
    /// itself is dropped: its instance starts over. Either way the transaction has failed with
    /// [`FailureClass::Timeout`](crate::FailureClass::Timeout).
    ///
    /// # Panics
    /// If the timeout is zero.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        assert!(!timeout.is_zero(), "the timeout must not be zero");
        self.config.timeout = timeout;
        self
    }

    /// Bounds the requests that [`http::Client`](crate::http::Client) sends outside of
    /// transactions, as for a log-in, to so many a second, in all shards together. Those beyond it
    /// wait. Each has the [timeout](Self::timeout) as its deadline, from when it is sent.
    ///
    /// If not set, they are as many a second as transactions are asked for, now, and in a closed
    /// loop as many as instances may run, and a tenth more, so that a queue of them becomes shorter;
    /// but never fewer than ten; of a cluster, on each node.
    ///
    /// # Panics
    /// If `requests` is zero.
    pub fn outside_tps(mut self, requests: u32) -> Self {
        assert!(requests > 0, "the requests per second outside of transactions must not be zero");
        self.config.outside_tps = Some(requests);
        self
    }

    /// How the transactions of an open loop are spaced: evenly if not set.
    pub fn arrival(mut self, arrival: Arrival) -> Self {
        self.config.arrival = arrival;
        self
    }

    /// Runs on these cores instead of on all that the process may use. Takes precedence over the
    /// environment's `BALTER_CORES=1,3-5`.
    pub fn cores(mut self, cores: impl IntoIterator<Item = usize>) -> Self {
        self.config.cores = Some(cores.into_iter().collect());
        self
    }

    /// Time that transactions in flight get when the run ends (5 s or the timeout, the shorter,
    /// if not set). Those that have not ended then count as cancelled.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.config.grace = grace;
        self
    }

    /// Has SIGINT (Ctrl-C) end the run: once in good order, with full statistics, twice at once.
    /// Without it the library takes no signal.
    pub fn stop_on_ctrl_c(mut self) -> Self {
        self.config.interruptible = true;
        self
    }

    /// Calls `observer` about as often as `every` says, from the aggregator's thread. Keep it
    /// short: while it runs, no budget is adjusted.
    pub fn on_progress(
        mut self,
        every: Duration,
        observer: impl FnMut(&Progress) + Send + 'static,
    ) -> Self {
        self.config.progress = Some(Observer::new(every, Box::new(observer)));
        self
    }

    #[doc(hidden)]
    pub fn aggregator_delay_for_tests(mut self, delay: Duration) -> Self {
        self.config.aggregator_delay = delay;
        self
    }

    /// As awaiting, but tells apart a run that could not start.
    ///
    /// # Errors
    /// What kept the run from starting, a [`Contradiction`](crate::Contradiction) in what was asked
    /// for included. No load has been sent then.
    pub async fn run(mut self) -> Result<RunStatistics, RunError> {
        match self.begin()? {
            None => Ok(RunStatistics::nothing_asked(self.name)),
            Some(running) => running.await,
        }
    }

    /// Runs the scenario at one rate after the other, `each` as long, in the order given and then
    /// back again: latency against goodput, the knee, where the target falls behind, and whether it
    /// recovers ([`Sweep`]). What else was set (cores, timeout, arrival, highest concurrency) holds for each of the runs; its limits
    /// and its observer do not.
    ///
    /// Ends early, with the rates that it has come to, when one of its runs is
    /// [stopped](RunStatistics::stopped): with [`stop_on_ctrl_c`](Self::stop_on_ctrl_c) SIGINT ends the
    /// whole sweep, also between two runs.
    ///
    /// The first quarter of each run is for the target to settle, and part of its statistics alone: let
    /// `each` be 5 s or more, and ten times what an answer takes. In a shorter run goodput misses what
    /// is under way, and below 1.4 s nothing is told of recovery.
    ///
    /// # Errors
    /// What kept a run from starting.
    ///
    /// # Panics
    /// If a rate is zero.
    ///
    /// # Examples
    /// ```no_run
    /// # use balter_uring::prelude::*;
    /// # #[scenario] async fn user() {}
    /// # futures_lite::future::block_on(async {
    /// let sweep = user().sweep([1_000, 2_000, 4_000, 8_000], Duration::from_secs(5)).await?;
    /// println!("{sweep}");
    /// # Ok::<(), balter_uring::RunError>(())
    /// # }).ok();
    /// ```
    pub async fn sweep(
        self,
        rates: impl IntoIterator<Item = u32>,
        each: Duration,
    ) -> Result<Sweep, RunError> {
        let up: Vec<_> = rates.into_iter().map(|tps| (tps, false)).collect();
        let down = up.iter().rev().map(|&(tps, _)| (tps, true));
        let mut sweep = Sweep::default();
        // Between two runs as well, where a signal would end the process otherwise.
        let listening = self.config.interruptible.then(Listening::new);
        for (tps, down) in up.iter().copied().chain(down) {
            let statistics = self.step(each).tps(tps).run().await?;
            sweep.stopped = statistics.stopped;
            sweep.points.push(SweepPoint::new(tps, down, statistics));
            sweep.stopped |= listening.as_ref().is_some_and(Listening::was_interrupted);
            if sweep.stopped {
                break;
            }
        }
        Ok(sweep)
    }

    /// Runs the scenario in a closed loop with so many instances, one number after the other, `each` as
    /// long, in the order given: throughput against concurrency, and the Universal Scalability Law that
    /// fits it ([`ConcurrencySweep`]). What else was set holds as in a [`sweep`](Self::sweep), which
    /// says when it ends early.
    ///
    /// The law takes four different numbers at least, of which one is 1 or close to it. Numbers may be
    /// given again, as in `[1, 2, 4, 8, 8, 4, 2, 1]`: what differs between two runs of one number
    /// widens the intervals. It is a law of users that do not pause: a scenario that waits
    /// between its transactions has fewer of them at the target than it has instances.
    ///
    /// # Errors
    /// What kept a run from starting.
    ///
    /// # Panics
    /// If a number is zero.
    ///
    /// # Examples
    /// ```no_run
    /// # use balter_uring::prelude::*;
    /// # #[scenario] async fn user() {}
    /// # futures_lite::future::block_on(async {
    /// let sweep = user().sweep_concurrency([1, 2, 4, 8, 16, 32], Duration::from_secs(5)).await?;
    /// println!("{sweep}");
    /// # Ok::<(), balter_uring::RunError>(())
    /// # }).ok();
    /// ```
    pub async fn sweep_concurrency(
        self,
        instances: impl IntoIterator<Item = usize>,
        each: Duration,
    ) -> Result<ConcurrencySweep, RunError> {
        let mut sweep = ConcurrencySweep::default();
        let listening = self.config.interruptible.then(Listening::new);
        for instances in instances {
            let statistics = self.step(each).concurrency(instances).run().await?;
            sweep.stopped = statistics.stopped;
            sweep.points.push(ConcurrencyPoint::new(instances, statistics));
            sweep.stopped |= listening.as_ref().is_some_and(Listening::was_interrupted);
            if sweep.stopped {
                break;
            }
        }
        Ok(sweep)
    }

    /// One run of a sweep.
    fn step(&self, each: Duration) -> Self {
        let mut step = self.again().duration(each);
        step.config.cut = Some(Cut::of(each, step.config.window));
        step
    }

    /// The same for one more run, without what was asked of this one.
    fn again(&self) -> Self {
        Scenario {
            name: self.name,
            factory: self.factory.boxed_clone(),
            config: self.config.for_one_more_run(),
            running: None,
        }
    }

    /// A search has an open loop without a goal, unless one was given.
    fn settle_load(&mut self) {
        if !self.config.limits.is_empty()
            && matches!(self.config.load, Load::Nothing | Load::Saturate)
        {
            self.config.load = Load::Rate(u32::MAX);
        }
    }

    /// `None` if nothing was asked of it.
    fn begin(&mut self) -> Result<Option<&mut Running>, RunError> {
        self.config.check()?;
        self.settle_load();
        if self.config.load == Load::Nothing {
            tracing::debug!(scenario = self.name, "nothing was asked of this scenario");
            return Ok(None);
        }
        Ok(Some(self.running.get_or_insert_with(|| {
            start(Request {
                name: self.name,
                factory: Maker::new(self.factory.boxed_clone()),
                config: std::mem::take(&mut self.config),
            })
        })))
    }
}

/// What a cluster asks of its nodes' scenarios.
#[cfg(feature = "rt")]
impl Scenario {
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// How the whole run is to go; at no rate above `ceiling_tps`.
    pub(crate) fn settle(&mut self, ceiling_tps: u32) -> &RunConfig {
        self.settle_load();
        self.config.ceiling_tps = ceiling_tps;
        &self.config
    }

    pub(crate) fn config_mut(&mut self) -> &mut RunConfig {
        &mut self.config
    }

    /// A scenario for [`warm_up`](Self::warm_up).
    pub(crate) fn to_warm_up(&self) -> Self {
        self.again()
    }

    /// Has the shards started; answers how many there are.
    pub(crate) fn warm_up(self) -> Result<usize, RunError> {
        let maker = Maker::new(self.factory);
        crate::engine::pool::prepare(&self.config, &maker).map(|prepared| prepared.shards.len())
    }

    /// The part of a run that another node leads.
    pub(crate) fn leased(mut self, leased: Leased) -> Self {
        self.settle_load();
        if self.config.load.is_open() {
            // Whatever it is granted.
            self.config.load = Load::Rate(u32::MAX);
        }
        self.config.limits.clear();
        self.config.until_found = false;
        self.config.leased = Some(leased);
        self
    }
}

fn saturating(instances: usize) -> u32 {
    u32::try_from(instances).unwrap_or(u32::MAX)
}

impl Future for Scenario {
    type Output = RunStatistics;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<RunStatistics> {
        let name = self.name;
        let running = match self.running {
            Some(ref mut running) => running,
            None => match self.begin() {
                Ok(Some(running)) => running,
                Ok(None) => return Poll::Ready(RunStatistics::nothing_asked(name)),
                Err(error) => return Poll::Ready(not_run(name, error)),
            },
        };
        let polled = Pin::new(running).poll(cx);
        polled.map(|result| result.unwrap_or_else(|error| not_run(name, error)))
    }
}

fn not_run(name: &'static str, error: RunError) -> RunStatistics {
    tracing::error!(scenario = name, %error, "the run could not start");
    RunStatistics::not_run(name, error)
}

/// The methods of Balter's scenarios, for code that is generic over them. [`Scenario`] has them
/// all, and more, as its own.
pub trait ConfigurableScenario<T: Send>: Future<Output = T> + Sized + Send {
    /// See [`Scenario::tps`].
    fn tps(self, tps: u32) -> Self;
    /// See [`Scenario::error_rate`].
    fn error_rate(self, error_rate: f64) -> Self;
    /// See [`Scenario::latency`].
    fn latency(self, latency: Duration, quantile: f64) -> Self;
    /// See [`Scenario::duration`].
    fn duration(self, duration: Duration) -> Self;
    /// See [`Scenario::hint`].
    fn hint(self, hint: Hint) -> Self;
}

impl ConfigurableScenario<RunStatistics> for Scenario {
    fn tps(self, tps: u32) -> Self {
        Self::tps(self, tps)
    }

    fn error_rate(self, error_rate: f64) -> Self {
        Self::error_rate(self, error_rate)
    }

    fn latency(self, latency: Duration, quantile: f64) -> Self {
        Self::latency(self, latency, quantile)
    }

    fn duration(self, duration: Duration) -> Self {
        Self::duration(self, duration)
    }

    fn hint(self, hint: Hint) -> Self {
        Self::hint(self, hint)
    }
}
