//! What the aggregator grants a shard.

use std::cell::Cell;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};

use balter_controllers::{Ticks, Timetable, split, split_evenly};
use crossbeam_utils::CachePadded;

use crate::config::Load;

/// What all parts of a run may use: transactions per second, and transactions under way at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Budget {
    pub(crate) tps: u32,
    pub(crate) concurrency: u32,
}

/// A shard's share of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Share {
    /// The permits that are its own.
    pub(crate) ticks: Ticks,
    /// Open loop, or growing: instances in a transaction or on their way to the first, at most. In
    /// a closed loop of a fixed size: instances.
    pub(crate) concurrency: u32,
    /// Instances, at most.
    pub(crate) most: u32,
}

impl Share {
    /// Nothing may be used.
    pub(crate) fn none() -> Self {
        Self { ticks: Ticks::none(0), concurrency: 0, most: 0 }
    }
}

/// The shares of a run's budget, of which there may be `most` instances at all. Their sum is the
/// whole, to the unit. With fewer instances or transactions a second than there are shards, only
/// the first ones have any.
pub(crate) fn shares(
    load: Load,
    timetable: &Timetable,
    concurrency: u32,
    most: u32,
    shards: usize,
) -> Vec<Share> {
    let most = u64::from(most.max(1));
    let Load::Rate(_) = load else {
        let split = |whole| split_evenly(whole, shards).map(|count| count as u32);
        let most = split(if let Load::Instances(_) = load { u64::from(concurrency) } else { most });
        let pairs = split(u64::from(concurrency)).zip(most);
        let share = |(concurrency, most)| Share { concurrency, most, ..Share::none() };
        return pairs.map(share).collect();
    };
    let working = (shards as u64).min(most).min(u64::from(timetable.tps())) as u32;
    // Instances go where the permits are, and no permit must be without one.
    let concurrency = u64::from(concurrency).max(u64::from(working));
    let most = most.max(u64::from(working));
    let weights: Vec<_> = (0..shards).map(|part| u64::from((part as u32) < working)).collect();
    let shares = split(concurrency, &weights).into_iter().zip(split(most, &weights));
    let of = |(part, (concurrency, most))| match part < working {
        true => Share {
            ticks: timetable.ticks(part, working),
            concurrency: concurrency as u32,
            most: most as u32,
        },
        false => Share { ticks: Ticks::none(timetable.from_ns()), concurrency: 0, most: 0 },
    };
    (0..).zip(shares).map(of).collect()
}

