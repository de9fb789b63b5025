//! Nodes of one process, over real sockets. Bounds are wide: they are there to end a test that
//! fails.

use std::net::{Ipv6Addr, UdpSocket};
use std::time::Instant;

use super::frame::{MAX_SKEW_MS, Sealer};
use super::transport::now_ms;
use super::*;

const WITHIN: Duration = Duration::from_secs(30);
const TOKEN: &str = "a token of the tests";

fn facts() -> Facts {
    Facts {
        version: "0.1.0".to_owned(),
        protocol: 1,
        scenarios: ["buy", "browse", "buy"].map(str::to_owned).into(),
        cores: 2,
    }
}

fn config(name: &str, seeds: &[&Membership]) -> MembershipConfig {
    MembershipConfig {
        name: name.to_owned(),
        listen: ([127, 0, 0, 1], 0).into(),
        advertise: ([0, 0, 0, 0], 0).into(),
        seeds: seeds.iter().map(|seed| seed.address().to_string()).collect(),
        cluster: "tests".to_owned(),
        token: Some(TOKEN.to_owned()),
        facts: facts(),
    }
}

async fn start(config: MembershipConfig) -> Membership {
    Membership::start(config).await.expect("it starts")
}

/// Waits until the nodes that `of` sees are as asked for.
async fn until(
    of: &Membership,
    what: &str,
    mut asked: impl FnMut(&[Peer]) -> bool,
) -> Arc<Vec<Peer>> {
    let mut peers = of.peers();
    let found = tokio::time::timeout(WITHIN, peers.wait_for(|peers| asked(peers))).await;
    let found = found.map(|found| Arc::clone(&found.expect("it goes on")));
    found.unwrap_or_else(|_| panic!("{what}: {:#?}", of.peers().borrow()))
}

fn state_of(peers: &[Peer], name: &str) -> Option<PeerState> {
    peers.iter().find(|peer| peer.name == name).map(|peer| peer.state)
}

fn are_alive(peers: &[Peer], names: &[&str]) -> bool {
    peers.len() == names.len()
        && names.iter().all(|name| state_of(peers, name) == Some(PeerState::Alive))
}

fn count(of: &Membership, reason: &str) -> u64 {
    let counts = of.counters().by_reason();
    counts.iter().find(|(name, _)| *name == reason).expect("a reason").1
}

/// Waits until so many were refused for this reason.
async fn refused(of: &Membership, reason: &str, times: u64) {
    let begun = Instant::now();
    while count(of, reason) < times {
        assert!(begun.elapsed() < WITHIN, "{reason}: {:?}", of.counters());
        sleep(Duration::from_millis(10)).await;
    }
}

/// A socket that is no node.
fn stranger() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").expect("a port is free")
}

fn sealer(boot: u64) -> Sealer {
    Sealer::new(Key::new(Some(TOKEN), "tests"), boot)
}

fn sealed(sealer: &mut Sealer, at_ms: u64, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    let sealed = sealer.seal(at_ms, &mut datagram, |out| out.extend_from_slice(payload));
    sealed.expect("it fits");
    datagram
}

/// A message that changes nothing.
const BAD_CLUSTER: [u8; 4] = [0x53, 0xB0, 0, 3];

#[tokio::test]
async fn nodes_that_know_one_know_all() {
    let a = start(config("a", &[])).await;
    let mut of_b = config("b", &[&a]);
    of_b.facts.scenarios = (0..30).map(|n| format!("{n:0>60}")).collect();
    let scenarios = of_b.facts.scenarios.clone();
    let b = start(of_b).await;
    let mut of_c = config("c", &[&a]);
    // Any address of this machine will do.
    of_c.listen = ([127, 0, 0, 2], 0).into();
    let c = start(of_c).await;
    for node in [&a, &b, &c] {
        let peers = until(node, "all", |peers| are_alive(peers, &["a", "b", "c"])).await;
        for (peer, of) in peers.iter().zip([&a, &b, &c]) {
            assert_eq!(peer.address, of.address());
            assert_eq!(peer.is_self, of.address() == node.address());
            assert_eq!((&*peer.version, peer.protocol, peer.cores), ("0.1.0", 1, 2));
            assert_eq!(peer.reason, None);
        }
        assert_eq!(peers[0].scenarios, ["browse", "buy"]);
        assert_eq!(peers[1].scenarios, scenarios);
    }
}

#[tokio::test]
async fn any_node_will_do_as_a_seed() {
    let a = start(config("a", &[])).await;
    let b = start(config("b", &[&a])).await;
    let c = start(config("c", &[&b])).await;
    let d = start(config("d", &[&c])).await;
    for node in [&a, &b, &c, &d] {
        until(node, "all", |peers| are_alive(peers, &["a", "b", "c", "d"])).await;
    }
}

