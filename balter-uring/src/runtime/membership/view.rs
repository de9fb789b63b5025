//! What chitchat knows of nodes, as peers.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use chitchat::{Chitchat, ChitchatId, NodeState};

use super::facts::{Facts, FactsError, LEFT, MAX_NAME, check_name};
use crate::runtime::peers::{Peer, PeerState};

/// Looks in a row at which a node is not heard before it is taken for dead. A node that was itself
/// kept from running for a while may find all others silent at its next look; it has heard them
/// again before it has looked so often.
const SILENT_LOOKS: u32 = 3;

/// Looks after which a node that is heard should have told its facts: 10 s.
const FACTLESS_LOOKS: u32 = 50;

/// This node, and what it remembers of the others between two looks.
pub(super) struct View {
    name: String,
    address: SocketAddr,
    facts: Facts,
    known: HashMap<ChitchatId, Known>,
    looked: bool,
}

#[derive(Default)]
struct Known {
    /// Of chitchat's state when the facts were read.
    version: u64,
    facts: Option<Result<Facts, FactsError>>,
    left: bool,
    /// It was heard by this node, not only told of by others.
    heard: bool,
    /// Looks in a row at which it was not heard.
    silent: u32,
    /// Looks at which it was heard.
    looks: u32,
}

impl View {
    pub(super) fn new(name: String, address: SocketAddr, facts: Facts) -> Self {
        Self { name, address, facts, known: HashMap::new(), looked: false }
    }

    /// All nodes of the cluster in the order of their names, if anything has changed since the last
    /// look.
    pub(super) fn look(&mut self, chitchat: &Chitchat) -> Option<Vec<Peer>> {
        let own = chitchat.self_chitchat_id();
        let states = chitchat.node_states();
        let live: HashSet<_> = chitchat.live_nodes().collect();
        let before = self.known.len();
        self.known.retain(|id, _| states.contains_key(id));
        let mut changed = self.known.len() != before || !self.looked;
        self.looked = true;
        for (id, state) in states.iter().filter(|(id, _)| *id != own) {
            let known = self.known.entry(id.clone()).or_default();
            let before = known.decides();
            known.read(state);
            known.hear(live.contains(id));
            changed |= known.decides() != before;
        }
        changed.then(|| self.peers())
    }

    fn peers(&self) -> Vec<Peer> {
        let mut nodes: Vec<_> =
            self.known.iter().filter_map(|(id, known)| Some((id, self.peer(id, known)?))).collect();
        // Of one name, those that are heard first, and of these the one that has started last.
        nodes.sort_by(|(one_id, one), (two_id, two)| {
            let heard = |peer: &Peer| matches!(peer.state, PeerState::Alive | PeerState::Refused);
            (&one.name, heard(two), two_id.generation_id)
                .cmp(&(&two.name, heard(one), one_id.generation_id))
                .then_with(|| one.address.cmp(&two.address))
        });
        let mut peers: Vec<Peer> = Vec::with_capacity(nodes.len() + 1);
        for (_, mut peer) in nodes {
            let namesake = peers.last().filter(|last| last.name == peer.name);
            if let Some(newer) = namesake {
                // An earlier start of the same node, which is over or about to be found out.
                if peer.address == newer.address || peer.state != PeerState::Alive {
                    continue;
                }
                refuse(
                    &mut peer,
                    format!(
                        "the node at {} has the same name and has started later: give each node a \
                         name of its own",
                        newer.address
                    ),
                );
            }
            peers.push(peer);
        }
        let at = peers.partition_point(|peer| peer.name < self.name);
        peers.insert(at, self.own());
        peers
    }

    fn own(&self) -> Peer {
        let facts = self.facts.clone();
        Peer {
            name: self.name.clone(),
            address: self.address,
            version: facts.version,
            protocol: facts.protocol,
            scenarios: facts.scenarios,
            cores: facts.cores,
            state: PeerState::Alive,
            reason: None,
            is_self: true,
        }
    }

