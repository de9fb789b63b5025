/// How a search for the highest rate ended.
///
/// `Display` gives a sentence.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum SearchEnd {
    /// A limit bounds the rate.
    Found {
        /// Transactions a second.
        tps: f64,
    },
    /// The highest rate that was asked for meets all limits.
    GoalReached,
    /// The target does no more, without breaking a limit: what is under way grows at a higher rate.
    Saturated {
        /// The highest rate that it kept up with.
        tps: f64,
    },
    /// The generator does no more.
    Generator {
        /// The highest rate that it was in time for.
        tps: f64,
        /// Share of its time that the busiest shard worked beyond that, `0.0..=1.0`.
        busy: f64,
    },
    /// As many transactions were under way as the run may have, and the target was not the cause.
    Instances {
        /// The highest rate that there were enough for.
        tps: f64,
    },
    /// No rate that can be measured meets the limits.
    Unreachable {
        /// The lowest rate tried.
        tps: f64,
        /// Share of the transactions that broke a limit there, `0.0..=1.0`.
        share: f64,
    },
    /// The target pauses again and again, for longer than its limits allow for.
    Unstable {
        /// From one pause to the next.
        period_ns: u64,
        /// How long they were.
        length_ns: u64,
    },
    /// The time for the search was up.
    OutOfTime {
        /// The highest rate that met the limits.
        low: f64,
        /// The lowest that did not, if there was one.
        high: Option<f64>,
    },
}

impl SearchEnd {
    /// A rate was found that the target bears.
    #[must_use]
    pub fn is_found(&self) -> bool {
        matches!(
            self,
            SearchEnd::Found { .. } | SearchEnd::GoalReached | SearchEnd::Saturated { .. }
        )
    }
}

impl std::fmt::Display for SearchEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            SearchEnd::Found { tps } => write!(f, "found: a limit bounds it at {tps:.0}/s"),
            SearchEnd::GoalReached => f.write_str("the goal meets all limits"),
            SearchEnd::Saturated { tps } => {
                write!(f, "the target does no more than {tps:.0}/s, and breaks no limit")
            }
            SearchEnd::Generator { tps, busy } => write!(
                f,
                "the generator does no more than {tps:.0}/s (its busiest shard worked {:.0} % of the time)",
                busy * 100.0
            ),
            SearchEnd::Instances { tps } => {
                write!(f, "no more instances were allowed than {tps:.0}/s need")
            }
            SearchEnd::Unreachable { tps, share } => write!(
                f,
                "no rate meets the limits: at {tps:.0}/s still {:.1} % break one",
                share * 100.0
            ),
            SearchEnd::Unstable { period_ns, length_ns } => write!(
                f,
                "the target pauses: some {} ms each {:.1} s",
                length_ns / 1_000_000,
                period_ns as f64 / 1e9
            ),
            SearchEnd::OutOfTime { low, high: Some(high) } => {
                write!(f, "the time was up: between {low:.0}/s and {high:.0}/s")
            }
            SearchEnd::OutOfTime { low, high: None } => {
                write!(f, "the time was up: at {low:.0}/s all limits were still met")
            }
        }
    }
}
