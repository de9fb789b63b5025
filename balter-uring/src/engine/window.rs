//! What a shard measured of one run in one window, and the recorder that fills it.

use std::borrow::Cow;

use super::clock::nanoseconds;
use super::errors::Errors;
use super::recorder::{Bucket, Recorder};
use crate::failure::FailureClass;
use crate::handshake::Handshake;
use crate::statistics::{Counts, Outside};
use crate::traffic::Traffic;
use crate::transaction::TransactionMeta;

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
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// The part of its lag that is the shard's own doing: until it was released, and from when it
    /// was handed to a waiting instance until that began. The rest it waited for an instance.
    pub(crate) late: u64,
}

/// Completed transactions of one function in one window.
#[derive(Debug)]
pub(crate) struct TransactionWindow {
    pub(crate) name: Cow<'static, str>,
    pub(crate) module: Cow<'static, str>,
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    pub(crate) cancelled: u64,
    /// By [`FailureClass::index`]; their sum is `failed`.
    pub(crate) failures: [u64; FailureClass::COUNT],
    pub(crate) service: Recorder,
    /// `None` in a closed loop, where a transaction is due when it starts: response is service
    /// and lag is nothing.
    pub(crate) open: Option<OpenRecorders>,
}

#[derive(Debug)]
pub(crate) struct OpenRecorders {
    pub(crate) response: Recorder,
    pub(crate) lag: Recorder,
}

impl TransactionWindow {
    pub(crate) fn new(name: Cow<'static, str>, module: Cow<'static, str>, open_loop: bool) -> Self {
        Self {
            name,
            module,
            succeeded: 0,
            failed: 0,
            cancelled: 0,
            failures: [0; FailureClass::COUNT],
            service: Recorder::new(),
            open: open_loop
                .then(|| OpenRecorders { response: Recorder::new(), lag: Recorder::new() }),
        }
    }

    fn is_empty(&self) -> bool {
        self.succeeded + self.failed + self.cancelled == 0
    }

    #[cfg(feature = "rt")]
    fn add(&mut self, other: &Self) {
        if other.is_empty() {
            return;
        }
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        for (sum, count) in self.failures.iter_mut().zip(other.failures) {
            *sum += count;
        }
        self.service.add(&other.service);
        if let (Some(mine), Some(theirs)) = (&mut self.open, &other.open) {
            mine.response.add(&theirs.response);
            mine.lag.add(&theirs.lag);
        }
    }

