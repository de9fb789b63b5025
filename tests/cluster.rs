//! Three nodes as processes in network namespaces of their own: what all of them together send, as the
//! target counts it, while nodes are killed and cut off.

#[path = "support_cluster/mod.rs"]
mod support;

use std::time::Duration;

use rustix::process::Signal;
use support::{Cluster, NODES, eventually};

/// How this program is led to the test below.
const ROLE: [&str; 3] = ["--exact", "role", "--nocapture"];

/// Not a test: the processes of nodes and target start here.
#[test]
fn role() {
    support::play();
}

/// At no time has more been served than the goal, beyond what a process may make up for that was
/// kept off its core for a moment.
fn never_more_than(goal: f64, counts: &[(f64, u64)]) {
    let mut first = 0;
    for &(time, served) in counts {
        while counts[first].0 < time - 1.0 {
            first += 1;
        }
        let (began, before) = counts[first];
        let most = goal * (time - began + 0.3);
        let served = (served - before) as f64;
        assert!(served <= most, "{served} in {:.2} s, {time:.1} s after the start", time - began);
    }
}

#[test]
fn three_nodes_send_exactly_the_goal_and_the_target_counts_the_same() {
    let cluster = Cluster::new(&ROLE);
    let id = cluster.start(1, r#"{"name":"visitor","duration":4,"max_tps":"3000"}"#);
    let view = cluster.wait(1, &id);
    let counts = cluster.counts();
    let served = counts.last().expect("counts").1;
    assert_eq!(view["counts"]["succeeded"], served, "{view}");
    // Exactly so where no node was kept off its core for as long as a lease; the bench says how often.
    let planned = view["counts"]["planned"].as_u64().expect("a number");
    assert!((9_000..=12_000).contains(&planned), "{view}");
    let nodes = view["nodes"].as_array().expect("a list");
    let sum: u64 = nodes.iter().filter_map(|node| node["counts"]["succeeded"].as_u64()).sum();
    assert_eq!((nodes.len(), sum), (3, served));
    never_more_than(3_000.0, &counts);
}

#[test]
fn the_others_take_over_from_a_node_that_is_killed() {
    let mut cluster = Cluster::new(&ROLE);
    let id = cluster.start(0, r#"{"name":"visitor","duration":15,"max_tps":3000}"#);
    eventually("it is at its goal", || cluster.view(0, &id)["tps"].as_f64() > Some(2_700.0));
    cluster.nodes[2].kill();
    eventually("the node is missed", || cluster.view(0, &id)["nodes"][2]["state"] == "unreachable");
    eventually("the others are at the goal", || {
        cluster.view(0, &id)["tps"].as_f64() > Some(2_900.0)
    });
    let view = cluster.wait(0, &id);
    let counts = cluster.counts();
    never_more_than(3_000.0, &counts);
    let sent = view["counts"]["planned"].as_u64().expect("a number");
    assert!(sent <= 45_000, "{view}");
    // What the dead node had not told yet is all that may be missing.
    let served = counts.last().expect("counts").1;
    let told = view["counts"]["succeeded"].as_u64().expect("a number");
    assert!(told <= served && served - told < 1_000, "{told} of {served}");
}

/// The cut-off node still reaches the target: it has to stop by itself.
#[test]
fn a_node_that_is_cut_off_stops_and_comes_back() {
    let cluster = Cluster::new(&ROLE);
    let id = cluster.start(0, r#"{"name":"visitor","duration":25,"max_tps":3000}"#);
    eventually("it is at its goal", || cluster.view(0, &id)["tps"].as_f64() > Some(2_700.0));
    cluster.network.cut(NODES[2], &NODES, true);
    eventually("the node is missed", || cluster.view(0, &id)["nodes"][2]["state"] == "unreachable");
    eventually("the others are at the goal", || {
        cluster.view(0, &id)["tps"].as_f64() > Some(2_900.0)
    });
    std::thread::sleep(Duration::from_secs(5));
    cluster.network.cut(NODES[2], &NODES, false);
    eventually("the node is back", || cluster.view(0, &id)["nodes"][2]["share_tps"] == 1_000);
    let view = cluster.wait(0, &id);
    let counts = cluster.counts();
    never_more_than(3_000.0, &counts);
    // Nothing that it measured is lost.
    assert_eq!(view["counts"]["succeeded"], counts.last().expect("counts").1, "{view}");
    assert_eq!(view["nodes"][2]["state"], "done");
}

/// A process that stands still knows nothing of it: it must not make up for its share, which the others
/// have taken over.
#[test]
fn a_node_that_stands_still_does_not_make_up_for_it() {
    let cluster = Cluster::new(&ROLE);
    let id = cluster.start(0, r#"{"name":"visitor","duration":15,"max_tps":3000}"#);
    eventually("it is at its goal", || cluster.view(0, &id)["tps"].as_f64() > Some(2_700.0));
    cluster.nodes[2].signal(Signal::STOP);
    std::thread::sleep(Duration::from_secs(5));
    cluster.nodes[2].signal(Signal::CONT);
    eventually("the node is back", || cluster.view(0, &id)["nodes"][2]["share_tps"] == 1_000);
    let view = cluster.wait(0, &id);
    let counts = cluster.counts();
    never_more_than(3_000.0, &counts);
    assert_eq!(view["counts"]["succeeded"], counts.last().expect("counts").1, "{view}");
}

/// The cut-off node still reaches the target: its instances have to leave by themselves, and the others
/// have as many more.
#[test]
fn a_closed_loop_has_its_instances_wherever_there_are_nodes() {
    let cluster = Cluster::new(&ROLE);
    let id = cluster.start(0, r#"{"name":"visitor","duration":25,"concurrency":9}"#);
    let instances = || {
        let view = cluster.view(0, &id);
        let nodes = view["nodes"].as_array().expect("a list").clone();
        nodes.iter().map(|node| node["instances"].as_u64().unwrap_or(0)).collect::<Vec<_>>()
    };
    eventually("each has a third", || instances() == [3, 3, 3]);
    cluster.network.cut(NODES[2], &NODES, true);
    eventually("its instances have left", || cluster.view(2, &id)["instances"] == 0);
    eventually("the others have them", || {
        instances()[..2].iter().sum::<u64>() == 9 && cluster.view(0, &id)["instances"] == 9
    });
    cluster.network.cut(NODES[2], &NODES, false);
    eventually("each has a third again", || {
        instances() == [3, 3, 3] && cluster.view(2, &id)["instances"] == 3
    });
    let view = cluster.wait(0, &id);
    assert_eq!(view["instances"], 9, "{view}");
    assert_eq!(view["counts"]["succeeded"], cluster.counts().last().expect("counts").1, "{view}");
    assert_eq!(view["counts"]["planned"], view["counts"]["started"], "{view}");
}

/// What one node would find, found by three.
#[test]
fn a_limit_is_searched_for_by_all_nodes_together() {
    let cluster = Cluster::new(&ROLE);
    let request = r#"{"name":"visitor","duration":15,"max_tps":2000,
        "error_rate":0.05,"latency":{"latency":0.5,"quantile":0.9}}"#;
    let id = cluster.start(2, request);
    let view = cluster.wait(2, &id);
    let counts = cluster.counts();
    assert_eq!(view["counts"]["succeeded"], counts.last().expect("counts").1, "{view}");
    // The target bears more than that: the search ends at what was asked for.
    assert_eq!(view["goal_tps"], 2_000, "{view}");
    assert!(view["tps"].as_f64() > Some(1_000.0), "{view}");
    never_more_than(2_000.0, &counts);
}

/// The coordinator is killed: the others stop by themselves, and keep what they measured.
#[test]
fn without_its_coordinator_a_run_ends() {
    let mut cluster = Cluster::new(&ROLE);
    let id = cluster.start(0, r#"{"name":"visitor","duration":60,"max_tps":3000}"#);
    eventually("it is at its goal", || cluster.view(0, &id)["tps"].as_f64() > Some(2_700.0));
    cluster.nodes[0].kill();
    eventually("nothing is sent any more", || {
        let counts = cluster.counts();
        let last = counts[counts.len() - 1];
        let before = counts.iter().rev().find(|(time, _)| *time < last.0 - 1.0);
        before.is_some_and(|before| before.1 == last.1)
    });
    for node in [1, 2] {
        let view = cluster.view(node, &id);
        assert_eq!(view["role"], "worker");
        assert!(view["counts"]["succeeded"].as_u64() > Some(500), "{view}");
    }
}
