use std::collections::VecDeque;

use crate::schedule::Schedule;
use crate::{Arrival, Ticks};

/// Stands for "no such time" in the cached deadlines: later than any clock.
const NEVER_NS: u64 = u64::MAX;

/// The due queue starts with room for this many permits. A shard that keeps up
/// holds those of one turn, a few hundred at most; only a real backlog grows it.
const ROOM: usize = 1_024;

/// A turn that ends so late is one of a busy shard on a busy machine: what became due meanwhile is
/// released at once. After a longer pause it is made up for at twice the rate.
const JITTER_NS: u64 = 10_000_000;

/// Settings of a [`Pacer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacerConfig {
    /// How the intended starts are spread over time.
    pub arrival: Arrival,
    /// Number of this shard among all that share the scenario: it picks the random sequence of a
    /// Poisson schedule.
    pub sequence: u32,
    /// Most permits that may wait. When one more becomes due the oldest is
    /// dropped and counted as missed. Zero counts as one, because a permit waits
    /// at least from `advance` to `take`. Rule of thumb: what the shard's rate
    /// releases in `max_backlog_age_ns`, bounded by the memory at 16 bytes each.
    pub max_backlog: usize,
    /// A permit that has waited for longer than this, in nanoseconds, is dropped
    /// and counted as missed. `u64::MAX` for no such bound.
    pub max_backlog_age_ns: u64,
    /// A permit that could not be released for so long after it was due, in nanoseconds, is missed:
    /// the generator stood still (a suspended machine, a blocked shard) and is not to make up for
    /// all of it. At most 20 ms of the rate are released at once after a pause, the rest of what is
    /// younger than this at twice the rate. Rule of thumb: 250 ms, well above a scheduling delay
    /// and short enough that the target is not driven at twice its rate for long.
    pub max_late_ns: u64,
}

/// What a [`Pacer`] has counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacerCounts {
    /// Permits that became due. At any time they are the permits taken (and not
    /// put back), the missed ones, and the [`backlog`](Pacer::backlog).
    pub planned: u64,
    /// Permits that became due and were dropped: too old, too many, due in a pause
    /// of the generator, or overdue when the rate was lowered.
    pub missed: u64,
    /// Those of the missed ones that the generator itself was too late for.
    pub stalled: u64,
}

/// The right to start one transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permit {
    /// When the transaction was due, in nanoseconds.
    pub intended_ns: u64,
    /// When the shard came to release it: what lies between the two is the generator's lateness.
    pub released_ns: u64,
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
/// use balter_controllers::{Arrival, Pacer, PacerConfig, Timetable};
///
/// let config = PacerConfig {
///     arrival: Arrival::Constant,
///     sequence: 0,
///     max_backlog: 1_000,
///     max_backlog_age_ns: 1_000_000_000,
///     max_late_ns: 250_000_000,
/// };
/// // Every second tick of 200 a second, from the instant zero to one second later.
/// let ticks = Timetable::new(0, 200).ticks(0, 2);
/// let mut pacer = Pacer::new(config, ticks, 1_000_000_000);
/// pacer.advance(9_000_000);
/// pacer.advance(15_000_000);
/// let permit = pacer.take().expect("two are due");
/// assert_eq!((permit.intended_ns, permit.released_ns), (0, 9_000_000));
/// assert_eq!(pacer.take().map(|permit| permit.intended_ns), Some(10_000_000));
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
    /// Permits due up to here may be released; behind `seen_ns` only while a pause is made up for.
    horizon_ns: u64,
    /// Cached from the schedule, `NEVER_NS` if nothing follows.
    next_ns: u64,
    /// In the order of their intended starts, oldest first.
    due: VecDeque<Permit>,
    counts: PacerCounts,
    /// How long the missed ones had waited, since this was last asked for.
    waited: Waited,
    schedule: Schedule,
    ticks: Ticks,
    /// `ticks` are not in the schedule yet: they are from this time on. `NEVER_NS` if they are.
    switch_ns: u64,
    /// Exclusive; brought forward to zero by `finish`.
    end_ns: u64,
    max_backlog: usize,
    max_age_ns: u64,
    max_late_ns: u64,
    /// No permit waits for longer than this: the lesser of the time in which as many permits become
    /// due as the backlog has room for, and `max_late_ns`.
    kept_ns: u64,
}