    /// `None` for a node that nothing is known of yet, and for one that was gone before this node
    /// came.
    fn peer(&self, id: &ChitchatId, known: &Known) -> Option<Peer> {
        if !known.heard {
            return None;
        }
        let facts = known.facts.as_ref();
        if facts.is_none() && known.looks < FACTLESS_LOOKS {
            return None;
        }
        let readable = facts.and_then(|facts| facts.as_ref().ok()).cloned().unwrap_or_default();
        let mut peer = Peer {
            name: match check_name("the name of a node", &id.node_id) {
                Ok(()) => id.node_id.to_string(),
                Err(_) => id.node_id.chars().flat_map(char::escape_debug).take(MAX_NAME).collect(),
            },
            address: id.gossip_advertise_addr,
            version: readable.version,
            protocol: readable.protocol,
            scenarios: readable.scenarios,
            cores: readable.cores,
            state: PeerState::Alive,
            reason: None,
            is_self: false,
        };
        if known.left {
            peer.state = PeerState::Left;
        } else if known.silent >= SILENT_LOOKS {
            peer.state = PeerState::Dead;
            peer.reason = Some(
                "nothing is heard of it any more: it has ended, or its UDP port cannot be reached"
                    .to_owned(),
            );
        } else if let Some(reason) = self.refusal(id, facts) {
            refuse(&mut peer, reason);
        }
        // An earlier start of this node, of which the others still tell.
        let earlier = *id.node_id == *self.name
            && (peer.address == self.address || peer.state != PeerState::Refused);
        (!earlier).then_some(peer)
    }

    /// Why it cannot take part in runs of this node.
    fn refusal(
        &self,
        id: &ChitchatId,
        facts: Option<&Result<Facts, FactsError>>,
    ) -> Option<String> {
        let facts = match facts {
            Some(Ok(facts)) => facts,
            Some(Err(error)) => return Some(format!("what it tells of itself: {error}")),
            None => {
                return Some(
                    "it tells nothing of itself: run the same version on all nodes".into(),
                );
            }
        };
        if let Err(error) = check_name("the name of a node", &id.node_id) {
            return Some(error.to_string());
        }
        if *id.node_id == *self.name {
            return Some(format!(
                "it has the name of this node, {}: give each node a name of its own",
                self.name
            ));
        }
        let address = id.gossip_advertise_addr;
        if address.ip().is_unspecified() || address.port() == 0 {
            return Some(format!(
                "it cannot be reached at {address}: set the address it advertises"
            ));
        }
        let ours = &self.facts;
        if (&facts.version, facts.protocol) != (&ours.version, ours.protocol) {
            return Some(format!(
                "it is version {} (protocol {}), and this node is version {} (protocol {}): run the \
                 same version on all nodes",
                facts.version, facts.protocol, ours.version, ours.protocol
            ));
        }
        None
    }
}

impl Known {
    /// All that a peer is made of.
    fn decides(&self) -> (u64, bool, bool, bool) {
        let (silent, looks) = (self.silent >= SILENT_LOOKS, self.looks >= FACTLESS_LOOKS);
        (self.version, self.heard, silent, looks)
    }

    fn read(&mut self, state: &NodeState) {
        // Reading is done again only when something was told.
        if self.version == state.max_version() {
            return;
        }
        self.version = state.max_version();
        self.left = state.get(LEFT).is_some();
        // Facts are set once; a state that is being sent anew may lack them for a moment.
        if let Some(facts) = Facts::from_keys(state.key_values()) {
            self.facts = Some(facts);
        }
    }

    fn hear(&mut self, live: bool) {
        if live {
            self.heard = true;
            self.silent = 0;
            self.looks = self.looks.saturating_add(1);
        } else {
            self.silent = self.silent.saturating_add(1);
        }
    }
}

