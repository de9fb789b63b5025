//! What the aggregator spends on merging the shards' windows.
//!
//! Each shard sends ten windows a second. Here each has one transaction with its three histograms;
//! further transactions cost as much again.
//!
//! ```text
//! cargo bench --bench aggregate
//! ```

#[path = "support/harness.rs"]
mod harness;

use balter_uring::bench_support::{MergeCost, Told, merge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use harness::{Claim, Plan, Series, Table, interleave};

/// Windows a second of each shard.
const WINDOWS_PER_SECOND: f64 = 10.0;

/// Transactions in a window: a shard's share of a million a second over all 64.
const TRANSACTIONS: u64 = 1_600;

/// For which the claim is made.
const CLAIMED_SHARDS: usize = 64;

const MOST_OF_A_CORE: Claim = Claim::AtMost(5.0);

fn main() {
    let plan = Plan::from_environment();
    plan.announce("aggregate");
    let who = [Who::Nobody, Who::Observer, Who::NoRecorder, Who::Prometheus];
    let contenders: Vec<_> = [1, 8, CLAIMED_SHARDS, 128]
        .into_iter()
        .flat_map(|shards| who.map(|who| (shards, who)))
        .collect();
    let recorder = PrometheusBuilder::new().build_recorder();
    let measured = interleave(plan.repetitions, &contenders, |&(shards, who)| {
        // As many windows for all, so that each measurement takes about as long.
        let rounds = if plan.quick { 2 } else { (2_048 / shards).max(16) };
        let cost = who.merge(shards, rounds, &recorder);
        assert_eq!(cost.windows, (shards * rounds) as u64, "every window is merged");
        assert_eq!(cost.counted, cost.recorded, "what was recorded is counted, once");
        cost
    });
    let mut table = Table::new(
        "merging windows, each of one transaction with three histograms",
        &["shards", "µs a window", "(min–max)", "% of a core at 10 Hz", "claim"],
    );
    for (&(shards, who), costs) in contenders.iter().zip(&measured) {
        let each = Series::new(costs.iter().map(micros_each));
        let share = each.median() * WINDOWS_PER_SECOND * shards as f64 / 1e6 * 100.0;
        table.row([
            format!("{shards}{}", who.label()),
            format!("{:.1}", each.median()),
            each.range(1),
            format!("{share:.2}"),
            if shards == CLAIMED_SHARDS && who.is_claimed() {
                MOST_OF_A_CORE.judge("% of a core", share)
            } else {
                String::new()
            },
        ]);
    }
    table.print();
    println!("  observed: a run with `on_progress`, for which response times are merged twice");
    println!("  no recorder: with the feature `metrics`, in a process that installed none");
    println!(
        "  exported: to metrics-exporter-prometheus, which keeps each time by itself until it"
    );
    println!("  is scraped or five seconds have passed; what it then does is not in these figures");
}

/// Who is told of the windows beside the statistics.
#[derive(Clone, Copy)]
enum Who {
    Nobody,
    Observer,
    NoRecorder,
    Prometheus,
}

impl Who {
    fn label(self) -> &'static str {
        match self {
            Self::Nobody => "",
            Self::Observer => ", observed",
            Self::NoRecorder => ", no recorder",
            Self::Prometheus => ", exported",
        }
    }

    /// What an exporter does with what it is told is its own.
    fn is_claimed(self) -> bool {
        !matches!(self, Self::Prometheus)
    }

    fn merge(self, shards: usize, rounds: usize, recorder: &PrometheusRecorder) -> MergeCost {
        match self {
            Self::Nobody => merge(shards, rounds, TRANSACTIONS, Told::Nobody),
            Self::Observer => merge(shards, rounds, TRANSACTIONS, Told::Observer),
            Self::NoRecorder => merge(shards, rounds, TRANSACTIONS, Told::Recorder),
            Self::Prometheus => {
                let cost = metrics::with_local_recorder(recorder, || {
                    merge(shards, rounds, TRANSACTIONS, Told::Recorder)
                });
                // It would keep what it was told of all rounds.
                recorder.handle().run_upkeep();
                cost
            }
        }
    }
}

fn micros_each(cost: &MergeCost) -> f64 {
    cost.spent.as_nanos() as f64 / 1e3 / cost.windows as f64
}
