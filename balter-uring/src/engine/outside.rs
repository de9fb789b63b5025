//! Requests that stand outside of transactions, as a log-in does: how many a second a shard lets
//! through, and how long each may take.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::budget::{Budget, Share};
use super::instance::{self, Instance};
use super::timers::SleepUntil;
use crate::outside::{Visit, install};
use crate::waker::remember;

/// So many requests a second are let through at least, where no rate was set.
const LEAST_TPS: u32 = 10;

/// A shard that was away for longer does not make up for it: what waited would come as a burst.
const TOLERANCE_NS: u64 = 10_000_000;

/// Requests a second outside of transactions in all shards together, where `asked` was not set: as
/// many as transactions are asked for and a tenth more, or in a closed loop as instances allowed, but
/// ten at least.
/// Every instance can then do one for each of its transactions, or log in within a second.
pub(crate) fn rate(asked: Option<u32>, is_open: bool, budget: Budget) -> u32 {
    let transactions = if is_open { budget.tps } else { budget.concurrency };
    // A tenth more, or a queue that has formed would never become shorter.
    let transactions = transactions.saturating_add(transactions / 10);
    asked.unwrap_or(transactions.max(LEAST_TPS)).max(1)
}

/// From one request of a shard to the next. The rate goes where the instances go.
pub(crate) fn intervals_ns(rate: u32, shares: &[Share]) -> impl Iterator<Item = u64> {
    let all: u64 = shares.iter().map(|share| u64::from(share.concurrency)).sum();
    shares.iter().map(move |share| {
        let part = u128::from(share.concurrency) * u128::from(rate);
        let interval = (u128::from(all) * 1_000_000_000).checked_div(part);
        interval.map_or(u64::MAX, |interval| u64::try_from(interval).unwrap_or(u64::MAX).max(1))
    })
}

/// The requests of one run on one shard that wait to be let through: the oldest first, evenly
/// spaced. The interval comes with every call, since it changes with the run's budget.
#[derive(Debug)]
pub(super) struct Queue {
    /// By number. To drop or to wake a waker may run code of the user, so that is done while this
    /// is not borrowed.
    waiting: RefCell<BTreeMap<u64, Waker>>,
    next_number: Cell<u64>,
    /// When the last was let through, or was due where that was a little earlier.
    last_ns: Cell<Option<u64>>,
    start_ns: u64,
    /// This shard's place among those of the run, which begin one after the other.
    part: u32,
    parts: u32,
}

impl Queue {
    pub(super) fn new(start_ns: u64, part: u32, parts: u32) -> Self {
        Self {
            waiting: RefCell::default(),
            next_number: Cell::new(0),
            last_ns: Cell::new(None),
            start_ns,
            part,
            parts,
        }
    }

    fn due_ns(&self, interval_ns: u64) -> u64 {
        let offset = || u128::from(interval_ns) * u128::from(self.part) / u128::from(self.parts);
        match self.last_ns.get() {
            Some(last_ns) => last_ns.saturating_add(interval_ns),
            // No more than the interval, since the part is one of the parts.
            None => self.start_ns.saturating_add(offset() as u64),
        }
    }

    fn try_take(&self, now: u64, interval_ns: u64) -> bool {
        let due_ns = self.due_ns(interval_ns);
        if now < due_ns || interval_ns == u64::MAX {
            return false;
        }
        self.last_ns.set(Some(due_ns.max(now.saturating_sub(TOLERANCE_NS))));
        true
    }

    /// When the next that waits may go, `u64::MAX` if none does.
    pub(super) fn next_ns(&self, interval_ns: u64) -> u64 {
        match self.waiting.borrow().is_empty() || interval_ns == u64::MAX {
            true => u64::MAX,
            false => self.due_ns(interval_ns),
        }
    }

    /// Lets through what may go; `true` if a task has been woken.
    pub(super) fn admit(&self, now: u64, interval_ns: u64) -> bool {
        let mut woken = false;
        while !self.waiting.borrow().is_empty() && self.try_take(now, interval_ns) {
            let first = self.waiting.borrow_mut().pop_first();
            if let Some((_, waker)) = first {
                waker.wake();
                woken = true;
            }
        }
        woken
    }

