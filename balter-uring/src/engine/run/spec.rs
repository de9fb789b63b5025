//! What a shard is told of a run, and what it sends back.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use balter_controllers::Arrival;
use crossbeam_channel::{Receiver, Sender};

use crate::engine::budget::BudgetSlot;
use crate::engine::window::ShardWindow;
use crate::userland;

/// Makes the future of one scenario instance.
pub(crate) trait Factory: Send {
    fn make(&self) -> Pin<Box<dyn Future<Output = ()>>>;
    fn boxed_clone(&self) -> Box<dyn Factory>;
}

/// A factory on the engine's side. Dropping it drops the scenario's arguments, which is user code:
/// its panic must not end a shard or the aggregator.
pub(crate) struct Maker(Option<Box<dyn Factory>>);

impl Maker {
    pub(crate) fn new(factory: Box<dyn Factory>) -> Self {
        Self(Some(factory))
    }

    pub(super) fn factory(&self) -> &dyn Factory {
        self.0.as_deref().expect("taken by `drop` alone")
    }

    pub(crate) fn boxed_clone(&self) -> Self {
        Self::new(self.factory().boxed_clone())
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        userland::let_go(self.0.take());
    }
}

/// A window on its way to the aggregator.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) run: u64,
    /// Index of the shard among those of the run.
    pub(crate) part: u32,
    pub(crate) window: Box<ShardWindow>,
}

/// What a shard is told of a run.
pub(crate) struct RunSpec {
    pub(crate) run: u64,
    pub(crate) part: u32,
    pub(crate) parts: u32,
    pub(crate) factory: Maker,
    pub(crate) slot: Arc<BudgetSlot>,
    /// Open loop: transactions wait for permits. Closed: they start when an instance is free.
    pub(crate) open: bool,
    /// Closed, with as many instances as the share has, whatever they do.
    pub(crate) fixed: bool,
    pub(crate) arrival: Arrival,
    /// Instances to begin with, on this shard.
    pub(crate) initial: u32,
    pub(crate) start_ns: u64,
    /// `u64::MAX` for a run without end.
    pub(crate) end_ns: u64,
    pub(crate) window_ns: u64,
    pub(crate) timeout_ns: u64,
    pub(crate) grace_ns: u64,
    pub(crate) reports: Sender<Report>,
    /// Emptied windows come back here.
    pub(crate) returned: Receiver<Box<ShardWindow>>,
}

/// Windows of a shard that may be with the aggregator at a time. When it is slower than that, the
/// current window just grows longer.
pub(crate) const WINDOWS_IN_FLIGHT: usize = 3;
