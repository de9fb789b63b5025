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

/// So many dead nodes are never worth compacting the heap for.
const FEW: usize = 64;

/// A heap of deadlines. For things that happen seldom: delays, not transactions.
///
/// A sleep that ends early leaves its node in the heap. When more than half of the nodes are dead
/// they are taken out together, so the memory is proportional to the sleeps that are alive, and a
/// sleep costs O(log n) on average.
///
/// To drop or to wake a waker may drop a task, and so run code of the user that sleeps or gives up
/// sleeping: it is done while nothing here is borrowed.
#[derive(Debug, Default)]
pub(crate) struct Timers(RefCell<Table>);

#[derive(Debug, Default)]
struct Table {
    /// Due time, number, and key in `sleeps`.
    heap: BinaryHeap<Reverse<(u64, u64, usize)>>,
    sleeps: Slab<Sleep>,
    /// Of the next sleep. Tells a node whose sleep has ended from one that has its key now.
    next_number: u64,
}

#[derive(Debug)]
struct Sleep {
    number: u64,
    waker: Waker,
}

/// A sleep's place among the timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    key: usize,
    number: u64,
}

impl Table {
    fn get_mut(&mut self, place: Place) -> Option<&mut Sleep> {
        self.sleeps.get_mut(place.key).filter(|sleep| sleep.number == place.number)
    }

    fn remove(&mut self, place: Place) -> Option<Waker> {
        self.get_mut(place)?;
        Some(self.sleeps.remove(place.key).waker)
    }

    fn compact(&mut self) {
        let dead = self.heap.len() - self.sleeps.len();
        if dead <= FEW || dead <= self.sleeps.len() {
            return;
        }
        let sleeps = &self.sleeps;
        self.heap.retain(|&Reverse((_, number, key))| {
            sleeps.get(key).is_some_and(|sleep| sleep.number == number)
        });
    }
}

impl Timers {
    fn insert(&self, at_ns: u64, waker: Waker) -> Place {
        let table = &mut *self.0.borrow_mut();
        let number = table.next_number;
        table.next_number += 1;
        let key = table.sleeps.insert(Sleep { number, waker });
        table.heap.push(Reverse((at_ns, number, key)));
        Place { key, number }
    }

    /// Has the sleep wake the task of `cx`; does nothing if it has fired.
    fn remember(&self, place: Place, cx: &Context<'_>) {
        let same = match self.0.borrow_mut().get_mut(place) {
            Some(sleep) => sleep.waker.will_wake(cx.waker()),
            None => return,
        };
        if !same {
            let waker = cx.waker().clone();
            let before = self
                .0
                .borrow_mut()
                .get_mut(place)
                .map(|sleep| std::mem::replace(&mut sleep.waker, waker));
            drop(before);
        }
    }

    /// Takes out a sleep; does nothing if it has fired.
    fn cancel(&self, place: Place) {
        let waker = self.0.borrow_mut().remove(place);
        if waker.is_some() {
            self.0.borrow_mut().compact();
        }
        drop(waker);
    }

