//! Between which rates the limit lies, as far as single probes tell.

/// Why a rate is too much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cause {
    /// It is not.
    Nothing,
    /// The limit with this index is broken.
    Limit(usize),
    /// What is under way grows.
    Saturation,
    /// The generator does no more.
    Generator { busy: f64 },
    /// There may be no more instances.
    Instances,
}

/// One end of the bracket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    pub(super) tps: f64,
    /// By how much of its share the nearest limit was used.
    pub(super) used: f64,
    pub(super) cause: Cause,
    /// The rate at which the limit should just be met, by what an overloaded target still did here.
    pub(super) told: Option<f64>,
}

/// A bracket this narrow is not divided any more.
const NARROW: f64 = 1.08;

/// How far below and above what was told the limit is sought.
const CLOSE: f64 = 0.02;

/// `low` is always below `high`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bracket {
    pub(super) low: Option<Edge>,
    pub(super) high: Option<Edge>,
    /// Probes that found rates to be too much, no higher than the present upper edge by much.
    over: u32,
}

impl Bracket {
    /// A rate is borne. An upper edge at or below it was an accident.
    pub(super) fn bears(&mut self, edge: Edge) {
        self.low = Some(edge);
        self.high = self.high.filter(|high| high.tps > edge.tps);
        if self.high.is_none() {
            self.over = 0;
        }
    }

    /// A rate is too much. A lower edge at or above it was an accident.
    pub(super) fn breaks(&mut self, edge: Edge) {
        let again = self.high.is_some_and(|high| edge.tps >= high.tps / 1.2);
        self.over = if again { self.over + 1 } else { 1 };
        self.high = Some(edge);
        self.low = self.low.filter(|low| low.tps < edge.tps);
    }

    /// Two probes, each after the target had been relieved, found its upper edge to be too much.
    pub(super) fn is_confirmed(&self) -> bool {
        self.over >= 2
    }

    pub(super) fn is_narrow(&self) -> bool {
        let Bracket { low: Some(low), high: Some(high), .. } = self else { return false };
        // Rates are whole numbers.
        high.tps / low.tps <= NARROW || high.tps - low.tps <= 1.0
    }

    /// Where the limit should be used in full, if its use grew by the same factor for each factor
    /// of the rate; kept away from the edges, so that the bracket always shrinks. What an overloaded target
    /// still did tells more: the limit is sought a little below that, and then a little above.
    pub(super) fn guess(&self, low: Edge, high: Edge) -> f64 {
        let width = (high.tps / low.tps).ln();
        let (low_use, high_use) =
            (low.used.clamp(0.02, 0.99).ln(), high.used.clamp(1.01, 50.0).ln());
        let at = (-low_use / (high_use - low_use)).clamp(0.25, 0.75);
        let guess = low.tps * (width * at).exp();
        let Some(told) = high.told else { return guess };
        let below = told * (1.0 - CLOSE);
        if low.tps < below * (1.0 - CLOSE) {
            return below.min(guess);
        }
        let above = told.max(low.tps) * (1.0 + CLOSE);
        if above < high.tps * (1.0 - CLOSE / 2.0) { above } else { (low.tps * high.tps).sqrt() }
    }
}
