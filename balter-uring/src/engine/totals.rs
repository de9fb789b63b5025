//! What the aggregator has gathered of a run, and the statistics that it makes of it.

use std::collections::BTreeMap;
use std::time::Duration;

use balter_controllers::{
    Evidence, Limit, Saturation, SearchEvidence, Shortfall, Verdict, Window, distorted, judge,
};
use hdrhistogram::Histogram;

use super::errors::Errors;
use super::search::Ended;
use super::window::{ShardWindow, TransactionWindow};
use crate::failure::{FailureClass, generator_faults};
use crate::statistics::{
    Counts, Distortion, ErrorStatistics, Latencies, Outside, RunStatistics, ShardStatistics,
    Steady, TransactionStatistics, Waits, by_class, shown_names,
};
use crate::traffic::Traffic;

/// In a closed loop a shard that is busy for this share of its time is taken to be what the
/// transactions wait for.
const QUEUES_FROM: f64 = 0.97;

/// A summary with more notes than this would not be read.
const MOST_NOTES: usize = 32;

/// One shard's part.
#[derive(Debug, Default)]
pub(crate) struct Part {
    pub(crate) core: usize,
    pub(crate) counts: Counts,
    pub(crate) idle_ns: u64,
    pub(crate) active_ns: u64,
    pub(crate) lost: bool,
}

impl Part {
    pub(crate) fn busy(&self) -> f64 {
        match self.active_ns {
            0 => 0.0,
            active => 1.0 - (self.idle_ns as f64 / active as f64).min(1.0),
        }
    }
}

/// Sums over windows. Adding is all that happens to them, so their order and sizes do not matter.
#[derive(Debug)]
pub(crate) struct Totals {
    pub(crate) parts: Vec<Part>,
    /// By [`TransactionMeta::id`](crate::transaction::TransactionMeta::id).
    transactions: BTreeMap<usize, TransactionStatistics>,
    failures: [u64; FailureClass::COUNT],
    errors: Errors,
    panics: u64,
    panic_message: Option<String>,
    notes: Vec<String>,
    most_instances: u32,
    outside: Outside,
    returned_early: u64,
    /// Failures of the target since a window with a success, and when that ended.
    failing: (u64, u64),
    /// When the last window with a failure ended.
    last_ns: u64,
    punctual: Latencies,
    lateness: Latencies,
    given_up: Latencies,
    timed_out: Latencies,
    stalled: u64,
    cycles: u64,
    cycle_ns: u64,
    target_wait_ns: u64,
    instance_wait_ns: u64,
    /// Of these waits, those at the limit on instances are told by the windows of the whole.
    at_limit: SplitWaits,
    /// What was missed and cancelled with parts that were lost.
    lost: (u64, u64),
    seen_late: Latencies,
    receive_delay: Latencies,
    handshakes: Latencies,
    resumed_handshakes: u64,
    traffic: Traffic,
}

impl Totals {
    pub(crate) fn new(cores: impl Iterator<Item = usize>) -> Self {
        Self {
            parts: cores.map(|core| Part { core, ..Part::default() }).collect(),
            transactions: BTreeMap::new(),
            failures: [0; FailureClass::COUNT],
            errors: Errors::default(),
            panics: 0,
            panic_message: None,
            notes: Vec::new(),
            most_instances: 0,
            outside: Outside::default(),
            returned_early: 0,
            failing: (0, 0),
            last_ns: 0,
            punctual: Latencies::default(),
            lateness: Latencies::default(),
            given_up: Latencies::default(),
            timed_out: Latencies::default(),
            stalled: 0,
            cycles: 0,
            cycle_ns: 0,
            target_wait_ns: 0,
            instance_wait_ns: 0,
            at_limit: SplitWaits::default(),
            lost: (0, 0),
            seen_late: Latencies::default(),
            receive_delay: Latencies::default(),
            handshakes: Latencies::default(),
            resumed_handshakes: 0,
            traffic: Traffic::default(),
        }
    }