/// Counts of times, each doubling of which has 16 buckets.
#[derive(Debug, Default)]
struct Waited {
    /// Empty until there is one.
    counts: Vec<u64>,
    /// Something was added since it was drained.
    holds: bool,
}

/// Their number, as a power of two.
const FINE_BITS: u32 = 4;

impl Waited {
    const BUCKETS: usize = ((u64::BITS - FINE_BITS + 1) as usize) << FINE_BITS;

    fn add(&mut self, time_ns: u64, count: u64) {
        if count == 0 {
            return;
        }
        if self.counts.is_empty() {
            self.counts = vec![0; Self::BUCKETS];
        }
        self.holds = true;
        // The bits below the highest `FINE_BITS + 1` are dropped.
        let dropped = (time_ns | ((2 << FINE_BITS) - 1)).ilog2() - FINE_BITS;
        self.counts[((dropped as usize) << FINE_BITS) + (time_ns >> dropped) as usize] += count;
    }

    fn drain(&mut self, mut tell: impl FnMut(u64, u64)) {
        if !std::mem::take(&mut self.holds) {
            return;
        }
        for (index, count) in self.counts.iter_mut().enumerate().filter(|(_, count)| **count > 0) {
            let dropped = (index >> FINE_BITS).saturating_sub(1);
            let shortest_ns = ((index - (dropped << FINE_BITS)) as u64) << dropped;
            tell(shortest_ns, std::mem::take(count));
        }
    }
}

impl Pacer {
    /// A schedule of these ticks before `end_ns`; `u64::MAX` stands for no end.
    #[must_use]
    pub fn new(config: PacerConfig, ticks: Ticks, end_ns: u64) -> Self {
        let mut pacer = Pacer {
            wake_ns: NEVER_NS,
            seen_ns: ticks.from_ns,
            horizon_ns: ticks.from_ns,
            next_ns: NEVER_NS,
            due: VecDeque::with_capacity(ROOM.min(config.max_backlog.saturating_add(1))),
            counts: PacerCounts::default(),
            waited: Waited::default(),
            schedule: Schedule::new(config.arrival, config.sequence),
            ticks,
            switch_ns: NEVER_NS,
            end_ns,
            max_backlog: config.max_backlog.max(1),
            max_age_ns: config.max_backlog_age_ns,
            max_late_ns: config.max_late_ns,
            kept_ns: 0,
        };
        pacer.schedule.follow(&ticks);
        pacer.measure_room();
        pacer.refresh();
        pacer
    }

    /// Releases the permits due at or before `now_ns` and before the end, and
    /// drops those that have become too old or too many.
    ///
    /// One comparison if nothing is due. A time before the latest one seen
    /// changes nothing. After a pause of the caller not all of them are released at once: see
    /// [`PacerConfig::max_late_ns`].
    #[inline]
    pub fn advance(&mut self, now_ns: u64) {
        if now_ns < self.wake_ns {
            self.seen_ns = self.seen_ns.max(now_ns);
        } else {
            self.release(now_ns);
        }
    }

    /// The oldest due permit.
    #[inline]
    pub fn take(&mut self) -> Option<Permit> {
        self.due.pop_front()
    }

    /// The oldest due permit: one that waits already, whatever its age, or else one that has become
    /// due by `now_ns`.
    ///
    /// Like [`advance`](Pacer::advance) and [`take`](Pacer::take), but cheaper: while permits wait,
    /// the schedule is left to the next call of `advance`.
    #[inline]
    pub fn take_due(&mut self, now_ns: u64) -> Option<Permit> {
        if let Some(permit) = self.due.pop_front() {
            return Some(permit);
        }
        if self.next_ns <= now_ns && now_ns - self.next_ns < self.kept_ns.min(JITTER_NS) {
            let permit = Permit { intended_ns: self.next_ns, released_ns: now_ns };
            self.seen_ns = self.seen_ns.max(now_ns);
            self.counts.planned += 1;
            self.schedule.step();
            self.next_ns = self.next_before_end();
            self.wake_ns = self.next_ns;
            return Some(permit);
        }
        self.advance(now_ns);
        self.take()
    }

