//! What an observer is shown of a run.

use std::time::Duration;

use balter_controllers::Window;
use hdrhistogram::Histogram;

use super::recorder::histogram;
use crate::config::{Observer, Progress};
use crate::statistics::Counts;

pub(super) const CALLBACK_PANICKED: &str =
    "the progress callback panicked and was not called again";

/// What an observer is shown next.
pub(super) struct Observed {
    observer: Observer,
    pub(super) response: Histogram<u64>,
    window: Window,
    /// How long the run had gone on when it was last shown, and what had been counted.
    shown_ns: u64,
    counts: Counts,
    /// It has panicked.
    pub(super) failing: bool,
}

impl Observed {
    pub(super) fn new(observer: Observer) -> Self {
        Self {
            observer,
            response: histogram(),
            window: Window::default(),
            shown_ns: 0,
            counts: Counts::default(),
            failing: false,
        }
    }

    pub(super) fn add(&mut self, window: &Window) {
        self.window.append(window);
    }

    /// Shows what has been added, if it is time: by the windows, which are of equal lengths, and not
    /// by when they came. `counts` are those of the whole run: of a shard that was late they have
    /// all, where the windows have what belongs to their time.
    pub(super) fn show(
        &mut self,
        scenario: &'static str,
        goal_tps: u32,
        elapsed_ns: u64,
        counts: Counts,
    ) {
        let since_ns = elapsed_ns.saturating_sub(self.shown_ns);
        if u128::from(since_ns) < self.observer.every.as_nanos() || self.failing {
            return;
        }
        self.shown_ns = elapsed_ns;
        let before = std::mem::replace(&mut self.counts, counts);
        let window = std::mem::take(&mut self.window);
        let quantile = |quantile| Duration::from_nanos(self.response.value_at_quantile(quantile));
        let progress = Progress {
            scenario,
            elapsed: Duration::from_nanos(elapsed_ns),
            goal_tps,
            tps: window.throughput(),
            failed: counts.failed.saturating_sub(before.failed),
            missed: counts.missed.saturating_sub(before.missed),
            backlog: window.backlog,
            instances: window.instances,
            in_flight: window.in_flight,
            p50: quantile(0.5),
            p99: quantile(0.99),
            busy: window.busy,
        };
        self.response.reset();
        if !self.observer.show(&progress) {
            self.failing = true;
            tracing::error!(scenario, "{CALLBACK_PANICKED}");
        }
    }
}