#[tokio::test]
async fn a_name_is_a_seed_and_may_come_later() {
    let place = stranger();
    let at = place.local_addr().expect("it is bound");
    let mut of_b = config("b", &[]);
    of_b.seeds = vec![format!("localhost:{}", at.port()), "no.such.invalid".to_owned()];
    let b = start(of_b).await;
    sleep(3 * INTERVAL).await;
    assert_eq!(b.peers().borrow().len(), 1);
    drop(place);
    let mut of_a = config("a", &[]);
    of_a.listen = at;
    let a = start(of_a).await;
    for node in [&a, &b] {
        until(node, "both", |peers| are_alive(peers, &["a", "b"])).await;
    }
}

#[tokio::test]
async fn a_node_that_ends_is_dead_and_one_that_leaves_has_left() {
    let a = start(config("a", &[])).await;
    let b = start(config("b", &[&a])).await;
    let c = start(config("c", &[&a])).await;
    for node in [&a, &b, &c] {
        until(node, "all", |peers| are_alive(peers, &["a", "b", "c"])).await;
    }
    let begun = Instant::now();
    drop(b);
    for node in [&a, &c] {
        let peers =
            until(node, "a death", |peers| state_of(peers, "b") == Some(PeerState::Dead)).await;
        assert!(peers[1].reason.as_ref().is_some_and(|reason| reason.contains("UDP")));
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());

    let mut died = false;
    let mut watching = a.peers();
    let watched = async {
        until(&a, "a farewell", |peers| {
            died |= state_of(peers, "c") == Some(PeerState::Dead);
            state_of(peers, "c") == Some(PeerState::Left)
        })
        .await
    };
    tokio::join!(watched, c.leave());
    assert!(!died, "it was taken for dead before it was heard to go");
    // It stays so although nothing is heard of it any more.
    let turned = watching
        .wait_for(|peers| state_of(peers, "c").is_some_and(|state| state == PeerState::Dead));
    let turned = tokio::time::timeout(Duration::from_secs(5), turned).await;
    assert!(turned.is_err(), "who has left is not dead");
}

