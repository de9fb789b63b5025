use std::collections::VecDeque;

use crate::Arrival;
use crate::schedule::Schedule;

/// Stands for "no such time" in the cached deadlines: later than any clock.
const NEVER_NS: u64 = u64::MAX;

/// The due queue starts with room for this many permits. A shard that keeps up
/// holds those of one turn, a few hundred at most; only a real backlog grows it.
const ROOM: usize = 1_024;

/// Settings of a [`Pacer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacerConfig {
    /// How the intended starts are spread over time.
    pub arrival: Arrival,
    /// Index of this shard among all that share the scenario, `0..parts`. It
    /// shifts a constant schedule by `part / parts` of an interval and picks the
    /// random sequence of a Poisson one.
    pub part: u32,
    /// Number of shards that share the scenario, at least 1.
    pub parts: u32,
    /// Most permits that may wait. When one more becomes due the oldest is
    /// dropped and counted as missed. Zero counts as one, because a permit waits
    /// at least from `advance` to `take`. Rule of thumb: what the shard's rate
    /// releases in `max_backlog_age_ns`, bounded by the memory at 8 bytes each.
    pub max_backlog: usize,
    /// A permit that has waited for longer than this, in nanoseconds, is dropped
    /// and counted as missed. `u64::MAX` for no such bound.
    pub max_backlog_age_ns: u64,
    /// Longest time between two calls of [`Pacer::advance`], in nanoseconds,
    /// that still counts as running. After a longer one the generator itself
    /// stood still (a suspended machine, a blocked shard): what was due meanwhile
    /// is missed, not made up for. It also bounds the work of one call to what
    /// the rate releases in this time. Rule of thumb: 100 ms, well above a
    /// scheduling delay and well below a window.
    pub max_gap_ns: u64,
}

/// What a [`Pacer`] has counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacerCounts {
    /// Permits that became due. At any time they are the permits taken (and not
    /// put back), the missed ones, and the [`backlog`](Pacer::backlog).
    pub planned: u64,
    /// Permits that became due and were dropped: too old, too many, due in a gap
    /// of the generator, or overdue when the rate was lowered.
    pub missed: u64,
}

/// The schedule of one shard for one scenario: when the next permit is due,
/// which ones wait, and which were missed.
///
/// All times are nanoseconds on one monotonic clock of the caller's choice. The
/// pacer never reads it: call [`advance`](Pacer::advance) on every turn, then
/// [`take`](Pacer::take) as many permits as there are instances to use them, and
/// sleep until [`next_due_ns`](Pacer::next_due_ns).
///
/// ```
/// use balter_controllers::{Arrival, Pacer, PacerConfig};
///
/// let config = PacerConfig {
///     arrival: Arrival::Constant,
///     part: 0,
///     parts: 1,
///     max_backlog: 1_000,
///     max_backlog_age_ns: 1_000_000_000,
///     max_gap_ns: 100_000_000,
/// };
/// // 100 a second, from the instant zero to one second later.
/// let mut pacer = Pacer::new(config, 0, 1_000_000_000, 100);
/// pacer.advance(15_000_000);
/// assert_eq!(pacer.take(), Some(0));
/// assert_eq!(pacer.take(), Some(10_000_000));
/// assert_eq!(pacer.take(), None);
/// assert_eq!(pacer.next_due_ns(), Some(20_000_000));
/// ```
#[derive(Debug)]
pub struct Pacer {
    /// No call of `advance` before this time has anything to do: the earlier of
    /// the next release and the expiry of the oldest permit. It may be too early
    /// (after a `take`), never too late.
    wake_ns: u64,
    /// Latest time seen. A clock that steps back does not move it.
    seen_ns: u64,
    /// Cached from the schedule, `NEVER_NS` if nothing follows.
    next_ns: u64,
    /// Sorted, oldest first.
    due: VecDeque<u64>,
    counts: PacerCounts,
    schedule: Schedule,
    tps: u32,
    /// Exclusive; brought forward to zero by `finish`.
    end_ns: u64,
    max_backlog: usize,
    max_age_ns: u64,
    max_gap_ns: u64,
    /// Time in which as many permits become due as the backlog has room for.
    room_ns: u64,
    /// No permit waits for longer than this: the lesser of `room_ns` and `max_age_ns`.
    kept_ns: u64,
}

