//! One scenario at one rate after the other, up and down again; or with one number of instances after
//! the other.
//!
//! Everything is told by goodput, the succeeded transactions a second, and by the response times of
//! those that succeeded: a target that refuses has not done anything, and not quickly either.

mod concurrency;
mod display;

use std::time::Duration;

use balter_controllers::{Block, Worse, worse};

pub use concurrency::{ConcurrencyPoint, ConcurrencySweep};

use crate::statistics::{Latencies, RunStatistics, Sampled};

/// A target that leaves more than this share of what is due undone, and more than chance explains, has
/// fallen behind.
const BEHIND: f64 = 0.05;

/// What came of [`Scenario::sweep`](crate::Scenario::sweep).
///
/// An open loop tells where latency begins to cost more than the rate gains ([`knee`](Self::knee)), where
/// goodput falls behind the rate ([`falls_behind`](Self::falls_behind)), and whether the target recovers
/// ([`hysteresis`](Self::hysteresis)). It has no scalability law, since that is about numbers of users, see
/// [`Usl`](crate::Usl) and [`Scenario::sweep_concurrency`](crate::Scenario::sweep_concurrency).
///
/// `Display` prints a table and a line for each of these.
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
    /// The run in blocks of time, of which the first quarter is not judged.
    #[cfg_attr(feature = "serde", serde(default))]
    pub blocks: Vec<Block>,
    /// Response times of what succeeded after that quarter, without the generator's own
    /// lateness.
    #[cfg_attr(feature = "serde", serde(default))]
    pub answered: Latencies,
    /// What did not succeed after it, but for the generator's own failures.
    #[cfg_attr(feature = "serde", serde(default))]
    pub unanswered: u64,
}

/// A rate at which the target did worse on the way down.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Hysteresis {
    /// Transactions a second asked for.
    pub tps: u32,
    /// What was worse.
    pub worse: Vec<Worse>,
}

impl SweepPoint {
    pub(crate) fn new(tps: u32, down: bool, mut statistics: RunStatistics) -> Self {
        let sampled = statistics.sampled.take();
        let Sampled { blocks, answered, unanswered } =
            sampled.map_or_else(Sampled::default, |s| *s);
        Self { tps, down, statistics, blocks, answered, unanswered }
    }

    /// Transactions under way on average, by Little's law, failed ones included.
    #[must_use]
    pub fn under_way(&self) -> f64 {
        self.statistics.actual_tps * self.statistics.service.mean().as_secs_f64()
    }

    /// Succeeded transactions a second, from the end of the first quarter of the run to that of the time
    /// in which transactions became due: what a queue still held then is no part of it.
    #[must_use]
    pub fn goodput(&self) -> f64 {
        goodput(&self.blocks, &self.statistics)
    }

    /// Share of what the target was asked for after the first quarter and that failed, or was missed
    /// because the target kept others too long, 0 to 1.
    #[must_use]
    pub fn failed(&self) -> f64 {
        share(self.unanswered, self.answered.len() + self.unanswered)
    }

    /// The response time within which this share of all was answered well, failed ones among all.
    /// `None` if so many were not.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let answered = self.answered.len();
        let rank = ((answered + self.unanswered) as f64 * quantile).ceil().max(1.0);
        (rank <= answered as f64).then(|| self.answered.quantile(rank / answered as f64))
    }

    /// Whether goodput was behind what was due by more than 5 %, and more than chance explains.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        let due = self.measured().iter().map(|block| block.due).sum::<u64>() as f64;
        // The standard deviation of so many random arrivals.
        (self.succeeded() as f64) < due * (1.0 - BEHIND) - due.sqrt()
    }

    /// Whether it says something of the target: it was run to its end, and the generator was fit.
    #[must_use]
    pub fn is_fit(&self) -> bool {
        !self.statistics.stopped && !self.statistics.distorted
    }

    /// The blocks that are judged.
    fn measured(&self) -> &[Block] {
        measured(&self.blocks)
    }

    fn succeeded(&self) -> u64 {
        self.measured().iter().map(|block| block.succeeded).sum()
    }

    /// Goodput over mean response time, Kleinrock's "power", and of that as much as the share of what
    /// was due that succeeded: what is refused does not wait, so it would be free otherwise.
    fn power(&self) -> f64 {
        let due = self.measured().iter().map(|block| block.due).sum::<u64>();
        let response = self.answered.mean().as_secs_f64();
        let kept = share(self.succeeded(), due).min(1.0);
        if response > 0.0 { self.goodput() * kept / response } else { 0.0 }
    }
}

