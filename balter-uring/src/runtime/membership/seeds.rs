//! Where a node asks for its cluster first.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::runtime::DEFAULT_PORT;

/// A name that hangs in the resolver keeps the others waiting for so long at most.
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks at the names, while no other node is known: it is not there yet, or its name
/// is not.
const ALONE: Duration = Duration::from_secs(1);
/// Between two looks otherwise: another part of the cluster may have formed behind the same name.
const TOGETHER: Duration = Duration::from_secs(10);

/// `host`, `host:port`, or an address with or without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seed {
    host: String,
    port: u16,
}

/// What is wrong with a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SeedError {
    #[error("it names no host")]
    NoHost,
    #[error("its port is no number from 1 to 65535")]
    Port,
    #[error("it has spaces or a scheme")]
    Characters,
}

impl std::str::FromStr for Seed {
    type Err = SeedError;

    fn from_str(seed: &str) -> Result<Self, SeedError> {
        let literal =
            seed.strip_prefix('[').and_then(|seed| seed.strip_suffix(']')).unwrap_or(seed);
        let (host, port) = if let Ok(address) = seed.parse::<SocketAddr>() {
            (address.ip().to_string(), address.port())
        } else if let Ok(address) = literal.parse::<IpAddr>() {
            (address.to_string(), DEFAULT_PORT)
        } else if let Some((host, port)) = seed.rsplit_once(':') {
            (host.to_owned(), port.parse().map_err(|_| SeedError::Port)?)
        } else {
            (seed.to_owned(), DEFAULT_PORT)
        };
        if host.is_empty() {
            return Err(SeedError::NoHost);
        }
        if port == 0 {
            return Err(SeedError::Port);
        }
        let foreign = |of: char| of.is_whitespace() || of.is_control() || of == '/';
        if host.contains(foreign) {
            return Err(SeedError::Characters);
        }
        Ok(Self { host, port })
    }
}

impl Seed {
    /// All addresses behind the name; none if there is none, now.
    async fn addresses(self) -> Vec<SocketAddr> {
        // Threads of its own, so that a resolver that hangs does not keep the process from ending.
        let resolved = crate::net::resolve(&self.host, self.port);
        match tokio::time::timeout(RESOLVE_WITHIN, resolved).await {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(error)) => {
                tracing::debug!(host = self.host, %error, "a seed has no address yet");
                Vec::new()
            }
            Err(_) => {
                tracing::debug!(host = self.host, "the resolver does not answer");
                Vec::new()
            }
        }
    }
}

/// All addresses behind all seeds, each once. A name that is slow to look up keeps no other waiting.
pub(super) async fn all_addresses(seeds: &[Seed]) -> Vec<SocketAddr> {
    let looking_up: JoinSet<_> = seeds.iter().cloned().map(Seed::addresses).collect();
    let mut addresses = looking_up.join_all().await.concat();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// Looks names up again and again, until nobody takes the addresses any more. chitchat does so too,
/// but once a minute: too seldom for nodes that start together and find each other by one name.
pub(super) async fn watch_names(
    seeds: Vec<Seed>,
    mut alone: watch::Receiver<bool>,
    found: mpsc::Sender<Vec<SocketAddr>>,
) {
    if seeds.is_empty() {
        return;
    }
    loop {
        if found.send(all_addresses(&seeds).await).await.is_err() {
            return;
        }
        let pause = if *alone.borrow_and_update() { ALONE } else { TOGETHER };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = alone.changed() => if changed.is_err() { return },
            () = found.closed() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_names_or_addresses() {
        for (seed, host, port) in [
            ("node", "node", 7621),
            ("node.balter.svc:80", "node.balter.svc", 80),
            ("10.0.0.1", "10.0.0.1", 7621),
            ("10.0.0.1:1", "10.0.0.1", 1),
            ("::1", "::1", 7621),
            ("[::1]", "::1", 7621),
            ("[::1]:65535", "::1", 65535),
        ] {
            assert_eq!(seed.parse(), Ok(Seed { host: host.to_owned(), port }), "{seed}");
        }
    }

    #[test]
    fn other_seeds_are_errors() {
        for (seed, error) in [
            ("", SeedError::NoHost),
            (":1", SeedError::NoHost),
            ("node:", SeedError::Port),
            ("node:0", SeedError::Port),
            ("10.0.0.1:0", SeedError::Port),
            ("node:65536", SeedError::Port),
            ("http://node:1", SeedError::Characters),
            ("a node", SeedError::Characters),
        ] {
            assert_eq!(seed.parse::<Seed>(), Err(error), "{seed}");
        }
    }

    #[tokio::test]
    async fn a_name_gives_all_its_addresses() {
        let seeds = ["no.such.invalid", "localhost:7", "127.0.0.1:7"];
        let seeds = seeds.map(|seed| seed.parse().expect("a seed"));
        let addresses = all_addresses(&seeds).await;
        assert!(!addresses.is_empty());
        assert!(addresses.iter().all(|address| address.ip().is_loopback() && address.port() == 7));
        assert_eq!(all_addresses(&seeds[..1]).await, []);
    }
}