    fn reset(&mut self) {
        if self.is_empty() {
            return;
        }
        (self.succeeded, self.failed, self.cancelled) = (0, 0, 0);
        self.failures = [0; FailureClass::COUNT];
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
    /// Those of the missed ones that the shard itself was too late for.
    pub(crate) stalled: u64,
    pub(crate) started: u64,
    /// In the last window: transactions that user code has kept or leaked. They count as cancelled.
    pub(crate) abandoned: u64,
    pub(crate) backlog: u64,
    pub(crate) instances: u32,
    /// Those that have not come to their first transaction.
    pub(crate) starting: u32,
    pub(crate) in_flight: u32,
    /// Times from one permit of an instance to its asking for the next, and their sum.
    pub(crate) cycles: u64,
    pub(crate) cycle_ns: u64,
    /// Times that permits waited, summed over them: because instances were in transactions, and
    /// because there was none for them.
    pub(crate) target_wait_ns: u64,
    pub(crate) instance_wait_ns: u64,
    /// Time in which the shard had nothing to do.
    pub(crate) idle_ns: u64,
    pub(crate) service_sum_ns: u64,
    pub(crate) failures: [u64; FailureClass::COUNT],
    /// What they had to say.
    pub(crate) errors: Errors,
    /// By [`TransactionMeta::id`]. Entries stay when a window is emptied: the names of a run do
    /// not change, and their histograms serve again.
    pub(crate) transactions: Vec<Option<Box<TransactionWindow>>>,
    /// Panics of user code, in transactions or around them.
    pub(crate) panics: u64,
    /// The message of the first of them.
    pub(crate) panic: Option<String>,
    /// Requests outside of transactions.
    pub(crate) outside: Outside,
    /// Scenarios that returned without having started a transaction.
    pub(crate) returned_early: u64,
    /// Response times as they would be if the shard had never been late itself. `None` in a closed
    /// loop.
    pub(crate) punctual: Option<Recorder>,
    /// Those of them that failed: a quick failure is no quick answer. `None` until there is one.
    pub(crate) failed_punctual: Option<Recorder>,
    /// How long those that were missed or cancelled had waited since they were due. `None` until there
    /// is one.
    pub(crate) given_up: Option<Recorder>,
    /// Response times of those that ended by their deadline. `None` until there is one.
    pub(crate) timed_out: Option<Recorder>,
    /// How late the shard itself was. `None` in a closed loop.
    pub(crate) lateness: Option<Recorder>,
    /// For each transaction that ended by itself, the most by which its end can have been read
    /// later than its answer came. `None` where nothing is recorded.
    pub(crate) seen_late: Option<Recorder>,
    /// For a sample of them, how much later it was read by the kernel's own time stamps; `None`
    /// until there is one.
    pub(crate) receive_delay: Option<Recorder>,
    /// Times of TLS handshakes; `None` until there is one.
    pub(crate) handshakes: Option<Recorder>,
    /// Those of them that went on with an earlier session.
    pub(crate) resumed_handshakes: u64,
    /// What the run's instances have moved over the network.
    pub(crate) traffic: Traffic,
    /// The run on this shard is over.
    pub(crate) last: bool,
}

impl ShardWindow {
    /// An empty window of an open or a closed loop.
    pub(crate) fn new(open_loop: bool) -> Self {
        Self {
            punctual: open_loop.then(Recorder::new),
            lateness: open_loop.then(Recorder::new),
            seen_late: Some(Recorder::new()),
            ..Self::default()
        }
    }

    /// Empties it for the next use, without giving up memory.
    pub(crate) fn reset(&mut self) {
        let mut transactions = std::mem::take(&mut self.transactions);
        for window in transactions.iter_mut().flatten() {
            window.reset();
        }
        let [
            punctual,
            failed_punctual,
            given_up,
            timed_out,
            lateness,
            seen_late,
            receive_delay,
            handshakes,
        ] = [
            &mut self.punctual,
            &mut self.failed_punctual,
            &mut self.given_up,
            &mut self.timed_out,
            &mut self.lateness,
            &mut self.seen_late,
            &mut self.receive_delay,
            &mut self.handshakes,
        ]
        .map(|recorder| {
            let mut recorder = recorder.take();
            if let Some(recorder) = &mut recorder {
                recorder.reset();
            }
            recorder
        });
        let mut errors = std::mem::take(&mut self.errors);
        errors.reset();
        *self = Self {
            errors,
            transactions,
            punctual,
            failed_punctual,
            given_up,
            timed_out,
            lateness,
            seen_late,
            receive_delay,
            handshakes,
            ..Self::default()
        };
    }

    /// Adds the same stretch of time as another shard saw it. Its idle time is that of the busiest.
    #[cfg(feature = "rt")]
    pub(crate) fn merge(&mut self, other: &Self) {
        let is_first = self.start_ns == self.end_ns;
        self.idle_ns = if is_first { other.idle_ns } else { self.idle_ns.min(other.idle_ns) };
        self.start_ns = if is_first { other.start_ns } else { self.start_ns.min(other.start_ns) };
        self.end_ns = self.end_ns.max(other.end_ns);
        self.backlog += other.backlog;
        self.instances += other.instances;
        self.starting += other.starting;
        self.in_flight += other.in_flight;
        self.add(other);
    }

