//! What the API shows of a run.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::request::RunRequest;
use crate::engine::totals::Totals;
use crate::failure::{FailureClass, generator_faults};
use crate::statistics::{
    Counts, ErrorStatistics, Latencies, RunStatistics, TransactionStatistics, shown_names,
};

/// What this node has to do with a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunRole {
    /// It took the request: its figures are those of all nodes.
    #[default]
    Coordinator,
    /// It carries a part: its figures are of this part.
    Worker,
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Its nodes are told of it.
    #[default]
    Starting,
    /// Load is being sent.
    Running,
    /// No more is sent; what is in flight is waited for.
    Draining,
    /// Over.
    Finished,
    /// It could not start, or no node was left.
    Failed,
}

/// A run, as it stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RunView {
    /// Identifies it in the whole cluster.
    pub id: String,
    /// What this node has to do with it.
    pub role: RunRole,
    /// Name of the node that leads it.
    pub coordinator: String,
    /// How far it has come.
    pub state: RunState,
    /// What was asked for.
    pub request: RunRequest,
    /// Unix time in seconds at which its first transaction was due.
    pub started_at: f64,
    /// Seconds since then, to its end at most.
    pub elapsed: f64,
    /// Transactions a second asked for, now; 0 in a closed loop.
    pub goal_tps: u32,
    /// Completed transactions a second, over the last second; of the whole run when it is over.
    pub tps: f64,
    /// Scenario instances.
    pub instances: u32,
    /// Transactions by what became of them.
    pub counts: Counts,
    /// Share of failures of the target, 0 to 1.
    pub error_rate: f64,
    /// Response times in seconds by quantile: `p50`, `p90`, `p95`, `p99`, `max`.
    pub response: BTreeMap<String, f64>,
    /// Failures by class.
    pub failures: BTreeMap<String, u64>,
    /// What the errors of failed transactions said, the commonest first.
    #[serde(default)]
    pub errors: Vec<ErrorStatistics>,
    /// By name of the transaction; with its module where another has the same.
    pub transactions: BTreeMap<String, TransactionView>,
    /// Its nodes, those that it has lost included.
    pub nodes: Vec<NodeView>,
    /// Nodes that take no part, and why not.
    pub refused: BTreeMap<String, String>,
    /// What bounded it, in a sentence; once it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// The generator's own lateness is part of the response times; once it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distorted: Option<bool>,
    /// Why it could not start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One transaction of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TransactionView {
    /// Ended with their success side.
    pub succeeded: u64,
    /// Ended with their failure side.
    pub failed: u64,
    /// Response times in seconds, as [`RunView::response`].
    pub response: BTreeMap<String, f64>,
}

/// One node of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// `joining`, `working`, `unreachable`, `left`.
    pub state: String,
    /// Its share of the rate, transactions a second; 0 in a closed loop.
    pub share_tps: u32,
    /// Its scenario instances.
    pub instances: u32,
    /// Transactions by what became of them, as far as the coordinator was told.
    pub counts: Counts,
}

/// Seconds of Unix time.
pub(crate) fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn quantiles(times: &Latencies) -> BTreeMap<String, f64> {
    let shown = [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)];
    let quantiles = shown.map(|(name, quantile)| (name, times.quantile(quantile)));
    let all = quantiles.into_iter().chain([("max", times.max())]);
    all.map(|(name, time)| (name.to_owned(), time.as_secs_f64())).collect()
}

impl TransactionView {
    fn of(transaction: &TransactionStatistics, response: &Latencies) -> Self {
        Self {
            succeeded: transaction.succeeded,
            failed: transaction.failed,
            response: quantiles(response),
        }
    }
}

impl RunView {
    /// Nothing about it changes any more.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, RunState::Finished | RunState::Failed)
    }

    /// Shows a run under way, of an open or a closed loop.
    pub(crate) fn show(&mut self, totals: &Totals, is_open: bool) {
        self.counts = totals.counts();
        let mut response = Latencies::default();
        self.transactions.clear();
        let names = shown_names(totals.transactions());
        for (transaction, name) in totals.transactions().zip(names) {
            // In a closed loop a transaction is due when it starts.
            let times = if is_open { &transaction.response } else { &transaction.service };
            response.add(times);
            let view = TransactionView::of(transaction, times);
            self.transactions.insert(name.into_owned(), view);
        }
        self.response = quantiles(&response);
        let failures = totals.failures();
        self.failures = FailureClass::ALL
            .into_iter()
            .filter(|class| failures[class.index()] > 0)
            .map(|class| (class.to_string(), failures[class.index()]))
            .collect();
        self.errors = totals.errors();
        let spoilt = generator_faults(failures);
        let judged = self.counts.completed() - spoilt;
        self.error_rate = match judged {
            0 => 0.0,
            judged => (self.counts.failed - spoilt) as f64 / judged as f64,
        };
    }

    /// Shows a run that is over.
    pub(crate) fn end(&mut self, statistics: &RunStatistics) {
        self.state = RunState::Finished;
        self.elapsed = statistics.elapsed.as_secs_f64();
        self.goal_tps = statistics.goal_tps;
        self.tps = statistics.actual_tps;
        self.instances = statistics.concurrency as u32;
        self.counts = statistics.counts;
        self.error_rate = statistics.error_rate;
        self.response = quantiles(&statistics.response);
        self.response.extend([
            ("p50".to_owned(), statistics.latency_p50.as_secs_f64()),
            ("p90".to_owned(), statistics.latency_p90.as_secs_f64()),
            ("p95".to_owned(), statistics.latency_p95.as_secs_f64()),
            ("p99".to_owned(), statistics.latency_p99.as_secs_f64()),
        ]);
        let failures = statistics.failures.iter();
        self.failures = failures.map(|&(class, count)| (class.to_string(), count)).collect();
        self.errors.clone_from(&statistics.errors);
        let transactions = statistics.transactions.iter();
        let named = transactions.clone().zip(shown_names(transactions));
        self.transactions = named
            .map(|(one, name)| (name.into_owned(), TransactionView::of(one, &one.response)))
            .collect();
        self.verdict = statistics.verdict.as_ref().map(ToString::to_string);
        self.distorted = Some(statistics.distorted);
    }
}
