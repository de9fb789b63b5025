mod controller;
mod ladder;
mod little;
mod pace;

pub use controller::ConcurrencyController;

/// What the number of instances is chosen for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConcurrencyGoal {
    /// Open loop: as many as the rate needs.
    Open {
        /// Transactions a second, over all shards.
        tps: u32,
    },
    /// Closed loop: as many as still raise the throughput.
    Saturate,
    /// Closed loop: exactly this many.
    Fixed(u32),
}

/// Settings of a [`ConcurrencyController`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConcurrencyConfig {
    /// What the number is chosen for.
    pub goal: ConcurrencyGoal,
    /// Limit to begin with; brought into `min..=max`. It is also the lowest the
    /// controller returns to.
    pub initial: u32,
    /// Highest limit ever decided, at least 1. [`ConcurrencyGoal::Fixed`] is not
    /// bound by it.
    pub max: u32,
    /// Lowest limit ever decided; zero counts as one. A larger one than `max`
    /// counts as `max`.
    pub min: u32,
}

/// How far the controller has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConcurrencyState {
    /// The limit suits the goal.
    Stable,
    /// The limit is on its way, or measurements for it are being gathered.
    Working,
    /// More is wanted, and more instances would not help or are not allowed.
    Limited,
}

/// What the shards are to do, decided from one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConcurrencyDecision {
    /// Most instances that may be in a transaction or on their way to their first, over all shards.
    /// It is headroom: shards start an instance only when a permit waits for one.
    pub limit: u32,
    /// How far the controller has come.
    pub state: ConcurrencyState,
}

/// Where more instances stopped raising the throughput.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Saturation {
    /// Throughput there, completed transactions a second.
    pub throughput: f64,
    /// The smallest number of instances tried that reached it.
    pub concurrency: u32,
}
