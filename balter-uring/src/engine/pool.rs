//! The shards of this process: created when first wanted, one a core, and never given up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, OnceLock};

use super::aggregator::{self, AggregatorHandle, Control};
use super::executor;
use super::run::Maker;
use super::shard::{self, Command, ShardHandle};
use crate::RunError;
use crate::config::RunConfig;
use crate::cores;
use crate::preflight::{self, PreflightError};

#[derive(Default)]
struct Pool {
    shards: BTreeMap<usize, ShardHandle>,
    /// Cores that test targets have taken: runs leave them alone unless told otherwise.
    taken: BTreeSet<usize>,
}

static POOL: Mutex<Option<Pool>> = Mutex::new(None);
static AGGREGATOR: OnceLock<AggregatorHandle> = OnceLock::new();

fn pool() -> MutexGuard<'static, Option<Pool>> {
    // Whatever was inserted before a panic stands for itself.
    POOL.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The thread that leads all runs of the process.
pub(crate) fn aggregator() -> &'static AggregatorHandle {
    AGGREGATOR.get_or_init(aggregator::spawn)
}

/// Shards that are ready for a run.
pub(crate) struct Prepared {
    pub(crate) shards: Vec<ShardHandle>,
    /// One for each.
    pub(crate) factories: Vec<Maker>,
}

/// Sees to it that the shards for a run are there.
///
/// # Errors
/// What preflight found, or what kept a shard from starting.
pub(crate) fn prepare(config: &RunConfig, factory: &Maker) -> Result<Prepared, RunError> {
    let allowed = cores::allowed();
    let mut guard = pool();
    let pool = guard.get_or_insert_default();
    let taken: Vec<_> = pool.taken.iter().copied().collect();
    let cores = match cores::choose(config.cores.as_deref(), &allowed, &taken) {
        // With one core in all, a target and the load it gets share a shard.
        Err(PreflightError::NoCores { .. }) if config.cores.is_none() && !taken.is_empty() => taken,
        chosen => chosen?,
    };
    let shards =
        cores.iter().map(|&core| pool.shard(core, &cores)).collect::<Result<Vec<_>, _>>()?;
    #[cfg(feature = "tokio")]
    pool.start_tokio(&allowed)?;
    drop(guard);
    // Here, since cloning the scenario's arguments is user code, which may panic: that must hit
    // neither the aggregator nor other runs.
    let factories = shards.iter().map(|_| factory.boxed_clone()).collect();
    Ok(Prepared { shards, factories })
}

/// The shard of a core, for a service; the core is left alone by runs from then on.
///
/// # Errors
/// As [`prepare`].
pub(crate) fn take(core: Option<usize>) -> Result<ShardHandle, RunError> {
    let allowed = cores::allowed();
    let mut guard = pool();
    let pool = guard.get_or_insert_default();
    let core = match core {
        Some(core) => cores::choose(Some(&[core]), &allowed, &[])?[0],
        // The last: runs begin at the first, and the system's own work is often there too.
        None => *allowed.last().ok_or(PreflightError::NoCores { allowed: String::new() })?,
    };
    let shard = pool.shard(core, &[core])?;
    pool.taken.insert(core);
    Ok(shard)
}

/// Cores that have a shard.
pub(crate) fn shard_cores() -> Vec<usize> {
    pool().as_ref().map(|pool| pool.shards.keys().copied().collect()).unwrap_or_default()
}

impl Pool {
    fn shard(&mut self, core: usize, wanted: &[usize]) -> Result<ShardHandle, RunError> {
        if let Some(shard) = self.shards.get(&core) {
            return Ok(shard.clone());
        }
        // Anew for each, since every shard there is needs its descriptors.
        let missing = wanted.iter().filter(|core| !self.shards.contains_key(core)).count();
        let descriptors = preflight::check(self.shards.len() + missing)?;
        let shard = spawn(core, descriptors)?;
        self.shards.insert(core, shard.clone());
        Ok(shard)
    }

    #[cfg(feature = "tokio")]
    fn start_tokio(&self, allowed: &[usize]) -> Result<(), PreflightError> {
        let shards: Vec<_> = self.shards.keys().copied().collect();
        crate::tokio_context::start(allowed, &shards)
            .map_err(|reason| PreflightError::Tokio { reason })
    }

    fn forget(&mut self, core: usize) {
        self.shards.remove(&core);
    }
}

/// Tells that a shard's thread has ended, whatever ended it.
struct Obituary {
    core: usize,
}

impl Drop for Obituary {
    fn drop(&mut self) {
        if let Some(pool) = &mut *pool() {
            pool.forget(self.core);
        }
        if let Some(aggregator) = AGGREGATOR.get() {
            aggregator.send(Control::ShardLost { core: self.core });
        }
    }
}

fn spawn(core: usize, max_sockets: u32) -> Result<ShardHandle, PreflightError> {
    // Here rather than on the shard, whose first turn would be late by the calibration.
    super::clock::Clock::get();
    let failed = |reason: String| PreflightError::Shard { core, reason };
    let (ready, started) = crossbeam_channel::bounded(1);
    executor::spawn_pinned(core, move || async move {
        let _obituary = Obituary { core };
        shard::main(core, max_sockets, ready).await;
    })
    .map_err(failed)?;
    match started.recv() {
        Ok(Ok(handle)) => Ok(handle),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed("its thread ended while it started".to_owned())),
    }
}

/// Runs work on a shard, to start a service there.
pub(crate) fn execute(
    shard: &ShardHandle,
    work: impl FnOnce(&std::rc::Rc<shard::Shard>) + Send + 'static,
) -> bool {
    shard.send(Command::Execute(Box::new(work)))
}
