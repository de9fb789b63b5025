//! How far apart two clocks are.

use crate::runtime::wire::Grant;

/// How far the coordinator's clock is ahead of this one, by the exchange that took the least time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Offset {
    ahead_ns: i128,
    delay_ns: Option<u64>,
}

impl Offset {
    /// A report left here at `grant.stamp_ns`, and its answer arrived at `now_ns`.
    pub(super) fn learn(&mut self, grant: &Grant, now_ns: u64) {
        let there = grant.sent_ns.saturating_sub(grant.heard_ns);
        let delay = now_ns.saturating_sub(grant.stamp_ns).saturating_sub(there);
        if self.delay_ns.is_none_or(|best| delay < best) {
            let out = i128::from(grant.heard_ns) - i128::from(grant.stamp_ns);
            let back = i128::from(grant.sent_ns) - i128::from(now_ns);
            (self.ahead_ns, self.delay_ns) = ((out + back) / 2, Some(delay));
        }
    }

    /// A time of the coordinator's clock, on this one.
    pub(super) fn here(&self, there_ns: u64) -> u64 {
        u64::try_from(i128::from(there_ns) - self.ahead_ns).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quickest_exchange_counts() {
        let mut offset = Offset::default();
        // The other clock is 1 000 000 ahead; there and back take so long each, with a pause there.
        for (out, pause, back) in [(500, 90_000, 700), (100, 40_000, 100), (10, 5, 9_000)] {
            let stamp_ns = 50_000;
            let heard_ns = stamp_ns + out + 1_000_000;
            let sent_ns = heard_ns + pause;
            let grant = Grant { stamp_ns, heard_ns, sent_ns, ..Grant::default() };
            offset.learn(&grant, sent_ns + back - 1_000_000);
        }
        assert_eq!(offset.here(1_234_567), 234_567);
        assert_eq!(offset.here(5), 0);
    }
}
