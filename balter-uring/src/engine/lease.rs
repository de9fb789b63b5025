//! A run that somebody else leads: what it may use comes from outside and ends by itself, and its
//! windows go there.

use std::sync::{Arc, Mutex, MutexGuard};

use super::aggregator::Control;
use super::budget::{Budget, Course};
use super::pool;
use super::window::ShardWindow;
use crate::config::Load;

/// What the run may use, until when on the engine's clock, and how it is to go on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub(crate) budget: Budget,
    /// Instances that there may be at all.
    pub(crate) most: u32,
    pub(crate) until_ns: u64,
    pub(crate) course: Course,
}

/// Ties a run to who leads it.
pub(crate) struct Lease {
    told: Mutex<Told>,
    report: Box<dyn Fn(&ShardWindow) + Send + Sync>,
}

impl Lease {
    /// `report` is handed each window of all shards together, by the aggregator's thread.
    pub(crate) fn new(report: impl Fn(&ShardWindow) + Send + Sync + 'static) -> Arc<Self> {
        let told = Told { budget: Budget::default(), most: 0, until_ns: 0, course: Course::Run };
        Arc::new(Self { told: Mutex::new(told), report: Box::new(report) })
    }

    /// Tells the run what it may use.
    pub(crate) fn tell(&self, told: Told) {
        let mut place = self.lock();
        *place = Told { course: place.course.max(told.course), ..told };
        drop(place);
        pool::aggregator().send(Control::Told);
    }

    pub(super) fn told(&self) -> Told {
        *self.lock()
    }

    pub(super) fn report(&self, window: &ShardWindow) {
        (self.report)(window);
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A run under a lease, between two readings of the engine's clock.
#[derive(Clone)]
pub(crate) struct Leased {
    pub(crate) lease: Arc<Lease>,
    pub(crate) start_ns: u64,
    /// `u64::MAX` for a run that ends when it is told to.
    pub(crate) end_ns: u64,
}

/// Who leads a run from outside, and what they have not been told yet.
pub(super) struct Led {
    pub(super) lease: Arc<Lease>,
    /// Counts and times of the shards' windows since the last report, merged.
    window: ShardWindow,
    parts: Vec<LedPart>,
    /// Up to here reports have been made.
    told_ns: u64,
    pub(super) has_ended: bool,
}

/// How a shard stands, and what it has spent its time on since the last report. A shard that was
/// late may have several windows or none in a report, and is one shard all the same.
#[derive(Clone, Default)]
struct LedPart {
    backlog: u64,
    instances: u32,
    in_flight: u32,
    idle_ns: u64,
    length_ns: u64,
}

impl Led {
    pub(super) fn new(lease: Arc<Lease>, load: Load, start_ns: u64, parts: usize) -> Self {
        Self {
            lease,
            window: ShardWindow::new(load.is_open()),
            parts: vec![LedPart::default(); parts],
            told_ns: start_ns,
            has_ended: false,
        }
    }

    pub(super) fn merge(&mut self, part: usize, window: &ShardWindow) {
        self.window.merge(window);
        let part = &mut self.parts[part];
        (part.backlog, part.in_flight) = (window.backlog, window.in_flight);
        // In the last window all have left, which is no news of the run.
        if !window.last {
            part.instances = window.instances;
        }
        part.idle_ns += window.idle_ns;
        part.length_ns += window.end_ns.saturating_sub(window.start_ns);
    }

    pub(super) fn lose(&mut self, part: usize) {
        self.parts[part] = LedPart::default();
    }

    /// Tells of everything since the last report. What a shard tells of late may lie before that:
    /// it waits for the next window of another, so that all counts are of some time.
    pub(super) fn report(&mut self, last: bool) {
        let window = &mut self.window;
        let end_ns = window.end_ns.max(self.told_ns);
        if end_ns == self.told_ns && !last {
            return;
        }
        (window.start_ns, window.end_ns) = (self.told_ns, end_ns);
        (window.backlog, window.instances, window.in_flight) = (0, 0, 0);
        // Of the busiest shard.
        let mut idle = 1.0_f64;
        for part in &mut self.parts {
            window.backlog += part.backlog;
            window.instances += part.instances;
            window.in_flight += part.in_flight;
            if part.length_ns > 0 {
                idle = idle.min(part.idle_ns as f64 / part.length_ns as f64);
            }
            (part.idle_ns, part.length_ns) = (0, 0);
        }
        window.idle_ns = (idle * (end_ns - self.told_ns) as f64) as u64;
        self.told_ns = end_ns;
        window.last = last;
        self.has_ended |= last;
        self.lease.report(window);
        window.reset();
    }
}
