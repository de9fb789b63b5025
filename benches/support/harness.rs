//! What all benches share: how they are asked to run, repetitions, tables, claims.
#![allow(dead_code, reason = "each bench uses a part of it")]

use std::collections::VecDeque;
use std::time::Duration;

/// How this bench was asked to run.
pub(crate) struct Plan {
    /// Once, briefly, to see that it works: figures mean nothing then.
    pub(crate) quick: bool,
    /// How often each contender is measured.
    pub(crate) repetitions: usize,
    /// Names of the parts to run; all if there is none.
    parts: Vec<String>,
}

impl Plan {
    /// `cargo bench` passes `--bench`, `cargo test` does not: without it, or with `--test`, or with
    /// `BALTER_BENCH=quick`, the run is quick. `BALTER_BENCH=full` overrides, for running the
    /// binary itself, and `BALTER_BENCH_REPETITIONS=N` says how often. Words that are no options
    /// name parts of the bench, as in `cargo bench --bench http -- memory`.
    pub(crate) fn from_environment() -> Self {
        let arguments: Vec<_> = std::env::args().skip(1).collect();
        let has = |option: &str| arguments.iter().any(|argument| argument == option);
        let quick = match std::env::var("BALTER_BENCH").as_deref() {
            Ok("quick") => true,
            Ok("full") => false,
            _ => has("--test") || !has("--bench"),
        };
        let repetitions = std::env::var("BALTER_BENCH_REPETITIONS")
            .ok()
            .and_then(|text| text.parse().ok())
            .filter(|&repetitions| repetitions > 0)
            .unwrap_or(5);
        Self {
            quick,
            repetitions: if quick { 1 } else { repetitions },
            parts: arguments.into_iter().filter(|argument| !argument.starts_with('-')).collect(),
        }
    }

    pub(crate) fn wants(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|wanted| part.contains(wanted.as_str()))
    }

    /// The length of a measurement: as given, or a moment.
    pub(crate) fn length(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(if self.quick { 0.25 } else { seconds })
    }

    pub(crate) fn announce(&self, bench: &str) {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load: String = load.split(' ').take(3).collect::<Vec<_>>().join(" ");
        match self.quick {
            true => println!("{bench}: a quick look that it works; the figures mean nothing"),
            false => println!("{bench}: median of {} (min–max)", self.repetitions),
        }
        println!("load of the machine before: {load}");
    }
}

/// Measures every contender once, then all of them again, and so on, so that noise which comes and
/// goes meets all of them alike. Answers the measurements by contender.
pub(crate) fn interleave<C, T>(
    repetitions: usize,
    contenders: &[C],
    mut measure: impl FnMut(&C) -> T,
) -> Vec<Vec<T>> {
    let mut measured: Vec<Vec<T>> = contenders.iter().map(|_| Vec::new()).collect();
    for _ in 0..repetitions {
        for (contender, measured) in contenders.iter().zip(&mut measured) {
            measured.push(measure(contender));
        }
    }
    measured
}

/// Measurements of one quantity, sorted.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    sorted: Vec<f64>,
}

impl Series {
    /// # Panics
    /// If there is none.
    pub(crate) fn new(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<_> = values.into_iter().collect();
        assert!(!sorted.is_empty(), "a series has at least one measurement");
        sorted.sort_by(f64::total_cmp);
        Self { sorted }
    }

    pub(crate) fn median(&self) -> f64 {
        let middle = self.sorted.len() / 2;
        match self.sorted.len() % 2 {
            0 => f64::midpoint(self.sorted[middle - 1], self.sorted[middle]),
            _ => self.sorted[middle],
        }
    }

    /// `min–max`.
    pub(crate) fn range(&self, decimals: usize) -> String {
        let (min, max) = (self.sorted[0], self.sorted[self.sorted.len() - 1]);
        format!("{min:.decimals$}–{max:.decimals$}")
    }
}

/// The ratio of two contenders by repetition: what ran side by side is compared, since noise that
/// lasts longer than a repetition meets both.
pub(crate) fn ratios(ours: &[f64], theirs: &[f64]) -> Series {
    Series::new(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs))
}

/// What is claimed of a figure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Claim {
    AtLeast(f64),
    AtMost(f64),
    Within(f64, f64),
}

impl Claim {
    pub(crate) fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
            Self::Within(low, high) => (low..=high).contains(&value),
        }
    }

    /// For instance `≥ 1.5 × wrk: yes 1.72`. `unit` stands behind the bound.
    pub(crate) fn judge(self, unit: &str, value: f64) -> String {
        let answer = if self.holds(value) { "yes" } else { "NO" };
        let value = rounded(value);
        match self {
            Self::AtLeast(bound) => format!("≥ {bound} {unit}: {answer} {value}"),
            Self::AtMost(bound) => format!("≤ {bound} {unit}: {answer} {value}"),
            Self::Within(low, high) => format!("{low}–{high} {unit}: {answer} {value}"),
        }
    }
}

/// Three digits that matter, more where the number itself has more.
fn rounded(value: f64) -> String {
    match value.abs() {
        large if large >= 1_000.0 => format!("{value:.1}"),
        medium if medium >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A table that is as wide as it must be.
pub(crate) struct Table {
    title: String,
    rows: VecDeque<Vec<String>>,
}

impl Table {
    pub(crate) fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        let head = columns.iter().map(|&column| column.to_owned()).collect();
        Self { title: title.into(), rows: VecDeque::from([head]) }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push_back(cells.into_iter().collect());
    }

    /// The first column and the last are words and stand left, the others right.
    pub(crate) fn print(&self) {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        println!("\n{}", self.title);
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                match column {
                    0 => line += &format!("  {cell:<width$}"),
                    last if last + 1 == columns => line += &format!("  {cell}"),
                    _ => line += &format!("  {cell:>width$}"),
                }
            }
            println!("{}", line.trim_end());
        }
    }
}
