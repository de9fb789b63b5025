//! The summary that a person reads.

use std::fmt;
use std::time::Duration;

use balter_controllers::Verdict;

use super::wrap::{FIXED, paragraph};
use super::{Bounds, Distortion, ErrorStatistics, Latencies, Quantile, RunStatistics, shown_names};
use crate::failure::FailureClass;

/// A time in the unit that fits it, four digits: `812 ns`, `40.1 µs`, `1.25 ms`, `3.00 s`.
pub(crate) struct Time(pub(crate) Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0.as_nanos() as f64;
        let (value, unit) = match ns {
            ns if ns < 1e3 => (ns, "ns"),
            ns if ns < 1e6 => (ns / 1e3, "µs"),
            ns if ns < 1e9 => (ns / 1e6, "ms"),
            ns => (ns / 1e9, "s"),
        };
        let digits = match value {
            _ if unit == "ns" => 0,
            value if value < 10.0 => 2,
            value if value < 100.0 => 1,
            _ => 0,
        };
        f.pad(&format!("{value:.digits$} {unit}"))
    }
}

/// A count with its thousands set apart: `1 234 567`.
pub(crate) struct Grouped(pub(crate) u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::with_capacity(digits.len() * 4 / 3);
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                text.push(' ');
            }
            text.push(digit);
        }
        f.pad(&text)
    }
}

/// An amount of data in the unit that fits it: `812 B`, `40.1 kB`, `1.25 MB`.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0 as f64;
        let (value, unit) = match bytes {
            bytes if bytes < 1e3 => return write!(f, "{} B", self.0),
            bytes if bytes < 1e6 => (bytes / 1e3, "kB"),
            bytes if bytes < 1e9 => (bytes / 1e6, "MB"),
            bytes if bytes < 1e12 => (bytes / 1e9, "GB"),
            bytes => (bytes / 1e12, "TB"),
        };
        let digits = match value {
            value if value < 10.0 => 2,
            value if value < 100.0 => 1,
            _ => 0,
        };
        write!(f, "{value:.digits$} {unit}")
    }
}

/// A count in a column: of a million million or more four digits and the power of ten.
struct Column(u64);

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ..1_000_000_000_000 => Grouped(self.0).fmt(f),
            count => f.pad(&format!("{count:.3e}")),
        }
    }
}

/// Failures as `class 12, other 3`.
struct Classes<'a>(&'a [(FailureClass, u64)]);

impl fmt::Display for Classes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (class, count)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{class}{FIXED}{}", Grouped(*count))?;
        }
        Ok(())
    }
}

const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999)];

/// A lag from which on it is worth a line to say what it is made of (99th percentile).
const SHOWN_LAG: Duration = Duration::from_millis(1);

fn row(f: &mut fmt::Formatter<'_>, name: &str, times: &Latencies) -> fmt::Result {
    write!(f, "  {name:<9}")?;
    for (_, quantile) in QUANTILES {
        write!(f, "{:>9}", Time(times.quantile(quantile)))?;
    }
    writeln!(f, "{:>9}{:>9}", Time(times.max()), Time(times.mean()))
}

/// The same for times of which some are lower bounds, marked with `≥`.
fn bounded_row(f: &mut fmt::Formatter<'_>, name: &str, times: &Bounds) -> fmt::Result {
    let cell = |time: Duration, is_lower_bound: bool| {
        let mark = if is_lower_bound { "≥" } else { "" };
        format!("{mark}{}", Time(time))
    };
    write!(f, "  {name:<9}")?;
    for (_, quantile) in QUANTILES {
        let Quantile { at_least, is_lower_bound } = times.quantile(quantile);
        write!(f, "{:>9}", cell(at_least, is_lower_bound))?;
    }
    let is_bound = times.shortest_ns.is_some();
    let (max, mean) = (cell(times.all.max(), is_bound), cell(times.all.mean(), is_bound));
    writeln!(f, "{max:>9}{mean:>9}")
}

/// Lateness of reading is worth a line when its 99th percentile is more than this share of the service
/// time's: less is within what one run differs from another.
const NOTABLE_LATENESS: f64 = 0.1;

/// Texts of errors that a summary shows; the others are in the statistics.
const SHOWN_ERRORS: usize = 8;

/// Beyond so many shards the summary has their extremes alone.
const SHOWN_SHARDS: usize = 8;

