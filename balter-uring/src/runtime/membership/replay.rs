//! Which datagrams have been seen already.

use std::collections::HashMap;

/// Sequences of one sender that may arrive out of order.
pub(crate) const WINDOW: u64 = 128;

/// What has been seen of each sender, for so many of them at most.
#[derive(Debug)]
pub(crate) struct Replay {
    boots: HashMap<u64, Seen>,
    most: usize,
}

/// A sliding window over the sequences of one start of one sender.
#[derive(Debug)]
struct Seen {
    highest: u64,
    /// Bit `n` is the sequence `highest - n`.
    window: u128,
    /// When it was last heard, by this node's clock.
    heard_ms: u64,
}

impl Replay {
    pub(crate) fn new(most: usize) -> Self {
        Self { boots: HashMap::new(), most: most.max(1) }
    }

    /// `true` the first time. What is too far behind the highest to be known counts as seen.
    ///
    /// Call it for authenticated datagrams only: each sender takes a place in the table, and the
    /// one that was not heard for longest loses its own when the table is full.
    pub(crate) fn is_new(&mut self, boot: u64, sequence: u64, now_ms: u64) -> bool {
        if let Some(seen) = self.boots.get_mut(&boot) {
            return seen.is_new(sequence, now_ms);
        }
        if self.boots.len() >= self.most {
            let oldest = self.boots.iter().min_by_key(|(_, seen)| seen.heard_ms);
            if let Some(oldest) = oldest.map(|(boot, _)| *boot) {
                self.boots.remove(&oldest);
            }
        }
        self.boots.insert(boot, Seen { highest: sequence, window: 1, heard_ms: now_ms });
        true
    }
}

impl Seen {
    fn is_new(&mut self, sequence: u64, now_ms: u64) -> bool {
        if let Some(ahead) = sequence.checked_sub(self.highest).filter(|ahead| *ahead > 0) {
            let kept = if ahead < WINDOW { self.window << ahead } else { 0 };
            self.window = kept | 1;
            self.highest = sequence;
        } else {
            let behind = self.highest - sequence;
            if behind >= WINDOW || self.window & (1 << behind) != 0 {
                return false;
            }
            self.window |= 1 << behind;
        }
        self.heard_ms = now_ms;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_behind_the_window_counts_as_seen() {
        let mut replay = Replay::new(2);
        assert!(replay.is_new(1, 1000, 0));
        assert!(replay.is_new(1, 1000 - WINDOW + 1, 0));
        assert!(!replay.is_new(1, 1000 - WINDOW, 0));
        assert!(replay.is_new(1, u64::MAX, 0));
        assert!(!replay.is_new(1, 1000, 0));
        assert!(!replay.is_new(1, u64::MAX, 0));
    }

    #[test]
    fn the_table_is_bounded_and_the_oldest_goes() {
        let mut replay = Replay::new(3);
        for boot in 0..3 {
            assert!(replay.is_new(boot, 7, boot));
        }
        assert!(replay.is_new(0, 8, 10), "heard again");
        assert!(replay.is_new(3, 7, 11));
        assert_eq!(replay.boots.len(), 3);
        assert!(!replay.is_new(0, 8, 12), "still known");
        assert!(replay.is_new(1, 7, 13), "it was not heard for longest");
    }

    proptest! {
        /// Beside a set that forgets nothing: no sequence is new twice, and each within the window
        /// is new once.
        #[test]
        fn no_sequence_is_new_twice(sequences in prop::collection::vec(0u64..600, 0..400)) {
            let mut replay = Replay::new(1);
            let mut known = HashSet::new();
            let mut highest = 0;
            for sequence in sequences {
                let new = replay.is_new(1, sequence, 0);
                let first = known.insert(sequence);
                prop_assert!(first || !new);
                if sequence + WINDOW > highest {
                    prop_assert_eq!(new, first);
                }
                highest = highest.max(sequence);
            }
        }
    }
}
