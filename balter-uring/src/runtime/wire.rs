//! What nodes say to each other, and how a window travels.
//!
//! The messages are Protocol Buffers; their fields are numbered here, since no other program speaks
//! this protocol: nodes of another version are refused before a window is sent.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::engine::errors::{LONGEST_TEXT, MOST_ERRORS, Told};
use crate::engine::recorder::{Bucket, Recorder};
use crate::engine::window::{OpenRecorders, ShardWindow, TransactionWindow};
use crate::failure::FailureClass;
use crate::traffic::Traffic;

/// Raised with every change of the messages.
pub(crate) const PROTOCOL: u32 = 3;

/// No window has more transactions of different names, and no name is longer.
const MOST_NAMES: usize = 10_000;
const LONGEST_NAME: usize = 256;

/// No path of a module is longer.
const LONGEST_MODULE: usize = 1024;

/// Notes of a node: as many as a run has at most, each cut at this length.
const MOST_NOTES: usize = 32;
const LONGEST_NOTE: usize = 512;

/// Counts beyond this are no counts of a window: at 10 million a second it would be a year's.
const HIGHEST_COUNT: u64 = 1 << 48;

/// A window that waited for its coordinator through a partition of a day is still one.
const LONGEST_NS: u64 = 86_400_000_000_000;

/// From the coordinator to a worker.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Command {
    /// The first message of a connection.
    #[prost(message, optional, tag = "1")]
    pub(crate) prepare: Option<Prepare>,
    #[prost(message, optional, tag = "2")]
    pub(crate) grant: Option<Grant>,
}

/// A run to take part in.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Prepare {
    #[prost(string, tag = "1")]
    pub(crate) run: String,
    #[prost(uint32, tag = "2")]
    pub(crate) protocol: u32,
    #[prost(string, tag = "3")]
    pub(crate) version: String,
    /// As JSON.
    #[prost(string, tag = "4")]
    pub(crate) request: String,
    /// Name of the coordinator.
    #[prost(string, tag = "5")]
    pub(crate) coordinator: String,
    #[prost(uint64, tag = "6")]
    pub(crate) window_ns: u64,
    #[prost(uint64, tag = "7")]
    pub(crate) lease_ns: u64,
    /// Index of the worker among those of the run.
    #[prost(uint32, tag = "8")]
    pub(crate) part: u32,
}

/// What a worker may use, and when the run starts and ends. Times are of the coordinator's clock,
/// but for the stamp, which is the worker's own.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Grant {
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
    /// Of the report that this answers.
    #[prost(uint64, tag = "2")]
    pub(crate) stamp_ns: u64,
    /// When that report arrived, and when this was sent.
    #[prost(uint64, tag = "3")]
    pub(crate) heard_ns: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) sent_ns: u64,
    #[prost(uint32, tag = "5")]
    pub(crate) tps: u32,
    #[prost(uint32, tag = "6")]
    pub(crate) concurrency: u32,
    /// Windows up to this number have arrived.
    #[prost(uint64, tag = "7")]
    pub(crate) confirmed: u64,
    /// 0 until it is settled.
    #[prost(uint64, tag = "8")]
    pub(crate) start_ns: u64,
    /// As the start.
    #[prost(uint64, tag = "9")]
    pub(crate) end_ns: u64,
    /// 0 run, 1 drain, 2 stop.
    #[prost(uint32, tag = "10")]
    pub(crate) course: u32,
    /// Instances that there may be at all, pausing ones included.
    #[prost(uint32, tag = "11")]
    pub(crate) most: u32,
}

/// From a worker to the coordinator, several times a second.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Report {
    /// The worker takes no part, and why.
    #[prost(string, tag = "1")]
    pub(crate) refused: String,
    /// Tells one process from another at the same address.
    #[prost(uint64, tag = "2")]
    pub(crate) boot: u64,
    /// Shards of the worker.
    #[prost(uint32, tag = "3")]
    pub(crate) shards: u32,
    #[prost(uint64, tag = "4")]
    pub(crate) stamp_ns: u64,
    /// Number of the grant that it holds.
    #[prost(uint64, tag = "5")]
    pub(crate) holds: u64,
    /// Its shards are up.
    #[prost(bool, tag = "6")]
    pub(crate) ready: bool,
    #[prost(message, repeated, tag = "7")]
    pub(crate) windows: Vec<Delivery>,
    /// Somebody asked the worker to have the run stopped.
    #[prost(bool, tag = "8")]
    pub(crate) stop: bool,
    /// Its part of the run is over, and all its windows have been confirmed.
    #[prost(message, optional, tag = "9")]
    pub(crate) summary: Option<Summary>,
    /// It leaves the cluster: its part drains.
    #[prost(bool, tag = "10")]
    pub(crate) leaving: bool,
}

