//! Student's t distribution, for intervals and comparisons from few observations.

/// The value that a `t` of so many degrees of freedom stays below with this probability (above one
/// half, below one).
///
/// The distribution function is a regularized incomplete beta function (Abramowitz and Stegun,
/// 26.7.1), which is inverted by bisection.
pub(crate) fn quantile(probability: f64, degrees: f64) -> f64 {
    let beyond = 1.0 - probability;
    let (mut low, mut high) = (0.0, 1.0);
    while tail(high, degrees) > beyond && high < 1e12 {
        (low, high) = (high, high * 2.0);
    }
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if tail(middle, degrees) > beyond { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// Probability that a `t` is above `value`, which is not negative.
fn tail(value: f64, degrees: f64) -> f64 {
    0.5 * incomplete_beta(degrees / 2.0, 0.5, degrees / (degrees + value * value))
}

/// Regularized incomplete beta function, by its continued fraction (Numerical Recipes, 6.4).
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    let ln_front = ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (1.0 - x).ln();
    let front = ln_front.exp();
    // It converges fast on one side, and the other follows by symmetry.
    if x < (a + 1.0) / (a + b + 2.0) {
        front * continued_fraction(a, b, x) / a
    } else {
        1.0 - front * continued_fraction(b, a, 1.0 - x) / b
    }
}

/// Lentz's method; some hundred terms are enough for all that is asked for here.
fn continued_fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away_from_zero = |value: f64| if value.abs() < TINY { TINY } else { value };
    let (mut c, mut d) = (1.0, 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for step in 1..500 {
        let m = f64::from(step);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        for term in [even, odd] {
            d = 1.0 / away_from_zero(1.0 + term * d);
            c = away_from_zero(1.0 + term / c);
            fraction *= c * d;
        }
        if (c * d - 1.0).abs() < 1e-14 {
            break;
        }
    }
    fraction
}

/// Logarithm of the gamma function of a positive number: Stirling's series, from where it is good to
/// twelve digits.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut shift) = (x, 0.0);
    while x < 10.0 {
        shift += x.ln();
        x += 1.0;
    }
    let series = 1.0 / (12.0 * x) - 1.0 / (360.0 * x.powi(3)) + 1.0 / (1_260.0 * x.powi(5));
    (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + series - shift
}

#[cfg(test)]
mod tests {
    use super::quantile;

    /// Values of printed tables.
    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (probability, degrees, value) in [
            (0.975, 1.0, 12.706),
            (0.975, 4.0, 2.776),
            (0.999, 4.0, 7.173),
            (0.995, 10.0, 3.169),
            (0.975, 120.0, 1.980),
            (0.975, 1e6, 1.960),
        ] {
            let found = quantile(probability, degrees);
            assert!((found - value).abs() < 1e-3, "{probability}, {degrees}: {found}");
        }
    }
}
