//! What the aggregator grants a shard, in one word, so that it is always read whole.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use balter_controllers::{split, split_evenly};
use crossbeam_utils::CachePadded;

use crate::config::Load;

/// A shard's share of a run: transactions per second, and scenario instances at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Budget {
    pub(crate) tps: u32,
    pub(crate) concurrency: u32,
}

impl Budget {
    const fn encode(self) -> u64 {
        (self.tps as u64) << 32 | self.concurrency as u64
    }

    const fn decode(raw: u64) -> Self {
        Self { tps: (raw >> 32) as u32, concurrency: raw as u32 }
    }
}

/// The shares of a run's budget. Their sum is the whole, to the unit. With fewer instances allowed
/// than there are shards, only the first `working` ones have permits.
pub(super) fn budgets(
    load: Load,
    tps: u32,
    concurrency: u32,
    shards: usize,
    working: usize,
) -> Vec<Budget> {
    let rates = split_evenly(u64::from(tps), working).map(|tps| tps as u32);
    let rates = rates.chain(std::iter::repeat(0)).take(shards);
    let mut budgets: Vec<_> = rates.map(|tps| Budget { tps, concurrency: 0 }).collect();
    let instances = match load {
        // Instances go where the permits are, and no permit must be without one.
        Load::Rate(_) => {
            let working = budgets.iter().filter(|budget| budget.tps > 0).count();
            share_among(u64::from(concurrency).max(working as u64), &budgets)
        }
        _ => split_evenly(u64::from(concurrency), shards).map(|count| count as u32).collect(),
    };
    for (budget, concurrency) in budgets.iter_mut().zip(instances) {
        budget.concurrency = concurrency;
    }
    budgets
}

/// Splits instances in proportion to the shards' rates.
pub(super) fn share_among(instances: u64, budgets: &[Budget]) -> Vec<u32> {
    let weights: Vec<_> = budgets.iter().map(|budget| u64::from(budget.tps)).collect();
    split(instances, &weights).into_iter().map(|count| count as u32).collect()
}

/// How a run is to go on. The order matters: it is only ever raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Course {
    Run = 0,
    /// Start nothing more, let what is in flight end, for the run's grace at most.
    Drain = 1,
    /// Cancel what is in flight.
    Stop = 2,
}

/// The slot through which one shard hears of one run. Each has cache lines of its own: the
/// aggregator writes a few times a second, the shard reads at every turn.
#[derive(Debug)]
pub(crate) struct BudgetSlot {
    inner: CachePadded<Words>,
}

#[derive(Debug)]
struct Words {
    budget: AtomicU64,
    /// On the shard's clock; the budget is nothing from then on.
    until_ns: AtomicU64,
    course: AtomicU8,
    /// From one request outside of transactions to the next.
    outside_interval_ns: AtomicU64,
}

impl BudgetSlot {
    /// A slot with a budget that holds until the given time, `u64::MAX` for as long as the run.
    pub(crate) fn new(budget: Budget, until_ns: u64) -> Self {
        Self {
            inner: CachePadded::new(Words {
                budget: AtomicU64::new(budget.encode()),
                until_ns: AtomicU64::new(until_ns),
                course: AtomicU8::new(Course::Run as u8),
                outside_interval_ns: AtomicU64::new(u64::MAX),
            }),
        }
    }

    // Each word stands for itself, but for one pair: who sees a later end of a lease also sees the
    // budget that it is for.

    pub(crate) fn grant(&self, budget: Budget) {
        self.inner.budget.store(budget.encode(), Ordering::Relaxed);
    }

    /// Grants a budget that ends at the given time.
    #[cfg(any(feature = "rt", test))]
    pub(crate) fn lease(&self, budget: Budget, until_ns: u64) {
        self.grant(budget);
        self.inner.until_ns.store(until_ns, Ordering::Release);
    }

    /// What may be used at `now_ns`; `None` if that has ended, or not begun.
    pub(crate) fn budget(&self, now_ns: u64) -> Option<Budget> {
        let until_ns = self.inner.until_ns.load(Ordering::Acquire);
        let budget = Budget::decode(self.inner.budget.load(Ordering::Relaxed));
        (now_ns < until_ns).then_some(budget)
    }

    pub(crate) fn grant_outside(&self, interval_ns: u64) {
        self.inner.outside_interval_ns.store(interval_ns, Ordering::Relaxed);
    }

    /// From one request outside of transactions to the next, `u64::MAX` if there is to be none.
    pub(crate) fn outside_interval_ns(&self) -> u64 {
        self.inner.outside_interval_ns.load(Ordering::Relaxed)
    }

    /// Raises the course; a lower one than before changes nothing.
    pub(crate) fn raise(&self, course: Course) {
        self.inner.course.fetch_max(course as u8, Ordering::Relaxed);
    }

    pub(crate) fn course(&self) -> Course {
        match self.inner.course.load(Ordering::Relaxed) {
            0 => Course::Run,
            1 => Course::Drain,
            _ => Course::Stop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_read_as_it_was_granted() {
        for budget in [
            Budget { tps: 0, concurrency: u32::MAX },
            Budget { tps: u32::MAX, concurrency: 0 },
            Budget { tps: 50_000, concurrency: 64 },
        ] {
            let slot = BudgetSlot::new(Budget::default(), u64::MAX);
            slot.grant(budget);
            assert_eq!(slot.budget(7), Some(budget));
        }
    }

    #[test]
    fn a_lease_ends_by_itself() {
        let slot = BudgetSlot::new(Budget::default(), 0);
        slot.lease(Budget { tps: 100, concurrency: 8 }, 1_000);
        assert_eq!(slot.budget(999), Some(Budget { tps: 100, concurrency: 8 }));
        assert_eq!(slot.budget(1_000), None);
    }

    #[test]
    fn a_stopped_run_is_not_brought_back() {
        let slot = BudgetSlot::new(Budget::default(), u64::MAX);
        slot.raise(Course::Stop);
        slot.raise(Course::Drain);
        assert_eq!(slot.course(), Course::Stop);
    }
}
