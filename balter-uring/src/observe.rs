//! What a run tells the outside while it goes on. The aggregator calls it, once a window; nothing
//! of it is on the way of a transaction.

#[cfg(feature = "metrics")]
mod metrics;
#[cfg(feature = "metrics")]
pub(crate) use self::metrics::Published;

#[cfg(not(feature = "metrics"))]
mod unpublished;
#[cfg(not(feature = "metrics"))]
pub(crate) use self::unpublished::Published;

/// What the statistics of a run say whose metrics ended before it.
pub(crate) const RECORDER_PANICKED: &str =
    "the metrics recorder panicked and was told nothing more of this run";

/// Where a run stands at the end of a window, over all shards.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "nobody is told"))]
pub(crate) struct State {
    /// Scenario instances.
    pub(crate) concurrency: u32,
    /// Transactions a second asked for; 0 in a closed loop.
    pub(crate) goal_tps: u32,
    /// The rate that the latency controller allows, where there is one.
    pub(crate) latency_goal_tps: Option<u32>,
    /// The rate that the error rate controller allows, where there is one.
    pub(crate) error_goal_tps: Option<u32>,
    /// 0: stable, 1: working, −1: limited.
    pub(crate) concurrency_state: i8,
    /// 0: stable, 1: in small steps, 2: in big steps.
    pub(crate) error_state: u8,
    /// Transactions that are due and wait to be started.
    pub(crate) backlog: u64,
    /// Transactions that have started and not ended.
    pub(crate) in_flight: u32,
}
