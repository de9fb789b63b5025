//! All that this crate asks of glommio: a pinned executor, tasks, a yield.
//!
//! Every call stands here, so that another release or a fork replaces it in one place.
//! What glommio 0.9.0 needs to be spared: a panic in a task unwinds through its loop (tasks are
//! guarded), it ends the process where io_uring is missing (preflight comes first), executors that
//! are created and dropped leak (shards live as long as the process), it may go to sleep although
//! tasks are ready (see [`doorbell`](super::doorbell)).

use std::future::Future;
use std::time::Duration;

use super::doorbell::Doorbell;

use glommio::{LocalExecutorBuilder, Placement, PoolPlacement};

/// How long tasks may keep glommio from its own reactor, which serves its timers and wakes from
/// other threads: those can be late by so much. Its default is 100 ms. One millisecond, on the
/// other hand, is less than a thread waits for its turn on a busy core: see
/// [`doorbell`](super::doorbell).
const PREEMPT: Duration = Duration::from_millis(10);

/// glommio registers this much memory for direct file I/O, which a load generator does not do.
const IO_MEMORY: usize = 64 << 10;

/// Starts a thread pinned to `core` that runs the future which `make` makes there.
///
/// # Errors
/// What kept the executor from starting.
pub(crate) fn spawn_pinned<G, F>(core: usize, make: G) -> Result<(), String>
where
    G: FnOnce() -> F + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    LocalExecutorBuilder::new(Placement::Fixed(core))
        .name(&format!("balter-shard-{core}"))
        .io_memory(IO_MEMORY)
        .preempt_timer(PREEMPT)
        // By default its helper thread is pinned to the shard's own core.
        .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
        .spawn(move || async move {
            // The first sleep of a process registers with membarrier(2), which can take 80 ms.
            glommio::timer::sleep(Duration::from_micros(1)).await;
            let doorbell = Doorbell::new();
            spawn_local(doorbell.answer());
            make().await;
            drop(doorbell);
        })
        .map(drop)
        .map_err(|error| error.to_string())
}

/// Runs a future on this thread's executor, to its end.
pub(crate) fn spawn_local(future: impl Future<Output = ()> + 'static) {
    glommio::spawn_local(future).detach();
}

/// Lets every other task that is ready run once.
pub(crate) async fn yield_now() {
    futures_lite::future::yield_now().await;
}
