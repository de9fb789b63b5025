//! A node: what its API asks, and what the other nodes reach.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::coordinator;
use super::peers::Peer;
use super::registry::{NoScenario, Registry};
use super::request::{LatencyLimit, RunRequest};
use super::runs::Runs;
use super::worker::Workers;
use super::{RunLimits, RuntimeConfig};
use crate::config::{DEFAULT_MAX_CONCURRENCY, Hint};
use crate::scenario::Scenario;

/// See the module's documentation. Clones are of one node.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) name: Arc<str>,
    /// Tells this process from the one before it at the same address.
    pub(crate) boot: u64,
    /// What nodes have to agree on to carry a run together.
    pub(crate) version: Arc<str>,
    pub(crate) config: Arc<RuntimeConfig>,
    pub(crate) registry: Registry,
    pub(crate) runs: Runs,
    pub(crate) workers: Workers,
    /// This node among them.
    pub(crate) peers: watch::Receiver<Arc<Vec<Peer>>>,
    /// Turns `true` when the node is to end.
    pub(crate) leaving: watch::Receiver<bool>,
}

/// Why a run was not started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    NoScenario(#[from] NoScenario),
    #[error("the arguments do not fit the scenario: {0}")]
    Arguments(String),
    #[error("{0} runs are under way already, and no more are allowed at a time")]
    TooManyRuns(usize),
    #[error("this node is shutting down")]
    ShuttingDown,
}

impl Node {
    /// Starts a run that this node leads, and answers its id. The request has been checked.
    pub(crate) fn start(&self, mut request: RunRequest) -> Result<String, StartError> {
        let scenario = self.scenario(&request)?;
        // By whatever name it was asked for, the nodes know it by this one.
        request.name = self.registry.name_of(self.registry.get(&request.name)?);
        if self.is_leaving() {
            return Err(StartError::ShuttingDown);
        }
        let under_way = self.runs.led_under_way();
        if under_way >= self.config.limits.max_runs {
            return Err(StartError::TooManyRuns(under_way));
        }
        Ok(coordinator::begin(self, request, scenario))
    }

    /// The scenario of a request, configured as that says.
    pub(crate) fn scenario(&self, request: &RunRequest) -> Result<Scenario, StartError> {
        let registered = self.registry.get(&request.name)?;
        let scenario = (registered.make)(request.args.as_ref()).map_err(StartError::Arguments)?;
        Ok(configure(request, scenario, &self.config.limits))
    }

    pub(crate) fn is_leaving(&self) -> bool {
        *self.leaving.borrow()
    }
}

/// Configures a scenario as asked for. The request has been checked.
fn configure(request: &RunRequest, mut scenario: Scenario, limits: &RunLimits) -> Scenario {
    let duration = request.duration.map_or(limits.max_duration, Duration::from_secs_f64);
    scenario = scenario.duration(duration.min(limits.max_duration));
    if let Some(tps) = request.max_tps {
        scenario = scenario.tps(tps);
    }
    if let Some(error_rate) = request.error_rate {
        scenario = scenario.error_rate(error_rate);
    }
    if let Some(LatencyLimit { latency, quantile }) = request.latency {
        scenario = scenario.latency(Duration::from_secs_f64(latency), quantile);
    }
    if let Some(timeout) = request.timeout {
        scenario = scenario.timeout(Duration::from_secs_f64(timeout));
    }
    if let Some(instances) = request.hints.and_then(|hints| hints.concurrency) {
        scenario = scenario.hint(Hint::Concurrency(instances as usize));
    }
    if let Some(tps) = request.hints.and_then(|hints| hints.tps) {
        scenario = scenario.hint(Hint::Tps(tps));
    }
    if request.find_capacity {
        scenario = scenario.find_capacity();
    }
    if request.saturate {
        scenario = scenario.saturate();
    }
    if let Some(instances) = request.concurrency {
        scenario = scenario.concurrency(instances as usize);
    }
    let instances = request.concurrency.or(request.max_concurrency);
    let instances = instances.unwrap_or(DEFAULT_MAX_CONCURRENCY);
    scenario.max_concurrency(instances.min(limits.max_concurrency) as usize)
}
