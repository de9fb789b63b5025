//! The tokio runtime that the code of scenarios finds around itself under the feature `tokio`.
//!
//! One for the process. It has threads of its own, where its I/O and timers are served and tasks
//! of `tokio::spawn` run; on a shard there is only its context, so that what asks for "the current
//! runtime" finds one.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::runtime::{Builder, EnterGuard, Runtime};

static RUNTIME: OnceLock<Result<Context, String>> = OnceLock::new();

struct Context {
    runtime: Runtime,
    shares_cores: bool,
}

/// Starts the runtime, unless it is there. Its threads keep to those of the cores `allowed` that
/// have no shard, if there are such: a shard spins while it waits for answers, and whoever shares
/// its core waits with it.
///
/// # Errors
/// What kept it from starting.
pub(crate) fn start(allowed: &[usize], shards: &[usize]) -> Result<(), String> {
    RUNTIME.get_or_init(|| build(allowed, shards)).as_ref().map(drop).map_err(Clone::clone)
}

/// Puts this thread into the runtime's context until the guard is dropped; nothing where there is
/// no runtime.
#[inline]
pub(crate) fn enter() -> Option<EnterGuard<'static>> {
    RUNTIME.get()?.as_ref().ok().map(|context| context.runtime.enter())
}

/// Every core has a shard, so that the runtime's threads run on those.
pub(crate) fn shares_cores() -> bool {
    matches!(RUNTIME.get(), Some(Ok(context)) if context.shares_cores)
}

fn build(allowed: &[usize], shards: &[usize]) -> Result<Context, String> {
    let free: Vec<_> = allowed.iter().copied().filter(|core| !shards.contains(core)).collect();
    let shares_cores = free.is_empty();
    // A worker does about half of the work of a request, so one for each shard would be plenty.
    let workers =
        if shares_cores { shards.len().div_ceil(2) } else { free.len().min(shards.len()) };
    let cores = if shares_cores { allowed.to_vec() } else { free };
    let number = AtomicUsize::new(0);
    Builder::new_multi_thread()
        .worker_threads(workers.max(1))
        .thread_name_fn(move || format!("balter-tokio-{}", number.fetch_add(1, Ordering::Relaxed)))
        .on_thread_start(move || {
            let mut set = CpuSet::new();
            cores.iter().for_each(|&core| set.set(core));
            // Threads inherit the cores of the one that starts them, which may be a shard.
            if let Err(error) = sched_setaffinity(None, &set) {
                tracing::warn!(%error, "a thread of tokio shares the core of a shard");
            }
        })
        .enable_all()
        .build()
        .map(|runtime| Context { runtime, shares_cores })
        .map_err(|error| error.to_string())
}