    /// Adds a shard's window. `interval` gathers the response times for an observer.
    pub(crate) fn add(
        &mut self,
        part: usize,
        window: &ShardWindow,
        mut interval: Option<&mut Histogram<u64>>,
    ) {
        let part = &mut self.parts[part];
        part.counts.add(&window.counts());
        part.idle_ns += window.idle_ns;
        part.active_ns += window.end_ns.saturating_sub(window.start_ns);
        for (sum, count) in self.failures.iter_mut().zip(window.failures) {
            *sum += count;
        }
        self.errors.add(&window.errors);
        let failed = window.failed() - generator_faults(&window.failures);
        // What ends after the last has begun is no state of the target: the late ones come last.
        if window.started > 0 {
            if window.succeeded() > 0 {
                self.failing = (0, self.failing.1.max(window.end_ns));
            } else {
                self.failing.0 += failed;
            }
            if failed > 0 {
                self.last_ns = self.last_ns.max(window.end_ns);
            }
        }
        self.outside.add(&window.outside);
        self.returned_early += window.returned_early;
        self.panics += window.panics;
        if let Some(punctual) = &window.punctual {
            punctual.add_to(self.punctual.histogram_mut());
        }
        if let Some(lateness) = &window.lateness {
            lateness.add_to(self.lateness.histogram_mut());
        }
        if let Some(given_up) = &window.given_up {
            given_up.add_to(self.given_up.histogram_mut());
        }
        if let Some(timed_out) = &window.timed_out {
            timed_out.add_to(self.timed_out.histogram_mut());
        }
        self.stalled += window.stalled;
        self.cycles += window.cycles;
        for (sum, time_ns) in [
            (&mut self.cycle_ns, window.cycle_ns),
            (&mut self.target_wait_ns, window.target_wait_ns),
            (&mut self.instance_wait_ns, window.instance_wait_ns),
        ] {
            *sum = sum.saturating_add(time_ns);
        }
        if let Some(seen_late) = &window.seen_late {
            seen_late.add_to(self.seen_late.histogram_mut());
        }
        if let Some(receive_delay) = &window.receive_delay {
            receive_delay.add_to(self.receive_delay.histogram_mut());
        }
        if let Some(handshakes) = &window.handshakes {
            handshakes.add_to(self.handshakes.histogram_mut());
        }
        self.resumed_handshakes += window.resumed_handshakes;
        self.traffic.add(window.traffic);
        if self.panic_message.is_none() {
            self.panic_message.clone_from(&window.panic);
        }
        for (id, transaction) in window.transactions.iter().enumerate() {
            let Some(transaction) = transaction else { continue };
            let total = self.transactions.entry(id).or_insert_with(|| TransactionStatistics {
                name: transaction.name.clone().into_owned(),
                module: transaction.module.clone().into_owned(),
                ..TransactionStatistics::default()
            });
            add_transaction(total, transaction);
            if let Some(interval) = &mut interval {
                let response = transaction.open.as_ref().map(|open| &open.response);
                response.unwrap_or(&transaction.service).add_to(interval);
            }
        }
    }

    /// Adds a sentence to the run's notes: once, and while there are few.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if self.notes.len() < MOST_NOTES && !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// In a closed loop a shard without idle time has a queue of answers that it has not read yet, and
    /// their transactions last as long as that takes.
    fn note_queues(&mut self, are_nodes: bool) {
        // With one instance on each there is nobody to queue behind.
        if self.most_instances as usize <= self.parts.len() {
            return;
        }
        let queue = |part: &&Part| part.busy() >= QUEUES_FROM;
        let count = self.parts.iter().filter(queue).count();
        let Some(worst) = self
            .parts
            .iter()
            .filter(queue)
            .max_by(|one, other| one.busy().total_cmp(&other.busy()))
        else {
            return;
        };
        let busy = worst.busy() * 100.0;
        let who = match (are_nodes, count) {
            (false, 1) => format!("the shard on core {} was {busy:.0} % busy", worst.core),
            (false, _) => format!("{count} shards were up to {busy:.0} % busy"),
            (true, 1) => format!("a shard of one node was {busy:.0} % busy"),
            (true, _) => format!("shards of {count} nodes were up to {busy:.0} % busy"),
        };
        self.note(format!(
            "{who} in a closed loop: latencies include the wait in the generator's own queue; use \
             fewer instances, more cores, or an open loop"
        ));
    }

    /// How all parts stand at the end of a window; `max_instances` is zero for no such limit.
    pub(crate) fn note_window(&mut self, whole: &Window, max_instances: u32) {
        self.most_instances = self.most_instances.max(whole.instances);
        self.at_limit.add(SplitWaits::of(whole, max_instances));
    }

