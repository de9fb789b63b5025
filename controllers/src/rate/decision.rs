//! What a search is asked, and what it answers.

use super::Limit;

/// Settings of a [`RateController`](crate::RateController).
#[derive(Clone, Debug, PartialEq)]
pub struct RateConfig {
    /// All of them are to be met.
    pub limits: Vec<Limit>,
    /// Where the search begins.
    pub start_tps: u32,
    /// The goal: never more than this.
    pub max_tps: u32,
    /// Most transactions that can be under way; zero for no such bound.
    pub max_in_flight: u32,
    /// The rate is all that the run is for: it is measured longer, and the search ends within
    /// [`budget_ns`](Self::budget_ns), whatever was found.
    pub until_found: bool,
    /// Time for the search in nanoseconds; zero for a minute and 60 times what an answer takes, three
    /// minutes at most.
    pub budget_ns: u64,
}

impl Default for RateConfig {
    /// From 512 a second up to any rate, with no limit yet.
    fn default() -> Self {
        Self {
            limits: Vec::new(),
            start_tps: 512,
            max_tps: u32::MAX,
            max_in_flight: 0,
            until_found: false,
            budget_ns: 0,
        }
    }
}

/// What the search is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum RateState {
    /// Raising the rate; no limit was broken yet.
    #[default]
    Growing,
    /// At a lower rate until what is under way has ended and the target is well.
    Recovering,
    /// Between a rate that the target bears and one that it does not.
    Narrowing,
    /// Close to the limit, measuring how close.
    Refining,
    /// At the rate found, or at the goal, and watching.
    Holding,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateDecision {
    /// Transactions a second from now on.
    pub tps: u32,
    /// What the search is doing.
    pub state: RateState,
    /// Index of the limit that keeps the rate from being higher; `None` while none does, and when
    /// it is the target that does no more, without breaking a limit.
    pub bound_by: Option<usize>,
    /// The target fell behind the rate asked for, without breaking a limit: its answers are merely
    /// late.
    pub saturated: bool,
}
