//! What a part has measured, on its way to the coordinator.

use std::sync::{Mutex, MutexGuard};

use balter_controllers::Outbox;
use tokio::sync::Notify;

use crate::engine::window::ShardWindow;
use crate::runtime::wire::{Delivery, Window};
use crate::statistics::Counts;

/// Windows that were sent and not confirmed. What comes beyond is merged.
const WINDOWS_ON_THE_WAY: usize = 8;

/// Where the aggregator's thread leaves windows, and where they are fetched to be sent.
pub(super) struct Sink {
    inner: Mutex<Measured>,
    /// There is something to report.
    pub(super) changed: Notify,
}

struct Measured {
    outbox: Outbox<Measurement>,
    /// The grant that is held.
    holds: u64,
    /// The one that was held when the current window began.
    began_under: u64,
    counts: Counts,
    instances: u32,
}

struct Measurement {
    window: ShardWindow,
    grant: u64,
}

impl Sink {
    pub(super) fn new() -> Self {
        Self {
            inner: Mutex::new(Measured {
                outbox: Outbox::new(WINDOWS_ON_THE_WAY),
                holds: 0,
                began_under: 0,
                counts: Counts::default(),
                instances: 0,
            }),
            changed: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Measured> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Takes in a window of all shards.
    pub(super) fn window(&self, window: &ShardWindow) {
        let mut own = ShardWindow::new(window.punctual.is_some());
        own.append(window);
        let mut inner = self.lock();
        inner.counts.add(&window.counts());
        inner.instances = window.instances;
        let measurement = Measurement { window: own, grant: inner.began_under };
        inner.began_under = inner.holds;
        inner.outbox.push(measurement, |sum, next| sum.window.append(&next.window));
        drop(inner);
        self.changed.notify_one();
    }

    /// The coordinator has all windows up to this number, and this grant is held from now on.
    pub(super) fn granted(&self, holds: u64, confirmed: u64) {
        let mut inner = self.lock();
        inner.holds = holds;
        inner.outbox.confirmed(confirmed);
    }

    /// The first window begins.
    pub(super) fn begins(&self) {
        let mut inner = self.lock();
        inner.began_under = inner.holds;
    }

    /// There is a new connection, over which everything that is not confirmed is sent again.
    pub(super) fn reconnected(&self) {
        self.lock().outbox.reconnected();
    }

    /// What is to be sent now, and whether everything has been sent and confirmed.
    pub(super) fn deliveries(&self) -> (Vec<Delivery>, bool) {
        let mut inner = self.lock();
        let mut deliveries = Vec::new();
        while let Some((number, measurement)) = inner.outbox.send() {
            let window = Some(Window::of(&measurement.window));
            deliveries.push(Delivery { number, grant: measurement.grant, window });
        }
        (deliveries, inner.outbox.is_empty())
    }

    /// What has been done so far, and by how many instances now.
    pub(super) fn counts(&self) -> (Counts, u32) {
        let inner = self.lock();
        (inner.counts, inner.instances)
    }
}
