//! How throughput grows with the number of concurrent users: Gunther's Universal Scalability Law.

use crate::{Interval, student};

/// `X(n) = lambda·n / (1 + sigma·(n − 1) + kappa·n·(n − 1))`, fitted to measurements.
///
/// Neil Gunther, "Guerrilla Capacity Planning", 2007.
///
/// `n` is a number that was *set*: so many users, each with its next transaction as soon as the last has
/// ended. The law is the throughput of a closed system with that many customers, the synchronous
/// throughput of a machine-repairman model (Gunther, "A General Theory of Computational Scalability
/// Based on Rational Functions", arXiv:0808.1431, 2008).
/// The mean number under way in an open loop is something else. In an M/M/1 queue of capacity `μ` it is
/// `n = X / (μ − X)`, so `X = μ·n / (1 + n)`: just the law with `lambda = μ / 2` and `sigma = 1/2`, for a
/// server of which one user alone gets `μ` and that does nothing in parallel (`sigma = 1`). By the
/// arrival theorem (Reiser and Lavenberg, 1980) a customer of a closed system of `n` sees what `n − 1`
/// leave, the arrivals of an open one see the whole mean, and random gaps between them; no mapping
/// of a mean to a number set undoes that without knowing the target. So points of an open
/// loop are not to be fitted.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Usl {
    /// Transactions a second with one user.
    pub lambda: f64,
    /// Contention: the share of the work that is done one at a time, `0.0..`.
    pub sigma: f64,
    /// Coherency: what each pays for every other, `0.0..`. Above zero throughput has a peak.
    pub kappa: f64,
}

/// A fitted law, and how well its parameters are known.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct UslFit {
    /// The law that fits best.
    pub law: Usl,
    /// `lambda` lies in between with a confidence of 95 %.
    pub lambda: Interval,
    /// The same of `sigma`. If it begins at zero, there may be no contention at all.
    pub sigma: Interval,
    /// The same of `kappa`. If it begins at zero, there may be no peak.
    pub kappa: Interval,
}

/// Confidence of the intervals, to one side.
const ONE_SIDED: f64 = 0.975;

/// Numbers of users that are closer together than this are the same.
const SAME: f64 = 1e-6;

impl Usl {
    /// Fits the law to pairs of (users, throughput), by least squares of the time in the
    /// system, `n / X(n)`, which is a parabola of `n`. Contention and coherency are not below zero,
    /// since nothing is done faster for being disturbed.
    ///
    /// The intervals come from how far the points are off the parabola, so they include what the law
    /// itself is wrong by, with Student's t for the points that are left over: those of `sigma` and
    /// `kappa` are ratios of its coefficients (Fieller, "Some problems in interval estimation", 1954).
    ///
    /// `None` with fewer than four different numbers of users, since any three points lie on a
    /// parabola, if no such law fits, or if the points leave open whether `lambda` has any bound.
    ///
    /// ```
    /// use balter_controllers::Usl;
    ///
    /// let law = Usl { lambda: 100.0, sigma: 0.05, kappa: 0.001 };
    /// let noise = [1.01, 0.99, 1.01, 1.0, 0.99];
    /// let points: Vec<_> =
    ///     [1.0, 4.0, 16.0, 64.0, 128.0].iter().zip(noise).map(|(&n, e)| (n, law.throughput(n) * e)).collect();
    /// let fitted = Usl::fit(&points).expect("five points");
    /// assert!(fitted.sigma.low < 0.05 && 0.05 < fitted.sigma.high);
    /// assert!((fitted.law.peak().expect("it has one") - 31.0).abs() < 3.0);
    /// assert!(Usl::fit(&points[..3]).is_none());
    /// ```
    #[must_use]
    pub fn fit(points: &[(f64, f64)]) -> Option<UslFit> {
        let usable = points.iter().filter(|(n, x)| *n > 0.0 && *x > 0.0);
        let points: Vec<_> = usable.map(|&(n, x)| (n, n / x)).collect();
        let mut different: Vec<_> = points.iter().map(|point| point.0).collect();
        different.sort_by(f64::total_cmp);
        different.dedup_by(|one, other| (*one / *other - 1.0).abs() < SAME);
        if different.len() <= TERMS.len() {
            return None;
        }
        // The constraints are active or not: of what keeps to them, the best.
        let models = [&TERMS[..], &[0, 1], &[0, 2], &[0]];
        let fits = models.into_iter().filter_map(|terms| Self::fit_terms(&points, terms));
        let (law, _) = fits.min_by(|one, other| one.1.total_cmp(&other.1))?;
        let parabola = least_squares(&points, &TERMS)?;
        let degrees = (points.len() - TERMS.len()) as f64;
        let off = |&(n, y): &(f64, f64)| (parabola.at(n) / y - 1.0).powi(2);
        let variance = points.iter().map(off).sum::<f64>() / degrees;
        let t = student::quantile(ONE_SIDED, degrees);
        let [lambda, sigma, kappa] = parabola.intervals(t * t * variance)?;
        // What was fitted keeps to the constraints, and so do the intervals.
        let within = |interval: Interval, value: f64| Interval {
            low: interval.low.max(0.0).min(value),
            high: interval.high.max(value),
        };
        Some(UslFit {
            law,
            lambda: within(lambda, law.lambda),
            sigma: within(sigma, law.sigma),
            kappa: within(kappa, law.kappa),
        })
    }