/// Splits instances among the shards that have permits.
pub(super) fn share_among(instances: u64, shares: &[Share]) -> Vec<u32> {
    let weights: Vec<_> = shares.iter().map(|share| u64::from(share.ticks.tps > 0)).collect();
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

/// A sequence lock over one share, of which there is one writer. The reader never waits: what it
/// does not get whole it gets at its next turn.
#[derive(Debug)]
struct Words {
    /// Odd while the words are being written.
    version: AtomicU64,
    from_ns: AtomicU64,
    phase: AtomicU64,
    /// Two numbers each.
    tps_and_concurrency: AtomicU64,
    part_and_parts: AtomicU64,
    most: AtomicU64,
    /// On the shard's clock; the share is nothing from then on.
    until_ns: AtomicU64,
    course: AtomicU8,
    /// From one request outside of transactions to the next.
    outside_interval_ns: AtomicU64,
}

fn pair(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

fn unpair(pair: u64) -> (u32, u32) {
    ((pair >> 32) as u32, pair as u32)
}

impl BudgetSlot {
    /// A slot with a share that holds until the given time, `u64::MAX` for as long as the run.
    pub(crate) fn new(share: Share, until_ns: u64) -> Self {
        let word = || AtomicU64::new(0);
        let slot = Self {
            inner: CachePadded::new(Words {
                version: word(),
                from_ns: word(),
                phase: word(),
                tps_and_concurrency: word(),
                part_and_parts: word(),
                most: word(),
                until_ns: word(),
                course: AtomicU8::new(Course::Run as u8),
                outside_interval_ns: AtomicU64::new(u64::MAX),
            }),
        };
        slot.grant(share, until_ns);
        slot
    }

    /// Grants a share that ends at the given time. For one thread, the aggregator's.
    pub(crate) fn grant(&self, share: Share, until_ns: u64) {
        let Words { version, from_ns, phase, tps_and_concurrency, part_and_parts, most, .. } =
            &*self.inner;
        let Share { ticks, concurrency, .. } = share;
        let before = version.load(Ordering::Relaxed);
        version.store(before + 1, Ordering::Relaxed);
        // Who sees a word of the new share also sees that the version was odd, or is another.
        fence(Ordering::Release);
        from_ns.store(ticks.from_ns, Ordering::Relaxed);
        phase.store(ticks.phase.to_bits(), Ordering::Relaxed);
        tps_and_concurrency.store(pair(ticks.tps, concurrency), Ordering::Relaxed);
        part_and_parts.store(pair(ticks.part, ticks.parts), Ordering::Relaxed);
        most.store(u64::from(share.most), Ordering::Relaxed);
        self.inner.until_ns.store(until_ns, Ordering::Relaxed);
        version.store(before + 2, Ordering::Release);
    }

    /// The share, and when it ends, if it is another than the one of the version `seen`.
    #[inline]
    pub(crate) fn changed(&self, seen: &Cell<u64>) -> Option<(Share, u64)> {
        let version = self.inner.version.load(Ordering::Acquire);
        if version == seen.get() || version % 2 == 1 {
            return None;
        }
        self.read(version, seen)
    }

    #[cold]
    fn read(&self, version: u64, seen: &Cell<u64>) -> Option<(Share, u64)> {
        let words = &*self.inner;
        let (tps, concurrency) = unpair(words.tps_and_concurrency.load(Ordering::Relaxed));
        let (part, parts) = unpair(words.part_and_parts.load(Ordering::Relaxed));
        let (from_ns, phase) =
            (words.from_ns.load(Ordering::Relaxed), words.phase.load(Ordering::Relaxed));
        let ticks = Ticks { from_ns, phase: f64::from_bits(phase), tps, part, parts };
        let most = words.most.load(Ordering::Relaxed) as u32;
        let until_ns = words.until_ns.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        if words.version.load(Ordering::Relaxed) != version {
            return None;
        }
        seen.set(version);
        Some((Share { ticks, concurrency, most }, until_ns))
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

    fn share(number: u32) -> Share {
        let ticks = Ticks {
            from_ns: u64::from(number) << 33,
            phase: f64::from(number % 1_000) / 1_000.0,
            tps: number,
            part: number % 7,
            parts: number,
        };
        Share { ticks, concurrency: number, most: number }
    }

    #[test]
    fn a_share_is_read_once_and_as_it_was_granted() {
        let slot = BudgetSlot::new(Share::none(), 0);
        let seen = Cell::new(0);
        assert_eq!(slot.changed(&seen), Some((Share::none(), 0)));
        for number in [1, 50_000, u32::MAX] {
            slot.grant(share(number), u64::from(number));
            assert_eq!(slot.changed(&seen), Some((share(number), u64::from(number))));
            assert_eq!(slot.changed(&seen), None);
        }
    }

    #[test]
    fn a_share_is_never_read_in_parts() {
        const LAST: u32 = 200_000;
        let slot = std::sync::Arc::new(BudgetSlot::new(share(0), 0));
        let writer = std::sync::Arc::clone(&slot);
        let written = std::thread::spawn(move || {
            (1..=LAST).for_each(|number| writer.grant(share(number), u64::from(number)));
        });
        let (seen, mut last) = (Cell::new(0), 0);
        while last < LAST {
            let Some((read, until_ns)) = slot.changed(&seen) else { continue };
            assert_eq!((read, until_ns), (share(read.most), u64::from(read.most)));
            assert!(read.most >= last, "{} after {last}", read.most);
            last = read.most;
        }
        written.join().expect("it writes");
    }

    #[test]
    fn shares_add_up_and_none_has_permits_without_an_instance() {
        for shards in [1, 2, 3, 64] {
            for (tps, concurrency, most) in [(1, 10, 100), (7, 1, 1), (50_000, 3, 5), (0, 4, 9)] {
                let table = Timetable::new(0, tps);
                let shares = shares(Load::Rate(tps), &table, concurrency, most, shards);
                let working: Vec<_> = shares.iter().filter(|share| share.ticks.tps > 0).collect();
                let rate: f64 = working.iter().map(|share| share.ticks.rate()).sum();
                assert!((rate - f64::from(tps)).abs() < 1e-6, "{shares:?}");
                assert!(working.iter().all(|share| share.concurrency > 0 && share.most > 0));
                let sum: u32 = shares.iter().map(|share| share.most).sum();
                assert_eq!(sum, most, "{shares:?}");
            }
            let shares = shares(Load::Instances(5), &Timetable::new(0, 0), 5, 100, shards);
            assert_eq!(shares.iter().map(|share| share.concurrency).sum::<u32>(), 5);
            assert_eq!(shares.iter().map(|share| share.most).sum::<u32>(), 5);
        }
    }

    #[test]
    fn a_stopped_run_is_not_brought_back() {
        let slot = BudgetSlot::new(Share::none(), u64::MAX);
        slot.raise(Course::Stop);
        slot.raise(Course::Drain);
        assert_eq!(slot.course(), Course::Stop);
    }
}
