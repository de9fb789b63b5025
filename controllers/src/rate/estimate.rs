//! The rate at which a share of the transactions breaks a limit, from all blocks of windows near it.
//!
//! A binomial regression on the logarithm of the rate, `logit p = logit q + k (ln r - ln t)`: the rate
//! `t` is where the share `q` is broken, `k` is how steeply. It holds near the limit for targets of
//! any kind, so blocks count the less the farther they are from it. `k` is known badly; the estimate is the
//! mean over those that explain what was seen, each with its weight. Neighbouring blocks of a queue
//! resemble each other, so the variance is the one that their residuals show over several blocks (Newey and
//! West, "A Simple, Positive Semi-definite, Heteroskedasticity and Autocorrelation Consistent
//! Covariance Matrix", 1987).

use std::collections::VecDeque;

use crate::Broken;

/// Blocks that are kept.
const MOST_BLOCKS: usize = 200;

/// Fewer tell too little of how they scatter.
const ENOUGH_BLOCKS: usize = 4;

/// What is assumed of the scatter before it has been seen, as so many blocks that scatter by
/// so much more than independent transactions would.
const ASSUMED: (f64, f64) = (2.0, 8.0);

/// How sharp the corner is at which refusals begin.
const ROUNDED: f64 = 3.0;

/// Of so few transactions half of what is more or less of them than was asked for counts.
const FEW: f64 = 300.0;

/// See [`depends`]: standard deviations.
const DEPENDS: f64 = 1.7;

/// See [`is_beside`].
const BESIDE: f64 = 0.15;

/// Groups of neighbouring blocks.
const GROUPS: usize = 8;

/// The regression is not the target: where it is met is off by so much of the distance that the rates lie
/// from it.
const MODEL: f64 = 0.15;

/// Standard deviation of what is known of ln k beforehand.
const STEEPNESS_KNOWN: f64 = 0.7;

/// What is known of the limit before it is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prior {
    /// Logarithm of the rate, and its standard deviation.
    pub(super) ln_tps: f64,
    pub(super) deviation: f64,
    pub(super) steepness: f64,
}

/// The highest rate within limits, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RateEstimate {
    /// Transactions a second.
    pub tps: f64,
    /// It lies between these with a confidence of 95 %.
    pub low: f64,
    /// See [`low`](Self::low).
    pub high: f64,
}

impl RateEstimate {
    /// Half of the interval's width, as a share of the rate.
    pub(super) fn uncertainty(&self) -> f64 {
        (self.high / self.low).ln() / 2.0
    }
}

/// Which limit's rate is sought.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sought {
    /// Its index, and the share that may break it.
    pub(super) limit: usize,
    pub(super) share: f64,
    /// What is beyond a capacity fails, and does not wait.
    pub(super) refuses: bool,
    /// One in so many transactions tells something new, at the least.
    pub(super) resembles: f64,
}

/// Windows at one rate.
#[derive(Clone, Debug)]
struct Block {
    ln_tps: f64,
    broken: Vec<Broken>,
    begin_ns: u64,
    length_ns: u64,
}

/// What was seen so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    blocks: VecDeque<Block>,
    /// The next window begins a block of its own.
    closed: bool,
}

/// What the regression says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fit {
    pub(super) estimate: RateEstimate,
    /// `k` of the module's documentation.
    pub(super) steepness: f64,
    /// Transactions that broke the limit near it, and of how many.
    pub(super) seen: Broken,
    /// It lies at the edge of what was tried, or beyond.
    pub(super) is_at_edge: bool,
    /// It lies beyond all that was tried.
    pub(super) is_beyond: bool,
    /// Higher rates break the limit more than lower ones, by more than an accident.
    pub(super) depends: bool,
}

pub(super) fn logit(share: f64) -> f64 {
    (share / (1.0 - share)).ln()
}

/// Those that the estimate is sought among.
const STEEPNESSES: [f64; 18] = [
    1.0, 1.5, 2.2, 3.3, 5.0, 7.5, 11.0, 16.0, 24.0, 36.0, 54.0, 80.0, 120.0, 180.0, 270.0, 400.0,
    600.0, 900.0,
];

impl Evidence {
    /// The rate changes, or something else that no block should span.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// In the last block a queue grew that would have broken the limit in time.
    pub(super) fn overrule(&mut self, limit: usize) {
        if let Some(last) = self.blocks.back_mut() {
            last.broken[limit].over = last.broken[limit].of;
        }
    }

    /// What was seen so far no longer holds.
    pub(super) fn forget(&mut self) {
        self.blocks.clear();
    }

    /// Forgets what is older.
    pub(super) fn forget_before(&mut self, at_ns: u64) {
        while self.blocks.front().is_some_and(|block| block.begin_ns + block.length_ns < at_ns) {
            self.blocks.pop_front();
        }
    }