    /// One more part of the run.
    #[cfg(feature = "rt")]
    pub(crate) fn join(&mut self) -> usize {
        self.parts.push(Part { core: self.parts.len(), ..Part::default() });
        self.parts.len() - 1
    }

    /// The shard of this part is gone. What was in flight there has ended with it, and what was
    /// due will not be started.
    pub(crate) fn lose(&mut self, part: usize) {
        let before = self.parts[part].counts;
        self.parts[part].lost = true;
        self.close(part);
        let after = self.parts[part].counts;
        self.lost.0 += after.missed.saturating_sub(before.missed);
        self.lost.1 += after.cancelled.saturating_sub(before.cancelled);
    }

    /// Nothing more is to come of this part: what has not ended never will.
    pub(crate) fn close(&mut self, part: usize) {
        let counts = &mut self.parts[part].counts;
        counts.cancelled = counts.started.saturating_sub(counts.completed());
        counts.missed = counts.planned.saturating_sub(counts.started);
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for part in &self.parts {
            counts.add(&part.counts);
        }
        counts
    }

    /// Completed transactions, each function by itself.
    #[cfg(feature = "rt")]
    pub(crate) fn transactions(&self) -> impl Iterator<Item = &TransactionStatistics> + Clone {
        self.transactions.values()
    }

    /// Failures by class.
    #[cfg(feature = "rt")]
    pub(crate) fn failures(&self) -> &[u64; FailureClass::COUNT] {
        &self.failures
    }

    /// What failed transactions had to say, most first.
    pub(crate) fn errors(&self) -> Vec<ErrorStatistics> {
        let named = self.errors.iter().filter_map(|seen| {
            let transaction = self.transactions.get(&seen.id)?;
            Some(ErrorStatistics {
                text: seen.text.clone().into(),
                class: seen.class,
                status: (seen.status > 0).then_some(seen.status),
                address: seen.address,
                transaction: transaction.name.clone(),
                module: transaction.module.clone(),
                count: seen.count,
            })
        });
        let mut errors: Vec<_> = named.collect();
        errors.sort_by_key(|error| std::cmp::Reverse(error.count));
        errors
    }

