//! A node: what the API asks and what the other nodes reach.

use std::sync::Arc;

use super::RuntimeConfig;
use super::registry::Registry;
use super::request::RunRequest;
use super::runs::Runs;

/// See the module's documentation. Clones are of one node.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) name: Arc<str>,
    pub(crate) config: Arc<RuntimeConfig>,
    pub(crate) registry: Registry,
    pub(crate) runs: Runs,
}

/// Why a run was not started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StartError {
    #[error("there is no scenario `{name}`; there are: {known}")]
    UnknownScenario { name: String, known: String },
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
        let known = || self.registry.all().map(|scenario| scenario.name).collect::<Vec<_>>();
        let Some(_scenario) = self.registry.get(&request.name) else {
            let known = known().join(", ");
            return Err(StartError::UnknownScenario { name: request.name, known });
        };
        Err(StartError::ShuttingDown)
    }
}
