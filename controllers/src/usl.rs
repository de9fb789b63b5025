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
    /// system, `n / X(n)`, which is a parabola of `n`. Contention and coherency below zero are
    /// brought to zero, since nothing is done faster for being disturbed. `None` with fewer than
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
        // The constraints are active or not: from the fullest model to the plainest.
        for powers in [&[0, 1, 2][..], &[0, 1], &[0, 2], &[0]] {
            let Some(solved) = least_squares(&points, powers) else { continue };
            let mut coefficients = [0.0; 3];
            for (power, value) in powers.iter().zip(solved) {
                coefficients[*power] = value;
            }
            let [a, b, c] = coefficients;
            let lambda = 1.0 / (a + b + c);
            let (kappa, sigma) = (c * lambda, (b + c) * lambda);
            if lambda.is_finite() && lambda > 0.0 && sigma >= -1e-9 && kappa >= -1e-12 {
                return Some(Self { lambda, sigma: sigma.max(0.0), kappa: kappa.max(0.0) });
            }
        }
        None
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

/// Coefficients of a polynomial with these powers, by the normal equations. The abscissae are
/// scaled to at most one, so that these stay well conditioned.
fn least_squares(points: &[(f64, f64)], powers: &[usize]) -> Option<Vec<f64>> {
    let scale = points.iter().map(|point| point.0).fold(0.0, f64::max);
    let size = powers.len();
    let mut matrix = vec![vec![0.0; size + 1]; size];
    for &(n, y) in points {
        // Relative errors count, as they do in measured times.
        let weight = 1.0 / (y * y);
        let terms: Vec<_> = powers.iter().map(|&power| (n / scale).powi(power as i32)).collect();
        for (row, term) in matrix.iter_mut().zip(&terms) {
            for (cell, other) in row.iter_mut().zip(&terms) {
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
    let solved = powers.iter().enumerate().map(|(index, &power)| {
        matrix[index][size] / matrix[index][index] / scale.powi(power as i32)
    });
    Some(solved.collect())
}