/// What a worker knows of its part beside the windows.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Summary {
    /// Share of its time that the hypervisor took from the worst core.
    #[prost(double, tag = "1")]
    pub(crate) stolen: f64,
    #[prost(uint64, tag = "2")]
    pub(crate) throttled_ns: u64,
    #[prost(uint32, tag = "3")]
    pub(crate) shards_lost: u32,
    /// What its statistics say besides.
    #[prost(string, repeated, tag = "4")]
    pub(crate) notes: Vec<String>,
}

impl Summary {
    /// The notes, bounded, and no control characters in them.
    pub(crate) fn notes(&self) -> impl Iterator<Item = String> {
        let plain = |note: &String| -> String {
            note.chars().filter(|char| !char.is_control()).take(LONGEST_NOTE).collect()
        };
        self.notes.iter().take(MOST_NOTES).map(plain)
    }
}

/// A window with its number.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Delivery {
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
    /// The grant that was held when it began.
    #[prost(uint64, tag = "2")]
    pub(crate) grant: u64,
    #[prost(message, optional, tag = "3")]
    pub(crate) window: Option<Window>,
}

/// [`ShardWindow`], of all shards of a node.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Window {
    #[prost(uint64, tag = "1")]
    pub(crate) start_ns: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) end_ns: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) planned: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) missed: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) started: u64,
    #[prost(uint64, tag = "6")]
    pub(crate) backlog: u64,
    #[prost(uint32, tag = "7")]
    pub(crate) instances: u32,
    #[prost(uint32, tag = "8")]
    pub(crate) in_flight: u32,
    #[prost(uint64, tag = "9")]
    pub(crate) idle_ns: u64,
    #[prost(uint64, tag = "10")]
    pub(crate) service_sum_ns: u64,
    /// By class.
    #[prost(uint64, repeated, tag = "11")]
    pub(crate) failures: Vec<u64>,
    #[prost(message, repeated, tag = "12")]
    pub(crate) transactions: Vec<Transaction>,
    #[prost(uint64, tag = "13")]
    pub(crate) panics: u64,
    #[prost(string, optional, tag = "14")]
    pub(crate) panic: Option<String>,
    #[prost(message, optional, tag = "15")]
    pub(crate) punctual: Option<Times>,
    #[prost(message, optional, tag = "16")]
    pub(crate) handshakes: Option<Times>,
    #[prost(uint64, tag = "17")]
    pub(crate) resumed_handshakes: u64,
    #[prost(bool, tag = "18")]
    pub(crate) last: bool,
    #[prost(uint64, tag = "30")]
    pub(crate) bytes_sent: u64,
    #[prost(uint64, tag = "31")]
    pub(crate) bytes_received: u64,
    #[prost(uint64, tag = "32")]
    pub(crate) connections: u64,
    #[prost(uint64, tag = "40")]
    pub(crate) stalled: u64,
    #[prost(uint64, tag = "41")]
    pub(crate) abandoned: u64,
    #[prost(uint32, tag = "42")]
    pub(crate) starting: u32,
    #[prost(uint64, tag = "43")]
    pub(crate) cycles: u64,
    #[prost(uint64, tag = "44")]
    pub(crate) cycle_ns: u64,
    #[prost(uint64, tag = "45")]
    pub(crate) target_wait_ns: u64,
    #[prost(uint64, tag = "46")]
    pub(crate) instance_wait_ns: u64,
    #[prost(message, optional, tag = "47")]
    pub(crate) lateness: Option<Times>,
    #[prost(message, optional, tag = "48")]
    pub(crate) failed_punctual: Option<Times>,
    #[prost(message, optional, tag = "19")]
    pub(crate) seen_late: Option<Times>,
    #[prost(message, optional, tag = "20")]
    pub(crate) receive_delay: Option<Times>,
    /// Requests outside of transactions, those of them that failed, and those that had to wait.
    #[prost(uint64, tag = "50")]
    pub(crate) outside: u64,
    #[prost(uint64, tag = "51")]
    pub(crate) outside_failed: u64,
    #[prost(uint64, tag = "52")]
    pub(crate) outside_held_back: u64,
    #[prost(uint64, tag = "53")]
    pub(crate) returned_early: u64,
    #[prost(message, optional, tag = "54")]
    pub(crate) given_up: Option<Times>,
    #[prost(message, optional, tag = "55")]
    pub(crate) timed_out: Option<Times>,
}

