/// A permit that has waited so long is reason to start another instance: an instance that is about
/// to be free would have taken it, and a connection takes about as long to open.
const START_AFTER_NS: u64 = 1_000_000;

/// Instances that are started at once, as a share of those there are: one in so many. A thousand
/// are there some 50 ms after the first.
const START_SHARE: u32 = 8;

/// So many instances may be on their way to their first transaction for each that has got there:
/// where that takes long, because they log in first, the number doubles each time.
const STARTING_EACH: u32 = 1;

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
    /// Permits that wait for an instance.
    pub backlog: u64,
    /// Those of them for which no instance has been started: due after
    /// [`cared_until_ns`](Population::cared_until_ns).
    pub uncared: u64,
    /// Permits, ever, that became due and were not taken: those that wait, and those that were
    /// missed.
    pub unserved: u64,
    /// For how long the oldest of them has waited, in nanoseconds.
    pub oldest_wait_ns: u64,
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
/// Need alone starts them: a permit that waits while no instance does, and one for each. An instance that pauses is
/// not to be had, however few transactions are under way, so the number comes to the rate times the
/// whole cycle of an instance, from one permit to its asking for the next, without anybody knowing
/// that. What is not needed for longer than two cycles goes again.
///
/// ```
/// use balter_controllers::{Crowd, Population};
///
/// let mut population = Population::new(1);
/// let wait = Crowd { backlog: 3, uncared: 3, oldest_wait_ns: 2_000_000, ..Crowd::default() };
/// let crowd = Crowd { alive: 16, ..wait };
/// assert_eq!(population.wanted(2_000_000, &crowd, 10, 100), 2);
/// // Not again before the next millisecond, and not at all while somebody waits for a permit.
/// assert_eq!(population.wanted(2_500_000, &crowd, 10, 100), 0);
/// let crowd = Crowd { waiting: 1, ..crowd };
/// assert_eq!(population.wanted(4_000_000, &crowd, 10, 100), 0);
/// ```
#[derive(Clone, Debug)]
pub struct Population {
    /// Instances that are kept whatever the need, and started at once.
    initial: u32,
    next_start_ns: u64,
    /// Instances started, ever, each of which takes a permit at once.
    started: u64,
    /// The unserved permits when instances were last thought of, had none been started since.
    expected: u64,
    /// An instance has been started for each waiting permit up to this intended start.
    cared_until_ns: u64,
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
            cared_until_ns: 0,
            least_waiting: u32::MAX,
            since_ns: None,
        }
    }

    /// How many instances to start now. At most `limit` of them may be
    /// [occupied](Crowd::occupied), and at most `most` there at all.
    ///
    /// Cheap; to be asked at every turn.
    pub fn wanted(&mut self, now_ns: u64, crowd: &Crowd, limit: u32, most: u32) -> u32 {
        if crowd.waiting > 0 || crowd.backlog == 0 {
            self.expected = 0;
        }
        if now_ns < self.next_start_ns || crowd.alive >= most {
            return 0;
        }
        let step = (crowd.alive / START_SHARE).max(1).min(most - crowd.alive);
        let initial = self.initial.min(most);
        if crowd.alive < initial {
            self.next_start_ns = now_ns + START_AFTER_NS;
            return step.min(initial - crowd.alive);
        }
        if crowd.waiting > 0 || crowd.backlog == 0 || crowd.oldest_wait_ns < START_AFTER_NS {
            return 0;
        }
        self.next_start_ns = now_ns + START_AFTER_NS;
        let unserved = crowd.unserved.saturating_add(self.started);
        if unserved < std::mem::replace(&mut self.expected, unserved) {
            // Those who come back get through it.
            return 0;
        }
        // One for each permit: whoever comes back at the rate, though late, needs no help.
        let begun = crowd.alive.saturating_sub(crowd.starting);
        let starting =
            limit.max(begun.saturating_mul(STARTING_EACH)).saturating_sub(crowd.starting);
        let room = limit.saturating_sub(crowd.in_flight).min(starting);
        let started = step.min(room).min(u32::try_from(crowd.uncared).unwrap_or(u32::MAX));
        self.started += u64::from(started);
        started
    }

    /// Waiting permits up to this intended start, in nanoseconds, have had an instance started for
    /// each.
    #[must_use]
    pub fn cared_until_ns(&self) -> u64 {
        self.cared_until_ns
    }

    /// An instance has been started for each waiting permit up to this one.
    pub fn care_for(&mut self, intended_ns: u64) {
        self.cared_until_ns = intended_ns;
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
