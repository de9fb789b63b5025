//! Wakes from other threads, delivered in the shard's own turn.
//!
//! glommio takes a wake from another thread in its own reactor, which a shard serves only when the
//! preemption timer has expired: up to 10 ms late. What tokio's threads wake would be that late
//! with every answer. So the code of a scenario is polled with a waker that, when it is used on
//! another thread, leaves the task in the shard's [`Inbox`] and ends the wait of its ring; the
//! driver's next turn then wakes the task as any other. On the shard's own thread it costs a lock
//! that nobody else takes.
//!
//! glommio's own wakers stay with the shard: they are dropped with their task, however long
//! another thread keeps what it was given.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};

use crossbeam_queue::SegQueue;

use crate::ring::{RingWaker, Wait};

/// An inbox in which nothing has come for so long is taken to be out of use.
const IN_USE_NS: u64 = 100_000_000;

thread_local! {
    /// Address of the inbox of the shard that this thread is, or 0.
    static HERE: Cell<usize> = const { Cell::new(0) };
}

/// The tasks of one shard that other threads have woken.
pub(crate) struct Inbox {
    woken: SegQueue<Arc<Remote>>,
    /// The driver waits in the ring, or is about to. Nobody else pays for a system call.
    waits: AtomicBool,
    /// When something last came, in nanoseconds of the clock.
    last_ns: AtomicU64,
    ring: RingWaker,
}

impl Inbox {
    /// For the calling thread, whose ring `ring` wakes.
    pub(crate) fn new(ring: RingWaker) -> Arc<Self> {
        let inbox = Arc::new(Self {
            woken: SegQueue::new(),
            waits: AtomicBool::new(false),
            last_ns: AtomicU64::new(0),
            ring,
        });
        HERE.set(inbox.address());
        inbox
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn is_here(&self) -> bool {
        HERE.get() == self.address()
    }

    /// Before the ring's turn: no wait if something has come, and from now on what comes ends it.
    pub(crate) fn before(&self, wait: Wait) -> Wait {
        if wait == Wait::No {
            return wait;
        }
        self.waits.store(true, Ordering::Relaxed);
        // With its counterpart in `push`: either this sees the entry, or `push` sees the wait.
        fence(Ordering::SeqCst);
        if self.woken.is_empty() { wait } else { Wait::No }
    }

    /// Something has come not long before `now`, and so may more.
    pub(crate) fn is_in_use(&self, now: u64) -> bool {
        now.saturating_sub(self.last_ns.load(Ordering::Relaxed)) < IN_USE_NS
    }

    /// After the ring's turn: wakes what has come, so that it runs in this turn.
    pub(crate) fn deliver(&self, now: u64) {
        self.waits.store(false, Ordering::Relaxed);
        if !self.woken.is_empty() {
            self.last_ns.store(now, Ordering::Relaxed);
        }
        // No more than there are now: others may go on waking while this goes on.
        for _ in 0..self.woken.len() {
            let Some(remote) = self.woken.pop() else { break };
            // A swap, so that what the waking thread has written is seen by the poll; before the
            // wake, so that one which comes during it is not lost.
            remote.queued.swap(false, Ordering::AcqRel);
            remote.wake_here();
        }
    }

    fn push(&self, remote: Arc<Remote>) {
        self.woken.push(remote);
        fence(Ordering::SeqCst);
        if self.waits.load(Ordering::Relaxed) && self.waits.swap(false, Ordering::Relaxed) {
            self.ring.wake();
        }
    }
}

/// A task's waker for use on any thread.
struct Remote {
    inbox: Arc<Inbox>,
    /// Lies in the inbox, or is about to.
    queued: AtomicBool,
    /// The executor's waker, as long as the task lives. Touched on the shard's thread alone, so the
    /// lock is never waited for.
    task: Mutex<Option<Waker>>,
}

impl Remote {
    fn task(&self) -> MutexGuard<'_, Option<Waker>> {
        self.task.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn wake_here(&self) {
        if let Some(task) = &*self.task() {
            task.wake_by_ref();
        }
    }
}

impl Wake for Remote {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.inbox.is_here() {
            self.wake_here();
        } else if !self.queued.swap(true, Ordering::AcqRel) {
            self.inbox.push(Arc::clone(self));
        }
    }
}

/// A task that other threads can wake at once.
pub(crate) struct Reachable<F> {
    task: F,
    remote: Arc<Remote>,
    /// Of `remote`, kept so that a poll need not make it.
    waker: Waker,
}

impl<F> Reachable<F> {
    pub(crate) fn new(inbox: &Arc<Inbox>, task: F) -> Self {
        let remote = Arc::new(Remote {
            inbox: Arc::clone(inbox),
            queued: AtomicBool::new(false),
            task: Mutex::new(None),
        });
        let waker = Waker::from(Arc::clone(&remote));
        Self { task, remote, waker }
    }
}

impl<F: Future + Unpin> Future for Reachable<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Self { task, remote, waker } = &mut *self;
        crate::waker::remember(&mut remote.task(), cx);
        Pin::new(task).poll(&mut Context::from_waker(waker))
    }
}

impl<F> Drop for Reachable<F> {
    fn drop(&mut self) {
        // Here and not when the last clone goes: that may be on another thread.
        let task = self.remote.task().take();
        drop(task);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::ring::Ring;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn elsewhere(waker: &Waker, times: u32) {
        std::thread::scope(|scope| {
            scope.spawn(|| (0..times).for_each(|_| waker.wake_by_ref()));
        });
    }

    #[test]
    fn a_wake_from_elsewhere_waits_for_the_turn_and_ends_the_wait() {
        let ring = Ring::new(1).expect("a ring");
        let inbox = Inbox::new(ring.waker());
        let count = Arc::new(Count::default());
        let woken = || count.0.load(Ordering::Relaxed);
        let mut lent = None;
        let waiting = std::future::poll_fn(|cx| {
            lent = Some(cx.waker().clone());
            Poll::<()>::Pending
        });
        let mut task = Reachable::new(&inbox, waiting);
        let waker = Waker::from(Arc::clone(&count));
        assert!(Pin::new(&mut task).poll(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        let task_waker = task.waker.clone();

        let long = Wait::AtMost(60_000_000_000);
        assert_eq!(inbox.before(long), long, "nothing has come");
        elsewhere(&task_waker, 3);
        assert_eq!(woken(), 0, "not on a thread that is not the shard's");
        // The ring has been woken: this would take a minute.
        ring.turn(long).expect("a turn");
        inbox.deliver(1);
        assert_eq!(woken(), 1, "three wakes before a turn are one");

        elsewhere(&task_waker, 1);
        assert_eq!(inbox.before(long), Wait::No, "what has come before the wait ends it too");
        inbox.deliver(2);
        assert_eq!(woken(), 2);

        task_waker.wake_by_ref();
        assert_eq!(woken(), 3, "on the shard's thread it is not put off");

        drop(task);
        assert_eq!(Arc::strong_count(&count), 1, "the executor's waker goes with the task");
        elsewhere(&task_waker, 1);
        inbox.deliver(3);
        assert_eq!(woken(), 3);
        assert!(lent.is_some_and(|lent| lent.will_wake(&task_waker)));
    }
}
