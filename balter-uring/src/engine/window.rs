//! What a shard measured of one run in one window, and the recorder that fills it.

use hdrhistogram::Histogram;

use crate::failure::FailureClass;
use crate::transaction::TransactionMeta;

/// Longest time that a histogram can tell from longer ones: an hour. What is longer is counted at
/// this value, never dropped.
const LONGEST_NS: u64 = 3_600_000_000_000;

/// Three significant digits: a value is reported at most 0.1 % off.
const DIGITS: u8 = 3;

/// An empty histogram of nanoseconds, of the one shape that all histograms here have, so that
/// adding one to another is a walk over two arrays.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_NS, DIGITS).expect("constant bounds, checked by a test")
}

/// How the outcome of a transaction counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Succeeded,
    Failed(FailureClass),
    Cancelled,
}

/// The times that a transaction is measured by, in nanoseconds of the shard's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) intended: u64,
    /// When a shard that is never late would have started it: when it was due and an instance was
    /// there to start it.
    pub(crate) punctual: u64,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// Completed transactions of one name in one window.
#[derive(Debug)]
pub(crate) struct TransactionWindow {
    pub(crate) name: &'static str,
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    pub(crate) cancelled: u64,
    pub(crate) service: Histogram<u64>,
    /// `None` in a closed loop, where a transaction is due when it starts: response is service
    /// and lag is nothing.
    pub(crate) open: Option<OpenHistograms>,
}

#[derive(Debug)]
pub(crate) struct OpenHistograms {
    pub(crate) response: Histogram<u64>,
    pub(crate) lag: Histogram<u64>,
}

impl TransactionWindow {
    fn new(name: &'static str, open_loop: bool) -> Self {
        Self {
            name,
            succeeded: 0,
            failed: 0,
            cancelled: 0,
            service: histogram(),
            open: open_loop.then(|| OpenHistograms { response: histogram(), lag: histogram() }),
        }
    }

    fn is_empty(&self) -> bool {
        self.succeeded + self.failed + self.cancelled == 0
    }

    fn reset(&mut self) {
        if self.is_empty() {
            return;
        }
        (self.succeeded, self.failed, self.cancelled) = (0, 0, 0);
        self.service.reset();
        if let Some(open) = &mut self.open {
            open.response.reset();
            open.lag.reset();
        }
    }
}

/// One window of one run on one shard. Counts are of this window alone; the states (`backlog`,
/// `instances`, `in_flight`) are those at its end.
#[derive(Debug, Default)]
pub(crate) struct ShardWindow {
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
    pub(crate) planned: u64,
    pub(crate) missed: u64,
    pub(crate) started: u64,
    pub(crate) backlog: u64,
    pub(crate) instances: u32,
    pub(crate) in_flight: u32,
    /// Time in which the shard had nothing to do.
    pub(crate) idle_ns: u64,
    pub(crate) service_sum_ns: u64,
    pub(crate) failures: [u64; FailureClass::COUNT],
    /// By [`TransactionMeta::id`]. Entries stay when a window is emptied: the names of a run do
    /// not change, and their histograms serve again.
    pub(crate) transactions: Vec<Option<Box<TransactionWindow>>>,
    /// Panics of user code, in transactions or around them.
    pub(crate) panics: u64,
    /// The message of the first of them.
    pub(crate) panic: Option<String>,
    /// Response times as they would be if the shard had never been late for an instance that was
    /// waiting. Open loop only; `None` elsewhere, and while a window is emptied.
    pub(crate) punctual: Option<Histogram<u64>>,
    /// The run on this shard is over.
    pub(crate) last: bool,
}

impl ShardWindow {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Empties it for the next use, without giving up memory.
    pub(crate) fn reset(&mut self) {
        let mut transactions = std::mem::take(&mut self.transactions);
        for window in transactions.iter_mut().flatten() {
            window.reset();
        }
        let mut punctual = self.punctual.take();
        if let Some(punctual) = &mut punctual
            && !punctual.is_empty()
        {
            punctual.reset();
        }
        *self = Self { transactions, punctual, ..Self::default() };
    }