    /// Adds the window that follows on the same shards.
    #[cfg(feature = "rt")]
    pub(crate) fn append(&mut self, next: &Self) {
        if self.start_ns == self.end_ns {
            self.start_ns = next.start_ns;
        }
        self.end_ns = self.end_ns.max(next.end_ns);
        self.idle_ns += next.idle_ns;
        (self.backlog, self.instances, self.starting, self.in_flight) =
            (next.backlog, next.instances, next.starting, next.in_flight);
        self.add(next);
    }

    /// What both ways of merging have in common: counts and times.
    #[cfg(feature = "rt")]
    fn add(&mut self, other: &Self) {
        self.planned += other.planned;
        self.missed += other.missed;
        self.stalled += other.stalled;
        self.started += other.started;
        self.abandoned += other.abandoned;
        self.cycles += other.cycles;
        self.cycle_ns = self.cycle_ns.saturating_add(other.cycle_ns);
        self.target_wait_ns = self.target_wait_ns.saturating_add(other.target_wait_ns);
        self.instance_wait_ns = self.instance_wait_ns.saturating_add(other.instance_wait_ns);
        self.service_sum_ns = self.service_sum_ns.saturating_add(other.service_sum_ns);
        for (sum, count) in self.failures.iter_mut().zip(other.failures) {
            *sum += count;
        }
        self.errors.add(&other.errors);
        self.panics += other.panics;
        if self.panic.is_none() {
            self.panic.clone_from(&other.panic);
        }
        self.outside.add(&other.outside);
        self.returned_early += other.returned_early;
        self.resumed_handshakes += other.resumed_handshakes;
        self.traffic.add(other.traffic);
        self.last |= other.last;
        add_recorder(&mut self.punctual, other.punctual.as_ref());
        add_recorder(&mut self.failed_punctual, other.failed_punctual.as_ref());
        add_recorder(&mut self.given_up, other.given_up.as_ref());
        add_recorder(&mut self.timed_out, other.timed_out.as_ref());
        add_recorder(&mut self.lateness, other.lateness.as_ref());
        add_recorder(&mut self.seen_late, other.seen_late.as_ref());
        add_recorder(&mut self.receive_delay, other.receive_delay.as_ref());
        add_recorder(&mut self.handshakes, other.handshakes.as_ref());
        if self.transactions.len() < other.transactions.len() {
            self.transactions.resize_with(other.transactions.len(), || None);
        }
        for (mine, theirs) in self.transactions.iter_mut().zip(&other.transactions) {
            let Some(theirs) = theirs else { continue };
            let new = || {
                let open_loop = theirs.open.is_some();
                let (name, module) = (theirs.name.clone(), theirs.module.clone());
                Box::new(TransactionWindow::new(name, module, open_loop))
            };
            mine.get_or_insert_with(new).add(theirs);
        }
    }

