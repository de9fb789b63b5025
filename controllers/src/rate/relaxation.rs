//! For how long what is under way resembles itself: the time that a queue takes to forget how long it was.
//!
//! From the variogram of what is under way at the ends of windows, which needs no mean: half of the mean
//! square by which neighbours differ is `V (1 - exp(-w/t))`, with `V` the variance, `w` a window, and `t`
//! the relaxation time.

use std::collections::VecDeque;

/// Windows that are kept.
const MOST: usize = 200;

/// Fewer tell nothing of it.
const ENOUGH: usize = 12;

/// Of a window.
#[derive(Clone, Copy, Debug)]
struct End {
    ln_tps: f64,
    under_way: f64,
    /// The window before was at the same rate.
    follows: bool,
}

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub(super) struct Relaxation {
    windows: VecDeque<End>,
    follows: bool,
    length_ns: f64,
}

impl Relaxation {
    pub(super) fn push(&mut self, tps: f64, under_way: u64, length_ns: u64) {
        let follows = std::mem::replace(&mut self.follows, true);
        let (ln_tps, under_way) = (tps.ln(), under_way as f64);
        self.windows.push_back(End { ln_tps, under_way, follows });
        self.length_ns = length_ns as f64;
        if self.windows.len() > MOST {
            self.windows.pop_front();
        }
    }

    /// The next window does not follow the last one.
    pub(super) fn close(&mut self) {
        self.follows = false;
    }

    pub(super) fn forget(&mut self) {
        self.windows.clear();
    }

    /// In nanoseconds; nothing where neighbours are no more like each other than others.
    pub(super) fn time_ns(&self) -> f64 {
        let count = self.windows.len();
        if count < ENOUGH {
            return 0.0;
        }
        // What is under way depends on the rate, which is no resemblance.
        let mean =
            |of: &dyn Fn(&End) -> f64| self.windows.iter().map(of).sum::<f64>() / count as f64;
        let (rate, under_way) = (mean(&|end| end.ln_tps), mean(&|end| end.under_way));
        let by_rate = mean(&|end| (end.ln_tps - rate) * (end.under_way - under_way));
        let rates = mean(&|end| (end.ln_tps - rate).powi(2));
        let slope = if rates > 1e-9 { by_rate / rates } else { 0.0 };
        let off = |end: &End| end.under_way - under_way - slope * (end.ln_tps - rate);
        let variance = mean(&|end| off(end).powi(2)) * count as f64 / (count - 2) as f64;
        let (mut differ, mut pairs) = (0.0, 0);
        for (before, after) in self.windows.iter().zip(self.windows.iter().skip(1)) {
            if after.follows {
                differ += (after.under_way - before.under_way).powi(2) / 2.0;
                pairs += 1;
            }
        }
        if pairs == 0 || variance <= 0.0 {
            return 0.0;
        }
        let resembles = 1.0 - differ / f64::from(pairs) / variance;
        if resembles <= 0.05 { 0.0 } else { self.length_ns / -resembles.min(0.98).ln() }
    }
}