    pub(crate) fn succeeded(&self) -> u64 {
        self.transactions().map(|window| window.succeeded).sum()
    }

    pub(crate) fn failed(&self) -> u64 {
        self.transactions().map(|window| window.failed).sum()
    }

    pub(crate) fn cancelled(&self) -> u64 {
        self.transactions().map(|window| window.cancelled).sum()
    }

    pub(crate) fn transactions(&self) -> impl Iterator<Item = &TransactionWindow> {
        self.transactions.iter().flatten().map(|window| &**window)
    }

    /// Counts one ended transaction. Plain integers of this shard alone: nothing here is shared.
    #[inline]
    pub(crate) fn record(
        &mut self,
        meta: &'static TransactionMeta,
        open_loop: bool,
        times: Times,
        outcome: Outcome,
    ) {
        let id = meta.id();
        if !matches!(self.transactions.get(id), Some(Some(_))) {
            self.first(meta, id, open_loop);
        }
        let Some(Some(window)) = self.transactions.get_mut(id) else { return };
        match outcome {
            Outcome::Succeeded => window.succeeded += 1,
            Outcome::Failed(class) => {
                window.failed += 1;
                self.failures[class.index()] += 1;
            }
            Outcome::Cancelled => {
                // It has no end, so it has no latency.
                window.cancelled += 1;
                return;
            }
        }
        let service = times.end.saturating_sub(times.start);
        self.service_sum_ns += service;
        window.service.saturating_record(service);
        if let Some(open) = &mut window.open {
            open.response.saturating_record(times.end.saturating_sub(times.intended));
            open.lag.saturating_record(times.start.saturating_sub(times.intended));
            // The wait for an instance is the target's doing and stays; what the shard added to
            // it goes.
            let late = times.start.saturating_sub(times.punctual);
            let punctual = times.end.saturating_sub(times.intended.saturating_add(late));
            self.punctual.get_or_insert_with(histogram).saturating_record(punctual);
        }
    }

    #[cold]
    fn first(&mut self, meta: &'static TransactionMeta, id: usize, open_loop: bool) {
        if self.transactions.len() <= id {
            self.transactions.resize_with(id + 1, || None);
        }
        self.transactions[id] = Some(Box::new(TransactionWindow::new(meta.name(), open_loop)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static META: TransactionMeta = TransactionMeta::new("get", "tests");

    #[test]
    fn a_window_tells_the_three_times_apart() {
        let mut window = ShardWindow::new();
        let times = Times { intended: 1_000, punctual: 1_000, start: 5_000, end: 25_000 };
        window.record(&META, true, times, Outcome::Succeeded);
        let recorded = window.transactions().next().expect("one name");
        let open = recorded.open.as_ref().expect("an open loop");
        assert_eq!(recorded.service.max() / 100, 200);
        assert_eq!(open.response.max() / 100, 240);
        assert_eq!(open.lag.max() / 10, 400);
    }

    #[test]
    fn a_value_beyond_the_range_is_counted_all_the_same() {
        let mut window = ShardWindow::new();
        let times = Times { intended: 0, punctual: 0, start: 0, end: u64::MAX };
        window.record(&META, false, times, Outcome::Failed(FailureClass::Timeout));
        let recorded = window.transactions().next().expect("one name");
        assert_eq!(recorded.service.len(), 1);
        assert_eq!(window.failures[FailureClass::Timeout.index()], 1);
    }

    #[test]
    fn a_cancelled_transaction_has_no_latency() {
        let mut window = ShardWindow::new();
        let times = Times { intended: 0, punctual: 0, start: 0, end: 9 };
        window.record(&META, true, times, Outcome::Cancelled);
        assert_eq!(window.cancelled(), 1);
        assert_eq!(window.transactions().next().expect("one name").service.len(), 0);
    }

    #[test]
    fn an_emptied_window_keeps_its_histograms() {
        let mut window = ShardWindow::new();
        let times = Times { intended: 0, punctual: 0, start: 0, end: 9 };
        window.record(&META, true, times, Outcome::Succeeded);
        window.reset();
        assert_eq!((window.succeeded(), window.transactions().count()), (0, 1));
    }
}
