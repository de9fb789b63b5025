//! What `POST /run` takes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::RunLimits;
use crate::config::{DEFAULT_MAX_CONCURRENCY, Hint};
use crate::scenario::Scenario;

/// A run that is asked for. Times are in seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// Function name of the scenario.
    pub name: String,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<f64>,
    /// Transactions a second, over all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tps: Option<u32>,
    /// The highest share of transactions that may fail, above 0 and below 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_rate: Option<f64>,
    /// The longest response time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyLimit>,
    /// Where to start from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hints: Option<Hints>,
    /// Arguments of the scenario: an array in their order, or an object by their names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<serde_json::Value>,
    /// The most scenario instances, over all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<u32>,
    /// Seconds that one transaction may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<f64>,
    /// End the run when the highest rate within its limits has been found.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub find_capacity: bool,
}

/// A limit on the response time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatencyLimit {
    /// Seconds.
    pub latency: f64,
    /// The share of transactions that has to be as fast, above 0 and below 1.
    pub quantile: f64,
}

/// Where a run starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hints {
    /// Scenario instances, over all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Transactions a second of a run whose rate is searched for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tps: Option<u32>,
}

impl RunRequest {
    /// Configures a scenario as asked for. The request has been checked.
    pub(crate) fn configure(&self, mut scenario: Scenario, limits: &RunLimits) -> Scenario {
        let duration = self.duration.map_or(limits.max_duration, Duration::from_secs_f64);
        scenario = scenario.duration(duration.min(limits.max_duration));
        if let Some(tps) = self.max_tps {
            scenario = scenario.tps(tps);
        }
        if let Some(error_rate) = self.error_rate {
            scenario = scenario.error_rate(error_rate);
        }
        if let Some(LatencyLimit { latency, quantile }) = self.latency {
            scenario = scenario.latency(Duration::from_secs_f64(latency), quantile);
        }
        if let Some(timeout) = self.timeout {
            scenario = scenario.timeout(Duration::from_secs_f64(timeout));
        }
        if let Some(instances) = self.hints.and_then(|hints| hints.concurrency) {
            scenario = scenario.hint(Hint::Concurrency(instances as usize));
        }
        if let Some(tps) = self.hints.and_then(|hints| hints.tps) {
            scenario = scenario.hint(Hint::Tps(tps));
        }
        if self.find_capacity {
            scenario = scenario.find_capacity();
        }
        let instances = self.max_concurrency.unwrap_or(DEFAULT_MAX_CONCURRENCY);
        scenario.max_concurrency(instances.min(limits.max_concurrency) as usize)
    }
}
