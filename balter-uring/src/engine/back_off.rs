//! How long an instance waits that has started no transaction before it starts over.

/// Longest wait after the first return.
const FIRST_NS: u64 = 100_000_000;

/// Longest wait ever.
const LONGEST_NS: u64 = 10_000_000_000;

/// Waits that double, each shortened by up to half at random, so that instances which failed
/// together do not come back together. The same seed gives the same waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackOff {
    seed: u64,
    /// Returns in a row.
    returns: u32,
}

impl BackOff {
    /// Of one instance, told from the others by any numbers.
    pub(crate) fn new(numbers: [u64; 3]) -> Self {
        Self { seed: numbers.into_iter().fold(0, |seed, number| mix(seed ^ number)), returns: 0 }
    }

    /// The next wait, in nanoseconds.
    pub(crate) fn next_ns(&mut self) -> u64 {
        let longest = FIRST_NS.saturating_mul(1 << self.returns.min(32)).min(LONGEST_NS);
        let random = mix(self.seed ^ u64::from(self.returns));
        self.returns = self.returns.saturating_add(1);
        longest / 2 + random % (longest / 2)
    }

    /// A transaction has started.
    pub(crate) fn reset(&mut self) {
        self.returns = 0;
    }
}

/// The output function of splitmix64, after one step of its state.
fn mix(state: u64) -> u64 {
    let mut mixed = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(numbers: [u64; 3]) -> Vec<u64> {
        let mut back_off = BackOff::new(numbers);
        (0..50).map(|_| back_off.next_ns()).collect()
    }

    #[test]
    fn waits_double_up_to_ten_seconds_and_begin_anew() {
        let mut back_off = BackOff::new([1, 2, 3]);
        for longest in [100_u64, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000] {
            let longest = longest * 1_000_000;
            let wait = back_off.next_ns();
            assert!((longest / 2..longest).contains(&wait), "{wait} of {longest}");
        }
        back_off.reset();
        assert!(back_off.next_ns() < FIRST_NS);
        back_off.returns = u32::MAX;
        assert!(back_off.next_ns() < LONGEST_NS);
    }

    #[test]
    fn instances_wait_differently_and_each_the_same_every_time() {
        assert_eq!(waits([7, 0, 1]), waits([7, 0, 1]));
        let firsts: std::collections::BTreeSet<_> =
            (0..100).map(|instance| waits([7, 0, instance])[0] / 1_000_000).collect();
        assert!(firsts.len() > 20, "spread over 50 ms: {firsts:?}");
    }
}
