use crate::Pacer;

/// A permit that has waited so long is reason to start another instance: an instance that is about
/// to be free would have taken it, and a connection takes about as long to open.
const START_AFTER_NS: u64 = 1_000_000;

/// Instances that are started in one such time, as a share of those there are: one in so many. A
/// thousand are there some 50 ms after the first.
const START_SHARE: u32 = 8;

/// Instances that nobody missed for so long are given back: twice the time that an instance takes
/// for a transaction with all that it does around it, and not less than this.
const KEPT_AT_LEAST_NS: u64 = 2_000_000_000;

/// So many waiting ones, of those there are, are kept for what comes unevenly: one in so many, and
/// these.
const SPARE_SHARE: u32 = 8;
const SPARE: u32 = 2;

/// The instances of one scenario on one shard, and the work that waits for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crowd {
    /// Instances there are.
    pub alive: u32,
    /// Those that are busy at the target before their first transaction, as with a log-in.
    pub starting: u32,
    /// Transactions under way, and those that are about to begin.
    pub in_flight: u32,
    /// Instances that wait for a permit.
    pub waiting: u32,
    /// Permits taken so far.
    pub taken: u64,
}

impl Crowd {
    /// What counts against the limit: an instance that pauses between two transactions does not,
    /// since it asks nothing of the target.
    #[must_use]
    pub fn occupied(&self) -> u32 {
        self.in_flight.saturating_add(self.starting)
    }
}

/// Decides how many instances of a scenario a shard has in an open loop.
///
/// An instance is started for each permit that has waited for a millisecond while no instance waits
/// for a permit. Instances that pause take no permits, so their number grows until it is the rate
/// times the whole cycle of an instance, from one permit to its asking for the next (Little's law).
/// Nobody has to know the length of the cycle. Instances that were not needed for two cycles leave.
///
/// ```
/// use balter_controllers::{Arrival, Crowd, Pacer, PacerConfig, Population, Timetable};
///
/// let config = PacerConfig {
///     arrival: Arrival::Constant,
///     sequence: 0,
///     max_backlog: 1_000,
///     max_backlog_age_ns: 1_000_000_000,
///     max_late_ns: 250_000_000,
/// };
/// let mut pacer = Pacer::new(config, Timetable::new(0, 1_000).ticks(0, 1), u64::MAX);
/// let mut population = Population::new(1);
/// // All 16 instances pause. A permit that has waited for a millisecond is worth another one.
/// let crowd = Crowd { alive: 16, ..Crowd::default() };
/// pacer.advance(0);
/// assert_eq!(population.wanted(900_000, &crowd, &pacer, 10, 100), 0);
/// assert_eq!(population.wanted(1_000_000, &crowd, &pacer, 10, 100), 1);
/// // That one has been cared for. Two more become due.
/// assert_eq!(population.wanted(2_000_000, &crowd, &pacer, 10, 100), 0);
/// pacer.advance(2_500_000);
/// assert_eq!(population.wanted(3_000_000, &crowd, &pacer, 10, 100), 2);
/// // None while an instance waits for a permit.
/// pacer.advance(4_500_000);
/// let crowd = Crowd { waiting: 1, ..crowd };
/// assert_eq!(population.wanted(6_000_000, &crowd, &pacer, 10, 100), 0);
/// ```
#[derive(Clone, Debug)]
pub struct Population {
    /// Instances that are kept whatever the need, and started at once.
    initial: u32,
    next_start_ns: u64,
    /// Instances started, ever, each of which takes a permit at once.
    started: u64,
    /// Permits that were due and not taken when this was last asked, had no instance been started.
    expected: u64,
    /// An instance has been started for each waiting permit with an earlier intended start.
    uncared_from_ns: u64,
    /// Fewest instances that waited for a permit since `since_ns`.
    least_waiting: u32,
    since_ns: Option<u64>,
}

impl Population {
    /// For a shard that is to begin with `initial` instances.
    #[must_use]
    pub fn new(initial: u32) -> Self {
        Self {
            initial,
            next_start_ns: 0,
            started: 0,
            expected: 0,
            uncared_from_ns: 0,
            least_waiting: u32::MAX,
            since_ns: None,
        }
    }

