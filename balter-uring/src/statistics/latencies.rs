//! A histogram of times, as users see it.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

/// A histogram of times with three significant digits, up to one hour.
#[derive(Clone, PartialEq)]
pub struct Latencies {
    histogram: Histogram<u64>,
}

impl Latencies {
    pub(crate) fn new(histogram: Histogram<u64>) -> Self {
        Self { histogram }
    }

    /// How many times were recorded.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.histogram.len()
    }

    /// `true` if none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.histogram.is_empty()
    }

    /// The time that a share of `quantile` (0 to 1) of all did not exceed; zero if there is none.
    ///
    /// # Examples
    /// ```
    /// let none = balter_uring::Latencies::default();
    /// assert_eq!(none.quantile(0.99), std::time::Duration::ZERO);
    /// ```
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.histogram.value_at_quantile(quantile))
    }

    /// Arithmetic mean; zero if there is none.
    #[must_use]
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.histogram.mean() as u64)
    }

    /// The shortest; zero if there is none.
    #[must_use]
    pub fn min(&self) -> Duration {
        Duration::from_nanos(if self.is_empty() { 0 } else { self.histogram.min() })
    }

    /// The longest; zero if there is none.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.histogram.max())
    }

    /// The histogram itself, of nanoseconds.
    #[must_use]
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.histogram
    }

    /// Adds all times of another histogram.
    #[cfg(feature = "rt")]
    pub(crate) fn add(&mut self, other: &Self) {
        if !other.is_empty() {
            self.histogram.add(&other.histogram).expect("all histograms have one shape");
        }
    }

    pub(crate) fn histogram_mut(&mut self) -> &mut Histogram<u64> {
        &mut self.histogram
    }
}

impl fmt::Debug for Latencies {
    /// A summary; the histogram itself has some thirty thousand numbers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latencies")
            .field("len", &self.len())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("max", &self.max())
            .finish_non_exhaustive()
    }
}

impl Default for Latencies {
    /// Without any time.
    fn default() -> Self {
        Self::new(crate::engine::recorder::histogram())
    }
}

/// Written as `{"unit": "ns", "counts": [[value, count], …]}`: all that was recorded, and nothing
/// that can be derived from it.
#[cfg(feature = "serde")]
mod serde_impl {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Latencies;

    #[derive(Serialize, Deserialize)]
    struct Repr {
        unit: String,
        counts: Vec<(u64, u64)>,
    }

    impl Serialize for Latencies {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let counts = self
                .histogram
                .iter_recorded()
                .map(|step| (step.value_iterated_to(), step.count_at_value()))
                .collect();
            Repr { unit: "ns".to_owned(), counts }.serialize(serializer)
        }
    }

    impl<'de> Deserialize<'de> for Latencies {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let repr = Repr::deserialize(deserializer)?;
            if repr.unit != "ns" {
                return Err(D::Error::custom("latencies are written in the unit \"ns\""));
            }
            let mut latencies = Self::default();
            for (value, count) in repr.counts {
                latencies.histogram.saturating_record_n(value, count);
            }
            Ok(latencies)
        }
    }
}
