//! The summary that a person reads.

use std::fmt;
use std::time::Duration;

use balter_controllers::Verdict;

use super::{Distortion, Latencies, RunStatistics, shown_names};
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

/// Failures as ` class 12 other 3`.
struct Classes<'a>(&'a [(FailureClass, u64)]);

impl fmt::Display for Classes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (class, count) in self.0 {
            write!(f, " {class} {}", Grouped(*count))?;
        }
        Ok(())
    }
}

const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999)];

/// A lag from which on it is worth a line to say what it is made of (99th percentile).
const SHOWN_LAG: Duration = Duration::from_millis(1);

fn row(f: &mut fmt::Formatter<'_>, name: &str, times: &Latencies) -> fmt::Result {
    write!(f, "  {name:<10}")?;
    for (_, quantile) in QUANTILES {
        write!(f, "{:>10}", Time(times.quantile(quantile)))?;
    }
    writeln!(f, "{:>10}{:>10}", Time(times.max()), Time(times.mean()))
}

/// Lateness of reading is worth a line when its 99th percentile is more than this share of the service
/// time's: less is within what one run differs from another.
const NOTABLE_LATENESS: f64 = 0.1;

impl RunStatistics {
    /// How late answers were read, where that is much of the times above.
    fn reading(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (late, service) = (self.seen_late.quantile(0.99), self.service.quantile(0.99));
        if late.as_secs_f64() <= service.as_secs_f64() * NOTABLE_LATENESS {
            return Ok(());
        }
        let max = self.seen_late.max();
        write!(f, "\n  answers read late by at most: p99 {}, max {}", Time(late), Time(max))?;
        if !self.receive_delay.is_empty() {
            write!(
                f,
                "; by the kernel's stamps on {} of them: p99 {}, max {}",
                Grouped(self.receive_delay.len()),
                Time(self.receive_delay.quantile(0.99)),
                Time(self.receive_delay.max()),
            )?;
        }
        writeln!(f)
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
            return writeln!(f, "{}: not run: {error}", self.scenario);
        }
        // One that was run and came to nothing has parts.
        if self.verdict == Some(Verdict::NothingAsked)
            && self.shards.is_empty()
            && self.nodes.is_empty()
        {
            return writeln!(
                f,
                "{}: not run: nothing was asked of it. Call `.tps()` for a rate, `.error_rate()` or \
                 `.latency()` for the highest within a limit, `.concurrency()` or `.saturate()` for \
                 a closed loop",
                self.scenario
            );
        }
        let counts = &self.counts;
        let goal = match (self.goal_tps, &self.steady) {
            (0, _) => String::new(),
            (tps, None) => format!(" of {} asked for", Grouped(u64::from(tps))),
            (tps, Some(steady)) => {
                let length = steady.elapsed.as_secs_f64();
                format!(" at {} found, held for {length:.1} s", Grouped(u64::from(tps)))
            }
        };
        let (parts, part) = match self.nodes.len() {
            0 => (self.shards.len(), "shard"),
            nodes => (nodes, "node"),
        };
        writeln!(
            f,
            "{}: {:.1} transactions/s{goal}, {:.2} s{}, {} instances on {parts} {part}{}",
            self.scenario,
            self.actual_tps,
            self.elapsed.as_secs_f64(),
            if self.stopped { " (stopped before its time)" } else { "" },
            self.concurrency,
            if parts == 1 { "" } else { "s" },
        )?;
        writeln!(
            f,
            "\n  planned {} = started {} + missed {}\n  started {} = succeeded {} + failed {} + cancelled {}",
            Grouped(counts.planned),
            Grouped(counts.started),
            Grouped(counts.missed),
            Grouped(counts.started),
            Grouped(counts.succeeded),
            Grouped(counts.failed),
            Grouped(counts.cancelled),
        )?;
        if self.outside.requests > 0 {
            writeln!(
                f,
                "\n  outside of transactions: {} requests, {} failed",
                Grouped(self.outside.requests),
                Grouped(self.outside.failed),
            )?;
        }
        if counts.completed() > 0 {
            write!(f, "\n  {:<10}", "")?;
            for (name, _) in QUANTILES {
                write!(f, "{name:>10}")?;
            }
            writeln!(f, "{:>10}{:>10}", "max", "mean")?;
            if let Some(steady) = &self.steady {
                row(f, "held", &steady.response)?;
            }
            row(f, "response", &self.response)?;
            row(f, "service", &self.service)?;
            row(f, "lag", &self.lag)?;
            if self.lag.quantile(0.99) >= SHOWN_LAG {
                row(f, "  own", &self.lateness)?;
                let mean = |wait: Duration| Time(wait.div_f64(counts.planned.max(1) as f64));
                writeln!(
                    f,
                    "  mean wait of a due transaction: {} for the target, {} for instances",
                    mean(self.waits.for_target),
                    mean(self.waits.for_instances),
                )?;
            }
        }
        self.reading(f)?;
        if !self.handshakes.is_empty() {
            writeln!(
                f,
                "\n  TLS handshakes {}, resumed {}: p50 {}, p99 {}, max {}",
                Grouped(self.handshakes.len()),
                Grouped(self.resumed_handshakes),
                Time(self.handshakes.quantile(0.5)),
                Time(self.handshakes.quantile(0.99)),
                Time(self.handshakes.max()),
            )?;
        }
        if self.bytes_sent + self.bytes_received + self.connections > 0 {
            writeln!(
                f,
                "\n  sent {}, received {}, {} connections opened",
                Bytes(self.bytes_sent),
                Bytes(self.bytes_received),
                Grouped(self.connections),
            )?;
        }
        if self.transactions.len() > 1 {
            writeln!(f)?;
            let names = shown_names(self.transactions.iter());
            let widths = names.iter().map(|name| name.chars().count() + 1);
            let width = widths.max().unwrap_or(0).max(24);
            for (transaction, name) in self.transactions.iter().zip(&names) {
                writeln!(
                    f,
                    "  {:<width$}{:>14} ok{:>10} failed   p50 {:>9}   p99 {:>9}",
                    name,
                    Grouped(transaction.succeeded),
                    Grouped(transaction.failed),
                    Time(transaction.response.quantile(0.5)),
                    Time(transaction.response.quantile(0.99)),
                )?;
                if !transaction.failures.is_empty() {
                    writeln!(f, "  {:<width$}failed by:{}", "", Classes(&transaction.failures))?;
                }
            }
        }
        if !self.failures.is_empty() {
            let classes = Classes(&self.failures);
            writeln!(f, "\n  failures (error rate {:.3} %):{classes}", self.error_rate * 100.0)?;
        }
        if let Some(message) = &self.panic_message {
            writeln!(f, "\n  {} panics, the first: {message}", Grouped(self.panics))?;
        }
        write!(f, "\n  {part}s:")?;
        for (index, node) in self.nodes.iter().enumerate() {
            let separator = if index == 0 { " " } else { "; " };
            let lost = if node.lost { " (lost)" } else { "" };
            let (name, counts) = (&node.name, Grouped(node.counts.completed()));
            write!(f, "{separator}{name} {counts}, {:.0} % busy{lost}", node.busy * 100.0)?;
        }
        for (index, shard) in self.shards.iter().enumerate() {
            let separator = if index == 0 { " " } else { "; " };
            let lost = if shard.lost { " (lost)" } else { "" };
            write!(f, "{separator}core {} {:.0} % busy{lost}", shard.core, shard.busy * 100.0)?;
            if shard.stolen >= 0.01 {
                write!(f, ", {:.0} % taken by the hypervisor", shard.stolen * 100.0)?;
            }
        }
        if self.throttled > Duration::ZERO {
            write!(f, "; held back by the control group's quota for {}", Time(self.throttled))?;
        }
        writeln!(f)?;
        if let Some(capacity) = self.search.as_ref().and_then(|search| search.capacity) {
            writeln!(f, "  capacity: {capacity}")?;
        }
        if let Some(verdict) = &self.verdict {
            write!(f, "  verdict: {verdict}")?;
            match &self.bound_transaction {
                Some(name) if self.transactions.len() > 1 => {
                    writeln!(f, ", most of all in `{name}`")?;
                }
                _ => writeln!(f)?,
            }
        }
        if let Some(shortfall) = self.shortfall.as_ref().filter(|shortfall| shortfall.is_notable())
        {
            writeln!(f, "{shortfall}")?;
        }
        for note in &self.notes {
            writeln!(f, "  note: {note}")?;
        }
        if let Some(distortion) = &self.distortion {
            writeln!(f, "  DISTORTED: {distortion}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let display = statistics.to_string();
            assert!(display.contains("DISTORTED: ") && display.contains(shown), "{display}");
        }
    }
}
