//! Sweeps as a person reads them: no line is longer than 80 columns.

use std::fmt;
use std::time::Duration;

use balter_controllers::{Interval, Measure, UslFit, Worse};

use super::{ConcurrencyPoint, ConcurrencySweep, Hysteresis, Sweep, SweepPoint};
use crate::FailureClass;
use crate::statistics::display::{Grouped, Time};
use crate::statistics::{Counts, RunStatistics};

const COLUMNS: usize = 80;

/// A sentence that goes on in the next line, indented, where it is too long.
fn sentence(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let mut column = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > COLUMNS {
            write!(f, "\n  {word}")?;
            column = 2 + length;
        } else {
            let space = if column > 0 { " " } else { "" };
            write!(f, "{space}{word}")?;
            column += space.len() + length;
        }
    }
    writeln!(f)
}

/// What failed in all runs together, if anything did.
fn failures<'a>(
    f: &mut fmt::Formatter<'_>,
    runs: impl Iterator<Item = &'a RunStatistics>,
) -> fmt::Result {
    let mut counts = Counts::default();
    let mut classes: Vec<(FailureClass, u64)> = Vec::new();
    for run in runs {
        counts.add(&run.counts);
        for &(class, count) in &run.failures {
            match classes.iter_mut().find(|(known, _)| *known == class) {
                Some((_, sum)) => *sum += count,
                None => classes.push((class, count)),
            }
        }
    }
    if counts.failed == 0 {
        return Ok(());
    }
    classes.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    let classes = classes.iter().map(|(class, count)| format!(" {class} {}", Grouped(*count)));
    let (failed, all) = (Grouped(counts.failed), Grouped(counts.completed()));
    let text = format!("FAILED: {failed} of {all} transactions:{}", classes.collect::<String>());
    sentence(f, &text)?;
    writeln!(f)
}

fn time(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| Time(time).to_string())
}

fn per_cent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

fn grouped(number: f64) -> Grouped {
    // Saturating, as a conversion to an integer is.
    Grouped(number.round() as u64)
}

impl SweepPoint {
    fn mark(&self) -> &'static str {
        let statistics = &self.statistics;
        match () {
            () if statistics.stopped => " stopped",
            () if statistics.distorted => " distorted",
            () if self.is_behind() => " behind",
            () => "",
        }
    }
}

impl fmt::Display for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        failures(f, self.points.iter().map(|point| &point.statistics))?;
        writeln!(f, "    asked/s  goodput/s  failed       p50      p95      p99  at once")?;
        for point in &self.points {
            writeln!(
                f,
                "{} {:>9} {:>10.1} {:>7} {:>9}{:>9}{:>9} {:>8.1}{}",
                if point.down { '↓' } else { '↑' },
                point.tps,
                point.goodput(),
                per_cent(point.failed()),
                time(point.quantile(0.5)),
                time(point.quantile(0.95)),
                time(point.quantile(0.99)),
                point.under_way(),
                point.mark(),
            )?;
        }
        let highest = self.up().map(|point| point.tps).max();
        if let Some(highest) = highest {
            let highest = Grouped(u64::from(highest));
            match self.knee() {
                Some(knee) => writeln!(f, "knee: {} transactions/s", Grouped(u64::from(knee.tps)))?,
                None => writeln!(f, "no knee up to {highest} transactions/s")?,
            }
            match (self.falls_behind(), self.highest_goodput()) {
                (Some(point), Some(goodput)) => {
                    let (tps, goodput) = (Grouped(u64::from(point.tps)), grouped(goodput));
                    writeln!(f, "falls behind from {tps}/s on; highest goodput {goodput}/s")?;
                }
                _ => writeln!(f, "kept up with every rate up to {highest}/s")?,
            }
        }
        for Hysteresis { tps, worse } in self.hysteresis() {
            let worse: Vec<_> = worse.iter().map(shown).collect();
            let tps = Grouped(u64::from(tps));
            let text = format!("worse on the way down at {tps}/s: {}", worse.join(", "));
            sentence(f, &text)?;
        }
        let not_compared = self.not_compared();
        if !not_compared.is_empty() {
            let rates: Vec<_> =
                not_compared.iter().map(|&tps| format!("{}/s", Grouped(u64::from(tps)))).collect();
            let text = format!(
                "up and down not compared at {}: runs too short, stopped or distorted",
                rates.join(", ")
            );
            sentence(f, &text)?;
        }
        if self.points.iter().any(|point| point.statistics.distorted) {
            let text = "distorted: the generator itself was late or failed; these runs say \
                        nothing of the target";
            sentence(f, text)?;
        }
        if self.stopped {
            writeln!(f, "stopped before its end: the last rate was not asked for to its end")?;
        }
        Ok(())
    }
}

