//! Throughput against concurrency: a closed loop with one number of instances after the other.

use std::time::Duration;

use balter_controllers::{Block, Usl, UslFit};

use super::{goodput, measured, share};
use crate::statistics::{RunStatistics, Sampled};

/// From this share on a shard is taken to be what the transactions of a closed loop wait for.
const BUSY: f64 = 0.97;

/// What came of [`Scenario::sweep_concurrency`](crate::Scenario::sweep_concurrency).
///
/// `Display` prints a table, and the scalability law with its uncertainty.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ConcurrencySweep {
    /// The numbers of instances in the order in which they were asked for.
    pub points: Vec<ConcurrencyPoint>,
    /// It was stopped before its time, with its last point.
    #[cfg_attr(feature = "serde", serde(default))]
    pub stopped: bool,
}

/// One number of instances of a [`ConcurrencySweep`].
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ConcurrencyPoint {
    /// Instances, each with one transaction after the other.
    pub instances: usize,
    /// All about the run with so many.
    pub statistics: RunStatistics,
    /// The run in blocks of time, of which the first quarter is not judged.
    #[cfg_attr(feature = "serde", serde(default))]
    pub blocks: Vec<Block>,
}

impl ConcurrencyPoint {
    pub(crate) fn new(instances: usize, mut statistics: RunStatistics) -> Self {
        let sampled = statistics.sampled.take();
        let Sampled { blocks, .. } = sampled.map_or_else(Sampled::default, |sampled| *sampled);
        Self { instances, statistics, blocks }
    }

    /// Succeeded transactions a second after the first quarter of the run.
    #[must_use]
    pub fn goodput(&self) -> f64 {
        goodput(&self.blocks, &self.statistics)
    }

    /// Share of the completed transactions after the first quarter that the target failed, 0 to 1.
    #[must_use]
    pub fn failed(&self) -> f64 {
        let sum = |of: fn(&Block) -> u64| measured(&self.blocks).iter().map(of).sum::<u64>();
        let failed = sum(|block| block.failed);
        share(failed, failed + sum(|block| block.succeeded))
    }

    /// What an instance spends on a transaction that succeeds, failed ones before it and its
    /// pauses included: instances over goodput, by Little's law. `None` if none did.
    #[must_use]
    pub fn time_each(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.instances as f64 / self.goodput()).ok()
    }

    /// The busiest shard had no time to spare: the transactions waited for the generator.
    #[must_use]
    pub fn is_generator_busy(&self) -> bool {
        let statistics = &self.statistics;
        statistics.shards.iter().any(|shard| shard.busy >= BUSY)
            || statistics.nodes.iter().any(|node| node.busy >= BUSY)
    }

    /// Whether it says something of the target: it was run to its end, and the generator was fit and not
    /// [busy](Self::is_generator_busy).
    #[must_use]
    pub fn is_fit(&self) -> bool {
        !self.statistics.stopped && !self.statistics.distorted && !self.is_generator_busy()
    }
}

impl ConcurrencySweep {
    /// The scalability law of the target, from numbers of instances and goodput, with intervals of 95 %.
    /// `None` with fewer than four different numbers at which [the generator was
    /// fit](ConcurrencyPoint::is_fit), or if no law fits. Failed transactions are no throughput, so
    /// a target that fails under load has a peak.
    #[must_use]
    pub fn scalability(&self) -> Option<UslFit> {
        let fit = self.points.iter().filter(|point| point.is_fit());
        let points: Vec<_> = fit.map(|point| (point.instances as f64, point.goodput())).collect();
        Usl::fit(&points)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::ShardStatistics;

    fn point(instances: usize, tps: f64) -> ConcurrencyPoint {
        let block = Block { length_ns: 1_000_000_000, ..Block::default() };
        let succeeded = tps.round() as u64;
        let sampled =
            Sampled { blocks: vec![Block { succeeded, ..block }; 4], ..Sampled::default() };
        let statistics =
            RunStatistics { sampled: Some(Box::new(sampled)), ..RunStatistics::default() };
        ConcurrencyPoint::new(instances, statistics)
    }

    fn sweep(law: Usl, instances: &[usize]) -> ConcurrencySweep {
        let error = |index: usize| if index.is_multiple_of(2) { 1.01 } else { 0.99 };
        let points = instances.iter().enumerate();
        let points = points.map(|(i, &n)| point(n, law.throughput(n as f64) * error(i)));
        ConcurrencySweep { points: points.collect(), stopped: false }
    }

    #[test]
    fn the_law_is_of_the_numbers_that_were_set() {
        let law = Usl { lambda: 1_000.0, sigma: 0.1, kappa: 0.01 };
        let sweep = sweep(law, &[1, 2, 4, 8, 16, 32]);
        let fit = sweep.scalability().expect("six numbers");
        assert!(fit.sigma.low < 0.1 && 0.1 < fit.sigma.high, "{fit:?}");
        assert!(fit.kappa.low < 0.01 && 0.01 < fit.kappa.high && fit.kappa.low > 0.0, "{fit:?}");
        let shown = sweep.to_string();
        assert!(shown.contains("contention 0.") && shown.contains("peak"), "{shown}");
        println!("{shown}");
        for line in shown.lines() {
            assert!(line.chars().count() <= 80, "{line:?}");
        }
    }

    #[test]
    fn three_numbers_have_no_law() {
        let law = Usl { lambda: 1_000.0, sigma: 0.1, kappa: 0.01 };
        let sweep = sweep(law, &[1, 4, 16]);
        assert_eq!(sweep.scalability(), None);
        assert!(sweep.to_string().contains("no scalability law"), "{sweep}");
    }

    #[test]
    fn what_may_not_be_there_is_said_so() {
        let law = Usl { lambda: 1_000.0, sigma: 0.0, kappa: 0.0 };
        let shown = sweep(law, &[1, 2, 4, 8, 16, 32]).to_string();
        assert_eq!(shown.matches("not distinguishable from zero").count(), 2, "{shown}");
        assert!(!shown.contains("peak"), "{shown}");
        println!("{shown}");
    }

    #[test]
    fn a_generator_without_time_to_spare_is_no_law_of_the_target() {
        let law = Usl { lambda: 1_000.0, sigma: 0.0, kappa: 0.0 };
        let mut sweep = sweep(law, &[1, 2, 4, 8]);
        assert!(sweep.scalability().is_some());
        sweep.points[3].statistics.shards =
            vec![ShardStatistics { busy: 0.99, ..ShardStatistics::default() }];
        assert_eq!(sweep.scalability(), None);
        assert!(sweep.to_string().contains("generator busy"), "{sweep}");
    }
}
