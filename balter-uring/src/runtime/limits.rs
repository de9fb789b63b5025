//! What a node allows.

use std::time::Duration;

/// What requests cannot exceed, whatever they ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunLimits {
    /// Transactions a second of one run, over all nodes (10 million if not set).
    pub max_tps: u32,
    /// Scenario instances of one run, over all nodes (a million if not set).
    pub max_concurrency: u32,
    /// The longest run, and the length of one that is asked for without a duration (a day if not
    /// set).
    pub max_duration: Duration,
    /// Runs at a time (16 if not set).
    pub max_runs: usize,
    /// Requests that change something, a second, over all clients (20 if not set).
    pub max_requests: u32,
}

impl Default for RunLimits {
    fn default() -> Self {
        Self {
            max_tps: 10_000_000,
            max_concurrency: 1_000_000,
            max_duration: Duration::from_secs(24 * 60 * 60),
            max_runs: 16,
            max_requests: 20,
        }
    }
}
