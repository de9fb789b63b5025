//! What leading a cluster costs, and how exactly a cluster keeps its goal while nodes are lost.
//!
//! ```text
//! cargo bench --features rt --bench cluster            all of it; `nodes` needs root and iproute2
//! cargo bench --features rt --bench cluster -- lead    the cost alone
//! ```
//!
//! `nodes` starts three nodes and a target as processes in network namespaces. The nodes share one
//! core, the target has another.

#[path = "support/harness.rs"]
mod harness;
#[path = "../tests/support_cluster/mod.rs"]
mod support;

use std::time::Duration;

use balter_uring::bench_support::{LeadCost, lead};
use harness::{Claim, Plan, Series, Table};
use serde_json::Value;
use support::{Cluster, NODES, busiest, eventually};

const NODES_LED: usize = 1_000;
const SHARDS: usize = 100;
/// In a window of a second, of each node: a million a second by all.
const TRANSACTIONS: u64 = 1_000;

const GOAL: f64 = 30_000.0;

/// The rate of the parts in which nodes are lost, so that two nodes on a shared core can bear it.
const MODEST: f64 = 12_000.0;

fn main() {
    if support::play() {
        return;
    }
    let plan = Plan::from_environment();
    plan.announce("cluster");
    if plan.wants("lead") {
        leading(&plan);
    }
    if plan.wants("nodes") {
        if rustix::process::geteuid().is_root() {
            nodes(&plan);
        } else {
            println!("\nnodes: skipped, network namespaces are for root alone");
        }
    }
}

fn leading(plan: &Plan) {
    let mut table = Table::new(
        format!(
            "leading for a window of 1 s, {TRANSACTIONS} transactions of each node in it, with a limit on \
             latency: ms of processor time"
        ),
        &["nodes × shards", "coordinator", "(min–max)", "each node", "KiB a report", "claim"],
    );
    let sizes =
        if plan.quick { vec![(10, 4)] } else { vec![(3, 100), (100, 100), (NODES_LED, SHARDS)] };
    for (nodes, shards) in sizes {
        let rounds = if plan.quick { 2 } else { plan.repetitions.max(3) };
        let costs = lead(nodes, shards, rounds, TRANSACTIONS);
        for cost in &costs {
            assert_eq!(cost.counted.0, cost.counted.1, "what was recorded is counted, once");
        }
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let series = |get: fn(&LeadCost) -> Duration| Series::new(costs.iter().map(|c| ms(get(c))));
        let coordinator = series(|cost| cost.coordinator);
        table.row([
            format!("{nodes} × {shards}"),
            format!("{:.2}", coordinator.median()),
            coordinator.range(2),
            format!("{:.2}", series(|cost| cost.node).median()),
            format!("{:.1}", costs[0].report as f64 / 1024.0),
            match nodes {
                NODES_LED => Claim::AtMost(100.0).judge("ms", coordinator.median()),
                _ => String::new(),
            },
        ]);
    }
    table.print();
}

/// What one run of a cluster showed.
#[derive(Default)]
struct Seen {
    tps: f64,
    told: f64,
    served: f64,
    busiest: f64,
    back: f64,
    p99_ms: f64,
}

fn seen(view: &Value, counts: &[(f64, u64)]) -> Seen {
    let number = |value: &Value| value.as_f64().expect("a number");
    Seen {
        tps: number(&view["tps"]),
        told: number(&view["counts"]["succeeded"]),
        served: counts.last().expect("counts").1 as f64,
        busiest: busiest(counts),
        back: 0.0,
        p99_ms: number(&view["response"]["p99"]) * 1e3,
    }
}

fn request(seconds: f64, tps: f64) -> String {
    format!(r#"{{"name":"visitor","duration":{seconds},"max_tps":{tps}}}"#)
}

fn undisturbed(seconds: f64, tps: f64) -> Seen {
    let cluster = Cluster::new(&[]);
    let id = cluster.start(1, &request(seconds, tps));
    let view = cluster.wait(1, &id);
    seen(&view, &cluster.counts())
}

/// Has something happen to the third node in the middle of a run.
fn disturbed(seconds: f64, tps: f64, disturb: impl FnOnce(&mut Cluster)) -> Seen {
    let mut cluster = Cluster::new(&[]);
    let id = cluster.start(0, &request(seconds, tps));
    let near = Some(tps * 0.95);
    eventually("it is at its goal", || cluster.view(0, &id)["tps"].as_f64() > near);
    let happened = cluster.counts().last().expect("counts").0;
    disturb(&mut cluster);
    let view = cluster.wait(0, &id);
    let counts = cluster.counts();
    // The end of the last tenth of a second in which a tenth of the rate or more was missing.
    let after = happened..happened + 6.0;
    let short = |&&(time, rate): &&(f64, f64)| after.contains(&time) && rate < tps * 0.9;
    let rates = support::rates(&counts);
    let back = rates.iter().rfind(short).map_or(0.0, |&(time, _)| time - happened);
    Seen { back, ..seen(&view, &counts) }
}

fn nodes(plan: &Plan) {
    let (seconds, long, cut) = if plan.quick { (2.0, 8.0, 3) } else { (10.0, 25.0, 10) };
    let mut table = Table::new(
        "three nodes, as the target counts them",
        &[
            "",
            "tps",
            "told",
            "served",
            "busiest 100 ms",
            "of goal",
            "p99 ms",
            "back after s",
            "claim",
        ],
    );
    let repeat = |work: &dyn Fn() -> Seen| -> Vec<Seen> {
        (0..plan.repetitions.min(3)).map(|_| work()).collect()
    };
    let cut_off = || {
        disturbed(long, MODEST, |cluster| {
            cluster.network.cut(NODES[2], &NODES, true);
            std::thread::sleep(Duration::from_secs(cut));
            cluster.network.cut(NODES[2], &NODES, false);
        })
    };
    for (name, goal, seen) in [
        ("undisturbed", GOAL, repeat(&|| undisturbed(seconds, GOAL))),
        ("undisturbed", MODEST, repeat(&|| undisturbed(seconds, MODEST))),
        (
            "one killed",
            MODEST,
            repeat(&|| disturbed(long, MODEST, |cluster| cluster.nodes[2].kill())),
        ),
        ("one cut off for a while", MODEST, repeat(&cut_off)),
    ] {
        let median = |get: fn(&Seen) -> f64| Series::new(seen.iter().map(get)).median();
        let (tps, back) = (median(|seen| seen.tps), median(|seen| seen.back));
        let busiest = median(|seen| seen.busiest);
        table.row([
            format!("{name}, {goal} tps"),
            format!("{tps:.1}"),
            format!("{:.0}", median(|seen| seen.told)),
            format!("{:.0}", median(|seen| seen.served)),
            format!("{busiest:.0}"),
            format!("{:.3}", busiest / goal),
            format!("{:.2}", median(|seen| seen.p99_ms)),
            if name == "undisturbed" { String::new() } else { format!("{back:.1}") },
            match name {
                "undisturbed" if goal == GOAL => {
                    Claim::Within(29_900.0, 30_100.0).judge("tps", tps)
                }
                "undisturbed" => String::new(),
                _ => Claim::AtMost(3.0).judge("s", back),
            },
        ]);
    }
    table.print();
    println!(
        "  told: succeeded by the coordinator's count; served: by the target's. A killed node"
    );
    println!("  takes with it what it had not told yet.");
}
