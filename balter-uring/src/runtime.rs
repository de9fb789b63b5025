//! Nodes that carry one load test together.

mod coordinator;
#[allow(dead_code)]
mod membership;
mod node;
mod peers;
#[doc(hidden)]
pub mod registry;
mod request;
mod runs;
mod service;
mod view;
mod wire;
mod worker;

use std::net::{IpAddr, Ipv4Addr};

pub(crate) use node::Node;
pub use request::{Hints, LatencyLimit, RunRequest};
pub use view::{NodeView, RunRole, RunState, RunView, TransactionView};

/// The port that a node listens on if not told otherwise.
pub const DEFAULT_PORT: u16 = 7621;

/// What requests cannot exceed, whatever they ask for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunLimits {
    /// Transactions a second of one run, over all nodes.
    pub max_tps: u32,
    /// Scenario instances of one run, over all nodes.
    pub max_concurrency: u32,
    /// Seconds of one run. A request without a duration gets this one.
    pub max_duration: std::time::Duration,
    /// Runs at a time.
    pub max_runs: usize,
    /// Requests a second that change something (`POST`), over all clients.
    pub requests_per_second: u32,
}

impl Default for RunLimits {
    fn default() -> Self {
        Self {
            max_tps: 10_000_000,
            max_concurrency: 1_000_000,
            max_duration: std::time::Duration::from_secs(24 * 3600),
            max_runs: 16,
            requests_per_second: 50,
        }
    }
}

/// What a node is told before it starts.
#[derive(Clone, Debug)]
pub(crate) struct RuntimeConfig {
    pub(crate) bind: IpAddr,
    pub(crate) port: u16,
    pub(crate) peers: Vec<String>,
    pub(crate) token: Option<String>,
    pub(crate) limits: RunLimits,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: DEFAULT_PORT,
            peers: Vec::new(),
            token: None,
            limits: RunLimits::default(),
        }
    }
}

impl RuntimeConfig {
    /// Whether an `Authorization` header has the token, if one is needed.
    pub(crate) fn is_authorized(&self, given: Option<&[u8]>) -> bool {
        let Some(token) = &self.token else { return true };
        given.and_then(|given| given.strip_prefix(b"Bearer ")).is_some_and(|given| {
            use subtle::ConstantTimeEq as _;
            let digest = |bytes: &[u8]| ring::digest::digest(&ring::digest::SHA256, bytes);
            digest(given).as_ref().ct_eq(digest(token.as_bytes()).as_ref()).into()
        })
    }

    /// How to connect to another node.
    pub(crate) fn endpoint(
        &self,
        address: std::net::SocketAddr,
    ) -> Result<tonic::transport::Endpoint, String> {
        tonic::transport::Endpoint::from_shared(format!("http://{address}"))
            .map(|endpoint| endpoint.tcp_nodelay(true))
            .map_err(|error| error.to_string())
    }
}
