//! A run cut into blocks of time, for what compares runs with each other.

use std::collections::BTreeMap;
use std::time::Duration;

use balter_controllers::Block;

use super::clock::nanoseconds;
use super::window::ShardWindow;
use crate::failure::generator_faults;
use crate::statistics::{Latencies, Sampled};

/// So many blocks at most. Their correlation can be told from sixty, and a run has a window ten times
/// a second.
const MOST_BLOCKS: u64 = 64;

/// Into what blocks a run is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    block_ns: u64,
    count: usize,
}

impl Cut {
    /// Of a run of this length, into blocks of whole windows.
    pub(crate) fn of(duration: Duration, window: Duration) -> Self {
        let (whole_ns, window_ns) = (nanoseconds(duration).max(1), nanoseconds(window).max(1));
        let windows = whole_ns.div_ceil(MOST_BLOCKS).div_ceil(window_ns);
        let block_ns = windows.saturating_mul(window_ns).min(whole_ns);
        // No more than the most blocks, and the quotient rounded down.
        Self { block_ns, count: (whole_ns / block_ns) as usize }
    }
}

/// Gathers them from the shards' windows.
pub(crate) struct Blocks {
    cut: Cut,
    start_ns: Option<u64>,
    /// Blocks that there were: a run that is stopped has fewer.
    seen: usize,
    /// The last one is of what ended after all of them.
    cells: Vec<Cell>,
}

#[derive(Clone, Default)]
struct Cell {
    due: u64,
    succeeded: u64,
    unanswered: u64,
    /// Times of those that succeeded, by the lowest of their bucket.
    times: BTreeMap<u64, u64>,
}

impl Blocks {
    pub(crate) fn new(cut: Cut) -> Self {
        Self { cut, start_ns: None, seen: 0, cells: vec![Cell::default(); cut.count + 1] }
    }

    pub(crate) fn add(&mut self, window: &ShardWindow) {
        // The first windows of all shards begin when the run does.
        let start_ns = *self.start_ns.get_or_insert(window.start_ns);
        // A shard is a little late for the end of a window, so that is no good sign of where it belongs.
        let middle_ns = window.start_ns / 2 + window.end_ns / 2;
        let index = middle_ns.saturating_sub(start_ns) / self.cut.block_ns;
        let index = (index as usize).min(self.cut.count);
        self.seen = self.seen.max((index + 1).min(self.cut.count));
        let cell = &mut self.cells[index];
        let spoilt = generator_faults(&window.failures);
        cell.due += window.planned.saturating_sub(window.stalled + spoilt);
        cell.succeeded += window.succeeded();
        cell.unanswered += (window.failed() - spoilt)
            + window.missed.saturating_sub(window.stalled)
            + window.cancelled();
        let Some(punctual) = &window.punctual else { return };
        for (bucket, count) in punctual.recorded() {
            *cell.times.entry(bucket.lowest_ns()).or_default() += count;
        }
        // A quick failure is no quick answer.
        for (bucket, count) in window.failed_punctual.iter().flat_map(|failed| failed.recorded()) {
            let all = cell.times.entry(bucket.lowest_ns()).or_default();
            *all = all.saturating_sub(count);
        }
    }

    pub(crate) fn end(self) -> Sampled {
        let mut sampled = Sampled::default();
        for cell in &self.cells[Sampled::settling(self.seen)..] {
            sampled.unanswered += cell.unanswered;
            let answered: &mut Latencies = &mut sampled.answered;
            for (&time_ns, &count) in &cell.times {
                answered.histogram_mut().saturating_record_n(time_ns, count);
            }
        }
        let blocks = self.cells[..self.seen].iter().map(|cell| Block {
            length_ns: self.cut.block_ns,
            due: cell.due,
            succeeded: cell.succeeded,
            failed: cell.unanswered,
            p50_ns: cell.quantile(0.5),
            p95_ns: cell.quantile(0.95),
        });
        sampled.blocks = blocks.collect();
        sampled
    }
}

impl Cell {
    fn quantile(&self, quantile: f64) -> Option<u64> {
        let all = self.times.values().sum::<u64>();
        let mut rank = ((all as f64 * quantile).ceil() as u64).max(1);
        self.times.iter().filter(|&(_, &count)| count > 0).find_map(|(&time_ns, &count)| {
            let is_it = rank <= count;
            rank = rank.saturating_sub(count);
            is_it.then_some(time_ns)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::window::{Outcome, Times};
    use crate::failure::FailureClass;
    use crate::transaction::TransactionMeta;

    static META: TransactionMeta = TransactionMeta::new("visit", "tests");

    const MS: u64 = 1_000_000;

    /// A window of 100 ms with transactions of these times in milliseconds.
    fn window(index: u64, late_ms: u64, ended: &[(u64, Outcome)]) -> ShardWindow {
        let mut window = ShardWindow::new(true);
        (window.start_ns, window.end_ns) = (index * 100 * MS, (index * 100 + 100 + late_ms) * MS);
        window.planned = ended.len() as u64;
        for &(ms, outcome) in ended {
            let times = Times { intended: 0, start: 0, end: ms * MS, late: 0 };
            window.record(&META, times, outcome);
        }
        window
    }

    #[test]
    fn a_run_is_cut_into_whole_windows() {
        let window = Duration::from_millis(100);
        for (seconds, block_ms, count) in [(5.0, 100, 50), (6.5, 200, 32), (60.0, 1_000, 60)] {
            let cut = Cut::of(Duration::from_secs_f64(seconds), window);
            assert_eq!(cut, Cut { block_ns: block_ms * MS, count });
        }
        let short = Cut::of(Duration::from_millis(40), window);
        assert_eq!(short, Cut { block_ns: 40 * MS, count: 1 });
    }

    #[test]
    fn a_block_tells_failures_and_quick_ones_are_no_answers() {
        let mut blocks = Blocks::new(Cut { block_ns: 100 * MS, count: 4 });
        let refused = Outcome::Failed(FailureClass::Refused);
        let own = Outcome::Failed(FailureClass::Ports);
        let well = Outcome::Succeeded;
        for index in 0..4 {
            blocks.add(&window(index, 9, &[(20, well), (1, refused), (1, refused), (1, own)]));
            blocks.add(&window(index, 0, &[(30, well), (40, well)]));
        }
        // After the end: late answers count, and no longer as what was done in the time.
        blocks.add(&window(6, 0, &[(500, well)]));
        let sampled = blocks.end();
        assert_eq!(sampled.blocks.len(), 4);
        for block in &sampled.blocks {
            assert_eq!((block.due, block.succeeded, block.failed), (5, 3, 2));
            let ms = |ns: Option<u64>| ns.expect("answers").div_ceil(MS);
            assert_eq!((ms(block.p50_ns), ms(block.p95_ns)), (30, 40));
        }
        // Without the first quarter.
        assert_eq!((sampled.answered.len(), sampled.unanswered), (10, 6));
        assert!(sampled.answered.max() >= Duration::from_millis(499));
    }

    #[test]
    fn a_run_that_is_stopped_has_no_blocks_of_the_rest() {
        let mut blocks = Blocks::new(Cut { block_ns: 100 * MS, count: 50 });
        for index in 0..4 {
            blocks.add(&window(index, 0, &[(20, Outcome::Succeeded)]));
        }
        let sampled = blocks.end();
        assert_eq!((sampled.blocks.len(), sampled.answered.len()), (4, 3));
    }
}
