//! The metrics of a run, through the `metrics` crate: the names and values of Balter's guide, and
//! some beyond it.
//!
//! Handles are made once for each run, so what a window costs is an addition for each of them and,
//! for each histogram, what the recorder asks for its values.

use std::cell::Cell;

use metrics::{Counter, Gauge, Histogram, IntoF64, Label, Unit};

use super::{RECORDER_PANICKED, State};
use crate::engine::recorder::Recorder;
use crate::engine::window::{ShardWindow, TransactionWindow};
use crate::failure::FailureClass;
use crate::{transaction, userland};

/// The metrics of one run. Empty where the process had no recorder when the run started, and from
/// then on costs nothing.
pub(crate) struct Published {
    handles: Option<Box<Handles>>,
    /// The recorder has panicked.
    failed: bool,
}

impl Published {
    /// Registers what is known before the first window. `cores` are those of the run's parts.
    pub(crate) fn new(scenario: &'static str, cores: impl Iterator<Item = usize>) -> Self {
        let cores: Vec<_> = cores.collect();
        let handles = guarded(scenario, || {
            let goal = metrics::gauge!(format!("balter_{scenario}_goal_tps"));
            is_live(&goal).then(|| Box::new(Handles::new(scenario, goal, &cores)))
        });
        Self { failed: handles.is_none(), handles: handles.flatten() }
    }

    /// It was told of the run up to a panic of its own, or of nothing.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Adds a shard's window.
    pub(crate) fn window(&mut self, part: usize, window: &ShardWindow) {
        self.with(|handles| handles.window(part, window));
    }

    /// Shows where the run stands.
    pub(crate) fn tick(&mut self, state: &State) {
        self.with(|handles| handles.tick(state));
    }

    /// The run is over: nothing of it runs any more. Counters and histograms stay as they are.
    pub(crate) fn end(&mut self) {
        self.with(Handles::end);
    }

    fn with(&mut self, work: impl FnOnce(&mut Handles)) {
        if let Some(handles) = &mut self.handles
            && guarded(handles.scenario, || work(handles)).is_none()
        {
            self.failed = true;
            userland::let_go(self.handles.take());
        }
    }
}

impl Drop for Published {
    /// The handles are the recorder's.
    fn drop(&mut self) {
        userland::let_go(self.handles.take());
    }
}

/// A recorder is somebody else's code: its panic must not take the aggregator, and with it all
/// runs, along.
fn guarded<T>(scenario: &str, work: impl FnOnce() -> T) -> Option<T> {
    let result = userland::call(work);
    if result.is_none() {
        tracing::error!(scenario, "{RECORDER_PANICKED}");
    }
    result
}

struct Handles {
    scenario: &'static str,
    concurrency: Gauge,
    goal_tps: Gauge,
    concurrency_state: Gauge,
    backlog: Gauge,
    in_flight: Gauge,
    /// Of the controllers that this run has.
    latency_goal_tps: Option<Gauge>,
    error: Option<ErrorGauges>,
    missed: Counter,
    /// By [`FailureClass::index`].
    failures: [Counter; FailureClass::COUNT],
    /// By part.
    busy: Vec<Gauge>,
    /// A closed loop has none.
    lag: Option<Histogram>,
    /// By [`TransactionMeta::id`](crate::transaction::TransactionMeta::id).
    transactions: Vec<Option<TransactionHandles>>,
}

struct ErrorGauges {
    goal_tps: Gauge,
    state: Gauge,
}

struct TransactionHandles {
    success: Counter,
    error: Counter,
    latency: Histogram,
}

impl Handles {
    fn new(scenario: &'static str, goal_tps: Gauge, cores: &[usize]) -> Self {
        let name = |what: &str| format!("balter_{scenario}_{what}");
        describe(scenario);
        Self {
            scenario,
            concurrency: metrics::gauge!(name("concurrency")),
            goal_tps,
            concurrency_state: metrics::gauge!(name("cc_state")),
            backlog: metrics::gauge!(name("backlog")),
            in_flight: metrics::gauge!(name("in_flight")),
            latency_goal_tps: None,
            error: None,
            missed: metrics::counter!(name("missed")),
            // All of them, as zeros: the rate of a counter that is first seen at 5 misses these.
            failures: FailureClass::ALL
                .map(|class| metrics::counter!(name("failures"), "class" => class.to_string())),
            busy: cores
                .iter()
                .map(|core| metrics::gauge!(name("shard_busy"), "core" => core.to_string()))
                .collect(),
            lag: None,
            transactions: Vec::new(),
        }
    }

    fn window(&mut self, part: usize, window: &ShardWindow) {
        self.missed.increment(window.missed);
        for (counter, count) in self.failures.iter().zip(window.failures) {
            if count > 0 {
                counter.increment(count);
            }
        }
        let length_ns = window.end_ns.saturating_sub(window.start_ns);
        if length_ns > 0 {
            self.busy[part].set(1.0 - (window.idle_ns as f64 / length_ns as f64).min(1.0));
        }
        if self.transactions.len() < window.transactions.len() {
            self.transactions.resize_with(window.transactions.len(), || None);
        }
        for (handles, transaction) in self.transactions.iter_mut().zip(&window.transactions) {
            let Some(transaction) = transaction else { continue };
            handles
                .get_or_insert_with(|| {
                    TransactionHandles::new(&transaction.name, &transaction.module)
                })
                .window(transaction);
            if let Some(open) = &transaction.open {
                let lag = self.lag.get_or_insert_with(|| lag(self.scenario));
                record(lag, &open.lag);
            }
        }
    }