    pub(crate) fn statistics(mut self, summary: Summary) -> RunStatistics {
        if !summary.open {
            self.note_queues(summary.are_nodes);
        }
        let counts = self.counts();
        let (mut response, mut service, mut lag) =
            (Latencies::default(), Latencies::default(), Latencies::default());
        let errors = self.errors();
        let listed = errors.iter().map(|error| error.count).sum();
        let mut transactions: Vec<_> =
            std::mem::take(&mut self.transactions).into_values().collect();
        for transaction in &mut transactions {
            if !summary.open {
                // Due when started: the lag of each is nothing, and its response its service.
                transaction.response = transaction.service.clone();
                let completed = transaction.service.len();
                transaction.lag.histogram_mut().saturating_record_n(0, completed);
            }
            add(response.histogram_mut(), transaction.response.histogram());
            add(service.histogram_mut(), transaction.service.histogram());
            add(lag.histogram_mut(), transaction.lag.histogram());
        }
        transactions
            .sort_by(|one, other| (&one.name, &one.module).cmp(&(&other.name, &other.module)));
        for transaction in &mut transactions {
            most_first(&mut transaction.failures);
        }
        let mut failures: Vec<_> = by_class(&self.failures).collect();
        most_first(&mut failures);

        let spoilt = generator_faults(&self.failures);
        let judged = counts.completed() - spoilt;
        let error_rate = match judged {
            0 => 0.0,
            judged => (counts.failed - spoilt) as f64 / judged as f64,
        };
        let busy = self.parts.iter().map(Part::busy).fold(0.0, f64::max);
        let response_p99 = response.quantile(0.99);
        let cycle_ns = self.cycle_ns.checked_div(self.cycles).unwrap_or(0);
        let lost = self.parts.iter().filter(|part| part.lost).count() as u32;
        let evidence = Evidence {
            goal_tps: summary.asked_tps,
            planned: counts.planned,
            started: counts.started,
            missed: counts.missed,
            // A panic is no transaction that the target could have been asked for.
            completed: counts.completed() - self.failures[FailureClass::Panic.index()],
            elapsed_ns: summary.elapsed_ns,
            descriptors: self.failures[FailureClass::Descriptors.index()],
            ports: self.failures[FailureClass::Ports.index()],
            memory: self.failures[FailureClass::Memory.index()],
            panics: self.panics,
            busy,
            stalled: self.stalled,
            late_p99_ns: self.lateness.quantile(0.99).as_nanos() as u64,
            late_ns: sum_ns(&self.lateness),
            limit_target_wait_ns: self.at_limit.limit_target_ns,
            limit_instance_wait_ns: self.at_limit.limit_instance_ns,
            lost_missed: self.lost.0,
            lost_cancelled: self.lost.1,
            target_wait_ns: self.target_wait_ns,
            instance_wait_ns: self.instance_wait_ns,
            cycle_ns,
            response_p99_ns: response_p99.as_nanos() as u64,
            saturation: summary.saturation,
            instances: self.most_instances,
            max_instances: summary.max_instances,
            shards_lost: if summary.are_nodes { summary.shards_lost } else { lost },
            nodes_lost: if summary.are_nodes { lost } else { 0 },
            stopped: summary.stopped,
            stolen: summary.stolen.iter().copied().fold(0.0, f64::max),
            throttled: match summary.elapsed_ns {
                0 => 0.0,
                elapsed => summary.throttled.as_nanos() as f64 / elapsed as f64,
            },
            failed: counts.failed - spoilt,
            failing: (self.failing.0, self.last_ns.saturating_sub(self.failing.1)),
            failed_by: failures
                .iter()
                .find(|(class, _)| !class.is_generator())
                .map(|(class, count)| format!("{class} ({count})")),
            returned_early: self.returned_early,
            outside: self.outside.requests,
            outside_failed: self.outside.failed,
            unreachable: self.failures[FailureClass::Unreachable.index()],
            timeouts: self.failures[FailureClass::Timeout.index()],
            taken: 0.0,
            search: None,
        };
        let evidence = Evidence {
            taken: mean(&summary.stolen) + evidence.throttled / self.parts.len().max(1) as f64,
            search: summary.search.as_ref().map(|ended| SearchEvidence {
                state: ended.decision.state,
                tps: ended.decision.tps,
                bound_by: ended.bound_by,
                saturated: ended.decision.saturated,
                held_tps: ended.steady.as_ref().map(Steady::tps),
                end: ended.search.end,
                steady: ended.evidence.as_ref().map(|steady| Box::new(in_part(steady, &evidence))),
            }),
            ..evidence
        };
        let (steady, mut search) =
            summary.search.map_or((None, None), |ended| (ended.steady, Some(ended.search)));
        let verdict = judge(&evidence);
        if let (Some(search), Verdict::Failing { .. } | Verdict::Silent { .. }) =
            (&mut search, &verdict)
        {
            // What was found before is no longer so.
            search.capacity = None;
            search.end = search.end.filter(|end| !end.is_found());
        }
        // A search asks for less than the goal on purpose, but not than what it holds.
        let shortfall = match &evidence.search {
            Some(search) => search.steady.as_deref().and_then(Shortfall::of),
            None => Shortfall::of(&evidence),
        };
        if verdict.tps_limited() && self.outside.held_back > 0 {
            self.note(format!(
                "{} of {} requests outside of transactions had to wait for their turn; if the \
                 scenario needs more of them, allow so many a second with `outside_tps`",
                self.outside.held_back, self.outside.requests
            ));
        }
        let bound_transaction = match &verdict {
            Verdict::Limit { limit, .. } => worst(limit, &transactions),
            _ => None,
        };
        if !summary.stopped && counts.cancelled > counts.started / 100 + 10 {
            self.notes.push(format!(
                "{} of {} transactions were given up before they ended, by the scenario or at the \
                 end of the run",
                counts.cancelled, counts.started
            ));
        }
        if self.stalled > 0 {
            self.notes.push(format!(
                "the generator stood still or was kept from its processors: {} of {} transactions \
                 due were missed by it",
                self.stalled, counts.planned
            ));
        }
        let limits = search.as_ref().map_or(&[][..], |search| &search.limits);
        let distortion = self.distortion(&evidence, &verdict, limits, steady.as_ref());
        let elapsed = Duration::from_nanos(summary.elapsed_ns);
        let actual_tps = match summary.elapsed_ns {
            0 => 0.0,
            _ => counts.completed() as f64 / elapsed.as_secs_f64(),
        };
        let held = steady.as_ref().map_or(&response, |steady| &steady.response);
        RunStatistics {
            scenario: summary.name.to_owned(),
            concurrency: summary.instances as usize,
            goal_tps: summary.goal_tps,
            actual_tps: steady.as_ref().map_or(actual_tps, Steady::tps),
            latency_p50: held.quantile(0.5),
            latency_p90: held.quantile(0.9),
            latency_p95: held.quantile(0.95),
            latency_p99: held.quantile(0.99),
            error_rate: steady.as_ref().map_or(error_rate, Steady::error_rate),
            tps_limited: verdict.tps_limited(),
            elapsed,
            counts,
            steady,
            search,
            distorted: distortion.is_some(),
            distortion,
            bound_transaction,
            shortfall,
            punctual: self.punctual,
            lateness: self.lateness,
            given_up: self.given_up,
            timed_out: self.timed_out,
            waits: Waits {
                for_target: Duration::from_nanos(self.target_wait_ns),
                for_instances: Duration::from_nanos(self.instance_wait_ns),
            },
            cycle: Duration::from_nanos(cycle_ns),
            seen_late: self.seen_late,
            receive_delay: self.receive_delay,
            handshakes: self.handshakes,
            resumed_handshakes: self.resumed_handshakes,
            response,
            service,
            lag,
            transactions,
            failures,
            other_errors: counts.failed.saturating_sub(listed),
            errors,
            bytes_sent: self.traffic.sent,
            bytes_received: self.traffic.received,
            connections: self.traffic.connections,
            stopped: summary.stopped,
            shards: self
                .parts
                .iter()
                .zip(summary.stolen.iter().chain(std::iter::repeat(&0.0)))
                .map(|(part, &stolen)| ShardStatistics {
                    core: part.core,
                    counts: part.counts,
                    busy: part.busy(),
                    stolen,
                    lost: part.lost,
                })
                .collect(),
            nodes: Vec::new(),
            outside: self.outside,
            panics: self.panics,
            panic_message: self.panic_message,
            notes: self.notes,
            throttled: summary.throttled,
            verdict: Some(verdict),
            error: None,
            sampled: None,
        }
    }
}

