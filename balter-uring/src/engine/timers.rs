//! Timers of a shard, fired by its driver.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

use super::shard::Shard;

/// A heap of deadlines. For things that happen seldom: delays, not transactions.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: RefCell<BinaryHeap<Reverse<(u64, usize)>>>,
    /// `None` once fired or dropped. The entry leaves the slab with its heap node, so that a key
    /// is not used again while the heap still names it.
    wakers: RefCell<Slab<Option<Waker>>>,
}

impl Timers {
    fn insert(&self, at_ns: u64, waker: Waker) -> usize {
        let key = self.wakers.borrow_mut().insert(Some(waker));
        self.heap.borrow_mut().push(Reverse((at_ns, key)));
        key
    }

    /// Wakes all that are due; answers when the next one is, in nanoseconds, or `u64::MAX`.
    pub(crate) fn fire(&self, now_ns: u64, fired: impl Fn()) -> u64 {
        loop {
            let key = match self.heap.borrow_mut().peek() {
                None => return u64::MAX,
                Some(&Reverse((at_ns, _))) if at_ns > now_ns => return at_ns,
                Some(&Reverse((_, key))) => key,
            };
            self.heap.borrow_mut().pop();
            let waker = self.wakers.borrow_mut().remove(key);
            if let Some(waker) = waker {
                waker.wake();
                fired();
            }
        }
    }
}

/// Ends at a reading of the shard's clock.
pub(crate) struct SleepUntil {
    shard: Rc<Shard>,
    at_ns: u64,
    key: Option<usize>,
}

impl SleepUntil {
    pub(crate) fn new(shard: Rc<Shard>, at_ns: u64) -> Self {
        Self { shard, at_ns, key: None }
    }
}

impl Future for SleepUntil {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.shard.now() >= self.at_ns {
            // A timer that fired has left the table; forgetting its key is all there is to do.
            return Poll::Ready(());
        }
        let timers = &self.shard.timers;
        match self.key {
            Some(key) => {
                if let Some(place) = timers.wakers.borrow_mut().get_mut(key) {
                    *place = Some(cx.waker().clone());
                }
            }
            None => {
                let key = timers.insert(self.at_ns, cx.waker().clone());
                self.key = Some(key);
            }
        }
        Poll::Pending
    }
}

impl Drop for SleepUntil {
    fn drop(&mut self) {
        if self.shard.now_coarse() < self.at_ns
            && let Some(key) = self.key
            && let Some(place) = self.shard.timers.wakers.borrow_mut().get_mut(key)
        {
            *place = None;
        }
    }
}
