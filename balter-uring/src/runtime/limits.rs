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

/// What requests may ask for beside that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Permissions {
    /// Arguments that hold addresses.
    pub targets: bool,
    /// Runs whose rate nothing bounds.
    pub closed_loops: bool,
}

impl RunLimits {
    /// The field, if there is one, under which no request could be granted.
    pub(super) fn without_room(&self) -> Option<&'static str> {
        let fields = [
            ("max_tps", self.max_tps == 0),
            ("max_concurrency", self.max_concurrency == 0),
            ("max_duration", self.max_duration.is_zero()),
            ("max_runs", self.max_runs == 0),
            ("max_requests", self.max_requests == 0),
        ];
        fields.into_iter().find_map(|(name, is_zero)| is_zero.then_some(name))
    }
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
