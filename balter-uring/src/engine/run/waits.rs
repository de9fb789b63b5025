//! What the permits of a run wait for on its shard.

use balter_controllers::Shortage;

/// How often the shard's load is looked at.
const LOOK_NS: u64 = 10_000_000;

/// A shard with less idle time than one part in so many has no time of its own.
const SPARE_SHARE: u64 = 20;

/// After a longer turn than this the shard stood still: nobody could have been served.
const LONG_TURN_NS: u64 = 10_000_000;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Waits {
    /// Time that permits waited because of transactions under way, and because there was no instance
    /// for them, summed over the permits.
    pub(super) target_ns: u64,
    pub(super) instance_ns: u64,
    /// As of the last turn: when it was, how many permits waited, and for what.
    turned_ns: u64,
    backlog: u64,
    reason: Reason,
    /// The clock and the shard's idle time when its load was last looked at.
    looked: (u64, u64),
    overloaded: bool,
    shortage: Shortage,
}

/// What permits that are due wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reason {
    /// The shard itself has no time. That is its own lateness, which each permit is told.
    #[default]
    Shard,
    /// As many transactions are under way as may be, or all instances are in one.
    Target,
    /// Instances pause, or have yet to begin.
    Instances,
}

/// How a run stands at the end of its turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Permits that wait.
    pub(super) backlog: u64,
    /// Permits taken so far.
    pub(super) started: u64,
    /// Instances in a transaction, and how many there may be.
    pub(super) busy: u32,
    pub(super) limit: u32,
    pub(super) instances: u32,
}

impl Waits {
    pub(super) fn new(start_ns: u64, idle_ns: u64) -> Self {
        Self {
            target_ns: 0,
            instance_ns: 0,
            turned_ns: start_ns,
            backlog: 0,
            reason: Reason::Shard,
            looked: (start_ns, idle_ns),
            overloaded: false,
            shortage: Shortage::default(),
        }
    }

    /// A turn begins: the permits that waited at the end of the last one have waited since. Answers
    /// whether the shard has had next to no time of its own lately.
    pub(super) fn turn(&mut self, now: u64, idle_ns: u64) -> bool {
        let turn_ns = now.saturating_sub(self.turned_ns);
        let waited_ns = turn_ns.saturating_mul(self.backlog);
        match self.reason {
            _ if turn_ns > LONG_TURN_NS => {}
            Reason::Shard => {}
            Reason::Target => self.target_ns = self.target_ns.saturating_add(waited_ns),
            Reason::Instances => self.instance_ns = self.instance_ns.saturating_add(waited_ns),
        }
        (self.turned_ns, self.backlog) = (now, 0);
        let (looked_ns, idle_then_ns) = self.looked;
        let elapsed_ns = now.saturating_sub(looked_ns);
        if elapsed_ns >= LOOK_NS {
            self.overloaded = (idle_ns - idle_then_ns) * SPARE_SHARE < elapsed_ns;
            self.looked = (now, idle_ns);
        }
        self.overloaded
    }

    /// A turn ends. Permits that were released before the answer, if there is one, are not to be kept:
    /// see [`Shortage`].
    pub(super) fn note(&mut self, now: u64, load: Load) -> Option<u64> {
        let Load { backlog, started, busy, limit, instances } = load;
        self.reason = match busy {
            _ if self.overloaded => Reason::Shard,
            1.. if busy >= limit.min(instances) => Reason::Target,
            _ => Reason::Instances,
        };
        self.backlog = backlog;
        self.shortage.note(now, started, backlog, self.reason == Reason::Instances);
        self.shortage.shed_before(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Turns every millisecond for 20 ms with three permits waiting, and idle for so much of it.
    fn after(load: Load, idle_us_each_ms: u64) -> (u64, u64, bool) {
        let mut waits = Waits::new(0, 0);
        let mut overloaded = false;
        for ms in 1..=40 {
            overloaded = waits.turn(ms * MS, ms * idle_us_each_ms * 1_000);
            waits.note(ms * MS, load);
        }
        (waits.target_ns, waits.instance_ns, overloaded)
    }

    #[test]
    fn a_wait_has_one_reason() {
        let load = Load { backlog: 3, started: 9, busy: 2, limit: 8, instances: 5 };
        // Three instances pause.
        assert_eq!(after(load, 500), (0, 3 * 39 * MS, false));
        // All are in a transaction, or as many as may be.
        assert_eq!(after(Load { instances: 2, ..load }, 500), (3 * 39 * MS, 0, false));
        assert_eq!(after(Load { limit: 2, ..load }, 500), (3 * 39 * MS, 0, false));
        // None has come to a transaction.
        assert_eq!(after(Load { busy: 0, instances: 0, ..load }, 500), (0, 3 * 39 * MS, false));
        // The shard works all the time; that is seen after ten milliseconds.
        let (target_ns, instance_ns, overloaded) = after(load, 10);
        assert!(overloaded && target_ns == 0 && instance_ns < 3 * 11 * MS, "{instance_ns}");
    }

    #[test]
    fn a_standstill_of_the_shard_is_no_wait_for_others() {
        let mut waits = Waits::new(0, 0);
        let load = Load { backlog: 3, started: 9, busy: 2, limit: 8, instances: 5 };
        waits.note(0, load);
        waits.turn(MS, MS / 2);
        assert_eq!((waits.target_ns, waits.instance_ns), (0, 3 * MS));
        // The next turn is three seconds later. Nobody could have taken a permit meanwhile.
        waits.note(MS, load);
        waits.turn(3_000 * MS, 2_000 * MS);
        assert_eq!((waits.target_ns, waits.instance_ns), (0, 3 * MS));
    }
}