fn refuse(peer: &mut Peer, reason: String) {
    peer.state = PeerState::Refused;
    peer.reason = Some(reason);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SELF: &str = "a";

    fn facts(version: &str, protocol: u32) -> Facts {
        Facts { version: version.to_owned(), protocol, scenarios: vec!["visitor".into()], cores: 2 }
    }

    fn view(nodes: &[(&str, u64, u16, Known)]) -> Vec<Peer> {
        let mut view = View::new(SELF.into(), ([127, 0, 0, 1], 1).into(), facts("0.1.0", 1));
        for (name, generation, port, known) in nodes {
            let id = ChitchatId::new(*name, *generation, ([127, 0, 0, 1], *port).into());
            let Known { facts, left, silent, heard, looks, .. } = known;
            let (facts, left, heard) = (facts.clone(), *left, *heard);
            let known = Known { version: 1, facts, left, heard, silent: *silent, looks: *looks };
            view.known.insert(id, known);
        }
        view.peers()
    }

    fn heard() -> Known {
        Known { facts: Some(Ok(facts("0.1.0", 1))), heard: true, looks: 1, ..Known::default() }
    }

    fn shown(peers: &[Peer]) -> Vec<(&str, u16, PeerState)> {
        peers.iter().map(|peer| (&*peer.name, peer.address.port(), peer.state)).collect()
    }

    fn reason(peers: &[Peer], port: u16) -> &str {
        let peer = peers.iter().find(|peer| peer.address.port() == port).expect("it is shown");
        peer.reason.as_deref().expect("it has a reason")
    }

    #[test]
    fn states() {
        let peers = view(&[
            ("c", 1, 3, Known { silent: SILENT_LOOKS - 1, ..heard() }),
            ("b", 1, 2, Known { silent: SILENT_LOOKS, ..heard() }),
            ("d", 1, 4, Known { left: true, silent: SILENT_LOOKS, ..heard() }),
            ("never heard", 1, 5, Known { heard: false, silent: 99, ..heard() }),
            ("new", 1, 6, Known { facts: None, ..heard() }),
        ]);
        let expected = [
            ("a", 1, PeerState::Alive),
            ("b", 2, PeerState::Dead),
            ("c", 3, PeerState::Alive),
            ("d", 4, PeerState::Left),
        ];
        assert_eq!(shown(&peers), expected);
        assert!(peers[0].is_self && !peers[1].is_self);
        assert_eq!(peers[1].scenarios, ["visitor"], "what a dead node had is still shown");
    }

    #[test]
    fn refusals_name_their_remedy() {
        let other =
            |version, protocol| Known { facts: Some(Ok(facts(version, protocol))), ..heard() };
        let error = FactsError::Unreadable("nonsense".to_owned());
        let peers = view(&[
            ("b", 1, 2, other("0.2.0", 1)),
            ("c", 1, 3, other("0.1.0", 2)),
            ("d", 1, 4, Known { facts: Some(Err(error)), ..heard() }),
            ("e", 1, 5, Known { facts: None, looks: FACTLESS_LOOKS, ..heard() }),
            (SELF, 1, 6, heard()),
            ("line\nbreak", 1, 7, heard()),
            ("z", 1, 0, heard()),
        ]);
        let refused = peers.iter().filter(|peer| peer.state == PeerState::Refused).count();
        assert_eq!(refused, peers.len() - 1, "{peers:?}");
        for (port, part) in [
            (2, "version 0.2.0 (protocol 1), and this node is version 0.1.0 (protocol 1)"),
            (3, "version 0.1.0 (protocol 2), and this node is version 0.1.0 (protocol 1)"),
            (4, "nonsense"),
            (5, "tells nothing of itself"),
            (6, "has the name of this node"),
            (7, "control characters"),
            (0, "cannot be reached at 127.0.0.1:0"),
        ] {
            assert!(reason(&peers, port).contains(part), "{}", reason(&peers, port));
        }
        let name = peers.iter().find(|peer| peer.address.port() == 7).map(|peer| &*peer.name);
        assert_eq!(name, Some("line\\nbreak"));
    }

    #[test]
    fn a_restarted_node_is_shown_once() {
        let silent = || Known { silent: SILENT_LOOKS, ..heard() };
        let gone = || Known { left: true, ..silent() };
        // At the same address at once, at another one when the earlier start is found dead.
        assert_eq!(shown(&view(&[("b", 1, 2, heard()), ("b", 2, 2, heard())]))[1..].len(), 1);
        assert_eq!(
            shown(&view(&[("b", 1, 2, gone()), ("b", 2, 2, heard())]))[1].2,
            PeerState::Alive
        );
        let moved = view(&[("b", 1, 2, silent()), ("b", 2, 3, heard())]);
        assert_eq!(shown(&moved)[1..], [("b", 3, PeerState::Alive)]);
        // A clock that went back makes the later start look like the earlier one.
        let back = view(&[("b", 2, 2, silent()), ("b", 1, 3, heard())]);
        assert_eq!(shown(&back)[1..], [("b", 3, PeerState::Alive)]);
    }

    #[test]
    fn earlier_starts_of_this_node_are_not_shown() {
        let silent = || Known { silent: SILENT_LOOKS, ..heard() };
        assert_eq!(view(&[(SELF, 1, 1, heard()), (SELF, 2, 2, silent())]).len(), 1);
    }

    #[test]
    fn two_nodes_of_one_name_are_not_taken_for_one() {
        let peers = view(&[("b", 1, 2, heard()), ("b", 2, 3, heard())]);
        let expected = [("b", 3, PeerState::Alive), ("b", 2, PeerState::Refused)];
        assert_eq!(shown(&peers)[1..], expected);
        assert!(reason(&peers, 2).contains("127.0.0.1:3 has the same name"));
    }
}