impl Totals {
    /// Why the figures are not fit to be asserted on, if they are not. In a closed loop nothing is due, so
    /// nothing can be late.
    fn distortion(
        &self,
        evidence: &Evidence,
        verdict: &Verdict,
        limits: &[Limit],
        steady: Option<&Steady>,
    ) -> Option<Distortion> {
        if evidence.is_spoilt() {
            let own = evidence.descriptors + evidence.ports + evidence.memory + evidence.panics;
            return Some(Distortion::Failures { own, all: evidence.completed + evidence.panics });
        }
        if self.stalled > evidence.planned / 100 {
            let (missed, planned) = (self.stalled, evidence.planned);
            return Some(Distortion::Missed { missed, planned });
        }
        let (late_p99, response) = match steady {
            Some(steady) => (steady.lateness.quantile(0.99), steady.response.quantile(0.99)),
            None => (self.lateness.quantile(0.99), Duration::from_nanos(evidence.response_p99_ns)),
        };
        let bound = limits.iter().filter_map(|limit| match *limit {
            Limit::Latency { bound_ns, .. } => Some(Duration::from_nanos(bound_ns)),
            _ => None,
        });
        let bound = bound.min();
        let against = bound.unwrap_or(response);
        if distorted(late_p99.as_nanos() as u64, against.as_nanos() as u64) {
            return Some(Distortion::Late { late_p99, against, is_limit: bound.is_some() });
        }
        matches!(verdict, Verdict::Generator { .. }).then_some(Distortion::TooSlow)
    }
}

/// The evidence of a part of a run, with what the whole alone knows. The windows of one part of the run may tell
/// of more time than those of another, so that what was lost is the whole's alone too.
fn in_part(part: &Evidence, whole: &Evidence) -> Evidence {
    let &Evidence { max_instances, saturation, stolen, throttled, taken, .. } = whole;
    Evidence { max_instances, saturation, stolen, throttled, taken, ..part.clone() }
}

/// The transaction that breaks a limit most.
fn worst(limit: &Limit, transactions: &[TransactionStatistics]) -> Option<String> {
    let broken = |transaction: &TransactionStatistics| match *limit {
        Limit::Latency { quantile, .. } => transaction.response.quantile(quantile).as_secs_f64(),
        _ => transaction.failed as f64 / transaction.response.len().max(1) as f64,
    };
    let named = transactions.iter().zip(shown_names(transactions.iter()));
    let worst = named.max_by(|(one, _), (other, _)| broken(one).total_cmp(&broken(other)));
    worst.map(|(_, name)| name.into_owned())
}

