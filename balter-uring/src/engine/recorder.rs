//! The shard's side of a histogram: what recording one time costs is what every transaction pays.

use hdrhistogram::Histogram;

/// Longest time that a histogram can tell from longer ones: an hour. What is longer is counted at
/// this value, never dropped.
const LONGEST_NS: u64 = 3_600_000_000_000;

/// Three significant digits: a value is reported at most 0.1 % off.
const DIGITS: u8 = 3;

/// Values below `2 * HALF` have a bucket of their own; above, each doubling has `HALF` of them.
/// This is hdrhistogram's layout for three digits.
const HALF_BITS: u32 = 10;
const HALF: usize = 1 << HALF_BITS;

/// An empty histogram of nanoseconds, of the one shape that all histograms here have.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_NS, DIGITS).expect("constant bounds, checked by a test")
}

/// Counts of times in the buckets of [`histogram`], and nothing else: recording is an index and an
/// increment, where a histogram also keeps its total and its extremes (a test compares the two).
/// Merging and emptying walk the part that was used, not all 33 000 buckets.
pub(crate) struct Recorder {
    counts: Box<[u64]>,
    /// The buckets used so far; `first > last` while there are none.
    first: usize,
    last: usize,
}

/// Bucket of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bucket(usize);

impl Bucket {
    #[inline]
    pub(crate) const fn of(time_ns: u64) -> Self {
        let time_ns = if time_ns < LONGEST_NS { time_ns } else { LONGEST_NS };
        // How many of the low bits its doubling does not tell apart.
        let dropped = (time_ns | (2 * HALF as u64 - 1)).ilog2() - HALF_BITS;
        Self(((dropped as usize) << HALF_BITS) + (time_ns >> dropped) as usize)
    }

    /// Its place among all buckets.
    #[cfg(any(feature = "rt", test))]
    pub(crate) const fn index(self) -> usize {
        self.0
    }

    /// The bucket at a place; `None` beyond the last.
    #[cfg(any(feature = "rt", test))]
    pub(crate) const fn at(index: usize) -> Option<Self> {
        if index <= Self::of(LONGEST_NS).0 { Some(Self(index)) } else { None }
    }

    /// The shortest time that falls into it.
    pub(crate) const fn lowest_ns(self) -> u64 {
        if self.0 < 2 * HALF {
            return self.0 as u64;
        }
        let dropped = (self.0 >> HALF_BITS) - 1;
        ((HALF + (self.0 & (HALF - 1))) as u64) << dropped
    }
}

impl Recorder {
    pub(crate) fn new() -> Self {
        let buckets = Bucket::of(LONGEST_NS).0 + 1;
        Self { counts: vec![0; buckets].into_boxed_slice(), first: usize::MAX, last: 0 }
    }

    /// Records many of one bucket.
    pub(crate) fn record_many(&mut self, Bucket(index): Bucket, count: u64) {
        self.counts[index] = self.counts[index].saturating_add(count);
        self.first = self.first.min(index);
        self.last = self.last.max(index);
    }

    /// Adds all that another one holds.
    #[cfg(any(feature = "rt", test))]
    pub(crate) fn add(&mut self, other: &Self) {
        if other.first > other.last {
            return;
        }
        let used = other.used();
        for (sum, count) in self.counts[used.clone()].iter_mut().zip(&other.counts[used]) {
            *sum = sum.saturating_add(*count);
        }
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }

    #[inline]
    pub(crate) fn record(&mut self, Bucket(index): Bucket) {
        self.counts[index] += 1;
        // Seldom, so that there is nothing to write as a rule.
        if index < self.first || index > self.last {
            self.widen(index);
        }
    }

    #[cold]
    fn widen(&mut self, index: usize) {
        self.first = self.first.min(index);
        self.last = self.last.max(index);
    }

    fn used(&self) -> std::ops::Range<usize> {
        self.first..self.last + 1
    }

    /// Forgets all, and keeps the memory.
    pub(crate) fn reset(&mut self) {
        if self.first <= self.last {
            let used = self.used();
            self.counts[used].fill(0);
        }
        (self.first, self.last) = (usize::MAX, 0);
    }

    /// How many times above a bucket were recorded.
    pub(crate) fn above(&self, Bucket(index): Bucket) -> u64 {
        let used = if self.first <= self.last { &self.counts[..=self.last] } else { &[] };
        used.get(index + 1..).unwrap_or_default().iter().sum()
    }

