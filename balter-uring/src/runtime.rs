//! Nodes that carry one load test together.
//!
//! Each machine runs the same program with a [`BalterRuntime`]; the nodes find each other, and
//! whichever takes a request leads the run: it gives every node its share of the rate, merges what
//! they measure, and shows it. Scenarios are known by the names of their functions.
//!
//! ```no_run
//! use balter_uring::prelude::*;
//!
//! #[scenario]
//! async fn visitor() {}
//!
//! # async fn program() {
//! BalterRuntime::new().with_args().run().await;
//! # }
//! ```
//!
//! ```text
//! $ load_test --port 7621
//! $ load_test --port 7622 --peers 127.0.0.1:7621
//! $ curl 127.0.0.1:7621/run --json '{ "name": "visitor", "duration": 30, "max_tps": 10000 }'
//! ```
//!
//! # What holds in a cluster
//!
//! * The shares add up to the goal. A node may use its share for two seconds at most without a word
//!   from the coordinator, and the share of a node that is lost goes to the others only after that
//!   time: whatever dies or is cut off, all nodes together never do more than the goal.
//! * Windows arrive once each. Counts and histograms of the whole are the sums of the nodes', and
//!   quantiles are those of the summed histograms.
//! * A node that joins takes a share; one that leaves, dies or is cut off gives it up. What a node
//!   that died had measured and not told (up to a few tenths of a second) is lost with it.
//! * The run ends with its coordinator: the other nodes stop sending within two seconds, keep what
//!   they measured (`GET /runs/{id}` at any of them), and end their part a minute later.
//!
//! # Security
//!
//! A node listens on 127.0.0.1 unless told otherwise, and on no other address without a
//! [token](BalterRuntime::token). `SECURITY.md` in the repository goes through the boundaries.

mod api;
mod arguments;
mod coordinator;
mod limits;
mod membership;
mod node;
mod peers;
#[doc(hidden)]
pub mod registry;
mod request;
mod running;
mod runs;
mod server;
mod service;
mod tls;
mod view;
mod wire;
mod worker;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use arguments::Arguments;
pub(crate) use coordinator::cost as lead_cost;
pub use limits::{Permissions, RunLimits};
pub use peers::{Peer, PeerState};
pub use request::{Hints, LatencyLimit, RequestError, RunRequest, Spacing};
pub use running::RunningNode;
pub use tls::Tls;
pub use view::{NodeView, RunRole, RunState, RunView, TransactionView};

/// The port that a node listens on if not told otherwise.
pub const DEFAULT_PORT: u16 = 7621;

/// A shorter token could be guessed.
const SHORTEST_TOKEN: usize = 16;

/// A token, which is not to be read in logs.
#[derive(Clone)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What a node is told before it starts.
#[derive(Clone, Debug)]
pub(crate) struct RuntimeConfig {
    pub(crate) bind: IpAddr,
    pub(crate) port: u16,
    pub(crate) advertise: Option<SocketAddr>,
    pub(crate) peers: Vec<String>,
    pub(crate) token: Option<Secret>,
    pub(crate) tls: Option<Tls>,
    pub(crate) limits: RunLimits,
    pub(crate) allowed_hosts: Vec<String>,
    pub(crate) allowed: Permissions,
    pub(crate) is_open: bool,
    pub(crate) version: Option<String>,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: DEFAULT_PORT,
            advertise: None,
            peers: Vec::new(),
            token: None,
            tls: None,
            limits: RunLimits::default(),
            allowed_hosts: Vec::new(),
            allowed: Permissions::default(),
            is_open: false,
            version: None,
        }
    }
}

impl RuntimeConfig {
    /// Whether an `Authorization` header has the token, if one is needed.
    pub(crate) fn is_authorized(&self, given: Option<&[u8]>) -> bool {
        let Some(token) = &self.token else { return true };
        given.and_then(|given| given.strip_prefix(b"Bearer ")).is_some_and(|given| {
            use subtle::ConstantTimeEq as _;
            // Of digests, so that not even the length of the token can be measured.
            let digest = |bytes: &[u8]| ring::digest::digest(&ring::digest::SHA256, bytes);
            digest(given).as_ref().ct_eq(digest(token.0.as_bytes()).as_ref()).into()
        })
    }