    /// What was due, begun and ended in it.
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            planned: self.planned,
            started: self.started,
            missed: self.missed,
            succeeded: self.succeeded(),
            failed: self.failed(),
            cancelled: self.cancelled(),
        }
    }

    pub(crate) fn succeeded(&self) -> u64 {
        self.transactions().map(|window| window.succeeded).sum()
    }

    pub(crate) fn failed(&self) -> u64 {
        self.transactions().map(|window| window.failed).sum()
    }

    pub(crate) fn cancelled(&self) -> u64 {
        self.abandoned + self.transactions().map(|window| window.cancelled).sum::<u64>()
    }

    pub(crate) fn transactions(&self) -> impl Iterator<Item = &TransactionWindow> {
        self.transactions.iter().flatten().map(|window| &**window)
    }

    /// Counts one ended transaction. Plain integers of this shard alone: nothing here is shared.
    #[inline]
    pub(crate) fn record(
        &mut self,
        meta: &'static TransactionMeta,
        times: Times,
        outcome: Outcome,
    ) {
        let id = meta.id();
        if !matches!(self.transactions.get(id), Some(Some(_))) {
            self.first(meta, id);
        }
        let Some(Some(window)) = self.transactions.get_mut(id) else { return };
        let Times { intended, start, end, late } = times;
        match outcome {
            Outcome::Succeeded => window.succeeded += 1,
            Outcome::Failed(class) => {
                window.failed += 1;
                window.failures[class.index()] += 1;
                self.failures[class.index()] += 1;
                if class == FailureClass::Timeout {
                    let waited = Bucket::of(end.saturating_sub(intended));
                    self.timed_out.get_or_insert_with(Recorder::new).record(waited);
                }
            }
            Outcome::Cancelled => {
                // It has no end, so it has no latency.
                window.cancelled += 1;
                self.record_given_up(end.saturating_sub(intended), 1);
                return;
            }
        }
        let service_ns = end.saturating_sub(start);
        let service = Bucket::of(service_ns);
        self.service_sum_ns += service_ns;
        window.service.record(service);
        if let (Some(open), Some(punctual), Some(lateness)) =
            (&mut window.open, &mut self.punctual, &mut self.lateness)
        {
            let response_ns = end.saturating_sub(intended);
            open.response.record(Bucket::of(response_ns));
            open.lag.record(Bucket::of(start.saturating_sub(intended)));
            let on_time = Bucket::of(response_ns.saturating_sub(late));
            punctual.record(on_time);
            if matches!(outcome, Outcome::Failed(_)) {
                self.failed_punctual.get_or_insert_with(Recorder::new).record(on_time);
            }
            lateness.record(Bucket::of(late));
        }
    }

    /// Transactions that do not meet a limit on latency: those that took longer than the bound, or failed.
    pub(crate) fn slow_or_failed(&self, bound: Bucket) -> u64 {
        let Some(punctual) = &self.punctual else { return 0 };
        let (failed, slow_failures) = self
            .failed_punctual
            .as_ref()
            .map_or((0, 0), |failed| (failed.len(), failed.above(bound)));
        punctual.above(bound) + failed.saturating_sub(slow_failures)
    }

    /// So many transactions have no end, and had waited for so long when they were given up.
    #[cold]
    pub(crate) fn record_given_up(&mut self, time_ns: u64, count: u64) {
        let given_up = self.given_up.get_or_insert_with(Recorder::new);
        given_up.record_many(Bucket::of(time_ns), count);
    }

    /// How much later than its answer the end of a transaction can have been read.
    #[inline]
    pub(crate) fn record_seen_late(&mut self, time_ns: u64) {
        if let Some(seen_late) = &mut self.seen_late {
            seen_late.record(Bucket::of(time_ns));
        }
    }

    /// How much later than it came an answer was read, by the kernel's time stamp.
    #[cold]
    pub(crate) fn record_receive_delay(&mut self, time_ns: u64) {
        self.receive_delay.get_or_insert_with(Recorder::new).record(Bucket::of(time_ns));
    }

    pub(crate) fn record_handshake(&mut self, handshake: Handshake) {
        let time_ns = nanoseconds(handshake.time);
        self.handshakes.get_or_insert_with(Recorder::new).record(Bucket::of(time_ns));
        self.resumed_handshakes += u64::from(handshake.resumed);
    }

    #[cold]
    fn first(&mut self, meta: &'static TransactionMeta, id: usize) {
        if self.transactions.len() <= id {
            self.transactions.resize_with(id + 1, || None);
        }
        let (name, module) = (Cow::Borrowed(meta.name()), Cow::Borrowed(meta.module()));
        let window = TransactionWindow::new(name, module, self.punctual.is_some());
        self.transactions[id] = Some(Box::new(window));
    }
}

