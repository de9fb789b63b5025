//! A load generator for Linux.
//!
//! Write what a user does as an async function, mark each request, say how much of it you want:
//!
//! ```no_run
//! use balter_uring::http::Client;
//! use balter_uring::prelude::*;
//!
//! #[scenario]
//! async fn visitor() {
//!     let client = Client::new();
//!     loop {
//!         let _ = front_page(&client).await;
//!     }
//! }
//!
//! #[transaction]
//! async fn front_page(client: &Client) -> Result<(), balter_uring::http::Error> {
//!     client.get("http://127.0.0.1:8080/").send().await?.error_for_status()?.bytes().await?;
//!     Ok(())
//! }
//!
//! let statistics = futures_lite::future::block_on(
//!     visitor().tps(10_000).duration(Duration::from_secs(10)),
//! );
//! println!("{statistics}");
//! ```
//!
//! One shard a core: a thread pinned to it, with a glommio executor and an io_uring of its own.
//! Scenario instances live and die on one shard; nothing on the way of a transaction is shared
//! between them. One ordinary thread, the aggregator, merges what the shards measure and grants
//! them their budgets. `ARCHITECTURE.md` in the repository shows the parts.
//!
//! # What is measured
//!
//! For each `#[transaction]`, three times: [`response`](RunStatistics::response) from when it was
//! due, [`service`](RunStatistics::service) from when it started, and
//! [`lag`](RunStatistics::lag), the difference. Part of the lag is this generator's own
//! [`lateness`](RunStatistics::lateness), the rest [waits](RunStatistics::waits) for the target or
//! for instances. Counts add up ([`Counts`]), the [`Verdict`] says what bounded the run, and
//! [`distorted`](RunStatistics::distorted) whether the figures are fit to be asserted on.
//!
//! What stands outside of transactions, as a log-in or a pause, is in none of these times. Requests
//! of [`http::Client`] there are counted in [`outside`](RunStatistics::outside) and bounded by
//! [`outside_tps`](Scenario::outside_tps).
//!
//! # Metrics
//!
//! While a run goes on, it tells the recorder of the [`metrics`](https://docs.rs/metrics) crate
//! that the process has installed before, once a window (100 ms). The names are Balter's:
//!
//! | metric | kind | value |
//! |---|---|---|
//! | `{transaction}_success`, `{transaction}_error` | counter | transactions |
//! | `{transaction}_latency` | histogram | seconds, of completed transactions, from when they were due |
//! | `balter_{scenario}_concurrency` | gauge | scenario instances, pausing ones included |
//! | `balter_{scenario}_goal_tps` | gauge | transactions a second asked for; 0 in a closed loop |
//! | `balter_{scenario}_cc_state` | gauge | concurrency controller: 0 stable, 1 working, −1 limited |
//! | `balter_{scenario}_lc_goal_tps`, `balter_{scenario}_erc_goal_tps` | gauge | the rate that the limits on latency, on errors allow |
//! | `balter_{scenario}_erc_state` | gauge | search for the rate: 0 holding it, 1 in small steps, 2 in big steps |
//! | `balter_{scenario}_lag` | histogram | seconds, from when transactions were due to their start |
//! | `balter_{scenario}_missed` | counter | transactions that were due and dropped |
//! | `balter_{scenario}_failures` | counter | failures, by label `class` |
//! | `balter_{scenario}_backlog`, `balter_{scenario}_in_flight` | gauge | transactions |
//! | `balter_{scenario}_shard_busy` | gauge | share of its time in which a shard worked, by label `core` |
//!
//! Of several transactions of one name, the first that runs in a process has the names above to
//! itself; those in other modules have a label `module` besides, so `sum without (module)` is all of
//! them.
//!
//! Counters and histograms are those of the process: runs of one scenario add to each other, and
//! the gauges are of the one that told last. When a run is over its gauges are zero. Without a
//! recorder nothing is told. An exporter may keep each value by itself (that for Prometheus does,
//! until it is next scraped), so what it costs grows with the rate, on the aggregator's thread and
//! never on a shard's.
//!
//! # Features
//!
//! * `metrics`, on by default: the metrics above.
//! * `tls`, on by default: `https` URLs in [`http::Client`].
//! * `json`: bodies of requests and responses as JSON.
//! * `serde`: [`RunStatistics`] can be serialized and deserialized.
//! * `rt`: clusters. `runtime::BalterRuntime` makes the program a node that takes requests over HTTP and
//!   carries runs together with other nodes; every `#[scenario]` is known to it by its name.
//! * `tokio`: clients made for tokio, such as reqwest, work inside scenarios. They find the context
//!   of a runtime there, whose I/O goes on in threads of its own. It is the slow road: each answer
//!   crosses from one thread to another, where [`http::Client`] and [`net`] stay on the shard.

