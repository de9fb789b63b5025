//! Nodes of one process, each with a server of its own, that carry runs together.
#![allow(unsafe_code, reason = "the linker gathers the scenario")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::*;
use crate::runtime::registry::Registry;
use crate::runtime::runs::Runs;
use crate::runtime::service::{PATH, WorkerService};
use crate::runtime::worker::Workers;
use crate::runtime::{RuntimeConfig, Spacing, wire};

#[crate::scenario]
async fn nothing() {
    loop {
        rest().await;
    }
}

#[crate::transaction]
async fn rest() {}

#[crate::scenario]
async fn sleepy() {
    loop {
        wait().await;
    }
}

#[crate::transaction]
async fn wait() {
    crate::time::sleep(Duration::from_millis(10)).await;
}

struct Cluster {
    nodes: Vec<Node>,
    servers: Vec<tokio::task::JoinHandle<()>>,
    _leaving: watch::Sender<bool>,
    peers: watch::Sender<Arc<Vec<Peer>>>,
}

impl Cluster {
    async fn new(size: usize) -> Self {
        Self::with(size, RuntimeConfig::default()).await
    }

    async fn with(size: usize, config: RuntimeConfig) -> Self {
        let config = Arc::new(config);
        let (peers, watched) = watch::channel(Arc::new(Vec::new()));
        let (leaving, left) = watch::channel(false);
        let (mut nodes, mut servers, mut all) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..size {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("it is bound");
            let node = Node {
                name: address.to_string().into(),
                boot: index as u64 + 1,
                version: "test".into(),
                config: Arc::clone(&config),
                registry: Registry,
                runs: Runs::default(),
                workers: Workers::default(),
                peers: watched.clone(),
                leaving: left.clone(),
            };
            all.push(peer(&node, address));
            let serve = axum::serve(listener, router(&node));
            servers.push(tokio::spawn(async move { serve.await.expect("it serves") }));
            nodes.push(node);
        }
        peers.send_replace(Arc::new(all));
        Self { nodes, servers, _leaving: leaving, peers }
    }

    async fn run(&self, request: RunRequest) -> (Arc<RunView>, Arc<RunStatistics>) {
        let id = self.nodes[0].start(request).expect("it starts");
        let entry = self.nodes[0].runs.get(&id).expect("it is known");
        let mut view = entry.view;
        while view.changed().await.is_ok() {}
        let last = Arc::clone(&view.borrow());
        let statistics = entry.statistics.lock().expect("no panic").clone();
        (last, statistics.expect("it is over"))
    }
}

fn router(node: &Node) -> axum::Router {
    axum::Router::new().route_service(PATH, WorkerService(node.clone()))
}

fn peer(node: &Node, address: SocketAddr) -> Peer {
    Peer {
        name: node.name.to_string(),
        address,
        version: "test".to_owned(),
        protocol: PROTOCOL,
        scenarios: vec!["nothing".to_owned(), "sleepy".to_owned()],
        cores: 1,
        state: PeerState::Alive,
        reason: None,
        is_self: false,
    }
}

fn request(max_tps: u32, duration: f64) -> RunRequest {
    RunRequest {
        name: "nothing".to_owned(),
        max_tps: Some(max_tps),
        duration: Some(duration),
        ..RunRequest::default()
    }
}

#[tokio::test]
async fn three_nodes_carry_exactly_the_goal() {
    let cluster = Cluster::new(3).await;
    let (view, statistics) = cluster.run(request(3_001, 3.0)).await;
    println!("{statistics}");
    assert_eq!(view.state, RunState::Finished);
    assert!(statistics.counts.add_up());
    assert_eq!(statistics.nodes.len(), 3);
    let sum: u64 = statistics.nodes.iter().map(|node| node.counts.started).sum();
    assert_eq!(sum, statistics.counts.started);
    assert!((6_000..=9_003).contains(&statistics.counts.planned), "{:?}", statistics.counts);
}

fn closed_loops_allowed() -> RuntimeConfig {
    let mut config = RuntimeConfig::default();
    config.allowed.closed_loops = true;
    config
}