    /// How many times were recorded.
    pub(crate) fn len(&self) -> u64 {
        self.recorded().map(|(_, count)| count).fold(0, u64::saturating_add)
    }

    pub(crate) fn add_to(&self, sum: &mut Histogram<u64>) {
        for (bucket, count) in self.recorded() {
            sum.saturating_record_n(bucket.lowest_ns(), count);
        }
    }

    /// The buckets that hold something, in order, and how much.
    pub(crate) fn recorded(&self) -> impl Iterator<Item = (Bucket, u64)> {
        let counts = if self.first <= self.last { &self.counts[self.used()] } else { &[] };
        let indexed = counts.iter().enumerate().filter(|&(_, &count)| count > 0);
        indexed.map(|(offset, &count)| (Bucket(self.first + offset), count))
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.recorded().map(|(b, count)| (b.lowest_ns(), count))).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn both(times: &[u64]) -> (Recorder, Histogram<u64>) {
        let (mut recorder, mut expected) = (Recorder::new(), histogram());
        for &time_ns in times {
            recorder.record(Bucket::of(time_ns));
            expected.saturating_record(time_ns.min(LONGEST_NS));
        }
        (recorder, expected)
    }

    proptest! {
        #[test]
        fn what_is_recorded_is_what_a_histogram_would_hold(
            times in prop::collection::vec((any::<u64>(), 0_u32..64).prop_map(|(t, s)| t >> s), 0..99),
        ) {
            let (recorder, expected) = both(&times);
            let mut sum = histogram();
            recorder.add_to(&mut sum);
            prop_assert_eq!(&sum, &expected);
            for quantile in [0.0, 0.01, 0.5, 0.99, 1.0] {
                prop_assert_eq!(
                    sum.value_at_quantile(quantile),
                    expected.value_at_quantile(quantile)
                );
            }
            prop_assert_eq!((sum.min(), sum.max()), (expected.min(), expected.max()));
        }

        #[test]
        fn a_bucket_is_found_again_by_its_lowest_time(time_ns in 0..LONGEST_NS) {
            let bucket = Bucket::of(time_ns);
            prop_assert!(bucket.lowest_ns() <= time_ns);
            prop_assert_eq!(Bucket::of(bucket.lowest_ns()), bucket);
        }
    }

    #[test]
    fn the_ends_of_the_range_are_counted() {
        let (recorder, expected) = both(&[0, 1, 2_047, 2_048, LONGEST_NS, u64::MAX]);
        let mut sum = histogram();
        recorder.add_to(&mut sum);
        assert_eq!(sum, expected);
    }

    #[test]
    fn what_is_above_a_bucket_is_counted() {
        let (recorder, _) = both(&[10, 20, 20, 30, 5_000]);
        let above = [0, 10, 20, 30, 5_000, u64::MAX].map(|time| recorder.above(Bucket::of(time)));
        assert_eq!(above, [5, 4, 2, 1, 0, 0]);
        assert_eq!(Recorder::new().above(Bucket::of(0)), 0);
    }

    #[test]
    fn recorders_add_up() {
        let ((mut sum, _), (other, _)) = (both(&[7, 40_000]), both(&[0, 40_000, 9_000_000_000]));
        sum.add(&other);
        sum.add(&Recorder::new());
        let (_, expected) = both(&[7, 40_000, 0, 40_000, 9_000_000_000]);
        let mut histogram = histogram();
        sum.add_to(&mut histogram);
        assert_eq!(histogram, expected);
        let mut again = Recorder::new();
        sum.recorded().for_each(|(bucket, count)| {
            again.record_many(Bucket::at(bucket.index()).expect("a bucket"), count);
        });
        assert_eq!(again.counts, sum.counts);
        assert_eq!(Bucket::at(sum.counts.len()), None);
    }

    #[test]
    fn an_emptied_recorder_holds_nothing() {
        let (mut recorder, _) = both(&[0, 7, 40_000, 9_000_000]);
        recorder.reset();
        assert!(recorder.counts.iter().all(|&count| count == 0));
        recorder.record(Bucket::of(100));
        assert_eq!(recorder.recorded().count(), 1);
    }
}
