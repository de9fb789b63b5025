//! The endless sequence of intended starts behind a pacer: where it stands, its
//! next element, and how to skip many of them without visiting each.
//!
//! Both kinds of arrival are kept as a position on an axis of *expected
//! permits*, along which the rate is the speed. A change of rate then keeps the
//! position and changes the speed, which is all that continuity needs: no burst,
//! no hole, and shards that were evenly staggered stay so.

use rand_core::{Rng, SeedableRng};
use rand_xoshiro::{SplitMix64, Xoshiro256PlusPlus};

use crate::Arrival;

const SECOND_NS: u64 = 1_000_000_000;

/// Up to this many expected permits a gap is counted by drawing each; beyond,
/// the normal approximation of the Poisson distribution is off by less than a
/// thousandth of the mean, and the work stays bounded.
const DRAWN_ONE_BY_ONE: f64 = 1_000.0;

#[derive(Debug)]
pub(crate) enum Schedule {
    Constant(Grid),
    Poisson(Poisson),
}

impl Schedule {
    pub(crate) fn new(arrival: Arrival, part: u32, parts: u32, start_ns: u64, tps: u32) -> Self {
        let mut schedule = match arrival {
            Arrival::Constant => {
                Schedule::Constant(Grid::at(start_ns, f64::from(part) / f64::from(parts)))
            }
            Arrival::Poisson { seed } => Schedule::Poisson(Poisson::at(start_ns, seed, part)),
        };
        schedule.set_rate(start_ns, tps);
        schedule
    }

    /// Intended start of the next permit; `u64::MAX` while the rate is zero.
    #[inline]
    pub(crate) fn due_ns(&self) -> u64 {
        match self {
            Schedule::Constant(grid) => grid.due_ns(),
            Schedule::Poisson(poisson) => poisson.due_ns,
        }
    }

    /// Moves on to the next permit.
    #[inline]
    pub(crate) fn step(&mut self) {
        match self {
            Schedule::Constant(grid) => grid.step(),
            Schedule::Poisson(poisson) => poisson.step(),
        }
    }

    /// Skips every permit due at or before `until_ns` and returns how many
    /// those were. Bounded work, however long the stretch.
    pub(crate) fn skip(&mut self, until_ns: u64) -> u64 {
        if self.due_ns() > until_ns {
            return 0;
        }
        match self {
            Schedule::Constant(grid) => grid.skip(until_ns),
            Schedule::Poisson(poisson) => poisson.skip(until_ns),
        }
    }

    /// Goes on from `now_ns` at another rate. All permits due up to `now_ns`
    /// must have been stepped over.
    pub(crate) fn set_rate(&mut self, now_ns: u64, tps: u32) {
        match self {
            Schedule::Constant(grid) => grid.set_rate(now_ns, tps),
            Schedule::Poisson(poisson) => poisson.set_rate(now_ns, tps),
        }
    }
}

/// Evenly spaced permits: number `index` is due at
/// `anchor + (index + phase) / rate`.
///
/// After `rate` permits the anchor moves on by one second, in integers, so
/// nothing accumulates however long the run is. Within the second the product is
/// below 1e9 and its relative error below 2^-51 (phase sum, interval, product),
/// which is less than a millionth of a nanosecond; rounding down to whole
/// nanoseconds is the only error left, and it keeps the last permit of a second
/// inside it, so a whole second always holds `rate` permits exactly.
#[derive(Debug)]
pub(crate) struct Grid {
    anchor_ns: u64,
    index: u64,
    /// In `0.0..1.0`.
    phase: f64,
    rate: u64,
    /// `1e9 / rate`, so that the hot path multiplies instead of dividing.
    interval_ns: f64,
}

impl Grid {
    fn at(start_ns: u64, phase: f64) -> Self {
        Grid { anchor_ns: start_ns, index: 0, phase, rate: 0, interval_ns: f64::INFINITY }
    }

    #[inline]
    fn due_ns(&self) -> u64 {
        if self.rate == 0 {
            return u64::MAX;
        }
        self.anchor_ns.saturating_add(self.offset_ns(self.index))
    }

    /// Time of a permit after the anchor. The bound only matters beyond 1e15
    /// permits a second over all shards, where the last ones would round up.
    #[inline]
    fn offset_ns(&self, index: u64) -> u64 {
        let offset_ns = ((index as f64 + self.phase) * self.interval_ns) as u64;
        offset_ns.min(SECOND_NS - 1)
    }

    #[inline]
    fn step(&mut self) {
        self.index += 1;
        if self.index >= self.rate {
            self.index = 0;
            self.anchor_ns = self.anchor_ns.saturating_add(SECOND_NS);
        }
    }