    pub(super) fn push(
        &mut self,
        now_ns: u64,
        length_ns: u64,
        tps: f64,
        broken: &[Broken],
        block_ns: u64,
    ) {
        let full = self.blocks.back().is_none_or(|last| last.length_ns >= block_ns);
        if std::mem::take(&mut self.closed) || full {
            let broken = vec![Broken::default(); broken.len()];
            let (ln_tps, begin_ns) = (tps.ln(), now_ns - length_ns);
            self.blocks.push_back(Block { ln_tps, broken, begin_ns, length_ns: 0 });
            if self.blocks.len() > MOST_BLOCKS {
                self.blocks.pop_front();
            }
        }
        if let Some(last) = self.blocks.back_mut() {
            last.length_ns += length_ns;
            for (sum, broken) in last.broken.iter_mut().zip(broken) {
                sum.add(*broken);
            }
        }
    }

    /// Fits what was seen of a limit within `reach` (a difference of logarithms) of a rate.
    pub(super) fn fit(&self, sought: Sought, near: f64, reach: f64, prior: Prior) -> Option<Fit> {
        let Sought { limit, share, refuses, resembles } = sought;
        let near_to = |block: &&Block| (block.ln_tps - near).abs() < reach;
        let blocks: Vec<&Block> = self.blocks.iter().filter(near_to).collect();
        let mut points: Vec<Point> = Vec::with_capacity(blocks.len());
        for round in blocks.chunk_by(|one, next| one.ln_tps == next.ln_tps) {
            // What is refused depends on what came, by chance a little more or less than was asked for.
            let came: f64 = round.iter().map(|block| block.broken[limit].of as f64).sum();
            let length_s: f64 = round.iter().map(|block| block.length_ns as f64 / 1e9).sum();
            let ln_tps = round[0].ln_tps;
            let chance = match refuses && came > 0.0 {
                true => ((came / length_s).ln() - ln_tps) * came / (came + FEW),
                false => 0.0,
            };
            let off = (ln_tps - near).abs() / reach;
            let weight = (1.0 - off.powi(3)).powi(3);
            let judged = round.iter().map(|block| block.broken[limit]).filter(|seen| seen.of > 0);
            points.extend(judged.map(|Broken { over, of }| Point {
                at: ln_tps - near + chance,
                over: over as f64,
                of: of as f64,
                weight,
            }));
        }
        if points.len() < ENOUGH_BLOCKS {
            return None;
        }
        let curve = Curve { share, refuses };
        let Prior { ln_tps, deviation, steepness } = prior;
        let known = (ln_tps - near, 1.0 / (deviation * deviation));
        let mut candidates: Vec<Candidate> = STEEPNESSES
            .iter()
            .map(|&k| Candidate::solve(&points, curve, k, (k / steepness).ln(), known))
            .collect();
        let best = *candidates.iter().max_by(|a, b| a.likelihood.total_cmp(&b.likelihood))?;
        let (scatter, free) = best.scatter(&points, curve);
        let scatter = scatter.max(resembles);
        let effective: f64 = points.iter().map(|point| point.weight).sum();
        // Student's quantiles to first order.
        let wider = 1.0 + 4.84 / (4.0 * (free - 1.0).max(1.0));
        let spread = points.iter().map(|point| point.weight * point.at.abs()).sum::<f64>();
        let model = MODEL * spread / effective;
        for candidate in &mut candidates {
            candidate.error = (candidate.error * scatter.sqrt() * wider).hypot(model);
            let known = candidate.off / STEEPNESS_KNOWN;
            let likelihood = (candidate.likelihood - best.likelihood) / scatter;
            candidate.likelihood = (likelihood - known * known / 2.0).exp() * candidate.error;
        }
        let total: f64 = candidates.iter().map(|one| one.likelihood).sum();
        let quantile = |level: f64| {
            let (mut low, mut high) = (-3.0 * reach, 3.0 * reach);
            for _ in 0..40 {
                let middle = (low + high) / 2.0;
                let below: f64 = candidates
                    .iter()
                    .map(|one| one.likelihood * normal_below((middle - one.at) / one.error))
                    .sum();
                if below < level * total { low = middle } else { high = middle }
            }
            (low + high) / 2.0
        };
        let (low, middle, high) = (quantile(0.025), quantile(0.5), quantile(0.975));
        let heaviest = candidates.iter().max_by(|a, b| a.likelihood.total_cmp(&b.likelihood))?;
        let lowest = points.iter().map(|point| point.at).fold(f64::INFINITY, f64::min);
        let highest = points.iter().map(|point| point.at).fold(f64::NEG_INFINITY, f64::max);
        let mut seen = Broken::default();
        for point in &points {
            seen.add(Broken { over: point.over as u64, of: point.of as u64 });
        }
        Some(Fit {
            estimate: RateEstimate {
                tps: (near + middle).exp(),
                low: (near + low).exp(),
                high: (near + high).exp(),
            },
            steepness: heaviest.k,
            seen,
            is_at_edge: is_beside(&points, middle),
            is_beyond: middle > highest + 0.01 || middle < lowest - 0.01,
            depends: depends(&points, scatter),
        })
    }
}