    /// How many instances to start now for what waits in `due`, which is the shard's pacer. At most
    /// `limit` of them may be [occupied](Crowd::occupied), and at most `most` there at all.
    ///
    /// Cheap; to be asked at every turn.
    pub fn wanted(
        &mut self,
        now_ns: u64,
        crowd: &Crowd,
        due: &Pacer,
        limit: u32,
        most: u32,
    ) -> u32 {
        let initial = self.initial.min(most);
        if crowd.alive < initial {
            return self.paced(now_ns, crowd.alive, initial - crowd.alive);
        }
        let Some(oldest) = due.oldest_due().filter(|_| crowd.waiting == 0) else {
            self.expected = 0;
            return 0;
        };
        let waited_ns = now_ns.saturating_sub(oldest.released_ns);
        if now_ns < self.next_start_ns || waited_ns < START_AFTER_NS || crowd.alive >= most {
            return 0;
        }
        let unserved = due.counts().planned.saturating_sub(crowd.taken);
        let unserved = unserved.saturating_add(self.started);
        if unserved < std::mem::replace(&mut self.expected, unserved) {
            // The instances that come back take more than becomes due.
            self.next_start_ns = now_ns + START_AFTER_NS;
            return 0;
        }
        // Where it takes long to come to the first transaction, because instances log in first, there
        // may be as many on their way as have got there, so that the number doubles each time.
        let begun = crowd.alive.saturating_sub(crowd.starting);
        let starting = limit.max(begun).saturating_sub(crowd.starting);
        let room = limit.saturating_sub(crowd.in_flight).min(starting).min(most - crowd.alive);
        // One for each permit: a backlog that instances serve at the rate, though late, needs no more.
        let mut uncared = due.due_from(self.uncared_from_ns);
        let wanted = u32::try_from(uncared.len()).unwrap_or(u32::MAX).min(room);
        let started = self.paced(now_ns, crowd.alive, wanted);
        if let Some(last) = (started as usize).checked_sub(1).and_then(|last| uncared.nth(last)) {
            self.uncared_from_ns = last.intended_ns + 1;
        }
        self.started += u64::from(started);
        started
    }

    /// Spreads the start of `wanted` instances beside those `alive` over time: instances that begin
    /// together stay together, and the target meets them in waves. How many to start now.
    pub fn paced(&mut self, now_ns: u64, alive: u32, wanted: u32) -> u32 {
        if wanted == 0 || now_ns < self.next_start_ns {
            return 0;
        }
        self.next_start_ns = now_ns + START_AFTER_NS;
        wanted.min((alive / START_SHARE).max(1))
    }

    /// How many of the waiting instances to give back now. `cycle_ns` is the mean time from one
    /// permit of an instance to its asking for the next.
    pub fn surplus(&mut self, now_ns: u64, crowd: &Crowd, cycle_ns: u64) -> u32 {
        self.least_waiting = self.least_waiting.min(crowd.waiting);
        let since_ns = *self.since_ns.get_or_insert(now_ns);
        let kept_ns = cycle_ns.saturating_mul(2).max(KEPT_AT_LEAST_NS);
        if now_ns.saturating_sub(since_ns) < kept_ns {
            return 0;
        }
        self.since_ns = Some(now_ns);
        let least = std::mem::replace(&mut self.least_waiting, u32::MAX);
        let spare = least.saturating_sub(crowd.alive / SPARE_SHARE).saturating_sub(SPARE);
        // Half of them: the next look sees what that did.
        spare.div_ceil(2).min(crowd.alive.saturating_sub(self.initial))
    }
}

/// A shortage is one when it has lasted for so long without an instance that came.
const SHORTAGE_NS: u64 = 50_000_000;

/// A turn that comes so late says nothing: the shard stood still, and instances could not come.
const LATE_TURN_NS: u64 = 10_000_000;

/// The permits of so long are kept then, for the first instance that comes.
const KEPT_IN_SHORTAGE_NS: u64 = 2_000_000;

/// Tells when permits that wait for instances are not to be kept any longer.
///
/// Where all instances pause, or have yet to begin, and none has come for a permit for 50 ms, none
/// will be in time: what waits would only be a burst at the target when they come. So
/// it is missed, but for the last moments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shortage {
    since_ns: u64,
    noted_ns: u64,
    /// How many permits had been taken then.
    taken: u64,
    lasts: bool,
}

impl Shortage {
    /// Notes how things stand: permits taken so far, permits that wait, and whether it is instances
    /// that these wait for.
    pub fn note(&mut self, now_ns: u64, taken: u64, backlog: u64, for_instances: bool) {
        let is_late = now_ns.saturating_sub(self.noted_ns) > LATE_TURN_NS;
        self.noted_ns = now_ns;
        if !for_instances || taken != self.taken || (backlog == 0 && !self.lasts) {
            *self = Self { since_ns: now_ns, noted_ns: now_ns, taken, lasts: false };
        } else if is_late {
            self.since_ns = now_ns;
        } else if now_ns.saturating_sub(self.since_ns) >= SHORTAGE_NS {
            self.lasts = true;
        }
    }

    /// Permits released before this time are not to be kept.
    #[must_use]
    pub fn shed_before(&self, now_ns: u64) -> Option<u64> {
        self.lasts.then(|| now_ns.saturating_sub(KEPT_IN_SHORTAGE_NS))
    }
}