/// [`TransactionWindow`].
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Transaction {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(uint64, tag = "2")]
    pub(crate) succeeded: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) failed: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) cancelled: u64,
    #[prost(message, optional, tag = "5")]
    pub(crate) service: Option<Times>,
    #[prost(message, optional, tag = "6")]
    pub(crate) response: Option<Times>,
    #[prost(message, optional, tag = "7")]
    pub(crate) lag: Option<Times>,
    #[prost(string, tag = "8")]
    pub(crate) module: String,
    /// By class; empty if none failed.
    #[prost(uint64, repeated, tag = "9")]
    pub(crate) failures: Vec<u64>,
    /// What they had to say.
    #[prost(message, repeated, tag = "10")]
    pub(crate) errors: Vec<Failure>,
}

/// Transactions that failed in the same way.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Failure {
    #[prost(uint32, tag = "1")]
    pub(crate) class: u32,
    /// 0 without one.
    #[prost(uint32, tag = "2")]
    pub(crate) status: u32,
    /// IP address and port; empty without one.
    #[prost(string, tag = "3")]
    pub(crate) address: String,
    #[prost(string, tag = "4")]
    pub(crate) text: String,
    #[prost(uint64, tag = "5")]
    pub(crate) count: u64,
}

/// A histogram: the buckets that hold something, each as the distance from the one before, and how
/// much they hold.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Times {
    #[prost(uint32, repeated, tag = "1")]
    pub(crate) steps: Vec<u32>,
    #[prost(uint64, repeated, tag = "2")]
    pub(crate) counts: Vec<u64>,
}