/// Columns of a transaction's name in its table. A longer one has a line of its own.
const NAME: usize = 26;

/// The parts of the summary, in the order in which they are shown.
impl RunStatistics {
    fn headline(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let goal = match (self.goal_tps, &self.steady) {
            (0, _) => String::new(),
            (tps, None) => format!(" of {} asked for", Grouped(u64::from(tps))),
            (tps, Some(steady)) => {
                let length = steady.elapsed.as_secs_f64();
                format!(" at {} found, held for {length:.1}{FIXED}s", Grouped(u64::from(tps)))
            }
        };
        let (parts, part) = self.parts();
        let text = format!(
            "{}: {:.1}{FIXED}transactions/s{goal}, {:.2}{FIXED}s{}, {} instances on {parts}{FIXED}{part}{}",
            self.scenario,
            self.actual_tps,
            self.elapsed.as_secs_f64(),
            if self.stopped { " (stopped before its time)" } else { "" },
            self.concurrency,
            if parts == 1 { "" } else { "s" },
        );
        paragraph(f, "", 2, &text)
    }

    fn parts(&self) -> (usize, &'static str) {
        match self.nodes.len() {
            0 => (self.shards.len(), "shard"),
            nodes => (nodes, "node"),
        }
    }

    fn judgement(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(distortion) = &self.distortion {
            paragraph(f, "  DISTORTED: ", 4, &distortion.to_string())?;
        }
        if let Some(verdict) = &self.verdict {
            let mut text = verdict.to_string();
            if let Some(name) = &self.bound_transaction
                && self.transactions.len() > 1
            {
                text = format!("{text}, most of all in `{name}`");
            }
            paragraph(f, "  verdict: ", 4, &text)?;
        }
        if let Some(shortfall) = self.shortfall.as_ref().filter(|shortfall| shortfall.is_notable())
        {
            writeln!(f, "{shortfall}")?;
        }
        if let Some(capacity) = self.search.as_ref().and_then(|search| search.capacity) {
            paragraph(f, "  capacity: ", 4, &capacity.to_string())?;
        }
        Ok(())
    }

