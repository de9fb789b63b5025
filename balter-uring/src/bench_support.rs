//! What the benches of this repository measure of the inside. Not for use, and free to change.

use std::time::{Duration, Instant};

use balter_controllers::Window;

use crate::engine::recorder::histogram;
use crate::engine::totals::{Totals, for_controllers};
use crate::engine::window::{Outcome, ShardWindow, Times};
use crate::observe::Published;
use crate::transaction::TransactionMeta;

pub use crate::ring::floor;
#[cfg(feature = "rt")]
pub use crate::runtime::lead_cost::{LeadCost, lead};

/// What merging has cost.
#[derive(Clone, Copy, Debug)]
pub struct MergeCost {
    /// Time of the aggregator's thread, all windows together.
    pub spent: Duration,
    /// Windows merged.
    pub windows: u64,
    /// Transactions that were recorded in them.
    pub recorded: u64,
    /// Transactions that the totals have counted: as many.
    pub counted: u64,
}

/// Who is told of the windows beside the statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nobody.
    Nobody,
    /// An observer, as by `on_progress`.
    Observer,
    /// The metrics recorder of the thread that merges.
    Recorder,
}

static TRANSACTION: TransactionMeta = TransactionMeta::new("merged", "balter_uring::bench_support");

/// Merges `rounds` windows of each of `shards` shards as the aggregator does: into the totals,
/// for the controllers, for whoever is told of them, and empties them for their next use.
///
/// Each window has one transaction of an open loop, with its three histograms, recorded
/// `transactions` times. Only the merging is timed, not the recording.
#[must_use]
pub fn merge(shards: usize, rounds: usize, transactions: u64, told: Told) -> MergeCost {
    let mut totals = Totals::new(0..shards);
    let mut interval = (told == Told::Observer).then(histogram);
    let mut published = (told == Told::Recorder).then(|| Published::new("merged", 0..shards));
    // As on the shards: each window is an allocation of its own, used again.
    let mut windows: Vec<_> = (0..shards).map(|_| Box::new(ShardWindow::new(true))).collect();
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut spent = Duration::ZERO;
    for _ in 0..rounds {
        for window in &mut windows {
            fill(window, transactions, &mut random);
        }
        let begun = Instant::now();
        let mut tick = Window::default();
        for (part, window) in windows.iter_mut().enumerate() {
            totals.add(part, window, interval.as_mut());
            if let Some(published) = &mut published {
                published.window(part, window);
            }
            tick.merge(&for_controllers(window));
            window.reset();
        }
        std::hint::black_box(&tick);
        spent += begun.elapsed();
        // An observer is shown its interval, which is emptied then, about once in ten windows;
        // that is no part of a merge.
        if let Some(interval) = &mut interval {
            interval.reset();
        }
    }
    let windows = (shards * rounds) as u64;
    let counted = totals.counts().completed();
    MergeCost { spent, windows, recorded: windows * transactions, counted }
}

/// Response times as a target gives them: most near the shortest, some a hundred times as long, so
/// that the histograms are filled as widely as they are in a run.
fn fill(window: &mut ShardWindow, transactions: u64, random: &mut u64) {
    let start_ns = window.end_ns;
    window.start_ns = start_ns;
    window.end_ns = start_ns + 100_000_000;
    window.planned = transactions;
    window.started = transactions;
    for _ in 0..transactions {
        // xorshift64: any spread will do.
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        let uniform = *random % 1_000_000 + 1;
        let service = 40_000 + 40_000_000 / uniform.min(10_000) + uniform / 20;
        let lag = *random >> 48 & 0x7FFF;
        let (intended, start) = (start_ns, start_ns + lag);
        let times = Times { intended, start, end: start + service, late: lag };
        window.record(&TRANSACTION, times, Outcome::Succeeded);
    }
}
