//! The nodes of the cluster, as one of them sees it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Where it listens: its API and what the nodes ask of each other.
    pub address: SocketAddr,
    /// Its version of this crate.
    pub version: String,
    /// Its version of what the nodes say to each other.
    pub protocol: u32,
    /// The scenarios that it has.
    pub scenarios: Vec<String>,
    /// Cores that it loads with.
    pub cores: u32,
    /// What this node makes of it.
    pub state: PeerState,
    /// Why it is not alive, and what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The node that was asked.
    pub is_self: bool,
}

/// What a node makes of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// It can take part in runs.
    Alive,
    /// It is not heard any more.
    Dead,
    /// It has said that it goes.
    Left,
    /// It is heard, and cannot take part in runs of this node.
    Refused,
}