#[tokio::test]
async fn a_closed_loop_has_its_instances_on_all_nodes() {
    let cluster = Cluster::with(3, closed_loops_allowed()).await;
    let request = RunRequest { max_tps: None, concurrency: Some(7), ..request(1, 2.0) };
    let (view, statistics) = cluster.run(request).await;
    assert_eq!(view.state, RunState::Finished);
    assert!(statistics.counts.add_up());
    assert_eq!((statistics.concurrency, statistics.goal_tps), (7, 0));
    let started = |node: &crate::NodeStatistics| node.counts.started > 0;
    assert!(statistics.nodes.iter().all(started), "{:?}", statistics.nodes);
    // Nothing was due but what was started, and response times are service times.
    assert_eq!(statistics.counts.planned, statistics.counts.started);
    assert_eq!(statistics.response.len(), statistics.counts.completed());
    assert!(view.response["p99"] > 0.0, "{view:?}");
}

#[tokio::test]
async fn a_cluster_is_saturated_with_as_many_instances_as_help() {
    let cluster = Cluster::with(2, closed_loops_allowed()).await;
    let request = RunRequest {
        max_tps: None,
        saturate: true,
        max_concurrency: Some(64),
        hints: Some(crate::runtime::Hints { concurrency: Some(2), tps: None }),
        ..request(1, 3.0)
    };
    let request = RunRequest { name: "sleepy".to_owned(), ..request };
    let (view, statistics) = cluster.run(request).await;
    assert_eq!(view.state, RunState::Finished);
    assert!(statistics.counts.add_up());
    // Each instance adds 100 transactions a second, so all that are allowed are wanted.
    assert!((8..=64).contains(&statistics.concurrency), "{statistics}");
}

#[tokio::test]
async fn a_node_that_joins_takes_its_share() {
    let cluster = Cluster::new(2).await;
    let all = cluster.peers.borrow().clone();
    cluster.peers.send_replace(Arc::new(all[..1].to_vec()));
    let run = cluster.run(request(2_000, 4.0));
    let join = async {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        cluster.peers.send_replace(all);
    };
    let ((view, statistics), ()) = tokio::join!(run, join);
    assert_eq!(view.state, RunState::Finished);
    assert!(statistics.counts.add_up());
    let shares: Vec<_> = statistics.nodes.iter().map(|node| node.counts.started).collect();
    assert_eq!(shares.len(), 2, "{shares:?}");
    assert!(shares[1] > 100 && shares[0] > shares[1], "{shares:?}");
    assert!((4_000..=8_000).contains(&statistics.counts.planned), "{:?}", statistics.counts);
}

#[tokio::test]
async fn a_node_that_leaves_hands_its_share_over() {
    let cluster = Cluster::new(2).await;
    let run = cluster.run(request(1_000, 5.0));
    let leave = async {
        tokio::time::sleep(Duration::from_millis(2_000)).await;
        cluster.nodes[1].workers.leave();
    };
    let ((view, statistics), ()) = tokio::join!(run, leave);
    assert_eq!(view.state, RunState::Finished);
    assert!(statistics.counts.add_up());
    assert!(statistics.nodes.iter().all(|node| !node.lost), "{:?}", statistics.nodes);
    assert!(statistics.elapsed > Duration::from_secs(4), "{:?}", statistics.elapsed);
    // They stand in the order in which they joined.
    let started = |name: &str| {
        let node = statistics.nodes.iter().find(|node| node.name == name);
        node.expect("it took part").counts.started
    };
    let shares = cluster.nodes.iter().map(|node| started(&node.name)).collect::<Vec<_>>();
    assert!(shares[1] > 100 && shares[0] > shares[1], "{shares:?}");
    assert!((2_500..=5_000).contains(&statistics.counts.planned), "{:?}", statistics.counts);
}