    fn skip(&mut self, until_ns: u64) -> u64 {
        // A due permit lies at or after the anchor, so this cannot underflow.
        let elapsed_ns = until_ns - self.anchor_ns;
        let (seconds, rest_ns) = (elapsed_ns / SECOND_NS, elapsed_ns % SECOND_NS);
        // The estimate is off by the rounding to nanoseconds; the permits' own
        // formula decides, so that skipping and stepping agree to the unit.
        let estimate = rest_ns as f64 / self.interval_ns - self.phase;
        let mut index = (estimate.max(0.0) as u64).min(self.rate);
        while index < self.rate && self.offset_ns(index) <= rest_ns {
            index += 1;
        }
        while index > 0 && self.offset_ns(index - 1) > rest_ns {
            index -= 1;
        }
        let skipped = seconds.saturating_mul(self.rate).saturating_add(index) - self.index;
        self.anchor_ns += seconds * SECOND_NS;
        self.index = index;
        if index == self.rate {
            self.index = 0;
            self.anchor_ns = self.anchor_ns.saturating_add(SECOND_NS);
        }
        skipped
    }

    fn set_rate(&mut self, now_ns: u64, tps: u32) {
        let mut remaining = self.index as f64 + self.phase;
        if self.rate != 0 {
            // The anchor may lie in the past or up to a second ahead.
            let ahead_ns = now_ns as i128 - self.anchor_ns as i128;
            remaining -= ahead_ns as f64 / self.interval_ns;
        }
        self.anchor_ns = now_ns;
        self.index = 0;
        // Exactly one whole permit to go is possible (changed on the instant of
        // a release); `Grid` wants a phase below one.
        self.phase = remaining.clamp(0.0, 1.0 - f64::EPSILON);
        self.rate = u64::from(tps);
        self.interval_ns = 1e9 / f64::from(tps);
    }
}

/// Independent exponential gaps.
#[derive(Debug)]
pub(crate) struct Poisson {
    random: Xoshiro256PlusPlus,
    due_ns: u64,
    /// What rounding `due_ns` down cut off, in `0.0..1.0` nanoseconds: carried
    /// over, so that the mean gap is right at any rate.
    cut_ns: f64,
    interval_ns: f64,
    /// Expected permits still to pass before the next one, while the rate is
    /// zero. The process has no memory, so the draw made for one rate serves
    /// the next one, scaled.
    remaining: f64,
}

impl Poisson {
    fn at(start_ns: u64, seed: u64, part: u32) -> Self {
        // The seed is hashed first: otherwise part 1 of seed 2 would be part 2
        // of seed 1.
        let hashed = SplitMix64::seed_from_u64(seed).next_u64() ^ u64::from(part);
        let mut random = Xoshiro256PlusPlus::seed_from_u64(hashed);
        let remaining = exponential(&mut random);
        let mut poisson =
            Poisson { random, due_ns: start_ns, cut_ns: 0.0, interval_ns: 0.0, remaining };
        poisson.due_ns = u64::MAX;
        poisson
    }

    fn place(&mut self, from_ns: u64, gap_ns: f64) {
        let whole_ns = gap_ns as u64;
        self.due_ns = from_ns.saturating_add(whole_ns);
        self.cut_ns = gap_ns - whole_ns as f64;
    }

    fn step(&mut self) {
        let gap_ns = exponential(&mut self.random) * self.interval_ns + self.cut_ns;
        self.place(self.due_ns, gap_ns);
    }

    fn skip(&mut self, until_ns: u64) -> u64 {
        let expected = (until_ns - self.due_ns) as f64 / self.interval_ns;
        if expected <= DRAWN_ONE_BY_ONE {
            let mut skipped = 0;
            while self.due_ns <= until_ns {
                self.step();
                skipped += 1;
            }
            return skipped;
        }
        // The permit that is due, and a Poisson number of those after it. What
        // follows has no memory of them and starts afresh.
        let spread = expected.sqrt() * normal(&mut self.random);
        let gap_ns = exponential(&mut self.random) * self.interval_ns;
        self.place(until_ns.saturating_add(1), gap_ns);
        1 + (expected + spread).round().max(0.0) as u64
    }

    fn set_rate(&mut self, now_ns: u64, tps: u32) {
        if self.due_ns != u64::MAX {
            self.remaining =
                (self.due_ns.saturating_sub(now_ns) as f64 + self.cut_ns) / self.interval_ns;
        }
        self.interval_ns = 1e9 / f64::from(tps);
        if tps == 0 {
            self.due_ns = u64::MAX;
        } else {
            self.place(now_ns, self.remaining * self.interval_ns);
        }
    }
}

/// Uniform in `(0.0, 1.0]`: never zero, whose logarithm would be infinite.
fn uniform(random: &mut Xoshiro256PlusPlus) -> f64 {
    const STEP: f64 = 1.0 / (1u64 << 53) as f64;
    ((random.next_u64() >> 11) + 1) as f64 * STEP
}

/// Exponential with mean one; at most 37 (minus the logarithm of 2^-53).
fn exponential(random: &mut Xoshiro256PlusPlus) -> f64 {
    -uniform(random).ln()
}

/// Standard normal, by Box and Muller.
fn normal(random: &mut Xoshiro256PlusPlus) -> f64 {
    let radius = (2.0 * exponential(random)).sqrt();
    radius * (core::f64::consts::TAU * uniform(random)).cos()
}
