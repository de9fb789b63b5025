//! Which nodes there are: gossip over UDP, authenticated with the cluster's token.
//!
//! ```text
//! seeds (resolved again and again) ──► gossip to whom is not heard yet
//!                                        │
//! peers ◄── view ◄── chitchat ◄──────────┴── transport ◄── frame (tag, clock, replay) ◄── UDP
//! ```
//!
//! chitchat carries each node's facts to all others and tells who is heard. Messages that do not
//! carry the cluster's tag never reach it.
//!
//! # How soon a death is noticed
//!
//! chitchat takes a node for dead when it was silent for [`PHI`] times the mean of the last
//! [`SAMPLES`] intervals between its heartbeats, with five of [`PRIOR`] added. Heartbeats are passed
//! on, so the mean is below [`INTERVAL`] and the lower the fewer nodes there are; the prior keeps the
//! limit from following it all the way down. Three looks in a row have to find the node silent
//! besides. Measured on loopback, with all nodes in one process: 2.6 s with 3 nodes, 2.8 s with 10,
//! 3.5 s with 40. On machines so busy that heartbeats come twice a second the limit becomes 5 s.
//!
//! # How many nodes
//!
//! Some 1000: each names all it knows in one datagram, with 43 bytes beside each name. From some 20
//! nodes on that is more than an Ethernet frame, and the network has to let fragments through.

mod address;
mod facts;
mod frame;
mod keys;
mod replay;
mod seeds;
#[cfg(test)]
mod tests;
mod transport;
mod view;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chitchat::{ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, spawn_chitchat};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};

pub(crate) use facts::{Facts, FactsError};
pub(crate) use seeds::SeedError;
pub(crate) use transport::GossipCounters;

use super::peers::{Peer, PeerState};
use keys::Key;
use seeds::Seed;
use transport::Wire;
use view::View;

/// Between two rounds of gossip, and two looks at what came of them.
const INTERVAL: Duration = Duration::from_millis(200);
const PHI: f64 = 10.0;
const SAMPLES: usize = 15;
const PRIOR: Duration = Duration::from_millis(500);
/// A longer silence is no sample: the node was gone, not slow.
const LONGEST_SAMPLE: Duration = Duration::from_secs(5);
/// A node that is gone is shown for so long, and gossiped with now and then, in case that the
/// network was cut and not the node dead.
const FORGET_AFTER: Duration = Duration::from_secs(300);
/// How often a node that goes says so, so that a lost datagram does not make it look dead.
const FAREWELLS: u32 = 3;
/// Greetings without an answer after which a line of the log says what to look at: some 10 s.
const UNANSWERED: u32 = 20;
/// Seeds that a message is sent to in one round.
const MAX_GREETED: usize = 256;

/// What a node has to be told to find the others.
#[derive(Clone, Debug)]
pub(crate) struct MembershipConfig {
    /// The node's name, its own in the cluster; its address if empty.
    pub(crate) name: String,
    /// UDP. Port 0 is any that is free.
    pub(crate) listen: SocketAddr,
    /// Where the others reach it, over UDP and TCP. An unspecified address is found out, and port 0
    /// is that of `listen`.
    pub(crate) advertise: SocketAddr,
    /// Nodes to ask first, one is enough: `host`, `host:port` or an address. All addresses of a
    /// name are asked.
    pub(crate) seeds: Vec<String>,
    /// Nodes of another cluster are not heard, even if they have the same token.
    pub(crate) cluster: String,
    /// What the nodes of the cluster share. `None` authenticates nothing.
    pub(crate) token: Option<String>,
    pub(crate) facts: Facts,
}

/// Why a node could not join.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum MembershipError {
    #[error(transparent)]
    Facts(#[from] FactsError),
    #[error("the seed `{seed}` is not of the form host, host:port or an address: {error}")]
    Seed { seed: String, error: SeedError },
    #[error("the token is empty: give all nodes the same random one, or none")]
    EmptyToken,
    #[error("UDP {address} cannot be listened on: {error}; give this node another port or address")]
    Bind { address: SocketAddr, error: io::Error },
    #[error(
        "the node listens on all addresses ({listen}), and none was found that the others could \
         reach it at: say which address to advertise"
    )]
    NoAddress { listen: SocketAddr },
    #[error("{address} cannot be advertised from a node that listens on {listen}: {why}")]
    Advertise { address: SocketAddr, listen: SocketAddr, why: &'static str },
    #[error("the system gives no random numbers")]
    Random,
    #[error("gossip could not be started: {0}")]
    Start(String),
}

/// This node's part in the cluster. Without [`leave`](Self::leave) the others take it for dead when
/// it is dropped.
pub(crate) struct Membership {
    address: SocketAddr,
    peers: watch::Receiver<Arc<Vec<Peer>>>,
    counters: Arc<GossipCounters>,
    leave: Option<oneshot::Sender<()>>,
    driver: Option<JoinHandle<()>>,
}