    fn failed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.failures.is_empty() {
            let (failed, classes) = (Grouped(self.counts.failed), Classes(&self.failures));
            let rate = self.error_rate * 100.0;
            let text = format!("{failed} (error{FIXED}rate{FIXED}{rate:.3}{FIXED}%): {classes}");
            paragraph(f, "\n  failed: ", 4, &text)?;
        }
        let names = shown_names(self.transactions.iter());
        for error in self.errors.iter().take(SHOWN_ERRORS) {
            let named = self.transactions.iter().zip(&names).find(|(transaction, _)| {
                (&transaction.name, &transaction.module) == (&error.transaction, &error.module)
            });
            let name = named.filter(|_| names.len() > 1).map(|(_, name)| &**name);
            error.shown(f, name)?;
        }
        let hidden = self.errors.iter().skip(SHOWN_ERRORS);
        let others = self.other_errors + hidden.clone().map(|error| error.count).sum::<u64>();
        if others > 0 {
            let text = match hidden.count() {
                0 => "with other texts".to_owned(),
                count => format!("with other texts, {count} of them in `errors`"),
            };
            paragraph(f, &format!("{:>12}  ", Grouped(others)), ERROR_TEXT, &text)?;
        }
        if let Some(message) = &self.panic_message {
            let panics = Grouped(self.panics);
            paragraph(f, "\n  ", 4, &format!("{panics} panics, the first: {message}"))?;
        }
        Ok(())
    }

    fn accounts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        let sum = |whole: (&str, u64), parts: &[(&str, u64)]| {
            let (name, count) = whole;
            let parts =
                parts.iter().map(|(name, count)| format!("{name}{FIXED}{}", Grouped(*count)));
            format!("{name}{FIXED}{} = {}", Grouped(count), parts.collect::<Vec<_>>().join(" + "))
        };
        let due = [("started", counts.started), ("missed", counts.missed)];
        paragraph(f, "\n  ", 4, &sum(("planned", counts.planned), &due))?;
        let ended = [
            ("succeeded", counts.succeeded),
            ("failed", counts.failed),
            ("cancelled", counts.cancelled),
        ];
        paragraph(f, "  ", 4, &sum(("started", counts.started), &ended))?;
        if self.outside.requests > 0 {
            let (requests, failed) = (Grouped(self.outside.requests), Grouped(self.outside.failed));
            let text = format!("outside of transactions: {requests} requests, {failed} failed");
            paragraph(f, "\n  ", 4, &text)?;
        }
        Ok(())
    }

    fn times(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bounds = self.bounds();
        if bounds.all.is_empty() {
            return Ok(());
        }
        write!(f, "\n  {:<9}", "")?;
        for (name, _) in QUANTILES {
            write!(f, "{name:>9}")?;
        }
        writeln!(f, "{:>9}{:>9}", "max", "mean")?;
        if let Some(steady) = &self.steady {
            row(f, "held", &steady.response)?;
        }
        bounded_row(f, "response", &bounds)?;
        if self.counts.completed() == 0 {
            return Ok(());
        }
        row(f, "service", &self.service)?;
        row(f, "lag", &self.lag)?;
        if self.lag.quantile(0.99) >= SHOWN_LAG {
            row(f, "  own", &self.lateness)?;
            let mean = |wait: Duration| Time(wait.div_f64(self.counts.planned.max(1) as f64));
            let text = format!(
                "mean wait of a due transaction: {} for the target, {} for instances",
                mean(self.waits.for_target),
                mean(self.waits.for_instances),
            );
            paragraph(f, "  ", 4, &text)?;
        }
        Ok(())
    }

    /// How late answers were read, where that is much of the times above.
    fn reading(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (late, service) = (self.seen_late.quantile(0.99), self.service.quantile(0.99));
        if late.as_secs_f64() <= service.as_secs_f64() * NOTABLE_LATENESS {
            return Ok(());
        }
        let max = self.seen_late.max();
        let mut text =
            format!("answers read late by at most: p99 {}, max {}", Time(late), Time(max));
        if !self.receive_delay.is_empty() {
            text += &format!(
                "; by the kernel's stamps on {} of them: p99 {}, max {}",
                Grouped(self.receive_delay.len()),
                Time(self.receive_delay.quantile(0.99)),
                Time(self.receive_delay.max()),
            );
        }
        paragraph(f, "\n  ", 4, &text)
    }

    fn network(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.handshakes.is_empty() {
            let text = format!(
                "TLS handshakes {}, resumed {}: p50 {}, p99 {}, max {}",
                Grouped(self.handshakes.len()),
                Grouped(self.resumed_handshakes),
                Time(self.handshakes.quantile(0.5)),
                Time(self.handshakes.quantile(0.99)),
                Time(self.handshakes.max()),
            );
            paragraph(f, "\n  ", 4, &text)?;
        }
        if self.bytes_sent + self.bytes_received + self.connections > 0 {
            let text = format!(
                "sent {}, received {}, {} connections opened",
                Bytes(self.bytes_sent),
                Bytes(self.bytes_received),
                Grouped(self.connections),
            );
            paragraph(f, "\n  ", 4, &text)?;
        }
        Ok(())
    }

    fn table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.transactions.len() < 2 {
            return Ok(());
        }
        writeln!(f, "\n  {:<NAME$}{:>16}{:>14}{:>11}{:>11}", "", "ok", "failed", "p50", "p99")?;
        let names = shown_names(self.transactions.iter());
        for (transaction, name) in self.transactions.iter().zip(&names) {
            let mut name = &**name;
            if name.chars().count() >= NAME {
                paragraph(f, "  ", 4, name)?;
                name = "";
            }
            writeln!(
                f,
                "  {name:<NAME$}{:>16}{:>14}{:>11}{:>11}",
                Column(transaction.succeeded),
                Column(transaction.failed),
                Time(transaction.response.quantile(0.5)),
                Time(transaction.response.quantile(0.99)),
            )?;
            if !transaction.failures.is_empty() {
                paragraph(f, "    failed by: ", 6, &Classes(&transaction.failures).to_string())?;
            }
        }
        Ok(())
    }

    fn generator(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = self.nodes.iter().map(|node| {
            let lost = if node.lost { " (lost)" } else { "" };
            let (name, counts) = (&node.name, Grouped(node.counts.completed()));
            format!("{name} {counts}, {:.0} % busy{lost}", node.busy * 100.0)
        });
        let is_many = self.shards.len() > SHOWN_SHARDS;
        let shards = self.shards.iter().filter_map(|shard| {
            let mut text = format!("core {}", shard.core);
            if !is_many {
                text += &format!(" {:.0} % busy", shard.busy * 100.0);
            }
            if shard.stolen >= 0.01 {
                text += &format!(", {:.0} % taken by the hypervisor", shard.stolen * 100.0);
            }
            let is_told = !is_many || shard.lost || shard.stolen >= 0.01;
            is_told.then(|| text + if shard.lost { " (lost)" } else { "" })
        });
        let busiest = self.shards.iter().max_by(|one, other| one.busy.total_cmp(&other.busy));
        let all = busiest.filter(|_| is_many).map(|busiest| {
            let least = self.shards.iter().map(|shard| shard.busy).fold(1.0, f64::min) * 100.0;
            let (most, count) = (busiest.busy * 100.0, self.shards.len());
            format!("{count} of them, {least:.0} to {most:.0} % busy, core {} most", busiest.core)
        });
        let throttled = (self.throttled > Duration::ZERO).then(|| {
            format!("held back by the control group's quota for {}", Time(self.throttled))
        });
        let items: Vec<_> = nodes.chain(all).chain(shards).chain(throttled).collect();
        // Lines are broken between them.
        let items: Vec<_> =
            items.iter().map(|item| item.replace(' ', &FIXED.to_string())).collect();
        paragraph(f, &format!("\n  {}s: ", self.parts().1), 4, &items.join("; "))
    }
}