impl Sweep {
    /// The rate beyond which more load costs more in latency than it gains in goodput: that of
    /// the highest goodput over response time, on the way up. (Leonard Kleinrock, "Power and
    /// deterministic rules of thumb", 1979.) `None` if that is the highest rate asked for, since it may
    /// be higher then, and where the generator was not fit.
    #[must_use]
    pub fn knee(&self) -> Option<&SweepPoint> {
        let knee = self.up().filter(|point| point.power() > 0.0);
        let knee = knee.max_by(|one, other| one.power().total_cmp(&other.power()))?;
        self.up().any(|point| point.tps > knee.tps).then_some(knee)
    }

    /// The lowest rate on the way up that the target did [not keep up](SweepPoint::is_behind) with. Its
    /// capacity is below it, and no less than the [highest goodput](Self::highest_goodput).
    #[must_use]
    pub fn falls_behind(&self) -> Option<&SweepPoint> {
        self.up().filter(|point| point.is_behind()).min_by_key(|point| point.tps)
    }

    /// The highest goodput on the way up.
    #[must_use]
    pub fn highest_goodput(&self) -> Option<f64> {
        self.up().map(SweepPoint::goodput).max_by(f64::total_cmp)
    }

    /// Rates at which the target did worse on the way down than on the way up, with what was worse: fewer
    /// succeeded, more failed, or answers took longer (by a fifth and a millisecond at least). A
    /// difference counts if it is more than chance explains, where stretches of time resemble each other:
    /// of a target that does not change, anything is told in fewer than one of twenty sweeps
    /// (`controllers/tests/comparison.rs`).
    ///
    /// Rates with a run that was [not fit](SweepPoint::is_fit) or shorter than 1.4 s are
    /// [not compared](Self::not_compared).
    #[must_use]
    pub fn hysteresis(&self) -> Vec<Hysteresis> {
        let compared = self.compared().into_iter();
        let found = compared.filter_map(|(tps, worse)| Some(Hysteresis { tps, worse: worse? }));
        found.filter(|hysteresis| !hysteresis.worse.is_empty()).collect()
    }

    /// Rates of which nothing can be said about recovery.
    #[must_use]
    pub fn not_compared(&self) -> Vec<u32> {
        let compared = self.compared().into_iter();
        compared.filter(|(_, worse)| worse.is_none()).map(|(tps, _)| tps).collect()
    }

    /// Each rate that was asked for twice, with what was worse the second time.
    fn compared(&self) -> Vec<(u32, Option<Vec<Worse>>)> {
        let ups: Vec<_> = self.points.iter().filter(|point| !point.down).collect();
        let downs = self.points.iter().filter(|point| point.down);
        let pairs = ups.iter().rev().zip(downs).filter(|(up, down)| up.tps == down.tps);
        let compared = pairs.map(|(up, down)| {
            let fit = up.is_fit() && down.is_fit();
            let compare = || worse(up.measured(), down.measured(), ups.len());
            (up.tps, fit.then(compare).flatten())
        });
        compared.collect()
    }

    /// What says something of the target, on the way up.
    fn up(&self) -> impl Iterator<Item = &SweepPoint> {
        self.points.iter().filter(|point| !point.down && point.is_fit())
    }
}

fn measured(blocks: &[Block]) -> &[Block] {
    &blocks[Sampled::settling(blocks.len())..]
}