/// As `p95 4.30 ms, then 6.40 ms`.
fn shown(worse: &Worse) -> String {
    let seconds = |seconds: f64| time(Duration::try_from_secs_f64(seconds).ok());
    let both = |show: &dyn Fn(f64) -> String| {
        format!("{}, then {}", show(worse.before), show(worse.after))
    };
    match worse.measure {
        Measure::Goodput => format!("succeeded of what was due {}", both(&per_cent)),
        Measure::Failed => format!("failed {}", both(&per_cent)),
        Measure::Median => format!("p50 {}", both(&seconds)),
        Measure::P95 => format!("p95 {}", both(&seconds)),
        _ => both(&|value| value.to_string()),
    }
}

impl ConcurrencyPoint {
    fn mark(&self) -> &'static str {
        let statistics = &self.statistics;
        match () {
            () if statistics.stopped => " stopped",
            () if statistics.distorted => " distorted",
            () if self.is_generator_busy() => " generator busy",
            () => "",
        }
    }
}

impl fmt::Display for ConcurrencySweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        failures(f, self.points.iter().map(|point| &point.statistics))?;
        let fit = self.scalability();
        writeln!(f, "  instances   goodput/s   failed   time each    law says")?;
        for point in &self.points {
            let law = fit.map(|fit| fit.law.throughput(point.instances as f64));
            writeln!(
                f,
                "{:>11} {:>11.1} {:>8} {:>11} {:>11}{}",
                point.instances,
                point.goodput(),
                per_cent(point.failed()),
                time(point.time_each()),
                law.map_or_else(|| "-".to_owned(), |tps| format!("{tps:.1}")),
                point.mark(),
            )?;
        }
        match fit {
            Some(fit) => self.law(f, &fit)?,
            None => sentence(
                f,
                "no scalability law: it takes four different numbers of instances at least, at \
                 which the generator was fit, and figures that lie near such a law",
            )?,
        }
        if self.points.iter().any(|point| !point.is_fit()) {
            sentence(f, "runs marked at the end of their line are no part of the law")?;
        }
        if self.stopped {
            writeln!(f, "stopped before its end: the last run did not come to its end")?;
        }
        Ok(())
    }
}

impl ConcurrencySweep {
    fn law(&self, f: &mut fmt::Formatter<'_>, fit: &UslFit) -> fmt::Result {
        let UslFit { law, lambda, sigma, kappa, .. } = fit;
        writeln!(f, "scalability law (with intervals of 95 %):")?;
        writeln!(f, "  one instance {} transactions/s", known(law.lambda, lambda))?;
        writeln!(f, "  contention {}", known(law.sigma, sigma))?;
        writeln!(f, "  coherency {}", known(law.kappa, kappa))?;
        let Some(peak) = law.peak().filter(|_| kappa.low > 0.0) else { return Ok(()) };
        let most = self.points.iter().filter(|point| point.is_fit()).map(|point| point.instances);
        let beyond = match most.max() {
            Some(most) if peak > most as f64 => ", which is beyond what was tried",
            _ => "",
        };
        writeln!(f, "  peak at {} instances{beyond}", grouped(peak))
    }
}

/// A value with its interval, in as many digits as that leaves.
fn known(value: f64, interval: &Interval) -> String {
    let &Interval { low, high } = interval;
    // Two digits of its width.
    let decimals = (1.0 - (high - low).max(f64::MIN_POSITIVE).log10().floor()).clamp(0.0, 9.0);
    let decimals = decimals as usize;
    if low <= 0.0 {
        return format!("not distinguishable from zero (at most {high:.decimals$})");
    }
    format!("{value:.decimals$} ({low:.decimals$} to {high:.decimals$})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_that_are_known() {
        for (value, low, high, shown) in [
            (1_234.567, 1_200.0, 1_270.0, "1235 (1200 to 1270)"),
            (0.051_234, 0.041, 0.061, "0.051 (0.041 to 0.061)"),
            (0.000_123_4, 0.000_12, 0.000_127, "0.0001234 (0.0001200 to 0.0001270)"),
            (0.02, 0.0, 0.05, "not distinguishable from zero (at most 0.050)"),
        ] {
            assert_eq!(known(value, &Interval { low, high }), shown);
        }
    }
}