/// Column of an error's text, behind how often it was seen.
const ERROR_TEXT: usize = 14;

impl ErrorStatistics {
    /// `name` is that of the transaction, where there are several.
    fn shown(&self, f: &mut fmt::Formatter<'_>, name: Option<&str>) -> fmt::Result {
        let text = match &*self.text {
            "" => "(the error has no text)",
            text => text,
        };
        paragraph(f, &format!("{:>12}  ", Grouped(self.count)), ERROR_TEXT, text)?;
        let mut about = self.class.to_string();
        if let Some(status) = self.status {
            let known = http::StatusCode::from_u16(status).ok();
            let reason = known.and_then(|status| status.canonical_reason()).unwrap_or_default();
            let status = format!("{status} {reason}");
            if !text.contains(status.trim_end()) {
                about += &format!(" {}", status.trim_end());
            }
        }
        if let Some(name) = name {
            about += &format!(", in `{name}`");
        }
        if let Some(address) = self.address {
            about += &format!(", {address}");
        }
        paragraph(f, &format!("{:ERROR_TEXT$}", ""), ERROR_TEXT, &format!("({about})"))
    }
}

impl fmt::Display for Distortion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const REMEDY: &str = "give it cores of its own or ask for less";
        match *self {
            Distortion::Failures { own, all } => write!(
                f,
                "{} of {} failed by the generator itself, or panicked: assert nothing on these figures",
                Grouped(own),
                Grouped(all)
            ),
            Distortion::Missed { missed, planned } => write!(
                f,
                "the generator stood still: {} of {} transactions due were missed by it; {REMEDY}",
                Grouped(missed),
                Grouped(planned)
            ),
            Distortion::Late { late_p99, against, is_limit } => write!(
                f,
                "the generator itself was {} late (p99), where {} {}; {REMEDY}",
                Time(late_p99),
                Time(against),
                if is_limit { "may be taken" } else { "is the response time (p99)" }
            ),
            Distortion::TooSlow => {
                write!(f, "the generator itself was too slow for this rate; {REMEDY}")
            }
        }
    }
}

