use std::fmt;

use crate::{Evidence, split};

/// Below this 99th percentile the generator's lateness is what a timer or a turn of a shard that keeps up
/// costs. No transaction is missed by it, so it explains none.
const LATE_NS: u64 = 1_000_000;

/// Why transactions that were asked for did not succeed. The order is that of ties: of two causes of equal weight
/// the former is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Cause {
    /// The generator's own failures: descriptors, ports, memory, panics.
    Faults,
    /// Shards or nodes that were lost, with what was due or under way there.
    Lost,
    /// The network did not lead to the target.
    Network,
    /// The generator was late, or stood still, by its own work.
    Generator,
    /// Processor time that the hypervisor or the control group's quota took from the generator.
    Processor,
    /// Instances paused or had yet to begin, though there could have been more of them.
    Instances,
    /// As many instances as may be were there, and more could have done more.
    ConcurrencyLimit,
    /// The target failed them: it refused, reset, or answered with an error.
    Failures,
    /// The target was slow: they waited for it until they were dropped, timed out, or were given up.
    Target,
}

/// Transactions that were asked for and did not succeed, shared out among their causes.
///
/// `Display` gives a few lines of at most 80 columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Shortfall {
    /// Transactions asked for: the goal times the time, or those that were due, if these are more.
    pub asked: u64,
    /// Those that ended with their success side.
    pub succeeded: u64,
    /// Transactions short by cause, most first, none of them zero: their sum is `asked - succeeded`.
    pub shares: Vec<(Cause, u64)>,
}

impl Shortfall {
    /// Shares out what a run with a rate as its goal did less than asked. `None` without such a goal, and
    /// where nothing is short.
    ///
    /// 1. What is known of a transaction by itself is counted: that its shard was lost, or how it failed. One that
    ///    timed out or was given up is the target's, which did not answer.
    /// 2. Missed permits that the generator was too late for ([`stalled`](Evidence::stalled)) are its own.
    /// 3. The other missed permits stood in a queue until they were dropped. A queue is as long as the
    ///    times that its members wait, so they are shared out in proportion to the time
    ///    that all permits waited for each cause. Milliseconds of lateness beside seconds of waiting
    ///    for the target so explain next to nothing: without them the queue would have been there
    ///    too.
    /// 4. Of what is the generator's own, the processor explains as many as it would have started in the time that was
    ///    taken: of n started in the share 1 - s of the time, n s / (1 - s).
    ///
    /// Counts are rounded by largest remainder, so that the sum is exact.
    ///
    /// ```
    /// use balter_controllers::{Cause, Evidence, Shortfall};
    ///
    /// // One worker of 10 ms, asked for 300/s over 10 s; 8 % of the machine were stolen.
    /// let evidence = Evidence {
    ///     goal_tps: Some(300),
    ///     planned: 3_000,
    ///     started: 1_000,
    ///     missed: 2_000,
    ///     completed: 1_000,
    ///     elapsed_ns: 10_000_000_000,
    ///     taken: 0.08,
    ///     late_p99_ns: 15_000_000,
    ///     late_ns: 3_000_000_000,
    ///     target_wait_ns: 2_500_000_000_000,
    ///     ..Evidence::default()
    /// };
    /// let shortfall = Shortfall::of(&evidence).expect("2 000 are short");
    /// assert_eq!(shortfall.shares, [(Cause::Target, 1_998), (Cause::Processor, 2)]);
    /// ```
    #[must_use]
    pub fn of(evidence: &Evidence) -> Option<Self> {
        let goal_tps = evidence.goal_tps.filter(|&tps| tps > 0)?;
        let by_rate = u128::from(goal_tps) * u128::from(evidence.elapsed_ns) / 1_000_000_000;
        let asked = evidence.planned.max(u64::try_from(by_rate).unwrap_or(u64::MAX));
        let spoilt = evidence.spoilt();
        let succeeded = evidence.completed.saturating_sub(spoilt).saturating_sub(evidence.failed);
        let whole = asked.checked_sub(succeeded).filter(|&whole| whole > 0)?;

        let mut account = Account { left: whole, shares: Vec::new() };
        let unplanned = asked - evidence.planned;
        account.add(Cause::Lost, evidence.lost_missed.saturating_add(evidence.lost_cancelled));
        let was_lost = evidence.shards_lost > 0 || evidence.nodes_lost > 0;
        // Nobody else was to find out what is due.
        account.add(if was_lost { Cause::Lost } else { Cause::Generator }, unplanned);
        // Of the panics, those in transactions: these have begun and not completed.
        let unanswered = evidence.started.saturating_sub(evidence.completed);
        let panicked = evidence.panics.min(unanswered);
        account.add(Cause::Faults, spoilt.saturating_add(panicked));
        account.add(Cause::Network, evidence.unreachable);
        account.add(Cause::Target, evidence.timeouts);
        let of_others = evidence.unreachable.saturating_add(evidence.timeouts);
        account.add(Cause::Failures, evidence.failed.saturating_sub(of_others));
        let cancelled = unanswered - panicked;
        account.add(Cause::Target, cancelled.saturating_sub(evidence.lost_cancelled));
        account.add(Cause::Generator, evidence.stalled);

        let (causes, times_ns) = waits(evidence);
        if times_ns.iter().all(|&time_ns| time_ns == 0) {
            account.add(unexplained(evidence), u64::MAX);
        } else {
            for (cause, share) in causes.into_iter().zip(split(account.left, &times_ns)) {
                account.add(cause, share);
            }
        }
        account.take_over(Cause::Generator, Cause::Processor, in_taken_time(evidence));
        Some(Self { asked, succeeded, shares: account.sorted() })
    }