#[tokio::test]
async fn nodes_that_do_not_fit_are_refused_with_the_reason() {
    let mut cluster = Cluster::new(4).await;
    let mut all = cluster.peers.borrow().to_vec();
    // It says so itself, the coordinator sees it, or the node finds out when it is asked.
    (all[1].state, all[1].reason) = (PeerState::Refused, Some("too old".to_owned()));
    all[2].scenarios = vec!["another".to_owned()];
    cluster.nodes[3].version = "9".into();
    cluster.servers[3].abort();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    all[3].address = listener.local_addr().expect("it is bound");
    let router = router(&cluster.nodes[3]);
    cluster.servers[3] = tokio::spawn(async { axum::serve(listener, router).await.expect("it") });
    cluster.peers.send_replace(Arc::new(all.clone()));
    let (view, statistics) = cluster.run(request(500, 1.0)).await;
    assert_eq!(statistics.nodes.len(), 1);
    assert_eq!(view.refused.len(), 3, "{:?}", view.refused);
    assert_eq!(view.refused[&all[1].name], "too old");
    assert!(view.refused[&all[2].name].contains("no scenario `nothing`"), "{:?}", view.refused);
    assert!(view.refused[&all[3].name].contains("run the same program"), "{:?}", view.refused);
    assert!((300..=500).contains(&statistics.counts.planned), "{:?}", statistics.counts);
}

#[tokio::test]
async fn transactions_come_at_random_if_asked_for() {
    let cluster = Cluster::new(2).await;
    let request = RunRequest { arrival: Some(Spacing::Poisson), ..request(1_000, 2.0) };
    let (_, statistics) = cluster.run(request).await;
    let counts: Vec<_> = statistics.nodes.iter().map(|node| node.counts.planned).collect();
    assert!(statistics.counts.add_up());
    assert!((1_400..2_600).contains(&statistics.counts.planned), "{counts:?}");
}

#[tokio::test]
async fn a_run_is_stopped_through_any_of_its_nodes() {
    let cluster = Cluster::new(2).await;
    let run = cluster.run(request(1_000, 60.0));
    let stop = async {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let view = cluster.nodes[1].runs.all().pop().expect("it takes part");
        assert_eq!(view.role, crate::runtime::RunRole::Worker);
        cluster.nodes[1].runs.get(&view.id).expect("it is known").stop.notify_one();
    };
    let ((view, statistics), ()) = tokio::join!(run, stop);
    assert_eq!(view.state, RunState::Finished);
    assert!(statistics.counts.add_up());
    assert!(statistics.elapsed < Duration::from_secs(20), "{:?}", statistics.elapsed);
}

#[tokio::test]
async fn a_run_that_no_node_can_start_says_why() {
    let cluster = Cluster::new(1).await;
    let mut all = cluster.peers.borrow().to_vec();
    all[0].scenarios.clear();
    cluster.peers.send_replace(Arc::new(all));
    let (view, _) = cluster.run(request(10, 1.0)).await;
    assert_eq!(view.state, RunState::Failed);
    assert!(view.error.as_ref().expect("it says why").contains("no scenario"), "{:?}", view.error);
}

proptest::proptest! {
    /// Whatever a node reports, the coordinator does not fall over it.
    #[test]
    fn reports_of_a_broken_node_do_no_harm(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
        (holds, stamp_ns, number) in proptest::arbitrary::any::<(u64, u64, u64)>(),
        (start_ns, length_ns, count) in proptest::arbitrary::any::<(u64, u64, u64)>(),
    ) {
        use prost::Message as _;
        let mut lead = cost::to_be_led(2);
        let times = wire::Times { steps: vec![7, 9], counts: vec![count / 2, count - count / 2] };
        let transaction = wire::Transaction {
            name: "a".to_owned(),
            succeeded: count,
            service: Some(times.clone()),
            response: Some(times.clone()),
            lag: Some(times.clone()),
            ..wire::Transaction::default()
        };
        let window = wire::Window {
            start_ns,
            end_ns: start_ns.saturating_add(length_ns >> (number % 64)),
            planned: count,
            started: count,
            failures: vec![0; crate::FailureClass::COUNT],
            transactions: vec![transaction],
            punctual: Some(times),
            ..wire::Window::default()
        };
        let delivery = |number| {
            wire::Delivery { number, grant: holds, window: Some(window.clone()) }
        };
        let report = Report {
            boot: 1,
            ready: true,
            holds,
            stamp_ns,
            windows: vec![delivery(1), delivery(number), delivery(2)],
            ..Report::default()
        };
        lead.report(0, report);
        if let Ok(report) = Report::decode(&bytes[..]) {
            lead.report(1, report);
        }
        let now = lead.clock.now();
        lead.decide(now);
        lead.grant(now);
        lead.show(now);
        lead.finish();
    }
}

