//! What leading a run costs, for the bench of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use balter_controllers::Timetable;
use prost::Message as _;
use tokio::sync::{mpsc, watch};

use super::member::Member;
use super::{Lead, PROTOCOL};
use crate::engine::budget::shares;
use crate::engine::steering::Steering;
use crate::engine::window::{Outcome, ShardWindow, Times};
use crate::runtime::node::Node;
use crate::runtime::peers::{Peer, PeerState};
use crate::runtime::registry::Registry;
use crate::runtime::request::RunRequest;
use crate::runtime::runs::Runs;
use crate::runtime::wire::{Delivery, Report, Window};
use crate::runtime::worker::Workers;
use crate::runtime::{RunLimits, RuntimeConfig};
use crate::scenario::{Scenario, scenario};
use crate::transaction::TransactionMeta;

/// Processor time for one window of all nodes.
#[derive(Clone, Copy, Debug)]
pub struct LeadCost {
    /// Of the coordinator: decode and merge the nodes' windows, decide, split, and encode the grants.
    pub coordinator: Duration,
    /// Of each node: merge its shards' windows, encode the sum, and split its share.
    pub node: Duration,
    /// Bytes of a node's report.
    pub report: usize,
    /// Transactions that the coordinator counted, of those that were recorded.
    pub counted: (u64, u64),
}

static TRANSACTION: TransactionMeta = TransactionMeta::new("led", "balter_uring::bench_support");

fn window(transactions: u64, random: &mut u64) -> ShardWindow {
    let mut window = ShardWindow::new(true);
    (window.start_ns, window.end_ns) = (0, 1_000_000_000);
    (window.planned, window.started) = (transactions, transactions);
    for _ in 0..transactions {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        // From a millisecond to two hundred, the short ones more often.
        let service = 1_000_000 << (*random % 8);
        let service = service + *random % service;
        let times = Times { intended: 0, start: *random % 50_000, end: service, late: 0 };
        window.record(&TRANSACTION, times, Outcome::Succeeded);
    }
    window
}

fn searched() -> Scenario {
    let scenario = scenario("led", (), |()| async {});
    scenario.tps(1_000_000).latency(Duration::from_millis(500), 0.99)
}

/// A run of so many nodes that nobody is connected to.
pub(super) fn to_be_led(nodes: usize) -> Lead {
    let peers = (0..nodes).map(|index| Peer {
        name: index.to_string(),
        address: ([127, 0, 0, 1], 1).into(),
        version: String::new(),
        protocol: PROTOCOL,
        scenarios: Vec::new(),
        cores: 1,
        state: PeerState::Alive,
        reason: None,
        is_self: false,
    });
    let (_, peers) = watch::channel(Arc::new(peers.collect::<Vec<_>>()));
    let (_, leaving) = watch::channel(false);
    let config = RuntimeConfig { limits: RunLimits::default(), ..RuntimeConfig::default() };
    let node = Node {
        name: "0".into(),
        boot: 0,
        version: "".into(),
        config: Arc::new(config),
        registry: Registry,
        runs: Runs::default(),
        workers: Workers::default(),
        peers,
        leaving,
    };
    let (mut lead, _) = Lead::new(&node, RunRequest::default(), searched());
    lead.set_goal();
    lead.members.extend(
        (0..nodes).map(|index| Member::new(&index.to_string(), ([127, 0, 0, 1], 1).into())),
    );
    (lead.start_ns, lead.end_ns) = (1, u64::MAX);
    lead
}

/// Leads `nodes` nodes of `shards` shards through `rounds` windows, each node with `transactions`
/// in each.
#[must_use]
pub fn lead(nodes: usize, shards: usize, rounds: usize, transactions: u64) -> Vec<LeadCost> {
    let mut lead = to_be_led(nodes);
    let mut inboxes = Vec::new();
    for member in &mut lead.members {
        let (commands, inbox) = mpsc::channel(4);
        inboxes.push(inbox);
        member.commands = Some(commands);
    }
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut holds = vec![0; nodes];
    let mut costs = Vec::new();
    let mut recorded = 0;
    for round in 0..=rounds {
        let reports: Vec<_> = holds
            .iter()
            .map(|&holds| {
                // The first round is to be granted something at all.
                let windows = match round {
                    0 => Vec::new(),
                    _ => {
                        recorded += transactions;
                        let window = Window::of(&window(transactions, &mut random));
                        vec![Delivery { number: round as u64, grant: holds, window: Some(window) }]
                    }
                };
                let report = Report {
                    boot: 1,
                    shards: shards as u32,
                    stamp_ns: 1,
                    holds,
                    ready: true,
                    windows,
                    ..Report::default()
                };
                report.encode_to_vec()
            })
            .collect();

        let begun = Instant::now();
        for (index, bytes) in reports.iter().enumerate() {
            lead.report(index, Report::decode(&bytes[..]).expect("what was encoded"));
        }
        let now = lead.clock.now();
        lead.decide(now);
        lead.grant(now);
        let mut length = 0;
        for (inbox, holds) in inboxes.iter_mut().zip(&mut holds) {
            while let Ok(command) = inbox.try_recv() {
                length += command.encode_to_vec().len();
                *holds = command.grant.map_or(*holds, |grant| grant.number);
            }
        }
        let coordinator = begun.elapsed();
        assert!(length > 0, "everybody is answered");
        let counted = (lead.steering.totals.counts().completed(), recorded);
        if round > 0 {
            let node = node_cost(shards, transactions / shards as u64, &mut random);
            costs.push(LeadCost { coordinator, node, report: reports[0].len(), counted });
        }
    }
    costs
}

fn node_cost(shards: usize, transactions: u64, random: &mut u64) -> Duration {
    let windows: Vec<_> = (0..shards).map(|_| window(transactions, random)).collect();
    let mut scenario = searched();
    let mut steering = Steering::new(scenario.settle(u32::MAX), 0..shards);
    let mut whole = ShardWindow::new(true);
    let begun = Instant::now();
    for (part, window) in windows.iter().enumerate() {
        steering.add(part, window, None);
        whole.merge(window);
    }
    let length = Window::of(&whole).encode_to_vec().len();
    let budget = steering.budget();
    let table = Timetable::new(0, budget.tps);
    let shares = shares(steering.load, &table, budget.concurrency, u32::MAX, shards);
    let spent = begun.elapsed();
    assert!(length > 0 && shares.len() == shards);
    spent
}
