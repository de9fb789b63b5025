//! What an observer is shown of a run.

use std::time::{Duration, Instant};

use balter_controllers::Window;
use hdrhistogram::Histogram;

use super::recorder::histogram;
use crate::config::{Observer, Progress};

pub(super) const CALLBACK_PANICKED: &str =
    "the progress callback panicked and was not called again";

/// What an observer is shown next.
pub(super) struct Observed {
    observer: Observer,
    pub(super) response: Histogram<u64>,
    window: Window,
    shown: Instant,
    /// It has panicked.
    pub(super) failing: bool,
}

impl Observed {
    pub(super) fn new(observer: Observer) -> Self {
        Self {
            observer,
            response: histogram(),
            window: Window::default(),
            shown: Instant::now(),
            failing: false,
        }
    }

    pub(super) fn add(&mut self, window: &Window) {
        let sum = &mut self.window;
        sum.length_ns += window.length_ns;
        sum.succeeded += window.succeeded;
        sum.failed += window.failed;
        sum.missed += window.missed;
        sum.backlog = window.backlog;
        sum.instances = window.instances;
        sum.in_flight = window.in_flight;
        sum.busy = window.busy;
    }

    pub(super) fn show(&mut self, scenario: &'static str, goal_tps: u32, elapsed_ns: u64) {
        if self.shown.elapsed() < self.observer.every || self.failing {
            return;
        }
        self.shown = Instant::now();
        let window = std::mem::take(&mut self.window);
        let quantile = |quantile| Duration::from_nanos(self.response.value_at_quantile(quantile));
        let progress = Progress {
            scenario,
            elapsed: Duration::from_nanos(elapsed_ns),
            goal_tps,
            tps: window.throughput(),
            failed: window.failed,
            missed: window.missed,
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