impl Pacer {
    /// A schedule of `tps` permits a second for this shard in
    /// `start_ns..end_ns`; `u64::MAX` stands for no end.
    ///
    /// `tps` is the share of this shard, not the rate of the whole scenario. Over
    /// whole seconds at one rate the shard plans exactly `tps` permits a second,
    /// so shares that add up exactly (see [`split_evenly`](crate::split_evenly))
    /// give totals that do.
    ///
    /// # Panics
    ///
    /// If `part` is not below `parts`.
    #[must_use]
    pub fn new(config: PacerConfig, start_ns: u64, end_ns: u64, tps: u32) -> Self {
        let PacerConfig { arrival, part, parts, .. } = config;
        assert!(part < parts, "part {part} of {parts} does not exist: use 0..{parts}");
        let mut pacer = Pacer {
            wake_ns: NEVER_NS,
            seen_ns: start_ns,
            next_ns: NEVER_NS,
            due: VecDeque::with_capacity(ROOM.min(config.max_backlog.saturating_add(1))),
            counts: PacerCounts::default(),
            schedule: Schedule::new(arrival, part, parts, start_ns, tps),
            tps,
            end_ns,
            max_backlog: config.max_backlog.max(1),
            max_age_ns: config.max_backlog_age_ns,
            max_gap_ns: config.max_gap_ns,
            room_ns: 0,
            kept_ns: 0,
        };
        pacer.measure_room();
        pacer.refresh();
        pacer
    }

    /// Releases every permit due at or before `now_ns` and before the end, and
    /// drops those that have become too old or too many.
    ///
    /// One comparison if nothing is due. A time before the latest one seen
    /// changes nothing. If more than `max_gap_ns` has passed since the call
    /// before (or since the start, on the first one), the permits due meanwhile
    /// count as planned and missed and none of them is released.
    #[inline]
    pub fn advance(&mut self, now_ns: u64) {
        if now_ns < self.wake_ns {
            self.seen_ns = self.seen_ns.max(now_ns);
        } else {
            self.release(now_ns);
        }
    }

    /// The oldest due permit, as its intended start in nanoseconds.
    #[inline]
    pub fn take(&mut self) -> Option<u64> {
        self.due.pop_front()
    }

    /// The oldest due permit: one that waits already, whatever its age, or else one that has become
    /// due by `now_ns`.
    ///
    /// Like [`advance`](Pacer::advance) and [`take`](Pacer::take), but cheaper: while permits wait,
    /// the schedule is left to the next call of `advance`.
    #[inline]
    pub fn take_due(&mut self, now_ns: u64) -> Option<u64> {
        if let Some(intended_ns) = self.due.pop_front() {
            return Some(intended_ns);
        }
        let is_recent = now_ns < self.seen_ns.saturating_add(self.max_gap_ns)
            && now_ns < self.next_ns.saturating_add(self.kept_ns);
        if self.next_ns <= now_ns && is_recent {
            let intended_ns = self.next_ns;
            self.seen_ns = self.seen_ns.max(now_ns);
            self.counts.planned += 1;
            self.schedule.step();
            self.next_ns = self.next_before_end();
            self.wake_ns = self.next_ns;
            return Some(intended_ns);
        }
        self.advance(now_ns);
        self.take()
    }

    /// Returns a permit that was taken and not used, because its taker is gone.
    /// It waits again in its old place, with its intended start unchanged, unless
    /// it has become too old meanwhile or the backlog is full: then it is missed.
    ///
    /// After [`finish`](Pacer::finish) it counts as missed instead. Ignored if no
    /// permit is out, so that the counts always add up.
    pub fn put_back(&mut self, intended_ns: u64) {
        let out = self.counts.planned - self.counts.missed - self.due.len() as u64;
        if out == 0 {
            return;
        }
        if self.is_finished() {
            self.counts.missed += 1;
            return;
        }
        // Nearly always the front; several takers may return theirs in any order.
        let place = self.due.partition_point(|&other_ns| other_ns < intended_ns);
        self.due.insert(place, intended_ns);
        self.drop_excess();
        self.drop_over_age();
        self.refresh();
    }

    /// Goes on at another rate from `now_ns`; the same rate changes nothing.
    ///
    /// The share of an interval that has already passed carries over: the next
    /// permit is due after what is left of it at the new rate, so there is no
    /// burst, no wait longer than one new interval, and shards stay staggered.
    /// At rate zero nothing is released until the rate is raised, and the share
    /// is kept.
    ///
    /// Permits due up to `now_ns` belong to the old rate. If the rate is raised
    /// they keep waiting. If it is lowered they are dropped and counted as
    /// missed, those included that became due since the last call of
    /// [`advance`](Pacer::advance): the target gets relief at once. To use them,
    /// advance and take first.
    pub fn set_rate(&mut self, now_ns: u64, tps: u32) {
        if tps == self.tps || self.is_finished() {
            return;
        }
        self.advance(now_ns);
        if tps < self.tps {
            self.drop_due();
        }
        self.schedule.set_rate(self.seen_ns, tps);
        self.tps = tps;
        self.measure_room();
        self.refresh();
        // What is left of an interval may be less than a nanosecond.
        self.advance(self.seen_ns);
    }

