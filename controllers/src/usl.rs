//! How throughput grows with what is under way at once: Gunther's Universal Scalability Law.

/// `X(n) = lambda·n / (1 + sigma·(n − 1) + kappa·n·(n − 1))`, fitted to measurements.
///
/// Neil Gunther, "Guerrilla Capacity Planning", 2007.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Usl {
    /// Transactions a second with one under way.
    pub lambda: f64,
    /// Contention: the share of the work that is done one at a time, `0.0..`.
    pub sigma: f64,
    /// Coherency: what each pays for every other, `0.0..`. Above zero throughput has a peak.
    pub kappa: f64,
}

impl Usl {
    /// Fits the law to pairs of (under way, throughput), by least squares of the time in the
    /// system, `n / X(n)`, which is a parabola of `n`. Contention and coherency are not below zero,
    /// since nothing is done faster for being disturbed. `None` with fewer than
    /// three different numbers under way, or if no such law fits.
    ///
    /// ```
    /// use balter_controllers::Usl;
    ///
    /// let law = Usl { lambda: 100.0, sigma: 0.05, kappa: 0.001 };
    /// let points: Vec<_> = [1.0, 4.0, 16.0, 64.0].map(|n| (n, law.throughput(n))).to_vec();
    /// let fitted = Usl::fit(&points).expect("four points");
    /// assert!((fitted.sigma - 0.05).abs() < 1e-6 && (fitted.kappa - 0.001).abs() < 1e-9);
    /// assert_eq!(fitted.peak().expect("it has one").round(), 31.0);
    /// ```
    #[must_use]
    pub fn fit(points: &[(f64, f64)]) -> Option<Self> {
        let usable = points.iter().filter(|(n, x)| *n > 0.0 && *x > 0.0);
        let points: Vec<_> = usable.map(|&(n, x)| (n, n / x)).collect();
        let mut different: Vec<_> = points.iter().map(|point| point.0).collect();
        different.sort_by(f64::total_cmp);
        different.dedup_by(|one, other| (*one / *other - 1.0).abs() < 1e-6);
        if different.len() < 3 {
            return None;
        }
        // The constraints are active or not: of what keeps to them, the best.
        let models = [&[0, 1, 2][..], &[0, 1], &[0, 2], &[0]];
        let fits = models.into_iter().filter_map(|terms| Self::fit_terms(&points, terms));
        fits.min_by(|one, other| one.1.total_cmp(&other.1)).map(|(law, _)| law)
    }

    /// The law with these terms alone, and the squares of its relative errors; `None` if it breaks
    /// the constraints.
    fn fit_terms(points: &[(f64, f64)], terms: &[usize]) -> Option<(Self, f64)> {
        let mut coefficients = [0.0; 3];
        for (term, value) in terms.iter().zip(least_squares(points, terms)?) {
            coefficients[*term] = value;
        }
        let [one, contention, coherency] = coefficients;
        let lambda = 1.0 / one;
        // What is left of rounding would be a peak that is nowhere.
        let whole = |share: f64| if share.abs() < 1e-12 { 0.0 } else { share };
        let (sigma, kappa) = (whole(contention * lambda), whole(coherency * lambda));
        let keeps = lambda.is_finite() && lambda > 0.0 && sigma >= 0.0 && kappa >= 0.0;
        let law = Self { lambda, sigma, kappa };
        let error = |&(n, y): &(f64, f64)| (n / law.throughput(n) / y - 1.0).powi(2);
        keeps.then(|| (law, points.iter().map(error).sum()))
    }

    /// Transactions a second with so many under way.
    #[must_use]
    pub fn throughput(&self, under_way: f64) -> f64 {
        let n = under_way;
        self.lambda * n / (1.0 + self.sigma * (n - 1.0) + self.kappa * n * (n - 1.0))
    }

    /// How many under way give the highest throughput; `None` if more always give more.
    #[must_use]
    pub fn peak(&self) -> Option<f64> {
        (self.kappa > 0.0).then(|| ((1.0 - self.sigma).max(0.0) / self.kappa).sqrt())
    }
}

/// Coefficients of these of the terms `1`, `n - 1` and `n (n - 1)`, by the normal equations. The
/// terms are scaled to about one at most, so that these stay well conditioned.
fn least_squares(points: &[(f64, f64)], terms: &[usize]) -> Option<Vec<f64>> {
    let most = points.iter().map(|point| point.0).fold(0.0, f64::max);
    let scales = [1.0, most, most * most];
    let all = |n: f64| [1.0, n - 1.0, n * (n - 1.0)];
    let size = terms.len();
    let mut matrix = vec![vec![0.0; size + 1]; size];
    for &(n, y) in points {
        // Relative errors count, as they do in measured times.
        let weight = 1.0 / (y * y);
        let values: Vec<_> = terms.iter().map(|&term| all(n)[term] / scales[term]).collect();
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
    let solved = terms
        .iter()
        .enumerate()
        .map(|(index, &term)| matrix[index][size] / matrix[index][index] / scales[term]);
    Some(solved.collect())
}