    /// The law with these terms alone, and the squares of its relative errors; `None` if it breaks
    /// the constraints.
    fn fit_terms(points: &[(f64, f64)], terms: &[usize]) -> Option<(Self, f64)> {
        let [one, contention, coherency] = least_squares(points, terms)?.coefficients;
        let lambda = 1.0 / one;
        // What is left of rounding would be a peak that is nowhere.
        let whole = |share: f64| if share.abs() < 1e-12 { 0.0 } else { share };
        let (sigma, kappa) = (whole(contention * lambda), whole(coherency * lambda));
        let keeps = lambda.is_finite() && lambda > 0.0 && sigma >= 0.0 && kappa >= 0.0;
        let law = Self { lambda, sigma, kappa };
        let error = |&(n, y): &(f64, f64)| (n / law.throughput(n) / y - 1.0).powi(2);
        keeps.then(|| (law, points.iter().map(error).sum()))
    }

    /// Transactions a second with so many users.
    #[must_use]
    pub fn throughput(&self, users: f64) -> f64 {
        let n = users;
        self.lambda * n / (1.0 + self.sigma * (n - 1.0) + self.kappa * n * (n - 1.0))
    }

    /// How many users give the highest throughput; `None` if more always give more.
    #[must_use]
    pub fn peak(&self) -> Option<f64> {
        (self.kappa > 0.0).then(|| ((1.0 - self.sigma).max(0.0) / self.kappa).sqrt())
    }
}

/// `1`, `n - 1` and `n (n - 1)`.
const TERMS: [usize; 3] = [0, 1, 2];

fn terms_at(n: f64) -> [f64; 3] {
    [1.0, n - 1.0, n * (n - 1.0)]
}

/// A parabola by least squares.
struct Parabola {
    coefficients: [f64; 3],
    /// Their covariances, when the points have errors of variance one, in relation to their size.
    covariances: [[f64; 3]; 3],
}

impl Parabola {
    fn at(&self, n: f64) -> f64 {
        terms_at(n).iter().zip(self.coefficients).map(|(term, value)| term * value).sum()
    }

    /// Those of `1 / a`, `b / a` and `c / a`, where `reach` is the square of so many standard deviations.
    /// `None` if `a` may be zero.
    fn intervals(&self, reach: f64) -> Option<[Interval; 3]> {
        let [a, ..] = self.coefficients;
        let variance = self.covariances[0][0];
        let half = (reach * variance).sqrt();
        // Not so either where one of them is no number.
        let is_bounded = half < a;
        if !is_bounded {
            return None;
        }
        let g = half * half / (a * a);
        let ratio = |index: usize| {
            let value = self.coefficients[index] / a;
            let (shared, own) = (self.covariances[0][index], self.covariances[index][index]);
            let middle = (value - g * shared / variance.max(f64::MIN_POSITIVE)) / (1.0 - g);
            let inside = own - 2.0 * value * shared + value * value * variance
                - g * (own - shared * shared / variance.max(f64::MIN_POSITIVE));
            let half = (reach * inside.max(0.0)).sqrt() / (a * (1.0 - g));
            Interval { low: middle - half, high: middle + half }
        };
        let lambda = Interval { low: 1.0 / (a + half), high: 1.0 / (a - half) };
        Some([lambda, ratio(1), ratio(2)])
    }
}

/// The parabola of these of the [`TERMS`], by the normal equations. The terms are scaled to about one at
/// most, so that these stay well conditioned.
fn least_squares(points: &[(f64, f64)], terms: &[usize]) -> Option<Parabola> {
    let most = points.iter().map(|point| point.0).fold(0.0, f64::max);
    let scales = [1.0, most, most * most];
    let size = terms.len();
    // The equations, their right side, and what becomes the inverse.
    let mut matrix = vec![vec![0.0; 2 * size + 1]; size];
    for (index, row) in matrix.iter_mut().enumerate() {
        row[size + 1 + index] = 1.0;
    }
    for &(n, y) in points {
        // Relative errors count, as they do in measured times.
        let weight = 1.0 / (y * y);
        let values: Vec<_> = terms.iter().map(|&term| terms_at(n)[term] / scales[term]).collect();
        for (row, term) in matrix.iter_mut().zip(&values) {
            for (cell, other) in row.iter_mut().zip(&values) {
                *cell += weight * term * other;
            }
            row[size] += weight * term * y;
        }
    }
    for pivot in 0..size {
        let best = (pivot..size)
            .max_by(|&one, &two| matrix[one][pivot].abs().total_cmp(&matrix[two][pivot].abs()))?;
        matrix.swap(pivot, best);
        if matrix[pivot][pivot].abs() < 1e-300 {
            return None;
        }
        let row = matrix[pivot].clone();
        for (index, other) in matrix.iter_mut().enumerate() {
            if index != pivot {
                let factor = other[pivot] / row[pivot];
                for (cell, value) in other.iter_mut().zip(&row) {
                    *cell -= factor * value;
                }
            }
        }
    }
    let mut parabola = Parabola { coefficients: [0.0; 3], covariances: [[0.0; 3]; 3] };
    for (index, &term) in terms.iter().enumerate() {
        let (row, pivot) = (&matrix[index], matrix[index][index]);
        parabola.coefficients[term] = row[size] / pivot / scales[term];
        for (column, &other) in terms.iter().enumerate() {
            parabola.covariances[term][other] =
                row[size + 1 + column] / pivot / scales[term] / scales[other];
        }
    }
    Some(parabola)
}