#[tokio::test]
async fn a_run_that_is_stopped_before_it_begins_says_so() {
    let cluster = Cluster::new(1).await;
    let id = cluster.nodes[0].start(request(10, 5.0)).expect("it starts");
    let entry = cluster.nodes[0].runs.get(&id).expect("it is known");
    entry.stop.notify_one();
    let mut view = entry.view;
    while view.changed().await.is_ok() {}
    let view = view.borrow();
    assert_eq!(view.state, RunState::Failed);
    assert!(view.error.as_ref().is_some_and(|error| error.contains("before it began")), "{view:?}");
}

fn report(boot: u64, shards: u32, windows: Vec<wire::Delivery>) -> Report {
    Report { boot, shards, stamp_ns: 1, ready: true, windows, ..Report::default() }
}

fn delivery(number: u64, planned: u64) -> wire::Delivery {
    let failures = vec![0; crate::FailureClass::COUNT];
    let window = wire::Window { planned, missed: planned, failures, ..wire::Window::default() };
    wire::Delivery { number, grant: 0, window: Some(window) }
}

#[test]
fn shares_are_in_proportion_to_the_shards() {
    let mut lead = cost::to_be_led(2);
    lead.report(0, report(1, 1, Vec::new()));
    lead.report(1, report(2, 3, Vec::new()));
    lead.grant(lead.clock.now());
    let shares =
        lead.members.iter().map(|member| lead.book.share(member.party.expect("it joined")));
    let (one, three) = (lead.book.goal().tps / 4, lead.book.goal().tps / 4 * 3);
    assert_eq!(shares.map(|share| share.tps).collect::<Vec<_>>(), [one, three]);
}

#[test]
fn a_node_that_is_started_again_has_two_parts_and_both_count() {
    let mut lead = cost::to_be_led(1);
    let leaving = Report { leaving: true, ..report(1, 1, vec![delivery(1, 70)]) };
    lead.report(0, leaving);
    lead.report(0, report(1, 1, vec![delivery(1, 70), delivery(2, 7)]));
    // The same place, another process: its windows are numbered from one again.
    lead.report(0, report(2, 1, vec![delivery(1, 900)]));
    assert!(!lead.members[0].is_leaving, "it would be told to drain");
    let statistics = Arc::clone(&lead.statistics);
    lead.finish();
    let statistics = statistics.lock().expect("no panic").clone().expect("it is over");
    let planned: Vec<_> = statistics.nodes.iter().map(|node| node.counts.planned).collect();
    assert_eq!((planned, statistics.counts.planned), (vec![77, 900], 977));
}

#[tokio::test]
async fn a_node_refuses_what_is_beyond_its_own_limits() {
    let mut cluster = Cluster::new(2).await;
    let mut config = RuntimeConfig::default();
    config.limits.max_tps = 10;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    cluster.nodes[1].config = Arc::new(config);
    let router = router(&cluster.nodes[1]);
    cluster.servers[1].abort();
    cluster.servers[1] = tokio::spawn(async { axum::serve(listener, router).await.expect("it") });
    let mut all = cluster.peers.borrow().to_vec();
    all[1].address = address;
    cluster.peers.send_replace(Arc::new(all.clone()));
    // By its path as well: the nodes know it by its name.
    let name = format!("{}::nothing", module_path!());
    let (view, statistics) = cluster.run(RunRequest { name, ..request(500, 1.0) }).await;
    assert_eq!(statistics.nodes.len(), 1, "{view:?}");
    assert!(view.refused[&all[1].name].contains("`max_tps` is 500"), "{:?}", view.refused);
}