    /// Returns a permit that was taken and not used, because its taker is gone.
    /// It waits again in its old place, with its times unchanged, unless
    /// it has become too old meanwhile or the backlog is full: then it is missed.
    ///
    /// After [`finish`](Pacer::finish) it counts as missed instead. Ignored if no
    /// permit is out, so that the counts always add up.
    pub fn put_back(&mut self, permit: Permit) {
        let out = self.counts.planned - self.counts.missed - self.due.len() as u64;
        if out == 0 {
            return;
        }
        if self.is_finished() {
            self.miss(permit);
            return;
        }
        // Nearly always the front; several takers may return theirs in any order.
        let place = self.due.partition_point(|other| other.intended_ns < permit.intended_ns);
        self.due.insert(place, permit);
        self.drop_excess();
        self.drop_over_age();
        self.refresh();
    }

    /// The waiting permits with this intended start or a later one, oldest first.
    pub fn due_from(&self, intended_ns: u64) -> impl ExactSizeIterator<Item = &Permit> {
        let first = self.due.partition_point(|permit| permit.intended_ns < intended_ns);
        self.due.range(first..)
    }

    /// Drops the permits that were released before a time: they are missed.
    pub fn shed(&mut self, before_ns: u64) {
        while let Some(permit) = self.pop_if(|permit| permit.released_ns < before_ns) {
            self.miss(permit);
        }
        self.refresh();
    }

    /// Goes on with other ticks, from `ticks.from_ns` on or from now if that is past; the same
    /// ticks again change nothing.
    ///
    /// Permits due up to `now_ns` belong to the old ticks. If the rate is raised
    /// they keep waiting. If it is lowered they are dropped and counted as
    /// missed, those included that became due since the last call of
    /// [`advance`](Pacer::advance): the target gets relief at once. To use them,
    /// advance and take first.
    pub fn follow(&mut self, now_ns: u64, ticks: Ticks) {
        if ticks == self.ticks || self.is_finished() {
            return;
        }
        self.advance(now_ns);
        self.miss_due_by(self.seen_ns);
        if self.switch_ns != NEVER_NS {
            // Two changes within moments. The first has not begun everywhere; that it begins early
            // here moves no more than those moments.
            self.switch();
        }
        if ticks.rate() < self.ticks.rate() {
            self.drop_due();
        }
        self.ticks = ticks;
        self.switch_ns = ticks.from_ns;
        if ticks.from_ns <= self.seen_ns {
            self.switch();
            // What the old ticks have released belongs to them.
            self.schedule.skip(self.seen_ns);
        }
        self.measure_room();
        self.refresh();
    }

    #[cold]
    fn switch(&mut self) {
        self.switch_ns = NEVER_NS;
        self.schedule.follow(&self.ticks);
    }

    fn measure_room(&mut self) {
        let room_ns = self.max_backlog as f64 * 1e9 / self.ticks.rate();
        // Saturating, as a conversion to an integer is.
        self.kept_ns = (room_ns as u64).min(self.max_late_ns);
    }

    /// Intended start of the first permit not yet released, in nanoseconds; or
    /// `None` if the rate is zero or none is left before the end. While a pause is made up for, it
    /// is in the past: call [`advance`](Pacer::advance) again soon.
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

    /// The permit that waits longest.
    #[inline]
    #[must_use]
    pub fn oldest_due(&self) -> Option<Permit> {
        self.due.front().copied()
    }

    /// What has been planned and missed so far.
    #[inline]
    #[must_use]
    pub fn counts(&self) -> PacerCounts {
        self.counts
    }

    /// Tells of the permits that were missed since the last call: a time that so many of them had waited
    /// at least, since they were due. It is up to 6 % short, and more for those that a pause of the
    /// generator took: of these only the shortest wait is known.
    pub fn drain_waited(&mut self, tell: impl FnMut(u64, u64)) {
        self.waited.drain(tell);
    }

    /// Ends the schedule: what still waits is missed, and so is what became due up to `now_ns`
    /// and was not released. Nothing is released any more, whatever is called.
    pub fn finish(&mut self, now_ns: u64) {
        if self.is_finished() {
            return;
        }
        self.miss_due_by(now_ns.max(self.seen_ns));
        self.drop_due();
        self.end_ns = 0;
        self.refresh();
    }

    fn is_finished(&self) -> bool {
        self.end_ns == 0
    }

