//! A node at work, on a thread of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures_channel::oneshot;
use ring::digest::{SHA256, digest};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::membership::{Facts, Membership, MembershipConfig};
use super::node::Node;
use super::registry::Registry;
use super::runs::Runs;
use super::wire::PROTOCOL;
use super::worker::Workers;
use super::{RuntimeConfig, RuntimeError, api, server};
use crate::cores;
use crate::engine::clock::Clock;

/// A node that ends gives its runs so long to end.
const FAREWELL: Duration = Duration::from_secs(10);

/// A node that has started. It leaves the cluster when this is dropped.
#[derive(Debug)]
pub struct RunningNode {
    address: SocketAddr,
    leave: watch::Sender<bool>,
    ended: oneshot::Receiver<Result<(), RuntimeError>>,
}

impl RunningNode {
    pub(super) async fn start(
        config: RuntimeConfig,
        heeds_signals: bool,
    ) -> Result<Self, RuntimeError> {
        config.check()?;
        let (leave, leaving) = watch::channel(false);
        let (started, start) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let leaves = leave.clone();
        let work = move || {
            place();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => {
                    let node = live(config, leaves, leaving, started, heeds_signals);
                    let result = runtime.block_on(node);
                    // Look-ups of names and the like are not waited for.
                    runtime.shutdown_background();
                    let _ = end.send(result);
                }
                Err(error) => drop(started.send(Err(RuntimeError::Thread(error)))),
            }
        };
        thread::Builder::new()
            .name("balter-node".to_owned())
            .spawn(work)
            .map_err(RuntimeError::Thread)?;
        let address = start.await.unwrap_or(Err(RuntimeError::Lost))?;
        Ok(Self { address, leave, ended })
    }

    /// Where the node is reached.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Has its runs stopped in good order, tells the others, and ends it.
    ///
    /// # Errors
    /// What brought it down before.
    pub async fn stop(self) -> Result<(), RuntimeError> {
        self.leave.send_replace(true);
        self.ended().await
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// What brought it down.
    pub async fn ended(mut self) -> Result<(), RuntimeError> {
        (&mut self.ended).await.unwrap_or(Err(RuntimeError::Lost))
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        self.leave.send_replace(true);
    }
}

/// Keeps this thread off the cores that runs will take, where there is another.
fn place() {
    let allowed = cores::allowed();
    let taken = cores::choose(None, &allowed, &[]).unwrap_or_default();
    if let Some(&id) = allowed.iter().rfind(|core| !taken.contains(core)) {
        core_affinity::set_for_current(core_affinity::CoreId { id });
    }
    // Takes a moment, which nobody should have to wait for later.
    Clock::get();
}

/// The port for TCP, and gossip on the same number for UDP.
async fn open(
    config: &RuntimeConfig,
    facts: &Facts,
) -> Result<(TcpListener, Membership, SocketAddr), RuntimeError> {
    let mut tries = if config.port == 0 { 16 } else { 1 };
    loop {
        let address = SocketAddr::new(config.bind, config.port);
        let bound = async {
            let listener = TcpListener::bind(address).await?;
            let local = listener.local_addr()?;
            Ok((listener, local))
        };
        let (listener, local) =
            bound.await.map_err(|error| RuntimeError::Bind { address, error })?;
        let mut advertise = config.advertise.unwrap_or(local);
        if advertise.port() == 0 {
            advertise.set_port(local.port());
        }
        let membership = Membership::start(MembershipConfig {
            name: String::new(),
            listen: local,
            advertise,
            seeds: config.peers.clone(),
            cluster: "balter".to_owned(),
            token: config.token.as_ref().map(|token| token.as_str().to_owned()),
            facts: facts.clone(),
        })
        .await;
        tries -= 1;
        match membership {
            Ok(membership) => {
                let address = membership.address();
                return Ok((listener, membership, address));
            }
            // The number is free for TCP and taken for UDP.
            Err(_) if tries > 0 => {}
            Err(error) => return Err(RuntimeError::Membership(error.to_string())),
        }
    }
}

/// Of this crate, and what tells this program from others.
fn version() -> String {
    let digest = std::fs::read("/proc/self/exe").map(|program| digest(&SHA256, &program));
    let digest = digest.as_ref().map_or(&[][..], |digest| &digest.as_ref()[..6]);
    digest.iter().fold(concat!(env!("CARGO_PKG_VERSION"), "-").to_owned(), |version, byte| {
        format!("{version}{byte:02x}")
    })
}

async fn live(
    config: RuntimeConfig,
    leave: watch::Sender<bool>,
    mut leaving: watch::Receiver<bool>,
    started: oneshot::Sender<Result<SocketAddr, RuntimeError>>,
    heeds_signals: bool,
) -> Result<(), RuntimeError> {
    let registry = Registry;
    let version = config.version.clone().unwrap_or_else(version);
    let allowed = cores::allowed();
    let cores = cores::choose(None, &allowed, &[]).map_or(allowed.len(), |cores| cores.len());
    let facts = Facts {
        version: version.clone(),
        protocol: PROTOCOL,
        scenarios: registry.names(),
        cores: cores as u32,
    };
    let opened = async {
        let tls = config.tls.as_ref().map(|tls| tls.server()).transpose()?;
        Ok((open(&config, &facts).await?, tls))
    };
    let ((listener, membership, address), tls) = match opened.await {
        Ok(opened) => opened,
        Err(error) => {
            let _ = started.send(Err(error));
            return Ok(());
        }
    };
    let local = listener.local_addr().unwrap_or(address);
    let node = Node {
        name: address.to_string().into(),
        boot: super::coordinator::random(),
        version: version.into(),
        config: Arc::new(config),
        registry,
        runs: Runs::default(),
        workers: Workers::default(),
        peers: membership.peers(),
        leaving: leaving.clone(),
    };
    let guard = api::Guard::new(&node, local, address, membership.counters());
    let router = api::router(node.clone(), Arc::new(guard));
    // The port is served until all runs have had their end: nodes and clients still ask.
    let (close, closing) = watch::channel(false);
    let served = tokio::spawn(server::serve(listener, tls, router, closing));
    tracing::info!(%address, "the node is up");
    let _ = started.send(Ok(address));

    if heeds_signals {
        tokio::spawn(heed(leave));
    }
    let _ = leaving.wait_for(|&leaving| leaving).await;
    node.workers.leave();
    let until = Instant::now() + FAREWELL;
    while (node.workers.under_way() > 0 || node.runs.led_under_way() > 0) && Instant::now() < until
    {
        sleep(Duration::from_millis(20)).await;
    }
    membership.leave().await;
    close.send_replace(true);
    let _ = served.await;
    Ok(())
}

/// Ends the node on SIGINT or SIGTERM; a second one ends the process.
async fn heed(leave: watch::Sender<bool>) {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        tracing::warn!("signals cannot be heard: the node will not leave in good order");
        return;
    };
    for is_second in [false, true] {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if is_second {
            std::process::exit(130);
        }
        leave.send_replace(true);
    }
}