    fn measure_room(&mut self) {
        let room_ns = self.max_backlog as u128 * 1_000_000_000 / u128::from(self.tps.max(1));
        self.room_ns = u64::try_from(room_ns).unwrap_or(u64::MAX);
        self.kept_ns = self.room_ns.min(self.max_age_ns);
    }

    /// Intended start of the first permit not yet released, in nanoseconds; or
    /// `None` if the rate is zero or none is left before the end.
    #[inline]
    #[must_use]
    pub fn next_due_ns(&self) -> Option<u64> {
        (self.next_ns != NEVER_NS).then_some(self.next_ns)
    }

    /// Permits that are due and wait to be taken.
    #[inline]
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.due.len()
    }

    /// Intended start of the permit that waits longest, in nanoseconds.
    #[inline]
    #[must_use]
    pub fn oldest_due_ns(&self) -> Option<u64> {
        self.due.front().copied()
    }

    /// The current rate in permits a second.
    #[must_use]
    pub fn tps(&self) -> u32 {
        self.tps
    }

    /// What has been planned and missed so far.
    #[inline]
    #[must_use]
    pub fn counts(&self) -> PacerCounts {
        self.counts
    }

    /// Ends the schedule: what still waits is missed, and nothing is released
    /// any more, whatever is called.
    pub fn finish(&mut self) {
        self.drop_due();
        self.end_ns = 0;
        self.refresh();
    }

    fn is_finished(&self) -> bool {
        self.end_ns == 0
    }

    #[inline(never)]
    fn release(&mut self, now_ns: u64) {
        let gap_ns = now_ns.saturating_sub(self.seen_ns);
        self.seen_ns = self.seen_ns.max(now_ns);
        if self.next_ns <= now_ns {
            if gap_ns > self.max_gap_ns {
                // `next_ns` is before the end, so the end is not zero here.
                let skipped = self.schedule.skip(now_ns.min(self.end_ns - 1));
                self.counts.planned += skipped;
                self.counts.missed += skipped;
                self.next_ns = self.next_before_end();
            }
            // What the queue has no room for would be dropped again one by one, which takes longer
            // than it takes for as much to become due at rates that no machine has.
            let kept_from_ns = now_ns.saturating_sub(self.room_ns);
            if self.next_ns < kept_from_ns && self.next_ns != NEVER_NS {
                let skipped = self.schedule.skip(kept_from_ns.min(self.end_ns - 1));
                self.counts.planned += skipped;
                self.counts.missed += skipped;
                self.next_ns = self.next_before_end();
            }
            while self.next_ns <= now_ns && self.next_ns != NEVER_NS {
                self.due.push_back(self.next_ns);
                self.counts.planned += 1;
                self.schedule.step();
                self.next_ns = self.next_before_end();
                // Inside the loop, so that the queue never outgrows its bound.
                self.drop_excess();
            }
        }
        self.drop_over_age();
        self.refresh();
    }

    fn drop_over_age(&mut self) {
        let oldest_kept_ns = self.seen_ns.saturating_sub(self.max_age_ns);
        while self.due.front().is_some_and(|&due_ns| due_ns < oldest_kept_ns) {
            self.due.pop_front();
            self.counts.missed += 1;
        }
    }

    fn drop_excess(&mut self) {
        while self.due.len() > self.max_backlog {
            self.due.pop_front();
            self.counts.missed += 1;
        }
    }

    fn drop_due(&mut self) {
        self.counts.missed += self.due.len() as u64;
        self.due.clear();
    }

    #[inline]
    fn next_before_end(&self) -> u64 {
        let next_ns = self.schedule.due_ns();
        if next_ns < self.end_ns { next_ns } else { NEVER_NS }
    }

    /// Recomputes the cached deadlines after any change.
    fn refresh(&mut self) {
        self.next_ns = self.next_before_end();
        // The first instant at which the oldest permit is over age.
        let expiry_ns = self.due.front().map_or(NEVER_NS, |&oldest_ns| {
            oldest_ns.saturating_add(self.max_age_ns).saturating_add(1)
        });
        self.wake_ns = self.next_ns.min(expiry_ns);
    }
}