/// Whether nearly all of what was seen lies to one side of a rate.
fn is_beside(points: &[Point], at: f64) -> bool {
    let weight = |is: &dyn Fn(f64) -> bool| -> f64 {
        points.iter().filter(|point| is(point.at)).map(|point| point.weight * point.of).sum()
    };
    let (all, above) = (weight(&|_| true), weight(&|off| off >= at - 0.002));
    let below = weight(&|off| off <= at + 0.002);
    above < BESIDE * all || below < BESIDE * all
}

/// Whether the half of the points at the higher rates breaks the limit more than the other, by more than an accident.
fn depends(points: &[Point], scatter: f64) -> bool {
    let mut sorted: Vec<&Point> = points.iter().collect();
    sorted.sort_by(|one, other| one.at.total_cmp(&other.at));
    let sum = |points: &[&Point]| -> (f64, f64) {
        points.iter().fold((0.0, 0.0), |(over, of), point| (over + point.over, of + point.of))
    };
    let (lower, upper) = sorted.split_at(sorted.len() / 2);
    let ((low, low_of), (high, high_of)) = (sum(lower), sum(upper));
    let mean = (low + high) / (low_of + high_of);
    let variance = mean * (1.0 - mean) * (1.0 / low_of + 1.0 / high_of) * scatter;
    high / high_of - low / low_of > DEPENDS * variance.sqrt()
}

#[derive(Clone, Copy, Debug)]
struct Point {
    at: f64,
    over: f64,
    of: f64,
    weight: f64,
}

/// The fit for one steepness.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    k: f64,
    /// How far `k` is from what it was taken to be, as a logarithm.
    off: f64,
    at: f64,
    error: f64,
    likelihood: f64,
}

impl Candidate {
    fn solve(points: &[Point], of: Curve, k: f64, off: f64, known: (f64, f64)) -> Self {
        let (known, prior) = known;
        let mut at = known;
        let mut information = prior;
        for _ in 0..30 {
            let (mut slope, mut curve) = ((known - at) * prior, prior);
            for point in points {
                let (p, steep) = of.at(k, point.at - at);
                let odd = p * (1.0 - p);
                slope -= steep / odd * point.weight * (point.over - point.of * p);
                curve += steep * steep / odd * point.weight * point.of;
            }
            information = curve;
            let step = (slope / curve).clamp(-0.1, 0.1);
            at += step;
            if step.abs() < 1e-6 {
                break;
            }
        }
        let mut likelihood = -(at - known) * (at - known) * prior / 2.0;
        for point in points {
            let (p, _) = of.at(k, point.at - at);
            let (over, under) = (point.over, point.of - point.over);
            likelihood += point.weight * (over * p.ln() + under * (1.0 - p).ln());
        }
        Self { k, off, at, error: 1.0 / information.sqrt(), likelihood }
    }

    /// By how much more than independent transactions would the blocks scatter, put together to so few
    /// groups that these no longer resemble each other.
    fn scatter(&self, points: &[Point], of: Curve) -> (f64, f64) {
        let size = points.len().div_ceil(GROUPS);
        let (mut squares, mut variance) = (0.0, 0.0);
        for group in points.chunks(size) {
            let mut residual = 0.0;
            for point in group {
                let (p, _) = of.at(self.k, point.at - self.at);
                residual += point.weight * (point.over - point.of * p);
                // None seen is not none possible.
                variance += point.weight * point.weight * (point.of * p * (1.0 - p)).max(0.5);
            }
            squares += residual * residual;
        }
        let groups = points.len().div_ceil(size) as f64;
        let free = (groups - 1.0).max(1.0);
        let seen = squares / variance * groups / free;
        let (known, assumed) = ASSUMED;
        (((seen * free + assumed * known) / (free + known)).max(1.0), free + known)
    }
}

/// How the share that breaks a limit grows with the rate.
#[derive(Clone, Copy, Debug)]
struct Curve {
    /// At the limit.
    share: f64,
    /// What is beyond a capacity fails, so that the share grows in proportion to the distance from it; otherwise its
    /// logit does.
    refuses: bool,
}

impl Curve {
    /// The share so far from the limit, and its slope.
    fn at(self, k: f64, off: f64) -> (f64, f64) {
        let share = self.share;
        let (p, steep) = if self.refuses {
            // Rounded where it comes to zero, since arrivals and credit vary.
            let z = (ROUNDED * (1.0 + k * off)).min(700.0);
            let one = ROUNDED.exp().ln_1p();
            let slope = 1.0 / (1.0 + (-z).exp());
            (share * z.exp().ln_1p() / one, share * k * ROUNDED / one * slope)
        } else {
            let p = 1.0 / (1.0 + (-(logit(share) + k * off)).exp());
            (p, k * p * (1.0 - p))
        };
        (p.clamp(1e-9, 1.0 - 1e-9), steep.max(1e-12))
    }
}

/// Distribution function of the normal distribution (Abramowitz and Stegun, 26.2.17; to 1e-7).
fn normal_below(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let poly = t
        * (0.319_381_530
            + t * (-0.356_563_782
                + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let above = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * poly;
    if z >= 0.0 { 1.0 - above } else { above }
}
