//! One clock for all shards: nanoseconds since the process first asked.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Reads the processor's time-stamp counter where it is invariant (9 ns, against 20 ns for
/// `clock_gettime`), the monotonic clock elsewhere. All readings of a process have one origin, so
/// they can be compared across shards.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    clock: quanta::Clock,
    origin: u64,
    /// The monotonic clock at the origin, to compare with.
    monotonic: Instant,
}

static CLOCK: OnceLock<Clock> = OnceLock::new();

impl Clock {
    /// The process's clock. The first call calibrates it, which takes up to 200 ms.
    pub(crate) fn get() -> Self {
        CLOCK
            .get_or_init(|| {
                let clock = quanta::Clock::new();
                let origin = clock.raw();
                Self { clock, origin, monotonic: Instant::now() }
            })
            .clone()
    }

    /// Nanoseconds since the origin.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.clock.delta_as_nanos(self.origin, self.clock.raw())
    }

    /// The instant of the monotonic clock that a reading stands for.
    #[cfg_attr(not(test), expect(dead_code, reason = "for comparing the two clocks"))]
    pub(crate) fn instant(&self, at_ns: u64) -> Instant {
        self.monotonic + Duration::from_nanos(at_ns)
    }
}

/// A duration in nanoseconds; what is longer than 584 years is as long as that.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_advances_with_the_monotonic_clock() {
        let clock = Clock::get();
        std::thread::sleep(Duration::from_millis(50));
        let (reading, instant) = (clock.now(), Instant::now());
        let apart = instant.abs_diff(clock.instant(reading));
        assert!(apart < Duration::from_millis(5), "the clocks are {apart:?} apart");
    }

    trait AbsDiff {
        fn abs_diff(self, other: Self) -> Duration;
    }

    impl AbsDiff for Instant {
        fn abs_diff(self, other: Self) -> Duration {
            self.max(other) - self.min(other)
        }
    }
}
