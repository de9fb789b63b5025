//! How many of those who wait for a turn are called in one turn of a shard, and how much of its slice
//! each of them has.
//!
//! Tasks that can start a transaction at any time would keep the driver from its clock, so all of a
//! turn share a slice of time, and whoever asks for a permit later than that waits for a turn. To wake
//! all who wait each time would make a turn's cost that of all instances, however few of them it
//! serves: in a closed loop of 1 000 it was most of the work. So a turn calls about as many as
//! the last ones have served.

/// Who is called has at least one part in so many of the slice. A transaction that does nothing takes
/// some 50 ns, and waiting for a turn some 200.
const LEAST_PARTS: u64 = 16;

/// Calls of the first turn.
const FIRST: u32 = 16;

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Calls {
    /// Most calls of a turn.
    most: u32,
    /// In this turn, or the last: calls, those of them who have been polled when there was time
    /// left, and those who have not been polled yet.
    called: u32,
    served: u32,
    unanswered: u32,
    /// Turns with calls.
    turns: usize,
}

impl Default for Calls {
    fn default() -> Self {
        Self { most: FIRST, called: 0, served: 0, unanswered: 0, turns: 0 }
    }
}

impl Calls {
    /// The calls of another turn begin: how many there may be.
    pub(super) fn begin(&mut self) -> u32 {
        if self.served < self.called {
            // A few more than that, so that a slice which serves more is noticed.
            self.most = (self.served + self.served / 8).max(1);
        } else if self.called >= self.most {
            self.most = self.most.saturating_add(self.most / 2 + 1);
        }
        (self.called, self.served, self.unanswered) = (0, 0, 0);
        self.turns = self.turns.wrapping_add(1);
        self.most
    }

    /// Which of so many runs comes first: where the calls of one use the slice up, those of the next
    /// come first in the next turn.
    pub(super) fn first(&self, runs: usize) -> usize {
        self.turns.checked_rem(runs).unwrap_or(0)
    }

    /// So many have been called.
    pub(super) fn called(&mut self, count: u32) {
        (self.called, self.unanswered) = (count, count);
    }

    /// One of them is polled, now. Until when it may go on starting transactions: it has an equal part
    /// of what is left of the slice. `None` if nothing is left.
    pub(super) fn answer(&mut self, now: u64, slice_end: u64, slice_ns: u64) -> Option<u64> {
        let among = u64::from(self.unanswered.max(1));
        self.unanswered = self.unanswered.saturating_sub(1);
        let left = slice_end.checked_sub(now).filter(|&left| left > 0)?;
        self.served += 1;
        let part = (left / among).max(slice_ns / LEAST_PARTS);
        Some(slice_end.min(now.saturating_add(part)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLICE: u64 = 50_000;

    /// Serves a turn in which each of `waiting` who are called takes `each_ns`, or `None` if it takes
    /// all that it gets. Answers how many were called, and served.
    fn turn(calls: &mut Calls, waiting: u32, each_ns: Option<u64>) -> (u32, u32) {
        let called = calls.begin().min(waiting);
        calls.called(called);
        let (mut now, mut served) = (0, 0);
        for _ in 0..called {
            let Some(until) = calls.answer(now, SLICE, SLICE) else { continue };
            assert!((now + 1..=SLICE).contains(&until));
            served += 1;
            now = each_ns.map_or(until, |each_ns| now + each_ns);
        }
        (called, served)
    }

    #[test]
    fn a_turn_calls_as_many_as_it_can_serve() {
        // Of 100 000 who wait: 25, 1 and 5 000 fit into a slice.
        for (each_ns, fit) in [(2_000, 25), (90_000, 1), (10, 5_000)] {
            let mut calls = Calls::default();
            for _ in 0..30 {
                turn(&mut calls, 100_000, Some(each_ns));
            }
            let turns: Vec<_> =
                (0..100).map(|_| turn(&mut calls, 100_000, Some(each_ns))).collect();
            let served: u32 = turns.iter().map(|&(_, served)| served).sum();
            let called: u32 = turns.iter().map(|&(called, _)| called).sum();
            assert!(served >= fit * 80, "{fit} fit, {served} served in 100 turns");
            assert!(called <= served + served / 2, "{called} called for {served}");
        }
    }

    #[test]
    fn few_who_wait_do_not_raise_what_is_called() {
        let mut calls = Calls::default();
        for _ in 0..100 {
            turn(&mut calls, 3, Some(10));
        }
        assert_eq!(calls.begin(), FIRST);
    }

    #[test]
    fn who_never_waits_has_an_equal_part_of_the_slice() {
        let mut calls = Calls::default();
        calls.called(4);
        let ends: Vec<_> = (0..4)
            .scan(0, |now, _| {
                *now = calls.answer(*now, SLICE, SLICE)?;
                Some(*now)
            })
            .collect();
        assert_eq!(ends, [SLICE / 4, SLICE / 2, SLICE * 3 / 4, SLICE]);
        assert_eq!(calls.answer(SLICE, SLICE, SLICE), None);
        // One alone has all of it.
        calls.called(1);
        assert_eq!(calls.answer(7, SLICE, SLICE), Some(SLICE));
    }

    #[test]
    fn each_run_is_first_in_turn() {
        let mut calls = Calls::default();
        let firsts: std::collections::BTreeSet<_> = (0..3)
            .map(|_| {
                calls.begin();
                calls.first(3)
            })
            .collect();
        assert_eq!(firsts.len(), 3);
        assert_eq!(calls.first(0), 0);
    }
}