impl Membership {
    /// Joins. That no seed answers, or none has an address yet, is no error: they are asked until
    /// one does. Has to be called within a tokio runtime with I/O and time.
    pub(crate) async fn start(mut config: MembershipConfig) -> Result<Self, MembershipError> {
        facts::check_name("the name of the cluster", &config.cluster)?;
        config.facts.sort();
        let keys = config.facts.to_keys()?;
        let seeds = parse(&config.seeds)?;
        if config.token.as_deref() == Some("") {
            return Err(MembershipError::EmptyToken);
        }
        let key = Key::new(config.token.as_deref(), &config.cluster);
        let mut boot = [0; 8];
        SystemRandom::new().fill(&mut boot).map_err(|_| MembershipError::Random)?;
        let counters = Arc::new(GossipCounters::default());
        let bound = Wire::bind(config.listen, key, u64::from_ne_bytes(boot), Arc::clone(&counters));
        let bind = |error| MembershipError::Bind { address: config.listen, error };
        let wire = bound.await.map_err(bind)?;
        let listen = wire.local_addr().map_err(bind)?;
        let address = advertised(config.advertise, listen, &seeds).await?;
        if config.name.is_empty() {
            config.name = address.to_string();
        }
        facts::check_name("the name of the node", &config.name)?;

        let (addresses, found) = mpsc::channel(1);
        let (alone, is_alone) = watch::channel(true);
        let mut driver = Driver {
            wire,
            name: config.name.clone(),
            cluster: config.cluster,
            listen,
            address,
            keys,
            view: View::new(config.name, address, config.facts),
            peers: watch::Sender::new(Arc::default()),
            alone,
            found,
            seeds: Vec::new(),
            unanswered: 0,
        };
        let chitchat = driver.spawn().await?;
        driver.look(&chitchat).await;
        tokio::spawn(seeds::watch_names(seeds, is_alone, addresses));
        let peers = driver.peers.subscribe();
        let (leave, leaving) = oneshot::channel();
        let driver = tokio::spawn(driver.run(chitchat, leaving));
        let (leave, driver) = (Some(leave), Some(driver));
        Ok(Self { address, peers, counters, leave, driver })
    }

    /// The nodes that this one knows of, itself included, in the order of their names; anew
    /// whenever something has changed.
    pub(crate) fn peers(&self) -> watch::Receiver<Arc<Vec<Peer>>> {
        self.peers.clone()
    }

    /// Where the others reach this node.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What was refused.
    pub(crate) fn counters(&self) -> Arc<GossipCounters> {
        Arc::clone(&self.counters)
    }

    /// Tells the others that this node goes, and ends. They see it as left at once instead of dead
    /// some seconds later.
    pub(crate) async fn leave(mut self) {
        if let Some(leave) = self.leave.take() {
            let _ = leave.send(());
        }
        if let Some(driver) = &mut self.driver {
            let _ = driver.await;
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.abort();
        }
    }
}

fn parse(seeds: &[String]) -> Result<Vec<Seed>, MembershipError> {
    let parse = |seed: &String| {
        seed.parse().map_err(|error| MembershipError::Seed { seed: seed.clone(), error })
    };
    seeds.iter().map(parse).collect()
}

/// The address to tell the others.
async fn advertised(
    advertise: SocketAddr,
    listen: SocketAddr,
    seeds: &[Seed],
) -> Result<SocketAddr, MembershipError> {
    let mut address = advertise;
    if address.port() == 0 {
        address.set_port(listen.port());
    }
    if address.ip().is_unspecified() {
        address.set_ip(listen.ip());
    }
    if address.ip().is_unspecified() {
        let known = seeds::all_addresses(seeds).await;
        let found = address::find(listen.ip(), &known);
        address.set_ip(found.ok_or(MembershipError::NoAddress { listen })?);
    }
    let refused = |why| Err(MembershipError::Advertise { address, listen, why });
    if address.ip().is_multicast() {
        return refused("no node has a multicast address for itself");
    }
    if address.is_ipv6() && listen.is_ipv4() {
        return refused("it does not listen on IPv6; listen on [::] for both");
    }
    Ok(address)
}

/// What goes on behind a [`Membership`].
struct Driver {
    wire: Wire,
    name: String,
    cluster: String,
    listen: SocketAddr,
    address: SocketAddr,
    keys: Vec<(String, String)>,
    view: View,
    peers: watch::Sender<Arc<Vec<Peer>>>,
    alone: watch::Sender<bool>,
    found: mpsc::Receiver<Vec<SocketAddr>>,
    /// Addresses behind the seeds, when they were looked up last.
    seeds: Vec<SocketAddr>,
    /// Greetings in a row after which this node was alone.
    unanswered: u32,
}

