//! The fit of the scalability law.

use balter_controllers::Usl;
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_law_is_found_again_from_its_points(
        lambda in 1.0..1e6_f64,
        sigma in 0.0..0.5_f64,
        kappa in 0.0..0.01_f64,
        noise in prop::collection::vec(-0.01..0.01_f64, 8),
    ) {
        let law = Usl { lambda, sigma, kappa };
        let under_way = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];
        let points: Vec<_> = under_way
            .iter()
            .zip(&noise)
            .map(|(&n, noise)| (n, law.throughput(n) * (1.0 + noise)))
            .collect();
        let fitted = Usl::fit(&points).expect("eight points");
        for (n, _) in points {
            let off = fitted.throughput(n) / law.throughput(n) - 1.0;
            prop_assert!(off.abs() < 0.05, "off by {off} at {n}: {fitted:?}");
        }
    }
}

/// With a little noise the best parabola has contention below zero. What is left out then has to be the
/// contention, not the coherency.
#[test]
fn the_term_that_is_left_out_is_the_one_that_is_not_there() {
    let law = Usl { lambda: 1.0, sigma: 0.0, kappa: 0.001_32 };
    let mut points: Vec<_> =
        (0..8).map(|power| f64::from(1 << power)).map(|n| (n, law.throughput(n))).collect();
    points[7].1 *= 0.993;
    let fitted = Usl::fit(&points).expect("eight points");
    assert_eq!(fitted.sigma, 0.0);
    assert!((fitted.lambda - 1.0).abs() < 0.01 && fitted.kappa > 0.001, "{fitted:?}");
}

#[test]
fn what_cannot_be_fitted_is_not() {
    assert_eq!(Usl::fit(&[]), None);
    assert_eq!(Usl::fit(&[(1.0, 10.0), (1.0, 11.0), (2.0, 20.0)]), None);
    assert_eq!(Usl::fit(&[(0.0, 10.0), (1.0, 0.0), (2.0, -1.0), (3.0, 1.0)]), None);
}

#[test]
fn a_target_that_scales_without_end_has_no_peak() {
    let law = Usl::fit(&[(1.0, 100.0), (10.0, 1_000.0), (100.0, 10_000.0)]).expect("three points");
    assert_eq!((law.lambda.round(), law.peak()), (100.0, None));
}