    /// `place` is the caller's number, where it has waited before. It is let through by being taken
    /// out of those who wait.
    fn poll(
        &self,
        place: &mut Option<u64>,
        now: u64,
        interval_ns: u64,
        cx: &Context<'_>,
    ) -> Poll<()> {
        match *place {
            None => {
                if self.waiting.borrow().is_empty() && self.try_take(now, interval_ns) {
                    return Poll::Ready(());
                }
                let number = self.next_number.get();
                self.next_number.set(number + 1);
                self.waiting.borrow_mut().insert(number, cx.waker().clone());
                *place = Some(number);
                Poll::Pending
            }
            Some(number) => {
                // Taken out, so that a waker which is replaced is dropped while nothing is borrowed.
                let Some(waker) = self.waiting.borrow_mut().remove(&number) else {
                    return Poll::Ready(());
                };
                let mut waker = Some(waker);
                remember(&mut waker, cx);
                self.waiting.borrow_mut().extend(waker.map(|waker| (number, waker)));
                Poll::Pending
            }
        }
    }

    fn leave(&self, number: u64) {
        let waker = self.waiting.borrow_mut().remove(&number);
        drop(waker);
    }
}

/// Has the clients of this shard ask the run of the instance that is polled.
pub(super) fn watch_clients() {
    install(|| {
        // What a transaction has started is its own doing, however it is polled.
        let instance = instance::current().filter(|instance| !instance.is_in_transaction())?;
        instance.outside.set(instance.outside.get() + 1);
        Some(Box::new(Request { instance, state: State::Asking(None), deadline: None }))
    });
}

/// One request outside of a transaction.
struct Request {
    instance: Rc<Instance>,
    state: State,
    /// From when it was let through.
    deadline: Option<SleepUntil>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// With the number that it waits with.
    Asking(Option<u64>),
    Sent,
    Answered,
}

