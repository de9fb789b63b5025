//! A run that somebody else leads: what it may use comes from outside and ends by itself, and its
//! windows go there.

use std::sync::{Arc, Mutex, MutexGuard};

use super::aggregator::Control;
use super::budget::{Budget, Course};
use super::pool;
use super::window::ShardWindow;

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
