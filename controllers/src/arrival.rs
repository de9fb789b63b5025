/// How the intended starts of a scenario are spread over time.
///
/// ```
/// use balter_controllers::Arrival;
///
/// assert_eq!(Arrival::default(), Arrival::Constant);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Arrival {
    /// Evenly spaced: one permit every `1 / rate` seconds, the shards staggered
    /// so that all of them together are evenly spaced too.
    #[default]
    Constant,
    /// A Poisson process: independent, exponentially distributed gaps, as made
    /// by many users who know nothing of each other.
    Poisson {
        /// Start of the random sequence. The same seed on the same shard gives
        /// the same schedule; each shard draws a sequence of its own from it.
        seed: u64,
    },
}