    fn check(&self) -> Result<(), RuntimeError> {
        match &self.token {
            Some(Secret(token)) if token.len() < SHORTEST_TOKEN => Err(RuntimeError::ShortToken),
            Some(Secret(token)) if !token.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Err(RuntimeError::UnfitToken)
            }
            None if !self.bind.is_loopback() && !self.is_open => {
                Err(RuntimeError::Unauthenticated { bind: self.bind })
            }
            _ => match self.limits.without_room() {
                Some(limit) => Err(RuntimeError::NoRoom { limit }),
                None => Ok(()),
            },
        }
    }
}

/// Why a node could not start, or came to an end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// Everybody who can reach this address could have load sent.
    #[error(
        "the node would listen on {bind}, which others can reach, without a token: give all nodes \
         the same one (BALTER_TOKEN, --token-file or `token`), or say that everybody may use them \
         (--danger-allow-unauthenticated)"
    )]
    Unauthenticated {
        /// The address.
        bind: IpAddr,
    },
    /// The token could be guessed.
    #[error(
        "the token has less than {SHORTEST_TOKEN} characters: make one with `openssl rand -hex 32`"
    )]
    ShortToken,
    /// The token cannot be sent in a header.
    #[error(
        "the token has spaces or characters beyond ASCII: make one with `openssl rand -hex 32`"
    )]
    UnfitToken,
    /// A limit of zero leaves room for no run at all.
    #[error(
        "the limit {limit} is zero, under which nothing can run: set it to what the node allows"
    )]
    NoRoom {
        /// The field of [`RunLimits`].
        limit: &'static str,
    },
    /// A file cannot be read.
    #[error("{path} cannot be read: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Certificate, key or authority cannot be used.
    #[error("TLS cannot be set up from {path}: {reason}")]
    Tls {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The port is taken, or the address is none of this machine.
    #[error("{address} cannot be listened on: {error}; choose another with --port or --bind")]
    Bind {
        /// Where the node was to listen.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The node could not become part of a cluster.
    #[error("the cluster cannot be joined: {0}")]
    Membership(String),
    /// The system gives no thread, or no runtime on it.
    #[error("the thread of the node could not be started: {0}")]
    Thread(io::Error),
    /// The thread of the node has ended. Its message is in the log.
    #[error("the thread of the node has ended")]
    Lost,
}

/// A node, before it starts.
///
/// # Examples
/// ```no_run
/// use balter_uring::runtime::BalterRuntime;
///
/// # async fn program() {
/// BalterRuntime::new().port(7622).peers(["10.0.0.1:7621", "load.internal"]).run().await;
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a node does nothing until it runs"]
pub struct BalterRuntime {
    config: RuntimeConfig,
}

impl BalterRuntime {
    /// A node that listens on 127.0.0.1:7621 and knows no others. The environment's `BALTER_TOKEN`,
    /// where it is set, is its token.
    pub fn new() -> Self {
        let token = std::env::var("BALTER_TOKEN").ok().filter(|token| !token.is_empty());
        Self { config: RuntimeConfig { token: token.map(Secret), ..RuntimeConfig::default() } }
    }

    /// The port to listen on, for TCP (API and nodes) and UDP (gossip); 7621 if not set, 0 for any
    /// that is free.
    pub fn port(mut self, port: u16) -> Self {
        self.config.port = port;
        self
    }

    /// The address to listen on; 127.0.0.1 if not set. Others need a [token](Self::token).
    pub fn bind(mut self, address: IpAddr) -> Self {
        self.config.bind = address;
        self
    }

    /// Where the other nodes reach this one; the address that it listens on if not set, or one that
    /// leads to its peers where it listens on all addresses.
    pub fn advertise(mut self, address: SocketAddr) -> Self {
        self.config.advertise = Some(address);
        self
    }

    /// Nodes to ask for the others, one that lives is enough: addresses or DNS names, with a port
    /// unless it is 7621. All addresses of a name are asked, and names are looked up again and
    /// again, so that a name for all nodes (a headless service of Kubernetes) is all that is needed.
    pub fn peers(mut self, peers: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.config.peers.extend(peers.into_iter().map(Into::into));
        self
    }

    /// What nodes and clients have to show: at least 16 characters, the same for all nodes of the
    /// cluster. Clients send it as `Authorization: Bearer …`; gossip is signed with a key made of it.
    /// Without TLS whoever can read the network can read it.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.config.token = Some(Secret(token.into()));
        self
    }

    /// Serves the API and reaches the other nodes over TLS.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.config.tls = Some(tls);
        self
    }

    /// What requests cannot exceed. They are checked where a request arrives, and by every node for
    /// its own part.
    pub fn limits(mut self, limits: RunLimits) -> Self {
        self.config.limits = limits;
        self
    }

    /// A name that the API may be addressed by, beside the addresses of the node and `localhost`.
    /// Requests for others are refused: they come from web pages that mean another host.
    pub fn allow_host(mut self, host: impl Into<String>) -> Self {
        self.config.allowed_hosts.push(host.into());
        self
    }

    /// Lets the arguments of a run hold addresses. Without it requests are refused that could turn
    /// the load at a target of the client's choice.
    pub fn allow_targets(mut self) -> Self {
        self.config.allowed.targets = true;
        self
    }

    /// Lets requests ask for closed loops: `concurrency` and `saturate`. These are as fast as the
    /// target answers, beyond any [limit](Self::limits) on the rate.
    pub fn allow_closed_loops(mut self) -> Self {
        self.config.allowed.closed_loops = true;
        self
    }

    /// Lets everybody who can reach the node use it, without a token. They can have load sent that
    /// takes a service down.
    pub fn danger_allow_unauthenticated(mut self) -> Self {
        self.config.is_open = true;
        self
    }

    /// What nodes have to agree on to carry a run together. If not set, it is the version of this
    /// crate and a digest of the program, so that all have to run the same. Set it where they cannot,
    /// as on machines with different processors.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.config.version = Some(version.into());
        self
    }

    /// Takes what the command line and the environment say; `--help` lists it. Wrong ones end the
    /// process with a message, as `--help` does. What they do not say stays as it is.
    ///
    /// # Panics
    /// If the file with the token cannot be read, with the reason.
    pub fn with_args(self) -> Self {
        match Arguments::parse().apply(self) {
            Ok(runtime) => runtime,
            Err(error) => panic!("{error}"),
        }
    }

    /// Starts the node on a thread of its own.
    ///
    /// # Errors
    /// What kept it from starting.
    pub async fn start(self) -> Result<RunningNode, RuntimeError> {
        RunningNode::start(self.config, false).await
    }

    /// Serves until SIGINT or SIGTERM, then stops runs in good order and leaves the cluster. Under
    /// any executor, tokio's included: the work is done by threads of the node.
    ///
    /// # Errors
    /// What kept the node from starting.
    pub async fn serve(self) -> Result<(), RuntimeError> {
        RunningNode::start(self.config, true).await?.ended().await
    }

    /// [`serve`](Self::serve), for programs that do nothing else: says on standard error where the
    /// node is.
    ///
    /// # Panics
    /// If the node could not start, with the reason.
    pub async fn run(self) {
        let scheme = if self.config.tls.is_some() { "https" } else { "http" };
        let result = async {
            let node = RunningNode::start(self.config, true).await?;
            eprintln!("balter-uring: this node is at {scheme}://{}", node.address());
            node.ended().await
        };
        if let Err(error) = result.await {
            panic!("{error}");
        }
    }
}