#[tokio::test]
async fn a_node_that_starts_again_is_the_same_node() {
    let a = start(config("a", &[])).await;
    let b = start(config("b", &[&a])).await;
    until(&a, "both", |peers| are_alive(peers, &["a", "b"])).await;
    let mut again = config("b", &[&a]);
    again.listen = b.address();
    again.facts.scenarios = vec!["new".to_owned()];
    drop(b);
    // The socket is closed when the task behind it has been dropped.
    let b = loop {
        match Membership::start(again.clone()).await {
            Ok(b) => break b,
            Err(MembershipError::Bind { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    let peers = until(&a, "the new one", |peers| {
        assert!(peers.iter().filter(|peer| peer.name == "b").count() <= 1);
        peers.iter().any(|peer| peer.scenarios == ["new"])
    })
    .await;
    assert!(are_alive(&peers, &["a", "b"]), "{peers:#?}");
    until(&b, "both", |peers| are_alive(peers, &["a", "b"])).await;
}

#[tokio::test]
async fn other_versions_are_refused_on_both_sides() {
    let a = start(config("a", &[])).await;
    let mut of_b = config("b", &[&a]);
    of_b.facts.version = "0.2.0".to_owned();
    of_b.facts.protocol = 2;
    let b = start(of_b).await;
    for (node, other, theirs, ours) in [(&a, "b", "0.2.0", "0.1.0"), (&b, "a", "0.1.0", "0.2.0")] {
        let refused = |peers: &[Peer]| state_of(peers, other) == Some(PeerState::Refused);
        let peers = until(node, "a refusal", refused).await;
        let reason = peers.iter().find_map(|peer| peer.reason.as_deref()).expect("a reason");
        for part in [theirs, ours, "run the same version on all nodes"] {
            assert!(reason.contains(part), "{reason}");
        }
    }
}

#[tokio::test]
async fn facts_that_cannot_be_read_are_refused() {
    let a = start(config("a", &[])).await;
    let key = || Key::new(Some(TOKEN), "tests");
    let wire = Wire::bind(([127, 0, 0, 1], 0).into(), key(), 77, Arc::default()).await;
    let wire = wire.expect("a port is free");
    let address = wire.local_addr().expect("it is bound");
    let config = ChitchatConfig {
        chitchat_id: ChitchatId::new("b", 1, address),
        cluster_id: "tests".to_owned(),
        gossip_interval: INTERVAL,
        listen_addr: address,
        seed_nodes: vec![a.address().to_string()],
        failure_detector_config: FailureDetectorConfig::default(),
        marked_for_deletion_grace_period: FORGET_AFTER,
        catchup_callback: None,
        extra_liveness_predicate: None,
    };
    let keys = vec![("facts".to_owned(), "nonsense".to_owned())];
    let _b = spawn_chitchat(config, keys, &wire).await.expect("it starts");
    let refused = |peers: &[Peer]| state_of(peers, "b") == Some(PeerState::Refused);
    let peers = until(&a, "a refusal", refused).await;
    assert!(peers[1].reason.as_ref().is_some_and(|reason| reason.contains("not to be read")));
}

#[tokio::test]
async fn who_has_another_token_or_cluster_is_not_heard() {
    let a = start(config("a", &[])).await;
    let mut strangers = Vec::new();
    for (name, token, cluster) in
        [("x", Some("wrong"), "tests"), ("y", None, "tests"), ("z", Some(TOKEN), "others")]
    {
        let mut of = config(name, &[&a]);
        of.token = token.map(str::to_owned);
        of.cluster = cluster.to_owned();
        let stranger = start(of).await;
        refused(&a, "bad_tag", count(&a, "bad_tag") + 2).await;
        strangers.push(stranger);
    }
    let b = start(config("b", &[&a])).await;
    for node in [&a, &b] {
        until(node, "both", |peers| are_alive(peers, &["a", "b"])).await;
    }
    for stranger in strangers {
        assert_eq!(stranger.peers().borrow().len(), 1);
    }
}

#[tokio::test]
async fn what_is_no_gossip_is_counted_and_the_cluster_goes_on() {
    let stranger = stranger();
    let mut of_a = config("a", &[]);
    of_a.seeds = vec![stranger.local_addr().expect("it is bound").to_string()];
    let a = start(of_a).await;
    let send = |datagram: &[u8]| {
        stranger.send_to(datagram, a.address()).expect("it is sent");
    };
    let mut sealer = sealer(99);

    send(b"");
    send(b"junk");
    refused(&a, "too_short", 2).await;
    send(&[0x5A; 400]);
    refused(&a, "bad_magic", 1).await;

    let good = sealed(&mut sealer, now_ms(), &BAD_CLUSTER);
    let mut flipped = good.clone();
    flipped[20] ^= 4;
    send(&flipped);
    send(&good[..good.len() - 1]);
    refused(&a, "bad_tag", 2).await;

    send(&good);
    send(&good);
    send(&good);
    refused(&a, "replayed", 2).await;
    assert_eq!(count(&a, "replayed"), 2, "it was taken once");

    send(&sealed(&mut sealer, now_ms() - 2 * MAX_SKEW_MS, &BAD_CLUSTER));
    send(&sealed(&mut sealer, now_ms() + 2 * MAX_SKEW_MS, &BAD_CLUSTER));
    refused(&a, "stale", 2).await;

    send(&sealed(&mut sealer, now_ms(), b"no message of chitchat"));
    send(&sealed(&mut sealer, now_ms(), b""));
    refused(&a, "malformed", 2).await;

    // The node asks its seed, which sends back what it hears.
    stranger.set_nonblocking(true).expect("it is a socket");
    let mut heard = vec![0; 65_536];
    let begun = Instant::now();
    let length = loop {
        match stranger.recv(&mut heard) {
            Ok(length) => break length,
            Err(error) => assert!(begun.elapsed() < WITHIN, "{error}"),
        }
        sleep(Duration::from_millis(10)).await;
    };
    send(&heard[..length]);
    refused(&a, "own", 1).await;

    let b = start(config("b", &[&a])).await;
    for node in [&a, &b] {
        until(node, "both", |peers| are_alive(peers, &["a", "b"])).await;
    }
}

#[tokio::test]
async fn what_is_longer_than_any_message_is_refused() {
    let mut of_a = config("a", &[]);
    of_a.listen = (Ipv6Addr::LOCALHOST, 0).into();
    let a = match Membership::start(of_a).await {
        Ok(a) => a,
        Err(error) => return eprintln!("skipped, without IPv6: {error}"),
    };
    let stranger = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).expect("a port is free");
    // IPv6 has room for 20 bytes more than IPv4.
    stranger.send_to(&[0; 65_520], a.address()).expect("it is sent");
    refused(&a, "too_long", 1).await;
}

/// A message that passes chitchat's decoder and fails one of its assertions: the state of a node
/// whose highest version is below that of its keys.
#[tokio::test]
async fn a_panic_within_chitchat_does_not_end_the_node() {
    fn string(out: &mut Vec<u8>, string: &str) {
        out.extend_from_slice(&(string.len() as u16).to_le_bytes());
        out.extend_from_slice(string.as_bytes());
    }
    fn numbers(out: &mut Vec<u8>, numbers: &[u64]) {
        for number in numbers {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
    let mut node = Vec::new();
    string(&mut node, "x");
    numbers(&mut node, &[1]);
    node.extend_from_slice(&[4, 127, 0, 0, 1, 9, 0]);

    // Greets with a node of which nothing is known yet.
    let mut greeting = vec![0x53, 0xB0, 0, 0, 1, 0];
    greeting.extend_from_slice(&node);
    numbers(&mut greeting, &[1, 0, 0]);
    string(&mut greeting, "tests");
    // Tells of it: a key of version 10, and that the highest is 5.
    let mut told = vec![0];
    told.extend_from_slice(&node);
    numbers(&mut told, &[0, 0]);
    told.push(1);
    string(&mut told, "key");
    string(&mut told, "value");
    numbers(&mut told, &[10]);
    told.extend_from_slice(&[0, 2]);
    numbers(&mut told, &[5]);
    let mut telling = vec![0x53, 0xB0, 0, 2, 2];
    telling.extend_from_slice(&(told.len() as u16).to_le_bytes());
    telling.extend_from_slice(&told);
    telling.push(0);

    let a = start(config("a", &[])).await;
    let b = start(config("b", &[&a])).await;
    until(&a, "both", |peers| are_alive(peers, &["a", "b"])).await;
    let stranger = stranger();
    let mut sealer = sealer(99);
    for payload in [greeting, telling] {
        let datagram = sealed(&mut sealer, now_ms(), &payload);
        stranger.send_to(&datagram, a.address()).expect("it is sent");
    }
    let lost = |peers: &[Peer]| peers.len() == 1;
    until(&a, "a start anew", lost).await;
    assert_eq!(count(&a, "malformed"), 0);
    let c = start(config("c", &[&b])).await;
    for node in [&a, &b, &c] {
        until(node, "all", |peers| are_alive(peers, &["a", "b", "c"])).await;
    }
}

#[tokio::test]
async fn what_cannot_work_is_an_error_with_its_remedy() {
    let a = start(config("a", &[])).await;
    let error = async |change: fn(&mut MembershipConfig, SocketAddr)| {
        let mut config = config("b", &[]);
        change(&mut config, a.address());
        Membership::start(config).await.err().expect("an error").to_string()
    };
    let taken = error(|config, taken| config.listen = taken).await;
    assert!(taken.contains("another port"), "{taken}");
    let seed = error(|config, _| config.seeds = vec!["http://node:1".to_owned()]).await;
    assert!(seed.contains("`http://node:1`") && seed.contains("host:port"), "{seed}");
    let token = error(|config, _| config.token = Some(String::new())).await;
    assert!(token.contains("the same random one"), "{token}");
    let name = error(|config, _| config.name = "a\nb".to_owned()).await;
    assert!(name.contains("control characters"), "{name}");
    let many =
        error(|config, _| config.facts.scenarios = (0..2000).map(|n| n.to_string()).collect());
    let many = many.await;
    assert!(many.contains("shorter names"), "{many}");
    let six = error(|config, _| config.advertise = (Ipv6Addr::LOCALHOST, 1).into()).await;
    assert!(six.contains("listen on [::]"), "{six}");
}

#[tokio::test]
async fn a_node_that_listens_everywhere_finds_its_address() {
    let a = start(config("a", &[])).await;
    let mut of_b = config("b", &[&a]);
    of_b.listen = ([0, 0, 0, 0], 0).into();
    let b = start(of_b).await;
    assert!(b.address().ip().is_loopback(), "as its seed is: {}", b.address());
    let mut of_c = config("c", &[&a]);
    of_c.listen = (Ipv6Addr::UNSPECIFIED, 0).into();
    let c = match Membership::start(of_c).await {
        Ok(c) => c,
        Err(error) => return eprintln!("skipped in part, without IPv6: {error}"),
    };
    for node in [&a, &b, &c] {
        until(node, "all", |peers| are_alive(peers, &["a", "b", "c"])).await;
    }
}

/// All others have been silent for seconds, by its clock, when it looks next.
#[tokio::test]
async fn a_node_that_was_held_up_does_not_take_the_others_for_dead() {
    let a = start(config("a", &[])).await;
    let of_b = config("b", &[&a]);
    // A thread and a runtime of its own, which can be blocked.
    let held_up = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let b = start(of_b).await;
            until(&b, "both", |peers| are_alive(peers, &["a", "b"])).await;
            std::thread::sleep(Duration::from_secs(6));
            let mut peers = b.peers();
            peers.mark_unchanged();
            let changed = tokio::time::timeout(Duration::from_secs(2), peers.changed()).await;
            assert!(changed.is_err(), "{:#?}", peers.borrow());
            until(&b, "both", |peers| are_alive(peers, &["a", "b"])).await;
            b.leave().await;
        });
    });
    until(&a, "b's silence", |peers| state_of(peers, "b") == Some(PeerState::Dead)).await;
    until(&a, "b again", |peers| state_of(peers, "b") == Some(PeerState::Alive)).await;
    until(&a, "b's farewell", |peers| state_of(peers, "b") == Some(PeerState::Left)).await;
    held_up.join().expect("no panic");
}
