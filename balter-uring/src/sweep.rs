//! Latency against throughput: one scenario at one rate after the other, up and down again.

use std::fmt;
use std::time::Duration;

use balter_controllers::Usl;

use crate::statistics::RunStatistics;

/// Rates that are this much apart, up and down, or latencies that differ by this factor, are
/// hysteresis: the target has not recovered from what it was asked for before.
const HYSTERESIS_RATE: f64 = 0.05;
const HYSTERESIS_LATENCY: f64 = 2.0;

/// What came of [`Scenario::sweep`](crate::Scenario::sweep).
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Sweep {
    /// The rates in the order in which they were asked for.
    pub points: Vec<SweepPoint>,
    /// It was stopped before its time, with its last point: by SIGINT, or because that run was
    /// [stopped](RunStatistics::stopped) for another reason.
    #[cfg_attr(feature = "serde", serde(default))]
    pub stopped: bool,
}

/// One rate of a sweep.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SweepPoint {
    /// Transactions a second asked for.
    pub tps: u32,
    /// On the way down again.
    pub down: bool,
    /// All about the run at this rate.
    pub statistics: RunStatistics,
}

impl SweepPoint {
    /// Transactions under way on average, by Little's law.
    #[must_use]
    pub fn under_way(&self) -> f64 {
        self.statistics.actual_tps * self.statistics.service.mean().as_secs_f64()
    }

    /// Throughput over mean response time, Kleinrock's "power".
    fn power(&self) -> f64 {
        let response = self.statistics.response.mean().as_secs_f64();
        if response > 0.0 { self.statistics.actual_tps / response } else { 0.0 }
    }
}

impl Sweep {
    /// The rate beyond which more load costs more in latency than it gains in throughput: that of
    /// the highest throughput over response time, on the way up. (Leonard Kleinrock, "Power and
    /// deterministic rules of thumb", 1979.) `None` without points.
    #[must_use]
    pub fn knee(&self) -> Option<&SweepPoint> {
        let up = self.points.iter().filter(|point| !point.down && point.power() > 0.0);
        up.max_by(|one, other| one.power().total_cmp(&other.power()))
    }

    /// The scalability law of the target, from throughput and transactions under way on the way up.
    /// `None` with fewer than three rates.
    #[must_use]
    pub fn scalability(&self) -> Option<Usl> {
        let up = self.points.iter().filter(|point| !point.down);
        let points: Vec<_> =
            up.map(|point| (point.under_way(), point.statistics.actual_tps)).collect();
        Usl::fit(&points)
    }

    /// Rates at which the target did worse on the way down than on the way up: less throughput, or
    /// a 95th percentile more than twice as long.
    #[must_use]
    pub fn hysteresis(&self) -> Vec<u32> {
        let worse = |up: &SweepPoint, down: &SweepPoint| {
            let (up, down) = (&up.statistics, &down.statistics);
            down.actual_tps < up.actual_tps * (1.0 - HYSTERESIS_RATE)
                || down.latency_p95.as_secs_f64()
                    > up.latency_p95.as_secs_f64() * HYSTERESIS_LATENCY
        };
        let downs = self.points.iter().filter(|point| point.down);
        let worse = downs.filter(|down| {
            let up = self.points.iter().find(|up| !up.down && up.tps == down.tps);
            up.is_some_and(|up| worse(up, down))
        });
        worse.map(|point| point.tps).collect()
    }
}

impl fmt::Display for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "     asked/s       done/s        p50        p95        p99    errors  under way"
        )?;
        for point in &self.points {
            let statistics = &point.statistics;
            let micros = |time: Duration| format!("{:.0} µs", time.as_secs_f64() * 1e6);
            writeln!(
                f,
                "{} {:>9} {:>12.1} {:>10} {:>10} {:>10} {:>7.2} % {:>10.1}",
                if point.down { '↓' } else { '↑' },
                point.tps,
                statistics.actual_tps,
                micros(statistics.latency_p50),
                micros(statistics.latency_p95),
                micros(statistics.latency_p99),
                statistics.error_rate * 100.0,
                point.under_way(),
            )?;
        }
        if let Some(knee) = self.knee() {
            writeln!(f, "knee: {} transactions/s", knee.tps)?;
        }
        if let Some(Usl { lambda, sigma, kappa }) = self.scalability() {
            writeln!(
                f,
                "scalability: {lambda:.0} transactions/s each, contention {sigma:.4}, coherency {kappa:.6}"
            )?;
        }
        match &self.hysteresis()[..] {
            [] => {}
            rates => {
                writeln!(f, "hysteresis: worse on the way down at {rates:?} transactions/s")?;
            }
        }
        if self.stopped {
            writeln!(f, "stopped before its end: the last rate was not asked for to its end")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(tps: u32, down: bool, response_ms: u64) -> SweepPoint {
        let mut statistics = RunStatistics { actual_tps: f64::from(tps), ..Default::default() };
        statistics.latency_p95 = Duration::from_millis(response_ms);
        for latencies in [&mut statistics.response, &mut statistics.service] {
            latencies.histogram_mut().saturating_record_n(response_ms * 1_000_000, 100);
        }
        SweepPoint { tps, down, statistics }
    }

    #[test]
    fn the_knee_is_where_latency_begins_to_cost_more_than_throughput_gains() {
        let times = [(100, 10), (200, 11), (300, 14), (400, 40), (500, 200)];
        let up = times.map(|(tps, ms)| point(tps, false, ms));
        let sweep = Sweep { points: up.to_vec(), stopped: false };
        assert_eq!(sweep.knee().map(|point| point.tps), Some(300));
        assert!(sweep.scalability().is_some_and(|law| law.kappa >= 0.0));
        assert!(sweep.to_string().contains("knee: 300"));
        assert!(Sweep::default().knee().is_none());
    }

    #[test]
    fn a_target_that_has_not_recovered_is_told() {
        let mut points = vec![point(100, false, 10), point(200, false, 20)];
        points.extend([point(200, true, 20), point(100, true, 40)]);
        assert_eq!(Sweep { points, stopped: false }.hysteresis(), [100]);
    }
}