#[cfg(feature = "rt")]
fn add_recorder(sum: &mut Option<Recorder>, other: Option<&Recorder>) {
    if let Some(other) = other {
        sum.get_or_insert_with(Recorder::new).add(other);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hdrhistogram::Histogram;

    use super::super::recorder::histogram;
    use super::*;

    static META: TransactionMeta = TransactionMeta::new("get", "tests");

    fn recorded(recorder: &Recorder) -> Histogram<u64> {
        let mut histogram = histogram();
        recorder.add_to(&mut histogram);
        histogram
    }

    #[test]
    fn a_window_tells_the_times_apart() {
        let times = Times { intended: 1_000, start: 5_000, end: 25_000, late: 0 };
        // What the shard was late by is its own doing; the rest is not.
        for (late, punctual) in [(4_000, 200), (1_500, 225), (0, 240)] {
            let mut window = ShardWindow::new(true);
            window.record(&META, Times { late, ..times }, Outcome::Succeeded);
            assert_eq!(recorded(window.punctual.as_ref().expect("open")).max() / 100, punctual);
            assert_eq!(recorded(window.lateness.as_ref().expect("open")).max() / 100, late / 100);
            let transaction = window.transactions().next().expect("one name");
            let open = transaction.open.as_ref().expect("an open loop");
            assert_eq!(recorded(&transaction.service).max() / 100, 200);
            assert_eq!(recorded(&open.response).max() / 100, 240);
            assert_eq!(recorded(&open.lag).max() / 10, 400);
        }
    }

    #[test]
    fn a_value_beyond_the_range_is_counted_all_the_same() {
        let mut window = ShardWindow::new(false);
        let times = Times { intended: 0, start: 0, end: u64::MAX, late: 0 };
        window.record(&META, times, Outcome::Failed(FailureClass::Timeout));
        let transaction = window.transactions().next().expect("one name");
        assert_eq!(recorded(&transaction.service).len(), 1);
        assert_eq!(transaction.failures[FailureClass::Timeout.index()], 1);
        assert_eq!(window.failures[FailureClass::Timeout.index()], 1);
        assert_eq!(recorded(window.timed_out.as_ref().expect("it timed out")).len(), 1);
    }

    #[test]
    fn a_cancelled_transaction_has_no_latency() {
        let mut window = ShardWindow::new(false);
        let times = Times { intended: 0, start: 0, end: 9, late: 0 };
        window.record(&META, times, Outcome::Cancelled);
        assert_eq!(window.cancelled(), 1);
        assert_eq!(recorded(window.given_up.as_ref().expect("how long it had waited")).max(), 9);
        let transaction = window.transactions().next().expect("one name");
        assert!(recorded(&transaction.service).is_empty());
    }

    #[test]
    fn handshakes_are_recorded_apart_from_transactions() {
        let mut window = ShardWindow::new(true);
        for (micros, resumed) in [(900, false), (300, true)] {
            window.record_handshake(Handshake { time: Duration::from_micros(micros), resumed });
        }
        let handshakes = recorded(window.handshakes.as_ref().expect("there were two"));
        assert_eq!((handshakes.len(), handshakes.max() / 1_000), (2, 900));
        assert_eq!((window.resumed_handshakes, window.succeeded()), (1, 0));
        window.reset();
        assert!(recorded(window.handshakes.as_ref().expect("its memory is kept")).is_empty());
        assert_eq!(window.resumed_handshakes, 0);
    }

    #[test]
    fn an_emptied_window_keeps_its_recorders() {
        let mut window = ShardWindow::new(true);
        let times = Times { intended: 0, start: 0, end: 9, late: 0 };
        window.record(&META, times, Outcome::Succeeded);
        window.record(&META, times, Outcome::Failed(FailureClass::Reset));
        window.traffic.add(Traffic { sent: 1, received: 2, connections: 3 });
        window.reset();
        assert_eq!((window.succeeded(), window.transactions().count()), (0, 1));
        let transaction = window.transactions().next().expect("its memory is kept");
        assert_eq!(transaction.failures, [0; FailureClass::COUNT]);
        assert!(window.traffic.is_none());
        assert!(recorded(window.punctual.as_ref().expect("open")).is_empty());
    }
}
