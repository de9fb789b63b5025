//! The endless sequence of intended starts behind a pacer: where it stands, its
//! next element, and how to skip many of them without visiting each.
//!
//! Both kinds of arrival are kept as a position on an axis of *expected
//! permits*, along which the rate is the speed. A change of rate then keeps the
//! position and changes the speed, which is all that continuity needs: no burst,
//! no hole, and shards that were evenly staggered stay so.

use rand_core::{Rng, SeedableRng};
use rand_xoshiro::{SplitMix64, Xoshiro256PlusPlus};

use crate::{Arrival, Ticks};

pub(crate) const SECOND_NS: u64 = 1_000_000_000;

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
    /// Nothing is due before [`follow`](Self::follow). `sequence` is the number of the random
    /// sequence, which no other shard has.
    pub(crate) fn new(arrival: Arrival, sequence: u32) -> Self {
        match arrival {
            Arrival::Constant => Schedule::Constant(Grid::default()),
            Arrival::Poisson { seed } => Schedule::Poisson(Poisson::new(seed, sequence)),
        }
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

    /// Goes on with other ticks. All permits due before `ticks.from_ns` must have been stepped
    /// over.
    pub(crate) fn follow(&mut self, ticks: &Ticks) {
        match self {
            Schedule::Constant(grid) => *grid = Grid::new(ticks),
            Schedule::Poisson(poisson) => poisson.set_rate(ticks.from_ns, ticks.rate()),
        }
    }
}

/// Evenly spaced permits: every `stride`-th tick of the whole rate, of which number `index` of a
/// second is due at `anchor + (index + phase) / rate`.
///
/// After `rate` ticks the anchor moves on by one second, in integers, so
/// nothing accumulates however long the run is. Within the second the product is
/// below 1e9 and its relative error below 2^-51 (phase sum, interval, product),
/// which is less than a millionth of a nanosecond; rounding down to whole
/// nanoseconds is the only error left, and it keeps the last permit of a second
/// inside it, so a whole second always holds `rate` permits exactly.
#[derive(Debug)]
pub(crate) struct Grid {
    anchor_ns: u64,
    /// Below `rate`, unless that is zero.
    index: u64,
    /// In `0.0..1.0`.
    phase: f64,
    rate: u64,
    stride: u64,
    /// `1e9 / rate`, so that the hot path multiplies instead of dividing.
    interval_ns: f64,
}

impl Default for Grid {
    fn default() -> Self {
        let (rate, stride) = (0, 1);
        Grid { anchor_ns: 0, index: 0, phase: 0.0, rate, stride, interval_ns: f64::INFINITY }
    }
}

impl Grid {
    fn new(ticks: &Ticks) -> Self {
        let mut grid = Grid {
            anchor_ns: ticks.from_ns,
            index: u64::from(ticks.part),
            phase: ticks.phase,
            rate: u64::from(ticks.tps),
            stride: u64::from(ticks.parts),
            interval_ns: 1e9 / f64::from(ticks.tps),
        };
        grid.carry();
        grid
    }

    #[inline]
    fn due_ns(&self) -> u64 {
        if self.rate == 0 {
            return u64::MAX;
        }
        self.anchor_ns.saturating_add(self.offset_ns(self.index))
    }

    /// Time of a tick after the anchor. The bound only matters beyond 1e15
    /// ticks a second, where the last ones would round up.
    #[inline]
    fn offset_ns(&self, index: u64) -> u64 {
        // An index is at most the rate, which has 32 bits, and so has a second's nanoseconds: with
        // these types each conversion is one instruction.
        let offset_ns = ((index as i64 as f64 + self.phase) * self.interval_ns) as u32;
        u64::from(offset_ns).min(SECOND_NS - 1)
    }

    #[inline]
    fn step(&mut self) {
        self.index += self.stride;
        self.carry();
    }

    /// Whole seconds in the index go to the anchor.
    #[inline]
    fn carry(&mut self) {
        if self.index >= self.rate && self.rate > 0 {
            let seconds = self.index / self.rate;
            self.index -= seconds * self.rate;
            self.anchor_ns = self.anchor_ns.saturating_add(seconds.saturating_mul(SECOND_NS));
        }
    }

    fn skip(&mut self, until_ns: u64) -> u64 {
        // A due permit lies at or after the anchor, so this cannot underflow.
        let elapsed_ns = until_ns - self.anchor_ns;
        let (seconds, rest_ns) = (elapsed_ns / SECOND_NS, elapsed_ns % SECOND_NS);
        // The estimate is off by the rounding to nanoseconds; the ticks' own
        // formula decides, so that skipping and stepping agree to the unit.
        let estimate = rest_ns as f64 / self.interval_ns - self.phase;
        let mut index = (estimate.max(0.0) as u64).min(self.rate);
        while index < self.rate && self.offset_ns(index) <= rest_ns {
            index += 1;
        }
        while index > 0 && self.offset_ns(index - 1) > rest_ns {
            index -= 1;
        }
        // The first tick after `until_ns`, counted from the anchor as the index is.
        let first_after = seconds.saturating_mul(self.rate).saturating_add(index);
        let skipped = (first_after - self.index).div_ceil(self.stride);
        self.index += skipped * self.stride;
        self.carry();
        skipped
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
    fn new(seed: u64, sequence: u32) -> Self {
        // The seed is hashed first: otherwise sequence 1 of seed 2 would be sequence 2 of seed 1.
        let hashed = SplitMix64::seed_from_u64(seed).next_u64() ^ u64::from(sequence);
        let mut random = Xoshiro256PlusPlus::seed_from_u64(hashed);
        let remaining = exponential(&mut random);
        Poisson { random, due_ns: u64::MAX, cut_ns: 0.0, interval_ns: 0.0, remaining }
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

    fn set_rate(&mut self, now_ns: u64, rate: f64) {
        if self.due_ns != u64::MAX {
            self.remaining =
                (self.due_ns.saturating_sub(now_ns) as f64 + self.cut_ns) / self.interval_ns;
        }
        self.interval_ns = 1e9 / rate;
        if rate == 0.0 {
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