/// A window that does not fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a window with {0}")]
pub(crate) struct MalformedWindow(&'static str);

impl Times {
    fn of(recorder: &Recorder) -> Self {
        let mut times = Self::default();
        let mut before = 0;
        for (bucket, count) in recorder.recorded() {
            times.steps.push((bucket.index() - before) as u32);
            times.counts.push(count);
            before = bucket.index();
        }
        times
    }

    fn record(&self, recorder: &mut Recorder) -> Result<(), MalformedWindow> {
        if self.steps.len() != self.counts.len() {
            return Err(MalformedWindow("buckets without counts"));
        }
        let mut index = 0_usize;
        for (&step, &count) in self.steps.iter().zip(&self.counts) {
            index = index.saturating_add(step as usize);
            let bucket = Bucket::at(index).ok_or(MalformedWindow("a bucket beyond the last"))?;
            recorder.record_many(bucket, checked(count)?);
        }
        Ok(())
    }
}

fn checked(count: u64) -> Result<u64, MalformedWindow> {
    if count <= HIGHEST_COUNT { Ok(count) } else { Err(MalformedWindow("an impossible count")) }
}

impl Window {
    pub(crate) fn of(window: &ShardWindow) -> Self {
        Self {
            start_ns: window.start_ns,
            end_ns: window.end_ns,
            planned: window.planned,
            missed: window.missed,
            started: window.started,
            backlog: window.backlog,
            instances: window.instances,
            in_flight: window.in_flight,
            idle_ns: window.idle_ns,
            service_sum_ns: window.service_sum_ns,
            failures: window.failures.to_vec(),
            transactions: window
                .transactions
                .iter()
                .enumerate()
                .filter_map(|(id, transaction)| {
                    Transaction::of(transaction.as_ref()?, Failure::of(window, id))
                })
                .collect(),
            panics: window.panics,
            panic: window.panic.clone(),
            punctual: window.punctual.as_ref().map(Times::of),
            handshakes: window.handshakes.as_ref().map(Times::of),
            resumed_handshakes: window.resumed_handshakes,
            outside: window.outside.requests,
            outside_failed: window.outside.failed,
            outside_held_back: window.outside.held_back,
            returned_early: window.returned_early,
            last: window.last,
            bytes_sent: window.traffic.sent,
            bytes_received: window.traffic.received,
            connections: window.traffic.connections,
            stalled: window.stalled,
            abandoned: window.abandoned,
            starting: window.starting,
            cycles: window.cycles,
            cycle_ns: window.cycle_ns,
            target_wait_ns: window.target_wait_ns,
            instance_wait_ns: window.instance_wait_ns,
            lateness: window.lateness.as_ref().map(Times::of),
            failed_punctual: window.failed_punctual.as_ref().map(Times::of),
            given_up: window.given_up.as_ref().map(Times::of),
            timed_out: window.timed_out.as_ref().map(Times::of),
            seen_late: window.seen_late.as_ref().map(Times::of),
            receive_delay: window.receive_delay.as_ref().map(Times::of),
        }
    }

    /// Fills an empty window. On an error it holds a part, and is not to be used.
    pub(crate) fn fill(
        &self,
        names: &mut Names,
        window: &mut ShardWindow,
    ) -> Result<(), MalformedWindow> {
        let Some(length_ns @ ..=LONGEST_NS) = self.end_ns.checked_sub(self.start_ns) else {
            return Err(MalformedWindow("an impossible length"));
        };
        if self.failures.len() != FailureClass::COUNT {
            return Err(MalformedWindow("other classes of failures"));
        }
        window.start_ns = self.start_ns;
        window.end_ns = self.end_ns;
        window.planned = checked(self.planned)?;
        window.missed = checked(self.missed)?;
        window.started = checked(self.started)?;
        window.backlog = checked(self.backlog)?;
        window.instances = self.instances;
        window.in_flight = self.in_flight;
        window.idle_ns = self.idle_ns.min(length_ns);
        window.service_sum_ns = self.service_sum_ns;
        for (sum, &count) in window.failures.iter_mut().zip(&self.failures) {
            *sum = checked(count)?;
        }
        window.panics = checked(self.panics)?;
        window.panic.clone_from(&self.panic);
        window.outside.requests = checked(self.outside)?;
        window.outside.failed = checked(self.outside_failed)?;
        window.outside.held_back = checked(self.outside_held_back)?;
        window.returned_early = checked(self.returned_early)?;
        window.resumed_handshakes = checked(self.resumed_handshakes)?;
        window.last = self.last;
        window.traffic = Traffic {
            sent: checked(self.bytes_sent)?,
            received: checked(self.bytes_received)?,
            connections: checked(self.connections)?,
        };
        window.stalled = checked(self.stalled)?;
        window.abandoned = checked(self.abandoned)?;
        window.starting = self.starting;
        window.cycles = checked(self.cycles)?;
        window.cycle_ns = self.cycle_ns;
        window.target_wait_ns = self.target_wait_ns;
        window.instance_wait_ns = self.instance_wait_ns;
        fill_optional(self.punctual.as_ref(), &mut window.punctual)?;
        fill_optional(self.lateness.as_ref(), &mut window.lateness)?;
        fill_optional(self.failed_punctual.as_ref(), &mut window.failed_punctual)?;
        fill_optional(self.given_up.as_ref(), &mut window.given_up)?;
        fill_optional(self.timed_out.as_ref(), &mut window.timed_out)?;
        fill_optional(self.handshakes.as_ref(), &mut window.handshakes)?;
        fill_optional(self.seen_late.as_ref(), &mut window.seen_late)?;
        fill_optional(self.receive_delay.as_ref(), &mut window.receive_delay)?;
        for transaction in &self.transactions {
            let id = names.id(&transaction.module, &transaction.name)?;
            if window.transactions.len() <= id {
                window.transactions.resize_with(id + 1, || None);
            }
            let open_loop = transaction.response.is_some();
            let new = || {
                let name = Cow::Owned(transaction.name.clone());
                let module = Cow::Owned(transaction.module.clone());
                Box::new(TransactionWindow::new(name, module, open_loop))
            };
            let filled = window.transactions[id].get_or_insert_with(new);
            transaction.fill(filled)?;
            transaction.fill_errors(id, window)?;
        }
        // What the totals are made of has to fit together, or they would not.
        let ended = window.succeeded() + window.failed();
        let mut failures = [0; FailureClass::COUNT];
        for one in window.transactions() {
            if one.failures.iter().sum::<u64>() != one.failed {
                return Err(MalformedWindow("failures that are of no class"));
            }
            failures.iter_mut().zip(one.failures).for_each(|(sum, count)| *sum += count);
        }
        if failures != window.failures {
            return Err(MalformedWindow("failures that are of no transaction"));
        }
        if window.transactions().any(|one| one.succeeded + one.failed != one.service.len())
            || window.punctual.as_ref().is_some_and(|punctual| punctual.len() != ended)
        {
            return Err(MalformedWindow("transactions without times"));
        }
        for (id, one) in window.transactions.iter().enumerate() {
            let Some(one) = one else { continue };
            let mut told = [0_u64; FailureClass::COUNT];
            for error in window.errors.iter().filter(|error| error.id == id) {
                told[error.class.index()] += error.count;
            }
            if told.iter().zip(one.failures).any(|(&told, failed)| told > failed) {
                return Err(MalformedWindow("errors of no failures"));
            }
        }
        let failed = window.failed_punctual.as_ref().map_or(0, Recorder::len);
        if failed > window.failed() {
            return Err(MalformedWindow("failures of no transactions"));
        }
        let count = |times: &Option<Recorder>| times.as_ref().map_or(0, Recorder::len);
        if count(&window.given_up) > window.missed + window.cancelled()
            || count(&window.timed_out) > window.failures[FailureClass::Timeout.index()]
        {
            return Err(MalformedWindow("waits of no transactions"));
        }
        let late = [&window.seen_late, &window.receive_delay];
        if late.into_iter().flatten().any(|late| late.len() > ended) {
            return Err(MalformedWindow("answers of no transactions"));
        }
        Ok(())
    }
}

fn fill_optional(
    times: Option<&Times>,
    recorder: &mut Option<Recorder>,
) -> Result<(), MalformedWindow> {
    match times {
        Some(times) => times.record(recorder.get_or_insert_with(Recorder::new)),
        None => Ok(()),
    }
}

impl Failure {
    /// Those of one transaction.
    fn of(window: &ShardWindow, id: usize) -> Vec<Self> {
        let mine = window.errors.iter().filter(|error| error.id == id);
        mine.map(|error| Self {
            class: error.class.index() as u32,
            status: u32::from(error.status),
            address: error.address.map_or_else(String::new, |address| address.to_string()),
            text: error.text.clone().into(),
            count: error.count,
        })
        .collect()
    }
}

impl Transaction {
    /// `None` if it has nothing to tell.
    fn of(window: &TransactionWindow, errors: Vec<Failure>) -> Option<Self> {
        (window.succeeded + window.failed + window.cancelled > 0).then(|| Self {
            name: window.name.clone().into_owned(),
            succeeded: window.succeeded,
            failed: window.failed,
            cancelled: window.cancelled,
            service: Some(Times::of(&window.service)),
            response: window.open.as_ref().map(|open| Times::of(&open.response)),
            lag: window.open.as_ref().map(|open| Times::of(&open.lag)),
            module: window.module.clone().into_owned(),
            failures: if window.failed > 0 { window.failures.to_vec() } else { Vec::new() },
            errors,
        })
    }

    fn fill_errors(&self, id: usize, window: &mut ShardWindow) -> Result<(), MalformedWindow> {
        if self.errors.len() > MOST_ERRORS {
            return Err(MalformedWindow("too many errors"));
        }
        for error in &self.errors {
            let class = FailureClass::ALL.get(error.class as usize);
            let (Some(&class), Ok(status)) = (class, u16::try_from(error.status)) else {
                return Err(MalformedWindow("an error of no class or status"));
            };
            if error.text.len() > LONGEST_TEXT {
                return Err(MalformedWindow("an error of too many words"));
            }
            let address = match &*error.address {
                "" => None,
                address => {
                    let parsed = address.parse();
                    Some(parsed.map_err(|_| MalformedWindow("an error of no address"))?)
                }
            };
            let (text, count) = (&*error.text, checked(error.count)?);
            window.errors.add_foreign(id, Told { class, status, address, text, count });
        }
        Ok(())
    }

    fn fill(&self, window: &mut TransactionWindow) -> Result<(), MalformedWindow> {
        window.succeeded += checked(self.succeeded)?;
        window.failed += checked(self.failed)?;
        window.cancelled += checked(self.cancelled)?;
        if self.failures.len() > FailureClass::COUNT {
            return Err(MalformedWindow("other classes of failures"));
        }
        for (sum, &count) in window.failures.iter_mut().zip(&self.failures) {
            *sum += checked(count)?;
        }
        if let Some(service) = &self.service {
            service.record(&mut window.service)?;
        }
        let (Some(response), Some(lag)) = (&self.response, &self.lag) else { return Ok(()) };
        let open = window.open.get_or_insert_with(|| OpenRecorders {
            response: Recorder::new(),
            lag: Recorder::new(),
        });
        response.record(&mut open.response)?;
        lag.record(&mut open.lag)
    }
}

/// Numbers for transactions by module and name, as nodes send them.
#[derive(Debug, Default)]
pub(crate) struct Names {
    by_module: HashMap<String, HashMap<String, usize>>,
    count: usize,
}

impl Names {
    fn id(&mut self, module: &str, name: &str) -> Result<usize, MalformedWindow> {
        if let Some(&id) = self.by_module.get(module).and_then(|names| names.get(name)) {
            return Ok(id);
        }
        let is_too_long = name.len() > LONGEST_NAME || module.len() > LONGEST_MODULE;
        if self.count >= MOST_NAMES || is_too_long {
            return Err(MalformedWindow("too many names of transactions, or too long ones"));
        }
        let id = self.count;
        self.count += 1;
        self.by_module.entry(module.to_owned()).or_default().insert(name.to_owned(), id);
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use std::net::SocketAddr;

    use super::*;
    use crate::engine::errors::{Cause, Key, Text};
    use crate::engine::recorder::histogram;
    use crate::engine::window::{Outcome, Times as TransactionTimes};
    use crate::failure::{Scope, note_status, with_scope};
    use crate::transaction::TransactionMeta;
    use crate::transaction::outcome::Described;

    static GET: TransactionMeta = TransactionMeta::new("get", "wire");
    static PUT: TransactionMeta = TransactionMeta::new("put", "wire");
    static OTHER_GET: TransactionMeta = TransactionMeta::new("get", "wire::other");

    fn window(samples: &[(u64, u64, bool)]) -> ShardWindow {
        let mut window = ShardWindow::new(true);
        (window.start_ns, window.end_ns, window.started) = (5, 105, samples.len() as u64);
        for &(lag, service, is_put) in samples {
            let times =
                TransactionTimes { intended: 0, start: lag, end: lag + service, late: lag / 2 };
            let outcome = match service % 7 {
                0 => Outcome::Failed(FailureClass::Timeout),
                _ => Outcome::Succeeded,
            };
            window.record(if is_put { &PUT } else { &GET }, times, outcome);
            window.record_seen_late(lag / 2);
            if is_put {
                window.record_receive_delay(lag / 3);
            }
        }
        window
    }

    fn travel(window: &ShardWindow, names: &mut Names) -> ShardWindow {
        let bytes = Window::of(window).encode_to_vec();
        let mut arrived = ShardWindow::new(true);
        let decoded = Window::decode(&bytes[..]).expect("what was encoded");
        decoded.fill(names, &mut arrived).expect("a window of ours");
        arrived
    }

    fn samples() -> impl Strategy<Value = Vec<(u64, u64, bool)>> {
        prop::collection::vec((0..10_000_000_u64, 0..1_u64 << 41, any::<bool>()), 0..200)
    }

    proptest! {
        /// The quantiles of what nodes sent are those of one histogram of all samples.
        #[test]
        fn merged_windows_equal_one_histogram(parts in prop::collection::vec(samples(), 1..6)) {
            let (mut names, mut sum) = (Names::default(), ShardWindow::new(true));
            let mut expected = histogram();
            for part in &parts {
                sum.merge(&travel(&window(part), &mut names));
                for &(lag, service, _) in part {
                    expected.saturating_record(lag + service);
                }
            }
            let mut merged = histogram();
            for transaction in sum.transactions() {
                transaction.open.as_ref().expect("open").response.add_to(&mut merged);
            }
            for quantile in [0.5, 0.9, 0.99, 0.999, 1.0] {
                prop_assert_eq!(
                    merged.value_at_quantile(quantile),
                    expected.value_at_quantile(quantile)
                );
            }
            prop_assert_eq!(merged.len(), expected.len());
            let (seen_late, stamped) = (&sum.seen_late, &sum.receive_delay);
            prop_assert_eq!(seen_late.as_ref().map_or(0, Recorder::len), expected.len());
            let puts = parts.iter().flatten().filter(|&&(_, _, is_put)| is_put);
            prop_assert_eq!(stamped.as_ref().map_or(0, Recorder::len), puts.count() as u64);
            let all: usize = parts.iter().map(Vec::len).sum();
            prop_assert_eq!(sum.succeeded() + sum.failed(), all as u64);
            prop_assert_eq!(sum.started, all as u64);
        }

        #[test]
        fn bytes_of_a_stranger_are_refused_without_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            if let Ok(window) = Window::decode(&bytes[..]) {
                let _ = window.fill(&mut Names::default(), &mut ShardWindow::new(true));
            }
        }

        #[test]
        fn a_window_with_a_byte_changed_does_no_harm(
            samples in samples(), place in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let mut bytes = Window::of(&window(&samples)).encode_to_vec();
            let place = place.index(bytes.len());
            bytes[place] = byte;
            if let Ok(window) = Window::decode(&bytes[..]) {
                let _ = window.fill(&mut Names::default(), &mut ShardWindow::new(true));
            }
        }
    }

    #[test]
    fn what_stood_outside_of_transactions_travels_too() {
        let mut sent = window(&[]);
        sent.outside.requests = 5;
        sent.outside.failed = 4;
        sent.outside.held_back = 3;
        sent.returned_early = 2;
        let mut sum = ShardWindow::new(true);
        for _ in 0..2 {
            sum.merge(&travel(&sent, &mut Names::default()));
        }
        let outside = (sum.outside.requests, sum.outside.failed, sum.outside.held_back);
        assert_eq!((outside, sum.returned_early), ((10, 8, 6), 4));
    }

    #[test]
    fn traffic_classes_and_modules_arrive() {
        let times = TransactionTimes { intended: 0, start: 1, end: 3, late: 0 };
        let mut sent = window(&[]);
        sent.traffic = Traffic { sent: 10, received: 200, connections: 3 };
        sent.record(&GET, times, Outcome::Failed(FailureClass::Timeout));
        sent.record(&OTHER_GET, times, Outcome::Failed(FailureClass::Reset));
        sent.record(&OTHER_GET, times, Outcome::Succeeded);
        sent.record(&OTHER_GET, times, Outcome::Cancelled);
        let mut names = Names::default();
        let mut sum = travel(&sent, &mut names);
        sum.merge(&travel(&sent, &mut names));
        assert_eq!(sum.traffic, Traffic { sent: 20, received: 400, connections: 6 });
        let count = |times: &Option<Recorder>| times.as_ref().map_or(0, Recorder::len);
        assert_eq!((count(&sum.given_up), count(&sum.timed_out)), (2, 2));
        let of = |module: &str| {
            let one = sum.transactions().find(|one| one.name == "get" && one.module == module);
            let one = one.expect("it was sent");
            let classes = [FailureClass::Timeout, FailureClass::Reset];
            (one.succeeded, classes.map(|class| one.failures[class.index()]))
        };
        assert_eq!(of("wire"), (0, [2, 0]));
        assert_eq!(of("wire::other"), (2, [0, 2]));
    }

    /// A failed transaction of each text, in a window of its own.
    fn failing(meta: &'static TransactionMeta, texts: &[&'static str]) -> ShardWindow {
        let mut window = ShardWindow::new(true);
        let peer = SocketAddr::from(([127, 0, 0, 1], 80));
        let mut scope = Scope::default();
        with_scope(&mut scope, || note_status(404, peer));
        for &text in texts {
            let times = TransactionTimes { intended: 0, start: 1, end: 3, late: 0 };
            window.record(meta, times, Outcome::Failed(FailureClass::Status));
            let key = Key { id: meta.id(), class: FailureClass::Status, note: scope.note() };
            let text = Some(Text::of(Described::Plain(text)));
            window.errors.count(&Cause { key, text });
        }
        window
    }

    #[test]
    fn errors_of_nodes_add_up_by_transaction_and_text() {
        let mut names = Names::default();
        let mut sum = ShardWindow::new(true);
        // The nodes number their transactions by themselves.
        for (meta, texts) in [
            (&GET, &["a", "b", "a"][..]),
            (&PUT, &["a"]),
            (&GET, &["b"]),
            (&GET, &["ü\u{1b}\n and more", &"x".repeat(1_000).leak()[..]]),
        ] {
            sum.merge(&travel(&failing(meta, texts), &mut names));
        }
        let get = names.id("wire", "get").expect("it came");
        let of = |id: usize, text: &str| {
            let found =
                sum.errors.iter().find(|error| error.id == id && error.text.starts_with(text));
            let found = found.expect("it came");
            assert_eq!((found.status, found.address.map(|it| it.port())), (404, Some(80)));
            found.count
        };
        assert_eq!((of(get, "a"), of(get, "b"), of(1 - get, "a")), (2, 2, 1));
        assert_eq!((of(get, "ü\\u{1b}\\n and"), of(get, "xxx")), (1, 1));
    }

    #[test]
    fn errors_of_a_stranger_are_bounded() {
        let good = Window::of(&failing(&GET, &["a", "b"]));
        let filled = |change: &dyn Fn(&mut Failure)| {
            let mut bad = good.clone();
            change(&mut bad.transactions[0].errors[0]);
            let mut window = ShardWindow::new(true);
            bad.fill(&mut Names::default(), &mut window).map(|()| window)
        };
        assert!(filled(&|_| {}).is_ok());
        assert!(filled(&|error| error.count += 1).is_err());
        assert!(filled(&|error| error.class = 99).is_err());
        assert!(filled(&|error| error.class = 0).is_err());
        assert!(filled(&|error| error.status = 1 << 20).is_err());
        assert!(filled(&|error| error.address = "nowhere".to_owned()).is_err());
        assert!(filled(&|error| error.text = "x".repeat(10_000)).is_err());
        let window = filled(&|error| error.text = "\u{1b}[2J".to_owned()).expect("it is escaped");
        assert!(window.errors.iter().all(|error| !error.text.contains('\u{1b}')));
        let mut many = good.clone();
        many.transactions[0].errors = vec![many.transactions[0].errors[0].clone(); 21];
        assert!(many.fill(&mut Names::default(), &mut ShardWindow::new(true)).is_err());
    }

    #[test]
    fn notes_are_bounded_and_plain() {
        let note = format!("a\u{1b}[31m\n{}", "x".repeat(10_000));
        let summary = Summary { notes: vec![note; 1_000], ..Summary::default() };
        let notes: Vec<_> = summary.notes().collect();
        assert_eq!(notes.len(), MOST_NOTES);
        assert!(notes[0].starts_with("a[31mx") && notes[0].len() == LONGEST_NOTE);
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let good = Window::of(&window(&[(1, 2, false), (3, 14, true)]));
        let refused = |change: fn(&mut Window)| {
            let mut bad = good.clone();
            change(&mut bad);
            bad.fill(&mut Names::default(), &mut ShardWindow::new(true)).is_err()
        };
        assert!(!refused(|_| {}));
        assert!(refused(|window| window.end_ns = 0));
        assert!(refused(|window| {
            window.failures.pop();
        }));
        assert!(refused(|window| window.started = u64::MAX));
        assert!(refused(|window| window.transactions[0].failed += 1));
        assert!(refused(|window| window.transactions[0].succeeded += 1));
        assert!(refused(|window| window.transactions[0].name = "x".repeat(300)));
        assert!(refused(|window| window.transactions[0].module = "x".repeat(2_000)));
        assert!(refused(|window| window.bytes_sent = u64::MAX));
        // The other way round: the sums fit, the classes do not.
        assert!(refused(|window| window.failures.rotate_left(1)));
        assert!(refused(|window| {
            let failing = window.transactions.iter_mut().find(|one| one.failed > 0);
            failing.expect("one has failed").failures.clear();
        }));
        assert!(refused(|window| window.transactions[0].failures = vec![0; 99]));
        assert!(refused(|window| window.timed_out.as_mut().expect("one did").counts[0] += 1));
        assert!(refused(|window| window.given_up.clone_from(&window.timed_out)));
        assert!(refused(|window| window.punctual.as_mut().expect("open").steps[0] = u32::MAX));
        assert!(refused(|window| window.punctual.as_mut().expect("open").counts.clear()));
        assert!(refused(|window| window.seen_late.as_mut().expect("recorded").counts[0] += 9));
        assert!(refused(|window| window.receive_delay.as_mut().expect("a put").counts[0] += 9));
    }
}