    #[inline(never)]
    fn release(&mut self, now_ns: u64) {
        let before_ns = self.seen_ns;
        self.seen_ns = before_ns.max(now_ns);
        if self.next_ns <= self.seen_ns {
            // What the queue has no room for, or is too late, would be dropped again one by one, which
            // takes longer than it takes for as much to become due at rates that no machine has.
            if let Some(dropped_by_ns) = self.seen_ns.checked_sub(self.kept_ns.saturating_add(1)) {
                self.miss_due_by(dropped_by_ns);
                self.horizon_ns = self.horizon_ns.max(dropped_by_ns);
            }
            if self.next_ns > before_ns {
                // Up to then nothing was late.
                self.horizon_ns = self.next_ns;
            }
            self.horizon_ns = if self.seen_ns.saturating_sub(self.next_ns) <= JITTER_NS {
                self.seen_ns
            } else {
                let passed_ns = (self.seen_ns - before_ns).min(JITTER_NS);
                self.horizon_ns.saturating_add(2 * passed_ns).min(self.seen_ns)
            };
            while self.next_ns <= self.horizon_ns && self.next_ns != NEVER_NS {
                let permit = Permit { intended_ns: self.next_ns, released_ns: self.seen_ns };
                // Before it grows, so that the queue never outgrows its bound.
                if self.due.len() >= self.max_backlog
                    && let Some(oldest) = self.due.pop_front()
                {
                    self.miss(oldest);
                }
                self.due.push_back(permit);
                self.counts.planned += 1;
                self.schedule.step();
                self.next_ns = self.next_before_end();
            }
        }
        self.drop_over_age();
        self.refresh();
    }

    /// Counts what is due up to a time, and was not released, as missed by the generator.
    fn miss_due_by(&mut self, until_ns: u64) {
        if self.is_finished() {
            return;
        }
        let until_ns = until_ns.min(self.end_ns - 1);
        let mut skipped = 0;
        if self.switch_ns <= until_ns {
            skipped += self.schedule.skip(self.switch_ns.saturating_sub(1));
            self.switch();
        }
        skipped += self.schedule.skip(until_ns);
        self.counts.planned += skipped;
        self.counts.missed += skipped;
        self.counts.stalled += skipped;
        // At least: those before the last of them had waited for longer.
        self.waited.add(self.seen_ns.saturating_sub(until_ns), skipped);
        self.next_ns = self.next_before_end();
    }

    fn pop_if(&mut self, is_so: impl Fn(&Permit) -> bool) -> Option<Permit> {
        if self.due.front().is_some_and(is_so) { self.due.pop_front() } else { None }
    }

    fn miss(&mut self, permit: Permit) {
        self.counts.missed += 1;
        self.waited.add(self.seen_ns.saturating_sub(permit.intended_ns), 1);
    }

    fn drop_over_age(&mut self) {
        let oldest_kept_ns = self.seen_ns.saturating_sub(self.max_age_ns);
        while let Some(permit) = self.pop_if(|permit| permit.intended_ns < oldest_kept_ns) {
            self.miss(permit);
        }
    }

    fn drop_excess(&mut self) {
        while self.due.len() > self.max_backlog
            && let Some(oldest) = self.due.pop_front()
        {
            self.miss(oldest);
        }
    }

    fn drop_due(&mut self) {
        while let Some(permit) = self.due.pop_front() {
            self.miss(permit);
        }
    }

    #[inline]
    fn next_before_end(&mut self) -> u64 {
        let next_ns = self.schedule.due_ns();
        if next_ns < self.switch_ns.min(self.end_ns) { next_ns } else { self.next_at_bound() }
    }

    /// The schedule has come to other ticks, or to the end.
    #[cold]
    fn next_at_bound(&mut self) -> u64 {
        if self.schedule.due_ns() >= self.switch_ns && self.switch_ns != NEVER_NS {
            self.switch();
        }
        let next_ns = self.schedule.due_ns();
        if next_ns < self.end_ns { next_ns } else { NEVER_NS }
    }

    /// Recomputes the cached deadlines after any change.
    fn refresh(&mut self) {
        self.next_ns = self.next_before_end();
        // The first instant at which the oldest permit is over age.
        let expiry_ns = self.due.front().map_or(NEVER_NS, |oldest| {
            oldest.intended_ns.saturating_add(self.max_age_ns).saturating_add(1)
        });
        self.wake_ns = self.next_ns.min(expiry_ns);
    }
}
