//! A node: what its API asks, and what the other nodes reach.

use std::sync::Arc;

use tokio::sync::watch;

use super::RuntimeConfig;
use super::coordinator;
use super::peers::Peer;
use super::registry::{NoScenario, Registry};
use super::request::RunRequest;
use super::runs::Runs;
use super::worker::Workers;
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
    pub(crate) fn start(&self, request: RunRequest) -> Result<String, StartError> {
        let scenario = self.scenario(&request)?;
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
        Ok(request.configure(scenario, &self.config.limits))
    }

    pub(crate) fn is_leaving(&self) -> bool {
        *self.leaving.borrow()
    }
}