impl fmt::Display for RunStatistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(error) = &self.error {
            return paragraph(f, "", 2, &format!("{}: not run: {error}", self.scenario));
        }
        // One that was run and came to nothing has parts.
        if self.verdict == Some(Verdict::NothingAsked)
            && self.shards.is_empty()
            && self.nodes.is_empty()
        {
            let text = format!(
                "{}: not run: nothing was asked of it. Call `.tps()` for a rate, `.error_rate()` or \
                 `.latency()` for the highest within a limit, `.concurrency()` or `.saturate()` for \
                 a closed loop",
                self.scenario
            );
            return paragraph(f, "", 2, &text);
        }
        self.headline(f)?;
        // What is wrong comes first.
        self.judgement(f)?;
        self.failed(f)?;
        self.accounts(f)?;
        self.times(f)?;
        self.reading(f)?;
        self.network(f)?;
        self.table(f)?;
        self.generator(f)?;
        for note in &self.notes {
            paragraph(f, "  note: ", 4, note)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use balter_controllers::{Limit, Saturation, SearchEnd};

    use super::super::wrap::WIDTH;
    use super::super::{Capacity, NodeStatistics, SearchStatistics, ShardStatistics, Steady};
    use super::*;
    use crate::TransactionStatistics;

    /// The summary as one line.
    fn unwrapped(statistics: &RunStatistics) -> String {
        statistics.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn verdicts() -> Vec<Verdict> {
        let (achieved_tps, goal_tps, cycle_ns) = (1_234_567.8, u32::MAX, u64::MAX);
        let (failures, completed) = (u64::MAX, u64::MAX);
        vec![
            Verdict::NothingAsked,
            Verdict::NothingStarted { returned: 0, outside: 0, outside_failed: 0 },
            Verdict::NothingStarted { returned: 0, outside: completed, outside_failed: 0 },
            Verdict::NothingStarted {
                returned: completed,
                outside: completed,
                outside_failed: completed,
            },
            Verdict::Failing { failures, completed, failing_ns: u64::MAX, class: None },
            Verdict::Failing {
                failures,
                completed,
                failing_ns: u64::MAX,
                class: Some("x".repeat(100)),
            },
            Verdict::Failures { failures, completed, class: Some("x".repeat(100)) },
            Verdict::Silent { started: completed },
            Verdict::NotFound { end: SearchEnd::Unreachable { tps: 1e9, share: 0.5 } },
            Verdict::NotFound {
                end: SearchEnd::Unstable { period_ns: u64::MAX, length_ns: u64::MAX },
            },
            Verdict::NotFound { end: SearchEnd::OutOfTime { low: 1e9, high: Some(2e9) } },
            Verdict::GoalReached { goal_tps, achieved_tps },
            Verdict::Completed { achieved_tps },
            Verdict::ShardsLost { shards_lost: 64 },
            Verdict::NodesLost { nodes_lost: 64, achieved_tps },
            Verdict::Descriptors { failures },
            Verdict::Ports { failures },
            Verdict::Memory { failures },
            Verdict::Panics { panics: failures },
            Verdict::ConcurrencyLimit { max_instances: u32::MAX, goal_tps, achieved_tps, cycle_ns },
            Verdict::Instances { instances: u32::MAX, goal_tps, achieved_tps, cycle_ns },
            Verdict::Processor { stolen: 0.5, throttled: 0.5, achieved_tps },
            Verdict::Network { failures },
            Verdict::Generator { busy: 1.0, late_p99_ns: u64::MAX, achieved_tps },
            Verdict::Target {
                goal_tps,
                achieved_tps,
                response_p99_ns: u64::MAX,
                saturation: Some(Saturation { concurrency: u32::MAX, throughput: achieved_tps }),
            },
            Verdict::Limit {
                limit: Limit::Latency { bound_ns: u64::MAX, quantile: 0.999 },
                broken: 0.123,
                found_tps: u32::MAX,
                held_tps: achieved_tps,
                goal_tps: Some(goal_tps),
            },
            Verdict::Unsettled { reached_tps: u32::MAX },
            Verdict::Stopped { elapsed_ns: u64::MAX, achieved_tps },
        ]
    }

    /// Times from a nanosecond to an hour.
    fn latencies() -> Latencies {
        let mut latencies = Latencies::default();
        (0..42).for_each(|power| latencies.histogram_mut().saturating_record(1 << power));
        latencies
    }

    /// Every section, with what is longest in it.
    fn everything() -> RunStatistics {
        let name = "a_scenario_whose_name_says_everything_that_there_is_to_say_about_it_and_more";
        let transaction = |name: &str, module: &str| TransactionStatistics {
            name: name.to_owned(),
            module: module.to_owned(),
            succeeded: u64::MAX,
            failed: u64::MAX,
            failures: FailureClass::ALL.map(|class| (class, u64::MAX)).to_vec(),
            cancelled: u64::MAX,
            response: latencies(),
            service: latencies(),
            lag: latencies(),
        };
        let mut statistics = RunStatistics {
            scenario: name.to_owned(),
            concurrency: usize::MAX,
            goal_tps: u32::MAX,
            actual_tps: 12_345_678.9,
            error_rate: 1.0,
            stopped: true,
            elapsed: Duration::from_secs(1_000_000),
            steady: Some(Steady { response: latencies(), ..Steady::default() }),
            response: latencies(),
            service: latencies(),
            lag: latencies(),
            given_up: latencies(),
            timed_out: latencies(),
            lateness: latencies(),
            seen_late: latencies(),
            receive_delay: latencies(),
            handshakes: latencies(),
            resumed_handshakes: u64::MAX,
            transactions: vec![
                transaction("short", "a"),
                transaction(name, "a"),
                transaction(name, "b::c"),
            ],
            failures: FailureClass::ALL.map(|class| (class, u64::MAX)).to_vec(),
            errors: vec![
                ErrorStatistics {
                    text: "an error with a long text in many words ".repeat(5),
                    class: FailureClass::Status,
                    status: Some(404),
                    address: Some(([0xffff; 8], 65_535).into()),
                    transaction: name.to_owned(),
                    module: "b::c".to_owned(),
                    count: u64::MAX / 100,
                };
                20
            ],
            other_errors: 7,
            bytes_sent: u64::MAX / 4,
            bytes_received: u64::MAX / 4,
            connections: u64::MAX / 4,
            shards: (0..64)
                .map(|core| ShardStatistics { core, stolen: 0.3, lost: true, ..Default::default() })
                .collect(),
            panics: u64::MAX,
            panic_message: Some("a message\nof two lines, the second of which is long ".repeat(9)),
            notes: vec!["a note that goes on and on, with 1 234 567 in it; ".repeat(9)],
            throttled: Duration::from_secs(99_999),
            bound_transaction: Some(name.to_owned()),
            distortion: Some(Distortion::Failures { own: u64::MAX, all: u64::MAX }),
            search: Some(SearchStatistics {
                capacity: Some(Capacity {
                    tps: 4e9,
                    interval: Some((3.9e9, 4.1e9)),
                    bound_by: None,
                }),
                ..SearchStatistics::default()
            }),
            ..RunStatistics::default()
        };
        let all = u64::MAX;
        statistics.counts = crate::Counts {
            planned: all,
            started: all,
            missed: all,
            succeeded: all / 2,
            failed: all / 2,
            cancelled: all,
        };
        statistics.outside.requests = all;
        statistics.outside.failed = all;
        statistics.waits.for_target = Duration::from_secs(u64::from(u32::MAX));
        statistics
    }

    #[track_caller]
    fn assert_fits(statistics: &RunStatistics) {
        let shown = statistics.to_string();
        for line in shown.lines() {
            assert!(line.chars().count() <= WIDTH, "{line:?} is too long in:\n{shown}");
            assert!(!line.contains(FIXED) && line.trim_end() == line, "{line:?} in:\n{shown}");
        }
    }

    #[test]
    fn every_line_fits_80_columns_whatever_there_is_to_say() {
        let mut statistics = everything();
        for verdict in verdicts() {
            statistics.verdict = Some(verdict);
            assert_fits(&statistics);
        }
        for distortion in [
            Distortion::Missed { missed: u64::MAX, planned: u64::MAX },
            Distortion::Late {
                late_p99: Duration::from_secs(3_600),
                against: Duration::from_secs(3_600),
                is_limit: true,
            },
            Distortion::TooSlow,
        ] {
            statistics.distortion = Some(distortion);
            assert_fits(&statistics);
        }
        let node = NodeStatistics { name: "node-".repeat(40), lost: true, ..Default::default() };
        statistics.nodes = vec![node; 64];
        statistics.shards.truncate(3);
        assert_fits(&statistics);
        statistics.nodes.clear();
        assert_fits(&statistics);
        assert_fits(&RunStatistics::nothing_asked(&statistics.scenario));
        let reason = "no more threads of any kind can be had, whatever one does ".repeat(3);
        assert_fits(&RunStatistics::not_run("visitor", crate::RunError::Thread { reason }));
    }

    #[test]
    fn what_is_wrong_stands_before_what_is_fine() {
        for verdict in verdicts() {
            let statistics = RunStatistics { verdict: Some(verdict.clone()), ..everything() };
            let shown = unwrapped(&statistics);
            let place =
                |text: &str| shown.find(text).unwrap_or_else(|| panic!("{text} in {shown}"));
            let order = [
                "instances on 64",
                "DISTORTED: ",
                "verdict: ",
                "failed: ",
                "an error with a long text",
                "with other texts, 12 of them",
                "panics, the first",
                "planned 18",
                "p50 p90 p95",
                "TLS handshakes",
                "shards: 64 of them",
                "note: ",
            ];
            let places = order.map(place);
            assert!(places.is_sorted(), "{places:?} of {order:?} in {statistics}");
            let told = verdict.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(shown.contains(&told[..40.min(told.len())]), "{told} in {statistics}");
        }
    }

    #[test]
    fn a_quantile_that_is_a_lower_bound_is_marked() {
        let mut statistics = RunStatistics::default();
        let response = statistics.response.histogram_mut();
        (0..97).for_each(|_| response.saturating_record(1_000_000));
        statistics.counts.succeeded = 97;
        let line = |statistics: &RunStatistics| {
            let shown = statistics.to_string();
            shown.lines().find(|line| line.contains("response")).map(str::to_owned)
        };
        let plain = line(&statistics).expect("it is told");
        assert!(!plain.contains('≥'), "{plain}");
        statistics.given_up.histogram_mut().saturating_record_n(3_000_000, 3);
        statistics.counts.cancelled = 3;
        let marked = line(&statistics).expect("it is told");
        let cells: Vec<_> = marked.split("ms").map(str::trim).collect();
        assert_eq!(cells[..4], ["response   1.00", "1.00", "1.00", "≥3.00"], "{marked}");
        assert_eq!(cells[5..], ["≥3.00", "≥1.06", ""], "{marked}");
        // Nothing has ended: all that is known is how long it was waited for.
        statistics = RunStatistics { given_up: statistics.given_up, ..Default::default() };
        statistics.counts.cancelled = 3;
        assert!(line(&statistics).expect("it is told").contains("≥3.00 ms"), "{statistics}");
    }

    #[test]
    fn an_error_is_told_with_what_is_known_of_it() {
        let mut statistics = everything();
        statistics.errors.truncate(1);
        let error = &mut statistics.errors[0];
        (error.text, error.count) = ("not here".to_owned(), 1_234);
        error.address = Some(([127, 0, 0, 1], 80).into());
        let (name, module) = (&error.transaction, &error.module);
        let about = format!(
            "1 234 not here (status 404 Not Found, in `{module}::{name}`, 127.0.0.1:80) 7 with other texts"
        );
        let shown = unwrapped(&statistics);
        // The long name is broken.
        let bare = |text: &str| text.replace(' ', "");
        assert!(bare(&shown).contains(&bare(&about)), "{statistics}");
        let error = &mut statistics.errors[0];
        error.text = "it has the status 404 Not Found".to_owned();
        assert_eq!(statistics.to_string().matches("404 Not Found").count(), 1, "{statistics}");
    }

    #[test]
    fn amounts_of_data_have_the_unit_that_fits() {
        for (bytes, shown) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.00 kB"),
            (40_120, "40.1 kB"),
            (812_400_000, "812 MB"),
            (3_000_000_000, "3.00 GB"),
            (u64::MAX, "18446744 TB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), shown);
        }
    }

    #[test]
    fn what_distorts_a_run_is_named() {
        let late = |is_limit| Distortion::Late {
            late_p99: Duration::from_millis(3),
            against: Duration::from_millis(20),
            is_limit,
        };
        for (distortion, shown) in [
            (Distortion::Failures { own: 50, all: 1_000 }, "50 of 1 000 failed by the generator"),
            (
                Distortion::Missed { missed: 9, planned: 100 },
                "9 of 100 transactions due were missed",
            ),
            (late(true), "3.00 ms late (p99), where 20.0 ms may be taken"),
            (late(false), "3.00 ms late (p99), where 20.0 ms is the response time (p99)"),
            (Distortion::TooSlow, "too slow for this rate"),
        ] {
            let distortion = Some(distortion);
            let statistics = RunStatistics { distorted: true, distortion, ..Default::default() };
            let display = unwrapped(&statistics);
            assert!(display.contains("DISTORTED: ") && display.contains(shown), "{display}");
        }
    }
}