    /// What is short.
    #[must_use]
    pub fn short(&self) -> u64 {
        self.asked.saturating_sub(self.succeeded)
    }

    /// More than one in a hundred of what was asked for: worth a reader's time.
    #[must_use]
    pub fn is_notable(&self) -> bool {
        self.short() > self.asked / 100
    }

    /// The cause of most of it.
    #[must_use]
    pub fn largest(&self) -> Option<Cause> {
        self.shares.first().map(|&(cause, _)| cause)
    }

    /// How much a cause has of it.
    #[must_use]
    pub fn share(&self, cause: Cause) -> u64 {
        self.shares.iter().find(|(known, _)| *known == cause).map_or(0, |&(_, share)| share)
    }
}

/// For what permits waited, and for how long in sum.
fn waits(evidence: &Evidence) -> ([Cause; 5], [u64; 5]) {
    let (at_limit, instances) = (evidence.limit_instance_wait_ns, evidence.instance_wait_ns);
    let target_at_limit = evidence.limit_target_wait_ns.min(evidence.target_wait_ns);
    // Where the throughput was seen to grow no more, a higher limit would not have helped.
    let by_limit = if evidence.saturation.is_none() { target_at_limit } else { 0 };
    let instances_at_limit = at_limit.min(instances);
    // An instance that panicked begins anew, and what waits meanwhile waits for that.
    let paused = if evidence.is_spoilt_by_panics() { Cause::Faults } else { Cause::Instances };
    let late_ns = if evidence.late_p99_ns >= LATE_NS { evidence.late_ns } else { 0 };
    let times_ns = [
        (Cause::Target, evidence.target_wait_ns - by_limit),
        (Cause::ConcurrencyLimit, by_limit),
        (paused, instances - instances_at_limit),
        // Pauses do not go when the target saturates.
        (
            if paused == Cause::Faults { paused } else { Cause::ConcurrencyLimit },
            instances_at_limit,
        ),
        (Cause::Generator, late_ns),
    ];
    (times_ns.map(|(cause, _)| cause), times_ns.map(|(_, time_ns)| time_ns))
}

/// Who has what nothing was measured of: the target, or the limit that kept the load from it.
fn unexplained(evidence: &Evidence) -> Cause {
    let is_full = evidence.max_instances > 0 && evidence.instances >= evidence.max_instances;
    match is_full && evidence.saturation.is_none() {
        true => Cause::ConcurrencyLimit,
        false => Cause::Target,
    }
}

/// Transactions that would have been started in the time that was taken.
fn in_taken_time(evidence: &Evidence) -> u64 {
    // So that a share of one is no division by zero; not-a-number takes nothing.
    let taken = evidence.taken.clamp(0.0, 0.999);
    // Saturating, as a conversion to an integer is.
    (evidence.started as f64 * taken / (1.0 - taken)).round() as u64
}

/// What is left of a whole, and what has been taken from it.
struct Account {
    left: u64,
    shares: Vec<(Cause, u64)>,
}

impl Account {
    /// At most as many as are left.
    fn add(&mut self, cause: Cause, count: u64) {
        let count = count.min(self.left);
        self.left -= count;
        self.of(cause, |share| *share += count);
    }

    fn of(&mut self, cause: Cause, change: impl FnOnce(&mut u64)) {
        match self.shares.iter_mut().find(|(known, _)| *known == cause) {
            Some((_, share)) => change(share),
            None => {
                let mut share = 0;
                change(&mut share);
                self.shares.push((cause, share));
            }
        }
    }

    /// At most `count` of the one cause are the other's.
    fn take_over(&mut self, from: Cause, to: Cause, count: u64) {
        let mut taken = 0;
        self.of(from, |share| {
            taken = count.min(*share);
            *share -= taken;
        });
        self.of(to, |share| *share += taken);
    }

    fn sorted(self) -> Vec<(Cause, u64)> {
        debug_assert_eq!(self.left, 0, "all of it has been shared out");
        let mut shares = self.shares;
        shares.retain(|&(_, share)| share > 0);
        shares.sort_by_key(|&(cause, share)| (std::cmp::Reverse(share), cause));
        shares
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Cause::Faults => "faults of the generator: descriptors, ports, memory, panics",
            Cause::Lost => "lost shards or nodes",
            Cause::Network => "the network did not lead to the target",
            Cause::Generator => "the generator was too slow or stood still",
            Cause::Processor => "the generator's processors were taken from it",
            Cause::Instances => "instances paused or had yet to begin",
            Cause::ConcurrencyLimit => "all instances allowed were in use",
            Cause::Failures => "the target failed them",
            Cause::Target => "the target was slow or busy",
        })
    }
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = self.short();
        let percent = 100.0 * short as f64 / self.asked.max(1) as f64;
        write!(f, "  short by {short} of {} asked for ({percent:.1} %):", self.asked)?;
        for (cause, share) in &self.shares {
            write!(f, "\n{share:>14}  {cause}")?;
        }
        Ok(())
    }
}