impl Visit for Request {
    fn poll_admitted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let State::Asking(place) = &mut self.state else { return Poll::Ready(()) };
        let run = &self.instance.run;
        let now = run.shard().now();
        // When the run is ending, nothing is let through any more; the instance is dropped soon.
        let interval_ns = run.outside_interval_ns(now);
        if run.outside().poll(place, now, interval_ns, cx).is_pending() {
            return Poll::Pending;
        }
        run.sent_outside(place.is_some());
        self.state = State::Sent;
        let deadline_ns = now.saturating_add(run.timeout_ns());
        self.deadline = Some(SleepUntil::new(Rc::clone(run.shard()), deadline_ns));
        Poll::Ready(())
    }

    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.deadline {
            Some(deadline) => Pin::new(deadline).poll(cx),
            None => Poll::Pending,
        }
    }

    fn answered(&mut self, failed: bool) {
        self.state = State::Answered;
        if failed {
            self.instance.run.failed_outside();
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.instance.outside.set(self.instance.outside.get() - 1);
        let run = &self.instance.run;
        match self.state {
            State::Asking(Some(number)) => run.outside().leave(number),
            // Given up by the scenario, not by the end of the run.
            State::Sent if run.is_running() && !self.instance.is_killed() => run.failed_outside(),
            State::Asking(None) | State::Sent | State::Answered => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn share(concurrency: u32) -> Share {
        Share { concurrency, ..Share::none() }
    }

    #[test]
    fn a_rate_that_was_not_set_follows_the_goal() {
        let budget = Budget { tps: 500, concurrency: 30 };
        assert_eq!(rate(None, true, budget), 550);
        assert_eq!(rate(None, false, budget), 33);
        assert_eq!(rate(None, true, Budget { tps: 3, concurrency: 1 }), 10);
        assert_eq!(rate(Some(2), true, budget), 2);
    }

    #[test]
    fn shares_add_up_to_the_rate_and_go_where_the_instances_are() {
        for (rate, concurrency) in [(10, vec![5, 5]), (10, vec![1, 0, 3]), (997, vec![10; 64])] {
            let budgets: Vec<_> = concurrency.iter().map(|&count| share(count)).collect();
            let intervals: Vec<_> = intervals_ns(rate, &budgets).collect();
            let sum: f64 = intervals.iter().map(|&ns| 1e9 / ns as f64).sum();
            assert!((sum / f64::from(rate) - 1.0).abs() < 1e-6, "{rate}: {intervals:?}");
            for (budget, interval) in budgets.iter().zip(intervals) {
                assert_eq!(budget.concurrency == 0, interval == u64::MAX);
            }
        }
    }

    /// Turns every millisecond while `count` requests ask at once; when each was let through.
    fn times(queue: &Queue, count: usize, interval_ns: u64, until_ns: u64) -> Vec<u64> {
        let cx = Context::from_waker(Waker::noop());
        let mut places = vec![None; count];
        let mut times = Vec::new();
        let mut now = 0;
        while now < until_ns {
            queue.admit(now, interval_ns);
            places.retain_mut(|place| {
                let passed = queue.poll(place, now, interval_ns, &cx).is_ready();
                times.extend(passed.then_some(now));
                !passed
            });
            now += 1_000_000;
        }
        times
    }

    #[test]
    fn requests_are_let_through_at_the_rate_and_no_faster_after_a_pause() {
        let queue = Queue::new(0, 0, 1);
        let times = times(&queue, 100, SECOND / 10, 3 * SECOND);
        assert_eq!(times.len(), 30);
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] == SECOND / 10), "{times:?}");
        // Away for a minute: one, and the next an interval later but for the tolerance.
        let cx = Context::from_waker(Waker::noop());
        let now = 63 * SECOND;
        queue.admit(now, SECOND / 10);
        let waiting = queue.waiting.borrow().len();
        assert_eq!(waiting, 69);
        assert_eq!(queue.next_ns(SECOND / 10), now + SECOND / 10 - TOLERANCE_NS);
        assert!(queue.poll(&mut None, now, SECOND / 10, &cx).is_pending(), "others came first");
    }

    #[test]
    fn a_fast_queue_makes_up_for_late_turns() {
        let queue = Queue::new(0, 0, 1);
        // Twenty for each turn.
        let times = times(&queue, 10_000, 50_000, SECOND / 4);
        assert!(times.len().abs_diff(5_000) <= 20, "{}", times.len());
    }

    #[test]
    fn shards_begin_one_after_the_other() {
        let begins = |part| times(&Queue::new(0, part, 4), 1, SECOND, 4 * SECOND)[0];
        assert_eq!([0, 1, 2, 3].map(begins), [0, SECOND / 4, SECOND / 2, 3 * SECOND / 4]);
    }

    #[test]
    fn who_gives_up_leaves_no_trace_and_costs_nobody_a_turn() {
        let queue = Queue::new(0, 0, 1);
        let cx = Context::from_waker(Waker::noop());
        assert!(queue.poll(&mut None, 0, SECOND, &cx).is_ready());
        let (mut first, mut second) = (None, None);
        assert!(queue.poll(&mut first, 0, SECOND, &cx).is_pending());
        assert!(queue.poll(&mut second, 0, SECOND, &cx).is_pending());
        queue.leave(first.expect("it waits"));
        queue.admit(SECOND, SECOND);
        assert!(queue.poll(&mut second, SECOND, SECOND, &cx).is_ready());
        assert!(queue.waiting.borrow().is_empty());
        assert_eq!(queue.next_ns(SECOND), u64::MAX);
    }

    #[test]
    fn without_a_share_nothing_is_let_through() {
        let queue = Queue::new(0, 0, 1);
        assert!(times(&queue, 3, u64::MAX, SECOND).is_empty());
        assert_eq!(queue.next_ns(u64::MAX), u64::MAX);
        assert_eq!(times(&queue, 1, SECOND, SECOND).len(), 0, "those before come first");
        assert_eq!(queue.waiting.borrow().len(), 3);
    }

    thread_local! {
        static QUEUE: Rc<Queue> = Rc::new(Queue::new(0, 0, 1));
    }

    struct Busy;

    impl Wake for Busy {
        fn wake(self: Arc<Self>) {}
    }

    impl Drop for Busy {
        fn drop(&mut self) {
            QUEUE.with(|queue| {
                let cx = Context::from_waker(Waker::noop());
                let mut place = None;
                let _ = queue.poll(&mut place, 0, SECOND, &cx);
                if let Some(number) = place {
                    queue.leave(number);
                }
            });
        }
    }

    #[test]
    fn a_waker_may_use_the_queue_when_it_is_dropped() {
        let queue = QUEUE.with(Rc::clone);
        let busy = || Waker::from(Arc::new(Busy));
        let noop = Context::from_waker(Waker::noop());
        assert!(queue.poll(&mut None, 0, SECOND, &noop).is_ready());
        let mut place = None;
        assert!(queue.poll(&mut place, 0, SECOND, &Context::from_waker(&busy())).is_pending());
        assert!(queue.poll(&mut place, 0, SECOND, &noop).is_pending());
        let mut other = None;
        assert!(queue.poll(&mut other, 0, SECOND, &Context::from_waker(&busy())).is_pending());
        queue.leave(other.expect("it waits"));
        let mut last = None;
        assert!(queue.poll(&mut last, 0, SECOND, &Context::from_waker(&busy())).is_pending());
        assert!(queue.admit(5 * SECOND, SECOND / 1_000));
        assert!(queue.poll(&mut last, 5 * SECOND, SECOND, &noop).is_ready());
    }
}