/// Waits of permits in the windows of the whole run, and the part of them in windows at whose end there were as
/// many instances as may be.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SplitWaits {
    pub(super) target_ns: u64,
    pub(super) instance_ns: u64,
    pub(super) limit_target_ns: u64,
    pub(super) limit_instance_ns: u64,
}

impl SplitWaits {
    /// Of one window; `max_instances` is zero for no such limit.
    pub(super) fn of(whole: &Window, max_instances: u32) -> Self {
        let (target_ns, instance_ns) = (whole.target_wait_ns, whole.instance_wait_ns);
        let is_at_limit = max_instances > 0 && whole.instances >= max_instances;
        let at_limit = if is_at_limit { (target_ns, instance_ns) } else { (0, 0) };
        let (limit_target_ns, limit_instance_ns) = at_limit;
        Self { target_ns, instance_ns, limit_target_ns, limit_instance_ns }
    }

    pub(super) fn add(&mut self, other: Self) {
        for (sum, time_ns) in [
            (&mut self.target_ns, other.target_ns),
            (&mut self.instance_ns, other.instance_ns),
            (&mut self.limit_target_ns, other.limit_target_ns),
            (&mut self.limit_instance_ns, other.limit_instance_ns),
        ] {
            *sum = sum.saturating_add(time_ns);
        }
    }
}

/// All of the times together.
pub(super) fn sum_ns(times: &Latencies) -> u64 {
    // Saturating, as a conversion to an integer is.
    (times.histogram().mean() * times.len() as f64) as u64
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// What the statistics say beside the sums.
pub(crate) struct Summary {
    pub(crate) name: &'static str,
    /// The parts are nodes of a cluster, not shards.
    pub(crate) are_nodes: bool,
    pub(crate) open: bool,
    pub(crate) goal_tps: u32,
    pub(crate) asked_tps: Option<u32>,
    pub(super) search: Option<Ended>,
    /// Share of each shard's core that the hypervisor took.
    pub(crate) stolen: Vec<f64>,
    pub(crate) throttled: Duration,
    pub(crate) shards_lost: u32,
    pub(crate) elapsed_ns: u64,
    pub(crate) instances: u32,
    pub(crate) max_instances: u32,
    pub(crate) saturation: Option<Saturation>,
    pub(crate) stopped: bool,
}

fn add(sum: &mut Histogram<u64>, part: &Histogram<u64>) {
    if !part.is_empty() {
        sum.add(part).expect("all histograms have one shape");
    }
}

fn add_transaction(total: &mut TransactionStatistics, window: &TransactionWindow) {
    total.succeeded += window.succeeded;
    total.failed += window.failed;
    total.cancelled += window.cancelled;
    for (class, count) in by_class(&window.failures) {
        match total.failures.iter_mut().find(|(known, _)| *known == class) {
            Some((_, sum)) => *sum += count,
            None => total.failures.push((class, count)),
        }
    }
    window.service.add_to(total.service.histogram_mut());
    if let Some(open) = &window.open {
        open.response.add_to(total.response.histogram_mut());
        open.lag.add_to(total.lag.histogram_mut());
    }
}

fn most_first(failures: &mut [(FailureClass, u64)]) {
    failures.sort_by_key(|&(class, count)| (std::cmp::Reverse(count), class));
}

/// A shard's window as the controllers see it.
pub(crate) fn for_controllers(window: &ShardWindow) -> Window {
    let length_ns = window.end_ns.saturating_sub(window.start_ns);
    Window {
        start_ns: window.start_ns,
        length_ns,
        planned: window.planned,
        started: window.started,
        succeeded: window.succeeded(),
        failed: window.failed(),
        cancelled: window.cancelled(),
        missed: window.missed,
        stalled: window.stalled,
        target_wait_ns: window.target_wait_ns,
        instance_wait_ns: window.instance_wait_ns,
        backlog: window.backlog,
        instances: window.instances,
        starting: window.starting,
        in_flight: window.in_flight,
        service_sum_ns: window.service_sum_ns,
        busy: match length_ns {
            0 => 0.0,
            length => 1.0 - (window.idle_ns as f64 / length as f64).min(1.0),
        },
        generator_faults: generator_faults(&window.failures),
        ..Window::default()
    }
}