impl Driver {
    /// A start of this node, which the others tell from earlier ones by its time.
    async fn spawn(&self) -> Result<ChitchatHandle, MembershipError> {
        let config = ChitchatConfig {
            chitchat_id: ChitchatId::new(&*self.name, transport::now_ms(), self.address),
            cluster_id: self.cluster.clone(),
            gossip_interval: INTERVAL,
            listen_addr: self.listen,
            // Seeds are looked after here: chitchat asks for their addresses once a minute.
            seed_nodes: Vec::new(),
            failure_detector_config: FailureDetectorConfig {
                phi_threshold: PHI,
                sampling_window_size: SAMPLES,
                max_interval: LONGEST_SAMPLE,
                initial_interval: PRIOR,
                dead_node_grace_period: FORGET_AFTER,
            },
            marked_for_deletion_grace_period: FORGET_AFTER,
            catchup_callback: None,
            extra_liveness_predicate: None,
        };
        let started = spawn_chitchat(config, self.keys.clone(), &self.wire).await;
        started.map_err(|error| MembershipError::Start(error.to_string()))
    }

    async fn run(mut self, mut chitchat: ChitchatHandle, mut leaving: oneshot::Receiver<()>) {
        let mut looks = interval(INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut greetings = interval(5 * INTERVAL);
        greetings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ended = Box::pin(chitchat.termination_watcher());
        loop {
            tokio::select! {
                asked = &mut leaving => {
                    // Without a word: the membership was dropped, and this task is about to be.
                    if asked.is_ok() {
                        self.say_farewell(&chitchat).await;
                        let _ = chitchat.shutdown().await;
                    }
                    return;
                }
                _ = looks.tick() => self.look(&chitchat).await,
                _ = greetings.tick() => self.greet(&chitchat),
                Some(seeds) = self.found.recv() => {
                    self.seeds = seeds;
                    self.greet(&chitchat);
                }
                end = &mut ended => {
                    // It ends by a panic alone, as the socket gives it no errors.
                    tracing::error!(?end, "gossip has ended by a fault of its own and is started anew");
                    sleep(INTERVAL).await;
                    match self.spawn().await {
                        Ok(anew) => chitchat = anew,
                        Err(error) => tracing::error!(%error, "gossip does not start"),
                    }
                    ended = Box::pin(chitchat.termination_watcher());
                }
            }
        }
    }

    /// Shows the nodes as they stand.
    async fn look(&mut self, chitchat: &ChitchatHandle) {
        let chitchat = chitchat.chitchat();
        let Some(peers) = self.view.look(&*chitchat.lock().await) else { return };
        let alone = !peers.iter().any(|peer| !peer.is_self && heard(peer));
        self.alone.send_if_modified(|was| std::mem::replace(was, alone) != alone);
        self.peers.send_if_modified(|shown| {
            if **shown == peers {
                return false;
            }
            tell(shown, &peers);
            *shown = Arc::new(peers);
            true
        });
    }

    /// Gossips with the seeds that are not heard, so that the parts of a cluster that do not know
    /// of each other find together.
    fn greet(&mut self, chitchat: &ChitchatHandle) {
        let peers = Arc::clone(&self.peers.borrow());
        let known = |seed: &&SocketAddr| {
            peers.iter().any(|peer| peer.address == **seed && (peer.is_self || heard(peer)))
        };
        let mut greeted = 0;
        for seed in self.seeds.iter().filter(|seed| !known(seed)).take(MAX_GREETED) {
            // Fails if it has ended, which is seen to.
            let _ = chitchat.gossip(*seed);
            greeted += 1;
        }
        self.unanswered = if *self.alone.borrow() { self.unanswered.saturating_add(1) } else { 0 };
        if self.unanswered == UNANSWERED && greeted > 0 {
            tracing::warn!(
                seeds = greeted,
                "no seed answers yet: if they run, see that they have the same token and cluster \
                 name, and that UDP gets through to their port and back"
            );
        }
    }

    async fn say_farewell(&self, chitchat: &ChitchatHandle) {
        chitchat.with_chitchat(|chitchat| chitchat.self_node_state().set(facts::LEFT, "1")).await;
        let peers = Arc::clone(&self.peers.borrow());
        for _ in 0..FAREWELLS {
            for peer in peers.iter().filter(|peer| !peer.is_self && heard(peer)) {
                let _ = chitchat.gossip(peer.address);
            }
            // Their answers say what they do not know yet, and are answered with it.
            sleep(INTERVAL).await;
        }
    }
}

fn heard(peer: &Peer) -> bool {
    matches!(peer.state, PeerState::Alive | PeerState::Refused)
}

/// Leaves a line in the log for each node of which something has changed.
fn tell(before: &[Peer], after: &[Peer]) {
    for peer in after.iter().filter(|peer| !peer.is_self) {
        let same = |of: &&Peer| (&of.name, of.address) == (&peer.name, peer.address);
        let was = before.iter().find(same).map(|peer| peer.state);
        if was == Some(peer.state) {
            continue;
        }
        let Peer { name, address, state, .. } = peer;
        match &peer.reason {
            None => tracing::info!(name, %address, ?state, "a node of the cluster"),
            Some(reason) => {
                tracing::warn!(name, %address, ?state, "a node of the cluster: {reason}");
            }
        }
    }
}
