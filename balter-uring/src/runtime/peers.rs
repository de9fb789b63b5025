//! The nodes of the cluster, as this one sees them.

use std::net::SocketAddr;

use serde::Serialize;

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Where its API and its workers are reached.
    pub address: SocketAddr,
    /// What nodes have to agree on to carry a run together.
    pub version: String,
    /// Of the messages between nodes.
    pub protocol: u32,
    /// Names of its scenarios.
    pub scenarios: Vec<String>,
    /// Cores that it can use.
    pub cores: u32,
    /// How it is.
    pub state: PeerState,
    /// Why it is refused.
    pub reason: Option<String>,
    /// It is this node.
    pub is_self: bool,
}

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// It is heard of.
    Alive,
    /// It is not.
    Dead,
    /// It said that it leaves.
    Left,
    /// It is alive and cannot take part in runs; the reason says why not.
    Refused,
}
