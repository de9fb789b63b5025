//! Keeps glommio from sleeping while tasks are ready.
//!
//! glommio 0.9.0 arms its preemption timer, then runs what is ready. A thread that is kept off its
//! core just in between, for longer than that timer, finds itself preempted before it has run
//! anything. `run_task_queues` answers `false` then, which the loop takes for having nothing to
//! run, and it sleeps until something comes from outside. On a busy machine this happens within
//! minutes, and without help the shard hangs for good. A timer in the same executor does not
//! help: the task that would arm it again may be among those that are not run.
//!
//! So one thread of the process rings at every shard, a hundred times a second: it wakes a task
//! that has nothing to do, which is something from outside.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Once, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

/// A shard that fell asleep wrongly is up again after this. It costs an idle shard a wake.
const EVERY: Duration = Duration::from_millis(10);

/// A shard that does not answer for so many rings is blocked by user code. Each ring is queued
/// there, as a reference that a 16-bit counter of glommio's counts, so it is then rung seldom.
const PATIENCE: u32 = 100;

struct Bell {
    waker: Waker,
    /// Rings since the shard last answered. Gone with the shard.
    unanswered: Weak<AtomicU32>,
}

static BELLS: Mutex<Vec<Bell>> = Mutex::new(Vec::new());
static RINGER: Once = Once::new();

/// A shard's hold on its bell, to be kept as long as the shard lives.
pub(super) struct Doorbell {
    unanswered: Arc<AtomicU32>,
}

impl Doorbell {
    pub(super) fn new() -> Self {
        RINGER.call_once(|| {
            let ringer = std::thread::Builder::new().name("balter-doorbell".to_owned());
            if let Err(error) = ringer.spawn(ring) {
                tracing::error!(%error, "shards may fall asleep: the doorbell has no thread");
            }
        });
        Self { unanswered: Arc::new(AtomicU32::new(0)) }
    }

    /// The task that is rung at, for the shard's executor. It never ends.
    pub(super) fn answer(&self) -> impl Future<Output = ()> + use<> {
        let unanswered = Arc::downgrade(&self.unanswered);
        let mut hung = false;
        std::future::poll_fn(move |cx| {
            if let Some(unanswered) = unanswered.upgrade() {
                unanswered.store(0, Ordering::Relaxed);
            }
            if !std::mem::replace(&mut hung, true) {
                let bell = Bell { waker: cx.waker().clone(), unanswered: unanswered.clone() };
                BELLS.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(bell);
            }
            Poll::Pending
        })
    }
}

fn ring() {
    let mut round: u32 = 0;
    loop {
        std::thread::sleep(EVERY);
        round = round.wrapping_add(1);
        let mut bells = BELLS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        bells.retain(|bell| bell.unanswered.strong_count() > 0);
        for bell in bells.iter() {
            let Some(unanswered) = bell.unanswered.upgrade() else { continue };
            if unanswered.fetch_add(1, Ordering::Relaxed) < PATIENCE
                || round.is_multiple_of(PATIENCE)
            {
                bell.waker.wake_by_ref();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use glommio::LocalExecutorBuilder;

    use super::*;

    /// Nothing else wakes this executor: without the ringer it sleeps for good after the first poll.
    #[test]
    fn a_sleeping_executor_is_woken_again_and_again() {
        let (done, woken) = crossbeam_channel::bounded(1);
        let executor = LocalExecutorBuilder::default().spawn(move || async move {
            let doorbell = Doorbell::new();
            let mut answer = pin!(doorbell.answer());
            let mut polls = 0;
            std::future::poll_fn(|cx| {
                polls += 1;
                let _ = answer.as_mut().poll(cx);
                if polls < 5 { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
            let _ = done.send(());
        });
        executor.expect("an executor starts");
        woken.recv_timeout(Duration::from_secs(60)).expect("it is woken");
    }
}