fn goodput(blocks: &[Block], statistics: &RunStatistics) -> f64 {
    let blocks = measured(blocks);
    let length_ns = blocks.iter().map(|block| block.length_ns).sum::<u64>();
    let succeeded = blocks.iter().map(|block| block.succeeded).sum::<u64>();
    let elapsed = statistics.elapsed.as_secs_f64();
    match length_ns {
        // Written down before there were blocks.
        0 if elapsed > 0.0 => statistics.counts.succeeded as f64 / elapsed,
        0 => 0.0,
        length_ns => succeeded as f64 * 1e9 / length_ns as f64,
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use balter_controllers::Measure;

    const BLOCKS: u64 = 40;
    const BLOCK_NS: u64 = 100_000_000;

    /// A point of 4 s of which this share of what was due succeeded, in `response_ms` each, and this
    /// share failed.
    fn point(tps: u32, down: bool, response_ms: u64, succeeded: f64, failed: f64) -> SweepPoint {
        let due = u64::from(tps) / 10;
        let part = |share: f64| (due as f64 * share).round() as u64;
        let response_ns = response_ms * 1_000_000;
        let block = Block {
            length_ns: BLOCK_NS,
            due,
            succeeded: part(succeeded),
            failed: part(failed),
            p50_ns: Some(response_ns),
            p95_ns: Some(response_ns),
        };
        let mut sampled = Sampled { unanswered: 30 * part(failed), ..Sampled::default() };
        sampled.blocks = vec![block; BLOCKS as usize];
        let answered = sampled.answered.histogram_mut();
        answered.saturating_record_n(response_ns, 30 * part(succeeded));
        let statistics = RunStatistics {
            actual_tps: f64::from(tps),
            sampled: Some(Box::new(sampled)),
            ..Default::default()
        };
        SweepPoint::new(tps, down, statistics)
    }

    fn there_and_back(up: &[SweepPoint], down: &[SweepPoint]) -> Sweep {
        let down = down.iter().cloned().map(|point| SweepPoint { down: true, ..point });
        Sweep { points: up.iter().cloned().chain(down).collect(), stopped: false }
    }

    #[test]
    fn the_knee_is_where_latency_begins_to_cost_more_than_goodput_gains() {
        let times = [(100, 10), (200, 11), (300, 14), (400, 40), (500, 200)];
        let up = times.map(|(tps, ms)| point(tps, false, ms, 1.0, 0.0));
        let sweep = there_and_back(&up, &[]);
        assert_eq!(sweep.knee().map(|point| point.tps), Some(300));
        assert!(sweep.to_string().contains("knee: 300"), "{sweep}");
        assert!(Sweep::default().knee().is_none());
        // It may lie beyond what was asked for.
        let sweep = there_and_back(&up[..3], &[]);
        assert!(sweep.knee().is_none(), "{sweep}");
        assert!(sweep.to_string().contains("no knee up to 300"), "{sweep}");
    }

    /// A limiter of 1 000/s, whose refusals were throughput once, and quick besides: the knee was at 4 000.
    #[test]
    fn what_is_refused_is_not_done() {
        let up = [(500, 1.0), (1_000, 1.0), (2_000, 0.5), (4_000, 0.25)];
        let up = up.map(|(tps, share)| point(tps, false, 10, share, 1.0 - share));
        let sweep = there_and_back(&up, &[]);
        assert_eq!(sweep.knee().map(|point| point.tps), Some(1_000));
        assert_eq!(sweep.falls_behind().map(|point| point.tps), Some(2_000));
        assert_eq!(sweep.highest_goodput(), Some(1_000.0));
        assert_eq!((up[3].failed(), up[3].goodput()), (0.75, 1_000.0));
        // Most were never answered well, so there is no time in which most were.
        assert_eq!((up[3].quantile(0.5), up[1].quantile(0.5).is_some()), (None, true));
        let shown = sweep.to_string();
        assert!(shown.contains("falls behind from 2 000/s on"), "{shown}");
    }

    #[test]
    fn a_target_that_has_not_recovered_is_told() {
        let up = [point(200, false, 10, 1.0, 0.0), point(400, false, 20, 1.0, 0.0)];
        let down = [point(400, true, 20, 1.0, 0.0), point(200, true, 40, 0.9, 0.1)];
        let sweep = there_and_back(&up, &down);
        let [found] = &sweep.hysteresis()[..] else { panic!("{sweep}") };
        assert_eq!(found.tps, 200);
        let measures: Vec<_> = found.worse.iter().map(|worse| worse.measure).collect();
        assert_eq!(measures, [Measure::Failed, Measure::Goodput, Measure::Median, Measure::P95]);
        let shown = sweep.to_string();
        assert!(shown.contains("worse on the way down at 200/s"), "{shown}");
        assert!(there_and_back(&up, &[up[1].clone(), up[0].clone()]).hysteresis().is_empty());
    }

    #[test]
    fn what_is_not_fit_says_nothing_of_the_target() {
        let times = [(100, 10), (200, 11), (300, 14), (400, 40), (500, 200)];
        let mut up = times.map(|(tps, ms)| point(tps, false, ms, 1.0, 0.0));
        let mut down = up.clone().map(|point| SweepPoint { ..point });
        down.reverse();
        down[2].answered = Latencies::default();
        for block in &mut down[2].blocks {
            (block.succeeded, block.p50_ns, block.p95_ns) = (0, None, None);
        }
        let sweep = there_and_back(&up, &down);
        assert_eq!(sweep.hysteresis().len(), 1, "{sweep}");
        up[2].statistics.distorted = true;
        let sweep = there_and_back(&up, &down);
        assert_eq!((sweep.hysteresis(), sweep.not_compared()), (Vec::new(), vec![300]));
        assert_eq!(sweep.knee().map(|point| point.tps), Some(200));
        assert!(sweep.to_string().contains("not compared"), "{sweep}");
    }

    #[cfg(all(feature = "serde", feature = "json"))]
    #[test]
    fn sweeps_are_read_again_also_those_of_before_there_were_blocks() {
        let up = [point(200, false, 10, 0.9, 0.1), point(400, false, 20, 1.0, 0.0)];
        let sweep = there_and_back(&up, &[up[1].clone(), point(200, true, 40, 0.9, 0.1)]);
        let mut written = serde_json::to_value(&sweep).expect("JSON");
        let read: Sweep = serde_json::from_value(written.clone()).expect("JSON");
        assert_eq!(read.hysteresis(), sweep.hysteresis());
        assert_eq!((read.hysteresis().len(), read.to_string()), (1, sweep.to_string()));
        for point in written["points"].as_array_mut().expect("an array") {
            let fields = point.as_object_mut().expect("an object");
            for field in ["blocks", "answered", "unanswered"] {
                assert!(fields.remove(field).is_some());
            }
        }
        let read: Sweep = serde_json::from_value(written).expect("JSON");
        assert_eq!((read.points.len(), read.hysteresis().len()), (4, 0));
        assert!(read.to_string().contains("not compared"), "{read}");
    }

    #[test]
    fn every_line_fits_and_failures_come_first() {
        let tps = u32::MAX;
        let mut up = [point(1_000, false, 10, 1.0, 0.0), point(tps, false, 3_000_000, 0.7, 0.3)];
        up[1].statistics.failures =
            crate::FailureClass::ALL.iter().map(|&class| (class, 123_456_789)).collect();
        up[1].statistics.counts.failed = 13 * 123_456_789;
        up[1].statistics.counts.succeeded = u64::from(tps);
        up[1].statistics.distorted = true;
        let mut down = [up[1].clone(), point(1_000, true, 40, 0.8, 0.2)];
        down[0].statistics.distorted = false;
        let mut sweep = there_and_back(&up, &down);
        sweep.stopped = true;
        let shown = sweep.to_string();
        for line in shown.lines() {
            assert!(line.chars().count() <= 80, "{line:?}\n{shown}");
        }
        assert!(shown.starts_with("FAILED: "), "{shown}");
        let row = shown.lines().find(|line| line.starts_with('↑') && line.contains("distorted"));
        assert!(row.is_some_and(|row| row.contains(&tps.to_string())), "{shown}");
        println!("{shown}");
    }
}