    fn tick(&mut self, state: &State) {
        self.concurrency.set(state.concurrency);
        self.goal_tps.set(state.goal_tps);
        self.concurrency_state.set(state.concurrency_state);
        self.backlog.set(state.backlog as f64);
        self.in_flight.set(state.in_flight);
        if let Some(tps) = state.latency_goal_tps {
            self.latency_goal_tps.get_or_insert_with(|| latency_goal_tps(self.scenario)).set(tps);
        }
        if let Some(tps) = state.error_goal_tps {
            let gauges = self.error.get_or_insert_with(|| ErrorGauges::new(self.scenario));
            gauges.goal_tps.set(tps);
            gauges.state.set(state.error_state);
        }
    }

    fn end(&mut self) {
        self.tick(&State {
            concurrency: 0,
            goal_tps: 0,
            latency_goal_tps: self.latency_goal_tps.as_ref().map(|_| 0),
            error_goal_tps: self.error.as_ref().map(|_| 0),
            concurrency_state: 0,
            error_state: 0,
            backlog: 0,
            in_flight: 0,
        });
        for busy in &self.busy {
            busy.set(0);
        }
    }
}

impl TransactionHandles {
    /// Named as Balter names them. Of several transactions of one name the first that ran in this
    /// process has that name to itself and the others a label besides, so that a series never
    /// changes its name, and programs without namesakes have Balter's series, without labels.
    fn new(transaction: &str, module: &str) -> Self {
        let labels = match transaction::is_later_namesake(transaction, module) {
            true => vec![Label::new("module", module.to_owned())],
            false => Vec::new(),
        };
        let name = |what: &str| format!("{transaction}_{what}");
        metrics::describe_counter!(name("success"), Unit::Count, "transactions that succeeded");
        metrics::describe_counter!(name("error"), Unit::Count, "transactions that failed");
        metrics::describe_histogram!(
            name("latency"),
            Unit::Seconds,
            "time of completed transactions, from when they were due"
        );
        Self {
            success: metrics::counter!(name("success"), labels.clone()),
            error: metrics::counter!(name("error"), labels.clone()),
            latency: metrics::histogram!(name("latency"), labels),
        }
    }

    fn window(&self, window: &TransactionWindow) {
        self.success.increment(window.succeeded);
        self.error.increment(window.failed);
        // In a closed loop a transaction is due when it starts.
        let response = window.open.as_ref().map(|open| &open.response);
        record(&self.latency, response.unwrap_or(&window.service));
    }
}

impl ErrorGauges {
    fn new(scenario: &str) -> Self {
        let name = |what: &str| format!("balter_{scenario}_erc_{what}");
        metrics::describe_gauge!(
            name("goal_tps"),
            Unit::CountPerSecond,
            "rate that the error rate controller allows"
        );
        metrics::describe_gauge!(
            name("state"),
            "error rate controller: 0 stable, 1 in small steps, 2 in big steps"
        );
        Self { goal_tps: metrics::gauge!(name("goal_tps")), state: metrics::gauge!(name("state")) }
    }
}

fn latency_goal_tps(scenario: &str) -> Gauge {
    let name = format!("balter_{scenario}_lc_goal_tps");
    metrics::describe_gauge!(
        name.clone(),
        Unit::CountPerSecond,
        "rate that the latency controller allows"
    );
    metrics::gauge!(name)
}

fn lag(scenario: &str) -> Histogram {
    let name = format!("balter_{scenario}_lag");
    metrics::describe_histogram!(
        name.clone(),
        Unit::Seconds,
        "time from when transactions were due to when they started"
    );
    metrics::histogram!(name)
}

fn describe(scenario: &str) {
    let name = |what: &str| format!("balter_{scenario}_{what}");
    metrics::describe_gauge!(name("concurrency"), Unit::Count, "scenario instances");
    metrics::describe_gauge!(
        name("goal_tps"),
        Unit::CountPerSecond,
        "rate asked for; 0 in a closed loop"
    );
    metrics::describe_gauge!(
        name("cc_state"),
        "concurrency controller: 0 stable, 1 working, -1 limited"
    );
    metrics::describe_gauge!(name("backlog"), Unit::Count, "transactions due and not started");
    metrics::describe_gauge!(name("in_flight"), Unit::Count, "transactions started and not ended");
    metrics::describe_counter!(name("missed"), Unit::Count, "transactions due and dropped");
    metrics::describe_counter!(name("failures"), Unit::Count, "failures by class");
    metrics::describe_gauge!(
        name("shard_busy"),
        "share of its time in which the shard of a core had something to do, 0 to 1"
    );
}

/// Tells a histogram what was recorded, each bucket at its lowest time, as the statistics have it.
fn record(histogram: &Histogram, recorder: &Recorder) {
    for (bucket, count) in recorder.recorded() {
        let time = Probe::new(bucket.lowest_ns() as f64 / 1e9);
        histogram.record_many(&time, usize::try_from(count).unwrap_or(usize::MAX));
        if !time.was_asked() {
            // The recorder leaves this histogram out: no use in walking through it.
            return;
        }
    }
}

/// Whether somebody takes what this gauge is set to, which a handle does not tell otherwise. Sets
/// it to zero.
fn is_live(gauge: &Gauge) -> bool {
    let zero = Probe::new(0.0);
    gauge.set(&zero);
    zero.was_asked()
}

/// A value that notes that it was asked for: a handle without a recorder does not ask.
struct Probe {
    value: f64,
    asked: Cell<bool>,
}

impl Probe {
    fn new(value: f64) -> Self {
        Self { value, asked: Cell::new(false) }
    }

    fn was_asked(&self) -> bool {
        self.asked.get()
    }
}

impl IntoF64 for &Probe {
    fn into_f64(self) -> f64 {
        self.asked.set(true);
        self.value
    }
}

#[cfg(test)]
mod tests;