#![deny(unsafe_code)]

extern crate self as balter_uring;

#[doc(hidden)]
pub mod bench_support;
mod config;
mod cores;
mod engine;
mod failure;
mod handshake;
pub mod http;
pub mod net;
mod observe;
mod outside;
mod preflight;
// The kernel reads and writes memory that the ring promises to keep: the one place for `unsafe`.
#[allow(unsafe_code)]
mod ring;
#[cfg(feature = "rt")]
pub mod runtime;
mod scenario;
mod statistics;
mod sweep;
pub mod target;
mod task;
pub mod time;
#[cfg(feature = "tokio")]
mod tokio_context;
mod traffic;
mod transaction;
mod userland;
mod waker;

pub use balter_controllers::{
    Arrival, Block, Broken, Cause, Interval, Limit, Measure, RateState, Saturation, SearchEnd,
    Shortfall, Usl, UslFit, Verdict, Worse,
};
pub use balter_macros::{scenario, transaction};

pub use config::{Contradiction, Hint, Progress};
pub use failure::FailureClass;
pub use preflight::PreflightError;
#[cfg(feature = "rt")]
pub use runtime::BalterRuntime;
pub use scenario::{ConfigurableScenario, Scenario};
pub use statistics::{
    Capacity, Counts, Distortion, ErrorStatistics, Latencies, NodeStatistics, Outside, Quantile,
    RatePoint, RunStatistics, SearchStatistics, ShardStatistics, Steady, TransactionStatistics,
    Waits,
};
pub use sweep::{ConcurrencyPoint, ConcurrencySweep, Hysteresis, Sweep, SweepPoint};
pub use task::{JoinHandle, spawn};

/// All that a load test usually needs: `use balter_uring::prelude::*;`.
pub mod prelude {
    pub use std::time::Duration;

    #[cfg(feature = "rt")]
    pub use crate::runtime::BalterRuntime;
    pub use crate::{
        Arrival, ConfigurableScenario, Hint, RunStatistics, Scenario, scenario, transaction,
    };
}

/// Why a run gave no statistics.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum RunError {
    /// The machine does not allow it; the error says what to change.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// What was asked for contradicts itself; the error says what to drop or to add.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    /// The system gave no thread to start the run with.
    #[error("no thread could be created to start the run: {reason}")]
    Thread {
        /// The system's answer.
        reason: String,
    },
    /// The thread that led the run has ended.
    #[error(
        "the thread that led the run has ended before the run: it has panicked, and standard error \
         has its message"
    )]
    Lost,
}

/// What the macros expand to calls of. Not for use by hand.
#[doc(hidden)]
pub mod __private {
    #[cfg(feature = "rt")]
    pub use crate::runtime::registry::{
        Argument, Arguments, FromJson, NotFromJson, Registered, SCENARIOS,
    };
    pub use crate::scenario::scenario;
    pub use crate::transaction::{TransactionMeta, outcome, transaction};
    #[cfg(feature = "rt")]
    pub use linkme;
}
