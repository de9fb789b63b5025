//! What Prometheus is told of a node.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::Api;
use crate::runtime::peers::PeerState;

/// A metric: its name, its kind, what it is, and its values by their labels.
type Metric = (&'static str, &'static str, &'static str, Vec<(String, f64)>);

pub(super) async fn metrics(State(api): State<Api>) -> impl IntoResponse {
    let mut text = String::new();
    for (name, kind, help, values) in gather(&api) {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

fn label(name: &str, value: &str) -> String {
    let value = value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
    format!("{name}=\"{value}\"")
}

fn gather(api: &Api) -> Vec<Metric> {
    let mut peers = BTreeMap::new();
    for peer in api.node.peers.borrow().iter() {
        let state = match peer.state {
            PeerState::Alive => "alive",
            PeerState::Dead => "dead",
            PeerState::Left => "left",
            PeerState::Refused => "refused",
        };
        *peers.entry(format!("{{{}}}", label("state", state))).or_insert(0.0) += 1.0;
    }
    let by = |name: &'static str| {
        move |(key, count): (&str, u64)| (format!("{{{}}}", label(name, key)), count as f64)
    };
    let refused = api.guard.all_refused();
    let refused = refused.into_iter().map(by("reason")).collect();
    let gossip = api.guard.gossip.by_reason().into_iter().map(by("reason")).collect();

    let (mut states, mut goal, mut tps, mut instances, mut transactions) =
        (BTreeMap::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for view in api.node.runs.all() {
        let text = |value: serde_json::Value| value.as_str().unwrap_or("").to_owned();
        let state = text(serde_json::to_value(view.state).unwrap_or_default());
        let role = text(serde_json::to_value(view.role).unwrap_or_default());
        let key = format!("{{{},{}}}", label("state", &state), label("role", &role));
        *states.entry(key).or_insert(0.0) += 1.0;
        if matches!(state.as_str(), "finished" | "failed") {
            continue;
        }
        let labels =
            [label("run", &view.id), label("scenario", &view.request.name), label("role", &role)]
                .join(",");
        let place = || format!("{{{labels}}}");
        goal.push((place(), f64::from(view.goal_tps)));
        tps.push((place(), view.tps));
        instances.push((place(), f64::from(view.instances)));
        for (outcome, count) in [
            ("succeeded", view.counts.succeeded),
            ("failed", view.counts.failed),
            ("cancelled", view.counts.cancelled),
            ("missed", view.counts.missed),
        ] {
            let labels = format!("{{{labels},{}}}", label("outcome", outcome));
            transactions.push((labels, count as f64));
        }
    }
    vec![
        ("balter_node_peers", "gauge", "Nodes of the cluster.", peers.into_iter().collect()),
        ("balter_node_refused_requests_total", "counter", "Requests that were refused.", refused),
        ("balter_node_refused_gossip_total", "counter", "Datagrams that were refused.", gossip),
        ("balter_node_runs", "gauge", "Runs that the node knows.", states.into_iter().collect()),
        ("balter_run_goal_tps", "gauge", "Transactions a second asked for.", goal),
        ("balter_run_tps", "gauge", "Completed transactions a second.", tps),
        ("balter_run_instances", "gauge", "Scenario instances.", instances),
        ("balter_run_transactions_total", "counter", "Transactions by outcome.", transactions),
    ]
}