    /// Wakes all that are due; answers when the next one is, in nanoseconds, or `u64::MAX`.
    pub(crate) fn fire(&self, now_ns: u64, fired: impl Fn()) -> u64 {
        loop {
            let waker = {
                let table = &mut *self.0.borrow_mut();
                let Some(&Reverse((at_ns, number, key))) = table.heap.peek() else {
                    return u64::MAX;
                };
                let place = Place { key, number };
                if at_ns > now_ns && table.get_mut(place).is_some() {
                    return at_ns;
                }
                table.heap.pop();
                table.remove(place)
            };
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
    place: Option<Place>,
}

impl SleepUntil {
    pub(crate) fn new(shard: Rc<Shard>, at_ns: u64) -> Self {
        Self { shard, at_ns, place: None }
    }
}

impl Future for SleepUntil {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.shard.now() >= self.at_ns {
            return Poll::Ready(());
        }
        match self.place {
            Some(place) => self.shard.timers.remember(place, cx),
            None => {
                let place = self.shard.timers.insert(self.at_ns, cx.waker().clone());
                self.place = Some(place);
            }
        }
        Poll::Pending
    }
}

impl Drop for SleepUntil {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.shard.timers.cancel(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Count {
        fn get(&self) -> u32 {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn sleeps_fire_when_they_are_due_and_once() {
        let (timers, count) = (Timers::default(), Arc::new(Count::default()));
        for at_ns in [30, 10, 20] {
            timers.insert(at_ns, Waker::from(Arc::clone(&count)));
        }
        let fired = Cell::new(0);
        let fire = |now_ns| timers.fire(now_ns, || fired.set(fired.get() + 1));
        assert_eq!(fire(9), 10);
        assert_eq!(fire(20), 30);
        assert_eq!((count.get(), fired.get()), (2, 2));
        assert_eq!(fire(u64::MAX - 1), u64::MAX);
        assert_eq!((count.get(), fired.get()), (3, 3));
    }

    #[test]
    fn what_sleeps_that_were_given_up_leave_is_bounded_by_those_that_live() {
        let timers = Timers::default();
        let live: Vec<_> = (0..100).map(|at| timers.insert(at, Waker::noop().clone())).collect();
        for round in 0..100_000 {
            let place = timers.insert(1_000_000 + round, Waker::noop().clone());
            timers.cancel(place);
            let table = timers.0.borrow();
            assert_eq!(table.sleeps.len(), live.len());
            assert!(table.heap.len() <= 2 * live.len() + FEW + 1, "{}", table.heap.len());
        }
        live.into_iter().for_each(|place| timers.cancel(place));
        assert!(timers.0.borrow().heap.len() <= FEW + 1);
        assert_eq!(timers.fire(0, || panic!("none is left to fire")), u64::MAX);
    }

    #[test]
    fn a_place_that_has_fired_says_nothing_of_the_sleep_that_has_its_key() {
        let (timers, count) = (Timers::default(), Arc::new(Count::default()));
        let first = timers.insert(10, Waker::noop().clone());
        timers.fire(10, || {});
        let second = timers.insert(20, Waker::from(Arc::clone(&count)));
        assert_eq!(first.key, second.key, "the key serves again, or this test shows nothing");
        timers.cancel(first);
        timers.remember(first, &Context::from_waker(Waker::noop()));
        timers.fire(20, || {});
        assert_eq!(count.get(), 1);
    }

    #[test]
    fn a_waker_that_wakes_the_same_task_is_not_cloned() {
        let (timers, count) = (Timers::default(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let place = timers.insert(10, waker.clone());
        let clones = Arc::strong_count(&count);
        let kept = std::ptr::from_ref(&timers.0.borrow().sleeps[place.key].waker);
        timers.remember(place, &Context::from_waker(&waker));
        assert_eq!(Arc::strong_count(&count), clones);
        assert_eq!(kept, std::ptr::from_ref(&timers.0.borrow().sleeps[place.key].waker));

        let other = Arc::new(Count::default());
        timers.remember(place, &Context::from_waker(&Waker::from(Arc::clone(&other))));
        timers.fire(10, || {});
        assert_eq!((count.get(), other.get()), (0, 1), "the last task that asked is woken");
    }

    thread_local! {
        static TIMERS: Rc<Timers> = Rc::default();
    }

    /// As a task of the user: when its last waker goes or wakes it, it sleeps again and gives a
    /// sleep up.
    struct Busy;

    fn disturb() {
        TIMERS.with(|timers| {
            let place = timers.insert(1_000, Waker::noop().clone());
            timers.cancel(place);
            timers.insert(2_000, Waker::noop().clone());
        });
    }

    impl Wake for Busy {
        fn wake(self: Arc<Self>) {
            disturb();
        }
    }

    impl Drop for Busy {
        fn drop(&mut self) {
            disturb();
        }
    }

    #[test]
    fn wakers_may_use_the_timers_when_they_are_woken_or_dropped() {
        let timers = TIMERS.with(Rc::clone);
        let place = timers.insert(10, Waker::from(Arc::new(Busy)));
        timers.cancel(place);
        let place = timers.insert(10, Waker::from(Arc::new(Busy)));
        timers.remember(place, &Context::from_waker(Waker::noop()));
        timers.insert(10, Waker::from(Arc::new(Busy)));
        assert_eq!(timers.fire(10, || {}), 2_000);
        // Dropped twice, woken once and dropped with that.
        assert_eq!(timers.0.borrow().sleeps.len(), 4);
    }
}
